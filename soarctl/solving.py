"""Attempts at problems, counted: the baseline's on the train half, the closing measurement's on the other."""

from collections.abc import Sequence
from dataclasses import dataclass

from soarctl.api import Domain, Fleet, Policy, Problem, Prompt, Sampling, Stream
from soarctl.asking import student_prompt
from soarctl.crew import Crew, Job, Workplace
from soarctl.events import Tell
from soarctl.grading import grade


def count_solved(
    fleet: Fleet,
    domain: Domain,
    questions: Sequence[tuple[int, Problem, Stream]],
    samples: int,
    sampling: Sampling,
    tell: Tell,
) -> list[int]:
    """How many of `samples` attempts solve each (policy, problem, stream), in order."""
    if not questions:
        return []
    groups = fleet.sample(
        [Prompt(s, student_prompt(domain, p.question), samples, stream) for s, p, stream in questions], sampling
    )
    attempts = [(p, c.text) for (_, p, _), group in zip(questions, groups, strict=True) for c in group]
    verdicts = iter(grade(domain, attempts, tell))
    tell("solved", tokens=sum(len(c.token_ids) for group in groups for c in group))
    return [sum(next(verdicts).correct for _ in group) for group in groups]


@dataclass(frozen=True)
class SolveJob(Job[list[int]]):
    """Attempts of one policy at some problems."""

    policy: Policy
    questions: Sequence[tuple[Problem, Stream]]
    samples: int
    sampling: Sampling

    def run(self, place: Workplace, *, last: bool) -> list[int]:
        fleet = place.engine.fleet([self.policy], place.spec.student_optimizer)
        asked = [(0, problem, stream) for problem, stream in self.questions]
        return count_solved(fleet, place.domain, asked, self.samples, self.sampling, place.tell)


def count_solved_by(
    crew: Crew, policy: Policy, questions: Sequence[tuple[Problem, Stream]], samples: int, sampling: Sampling
) -> list[int]:
    """As `count_solved`, for one policy and shared out: a share is about as much as a device samples at once."""
    size = max(1, crew.place.engine.share // samples)
    shares = [questions[at : at + size] for at in range(0, len(questions), size)]
    jobs = [SolveJob(policy, share, samples, sampling) for share in shares]
    return [solved for share in crew.all(jobs) for solved in share]
