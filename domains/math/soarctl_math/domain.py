"""The math domain: competition problems with a short answer, as in the paper."""

import logging
import os
from collections.abc import Mapping, Sequence
from functools import lru_cache

from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt, field_validator

from soarctl.api import DataError, Domain, Outcome, PluginError, Problem, Rejection, Verdict
from soarctl_math import questions, symbolic
from soarctl_math.extract import boxed, final_answer
from soarctl_math.loaders import Source, problems_of
from soarctl_math.verifier import Judgement, Reason, Verifier, within

_log = logging.getLogger("soarctl.math")
_OUTCOMES = {Reason.TIMEOUT: Outcome.TIMEOUT, Reason.CRASH: Outcome.CRASHED, Reason.NO_ANSWER: Outcome.UNPARSED}
CONTAINS = "contains the gold"


class Tiers(BaseModel):
    """The student's training reward (section 2.4 of the fact sheet, appendix B of the paper)."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    correct: float = 120.0
    """A box with the right answer."""
    contains: float = 20.0
    """A box with another answer, in whose text the gold answer occurs."""
    boxed: float = 10.0
    """A box with another answer."""
    unboxed: float = 0.0
    """No box, whatever the text says."""


class MathDomain(Domain):
    """Problems from MATH, HARP, OlympiadBench or any table, judged by value with Math-Verify behind."""

    data: tuple[Source, ...] = ()
    """Files or folders of candidate problems. Needed to load problems; grading works without."""
    exclude: tuple[Source, ...] = ()
    """Files whose problems are left out of `data`: another half, or another set (790 HARP problems stand in MATH)."""
    teacher_template: str = questions.TEACHER
    """Jinja2 template of the teacher's prompt; `topics` is a list."""
    student_template: str = questions.STUDENT
    """Jinja2 template of the student's prompt; `question` is the question."""
    topics: tuple[str, ...] = Field(default=questions.TOPICS, min_length=1)
    """What the teacher may write about; MATH's seven subjects."""
    stops: tuple[str, ...] = ("\nUser:",)
    """Strings that end a student's completion: a plain-text conversation invites a model to go on with it (row 32)."""
    tiers: Tiers = Tiers()
    """The student's training reward."""
    require_box: bool = True
    """Only a boxed answer counts. Off, the last answer that a text names is taken."""
    longest_question: PositiveInt = 4000
    """Characters of a practice question; longer ones are rejected."""
    symbolic: bool = True
    """Ask Math-Verify about what the own path cannot read. Needs `pip install 'soarctl[math]'`."""
    workers: PositiveInt = 2
    """Processes that run Math-Verify, started when the first answer needs one."""
    timeout: PositiveFloat = 1.5
    """Seconds that Math-Verify may take for one answer before its process is killed."""
    memory_gib: PositiveFloat = 2.0
    """Address space of such a process."""

    @field_validator("teacher_template", "student_template")
    @classmethod
    def _template_compiles(cls, template: str) -> str:
        return questions.check_template(template)

    def files(self) -> Mapping[str, str]:
        return {
            f"{option}[{index}].path": source.path
            for option, sources in (("data", self.data), ("exclude", self.exclude))
            for index, source in enumerate(sources)
            if not source.on_hub
        }

    def load(self) -> Sequence[Problem]:
        if not self.data:
            raise DataError("no data is named", at="domain.data", hint="data: [{path: MATH/test, format: math}]")
        self.check()
        found: list[Problem] = []
        for problems, report in problems_of(self.data, self.exclude):
            for line in report.lines():
                _log.warning("%s: %s", report.path, line)
            found += problems
        return found

    def check(self) -> None:
        """Whether the grader works: what it needs is there, and it judges known pairs as it should.

        Raises:
            PluginError: it does not; says which pair is judged how.
        """
        from soarctl_math.known_pairs import check_grader

        if self.symbolic and not symbolic.available():
            raise PluginError(
                "Math-Verify is not installed",
                at="domain.symbolic",
                hint="pip install 'soarctl[math]'\nor symbolic: false, to judge by the own path alone",
            )
        self.student_prompt("1 + 1 = ?")
        self.teacher_prompt()
        check_grader(self)

    def teacher_prompt(self) -> str:
        return questions.rendered(self.teacher_template, "", self.topics, "teacher_template")

    def student_prompt(self, question: str) -> str:
        return questions.rendered(self.student_template, question, self.topics, "student_template")

    def student_stops(self) -> Sequence[str]:
        return self.stops

    def teacher_stops(self) -> Sequence[str]:
        return ()

    def parse(self, completion: str) -> Problem | Rejection:
        found = questions.read_question(completion, self.longest_question)
        if isinstance(found, Rejection):
            return found
        question, answer = found
        if not self.verifier().readable([answer])[0]:
            return Rejection("answer is not mathematics", answer[:200])
        return Problem(question, answer)

    def grade(self, attempts: Sequence[tuple[Problem, str]]) -> list[Verdict]:
        extract = boxed if self.require_box else final_answer
        answers = [extract(completion) for _, completion in attempts]
        pairs = [
            (problem.answer, answer)
            for (problem, _), answer in zip(attempts, answers, strict=True)
            if answer is not None
        ]
        judgements = iter(self.verifier().judge_all(pairs))
        return [
            Verdict(Outcome.UNPARSED, self.tiers.unboxed, Reason.NO_ANSWER.value)
            if answer is None
            else self._verdict(problem, answer, next(judgements))
            for (problem, _), answer in zip(attempts, answers, strict=True)
        ]

    def measure(self, problem: Problem) -> Mapping[str, float]:
        return {"question_length": float(len(problem.question)), "answer_length": float(len(problem.answer))}

    def verifier(self) -> Verifier:
        """The verifier of this process; all domains with the same options share it."""
        return _verifier(os.getpid(), self.workers if self.symbolic else 0, self.timeout, self.memory_gib)

    def _verdict(self, problem: Problem, answer: str, judged: Judgement) -> Verdict:
        tolerance = problem.meta.get("tolerance")
        if not judged.equal and isinstance(tolerance, float) and within(problem.answer, answer, tolerance):
            judged = Judgement(True, Reason.TOLERANCE)
        if judged.equal:
            return Verdict(Outcome.CORRECT, self.tiers.correct, judged.reason.value, answer)
        outcome = _OUTCOMES.get(judged.reason, Outcome.WRONG)
        gold = _squeezed(problem.answer)
        if gold and gold in _squeezed(answer):
            return Verdict(outcome, self.tiers.contains, f"{judged.reason.value}, {CONTAINS}", answer)
        return Verdict(outcome, self.tiers.boxed, judged.reason.value, answer)


def _squeezed(answer: str) -> str:
    return "".join(answer.replace("$", "").split())


@lru_cache(maxsize=8)
def _verifier(process: int, workers: int, timeout: float, memory_gib: float) -> Verifier:
    # By process, so that a forked worker does not talk to its parent's processes.
    memory = int(memory_gib * (1 << 30))
    return Verifier(symbolic.Workers(workers, timeout, memory) if workers else None)
