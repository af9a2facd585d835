"""The teacher of a run with several processes: what it samples and its gradient are shared, its step is not."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from numpy.typing import NDArray

from soarctl.api import Completion, Fleet, GradedSample, Policy, Prompt, Sampling, StepStats, Tensors
from soarctl.crew import Crew, Job, Workplace


@dataclass(frozen=True)
class SampleJob(Job[list[list[Completion]]]):
    """Completions of the teacher."""

    policy: Policy
    prompts: Sequence[Prompt]
    sampling: Sampling

    def run(self, place: Workplace, *, last: bool) -> list[list[Completion]]:
        return _copy(self.policy, place).sample(self.prompts, self.sampling)


@dataclass(frozen=True)
class GradientJob(Job[Mapping[str, NDArray[Any]]]):
    """One part of the teacher's gradient."""

    policy: Policy
    samples: Sequence[GradedSample]
    part: int

    def run(self, place: Workplace, *, last: bool) -> Tensors:
        return _copy(self.policy, place).gradient([self.samples], self.part)


def _copy(policy: Policy, place: Workplace) -> Fleet:
    return place.engine.fleet([policy], place.spec.teacher_optimizer)


class SharedTeacher(Fleet):
    """A fleet of one. What is one piece of work is done by the teacher itself, without a copy."""

    def __init__(self, own: Fleet, crew: Crew) -> None:
        self._own, self._crew = own, crew

    def sample(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[list[Completion]]:
        pieces = shares(prompts, self._crew.place.engine.share)
        if len(pieces) == 1 or self._crew.size == 1:
            sampled = [self._own.sample([prompt for _, prompt in piece], sampling) for piece in pieces]
        else:
            policy = self._own.snapshot(0)
            jobs = [SampleJob(policy, [prompt for _, prompt in piece], sampling) for piece in pieces]
            sampled = self._crew.all(jobs)
        groups: list[list[Completion]] = [[] for _ in prompts]
        for piece, part in zip(pieces, sampled, strict=True):
            for (i, _), completions in zip(piece, part, strict=True):
                groups[i] += completions
        return groups

    def reinforce(self, samples_S: Sequence[Sequence[GradedSample]]) -> list[StepStats]:
        parts = self._own.parts(samples_S)
        if parts <= 1 or self._crew.size == 1:
            return self._own.reinforce(samples_S)
        [samples] = samples_S
        policy = self._own.snapshot(0)
        gradients = self._crew.all([GradientJob(policy, samples, part) for part in range(parts)])
        return self._own.step(samples_S, gradients)

    def snapshot(self, policy: int) -> Policy:
        return self._own.snapshot(policy)

    def state(self) -> Tensors:
        return self._own.state()

    def restore(self, state: Tensors) -> None:
        self._own.restore(state)


def shares(prompts: Sequence[Prompt], size: int) -> list[list[tuple[int, Prompt]]]:
    """The samples asked for, in order, cut into pieces of `size`; each prompt with its number."""
    pieces: list[list[tuple[int, Prompt]]] = [[]]
    room = size
    for i, prompt in enumerate(prompts):
        taken = 0
        while taken < prompt.samples:
            if not room:
                pieces.append([])
                room = size
            some = min(room, prompt.samples - taken)
            pieces[-1].append((i, replace(prompt, first=prompt.first + taken, samples=some)))
            taken, room = taken + some, room - some
    return pieces
