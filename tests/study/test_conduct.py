"""A whole study of the toy world: what it compares, what it reads, and what happens when it stops."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from soarctl.errors import DataError, RunError
from soarctl.events import silent
from soarctl.filter_results import filter_to_file
from soarctl.ledger import STUDY_FILE, Ledger
from soarctl.study.spec import Arm
from soarctl.study.table import open_study, study_table
from soarctl.testing import toy_run
from soarctl.toy import ToyEngine

SMALL: dict[str, Any] = {
    "arms": ["base", "hard_only", "grounded_t", "pq", "ps"],
    "runs": {"grounded": {"count": 1}},
    "seeds": 2,
}


class Stop(BaseException):
    """Stands for a kill."""


def stop_at(event: str, count: int) -> Callable[..., None]:
    seen = 0

    def tell(name: str, /, **facts: Any) -> None:
        nonlocal seen
        seen += name == event
        if seen == count:
            raise Stop

    return tell


def content(directory: Path) -> str:
    with open_study(directory) as ledger:
        studied = ledger.content()
    for run in sorted((directory / "runs").iterdir()):
        with Ledger.open(run, read_only=True) as ledger:
            studied += ledger.content()
    return studied


def weights(directory: Path) -> dict[str, bytes]:
    return {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*.safetensors")}


@pytest.fixture(scope="module")
def small(toy_study: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy_study(tmp_path_factory.mktemp("small") / "study", **SMALL)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Results of `soarctl filter` for twice the candidates of the toy study, which other studies use as well."""
    path = tmp_path_factory.mktemp("shared") / "hard.jsonl"
    loaded = toy_run(domain={"lengths": [2, 4], "each": 20})
    filter_to_file(loaded.spec, loaded.domain, loaded.trainer.load(loaded.spec.model, 0), path, silent)
    return path


def test_every_arm_is_in_the_table_with_all_its_students(whole_study: Path) -> None:
    with open_study(whole_study) as ledger:
        table = study_table(ledger)
    assert [row.arm for row in table.arms] == [str(arm) for arm in Arm]
    assert {len(row.students) for row in table.arms} == {3}
    assert (table.waiting, table.skipped) == ([], {})


def test_students_are_dealt_to_teachers_in_turn(whole_study: Path) -> None:
    with open_study(whole_study) as ledger:
        rows = {row.arm: row for row in study_table(ledger).arms}
    assert [s.source for s in rows["intrinsic_t"].students] == ["intrinsic-0", "intrinsic-1", "intrinsic-0"]
    assert set(rows["grounded_t"].teachers) == {"grounded-0", "grounded-1"}
    assert rows["hard_only"].teachers == {}
    assert rows["hard_only"].differences is None


def test_every_trained_student_has_the_same_budget(whole_study: Path) -> None:
    with open_study(whole_study) as ledger:
        rows = ledger.rows("SELECT arm, student, COUNT(*), MAX(step) FROM study_steps GROUP BY arm, student")
        measured = ledger.rows("SELECT DISTINCT step FROM study_evaluations ORDER BY step")
    assert len(rows) == 3 * (len(Arm) - 2)
    assert {(count, last) for _, _, count, last in rows} == {(8, 8)}
    assert measured == [(0,), (3,), (6,), (8,)]


def test_runs_share_their_hard_problems_and_never_read_the_held_out_half(whole_study: Path) -> None:
    with open_study(whole_study) as ledger:
        split = ledger.facts["split"]
        test = {id for (id,) in ledger.rows("SELECT id FROM problems WHERE half = 'test'")}
        practised = {
            id for (asked,) in ledger.rows("SELECT questions FROM study_students") for id, _ in json.loads(asked)
        }
    assert not test & practised
    for run in (whole_study / "runs").iterdir():
        with Ledger.open(run, read_only=True) as ledger:
            assert ledger.facts["split"]["test"] == split["test"]
            assert "test_half_opened_after_step" not in ledger.facts
            assert ledger.rows("SELECT * FROM evaluations") == []
            drawn = {id for (ids,) in ledger.rows("SELECT q_r FROM steps") for id in json.loads(ids)}
            assert drawn or run.name.startswith("intrinsic")
            assert not test & drawn


