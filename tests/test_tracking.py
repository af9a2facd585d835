"""Trackers: what they get, what happens when they fail, and the real ones where they are installed."""

import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from accelerate import tracking as accelerates
from accelerate.tracking import GeneralTracker

from soarctl.ledger import Ledger
from soarctl.run import run
from soarctl.run_directory import go_back
from soarctl.testing import toy_run
from soarctl.tracking import FILE, configuration

Told = list[tuple[str, dict[str, Any]]]


class Planted(GeneralTracker):
    """A tracker that keeps what it is told, and fails when it is asked to."""

    name = "aim"
    requires_logging_directory = True
    logged: list[tuple[int | None, dict[str, Any]]]
    configured: list[Mapping[str, Any]]
    failures: list[str]
    """What fails next, one entry for each failure: `start` or `log`."""
    finished: int

    def __init__(self, run_name: str, logging_dir: str) -> None:
        super().__init__()

    @property
    def tracker(self) -> None:
        return None

    def start(self) -> None:
        self._fail("start")
        print("hello from a tracker")

    def store_init_configuration(self, values: Mapping[str, Any]) -> None:
        self.configured.append(values)

    def log(self, values: dict[str, Any], step: int | None = None, **_: Any) -> None:
        self._fail("log")
        self.logged.append((step, values))

    def finish(self) -> None:
        Planted.finished += 1

    def _fail(self, where: str) -> None:
        if self.failures and self.failures[0] == where:
            self.failures.pop(0)
            raise ConnectionError(f"{where} is down")


@pytest.fixture
def planted(monkeypatch: pytest.MonkeyPatch) -> type[Planted]:
    Planted.logged, Planted.configured, Planted.failures, Planted.finished = [], [], [], 0
    monkeypatch.setitem(accelerates.LOGGER_TYPE_TO_CLASS, "aim", Planted)
    return Planted


def go(directory: Path, *, stop_after: int | None = None, resume: bool = False, trackers: Any = None) -> Told:
    """A run with the planted tracker; what it told."""
    told: Told = []

    def tell(event: str, /, **facts: Any) -> None:
        told.append((event, facts))
        if event == "step" and facts["step"] == stop_after:
            raise KeyboardInterrupt

    loaded = toy_run(trackers={"aim": {}} if trackers is None else trackers)
    if stop_after is None:
        run(loaded, directory, tell, resume=resume)
    else:
        with pytest.raises(KeyboardInterrupt):
            run(loaded, directory, tell, resume=resume)
    return told


def warnings(told: Told) -> list[str]:
    return [facts["text"] for event, facts in told if event == "warning"]


def steps(tracker: type[Planted]) -> list[int | None]:
    return [step for step, values in tracker.logged if "reward/mean" in values]


