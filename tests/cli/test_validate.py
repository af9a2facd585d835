"""soarctl validate, schema and plugins: what they print."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from soarctl import __version__
from soarctl.cli import app as cli
from soarctl.spec_reader import load_spec

PACKAGE = f"soarctl {__version__}"
ROOT = Path(__file__).parents[2]
SPEC = """\
name: small
model: {base: "package:soarctl_letters/model"}
domain: {plugin: letters}
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a.yaml").write_text(SPEC)


@pytest.fixture
def soarctl(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    def run(*arguments: str) -> tuple[Any, str, str]:
        monkeypatch.setattr(sys, "argv", ["soarctl", *arguments])
        with pytest.raises(SystemExit) as caught:
            cli.main()
        out, err = capsys.readouterr()
        return caught.value.code, out, err

    return run


def test_validate_says_what_a_spec_asks_for(soarctl: Any) -> None:
    code, out, err = soarctl("validate", "a.yaml", "--set", "outer.steps=5", "--set", "teacher.dataset_size=16")
    hash_ = load_spec("a.yaml", ["outer.steps=5", "teacher.dataset_size=16"]).hash[:16]
    assert (code, err) == (0, "")
    assert " ".join(out.split()) == (
        f"a.yaml is valid. small: domain letters ({PACKAGE}), reward grounded ({PACKAGE}), trainer accelerate "
        f"({PACKAGE}), model package:soarctl_letters/model, 5 outer steps of 4 datasets of 16 questions. "
        f"Hash {hash_}. outer.steps: 5 instead of 200 teacher.dataset_size: 16 instead of 64"
    )


def test_validate_prints_json(soarctl: Any) -> None:
    code, out, _ = soarctl("validate", "a.yaml", "--json", "--set", "seed=1")
    facts = json.loads(out)
    assert code == 0
    assert facts["name"] == "small"
    assert facts["domain"] == {"plugin": "letters", "package": PACKAGE}
    assert facts["overrides"] == [{"key": "seed", "old": 0, "new": 1, "source": "--set seed=1"}]
    assert facts["hash"] == load_spec("a.yaml", ["seed=1"]).hash


def test_validate_tells_all_that_is_wrong(soarctl: Any) -> None:
    Path("a.yaml").write_text(SPEC.replace("letters}", "letters, candidate: 3}") + "outer: {steps: many}\n")
    code, out, err = soarctl("validate", "a.yaml")
    assert (code, out) == (2, "")
    assert err == (
        "error: a.yaml: 2 problems\n"
        "  a.yaml:3:27: domain.candidate: unknown key\n"
        '    did you mean "candidates"?\n'
        '  a.yaml:4:9: outer.steps: expected a whole number, found "many"\n'
        "    T: teacher updates.\n"
    )


def test_schema_prints_the_schema_that_ships(soarctl: Any) -> None:
    code, out, _ = soarctl("schema")
    assert code == 0
    assert out == (ROOT / "specs/spec.schema.json").read_text()


def test_schema_prints_the_options_of_a_plug_in(soarctl: Any) -> None:
    code, out, _ = soarctl("schema", "--plugin", "reward:learnability")
    assert code == 0
    assert json.loads(out)["properties"]["samples"]["default"] == 32


@pytest.mark.parametrize(
    ("plugin", "message"),
    [
        ("letters", "--plugin: expected KIND:NAME, found letters\n  KIND is one of domain, reward, trainer, sampler"),
        ("grader:x", "--plugin: expected KIND:NAME, found grader:x\n  KIND is one of domain, reward, trainer, sampler"),
        ("domain:letter", 'domain.plugin: no domain is called "letter"\n  did you mean "letters"?'),
    ],
)
def test_schema_of_what_is_no_plug_in_is_an_error(soarctl: Any, plugin: str, message: str) -> None:
    assert soarctl("schema", "--plugin", plugin) == (2, "", f"error: {message}\n")


def test_plugins_lists_what_is_installed(soarctl: Any) -> None:
    code, out, _ = soarctl("plugins", "--json")
    assert code == 0
    assert {
        "kind": "reward",
        "name": "grounded",
        "package": "soarctl",
        "version": __version__,
        "target": "soarctl_rewards.grounded:Grounded",
        "problem": None,
    } in json.loads(out)


def test_schema_prints_that_of_studies(soarctl: Any) -> None:
    code, out, _ = soarctl("schema", "--study")
    assert code == 0
    assert json.loads(out) == json.loads((ROOT / "specs/study.schema.json").read_text())
    code, _, err = soarctl("schema", "--study", "--plugin", "domain:math")
    assert (code, err) == (
        2,
        "error: --plugin domain:math: --study and --plugin ask for different schemas\n  give one\n",
    )


def test_validate_names_the_files_that_are_not_here(soarctl: Any) -> None:
    Path("b.yaml").write_text(
        "name: b\nmodel: {base: ./model}\ndomain:\n  plugin: math\n  data:\n    - path: MATH\n"
        "filter: {reuse: hard.jsonl}\n"
    )
    code, out, _ = soarctl("validate", "b.yaml")
    assert code == 0
    assert out.splitlines()[-3:] == [
        "not here, and a run needs it: b.yaml:6:7: domain.data[0].path: no such file or folder: MATH",
        'not here, and a run needs it: b.yaml:2:9: model.base: there is no directory "./model"',
        "not here, and a run needs it: b.yaml:7:10: filter.reuse: no such file: hard.jsonl",
    ]
    missing = json.loads(soarctl("validate", "b.yaml", "--json")[1])["missing"]
    assert missing[1] == {"at": "b.yaml:2:9: model.base", "message": 'there is no directory "./model"'}
    for name in ("model", "MATH"):
        Path(name).mkdir()
    Path("hard.jsonl").touch()
    Path("hard.manifest.json").touch()
    assert "not here" not in soarctl("validate", "b.yaml")[1]


def test_validate_refuses_a_template_that_does_not_compile_and_a_tier_that_is_too_weak(soarctl: Any) -> None:
    code, _, err = soarctl("validate", "a.yaml", "--set", "domain={plugin: math, student_template: '{{ question'}")
    assert code == 2
    assert "student_template: the template does not compile: " in err
    code, _, err = soarctl("validate", "a.yaml", "--set", "domain={plugin: code, sandbox: {tier: unsafe}}")
    assert code == 2
    assert 'domain.sandbox: the tier "unsafe" is weaker than min_tier "seccomp": NOT ISOLATED' in err


RUNS = sorted(path for path in (ROOT / "specs").glob("*.yaml") if not path.stem.endswith("_study"))


@pytest.mark.parametrize("path", RUNS, ids=lambda path: path.name)
def test_a_spec_that_ships_is_valid_and_tells_editors_its_schema(path: Path, soarctl: Any) -> None:
    assert path.read_text().startswith("# yaml-language-server: $schema=spec.schema.json\n")
    assert soarctl("validate", str(path))[0] == 0


def test_a_study_is_checked_with_the_spec_of_its_runs(soarctl: Any) -> None:
    Path("study.yaml").write_text("name: both\nrun: a.yaml\narms: [hard_only, pq]\nseeds: 2\ntraining: {steps: 9}\n")
    code, out, _ = soarctl("validate", "study.yaml")
    assert code == 0
    assert " ".join(out.split()).startswith(
        "study.yaml is a valid study. both: 2 arms of 2 students, trained for 9 steps; runs: 3 grounded. "
        "Their spec is valid. small: domain letters"
    )
    _, out, _ = soarctl("validate", "study.yaml", "--json")
    assert json.loads(out)["run"]["name"] == "small"
    assert json.loads(out)["arms"] == ["hard_only", "pq"]

    code, _, err = soarctl("validate", "study.yaml", "--set", "arms=[hard]")
    assert code == 2
    assert err.startswith("error: --set arms=[hard]: arms[0]: expected base, hard_only,")
    code, _, err = soarctl("validate", "study.yaml", "--set", "set=['inner.step=3']")
    assert code == 2
    assert "inner.step" in err


def test_a_study_and_a_run_are_told_apart(soarctl: Any) -> None:
    Path("study.yaml").write_text("name: both\nrun: a.yaml\n")
    said = (
        "error: study.yaml: this is the spec of a study, not of a run\n"
        "  `soarctl study study.yaml` runs it, and `soarctl validate study.yaml` checks it;\n"
        "  its runs follow a.yaml, beside it\n"
    )
    for command in (["run"], ["plan"], ["doctor"], ["bench"], ["filter", "--out", "hard.jsonl"]):
        code, _, err = soarctl(*command, "study.yaml")
        assert (code, err) == (2, said), command
    code, _, err = soarctl("study", "a.yaml")
    assert (code, err) == (
        2,
        "error: a.yaml: this is the spec of a run, not of a study\n  `soarctl run a.yaml` runs it\n",
    )


def test_the_studies_that_ship_are_valid(soarctl: Any) -> None:
    for name in ("quickstart_study", "math_study"):
        assert soarctl("validate", str(ROOT / "specs" / f"{name}.yaml"))[0] == 0, name
