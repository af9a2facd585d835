"""The code domain: a teacher writes programming problems with tests, a student writes Python that is run on them."""

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, NonNegativeInt, PositiveInt, field_validator

from soarctl.api import Domain, Outcome, Problem, Rejection, Split, Verdict
from soarctl.api import Finding as MachineFinding
from soarctl_code import prompts
from soarctl_code.inspection import Suite, inspect_suite
from soarctl_code.loaders import Format, load_files
from soarctl_code.sandbox import Sandbox
from soarctl_code.verdicts import Finding, Task, Word, judge, read_tests, visible

log = logging.getLogger(__name__)

OUTCOMES = {
    Word.PASSED: Outcome.CORRECT,
    Word.WRONG_ANSWER: Outcome.WRONG,
    Word.INVALID_TEST: Outcome.INVALID,
    Word.TIMEOUT: Outcome.TIMEOUT,
    Word.RUNTIME_ERROR: Outcome.CRASHED,
    Word.MEMORY_LIMIT: Outcome.CRASHED,
    Word.OUTPUT_LIMIT: Outcome.CRASHED,
}
# Programs that solve nothing: tests that one of them passes test nothing.
TRIVIAL = (
    "def {name}(*args, **kwargs):\n    return None\n",
    "def {name}(*args, **kwargs):\n    return args[0] if args else None\n",
    "def {name}(*args, **kwargs):\n    raise NotImplementedError\n",
)


class Tiers(BaseModel):
    """The student's reward, on the paper's scale. Its containment tier has no sense here; some tests take its place."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    all_tests: float = 120.0
    """Every test passes."""
    some_tests: float = 20.0
    """At least one test passes."""
    runs: float = 10.0
    """The program runs to its end without error, and no test passes."""
    parses: float = 0.0
    """It is Python, and fails."""
    none: float = 0.0
    """There is no code block, or what it holds is not Python."""


class DataFile(BaseModel):
    """Where candidate problems are, and in which layout."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    path: str
    """JSONL or a JSON list, either with .gz; for `apps` also its folder of folders."""
    format: Format = "jsonl"
    """Layout of the rows; docs/code.md describes each."""


