"""What `soarctl run` shows, and its exit codes. The runs themselves are tested in tests/test_run.py."""

import io
import json
from typing import Any

import pytest
from rich.console import Console

from soarctl.cli import run_view
from soarctl.cli.run_view import JsonLines, LiveView, PlainLines
from soarctl.errors import SoarError

STEP: dict[str, Any] = {
    "step": 2,
    "stage": 0,
    "reward": 0.0125,
    "rewards": [0.05, -0.025],
    "window_mean": 0.02,
    "promoted": (0, 1),
    "drawn": 40,
    "accepted": 32,
    "rejections": {"no equals sign": 8},
    "teacher": {},
    "measures": {"half_known": 0.5},
    "alarms": [],
    "seconds": 7.25,
    "questions": [
        {"dataset": 0, "question": "CAT | up", "answer": "DBU", "solution": "DBU"},
        {"dataset": 1, "question": "[bold]CAT | down", "answer": "AAA", "solution": "BZS"},
    ],
}
STARTED: dict[str, Any] = {
    "name": "toy",
    "directory": "runs/toy",
    "domain": "letters",
    "domain_facts": {"sandbox": "landlock"},
    "reward": "grounded",
    "steps": 5,
    "tau": 0.01,
    "steps_done": 0,
    "alarms": [],
}
ALARM = {"step": 2, "name": "equal rewards", "said": "all the same", "advice": "more of [it]"}


def test_a_pipe_gets_one_line_for_each_finished_thing(capsys: pytest.CaptureFixture[str]) -> None:
    with PlainLines() as view:
        view.tell("started", **STARTED)
        view.tell("filtered", problems=40, train=7, test=8, samples=999)
        view.tell("inner_step", inner_step=1, inner_steps=2, reward=0.5, tokens=100)
        view.tell("step", **STEP)
        view.tell("alarm", **ALARM)
        view.tell("warning", text="mind the gap")
    assert capsys.readouterr().out == (
        "toy: 5 outer steps in runs/toy, sandbox: landlock\n"
        "hard problems: 7 to learn from, 8 held out, of 40\n"
        "step 2: rewards +0.050 -0.025, mean +0.0125, moving average +0.0200, half known 0.50, 7.2 s"
        "  promoted a student\n"
        "alarm after step 2: equal rewards: all the same. Try more of [it].\n"
        "warning: mind the gap\n"
    )


def test_json_is_one_event_per_line(capsys: pytest.CaptureFixture[str]) -> None:
    with JsonLines() as view:
        view.tell("started", **STARTED)
        view.tell("step", **STEP)
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [event["event"] for event in events] == ["started", "step"]
    assert events[1]["rewards"] == [0.05, -0.025]


@pytest.mark.parametrize("width", [120, 60])
def test_the_live_view_shows_the_steps_and_marks_right_and_wrong_answers(
    width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    screen = io.StringIO()
    monkeypatch.setattr("rich.console.Console", lambda: Console(file=screen, width=width, force_terminal=False))
    with LiveView() as view:
        view.tell("started", **STARTED)
        view.tell("filter", done=10, of=40, hard=5)
        view.tell("filtered", problems=40, train=7, test=8, samples=999)
        view.tell("step_started", step=2, stage=0)
        view.tell("inner_step", inner_step=1, inner_steps=2, reward=0.5, tokens=100)
        view.tell("students", finished=4, of=8, gains=[0.0])
        view.tell("step", **STEP | {"alarms": [ALARM]})
        view.tell("alarm", **ALARM)
        view.tell("finished", directory="runs/toy", alarms=[])
    shown = screen.getvalue()
    assert "7 hard problems + 8 held out" in " ".join(shown.split())
    assert "promoted" in shown
    assert ("half known" in shown) == ("80 %" in shown) == (width == 120)
    assert "equal rewards since step 2: all the same. Try more of [it]." in " ".join(shown.split())
    assert "CAT | up  answer DBU  right" in shown
    assert "[bold]CAT | down  answer AAA  wrong: BZS" in shown, "model output is text, never markup"


def test_a_long_time_is_told_in_hours() -> None:
    assert run_view._clock(59.4) == "0:59"
    assert run_view._clock(3725) == "1:02:05"


def test_from_step_without_resume_is_an_error() -> None:
    from soarctl.cli.run import run

    with pytest.raises(SoarError, match="--from-step goes with --resume"):
        run("specs/quickstart.yaml", [], None, resume=False, from_step=3, as_json=False)
