"""Watching a run from another process is hearing what it would have told."""

from pathlib import Path
from typing import Any

from soarctl.run import run
from soarctl.run_directory import lock
from soarctl.testing import toy_run
from soarctl.watching import Follower

SAME = ("step", "stage", "reward", "rewards", "window_mean", "drawn", "accepted", "rejections", "measures")


def test_a_follower_tells_each_step_once_and_as_the_run_did(tmp_path: Path) -> None:
    told: list[dict[str, Any]] = []
    seen: list[dict[str, Any]] = []
    names: list[str] = []
    follower = Follower(tmp_path)

    def tell(event: str, /, **facts: Any) -> None:
        if event == "step":
            told.append(facts)
        if event in ("step", "students", "filtered"):
            for name, found in follower.events():
                names.append(name)
                if name == "step":
                    seen.append(found)

    run(toy_run(outer={"steps": 3}), tmp_path, tell)
    assert [{key: facts[key] for key in SAME} for facts in seen] == [
        {key: facts[key] for key in SAME} for facts in told
    ]
    assert names[:2] == ["started", "filtered"]
    # Six students of a step train in fleets of four: two reports, of which the second comes with the step itself.
    assert names.count("students") >= 3
    assert "finished" not in names
    assert [name for name, _ in follower.events()] == ["evaluated", "evaluated", "finished"]


def test_a_finished_run_is_told_whole(small_run: Path) -> None:
    events = list(Follower(small_run).events())
    assert [name for name, _ in events].count("step") == 4
    assert events[-1] == ("finished", {"directory": str(small_run), "progress": "finished", "alarms": []})


def test_a_run_at_work_goes_on(small_run: Path) -> None:
    with lock(small_run):
        assert all(name != "finished" for name, _ in Follower(small_run).events())
