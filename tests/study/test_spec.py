"""The spec of a study: the files that come with soarctl, and what is refused."""

from pathlib import Path

import pytest

from soarctl.errors import SpecError
from soarctl.study.spec import Arm, Kind, StudySpec, load_study

ROOT = Path(__file__).parents[2]
RUN = "name: small\nmodel: {base: 'package:soarctl_letters/model'}\ndomain: {plugin: letters}\n"


@pytest.mark.parametrize("path", sorted((ROOT / "specs").glob("*_study.yaml")), ids=lambda path: path.name)
def test_a_study_that_comes_with_soarctl_is_read(path: Path) -> None:
    spec = load_study(path).spec
    assert spec.name == path.stem
    assert spec.arms == tuple(Arm)
    assert path.read_text().startswith("# yaml-language-server: $schema=study.schema.json\n")


def test_every_key_says_what_it_is() -> None:
    sections = StudySpec.model_json_schema()
    mute = [
        f"{section['title']}.{key}"
        for section in (sections, *sections["$defs"].values())
        for key, field in section.get("properties", {}).items()
        if not field.get("description") and "$ref" not in field
    ]
    assert mute == []


def test_only_the_runs_that_the_arms_need_are_asked_for() -> None:
    spec = StudySpec(name="a", run="run.yaml", arms=(Arm.BASE, Arm.PQ))
    assert spec.kinds == [Kind.GROUNDED]


def test_overrides_reach_the_study_and_its_set_reaches_the_runs(tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text(RUN)
    (tmp_path / "study.yaml").write_text("name: s\nrun: run.yaml\nset: [outer.steps=7]\n")
    study = load_study(tmp_path / "study.yaml", ["training.steps=9", "runs.grounded.count=1"])
    assert (study.spec.training.steps, study.spec.runs.grounded.count) == (9, 1)
    run = study.load_run(["reward.plugin=learnability", "seed=4"])
    assert (run.spec.outer.steps, run.spec.seed, run.spec.reward.plugin) == (7, 4, "learnability")


def test_an_unknown_key_is_named_with_its_place(tmp_path: Path) -> None:
    (tmp_path / "study.yaml").write_text("name: s\nrun: run.yaml\ntraining:\n  step: 3\n")
    with pytest.raises(SpecError) as caught:
        load_study(tmp_path / "study.yaml")
    assert f"{tmp_path}/study.yaml:4:3: training.step: unknown key" in str(caught.value)


def test_the_arms_stand_once(tmp_path: Path) -> None:
    (tmp_path / "study.yaml").write_text("name: s\nrun: run.yaml\narms: [base, pq, base]\n")
    with pytest.raises(SpecError, match="an arm stands twice: base"):
        load_study(tmp_path / "study.yaml")


def test_pass_at_k_needs_as_many_samples(tmp_path: Path) -> None:
    (tmp_path / "study.yaml").write_text("name: s\nrun: run.yaml\nmeasure: {samples: 4, k: [8]}\n")
    with pytest.raises(SpecError, match="pass@8 needs as many samples, and measure"):
        load_study(tmp_path / "study.yaml")
