"""A whole run in the toy world: its ledger, its lock, and what happens when it is killed."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest

from soarctl import checkpoints, plugins
from soarctl.api import Completion, Domain, Problem, Prompt, Reward, Sampling
from soarctl.errors import CheckpointError, DataError, ModelError, RunError, SpecError
from soarctl.events import silent
from soarctl.ledger import FILE, Ledger
from soarctl.run import run
from soarctl.run_directory import load_baseline, lock, teacher_checkpoint
from soarctl.testing import ToyDomain, ToyEngine, ToyFleet, ToyTrainer, toy_run


class Stop(BaseException):
    """Stands for a kill."""


def stop_at(event: str, count: int = 1) -> Callable[..., None]:
    seen = 0

    def tell(name: str, /, **facts: Any) -> None:
        nonlocal seen
        seen += name == event
        if seen == count:
            raise Stop

    return tell


def content(directory: Path) -> str:
    with Ledger.open(directory, read_only=True) as ledger:
        return ledger.content()


def weights(directory: Path) -> dict[str, bytes]:
    return {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*.safetensors")}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing interrupted."""
    directory = tmp_path_factory.mktemp("whole")
    run(toy_run(), directory, silent)
    return directory


def test_the_run_learns_promotes_and_measures(whole: Path) -> None:
    with Ledger.open(whole, read_only=True) as ledger:
        assert ledger.steps_done == 6
        [(promotions,)] = ledger.rows("SELECT COUNT(*) FROM baselines WHERE stage > 0")
        assert promotions >= 1
        correct = dict(ledger.rows("SELECT arm, SUM(correct) FROM evaluations GROUP BY arm"))
    assert correct["promoted"] > 3 * correct["base"]


def test_the_run_never_asks_about_held_out_problems_before_the_end(whole: Path) -> None:
    with Ledger.open(whole, read_only=True) as ledger:
        test = {id for (id,) in ledger.rows("SELECT id FROM problems WHERE half = 'test'")}
        asked = {id for (ids,) in ledger.rows("SELECT q_r FROM steps") for id in json.loads(ids)}
        rated = {id for (id,) in ledger.rows("SELECT problem FROM baseline_rates")}
        assert ledger.facts["test_half_opened_after_step"] == 6
    assert test
    assert not test & (asked | rated)


def test_promotion_questions_are_n_times_the_promotions(whole: Path) -> None:
    with Ledger.open(whole, read_only=True) as ledger:
        [(pq,)] = ledger.rows("SELECT COUNT(*) FROM questions JOIN baselines USING (step, dataset)")
        [(promotions,)] = ledger.rows("SELECT COUNT(*) FROM baselines WHERE stage > 0")
    assert pq == 4 * promotions


def test_the_promoted_student_is_the_median_of_the_best_dataset(whole: Path) -> None:
    with Ledger.open(whole, read_only=True) as ledger:
        for step, dataset, repeat in ledger.rows("SELECT step, dataset, repeat FROM baselines WHERE stage > 0"):
            rewards = dict(ledger.rows("SELECT dataset, reward FROM datasets WHERE step = ?", step))
            assert rewards[dataset] == max(rewards.values())
            gains = dict(ledger.rows("SELECT repeat, gain FROM students WHERE step = ? AND dataset = ?", step, dataset))
            assert sorted(gains.values())[(len(gains) - 1) // 2] == gains[repeat]


@pytest.mark.parametrize(
    ("event", "count"),
    [
        ("filter", 1),
        ("filtered", 1),
        ("step_started", 1),
        ("students", 1),
        ("students", 3),
        ("step", 2),
        ("inner_step", 7),
        ("evaluated", 1),
    ],
)
def test_a_run_that_stops_and_is_resumed_ends_as_one_that_did_not(
    whole: Path, tmp_path: Path, event: str, count: int
) -> None:
    with pytest.raises(Stop):
        run(toy_run(), tmp_path, stop_at(event, count))
    run(toy_run(), tmp_path, silent, resume=True)
    assert content(tmp_path) == content(whole)
    assert weights(tmp_path) == weights(whole)


def test_a_run_whose_problems_cannot_be_read_leaves_no_run_behind(tmp_path: Path) -> None:
    def nothing(_: ToyDomain) -> list[Problem]:
        raise DataError("no such data")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ToyDomain, "load", nothing)
        with pytest.raises(DataError, match="no such data"):
            run(toy_run(), tmp_path, silent)
    assert not (tmp_path / FILE).exists()
    run(toy_run(), tmp_path, silent)


