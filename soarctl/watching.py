"""A run in another process, followed through its ledger: events as the run itself would tell them."""

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from soarctl.alarms import alarms, alarms_by_step
from soarctl.history import OuterStep, Overview, Progress, outer_steps, overview
from soarctl.ledger import Ledger

Event = tuple[str, dict[str, Any]]


class Follower:
    """Says what is new in a run since it was last asked."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._shown = 0
        self._students: tuple[int, int] = (0, 0)
        self._filtered = (0, 0)
        self._halved = False
        self._evaluated: set[str] = set()
        self._begun = False

    def events(self) -> Iterator[Event]:
        """Everything new, in order.

        Raises:
            RunError: the run cannot be read.
        """
        with Ledger.open(self._directory, read_only=True) as ledger:
            run = overview(ledger)
            if not self._begun:
                self._begun = True
                yield _started(run, ledger)
            yield from self._filter(ledger, run)
            seconds = dict(
                ledger.rows("SELECT step, SUM(seconds) FROM timings WHERE phase = 'outer_step' GROUP BY step")
            )
            seen = alarms_by_step(ledger)
            for step in outer_steps(ledger)[self._shown :]:
                self._shown, held = step.step, seen.get(step.step, [])
                yield "step_started", {"step": step.step, "stage": step.stage}
                yield "step", _step(ledger, step) | {"seconds": seconds.get(step.step, 0.0), "alarms": held}
                yield from (("alarm", alarm) for alarm in held if alarm["step"] == step.step)
            yield from self._now(ledger, run)
            for (arm,) in ledger.rows("SELECT DISTINCT arm FROM evaluations ORDER BY arm"):
                if arm not in self._evaluated:
                    self._evaluated.add(arm)
                    yield "evaluated", {"arm": arm, "problems": run.test}
            if run.progress is not Progress.RUNNING:
                yield (
                    "finished",
                    {
                        "directory": run.directory,
                        "progress": run.progress.value,
                        "alarms": [asdict(alarm) for alarm in alarms(ledger)],
                    },
                )

    def _filter(self, ledger: Ledger, run: Overview) -> Iterator[Event]:
        if run.train and not self._halved:
            self._halved = True
            [(samples,)] = ledger.rows("SELECT SUM(samples) FROM problems")
            counts = {"problems": run.problems, "train": run.train, "test": run.test}
            yield "filtered", counts | {"samples": samples}
        elif not run.train:
            [(done, hard)] = ledger.rows("SELECT COUNT(*), COALESCE(SUM(successes = 0), 0) FROM problems")
            if (done, hard) != self._filtered:
                self._filtered = (done, hard)
                yield "filter", {"done": done, "of": "?", "hard": hard}

    def _now(self, ledger: Ledger, run: Overview) -> Iterator[Event]:
        """The outer step in progress: what students have finished of it."""
        if run.progress is not Progress.RUNNING or run.steps_done >= run.steps or not run.train:
            return
        step = run.steps_done + 1
        gains = [gain for (gain,) in ledger.rows("SELECT gain FROM students WHERE step = ?", step)]
        now = (step, len(gains))
        if now == self._students:
            return
        if self._students[0] != step:
            yield "step_started", {"step": step, "stage": run.promotions}
        self._students = now
        if gains:
            yield "students", {"finished": len(gains), "of": _students_per_step(ledger), "gains": gains}


def _students_per_step(ledger: Ledger) -> int | str:
    """g·r, where the last finished step shows it."""
    rows = ledger.rows("SELECT COUNT(*) FROM students WHERE step = (SELECT MAX(step) FROM steps)")
    return rows[0][0] or "?"


def _started(run: Overview, ledger: Ledger) -> Event:
    return "started", {
        "name": run.name,
        "directory": run.directory,
        "domain": run.domain,
        "reward": run.reward,
        "steps": run.steps,
        "tau": run.tau,
        "steps_done": run.steps_done,
        "domain_facts": ledger.facts.get("domain", {}),
        "alarms": [],
    }


def _step(ledger: Ledger, step: OuterStep) -> dict[str, Any]:
    """A finished outer step as the run tells it; what only the domain could say is left out."""
    rejections = dict(ledger.rows("SELECT rule, count FROM rejections WHERE step = ?", step.step))
    [(teacher,)] = ledger.rows("SELECT teacher FROM steps WHERE step = ?", step.step)
    first = ledger.rows(
        "SELECT dataset, question, answer FROM questions WHERE step = ? AND position = 0 ORDER BY dataset", step.step
    )
    return {
        "step": step.step,
        "stage": step.stage,
        "reward": step.reward,
        "rewards": list(step.rewards_G),
        "window_mean": step.window_mean,
        "promoted": step.promoted,
        "drawn": step.drawn,
        "accepted": step.accepted,
        "rejections": rejections,
        "teacher": json.loads(teacher),
        "measures": step.measures,
        "questions": [{"dataset": k, "question": q, "answer": a, "solution": None} for k, q, a in first],
    }
