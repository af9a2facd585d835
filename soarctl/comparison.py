"""Runs beside each other: where their specs differ, and what came of each. Reads ledgers alone."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from soarctl.alarms import alarms
from soarctl.history import Overview, outer_steps, overview
from soarctl.ledger import Ledger
from soarctl.runs import facts_of

# What every run has of its own.
_ITS_OWN = ("name", "trackers")


@dataclass(frozen=True, slots=True)
class Compared:
    """One run."""

    run: Overview
    mean_reward: float | None
    """Over all finished outer steps; None before the first."""
    promoted_at: Sequence[int]
    """Outer steps."""
    passed: float | None
    """Share of the teacher's completions that passed the format filter."""
    seconds: float
    alarms: Sequence[str]
    """Names of those that were raised."""
    pass_at_1: Mapping[str, float]
    """On the held-out half, by arm."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """Several runs."""

    runs: Sequence[Compared]
    differences: Mapping[str, Sequence[Any]]
    """Spec key -> its value in each run; None where the run's spec has no such key."""
    same_problems: bool
    """Whether all have the same hard problems in the same halves. Otherwise their scores do not compare."""


def compare(directories: Sequence[Path]) -> Comparison:
    """The runs in these directories.

    Raises:
        RunError: one of them is no run.
    """
    runs: list[Compared] = []
    specs: list[dict[str, Any]] = []
    splits: list[Any] = []
    for directory in directories:
        with Ledger.open(directory, read_only=True) as ledger:
            facts = facts_of(ledger)
            specs.append(flat(facts["spec"]))
            splits.append({half: facts.get("split", {}).get(half) for half in ("train", "test")})
            runs.append(_compared(ledger))
    keys = sorted({key for spec in specs for key in spec if key.partition(".")[0] not in _ITS_OWN})
    values = {key: [spec.get(key) for spec in specs] for key in keys}
    differences = {key: found for key, found in values.items() if any(value != found[0] for value in found)}
    return Comparison(runs, differences, all(split == splits[0] for split in splits))


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one, with dotted keys."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        found |= flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return found


def _compared(ledger: Ledger) -> Compared:
    steps = outer_steps(ledger)
    [(seconds,)] = ledger.rows("SELECT COALESCE(SUM(seconds), 0) FROM timings")
    return Compared(
        run=overview(ledger),
        mean_reward=fmean(step.reward for step in steps) if steps else None,
        promoted_at=[step.step for step in steps if step.promoted],
        passed=sum(s.accepted for s in steps) / sum(s.drawn for s in steps) if steps else None,
        seconds=seconds,
        alarms=[alarm.name for alarm in alarms(ledger)],
        pass_at_1=dict(ledger.rows("SELECT arm, 1.0 * SUM(correct) / SUM(samples) FROM evaluations GROUP BY arm")),
    )
