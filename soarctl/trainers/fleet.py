"""A fleet of adapters over one frozen model."""

import warnings
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from soarctl.api import Completion, Fleet, GradedSample, Optimizer, Policy, Prompt, Sampling, StepStats
from soarctl.trainers.decode import Decoder
from soarctl.trainers.fleet_linear import bound
from soarctl.trainers.fleet_optimizer import FleetAdamW
from soarctl.trainers.fleet_weights import AdapterLayout
from soarctl.trainers.forward import Forward
from soarctl.trainers.policy_gradient import Gradients, PolicyGradient
from soarctl.trainers.reinforce import loss_terms


@dataclass(frozen=True, slots=True)
class Machinery:
    """What all fleets of an engine share."""

    forward: Forward
    layout: AdapterLayout
    decoder: Decoder
    gradient: PolicyGradient
    autocast: Callable[[], AbstractContextManager[None]]


# Attention within a tree is worked out for all pairs of its tokens. Up to this many that costs less than computing
# shared beginnings again would.
TREE_TOKENS = 256


class AdapterFleet(Fleet):
    """S adapters in one tensor, and their optimizer."""

    def __init__(self, machinery: Machinery, starts_S: Sequence[Policy], options: Optimizer) -> None:
        self._machinery, self._options = machinery, options
        weights_S_P = machinery.layout.rows(starts_S).to(machinery.forward.device)
        self._optimizer = FleetAdamW(weights_S_P, options)

    def sample(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[list[Completion]]:
        return self._machinery.decoder.sample(prompts, sampling, self.serve)

    @contextmanager
    def serve(self, policies: Sequence[int]) -> Generator[None]:
        layout, forward = self._machinery.layout, self._machinery.forward
        adapters = layout.for_decoding(self._optimizer.weights_S_P[list(policies)], forward.dtype)
        with self._machinery.autocast(), bound(layout.layers, adapters):
            yield

    def reinforce(self, samples_S: Sequence[Sequence[GradedSample]]) -> list[StepStats]:
        limit = TREE_TOKENS if self._machinery.forward.takes_trees else 0
        trees_S = [loss_terms(samples, self._options, limit) for samples in samples_S]
        found = self._machinery.gradient(self._optimizer.weights_S_P, trees_S, self._options)
        signal_S = np.array([bool(trees) for trees in trees_S])
        norms_S, stepped_S = self._optimizer.step(found.gradients_S_P, signal_S)
        for s in np.flatnonzero(signal_S & ~stepped_S):
            warnings.warn(f"the gradient of policy {s} is {norms_S[s]}: its step was skipped", stacklevel=2)
        return _stats(found, norms_S, stepped_S)

    def snapshot(self, policy: int) -> Policy:
        return self._machinery.layout.policy(self._optimizer.weights_S_P[policy])

    def state(self) -> dict[str, NDArray[Any]]:
        return dict(self._optimizer.state())

    def restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        self._optimizer.restore(state)


def _stats(found: Gradients, norms_S: NDArray[np.float64], stepped_S: NDArray[np.bool_]) -> list[StepStats]:
    return [
        StepStats(
            stepped=bool(stepped),
            grad_norm=float(norm),
            kl=kl / max(1, tokens),
            logprob_gap=gap / max(1, tokens),
            tokens=int(tokens),
        )
        for stepped, norm, kl, gap, tokens in zip(
            stepped_S, norms_S, found.kl_S.tolist(), found.gap_S.tolist(), found.tokens_S.tolist(), strict=True
        )
    ]
