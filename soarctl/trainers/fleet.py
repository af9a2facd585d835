"""A fleet whose policies share one model in memory."""

import warnings
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, fields, replace
from itertools import count
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from soarctl.api import Completion, Fleet, GradedSample, Optimizer, Policy, Prompt, Sampling, StepStats
from soarctl.trainers.decode import Decoder
from soarctl.trainers.fleet_optimizer import FleetAdamW
from soarctl.trainers.fleet_weights import FleetWeights
from soarctl.trainers.forward import Forward
from soarctl.trainers.policy_gradient import Gradients, PolicyGradient
from soarctl.trainers.reinforce import Tree, loss_terms
from soarctl.trainers.shipped import Shipped


@dataclass(frozen=True, slots=True)
class Machinery:
    """What all fleets of an engine share."""

    forward: Forward
    weights: FleetWeights
    decoder: Decoder
    shipped: Callable[[], Shipped | None]
    """What samples in place of the decoder, if anything does."""
    gradient: PolicyGradient
    autocast: Callable[[], AbstractContextManager[None]]


_numbers = count()


class ModelFleet(Fleet):
    """S policies side by side: their weights as the rows of one tensor, and the optimizer of all."""

    def __init__(
        self, machinery: Machinery, starts_S: Sequence[Policy], options: Optimizer, device: torch.device
    ) -> None:
        self._machinery, self._options = machinery, options
        self.name = f"fleet{next(_numbers)}"
        self.versions_S = [0] * len(starts_S)
        self._optimizer = FleetAdamW(machinery.weights.rows(starts_S).to(device), options)

    def move(self, device: torch.device) -> None:
        """Takes weights and moments to another device; they sample and learn on the model's alone."""
        self._optimizer.move(device)

    def sample(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[list[Completion]]:
        if shipped := self._machinery.shipped():
            return shipped.sample(self, prompts, sampling)
        return self._machinery.decoder.sample(prompts, sampling, self.serve)

    @contextmanager
    def serve(self, policies: Sequence[int]) -> Generator[None]:
        weights_S_P = self._optimizer.weights_S_P
        # Picking rows copies them, which with all of them would be for nothing.
        rows_S_P = weights_S_P if len(policies) == len(weights_S_P) else weights_S_P[list(policies)]
        with self._machinery.weights.sampling(rows_S_P), self._machinery.autocast():
            yield

    def reinforce(self, samples_S: Sequence[Sequence[GradedSample]]) -> list[StepStats]:
        trees_S = self._trees(samples_S, self._options)
        return self._step(trees_S, self._machinery.gradient(self._optimizer.weights_S_P, trees_S, self._options))

    def parts(self, samples_S: Sequence[Sequence[GradedSample]]) -> int:
        return len(self._machinery.gradient.parts(self._trees(samples_S, self._options)))

    def gradient(self, samples_S: Sequence[Sequence[GradedSample]], part: int) -> dict[str, NDArray[Any]]:
        trees_S, weights_S_P = self._trees(samples_S, self._options), self._optimizer.weights_S_P
        found = self._machinery.gradient(weights_S_P, trees_S, self._options, part)
        return {f.name: getattr(found, f.name).cpu().numpy() for f in fields(found)}

    def step(
        self, samples_S: Sequence[Sequence[GradedSample]], gradients: Sequence[Mapping[str, NDArray[Any]]]
    ) -> list[StepStats]:
        weights_S_P = self._optimizer.weights_S_P
        # Added in the order in which `reinforce` adds them, and so to the same last bit.
        totals = Gradients(torch.zeros_like(weights_S_P), *weights_S_P.new_zeros(3, len(samples_S)))
        for gradient in gradients:
            for name, values in gradient.items():
                getattr(totals, name).add_(torch.from_numpy(values).to(weights_S_P.device))
        return self._step(self._trees(samples_S, self._options), totals)

    def _trees(self, samples_S: Sequence[Sequence[GradedSample]], options: Optimizer) -> list[list[Tree]]:
        limit = self._machinery.forward.tree_tokens
        return [loss_terms(samples, options, limit) for samples in samples_S]

    def _step(self, trees_S: Sequence[Sequence[Tree]], found: Gradients) -> list[StepStats]:
        signal_S = np.array([bool(trees) for trees in trees_S])
        norms_S, stepped_S = self._optimizer.step(found.gradients_S_P, signal_S)
        self.versions_S = [v + int(stepped) for v, stepped in zip(self.versions_S, stepped_S, strict=True)]
        for s in np.flatnonzero(signal_S & ~stepped_S):
            warnings.warn(f"the gradient of policy {s} is {norms_S[s]}: its step was skipped", stacklevel=3)
        return _stats(found, norms_S, stepped_S)

    def logprob_gaps(self, completions_S: Mapping[int, Sequence[Completion]], temperature: float) -> dict[int, float]:
        # The training step itself, whose gradients are thrown away: what is compared is what will be trained on.
        samples_S = [[GradedSample(c, 1.0) for c in completions_S.get(s, ())] for s in range(len(self.versions_S))]
        options = replace(self._options, kl=0.0, temperature=temperature)
        found = self._machinery.gradient(self._optimizer.weights_S_P, self._trees(samples_S, options), options)
        gaps_S = (found.gap_S / found.tokens_S).tolist()
        return {s: gaps_S[s] for s in completions_S}

    def lent(self, policy: int) -> Policy:
        """As `snapshot`, but no copy: it changes when the policy learns."""
        return self._machinery.weights.lent(self._optimizer.weights_S_P[policy])

    def snapshot(self, policy: int) -> Policy:
        return self._machinery.weights.policy(self._optimizer.weights_S_P[policy])

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
