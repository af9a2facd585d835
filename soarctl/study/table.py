"""The table of a study, from its ledger: which measurements count, and what they say. Needs no torch."""

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from soarctl.early_stop import counted, counted_at, early_stop
from soarctl.ledger import STUDY_FILE, Ledger
from soarctl.passk import pass_at_k
from soarctl.streams import Stream
from soarctl.study.estimates import Difference, Score, Values, difference, score


@dataclass(frozen=True, slots=True)
class StudentRow:
    """One student of an arm."""

    student: int
    source: str | None
    """The run that it learned from."""
    questions: int
    """Different questions that it practised, beside the hard problems."""
    stop: int | None
    """Where the early-stop rule found its training reward level; None for arms that are not trained."""
    counted: Sequence[int]
    """The measured steps that its scores are means of."""
    pass_at: Mapping[int, float]
    """By k: mean over these steps and all held-out problems."""
    rewards: Sequence[float]
    """Mean training reward of each step."""
    curve: Mapping[int, float]
    """Measured step -> mean of the first k's pass@k."""


@dataclass(frozen=True, slots=True)
class ArmRow:
    """One arm."""

    arm: str
    students: Sequence[StudentRow]
    questions: tuple[int, int]
    """Fewest and most different questions of a student."""
    pass_at: Mapping[int, Score]
    teachers: Mapping[str, Mapping[int, float]]
    """By run and k: means over the students of each teacher; empty where there is none."""
    differences: Mapping[int, Difference] | None
    """To `hard_only`, by k; None for that arm itself, and where it is missing."""


@dataclass(frozen=True, slots=True)
class StudyTable:
    """A study as far as it has got."""

    name: str
    directory: str
    ks: Sequence[int]
    problems: int
    """Held-out hard problems."""
    samples: int
    """Attempts per problem in each measurement."""
    steps: int
    """RLOO steps of each trained student."""
    seeds: int
    asked: int
    """Practice questions that a student should have: those of a teacher and of the oracle are drawn to be as many."""
    arms: Sequence[ArmRow]
    """Those that are finished, in the order of the spec."""
    skipped: Mapping[str, str]
    """Arm -> why it could not be compared."""
    waiting: Sequence[str]
    """Arms that are not finished."""
    readings: int
    """How often the held-out half was read: once per student and measurement."""

    @property
    def short(self) -> dict[str, str]:
        """Arms whose students practise fewer questions than asked for -> what is to be known of that."""
        said = {arm.arm: shortfall(arm.questions[0], self.asked) for arm in self.arms}
        return {arm: text for arm, text in said.items() if text is not None}


def shortfall(questions: int, asked: int) -> str | None:
    """What is to be known of an arm whose students practise this many different questions; None where all is well."""
    if questions >= asked or not questions:
        return None
    return f"students practise as few as {questions} different questions where training.questions asks for {asked}"


def open_study(directory: Path) -> Ledger:
    """The ledger of a study, for reading.

    Raises:
        RunError: there is none.
    """
    return Ledger.open(directory, read_only=True, file=STUDY_FILE)


def study_table(ledger: Ledger) -> StudyTable:
    """The table, of the arms that are finished."""
    study: Mapping[str, Any] = ledger.facts["study"]
    [(problems,)] = ledger.rows("SELECT COUNT(*) FROM problems WHERE half = 'test'")
    [(readings,)] = ledger.rows("SELECT COUNT(*) FROM study_evaluations")
    skipped = dict(ledger.rows("SELECT arm, reason FROM study_skipped"))
    ks = tuple(study["measure"]["k"])
    values: dict[str, dict[int, Values]] = {}
    students: dict[str, list[StudentRow]] = {}
    for arm in study["arms"]:
        if _finished(ledger, arm, study):
            students[arm], values[arm] = _students(ledger, arm, study, ks)
    stream = Stream((study["seed"], "study", "table"))
    hard = values.get("hard_only")
    rows = [
        ArmRow(
            arm=arm,
            students=students[arm],
            questions=(min(s.questions for s in students[arm]), max(s.questions for s in students[arm])),
            pass_at={k: score(by_k[k], stream.child("score")) for k in ks},
            teachers=_by_teacher(students[arm], ks),
            differences=None
            if hard is None or arm == "hard_only"
            else {k: difference(by_k[k], hard[k], stream.child("difference")) for k in ks},
        )
        for arm, by_k in values.items()
    ]
    return StudyTable(
        name=study["name"],
        directory=str(ledger.path.parent),
        ks=ks,
        problems=problems,
        samples=study["measure"]["samples"],
        steps=study["training"]["steps"],
        seeds=study["seeds"],
        asked=study["training"]["questions"],
        arms=rows,
        skipped={arm: reason for arm, reason in skipped.items() if arm in study["arms"]},
        waiting=[arm for arm in study["arms"] if arm not in values and arm not in skipped],
        readings=readings,
    )


