"""Whether the teacher's answers are right, where the domain can tell. For people only: nothing in a run asks this."""

from collections.abc import Sequence
from dataclasses import dataclass

from soarctl import asking, plugins
from soarctl.api import Domain, Problem, Verdict
from soarctl.errors import SoarError
from soarctl.events import silent
from soarctl.grading import grade
from soarctl.ledger import Ledger
from soarctl.runs import spec_of


@dataclass(frozen=True, slots=True)
class Solution:
    """The domain's view of a practice question."""

    answer: str | None
    """The true answer; None where the domain has none."""
    correct: bool | None
    """Whether the teacher's own answer is right; None where there is no true one to compare it with."""


UNKNOWN = Solution(None, None)


@dataclass(frozen=True)
class Solver:
    """The domain of a run, asked for true answers."""

    domain: Domain | None
    missing: str | None = None
    """Why the domain cannot be asked."""

    def solve(self, problems: Sequence[Problem]) -> list[Solution]:
        """One solution per practice question, in order."""
        if self.domain is None:
            return [UNKNOWN for _ in problems]
        answers = [asking.solve(self.domain, problem.question) for problem in problems]
        solved = [
            (Problem(p.question, a, p.meta), p.answer) for p, a in zip(problems, answers, strict=True) if a is not None
        ]
        verdicts = iter(grade(self.domain, solved, silent))
        return [
            UNKNOWN if answer is None else Solution(answer, _agrees(problem, answer, next(verdicts)))
            for problem, answer in zip(problems, answers, strict=True)
        ]


def solver_of(ledger: Ledger) -> Solver:
    """The solver of the run's domain. A domain that cannot be loaded here is no error: reading goes on without it."""
    section = spec_of(ledger).domain
    try:
        return Solver(plugins.load(Domain, section.plugin, section.options))
    except SoarError as error:
        return Solver(None, error.message)


def _agrees(problem: Problem, answer: str, verdict: Verdict) -> bool:
    # The grader knows that 1/2 is 0.5; but it may want more around an answer than the answer alone.
    return verdict.correct or answer.split() == problem.answer.split()
