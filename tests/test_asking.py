"""What a domain returns is checked where it is asked, and an error says whose it is."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from soarctl import asking
from soarctl.api import PluginError, Problem, Verdict
from soarctl.events import silent
from soarctl.grading import grade
from soarctl.ledger import Ledger
from soarctl.run import run
from soarctl.testing import ToyDomain, toy_run

QUESTION = Problem("?", "!")


def fails(*_: Any) -> Any:
    raise ZeroDivisionError("division by zero")


def gives(value: Any) -> Callable[..., Any]:
    return lambda *_: value


CALLS: dict[str, Callable[[ToyDomain], object]] = {
    "load": asking.load,
    "teacher_prompt": asking.teacher_prompt,
    "student_prompt": lambda domain: asking.student_prompt(domain, "?"),
    "parse": lambda domain: asking.parse(domain, "text"),
    "facts": asking.facts,
    "measure": lambda domain: asking.measure(domain, QUESTION),
}
WANTED = {
    "load": "a list of problems",
    "teacher_prompt": "text",
    "student_prompt": "text",
    "parse": "a Problem or a Rejection",
    "facts": "plain values by name",
    "measure": "finite numbers by name",
}


@pytest.mark.parametrize("method", CALLS)
def test_a_method_that_fails_or_returns_nothing_is_named_with_its_plug_in(
    method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def named(*_: Any) -> Any:
        return answer()

    named.__name__ = method
    monkeypatch.setattr(ToyDomain, method, named)
    answer = fails
    with pytest.raises(PluginError) as failed:
        CALLS[method](ToyDomain())
    assert failed.value.message == f"ToyDomain.{method} failed: ZeroDivisionError: division by zero"
    answer = gives(None)
    with pytest.raises(PluginError) as refused:
        CALLS[method](ToyDomain())
    assert refused.value.message == f"ToyDomain.{method} returned None, which is not {WANTED[method]}"


@pytest.mark.parametrize("number", [float("nan"), float("inf"), "3", None])
def test_a_measure_that_json_has_no_number_for_is_refused(number: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ToyDomain, "measure", gives({"a": number}))
    with pytest.raises(PluginError, match="which is not finite numbers by name"):
        asking.measure(ToyDomain(), QUESTION)


@pytest.mark.parametrize("value", [None, [None, None], [Verdict("correct", float("nan"))] * 2])  # type: ignore[arg-type]
def test_what_is_no_verdict_is_refused(value: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ToyDomain, "grade", gives(value))
    with pytest.raises(PluginError, match=r"the grader of ToyDomain returned .*, which is no "):
        grade(ToyDomain(), [(QUESTION, "a"), (QUESTION, "b")], silent)


def test_a_solver_that_fails_ends_no_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ToyDomain, "solve", fails)
    steps: list[Any] = []

    def tell(event: str, /, **facts: Any) -> None:
        steps.extend([facts] if event == "step" else [])

    run(toy_run(outer={"steps": 1}), tmp_path, tell)
    assert {question["solution"] for question in steps[0]["questions"]} == {None}


def test_a_measure_that_fails_once_costs_no_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(toy_run(outer={"steps": 2}), tmp_path / "whole", silent)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ToyDomain, "measure", gives({"a": float("nan")}))
        with pytest.raises(PluginError, match=r"returned \{'a': nan\}"):
            run(toy_run(outer={"steps": 2}), tmp_path / "mended", silent)
    with Ledger.open(tmp_path / "mended", read_only=True) as ledger:
        assert ledger.steps_done == 0
        assert ledger.rows("SELECT COUNT(*) FROM students") != [(0,)]
    run(toy_run(outer={"steps": 2}), tmp_path / "mended", silent, resume=True)
    with (
        Ledger.open(tmp_path / "whole", read_only=True) as one,
        Ledger.open(tmp_path / "mended", read_only=True) as other,
    ):
        assert one.content() == other.content()
