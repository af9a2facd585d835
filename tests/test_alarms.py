"""Alarms on numbers that raise them, and on numbers that do not."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from soarctl.alarms import (
    STREAK,
    Alarm,
    Step,
    alarms,
    all_equal,
    blow_up,
    broken_grader,
    collapse,
    fewer_valid,
    zero_gain,
)
from soarctl.ledger import Ledger

GOOD = Step(1, [0.01, 0.03], 100, 20, 80, 78, 0.3, 0.001, 0, 1000)


def after(bad: Step, count: int) -> list[Step]:
    return [GOOD] * 20 + [bad] * count


@pytest.mark.parametrize(
    ("sign", "bad", "count"),
    [
        (zero_gain, replace(GOOD, rewards_G=[0.0, -0.1]), STREAK),
        (all_equal, replace(GOOD, rewards_G=[0.2, 0.2]), 3),
        (collapse, replace(GOOD, different=20), 3),
        (fewer_valid, replace(GOOD, rejected=60), 3),
        (blow_up, replace(GOOD, grad_norm=40.0), 1),
        (blow_up, replace(GOOD, kl=0.2), 1),
        (broken_grader, replace(GOOD, broken=100), 3),
    ],
)
def test_a_sign_is_seen_and_says_what_to_try(sign: Callable[[list[Step]], Alarm | None], bad: Step, count: int) -> None:
    assert sign(after(GOOD, count)) is None
    seen = sign(after(bad, count))
    assert seen is not None
    assert seen.advice


def test_a_streak_ends_with_the_first_gain() -> None:
    assert zero_gain([*after(replace(GOOD, rewards_G=[0.0, 0.0]), STREAK), GOOD]) is None


def test_a_healthy_run_raises_none(small_run: Path) -> None:
    with Ledger.open(small_run, read_only=True) as ledger:
        assert alarms(ledger) == []


def test_a_run_without_gains_raises_two(write_run: Callable[..., Path], tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", gains=[[[0.0] * 3] * 2] * STREAK)
    with Ledger.open(run, read_only=True) as ledger:
        assert [alarm.name for alarm in alarms(ledger)] == ["zero-gain streak", "equal rewards"]


def test_a_run_without_steps_raises_none(write_run: Callable[..., Path], tmp_path: Path) -> None:
    with Ledger.open(write_run(tmp_path / "run", gains=[]), read_only=True) as ledger:
        assert alarms(ledger) == []
