"""The letters domain: a word, a list of operations, and the word that comes out."""

import random
import re
from collections.abc import Mapping, Sequence

from pydantic import Field, PositiveInt

from soarctl.api import DataError, Domain, Outcome, Problem, Rejection, Verdict
from soarctl_letters.operations import HALF_KNOWN, apply, parse_question

_WORKING = re.compile(r"[A-Z]{3}(?: [A-Z]{3})*")


class LettersDomain(Domain):
    """Chains of operations on a three-letter word, of which the shipped model half knows four.

    Hard problems chain half-known operations only. Chance is 26^-3, and a chain is right only when every operation in
    it is, so a reward is sparse and never luck.
    """

    lengths: tuple[PositiveInt, ...] = Field(default=(3, 4, 5), min_length=1)
    """Operations per problem; candidates are spread evenly over these."""
    candidates: PositiveInt = 300
    """Problems before the fail@k filter."""
    seed: int = 0
    """Decides the candidates."""

    def load(self) -> Sequence[Problem]:
        rng = random.Random(self.seed)
        questions: dict[str, str] = {}
        for _ in range(100 * self.candidates):
            if len(questions) == self.candidates:
                break
            word = "".join(rng.choices("ABCDEFGHIJKLMNOPQRSTUVWXYZ", k=3))
            operations = rng.choices(HALF_KNOWN, k=self.lengths[len(questions) % len(self.lengths)])
            questions[f"{word} | {' '.join(operations)}"] = apply(word, operations)[-1]
        else:
            raise DataError(
                f"fewer than {self.candidates} different problems of lengths {list(self.lengths)} were found",
                at="domain.candidates",
                hint="ask for fewer candidates, or for longer chains",
            )
        return [Problem(question, answer) for question, answer in questions.items()]

    def teacher_prompt(self) -> str:
        return "ask:"

    def student_prompt(self, question: str) -> str:
        return f"solve: {question} ="

    def parse(self, completion: str) -> Problem | Rejection:
        question, equals, working = completion.partition("=")
        if not equals:
            return Rejection("no equals sign")
        parsed = parse_question(question)
        if parsed is None:
            return Rejection("not one word and its operations")
        words = working.split()
        if not _WORKING.fullmatch(" ".join(words)):
            return Rejection("no answer of three letters")
        if len(words) != len(parsed[1]):
            return Rejection("working of another length")
        return Problem(question.strip(), words[-1])

    def grade(self, attempts: Sequence[tuple[Problem, str]]) -> list[Verdict]:
        return [_verdict(problem, completion) for problem, completion in attempts]

    def solve(self, question: str) -> str | None:
        parsed = parse_question(question)
        return apply(*parsed)[-1] if parsed else None

    def measure(self, problem: Problem) -> Mapping[str, float]:
        parsed = parse_question(problem.question)
        if parsed is None:
            return {}
        word, operations = parsed
        return {
            "half_known": sum(operation in HALF_KNOWN for operation in operations) / len(operations),
            "operations": len(operations),
            "correct": float(apply(word, operations)[-1] == problem.answer),
        }


def _verdict(problem: Problem, completion: str) -> Verdict:
    working = " ".join(completion.split())
    if not _WORKING.fullmatch(working):
        return Verdict(Outcome.UNPARSED, 0.0)
    answer = working[-3:]
    right = answer == problem.answer
    return Verdict(Outcome.CORRECT if right else Outcome.WRONG, float(right), answer=answer)
