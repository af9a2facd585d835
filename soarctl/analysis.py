"""The quality of a run's questions: what the filter rejects, what is right, how varied they are, what they leak."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from soarctl.api import Problem
from soarctl.diversity import Diversity, Kernel, diversity, ngram_kernel
from soarctl.judge import Judge, Judgement
from soarctl.ledger import Ledger
from soarctl.near_duplicates import Leaks, leaks
from soarctl.solutions import Solver


@dataclass(frozen=True, slots=True)
class Funnel:
    """What became of the completions of an outer step."""

    step: int
    drawn: int
    accepted: int
    """Those that passed the format filter."""
    rejections: Mapping[str, int]
    """By rule."""


@dataclass(frozen=True, slots=True)
class Quality:
    """Of some questions."""

    judged: int
    """Of how many of them something is known."""
    well_posed: int
    """Those that have an answer."""
    correct: int
    """Those of which the teacher's answer is right."""
    errors: Mapping[str, int]
    """By type, where a judge says it."""


@dataclass(frozen=True, slots=True)
class StepAnalysis:
    """The questions of one outer step."""

    funnel: Funnel
    quality: Quality
    diversity: Diversity


@dataclass(frozen=True, slots=True)
class Analysis:
    """The questions of a run."""

    judged_by: str
    """`solver`, the name of a model, or `nobody`."""
    steps: Sequence[StepAnalysis]
    promoted: Quality
    """Of the promotion questions."""
    leaks: Mapping[str, Leaks]
    """Between the promotion questions and the hard problems, by half."""


def analyze(ledger: Ledger, solver: Solver, judge: Judge | None, limit: int, kernel: Kernel = ngram_kernel) -> Analysis:
    """The quality of all questions of a run.

    Args:
        ledger: of the run.
        solver: asked first; it knows all answers or none.
        judge: asked where the solver knows none.
        limit: at most this many questions go to the judge: the promotion questions, then others spread over the run.
        kernel: how alike two questions are, for the Vendi score.
    """
    questions = questions_by_step(ledger)
    promoted = promoted_questions(ledger)
    judgements = _solved(solver, questions, promoted)
    by = "solver" if judgements else "nobody"
    if not judgements and judge is not None:
        chosen = _chosen(questions, promoted, limit)
        judgements = dict(zip(chosen, judge.judge([Problem(q, a) for q, a in chosen]), strict=True))
        by = judge.model
    archive: set[str] = set()
    steps: list[StepAnalysis] = []
    for funnel in funnels(ledger):
        asked = questions[funnel.step]
        steps.append(
            StepAnalysis(
                funnel, _quality(asked, judgements), diversity([p.question for p in asked], archive, kernel=kernel)
            )
        )
        archive |= {p.id for p in asked}
    return Analysis(by, steps, _quality(promoted, judgements), promotion_leaks(ledger))


def funnels(ledger: Ledger) -> list[Funnel]:
    """What became of the teacher's completions, per outer step."""
    rejections: defaultdict[int, dict[str, int]] = defaultdict(dict)
    for step, rule, count in ledger.rows("SELECT step, rule, count FROM rejections ORDER BY step, rule"):
        rejections[step][rule] = count
    return [
        Funnel(step, drawn, drawn - sum(rejections[step].values()), rejections[step])
        for step, drawn in ledger.rows("SELECT step, drawn FROM steps ORDER BY step")
    ]


def questions_by_step(ledger: Ledger) -> dict[int, list[Problem]]:
    """The practice questions of each outer step, in order of writing."""
    found: defaultdict[int, list[Problem]] = defaultdict(list)
    for step, question, answer in ledger.rows(
        "SELECT step, question, answer FROM questions ORDER BY step, dataset, position"
    ):
        found[step].append(Problem(question, answer))
    return found


def promoted_questions(ledger: Ledger) -> list[Problem]:
    """The promotion questions, in order."""
    return [
        Problem(question, answer)
        for question, answer in ledger.rows(
            "SELECT question, answer FROM questions JOIN baselines USING (step, dataset) ORDER BY stage, position"
        )
    ]


def promotion_leaks(ledger: Ledger) -> dict[str, Leaks]:
    """Near-duplicates between the promotion questions and the hard problems of each half."""
    asked = [problem.question for problem in promoted_questions(ledger)]
    hard: dict[str, list[str]] = {"train": [], "test": []}
    for half, question in ledger.rows("SELECT half, question FROM problems WHERE half IS NOT NULL ORDER BY id"):
        hard[half].append(question)
    return {half: leaks(asked, problems) for half, problems in hard.items()}


def _solved(
    solver: Solver, questions: Mapping[int, Sequence[Problem]], promoted: Sequence[Problem]
) -> dict[tuple[str, str], Judgement | None]:
    """What the domain's solver says of every question; nothing where it knows no answer at all."""
    different = {(p.question, p.answer): p for asked in (*questions.values(), promoted) for p in asked}
    solutions = solver.solve(list(different.values()))
    if all(solution.answer is None for solution in solutions):
        return {}
    return {
        name: Judgement(solution.answer is not None, bool(solution.correct), None, solution.answer)
        for name, solution in zip(different, solutions, strict=True)
    }


def _chosen(
    questions: Mapping[int, Sequence[Problem]], promoted: Sequence[Problem], limit: int
) -> list[tuple[str, str]]:
    every = [p for asked in questions.values() for p in asked]
    stride = max(len(every) // max(limit - len(promoted), 1), 1)
    return list(dict.fromkeys((p.question, p.answer) for p in (*promoted, *every[::stride])))[:limit]


def _quality(asked: Sequence[Problem], judgements: Mapping[tuple[str, str], Judgement | None]) -> Quality:
    judged = [j for p in asked if (j := judgements.get((p.question, p.answer))) is not None]
    return Quality(
        judged=len(judged),
        well_posed=sum(j.well_posed for j in judged),
        correct=sum(j.correct for j in judged),
        errors=Counter(j.error.value for j in judged if j.error is not None),
    )
