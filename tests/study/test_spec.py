"""The spec of a study: the files that come with soarctl, and what is refused."""

from pathlib import Path

import pytest

from soarctl.errors import DataError, RunError, SpecError
from soarctl.study.loading import load_study
from soarctl.study.oracle import real_problems
from soarctl.study.spec import Arm, Kind, StudySpec

ROOT = Path(__file__).parents[2]
RUN = "name: small\nmodel: {base: 'package:soarctl_letters/model'}\ndomain: {plugin: letters}\n"


@pytest.mark.parametrize("path", sorted((ROOT / "specs").glob("*_study.yaml")), ids=lambda path: path.name)
def test_a_study_that_comes_with_soarctl_is_read(path: Path) -> None:
    spec = load_study(path).spec
    assert spec.name == path.stem
    assert spec.arms == tuple(Arm)
    assert path.read_text().startswith("# yaml-language-server: $schema=study.schema.json\n")


def test_the_oracle_of_the_quickstart_study_has_right_answers_and_as_many_problems_as_a_teacher() -> None:
    study = load_study(ROOT / "specs" / "quickstart_study.yaml")
    problems = real_problems(Path(str(study.spec.oracle)))
    domain = study.load_run([]).domain
    assert [problem.answer for problem in problems] == [domain.solve(problem.question) for problem in problems]
    assert len({problem.id for problem in problems}) >= study.spec.training.questions


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


def test_another_reward_drops_what_the_study_set_for_the_old_one(tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text(RUN)
    (tmp_path / "study.yaml").write_text("name: s\nrun: run.yaml\nset: [reward.questions=20, reward.samples=4]\n")
    study = load_study(tmp_path / "study.yaml")
    reward = {kind: study.load_run(study.spec.teachers(kind).set).spec.reward for kind in Kind}
    assert reward[Kind.GROUNDED].options["questions"] == 20
    assert reward[Kind.INTRINSIC].plugin == "learnability"
    assert reward[Kind.INTRINSIC].options["samples"] == 32


def test_a_mistake_in_the_spec_of_any_kind_of_run_is_found_at_once(tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text(RUN)
    kinds = "runs:\n  no_promotion:\n    set: [promotion.tauu=1]\n"
    (tmp_path / "study.yaml").write_text(f"name: s\nrun: run.yaml\n{kinds}")
    with pytest.raises(SpecError) as caught:
        load_study(tmp_path / "study.yaml")
    assert str(caught.value) == (
        f'{tmp_path}/study.yaml:5:5: runs.no_promotion.set: --set promotion.tauu=1: unknown key\n  did you mean "tau"?'
    )
    assert load_study(tmp_path / "study.yaml", ["arms=[base]"]).spec.kinds == []


def test_a_given_run_that_is_not_there_is_found_at_once(tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text(RUN)
    (tmp_path / "study.yaml").write_text("name: s\nrun: run.yaml\nruns: {intrinsic: {directories: [typo]}}\n")
    with pytest.raises(RunError, match="typo: no run here"):
        load_study(tmp_path / "study.yaml")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "easier.jsonl: the file of `oracle` cannot be read: No such file or directory"),
        ("\n", "easier.jsonl: the file of `oracle` is empty\n  JSON lines with question and answer"),
        ('{"question": "a", "answer": "b"}\n{"question": 5, "answer": "b"}\n', "2: question: expected a text, found 5"),
        ('{"question": "a"}\n', "easier.jsonl:1: answer: expected a text, found null"),
        ("[]\n", "easier.jsonl:1: expected an object with question and answer, found []"),
        ("a\n", "easier.jsonl:1: not a line of JSON: Expecting value: line 1 column 1 (char 0)"),
        ('{"question": "a", "answer": "b", "meta": 1}\n', "easier.jsonl:1: meta: expected keys and values, found 1"),
    ],
)
def test_an_oracle_without_problems_is_found_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str | None, said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("run.yaml").write_text(RUN)
    Path("study.yaml").write_text("name: s\nrun: run.yaml\noracle: easier.jsonl\n")
    if content is not None:
        Path("easier.jsonl").write_text(content)
    with pytest.raises(DataError) as caught:
        load_study("study.yaml")
    assert str(caught.value).endswith(said)
    assert load_study("study.yaml", ["arms=[base]"]).spec.arms == (Arm.BASE,)


def test_the_file_of_the_oracle_stands_beside_the_spec_or_in_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = '{"question": "a", "answer": "b"}\n'
    (tmp_path / "specs").mkdir()
    (tmp_path / "specs" / "run.yaml").write_text(RUN)
    (tmp_path / "specs" / "study.yaml").write_text("name: s\nrun: run.yaml\noracle: easier.jsonl\n")
    monkeypatch.chdir(tmp_path)
    Path("easier.jsonl").write_text(line)
    assert load_study("specs/study.yaml").spec.oracle == "easier.jsonl"
    Path("specs/easier.jsonl").write_text(line)
    assert load_study("specs/study.yaml").spec.oracle == "specs/easier.jsonl"


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
