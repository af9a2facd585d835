"""The countdown domain, and what becomes of its verifier."""

import os
import signal
import sys
import time

import psutil
import pytest
from soarctl_countdown.domain import CountdownDomain
from soarctl_countdown.process import Process
from soarctl_countdown.verifier import judge

from soarctl.api import DataError, Outcome, Problem
from soarctl.testing import check_domain

GAME = Problem("make 14 of 2 3 4", "2 + 3 * 4")


def test_it_keeps_what_every_domain_promises() -> None:
    check_domain(
        CountdownDomain(),
        accepted=["make 14 of 2 3 4 = 2 + 3 * 4", "make 7 of 3 4 = (3 + 4)"],
        rejected={
            "make 14 of 2 3 4": "no equals sign",
            "reach 14 = 14": "not a target and its numbers",
            "make 7 of 3 4 = seven": "no expression",
        },
        wrong=lambda problem: f"({problem.answer}) * 2",
        sample=8,
        batch=1000,
        examples=4,
    )


def test_more_problems_than_there_are_is_a_data_error() -> None:
    with pytest.raises(DataError, match="fewer than 800 different problems of 2 numbers were found"):
        CountdownDomain(numbers=2, candidates=800).load()


@pytest.mark.parametrize(
    ("expression", "outcome", "reason"),
    [
        ("2 + 3 * 4", "correct", ""),
        ("4 * 3 + 2", "correct", ""),
        ("14", "wrong", "other numbers"),
        ("2 * 3 * 4", "wrong", "another value"),
        ("2 / (3 - 3)", "wrong", "division by zero"),
        ("2 ** 3 ** 4", "unparsed", "not an expression"),
        ("__import__('os')", "unparsed", "not an expression"),
        ("(" * 150, "unparsed", "not an expression"),
        ("1" * 201, "unparsed", "too long"),
    ],
)
def test_the_verifier_judges_by_value_and_numbers(expression: str, outcome: str, reason: str) -> None:
    assert judge([2, 3, 4], 14, expression) == (outcome, reason)


def test_the_verifier_is_started_once_and_stopped() -> None:
    process = Process([sys.executable, "-m", "soarctl_countdown.verifier"])
    attempt = {"numbers": [2, 3, 4], "target": 14, "expression": "2 + 3 * 4"}
    before = {child.pid for child in psutil.Process().children()}
    for _ in range(20):
        assert process.ask(attempt, 5.0) == {"outcome": "correct", "reason": ""}
    started = {child.pid for child in psutil.Process().children()} - before
    assert len(started) == 1
    process.stop()
    assert not started & {child.pid for child in psutil.Process().children()}


def test_a_verifier_that_is_killed_is_started_again() -> None:
    process = Process([sys.executable, "-m", "soarctl_countdown.verifier"])
    attempt = {"numbers": [1], "target": 1, "expression": "1"}
    before = {child.pid for child in psutil.Process().children()}
    process.ask(attempt, 5.0)
    for pid in {child.pid for child in psutil.Process().children()} - before:
        os.kill(pid, signal.SIGKILL)
    assert process.ask(attempt, 5.0) == {"outcome": "correct", "reason": ""}
    process.stop()


def test_a_verifier_that_hangs_is_a_timeout_for_this_attempt_alone() -> None:
    slow = "import sys, time\nfor line in sys.stdin: time.sleep(60)"
    domain = CountdownDomain(verifier=(sys.executable, "-c", slow), seconds=0.3)
    began = time.monotonic()
    verdicts = domain.grade([(GAME, "14"), (GAME, "2")])
    assert [v.outcome for v in verdicts] == [Outcome.TIMEOUT, Outcome.TIMEOUT]
    assert time.monotonic() - began < 5


def test_a_verifier_that_cannot_start_is_a_crash_and_no_exception() -> None:
    domain = CountdownDomain(verifier=(sys.executable, "-c", "raise SystemExit(1)"))
    [verdict] = domain.grade([(GAME, "14")])
    assert (verdict.outcome, verdict.reason) == (Outcome.CRASHED, "the verifier crashed")