def test_the_ledger_holds_every_reading_of_the_held_out_half(whole_study: Path) -> None:
    with open_study(whole_study) as ledger:
        table = study_table(ledger)
        counts = {len(json.loads(c)) for (c,) in ledger.rows("SELECT correct FROM study_evaluations")}
    # Ten trained arms measured three times and two others once, three students each.
    assert table.readings == 3 * (10 * 3 + 2)
    assert counts == {table.problems}


def test_the_promoted_student_beats_the_base_model(whole_study: Path) -> None:
    with open_study(whole_study) as ledger:
        rows = {row.arm: row for row in study_table(ledger).arms}
    assert rows["ps"].pass_at[1].mean > 3 * rows["base"].pass_at[1].mean


@pytest.mark.parametrize(
    ("event", "count"),
    [
        ("filter", 1),
        ("step", 2),
        ("study_step", 3),
        ("study_measured", 1),
        ("study_step", 12),
        ("study_measured", 5),
        ("study_arm", 5),
    ],
)
def test_a_study_that_stops_and_starts_again_ends_as_one_that_did_not(
    toy_study: Callable[..., Path], small: Path, tmp_path: Path, event: str, count: int
) -> None:
    with pytest.raises(Stop):
        toy_study(tmp_path / "study", stop_at(event, count), **SMALL)
    toy_study(tmp_path / "study", **SMALL)
    assert content(tmp_path / "study") == content(small)
    assert weights(tmp_path / "study") == weights(small)


def test_students_that_are_measured_as_they_are_need_not_share_a_fleet(
    toy_study: Callable[..., Path], tmp_path: Path
) -> None:
    alone: dict[str, Any] = {"arms": ["base", "ps"], "runs": {"grounded": {"count": 1}}, "seeds": 3}
    alone["set"] = ["trainer.side_by_side=1"]
    whole = toy_study(tmp_path / "whole" / "study", **alone)
    for count in (2, 5):
        stopped = tmp_path / f"stopped-{count}" / "study"
        with pytest.raises(Stop):
            toy_study(stopped, stop_at("study_measured", count), **alone)
        toy_study(stopped, **alone)
        assert content(stopped) == content(whole)


@pytest.mark.parametrize("event", ["started", "step"])
def test_a_study_goes_on_under_another_name_and_in_another_place(
    toy_study: Callable[..., Path], small: Path, tmp_path: Path, event: str
) -> None:
    with pytest.raises(Stop):
        toy_study(tmp_path / "before", stop_at(event, 1), **SMALL)
    (tmp_path / "before").rename(tmp_path / "after")
    toy_study(tmp_path / "after", **SMALL)
    with open_study(tmp_path / "after") as here, open_study(small) as there:
        assert study_table(here).arms == study_table(there).arms


def test_where_shared_results_were_does_not_matter_once_they_are_taken(
    toy_study: Callable[..., Path], shared: Path, tmp_path: Path
) -> None:
    arms = SMALL | {"arms": ["grounded_t"]}
    with pytest.raises(Stop):
        toy_study(tmp_path / "study", stop_at("step", 1), **arms, set=[f"filter.reuse={shared}"])
    toy_study(tmp_path / "study", **arms, set=["filter.reuse=gone.jsonl"])
    with open_study(tmp_path / "study") as ledger:
        assert [row.arm for row in study_table(ledger).arms] == ["grounded_t"]


def test_a_finished_study_does_nothing_when_started_again(toy_study: Callable[..., Path], small: Path) -> None:
    told: list[str] = []
    toy_study(small, lambda event, /, **facts: told.append(event), **SMALL)
    assert told == ["study_started", "study_finished"]


