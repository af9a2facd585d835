"""A third party's domain: sort digits."""

import random
import re
from collections.abc import Sequence

from pydantic import Field

from soarctl.api import Domain, Outcome, Problem, Rejection, Verdict

_DIGITS = re.compile(r"[0-9](?: [0-9]){1,11}")


class SortingDomain(Domain):
    """Sort `length` digits."""

    length: int = Field(default=5, ge=2, le=12)
    """Digits of each problem."""
    seed: int = 0
    """Decides the problems."""

    def load(self) -> Sequence[Problem]:
        rng = random.Random(self.seed)
        lists = {"".join(rng.choices("0123456789", k=self.length)): None for _ in range(60)}
        return [Problem(" ".join(digits), " ".join(sorted(digits))) for digits in lists]

    def teacher_prompt(self) -> str:
        return "ask:"

    def student_prompt(self, question: str) -> str:
        return f"sort: {question} ="

    def parse(self, completion: str) -> Problem | Rejection:
        question, equals, answer = (part.strip() for part in completion.partition("="))
        if not equals:
            return Rejection("no equals sign")
        if not _DIGITS.fullmatch(question) or not _DIGITS.fullmatch(answer):
            return Rejection("not digits")
        return Problem(question, answer)

    def grade(self, attempts: Sequence[tuple[Problem, str]]) -> list[Verdict]:
        return [
            Verdict(Outcome.CORRECT, 1.0) if text.split() == problem.answer.split() else Verdict(Outcome.WRONG, 0.0)
            for problem, text in attempts
        ]

    def solve(self, question: str) -> str | None:
        return " ".join(sorted(question.split()))
