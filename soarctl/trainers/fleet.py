"""A fleet of adapters over one frozen model."""

import warnings
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from itertools import count
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
from soarctl.trainers.shipped import Shipped


@dataclass(frozen=True, slots=True)
class Machinery:
    """What all fleets of an engine share."""

    forward: Forward
    layout: AdapterLayout
    decoder: Decoder
    shipped: Callable[[], Shipped | None]
    """What samples in place of the decoder, if anything does."""
    gradient: PolicyGradient
    autocast: Callable[[], AbstractContextManager[None]]


# Attention within a tree is worked out for all pairs of its tokens. Up to this many that costs less than computing
# shared beginnings again would.
TREE_TOKENS = 256

_numbers = count()


class AdapterFleet(Fleet):
    """S adapters in one tensor, and their optimizer."""

    def __init__(self, machinery: Machinery, starts_S: Sequence[Policy], options: Optimizer) -> None:
        self._machinery, self._options = machinery, options
        self.name = f"fleet{next(_numbers)}"
        self.versions_S = [0] * len(starts_S)
        weights_S_P = machinery.layout.rows(starts_S).to(machinery.forward.device)
        self._optimizer = FleetAdamW(weights_S_P, options)

    def sample(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[list[Completion]]:
        if shipped := self._machinery.shipped():
            return shipped.sample(self, prompts, sampling)
        return self._machinery.decoder.sample(prompts, sampling, self.serve)

    @contextmanager
    def serve(self, policies: Sequence[int]) -> Generator[None]:
        layout, forward = self._machinery.layout, self._machinery.forward
        adapters = layout.for_decoding(self._optimizer.weights_S_P[list(policies)], forward.dtype)
        with self._machinery.autocast(), bound(layout.layers, adapters):
            yield

    def reinforce(self, samples_S: Sequence[Sequence[GradedSample]]) -> list[StepStats]:
        found, signal_S = self._gradients(samples_S, self._options)
        norms_S, stepped_S = self._optimizer.step(found.gradients_S_P, signal_S)
        self.versions_S = [v + int(stepped) for v, stepped in zip(self.versions_S, stepped_S, strict=True)]
        for s in np.flatnonzero(signal_S & ~stepped_S):
            warnings.warn(f"the gradient of policy {s} is {norms_S[s]}: its step was skipped", stacklevel=2)
        return _stats(found, norms_S, stepped_S)

    def _gradients(
        self, samples_S: Sequence[Sequence[GradedSample]], options: Optimizer
    ) -> tuple[Gradients, NDArray[np.bool_]]:
        """The gradients, and which policies have any."""
        limit = TREE_TOKENS if self._machinery.forward.takes_trees else 0
        trees_S = [loss_terms(samples, options, limit) for samples in samples_S]
        found = self._machinery.gradient(self._optimizer.weights_S_P, trees_S, options)
        return found, np.array([bool(trees) for trees in trees_S])

    def logprob_gaps(self, completions_S: Mapping[int, Sequence[Completion]], temperature: float) -> dict[int, float]:
        # The training step itself, whose gradients are thrown away: what is compared is what will be trained on.
        samples_S = [[GradedSample(c, 1.0) for c in completions_S.get(s, ())] for s in range(len(self.versions_S))]
        found, _ = self._gradients(samples_S, replace(self._options, kl=0.0, temperature=temperature))
        gaps_S = (found.gap_S / found.tokens_S).tolist()
        return {s: gaps_S[s] for s in completions_S}

    def snapshot(self, policy: int) -> Policy:
        return self._machinery.layout.policy(self._optimizer.weights_S_P[policy])

    def state(self) -> dict[str, NDArray[Any]]:
        return dict(self._optimizer.state())

    def restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        self._optimizer.restore(state)
        self.name = f"fleet{next(_numbers)}"


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