class CodeDomain(Domain):
    """Python programs judged by tests, each run in a jail."""

    data: tuple[DataFile, ...] = ()
    """Files of candidate problems."""
    shown_tests: NonNegativeInt = 1
    """Tests that the student sees. The others stay hidden, or special-casing earns the reward."""
    most_tests: PositiveInt | None = None
    """Keep this many tests of a loaded problem; null keeps all."""
    least_written: PositiveInt = 3
    """Reject practice questions with fewer tests."""
    most_written: PositiveInt = 20
    """Reject practice questions with more tests."""
    longest: PositiveInt = 20_000
    """Reject teacher completions with more characters."""
    validity: Literal["off", "count", "require", "strict"] = "count"
    """Whether a practice question's own solution passes its tests in the jail: not asked; counted (the faithful
    setting: nothing is rejected); required; or required twice, while three trivial programs must fail."""
    topics: tuple[str, ...] = prompts.TOPICS
    """What the teacher may write about."""
    teacher_template: str = prompts.TEACHER
    """Jinja2, with `topics` and `tests_wanted`."""
    student_template: str | None = None
    """Jinja2, with `question`. Null is our own for programs, or for predicted values if all data are `cruxeval`."""
    rewards: Tiers = Tiers()
    """The student's reward tiers."""
    sandbox: Sandbox = Sandbox()
    """How programs are kept in."""

    @field_validator("teacher_template")
    @classmethod
    def _teacher_template_compiles(cls, template: str) -> str:
        return prompts.check_template(template, "topics", "tests_wanted")

    @field_validator("student_template")
    @classmethod
    def _student_template_compiles(cls, template: str | None) -> str | None:
        return None if template is None else prompts.check_template(template, "question")

    def files(self) -> Mapping[str, str]:
        return {f"data[{index}].path": file.path for index, file in enumerate(self.data)}

    def load(self) -> Sequence[Problem]:
        files: list[tuple[Path, Format]] = [(Path(file.path).expanduser(), file.format) for file in self.data]
        loaded = load_files(files, self.shown_tests, self.most_tests)
        if loaded.bad:
            log.warning("%s", loaded.summary())
        return loaded.problems

    def split(self, problems: Sequence[Problem], train_fraction: float, seed: int) -> Split:
        """As in every domain, but variants of one puzzle stay in one half."""
        leaders: dict[str, Problem] = {}
        for problem in sorted(problems, key=lambda p: p.id):
            leaders.setdefault(_group(problem), problem)
        halves = super().split(list(leaders.values()), train_fraction, seed)
        train = {_group(p) for p in halves.train}
        ordered = sorted(problems, key=lambda p: p.id)
        return Split(
            train=[p for p in ordered if _group(p) in train], test=[p for p in ordered if _group(p) not in train]
        )  # fmt: skip

    def teacher_prompt(self) -> str:
        return prompts.render(
            self.teacher_template, "domain.teacher_template", topics=self.topics, tests_wanted=self.least_written
        )  # fmt: skip

    def student_prompt(self, question: str) -> str:
        template = self.student_template or (prompts.STUDENT_OUTPUT if self._predicts else prompts.STUDENT)
        return prompts.render(template, "domain.student_template", question=question)

    @property
    def _predicts(self) -> bool:
        return bool(self.data) and all(file.format == "cruxeval" for file in self.data)

    def student_stops(self) -> Sequence[str]:
        return ("\nUser:",)

    def parse(self, completion: str) -> Problem | Rejection:
        if len(completion) > self.longest:
            return Rejection("too_long", f"{len(completion)} characters")
        parts = prompts.sections(completion)
        if isinstance(parts, str):
            return Rejection(parts)
        solution, tests = prompts.unfenced(parts["solution"]), prompts.unfenced(parts["tests"])
        if "\0" in solution + tests:
            return Rejection("null_bytes")
        suite = self.sandbox.drive([inspect_suite(solution, tests, self.sandbox.limits)])[0]
        if isinstance(suite, str):
            return Rejection(suite)
        if not self.least_written <= len(suite.asserts) <= self.most_written:
            return Rejection("number_of_tests", str(len(suite.asserts)))
        return self._checked(practice_question(parts["question"], solution, suite, self.shown_tests))

    def _checked(self, problem: Problem) -> Problem | Rejection:
        """The validity gate."""
        if self.validity == "off":
            return problem
        twice = 2 if self.validity == "strict" else 1
        findings = self.sandbox.drive(
            self._task(problem, problem.meta["reference"], seed=seed) for seed in range(twice)
        )  # fmt: skip
        passes = all(finding.word is Word.PASSED for finding in findings)
        if not passes and self.validity != "count":
            return Rejection("reference_fails", f"{findings[0].word}: {findings[0].detail[-200:]}")
        if self.validity == "strict":
            names = read_tests(problem.answer)[0][0]["names"]
            programs = ["".join(text.format(name=name) for name in names) for text in TRIVIAL]
            if any(f.word is Word.PASSED for f in self.sandbox.drive(self._task(problem, p) for p in programs)):
                return Rejection("tests_too_weak")
        return Problem(problem.question, problem.answer, {**problem.meta, "reference_passes": passes})

    def measure(self, problem: Problem) -> Mapping[str, float]:
        tests, _ = read_tests(problem.answer)
        found = {"tests": float(len(tests))}
        if "reference_passes" in problem.meta:
            found["reference_passes"] = float(problem.meta["reference_passes"])
        return found

    def grade(self, attempts: Sequence[tuple[Problem, str]]) -> list[Verdict]:
        programs = [prompts.fenced_block(completion) for _, completion in attempts]
        # The same program on the same problem is run once: a verdict depends on that pair only.
        keys = [(problem.answer, program) for (problem, _), program in zip(attempts, programs, strict=True)]
        first = {key: problem for key, (problem, _) in zip(keys, attempts, strict=True) if key[1] is not None}
        tasks = [self._task(problem, program or "") for (_, program), problem in first.items()]
        findings = dict(zip(first, self.sandbox.drive(tasks), strict=True)) if tasks else {}
        tier = self.sandbox.report().tier
        return [self._verdict(findings.get(key), key[1], tier) for key in keys]

    def _task(self, problem: Problem, program: str, seed: int | None = None) -> Task:
        tests, setup = read_tests(problem.answer)
        preamble = _preamble(problem.answer)
        own = int(problem.id[:8], 16) if seed is None else seed
        return judge(program, tests, setup=setup, preamble=preamble, limits=self.sandbox.limits, seed=own)

    def _verdict(self, finding: Finding | None, program: str | None, tier: str) -> Verdict:
        if finding is None or program is None:
            return Verdict(Outcome.UNPARSED, self.rewards.none, f"no_program [{tier}]")
        return Verdict(
            OUTCOMES[finding.word], self._reward(finding), f"{finding.word} [{tier}]", answer=visible(program)
        )  # fmt: skip

    def _reward(self, finding: Finding) -> float:
        if finding.word is Word.PASSED:
            return self.rewards.all_tests
        if finding.passed:
            return self.rewards.some_tests
        if not finding.parsed:
            return self.rewards.none
        return self.rewards.runs if finding.ran else self.rewards.parses

    def facts(self) -> Mapping[str, Any]:
        report = self.sandbox.report()
        return {"sandbox": report.tier, "sandbox_means": report.reason}

    def checks(self) -> Sequence[MachineFinding]:
        return self.sandbox.findings()


def practice_question(statement: str, solution: str, suite: Suite, shown: int) -> Problem:
    """A teacher's problem, its tests as the answer."""
    tests = [{"kind": "assert", "code": code, "names": suite.names} for code in suite.asserts]
    answer: dict[str, Any] = {"tests": tests} | ({"setup": suite.setup} if suite.setup else {})
    question = prompts.task(statement, suite.asserts[:shown], stdin=False)
    return Problem(question, json.dumps(answer, ensure_ascii=False), {"source": "teacher", "reference": solution})


def _group(problem: Problem) -> str:
    return str(problem.meta.get("group", problem.id))


def _preamble(answer: str) -> str:
    try:
        preamble = json.loads(answer).get("preamble", "")
    except (ValueError, AttributeError, RecursionError):
        return ""
    return preamble if isinstance(preamble, str) else ""
