"""The quality of the questions of a small run, by the letters domain's own solver and by a judge."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from soarctl.analysis import analyze, promotion_leaks
from soarctl.api import Problem
from soarctl.judge import ErrorType, Judgement
from soarctl.ledger import Ledger
from soarctl.solutions import Solver, solver_of

NOBODY = Solver(None)


class Yes:
    """A judge that finds everything well-posed and short answers wrong."""

    model = "yes"

    def __init__(self) -> None:
        self.asked: list[Problem] = []

    def judge(self, problems: Sequence[Problem]) -> list[Judgement | None]:
        self.asked += problems
        return [Judgement(True, len(p.answer) > 3, ErrorType.LOGIC, None) for p in problems]


def test_the_solver_says_what_is_right(small_run: Path) -> None:
    with Ledger.open(small_run, read_only=True) as ledger:
        found = analyze(ledger, solver_of(ledger), None, 10)
    assert found.judged_by == "solver"
    # Of the four questions of step 2 one has a wrong answer; it is one of the two that were promoted.
    assert [(s.quality.judged, s.quality.well_posed, s.quality.correct) for s in found.steps[:2]] == [
        (4, 4, 4),
        (4, 4, 3),
    ]
    assert (found.promoted.judged, found.promoted.correct) == (2, 1)


def test_the_funnel_and_repetitions_are_those_of_each_step(small_run: Path) -> None:
    with Ledger.open(small_run, read_only=True) as ledger:
        steps = analyze(ledger, NOBODY, None, 10).steps
    assert [(s.funnel.drawn, s.funnel.accepted, s.funnel.rejections) for s in steps] == [
        (5, 4, {"no equals sign": 1})
    ] * 4
    # Step 1 writes two questions twice; steps 3 and 4 write nothing new.
    assert [(s.diversity.repeated, s.diversity.known) for s in steps] == [(0.5, 0), (0, 0.5), (0.5, 1), (0.5, 1)]


def test_the_vendi_score_is_by_the_kernel_that_is_asked_for(small_run: Path) -> None:
    def all_alike(texts: Sequence[str]) -> NDArray[np.float64]:
        return np.ones((len(texts), len(texts)))

    with Ledger.open(small_run, read_only=True) as ledger:
        assert analyze(ledger, NOBODY, None, 10).steps[1].diversity.vendi > 3
        alike = analyze(ledger, NOBODY, None, 10, all_alike).steps
    assert [step.diversity.vendi for step in alike] == pytest.approx([1.0] * 4)


def test_the_judge_is_asked_where_the_domain_knows_nothing(small_run: Path) -> None:
    judge = Yes()
    with Ledger.open(small_run, read_only=True) as ledger:
        found = analyze(ledger, NOBODY, judge, 3)  # type: ignore[arg-type]
    assert found.judged_by == "yes"
    assert len(judge.asked) == 3
    assert [p.question for p in judge.asked[:2]] == ["CAT | up", "DOG | flip bump"]
    assert (found.promoted.judged, found.promoted.correct, found.promoted.errors) == (2, 0, {"logic": 2})


def test_nobody_says_what_is_right_without_solver_and_judge(small_run: Path) -> None:
    with Ledger.open(small_run, read_only=True) as ledger:
        found = analyze(ledger, NOBODY, None, 10)
    assert (found.judged_by, found.promoted.judged) == ("nobody", 0)


def test_leaks_are_looked_for_in_both_halves(small_run: Path) -> None:
    # Hard problems are "CAT | up up up ...", and "CAT | up" was promoted: it is the beginning of all eight.
    with Ledger.open(small_run, read_only=True) as ledger:
        found = promotion_leaks(ledger)
    assert {half: [near.text for near in leak.questions_in_problems] for half, leak in found.items()} == {
        "train": ["CAT | up"],
        "test": ["CAT | up"],
    }
    assert found["train"].problems_in_questions == []


@pytest.mark.parametrize("limit", [1, 2, 100])
def test_the_judge_is_asked_no_more_than_the_limit(small_run: Path, limit: int) -> None:
    judge = Yes()
    with Ledger.open(small_run, read_only=True) as ledger:
        analyze(ledger, NOBODY, judge, limit)  # type: ignore[arg-type]
    assert len(judge.asked) <= limit