def _finished(ledger: Ledger, arm: str, study: Mapping[str, Any]) -> bool:
    [(done,)] = ledger.rows(
        "SELECT COUNT(*) FROM study_evaluations WHERE arm = ? AND step IN (0, ?)", arm, study["training"]["steps"]
    )
    return done == study["seeds"]


def _students(
    ledger: Ledger, arm: str, study: Mapping[str, Any], ks: Sequence[int]
) -> tuple[list[StudentRow], dict[int, Values]]:
    """The students of an arm, and their values_S_P by k."""
    # pass@k of each possible count, since there are few: exact fractions are slow.
    samples = study["measure"]["samples"]
    table = {k: np.array([float(pass_at_k(samples, c, k)) for c in range(samples + 1)]) for k in ks}
    measured: defaultdict[int, dict[int, list[int]]] = defaultdict(dict)
    for student, step, correct in ledger.rows(
        "SELECT student, step, correct FROM study_evaluations WHERE arm = ? ORDER BY student, step", arm
    ):
        measured[student][step] = json.loads(correct)
    rewards: defaultdict[int, list[float]] = defaultdict(list)
    for student, reward in ledger.rows(
        "SELECT student, reward FROM study_steps WHERE arm = ? ORDER BY student, step", arm
    ):
        rewards[student].append(reward)
    rows: list[StudentRow] = []
    values_S: dict[int, list[Values]] = {k: [] for k in ks}
    for student, source, questions in ledger.rows(
        "SELECT student, source, questions FROM study_students WHERE arm = ? ORDER BY student", arm
    ):
        by_step = measured[student]
        stop = _stop(rewards[student], study, synthetic=questions != "[]") if rewards[student] else None
        steps = sorted(by_step) if stop is None else _counted(sorted(by_step), stop, study["stop"])
        for k in ks:
            values_S[k].append(np.mean([table[k][by_step[step]] for step in steps], axis=0))
        rows.append(
            StudentRow(
                student=student,
                source=source,
                questions=len({question for question, _ in json.loads(questions)}),
                stop=stop,
                counted=steps,
                pass_at={k: float(values_S[k][-1].mean()) for k in ks},
                rewards=rewards[student],
                curve={step: float(table[ks[0]][correct].mean()) for step, correct in by_step.items()},
            )
        )
    return rows, {k: np.stack(values) for k, values in values_S.items()}


def _stop(rewards_T: Sequence[float], study: Mapping[str, Any], *, synthetic: bool) -> int:
    training, rule = study["training"], study["stop"]
    if rule["at"] is not None:
        return min(rule["at"], len(rewards_T))
    # Row 37: with a curriculum, only what comes after the switch to the hard problems.
    start = min(training["synthetic_steps"], len(rewards_T)) if synthetic and training["mix"] == "curriculum" else 0
    return early_stop(rewards_T, rule["window"], rule["share"], start)


def _counted(steps: Sequence[int], stop: int, rule: Mapping[str, Any]) -> list[int]:
    return counted(steps, stop, rule["average"]) if rule["at"] is None else counted_at(steps, stop)


def _by_teacher(students: Sequence[StudentRow], ks: Sequence[int]) -> dict[str, dict[int, float]]:
    sources = sorted({student.source for student in students if student.source is not None})
    return {source: {k: fmean(s.pass_at[k] for s in students if s.source == source) for k in ks} for source in sources}