@pytest.mark.parametrize("resume", [False, True])
def test_where_no_model_was_loaded_another_spec_may_begin(whole: Path, tmp_path: Path, resume: bool) -> None:
    def none(*_: Any) -> ToyEngine:
        raise ModelError("no such model")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ToyTrainer, "load", none)
        with pytest.raises(ModelError, match="no such model"):
            run(toy_run(seed=5), tmp_path, silent)
    run(toy_run(), tmp_path, silent, resume=resume)
    assert content(tmp_path) == content(whole)
    assert (tmp_path / "spec.yaml").read_text() == (whole / "spec.yaml").read_text()
    with pytest.raises(RunError, match="there is a run here already"):
        run(toy_run(), tmp_path, silent)


def test_results_to_reuse_are_looked_at_before_a_model_is_loaded(tmp_path: Path) -> None:
    loaded = toy_run(filter={"samples": 8, "reuse": str(tmp_path / "nope.jsonl")})
    with pytest.raises(SpecError) as missing:
        run(loaded, tmp_path / "run", silent)
    assert str(missing.value).startswith(f"toy: filter.reuse: no such file: {tmp_path}/nope.jsonl\n  `soarctl filter ")
    (tmp_path / "nope.jsonl").touch()
    (tmp_path / "nope.manifest.json").write_text('{"complete": true, "filter": {}}')
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ToyTrainer, "load", lambda *_: pytest.fail("a model was loaded"))
        with pytest.raises(DataError, match="these results were made otherwise than the spec says"):
            run(loaded, tmp_path / "run", silent)
    assert not (tmp_path / "run" / FILE).exists()


