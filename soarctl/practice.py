"""Copies of the baseline practise datasets: what they gain on hard problems is what a teacher is paid for.

Students of one outer step train side by side as fleets. Which students share a fleet follows from the spec alone, and
a fleet is also what is kept when a run is interrupted.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import isfinite
from statistics import fmean
from typing import Protocol

from soarctl.api import (
    DataError,
    Policy,
    Problem,
    Stream,
    Student,
)
from soarctl.crew import Crew, Failed, Job, Workplace
from soarctl.errors import RunError
from soarctl.inner_loop import PracticeLog, attempting, inner_loop, solve_rates
from soarctl.promotion import inner_steps, settled
from soarctl.savings import Seen, known_gains, undecided
from soarctl.solving import count_solved_by


@dataclass(frozen=True)
class Practised:
    """A student with the log of its practice."""

    dataset: int
    repeat: int
    student: Student
    log: PracticeLog


class Shelf(Protocol):
    """Where finished students of an unfinished outer step are kept, so that an interrupted run does not lose them."""

    def recall(self, step: int, jobs: Sequence[tuple[int, int]], fingerprint: str) -> list[Student] | None:
        """The students of these (dataset, repeat) jobs, if all of them are finished.

        Raises:
            RunError: they practised something else than `fingerprint` says.
        """
        ...

    def keep(
        self, step: int, students: Sequence[Practised], lost: Mapping[tuple[int, int], str], fingerprint: str
    ) -> None:
        """Takes what a fleet came to: its students, and (dataset, repeat) with the reason of those who failed."""
        ...


@dataclass(frozen=True)
class PracticeJob(Job[list[Practised | Failed]]):
    """One fleet: copies of the baseline that practise side by side, and what they solve of Q_R afterwards."""

    baseline: Policy
    jobs_S: Sequence[tuple[int, int]]
    """(dataset, repeat)"""
    datasets_S: Sequence[Sequence[Problem]]
    streams_S: Sequence[Stream]
    steps: int
    questions: Sequence[Problem]
    """Q_R."""
    samples: int
    """As for `solve_rates`."""
    before: float
    """Accuracy of the baseline on Q_R."""

    def run(self, place: Workplace, *, last: bool) -> list[Practised | Failed]:
        inner = place.spec.inner
        fleet = place.engine.fleet([self.baseline] * len(self.jobs_S), place.spec.student_optimizer)
        flat_window = place.spec.savings.flat_window
        logs_S = inner_loop(
            fleet, place.domain, inner, self.datasets_S, self.streams_S, self.steps, place.tell, flat_window
        )
        broken = [s for s, log in enumerate(logs_S) if not all(isfinite(norm) for norm in log.grad_norms)]
        if broken and not last:
            raise ArithmeticError(_not_finite(*self.jobs_S[broken[0]]))
        # A student that never moved equals its baseline: its gain is 0 without asking.
        moved = [s for s, log in enumerate(logs_S) if log.updates and s not in broken]
        asked = [(s, p, self.streams_S[s].child("q_r", p.id)) for s in moved for p in self.questions]
        rates = iter(solve_rates(fleet, place.domain, asked, self.samples, inner, place.tell))
        after = {s: fmean(next(rates) for _ in self.questions) for s in moved}
        finished: list[Practised | Failed] = []
        for s, (k, j) in enumerate(self.jobs_S):
            if s in broken:
                finished.append(Failed(_not_finite(k, j)))
            else:
                policy, accuracy = (fleet.snapshot(s), after[s]) if s in after else (None, self.before)
                finished.append(
                    Practised(k, j, Student(policy, accuracy, settled(accuracy - self.before), j), logs_S[s])
                )
        return finished


def _not_finite(dataset: int, repeat: int) -> str:
    return f"the gradient of student {repeat} of dataset {dataset} is not finite"


@dataclass
class Baseline:
    """The student that every inner loop starts from, and what it solves."""

    policy: Policy
    stage: int
    """Promotions so far."""
    rates: dict[int, dict[str, float]] = field(default_factory=dict[int, dict[str, float]])
    """Attempts per problem -> problem id -> share solved, over all hard train problems: sampled once per baseline."""


@dataclass
class Practice:
    """What a reward may ask for during one outer step: the framework's `RewardContext`."""

    crew: Crew
    train: Sequence[Problem]
    """All hard problems that the run may learn from."""
    baseline: Baseline
    step: int
    """Outer steps count from 1."""
    stream: Stream
    """The outer step's."""
    shelf: Shelf
    seen: Sequence[Seen] = ()
    """Datasets that were practised from this baseline, where `savings.reuse_overlap` asks for them."""
    asked: Sequence[Problem] = ()
    """Q_R, once a reward drew it."""

    def draw_hard(self, count: int) -> Sequence[Problem]:
        if count > len(self.train):
            raise DataError(
                f"a reward asks for {count} hard problems to learn from; there are {len(self.train)}",
                at="reward.questions",
                hint="ask for fewer, or give the filter more candidates",
            )
        # Without replacement, by run and step only: the same for every dataset, repeat and the baseline (row 18).
        self.asked = [self.train[i] for i in self.stream.child("q_r").choose(len(self.train), count)]
        return self.asked

    def practise(
        self,
        datasets_G: Sequence[Sequence[Problem]],
        repeats: int,
        questions: Sequence[Problem],
        samples: int,
    ) -> list[list[Student]]:
        rates = self._baseline_rates(samples)
        before = fmean(rates[p.id] for p in questions)
        known_G = [self._known_gains(dataset) for dataset in datasets_G]
        # One new student, where gains are known, so that there is somebody to promote.
        wanted_G = [1 if known else repeats for known in known_G]
        first = self.crew.place.spec.savings.race_from or repeats
        jobs = [(k, j) for k, wanted in enumerate(wanted_G) for j in range(min(first, wanted))]
        students_G_R: list[list[Student]] = [[] for _ in datasets_G]
        tried_G = [0 for _ in datasets_G]
        while jobs:
            for (k, _), student in zip(
                jobs, self._practise_jobs(jobs, datasets_G, questions, samples, before), strict=True
            ):
                tried_G[k] += 1
                students_G_R[k] += [student] if student else []
            self._check_that_some_finished(students_G_R)
            jobs = [(k, tried_G[k]) for k in self._undecided(students_G_R, known_G) if tried_G[k] < wanted_G[k]]
        return [
            [replace(student, gain=fmean([student.gain, *known])) for student in students_R] if known else students_R
            for known, students_R in zip(known_G, students_G_R, strict=True)
        ]

    def solve_rates(self, problems: Sequence[Problem], samples: int) -> list[float]:
        questions = [(p, self.stream.child("solve_rates", i)) for i, p in enumerate(problems)]
        return self._rates(self.crew.place.engine.start(), questions, samples)

    def _known_gains(self, dataset: Sequence[Problem]) -> Sequence[float]:
        overlap = self.crew.place.spec.savings.reuse_overlap
        return () if overlap is None else known_gains([(p.question, p.answer) for p in dataset], self.seen, overlap)

    def _undecided(self, students_G_R: Sequence[Sequence[Student]], known_G: Sequence[Sequence[float]]) -> list[int]:
        if self.crew.place.spec.savings.race_from is None:
            return []
        gains_G_R = [[*known, *(s.gain for s in some)] for known, some in zip(known_G, students_G_R, strict=True)]
        moved_G = [any(student.policy is not None for student in some) for some in students_G_R]
        size = self.crew.place.spec.teacher.group_size  # datasets are compared within their group
        return [
            at + k
            for at in range(0, len(gains_G_R), size)
            for k in undecided(gains_G_R[at : at + size], moved_G[at : at + size])
        ]

    def _check_that_some_finished(self, students_G_R: Sequence[Sequence[Student]]) -> None:
        for k, students_R in enumerate(students_G_R):
            if not students_R:
                raise RunError(
                    f"no student of dataset {k} of outer step {self.step} came to the end of its practice",
                    hint="the warnings say why. `--resume` trains these students again: that helps where memory was\n"
                    "short or a process died. A gradient that is not finite will be so again: a new run with a\n"
                    "smaller inner.lr",
                )

    def _practise_jobs(
        self,
        jobs: Sequence[tuple[int, int]],
        datasets_G: Sequence[Sequence[Problem]],
        questions: Sequence[Problem],
        samples: int,
        before: float,
    ) -> list[Student | None]:
        """The students of these (dataset, repeat) jobs; None for one whose practice failed for good."""
        width = self.crew.place.engine.width
        fleets = [
            self._fleet(jobs[at : at + width], datasets_G, questions, samples, before)
            for at in range(0, len(jobs), width)
        ]
        found: dict[tuple[int, int], Student | None] = {}
        waiting: list[PracticeJob] = []
        for fleet in fleets:
            kept = self.shelf.recall(self.step, fleet.jobs_S, _fingerprint(fleet))
            if kept is None:
                waiting.append(fleet)
            else:
                self._take(fleet, kept, found, len(jobs))
        for index, result in self.crew.map(waiting):
            self._take(waiting[index], self._kept(waiting[index], result), found, len(jobs))
        return [found[job] for job in jobs]

    def _fleet(
        self,
        jobs_S: Sequence[tuple[int, int]],
        datasets_G: Sequence[Sequence[Problem]],
        questions: Sequence[Problem],
        samples: int,
        before: float,
    ) -> PracticeJob:
        inner = self.crew.place.spec.inner
        return PracticeJob(
            baseline=self.baseline.policy,
            jobs_S=jobs_S,
            datasets_S=[datasets_G[k] for k, _ in jobs_S],
            streams_S=[self.stream.child("practice", k, j) for k, j in jobs_S],
            steps=inner_steps(inner.steps, inner.per_promotion, inner.cap, self.baseline.stage),
            questions=questions,
            samples=samples,
            before=before,
        )

    def _kept(self, fleet: PracticeJob, result: list[Practised | Failed] | Failed) -> list[Student | None]:
        """The students of a fleet that was trained now, after they were put on the shelf."""
        outcomes = [result] * len(fleet.jobs_S) if isinstance(result, Failed) else result
        lost = {job: o.reason for job, o in zip(fleet.jobs_S, outcomes, strict=True) if isinstance(o, Failed)}
        practised = [o for o in outcomes if isinstance(o, Practised)]
        self.shelf.keep(self.step, practised, lost, _fingerprint(fleet))
        for (k, j), reason in lost.items():
            self.crew.place.tell("warning", text=f"student {j} of dataset {k} is left out of the mean: {reason}")
        return [o.student if isinstance(o, Practised) else None for o in outcomes]

    def _take(
        self,
        fleet: PracticeJob,
        students: Sequence[Student | None],
        found: dict[tuple[int, int], Student | None],
        wanted: int,
    ) -> None:
        found.update(zip(fleet.jobs_S, students, strict=True))
        gains = [student.gain for _, student in sorted(found.items(), key=lambda item: item[0]) if student]
        self.crew.place.tell("students", finished=len(found), of=wanted, gains=gains)

    def _baseline_rates(self, samples: int) -> Mapping[str, float]:
        if samples not in self.baseline.rates:
            stream = Stream((self.crew.place.spec.seed, "baseline", self.baseline.stage, samples))
            rates = self._rates(self.baseline.policy, [(p, stream.child(p.id)) for p in self.train], samples)
            self.baseline.rates[samples] = {p.id: rate for p, rate in zip(self.train, rates, strict=True)}
        return self.baseline.rates[samples]

    def _rates(self, policy: Policy, questions: Sequence[tuple[Problem, Stream]], samples: int) -> list[float]:
        place, each = self.crew.place, max(samples, 1)
        draw = attempting(place.spec.inner, place.domain, samples)
        return [count / each for count in count_solved_by(self.crew, policy, questions, each, draw)]


def _fingerprint(job: PracticeJob) -> str:
    said = repr([[(p.question, p.answer) for p in questions] for questions in [*job.datasets_S, job.questions]])
    return hashlib.sha256(said.encode()).hexdigest()
