"""Countdown: reach a target with some numbers and + - * /. Any expression that does is right."""

import os
import random
import re
import sys
from collections.abc import Mapping, Sequence
from functools import cache

from pydantic import Field, PositiveFloat, PositiveInt

from soarctl.api import DataError, Domain, Outcome, Problem, Rejection, Verdict
from soarctl_countdown.process import Process

_QUESTION = re.compile(r"make ([0-9]{1,4}) of ([0-9]{1,2}(?: [0-9]{1,2}){1,5})")
_EXPRESSION = re.compile(r"[0-9+\-*/() ]{1,200}")


class CountdownDomain(Domain):
    """The countdown game, judged by a program that runs as long as the run does."""

    numbers: int = Field(default=4, ge=2, le=6)
    """Numbers per problem."""
    candidates: PositiveInt = 100
    """Problems before the fail@k filter."""
    seed: int = 0
    """Decides the candidates."""
    verifier: tuple[str, ...] = (sys.executable, "-m", "soarctl_countdown.verifier")
    """The program that judges, with its arguments."""
    seconds: PositiveFloat = 5.0
    """How long it may think about one attempt."""

    def load(self) -> Sequence[Problem]:
        rng = random.Random(self.seed)
        problems: dict[str, Problem] = {}
        for _ in range(100 * self.candidates):
            if len(problems) == self.candidates:
                return list(problems.values())
            problem = _problem(rng, self.numbers)
            problems.setdefault(problem.id, problem)
        raise DataError(
            f"fewer than {self.candidates} different problems of {self.numbers} numbers were found",
            at="domain.candidates",
            hint="ask for fewer candidates, or for more numbers",
        )

    def teacher_prompt(self) -> str:
        return "ask:"

    def student_prompt(self, question: str) -> str:
        return f"solve: {question} ="

    def parse(self, completion: str) -> Problem | Rejection:
        question, equals, answer = (part.strip() for part in completion.partition("="))
        if not equals:
            return Rejection("no equals sign")
        if not _QUESTION.fullmatch(question):
            return Rejection("not a target and its numbers", question)
        if not _EXPRESSION.fullmatch(answer):
            return Rejection("no expression", answer)
        return Problem(question, answer)

    def grade(self, attempts: Sequence[tuple[Problem, str]]) -> list[Verdict]:
        # One program per process: a worker that was forked must not read its parent's answers.
        process = _running(self.verifier, os.getpid())
        return [self._judge(process, problem, completion) for problem, completion in attempts]

    def measure(self, problem: Problem) -> Mapping[str, float]:
        [verdict] = self.grade([(problem, problem.answer)])
        return {"numbers": float(problem.question.count(" ") - 2), "correct": float(verdict.correct)}

    def _judge(self, process: Process, problem: Problem, completion: str) -> Verdict:
        asked = _QUESTION.fullmatch(problem.question)
        if asked is None:
            return Verdict(Outcome.UNPARSED, 0.0, "no such question")
        numbers = [int(number) for number in asked[2].split()]
        attempt = {"numbers": numbers, "target": int(asked[1]), "expression": completion[:1000]}
        try:
            said = process.ask(attempt, self.seconds)
        except OSError:
            return Verdict(Outcome.CRASHED, 0.0, "the verifier crashed")
        if said is None:
            return Verdict(Outcome.TIMEOUT, 0.0, "the verifier took too long")
        outcome = Outcome(said["outcome"])
        return Verdict(outcome, float(outcome is Outcome.CORRECT), said["reason"], completion.strip())


@cache
def _running(command: tuple[str, ...], pid: int) -> Process:
    return Process(command)


def _problem(rng: random.Random, count: int) -> Problem:
    """Numbers, and a target that they reach, with the expression that reaches it."""
    while True:
        numbers = [rng.randint(1, 9) for _ in range(count)]
        value, expression = numbers[0], str(numbers[0])
        for number in numbers[1:]:
            match rng.choice("+-*"):
                case "+":
                    value, expression = value + number, f"({expression} + {number})"
                case "-":
                    value, expression = value - number, f"({expression} - {number})"
                case _:
                    value, expression = value * number, f"({expression} * {number})"
        if 0 < value < 1000:
            shuffled = rng.sample(numbers, count)
            return Problem(f"make {value} of {' '.join(map(str, shuffled))}", expression)
