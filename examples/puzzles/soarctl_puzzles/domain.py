"""Puzzles whose answer is any witness that their checker takes."""

import os
import sys
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

from pydantic import Field, PositiveFloat

from soarctl.api import Domain, Outcome, Problem, Rejection, Split, Stream, Verdict
from soarctl_puzzles.process import Process
from soarctl_puzzles.puzzles import Puzzle, read, read_call, recognise, with_arguments

_LONGEST_COMPLETION = 4000
_CHECKER = (sys.executable, "-m", "soarctl_puzzles.checker")

_TEACHER = """\
Puzzles are functions that return True for the right value. Write a puzzle for a student: one of the functions below \
with arguments of your own on one line, and on the next line a value for which it returns True.

{functions}

For example:
{example}

Your puzzle:
"""
_STUDENT = (
    "Find a value for which this function returns True. Write the value as a Python literal.\n\n{question}\n\nValue:"
)


class PuzzlesDomain(Domain):
    """Programming puzzles: find a value that makes a function return True.

    Some families of functions are the teacher's workbook: it writes about these, and they are never hard problems, so
    that no function of the held-out half is practised.
    """

    path: Path
    """The puzzles: a JSON list of objects with `name`, `sat` and `ans_type`; may be gzipped."""
    workbook: int = Field(default=4, ge=1, le=50)
    """Families that the teacher writes about."""
    longest: int = Field(default=400, ge=50)
    """Longest source of a function, in characters."""
    seconds: PositiveFloat = 1.0
    """How long a checker may take for one witness."""

    def files(self) -> Mapping[str, str]:
        return {"path": str(self.path)}

    def load(self) -> Sequence[Problem]:
        own = {puzzle.family for puzzle in self._workbook()}
        return [
            Problem(p.question, f"a value of type {p.kind}", {"family": p.family, "name": p.name, "type": p.kind})
            for p in self._short()
            if p.family not in own
        ]

    def split(self, problems: Sequence[Problem], train_fraction: float, seed: int) -> Split:
        # A family is one function with different arguments: all of it in one half.
        place = {str(p.meta["family"]): 0.0 for p in problems}
        place = {family: Stream(("split", seed, family)).uniforms(1)[0] for family in place}
        ordered = sorted(problems, key=lambda p: (place[str(p.meta["family"])], str(p.meta["family"]), p.id))
        cut = round(len(ordered) * train_fraction)
        while 0 < cut < len(ordered) - 1 and ordered[cut - 1].meta["family"] == ordered[cut].meta["family"]:
            cut += 1
        return Split(train=ordered[:cut], test=ordered[cut:])

    def teacher_prompt(self) -> str:
        functions = "\n\n".join(f"# {p.family}\n{p.question}" for p in self._workbook())
        return _TEACHER.format(functions=functions, example=self.example())

    def example(self) -> str:
        """A completion in the format of the prompt, though its value may be wrong."""
        puzzle = self._workbook()[0]
        value = {"str": "''", "int": "1", "float": "1.0", "bool": "True"}.get(puzzle.kind, "[]")
        return f"{puzzle.family}()\n{value}"

    def student_prompt(self, question: str) -> str:
        return _STUDENT.format(question=question)

    def student_stops(self) -> Sequence[str]:
        return ("\n\n",)

    def parse(self, completion: str) -> Problem | Rejection:
        if len(completion) > _LONGEST_COMPLETION:
            return Rejection("too long")
        first, _, witness = completion.strip().partition("\n")
        called = read_call(first)
        if called is None:
            return Rejection("no function with arguments", first[:200])
        name, arguments = called
        puzzle = next((p for p in self._workbook() if p.family == name), None)
        if puzzle is None:
            return Rejection("not a function of the workbook", name)
        question = with_arguments(puzzle, arguments)
        if question is None or recognise(question, self.path) is None:
            return Rejection("other arguments than the function has")
        if not witness.strip():
            return Rejection("no value")
        return Problem(question, witness.strip(), {"family": puzzle.family, "type": puzzle.kind})

    def grade(self, attempts: Sequence[tuple[Problem, str]]) -> list[Verdict]:
        process = _running(os.getpid())
        return [self._judge(process, problem, completion) for problem, completion in attempts]

    def _judge(self, process: Process, problem: Problem, completion: str) -> Verdict:
        # The question is looked up and not run: of a practice question it is what a model wrote.
        puzzle = recognise(problem.question, self.path)
        if puzzle is None:
            return Verdict(Outcome.UNPARSED, 0.0, "no such puzzle")
        witness = completion.strip()
        job = {"source": problem.question, "kind": puzzle.kind, "witness": witness[:30_000]}
        try:
            said = process.ask(job, self.seconds)
        except OSError:
            return Verdict(Outcome.CRASHED, 0.0, "the checker crashed")
        if said is None:
            return Verdict(Outcome.TIMEOUT, 0.0, "the checker took too long")
        outcome = Outcome(said["outcome"])
        return Verdict(outcome, float(outcome is Outcome.CORRECT), said["reason"], witness)

    def _short(self) -> list[Puzzle]:
        return [puzzle for puzzle in read(self.path) if len(puzzle.question) <= self.longest]

    def _workbook(self) -> list[Puzzle]:
        """One puzzle of each of the teacher's families: the first families with arguments, by an order of their own."""
        families: dict[str, Puzzle] = {}
        for puzzle in self._short():
            if "=" in puzzle.question.partition(":\n")[0]:
                families.setdefault(puzzle.family, puzzle)
        ordered = sorted(families.values(), key=lambda p: Stream(("workbook", p.family)).uniforms(1)[0])
        return ordered[: self.workbook]


@cache
def _running(pid: int) -> Process:
    return Process(_CHECKER)
