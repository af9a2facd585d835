"""Policies that take turns on a device that holds the numbers of one."""

import weakref
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

import torch
from numpy.typing import NDArray

from soarctl.api import Completion, Fleet, GradedSample, ModelError, Policy, Prompt, Sampling, StepStats
from soarctl.trainers.fleet import ModelFleet


class Movable(Protocol):
    """What has numbers on some device."""

    def move(self, device: torch.device) -> None:
        """Takes all of them to another device, or none where there is no room."""
        ...


class Turns:
    """Whose numbers are on the device. Those of all others wait in host memory."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._last: weakref.ref[Movable] | None = None

    def take(self, policy: Movable) -> None:
        """Brings the numbers of a policy to the device, and those that were there back."""
        last = self._last() if self._last else None
        if last is not policy:
            if last is not None:
                last.move(torch.device("cpu"))
            self._last = None  # nobody's are there, should there be no room
            policy.move(self._device)
            self._last = weakref.ref(policy)


class TurnsFleet(Fleet):
    """S fleets of one policy each, one after the other: each does exactly what it would do alone."""

    def __init__(self, policies_S: Sequence[ModelFleet], turns: Turns) -> None:
        self._policies_S, self._turns = policies_S, turns

    def sample(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[list[Completion]]:
        found = dict[int, list[Completion]]()
        for s, policy in enumerate(self._policies_S):
            asked = {i: replace(prompt, policy=0) for i, prompt in enumerate(prompts) if prompt.policy == s}
            if asked:
                self._turns.take(policy)
                found |= zip(asked, policy.sample(list(asked.values()), sampling), strict=True)
        return [found[i] for i in range(len(prompts))]

    def reinforce(self, samples_S: Sequence[Sequence[GradedSample]]) -> list[StepStats]:
        stats_S = list[StepStats]()
        for policy, samples in zip(self._policies_S, samples_S, strict=True):
            self._turns.take(policy)
            stats_S += policy.reinforce([samples])
        return stats_S

    def snapshot(self, policy: int) -> Policy:
        return self._policies_S[policy].snapshot(0)

    def state(self) -> dict[str, NDArray[Any]]:
        return {
            f"{s}.{name}": array for s, policy in enumerate(self._policies_S) for name, array in policy.state().items()
        }

    def restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        stored = {name.partition(".")[0] for name in state}
        if stored != set(map(str, range(len(self._policies_S)))):
            raise ModelError(
                f"the fleet has {len(self._policies_S)} policies, the stored one {len(stored)}",
                hint="was it stored with other trainer options?",
            )
        for s, policy in enumerate(self._policies_S):
            policy.restore(
                {name.removeprefix(f"{s}."): array for name, array in state.items() if name.startswith(f"{s}.")}
            )
