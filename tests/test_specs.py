"""The specs that ship: they load, they can be planned without data or weights, and they say why they differ."""

import re
from pathlib import Path
from typing import Any

import pytest

from soarctl.plan import plan
from soarctl.spec_reader import load_spec
from soarctl.study.loading import load_study

SPECS = Path(__file__).parents[1] / "specs"
DATA = Path(__file__).parents[2] / "shared" / "data"
RUNS = sorted(path.stem for path in SPECS.glob("*.yaml") if not path.stem.endswith("_study"))


def load(name: str, *overrides: str) -> Any:
    return load_spec(SPECS / f"{name}.yaml", overrides)


@pytest.mark.parametrize("name", RUNS)
def test_a_spec_loads_under_its_own_name(name: str) -> None:
    assert load(name).spec.name == name.replace("_", "-")


@pytest.mark.parametrize("name", [name for name in RUNS if not name.startswith("quickstart")])
def test_a_plan_needs_neither_data_nor_weights_and_says_what_it_cannot_know(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    counted = plan(load(name))
    assert counted.candidates is None
    assert counted.count("filter").total is None
    assert counted.count("practice").total is not None
    assert "cannot be counted, and what depends on them is unknown: " in counted.warnings[0]


@pytest.mark.skipif(not DATA.is_dir(), reason="the real data files are not beside this checkout (../shared/data)")
@pytest.mark.parametrize(
    ("name", "file", "candidates"),
    [
        ("math_fail128", "math/math500.jsonl.gz", 500),
        ("math_small", "math/math500.jsonl.gz", 500),
        ("harp_fail128", "harp/harp_short_dev.jsonl.gz", 228),
        ("olympiad_eval", "olympiadbench/OE_TO_maths_en_COMP_dev.json.gz", 338),
    ],
)
def test_with_data_the_candidates_are_counted(name: str, file: str, candidates: int) -> None:
    [source] = load(name).spec.domain.options["data"]
    moved = f"domain.data=[{{path: {DATA / file}, format: {source['format']}}}]"
    counted = plan(load(name, moved, "domain.symbolic=false"))
    assert counted.candidates == candidates
    samples = load(name).spec.filter.samples
    assert counted.count("filter").total == (candidates, candidates * samples)


def test_harp_is_run_as_math_is() -> None:
    math, harp = (load(name).spec.model_dump() for name in ("math_fail128", "harp_fail128"))
    assert [key for key in math if math[key] != harp[key]] == ["name", "domain"]


def test_the_full_quickstart_is_the_quickstart_with_other_rates_and_trainer() -> None:
    adapters, full = (load(name).spec.model_dump() for name in ("quickstart", "quickstart_full"))
    assert [key for key in adapters if adapters[key] != full[key]] == ["name", "trainer", "teacher", "inner"]
    for role in ("teacher", "inner"):
        assert full[role] == adapters[role] | {"lr": adapters[role]["lr"] / 2}


def test_the_paper_s_run_is_short() -> None:
    assert len((SPECS / "math_fail128.yaml").read_text().splitlines()) < 80


@pytest.mark.parametrize("name", ["harp_fail128", "olympiad_eval", "math_small"])
def test_every_number_that_differs_has_its_reason_beside_it(name: str) -> None:
    numbers = [line for line in (SPECS / f"{name}.yaml").read_text().splitlines() if re.match(r" +\w+: [\d.]", line)]
    assert numbers
    assert [line for line in numbers if "#" not in line] == []


def test_the_study_in_the_comment_of_olympiad_eval_is_one(tmp_path: Path) -> None:
    lines = (SPECS / "olympiad_eval.yaml").read_text().splitlines()
    start = next(i for i, line in enumerate(lines) if "name: olympiad_transfer" in line)
    study = [line.removeprefix("#   ") for line in lines[start : lines.index("", start)]]
    (tmp_path / "study.yaml").write_text("\n".join(study).replace("run: ", f"run: {SPECS}/"))
    (tmp_path / "pq").mkdir()
    (tmp_path / "pq" / "questions.jsonl").write_text('{"question": "1+1", "answer": "2"}\n')
    loaded = load_study(tmp_path / "study.yaml")
    assert loaded.spec.training.questions == 128
    assert loaded.load_run([]).spec.domain.options["data"][0]["format"] == "olympiadbench"