def test_more_arms_may_be_asked_for_later(toy_study: Callable[..., Path], small: Path, tmp_path: Path) -> None:
    toy_study(tmp_path / "study", **SMALL | {"arms": ["base"]})
    toy_study(tmp_path / "study", **SMALL)
    assert content(tmp_path / "study") == content(small)


def test_another_spec_needs_another_directory(toy_study: Callable[..., Path], small: Path) -> None:
    with pytest.raises(RunError) as caught:
        toy_study(small, **SMALL | {"seeds": 3})
    assert str(caught.value) == (
        "study: the spec is not the one that this study was started with\n"
        "  seeds: was 2, is 3\n"
        "  only name, arms, stop may change; another spec needs another directory"
    )


def test_given_runs_are_taken_and_bring_their_hard_problems(
    toy_study: Callable[..., Path], small: Path, tmp_path: Path
) -> None:
    given = {"grounded": {"directories": [str(small / "runs" / "grounded-0")]}}
    toy_study(tmp_path, **SMALL | {"runs": given})
    assert not (tmp_path / "runs").exists()
    with open_study(tmp_path) as here, open_study(small) as there:
        assert here.facts["split"] == there.facts["split"]
        assert study_table(here).arms == study_table(there).arms


def test_a_study_never_writes_to_the_results_that_it_reuses(
    toy_study: Callable[..., Path], small: Path, shared: Path, tmp_path: Path
) -> None:
    before = {path: path.read_bytes() for path in shared.parent.iterdir()}
    given = {"grounded": {"directories": [str(small / "runs" / "grounded-0")]}, "intrinsic": {"count": 1}}
    for name, runs in (("given", given), ("made", SMALL["runs"] | {"intrinsic": {"count": 1}})):
        arms = SMALL | {"arms": ["grounded_t", "intrinsic_t"], "runs": runs}
        toy_study(tmp_path / name, **arms, set=[f"filter.reuse={shared}"])
        assert {path: path.read_bytes() for path in shared.parent.iterdir()} == before
        made = tmp_path / name / "runs" / "intrinsic-0"
        with open_study(tmp_path / name) as ledger, Ledger.open(made, read_only=True) as run:
            assert run.facts["split"] == ledger.facts["split"]
            assert len(run.filtered()) == 20


def test_runs_with_other_hard_problems_do_not_go_together(
    toy_study: Callable[..., Path], small: Path, tmp_path: Path
) -> None:
    toy_study(tmp_path / "other", **SMALL | {"arms": ["pq"], "training": {"steps": 1}, "set": ["split.seed=1"]})
    places = [str(small / "runs/grounded-0"), str(tmp_path / "other/runs/grounded-0")]
    with pytest.raises(RunError, match="other hard problems, or other halves, than the study"):
        toy_study(tmp_path / "both", **SMALL | {"runs": {"grounded": {"directories": places}}})
    assert not (tmp_path / "both" / STUDY_FILE).exists()