def test_a_tracker_gets_every_step_the_closing_table_and_the_spec(
    planted: type[Planted], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told = go(tmp_path)
    assert warnings(told) == []
    assert steps(planted) == [1, 2, 3, 4, 5, 6]
    rewards = [facts["reward"] for event, facts in told if event == "step"]
    assert [values["reward/mean"] for _, values in planted.logged[:6]] == rewards
    assert set(planted.logged[0][1]) >= {
        *("reward/moving_average", "reward/dataset_0", "reward/dataset_1", "promotions", "alarms", "questions/passed"),
        *("students/gain", "students/gain_least", "students/gain_most", "teacher/grad_norm", "teacher/kl"),
        *("time/seconds", "time/tokens_per_second"),
    }
    step, table = planted.logged[6]
    assert step == 6
    assert (
        0
        <= table["held_out/base_pass_at_1_low"]
        <= table["held_out/base_pass_at_1"]
        < table["held_out/promoted_pass_at_1"]
    )
    [config] = planted.configured
    assert config["promotion.tau"] == 0.02
    assert planted.finished == 1
    assert capsys.readouterr().out == "", "standard output is for the lines of the run"


def test_trackers_leave_no_trace_in_the_ledger_but_in_the_spec(planted: type[Planted], tmp_path: Path) -> None:
    go(tmp_path / "tracked")
    go(tmp_path / "alone", trackers={})
    contents: list[list[str]] = []
    for name in ("tracked", "alone"):
        with Ledger.open(tmp_path / name, read_only=True) as ledger:
            contents.append([line for line in ledger.content().splitlines() if not line.startswith("facts ('spec")])
    assert contents[0] == contents[1]


def test_a_tracker_that_fails_once_warns_once_and_gets_what_it_missed(planted: type[Planted], tmp_path: Path) -> None:
    planted.failures = ["start", "log"]
    [warning] = warnings(go(tmp_path))
    assert warning.startswith("tracker aim: ConnectionError: start is down. The run goes on")
    assert steps(planted) == [1, 2, 3, 4, 5, 6]


def test_a_tracker_that_never_works_never_stops_a_run(planted: type[Planted], tmp_path: Path) -> None:
    planted.failures = ["start"] * 99
    told = go(tmp_path)
    assert len(warnings(told)) == 1
    assert told[-1][0] == "finished"
    assert len(planted.failures) == 99 - 3, "it is left alone after three failures"


def test_a_tracker_without_its_package_is_told_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    [warning] = warnings(go(tmp_path, trackers={"wandb": {"mode": "offline"}}))
    assert 'pip install "soarctl[wandb]"' in warning


def test_a_resumed_run_logs_what_is_missing_and_nothing_twice(planted: type[Planted], tmp_path: Path) -> None:
    go(tmp_path, stop_after=3)
    # The interruption came before the tracker heard of step 3.
    assert steps(planted) == [1, 2]
    assert planted.finished == 1
    go(tmp_path, resume=True)
    assert steps(planted) == [1, 2, 3, 4, 5, 6]
    assert len(planted.configured) == 1


def test_a_tracker_that_is_named_later_gets_the_whole_run(planted: type[Planted], tmp_path: Path) -> None:
    go(tmp_path, stop_after=4, trackers={})
    go(tmp_path, resume=True)
    assert steps(planted) == [1, 2, 3, 4, 5, 6]


def test_steps_that_are_done_again_are_logged_again(planted: type[Planted], tmp_path: Path) -> None:
    go(tmp_path)
    with Ledger.open(tmp_path) as ledger:
        go_back(tmp_path, ledger, 4)
    go(tmp_path, resume=True)
    assert steps(planted) == [1, 2, 3, 4, 5, 6, 5, 6]
    assert json.loads((tmp_path / FILE).read_text())["aim"]["step"] == 6


def test_the_configuration_is_flat_and_of_types_that_every_tracker_takes(small_run: Path) -> None:
    with Ledger.open(small_run, read_only=True) as ledger:
        config = configuration(ledger)
    assert config["domain.lengths"] == "[3, 4, 5]"
    assert {type(value) for value in config.values()} <= {str, int, float, bool}


def test_tensorboard_itself_has_the_rewards(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    told = go(tmp_path, trackers={"tensorboard": {}})
    assert warnings(told) == []
    events = EventAccumulator(str(tmp_path / "tensorboard" / "toy"))
    events.Reload()
    rewards = {facts["step"]: facts["reward"] for event, facts in told if event == "step"}
    assert {e.step: e.value for e in events.Scalars("reward/mean")} == pytest.approx(rewards)
    assert [e.step for e in events.Scalars("held_out/promoted_pass_at_1")] == [6]


TWICE = """
import sys
from pathlib import Path
from soarctl.run import run
from soarctl.testing import toy_run
def tell(event, /, **facts):
    if event == "warning":
        raise SystemExit(facts["text"])
    if event == "step" and facts["step"] == 3 and not sys.argv[3:]:
        raise KeyboardInterrupt
options = {"mode": "offline"} if sys.argv[2] == "wandb" else {}
try:
    run(toy_run(trackers={sys.argv[2]: options}), Path(sys.argv[1]), tell, resume=True)
except KeyboardInterrupt:
    pass
"""


def twice(directory: Path, tracker: str, **environment: str) -> None:
    """A run in a process of its own that is interrupted, and resumed in another."""
    if find_spec(tracker) is None:
        pytest.skip(f"{tracker} is not installed")
    for more in ([], ["resumed"]):
        subprocess.run(
            [sys.executable, "-c", TWICE, str(directory), tracker, *more],
            env={**os.environ, **environment, "HF_HUB_OFFLINE": "1"},
            check=True,
            timeout=300,
            capture_output=True,
            text=True,
            cwd=directory.parent,
        )


@pytest.mark.slow
def test_wandb_offline_has_the_rewards(tmp_path: Path) -> None:
    twice(tmp_path / "run", "wandb")
    written = b"".join(path.read_bytes() for path in (tmp_path / "run" / "wandb").glob("offline-run-*/run-*.wandb"))
    assert b"reward/mean" in written
    assert b"held_out/promoted_pass_at_1" in written


@pytest.mark.slow
def test_trackio_goes_on_with_the_run_that_was_resumed(tmp_path: Path) -> None:
    twice(tmp_path / "run", "trackio", TRACKIO_DIR=str(tmp_path / "trackio"))
    [file] = (tmp_path / "trackio").glob("soarctl*.db")
    with sqlite3.connect(file) as db:
        rows = db.execute("SELECT run_name, step, metrics FROM metrics ORDER BY id").fetchall()
    assert {name for name, _, _ in rows} == {"toy"}
    assert [step for _, step, values in rows if "reward/mean" in json.loads(values)] == [1, 2, 3, 4, 5, 6]


# What MLflow's own imports warn of is not ours to mend.
@pytest.mark.filterwarnings("ignore")
@pytest.mark.slow
def test_mlflow_goes_on_with_the_run_that_was_resumed(tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    twice(tmp_path / "run", "mlflow", MLFLOW_TRACKING_URI=uri)
    from mlflow import MlflowClient

    client = MlflowClient(uri)
    [experiment] = client.search_experiments(filter_string="name = 'soarctl'")
    [found] = client.search_runs([experiment.experiment_id])
    history = client.get_metric_history(found.info.run_id, "reward/mean")
    assert [metric.step for metric in history] == [1, 2, 3, 4, 5, 6]
    assert found.data.params["promotion.tau"] == "0.02"
