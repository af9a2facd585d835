"""The promotions of a run: why each one happened, which student it was, and what it had practised."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from soarctl.api import Problem
from soarctl.errors import RunError
from soarctl.ledger import Ledger
from soarctl.runs import facts_of
from soarctl.solutions import Solution, Solver


@dataclass(frozen=True, slots=True)
class PromotedQuestion:
    """A question that the promoted student practised."""

    position: int
    question: str
    answer: str
    """The teacher's own."""
    solution: Solution


@dataclass(frozen=True, slots=True)
class Stage:
    """One promotion."""

    stage: int
    """Counted from 1."""
    step: int
    window: Sequence[float]
    """Step rewards whose mean was above tau, oldest first."""
    tau: float
    rewards_G: Sequence[float]
    dataset: int
    """Index in rewards_G of the dataset that was best."""
    gains_R: Mapping[int, float]
    """Of its students, by repeat. Those that were lost are missing."""
    repeat: int
    """Of the median student, which was promoted."""
    accuracy_before: float
    """The baseline's on Q_R."""
    accuracy_after: float
    """The promoted student's on Q_R."""
    train_before: Mapping[int, float]
    """The baseline's mean over all hard train problems, by attempts per problem; 0 attempts is greedy."""
    train_after: Mapping[int, float]
    """The promoted student's; empty where the run ended before it was a baseline."""
    questions: Sequence[PromotedQuestion]


def stages(ledger: Ledger, solver: Solver, only: int | None = None) -> list[Stage]:
    """The promotions, in order.

    Args:
        ledger: of the run.
        solver: says which of the teacher's answers are right.
        only: this stage alone.

    Raises:
        RunError: there is no stage `only`.
    """
    rows = ledger.rows(
        "SELECT baselines.stage, step, dataset, repeat, window FROM baselines JOIN steps USING (step)"
        " WHERE baselines.stage = COALESCE(?, baselines.stage) ORDER BY baselines.stage",
        only,
    )
    if only is not None and not rows:
        raise no_such_stage(ledger, only)
    return [_stage(ledger, solver, *row) for row in rows]


def no_such_stage(ledger: Ledger, stage: int) -> RunError:
    """The error for a promotion that the run did not make."""
    [(count,)] = ledger.rows("SELECT COUNT(*) FROM baselines WHERE stage > 0")
    known = {0: "this run has made no promotion", 1: "this run has made one, stage 1"}
    return RunError(
        f"no promotion {stage} in this run",
        at=str(ledger.path.parent),
        hint=known.get(count, f"this run has made {count}, stages 1 to {count}"),
    )


def questions_of(ledger: Ledger, step: int, dataset: int) -> list[tuple[int, Problem, str]]:
    """Position, question with the teacher's answer, and completion, for all items of a dataset, in order."""
    return [
        (position, Problem(question, answer, json.loads(meta)), completion)
        for position, question, answer, meta, completion in ledger.rows(
            "SELECT position, question, answer, meta, completion FROM questions"
            " WHERE step = ? AND dataset = ? ORDER BY position",
            step,
            dataset,
        )
    ]


def _stage(ledger: Ledger, solver: Solver, stage: int, step: int, dataset: int, repeat: int, window: str) -> Stage:
    spec = facts_of(ledger)["spec"]
    rewards_G = [r for (r,) in ledger.rows("SELECT reward FROM datasets WHERE step = ? ORDER BY dataset", step)]
    students_R = ledger.rows(
        "SELECT repeat, accuracy, gain FROM students WHERE step = ? AND dataset = ? ORDER BY repeat", step, dataset
    )
    [(accuracy, gain)] = [(accuracy, gain) for j, accuracy, gain in students_R if j == repeat]
    written = questions_of(ledger, step, dataset)
    solutions = solver.solve([problem for _, problem, _ in written])
    return Stage(
        stage=stage,
        step=step,
        window=json.loads(window)[-spec["promotion"]["window"] :],
        tau=spec["promotion"]["tau"],
        rewards_G=rewards_G,
        dataset=dataset,
        gains_R={j: gain for j, _, gain in students_R},
        repeat=repeat,
        accuracy_before=accuracy - gain,
        accuracy_after=accuracy,
        train_before=_train_accuracy(ledger, stage - 1),
        train_after=_train_accuracy(ledger, stage),
        questions=[
            PromotedQuestion(position, problem.question, problem.answer, solution)
            for (position, problem, _), solution in zip(written, solutions, strict=True)
        ],
    )


def _train_accuracy(ledger: Ledger, stage: int) -> dict[int, float]:
    rates: dict[int, list[float]] = {}
    for samples, rate in ledger.rows(
        "SELECT samples, rate FROM baseline_rates WHERE stage = ? ORDER BY samples, problem", stage
    ):
        rates.setdefault(samples, []).append(rate)
    return {samples: fmean(rates_P) for samples, rates_P in rates.items()}