def test_a_run_of_another_base_model_does_not_go_with_the_study(
    toy_study: Callable[..., Path], small: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    shutil.copytree(small / "runs" / "grounded-0", other)
    with Ledger.open(other) as ledger:
        ledger.set_facts({"model": {"base": "moved", "weights_sha256": "moved"}})
    for name, given in (("first", [small / "runs/grounded-0", other]), ("alone", [other])):
        with pytest.raises(RunError, match=r"base model (moved|toy) is not"):
            toy_study(tmp_path / name, **SMALL | {"runs": {"grounded": {"directories": [*map(str, given)]}}})


def test_a_study_does_not_go_on_with_another_base_model(
    toy_study: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = SMALL | {"arms": ["base"], "set": ["trainer.side_by_side=1"]}
    with pytest.raises(Stop):
        toy_study(tmp_path / "study", stop_at("study_measured", 2), **base)
    monkeypatch.setattr(ToyEngine, "facts", {"base": "toy", "weights_sha256": "another"})
    with pytest.raises(RunError) as caught:
        toy_study(tmp_path / "study", **base)
    assert "the base model toy is not the one that this study was started with" in str(caught.value)


def test_a_run_under_the_wrong_kind_is_refused(
    toy_study: Callable[..., Path], whole_study: Path, tmp_path: Path
) -> None:
    for kind, arm, run, said in (
        ("grounded", "pq", "intrinsic-0", "the run's reward is learnability, and grounded"),
        (
            "intrinsic",
            "intrinsic_t",
            "grounded-0",
            "the run's reward is grounded, and intrinsic",
        ),
        ("no_promotion", "no_promotion_t", "grounded-0", "the run made promotions (1), and no_promotion"),
    ):
        given = {kind: {"directories": [str(whole_study / "runs" / run)]}}
        with pytest.raises(RunError) as caught:
            toy_study(tmp_path / kind, **SMALL | {"arms": [arm], "runs": given})
        assert said in str(caught.value)
        assert not list((tmp_path / kind).glob("*.sqlite"))


def test_given_runs_that_halve_otherwise_than_the_missing_ones_would_are_refused_before_those_are_made(
    toy_study: Callable[..., Path], small: Path, tmp_path: Path
) -> None:
    runs = {"grounded": {"directories": [str(small / "runs/grounded-0")]}, "intrinsic": {"count": 1}}
    arms = SMALL | {"arms": ["grounded_t", "intrinsic_t"], "set": ["split.seed=1"], "runs": runs}
    with pytest.raises(RunError, match="halves the hard problems otherwise than the runs that are still to be made"):
        toy_study(tmp_path, **arms)
    assert not (tmp_path / "runs").exists()


def test_the_oracle_practises_its_file_but_for_what_is_held_out(
    toy_study: Callable[..., Path], small: Path, tmp_path: Path
) -> None:
    with open_study(small) as ledger:
        held_out = [f.problem for f in ledger.filtered() if f.half == "test"]
    file = tmp_path / "easier.jsonl"
    measured = [json.dumps({"question": p.question, "answer": p.answer}) for p in held_out]
    easier = [json.dumps({"question": f"0 #{number}", "answer": "0"}) for number in range(5)]
    told: list[str] = []
    oracle = SMALL | {"arms": ["oracle"], "oracle": str(file)}

    file.write_text("\n".join([*measured, *easier]))
    toy_study(tmp_path / "study", lambda event, /, **f: told.append(f.get("text", "")), **oracle)
    short = "students practise as few as 5 different questions where training.questions asks for 8"
    with open_study(tmp_path / "study") as ledger:
        practised = [json.loads(asked) for (asked,) in ledger.rows("SELECT questions FROM study_students")]
        assert study_table(ledger).short == {"oracle": short}
    assert [sorted(asked) for asked in practised] == [[[f"0 #{number}", "0"] for number in range(5)]] * 2
    assert f"oracle: {short}" in told

    file.write_text("\n".join(easier[:4]))
    with pytest.raises(RunError, match="oracle: its problems are others"):
        toy_study(tmp_path / "study", **oracle)
    file.write_text("\n".join(measured))
    with pytest.raises(DataError, match=f"all {len(held_out)} problems are held out in this study"):
        toy_study(tmp_path / "held out", **oracle)


def test_without_promotions_there_are_no_promotion_questions_to_compare(
    toy_study: Callable[..., Path], tmp_path: Path
) -> None:
    runs = {"grounded": {"count": 1, "set": ["promotion.tau=1"]}}
    told: list[str] = []
    toy_study(
        tmp_path, lambda event, /, **f: told.append(f.get("text", "")), **SMALL | {"arms": ["pq", "ps"], "runs": runs}
    )
    with open_study(tmp_path) as ledger:
        table = study_table(ledger)
    assert table.skipped == {"pq": "no run made a promotion", "ps": "no run made a promotion"}
    assert "pq is left out: no run made a promotion" in told
    assert table.arms == []


def test_the_ledger_of_a_study_is_no_run(small: Path) -> None:
    assert (small / STUDY_FILE).exists()
    with pytest.raises(RunError, match="this is a study, not a run"):
        Ledger.open(small, read_only=True)