def test_an_interrupted_step_is_sampled_anew_where_samples_do_not_repeat(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with an engine that batches requests: the teacher writes other questions than before the interruption."""
    life, sample = ["first"], ToyFleet.sample

    def otherwise(fleet: ToyFleet, prompts: Sequence[Prompt], sampling: Sampling) -> list[list[Completion]]:
        return sample(fleet, [replace(p, stream=p.stream.child(*life)) for p in prompts], sampling)

    monkeypatch.setattr(ToyFleet, "sample", otherwise)
    with pytest.raises(Stop):
        run(toy_run(), tmp_path, stop_at("students", 3))
    before = asked_of_students(tmp_path)
    life[0] = "second"
    with pytest.raises(RunError, match="the teacher wrote other questions in outer step"):
        run(toy_run(), tmp_path, silent, resume=True)
    monkeypatch.setattr(ToyEngine, "repeats", False)
    run(toy_run(), tmp_path, silent, resume=True)
    with Ledger.open(tmp_path, read_only=True) as ledger:
        written = {
            (step, dataset, q) for step, dataset, q in ledger.rows("SELECT step, dataset, question FROM questions")
        }
    assert practised(tmp_path)[0] == [3] * (len(practised(tmp_path)[0]))
    assert asked_of_students(tmp_path) <= written
    assert not before <= written, "some students had practised what the ledger no longer knows"


def asked_of_students(directory: Path) -> set[tuple[int, int, str]]:
    """Step, dataset and question of every first attempt."""
    with Ledger.open(directory, read_only=True) as ledger:
        return {tuple(row) for row in ledger.rows("SELECT step, dataset, question FROM attempts")}


# Toy questions have one of five skills and a number that hardly ever comes twice; without the number they repeat.
SAVING: dict[str, Any] = {
    "savings": {"flat_window": 2, "race_from": 2, "reuse_overlap": 0.75},
    "domain": {"plugin": "toy", "numbers": 1},
}


@pytest.mark.parametrize(("event", "count"), [("students", 2), ("students", 6), ("step", 3), ("inner_step", 11)])
def test_a_run_that_saves_is_resumed_as_exactly(tmp_path: Path, event: str, count: int) -> None:
    run(toy_run(**SAVING), tmp_path / "whole", silent)
    with pytest.raises(Stop):
        run(toy_run(**SAVING), tmp_path / "stopped", stop_at(event, count))
    run(toy_run(**SAVING), tmp_path / "stopped", silent, resume=True)
    assert content(tmp_path / "stopped") == content(tmp_path / "whole")
    assert weights(tmp_path / "stopped") == weights(tmp_path / "whole")


def test_a_run_that_saves_trains_fewer_students_for_fewer_steps(whole: Path, tmp_path: Path) -> None:
    run(toy_run(**SAVING), tmp_path, silent)
    repeats, steps = practised(whole)
    assert (set(repeats), set(steps)) == ({3}, {6})
    repeats, steps = practised(tmp_path)
    # One new student where a dataset was seen, two where the ranking was decided then, three where it was not.
    assert set(repeats) == {1, 2, 3}
    assert min(steps) < 6


def practised(directory: Path) -> tuple[list[int], list[int]]:
    """Students of each dataset, and inner steps of each student."""
    with Ledger.open(directory, read_only=True) as ledger:
        repeats = ledger.rows("SELECT COUNT(*) FROM students GROUP BY step, dataset")
        steps = [len(json.loads(rewards)) for (rewards,) in ledger.rows("SELECT rewards FROM students")]
    return [count for (count,) in repeats], steps


def test_a_run_killed_again_and_again_ends_as_one_that_was_not(whole: Path, tmp_path: Path) -> None:
    # The signal itself, at moments spread over the run: nothing in Python gets to clean up.
    code = (
        "import sys; from pathlib import Path; from soarctl.testing import toy_run; from soarctl.run import run;"
        "tell = lambda event, /, **facts: print(event, flush=True);"
        "run(toy_run(), Path(sys.argv[1]), tell, resume=True)"
    )
    for after in (3, 20, 45):
        with subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            for _ in range(after):
                process.stdout.readline()
            process.send_signal(signal.SIGKILL)
        assert process.returncode == -signal.SIGKILL
    run(toy_run(), tmp_path, silent, resume=True)
    assert content(tmp_path) == content(whole)
    assert weights(tmp_path) == weights(whole)


def test_students_that_finished_are_not_trained_again(tmp_path: Path) -> None:
    with pytest.raises(Stop):
        run(toy_run(), tmp_path, stop_at("students", 1))
    steps: list[str] = []
    run(toy_run(), tmp_path, lambda event, /, **facts: steps.append(event), resume=True)
    # 6 outer steps of 2 fleets with 6 inner steps each, less the one fleet that was kept.
    before = steps[: steps.index("step")].count("inner_step")
    assert before == 6
    assert not (tmp_path / "students").exists()


def test_a_run_is_not_started_twice(whole: Path) -> None:
    with pytest.raises(RunError) as error:
        run(toy_run(), whole, silent)
    assert str(error.value) == (
        f"{whole}: there is a run here already\n  `--resume` goes on with it; `--out` names another directory"
    )


def test_two_processes_do_not_share_a_run_directory(tmp_path: Path) -> None:
    with lock(tmp_path), pytest.raises(RunError) as error:
        run(toy_run(), tmp_path, silent)
    assert f"in use by pid {os.getpid()} on " in str(error.value)


def test_resuming_refuses_a_spec_that_changed_what_is_learned(whole: Path) -> None:
    with pytest.raises(RunError) as error:
        run(toy_run(seed=1, inner={"lr": 0.5}), whole, silent, resume=True)
    assert str(error.value) == (
        f"{whole}: the spec is not the one that this run was started with\n"
        "  inner.lr: was 2.0, is 0.5\n"
        "  seed: was 0, is 1\n"
        "  only name, checkpoints, evaluation, trackers, teacher.resample_cap may change; "
        "another spec needs another directory"
    )


def test_resuming_takes_a_change_that_does_no_harm(whole: Path) -> None:
    run(toy_run(evaluation={"samples": 8, "k": [1, 8]}), whole, silent, resume=True)
    with Ledger.open(whole, read_only=True) as ledger:
        assert ledger.rows("SELECT DISTINCT samples FROM evaluations") == [(8,)]
    # Given up because too few questions passed, a run goes on with more patience.
    run(toy_run(teacher={"resample_cap": 99}), whole, silent, resume=True)
    run(toy_run(), whole, silent, resume=True)


def flip_a_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-10])


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (flip_a_bit, "the content does not have the hash of the manifest: damaged or altered"),
        (truncate, "bytes where the manifest says"),
        (Path.unlink, "cannot read: No such file or directory"),
    ],
)
def test_a_damaged_checkpoint_is_named_and_the_one_before_goes_on_to_the_same_end(
    whole: Path, tmp_path: Path, damage: Callable[[Path], None], said: str
) -> None:
    with pytest.raises(Stop):
        run(toy_run(), tmp_path, stop_at("step", 4))
    damage(teacher_checkpoint(tmp_path, 4) / "teacher.safetensors")
    with pytest.raises(CheckpointError) as error:
        run(toy_run(), tmp_path, silent, resume=True)
    assert said in str(error.value)
    assert "--resume --from-step 3" in str(error.value)
    run(toy_run(), tmp_path, silent, resume=True, from_step=3)
    assert content(tmp_path) == content(whole)
    assert (tmp_path / f"before-going-back-from-4-to-3.{FILE}").exists(), "what was recorded is kept"
    with Ledger.open(tmp_path, read_only=True) as ledger:
        times = ledger.rows("SELECT phase, COUNT(*), COUNT(DISTINCT step) FROM timings GROUP BY phase")
    assert all(rows == steps for _, rows, steps in times), "and no time counts twice"


def test_going_back_to_a_step_that_was_not_reached_is_an_error(whole: Path) -> None:
    with pytest.raises(RunError, match="cannot go back to step 7: the run has finished 6 outer steps"):
        run(toy_run(), whole, silent, resume=True, from_step=7)


def test_checkpoints_keep_the_last_two_every_third_and_every_promotion(whole: Path) -> None:
    with Ledger.open(whole, read_only=True) as ledger:
        promoted = {step for (step,) in ledger.rows("SELECT step FROM steps WHERE promoted")}
    kept = {int(path.name.removeprefix("step-")) for path in (whole / "checkpoints").iterdir()}
    assert kept == {5, 6, 3} | promoted
    assert {path.name for path in (whole / "promotions").iterdir()} == {
        f"stage-{stage + 1:02d}" for stage in range(len(promoted))
    }


def test_a_disk_that_refuses_leaves_the_finished_steps_resumable(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = os.fsync, 0

    def full(descriptor: int) -> None:
        nonlocal calls
        calls += 1
        if calls == 40:
            raise OSError(28, "No space left on device")
        real(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RunError) as error:
        run(toy_run(), tmp_path, silent)
    assert "cannot write: No space left on device" in str(error.value)
    assert "nothing that was finished is lost" in str(error.value)
    monkeypatch.undo()
    run(toy_run(), tmp_path, silent, resume=True)
    assert content(tmp_path) == content(whole)


def test_a_ledger_of_a_newer_version_is_left_alone(tmp_path: Path) -> None:
    with pytest.raises(Stop):
        run(toy_run(), tmp_path, stop_at("step", 1))
    with sqlite3.connect(tmp_path / FILE) as db:
        db.execute("PRAGMA user_version = 99")
    with pytest.raises(RunError, match="the ledger has schema version 99; this soarctl reads version 1"):
        run(toy_run(), tmp_path, silent, resume=True)


def test_a_file_that_is_no_database_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / FILE).write_bytes(b"not a database" * 100)
    with pytest.raises(RunError, match="the file is damaged: file is not a database"):
        run(toy_run(), tmp_path, silent, resume=True)


def test_a_directory_that_cannot_be_written_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(RunError, match="cannot write: Not a directory"):
        run(toy_run(), tmp_path / "file" / "run", silent)


def test_another_base_model_cannot_go_on_with_the_run(whole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from soarctl.testing import ToyEngine

    monkeypatch.setattr(ToyEngine, "facts", {"base": "toy", "weights_sha256": "other"})
    with pytest.raises(RunError, match="the base model toy is not the one that this run was started with"):
        run(toy_run(), whole, silent, resume=True)


def test_a_domain_without_enough_hard_problems_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(DataError) as error:
        run(toy_run(domain={"lengths": [1], "each": 4}, filter={"samples": 64}), tmp_path, silent)
    assert str(error.value) == (
        "filter: 0 of 4 problems are hard for toy: too few to halve\n"
        "  load more or harder problems; `soarctl filter` shows how often each one was solved"
    )


def test_problems_with_one_id_are_an_error(tmp_path: Path) -> None:
    from soarctl.testing import ToyDomain

    class Twice(ToyDomain):
        def load(self) -> list[Problem]:
            return [*super().load(), Problem("3 3 3  #0", "9")]

    loaded = replace(toy_run(), domain=Twice())
    assert isinstance(loaded.domain, Domain)
    with pytest.raises(DataError, match="1 of 41 problems of the domain 'toy' have the id of another"):
        run(loaded, tmp_path, silent)


def test_a_promoted_student_can_be_read_back_and_a_missing_one_is_an_error(whole: Path) -> None:
    with Ledger.open(whole, read_only=True) as ledger:
        assert set(load_baseline(whole, ledger, 1).tensors) == {"solve", "write"}
        with pytest.raises(RunError, match="no promotion 9 in this run"):
            load_baseline(whole, ledger, 9)


def test_a_learnability_teacher_trains_no_student_and_promotes_nobody(tmp_path: Path) -> None:
    reward = plugins.load(Reward, "learnability", {"samples": 8})
    events: list[str] = []
    loaded = replace(toy_run(teacher={"lr": 5.0, "group_size": 4}, outer={"steps": 20}), reward=reward)
    run(loaded, tmp_path, lambda event, /, **facts: events.append(event))
    assert "inner_step" not in events
    with Ledger.open(tmp_path, read_only=True) as ledger:
        assert ledger.steps_done == 20
        assert ledger.rows("SELECT COUNT(*) FROM students") == [(0,)]
        assert ledger.rows("SELECT DISTINCT arm FROM evaluations") == [("base",)]
        # Skills 3 and 4 succeed in 30 % of attempts, the others in 90 %: the teacher turns to the less sure ones.
        means = [json.loads(measures)["skill"] for (measures,) in ledger.rows("SELECT measures FROM steps")]
        assert fmean(means[-5:]) > fmean(means[:5]) + 0.5


def test_a_manifest_that_names_a_file_elsewhere_is_refused(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text('{"format": 1, "files": {"../x.safetensors": {}}}')
    with pytest.raises(CheckpointError, match="names a file outside its directory"):
        checkpoints.read(tmp_path)
