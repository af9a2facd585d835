"""The gradients of a fleet, micro-batch by micro-batch."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from soarctl.api import ModelError, Optimizer
from soarctl.trainers.block_attention import within
from soarctl.trainers.fleet_weights import FleetWeights
from soarctl.trainers.forward import Forward
from soarctl.trainers.packing import MicroBatch, Tables, micro_batches, tables
from soarctl.trainers.reinforce import Tree, k3


@dataclass(frozen=True, slots=True)
class Gradients:
    """What the samples of S policies add up to."""

    gradients_S_P: Tensor
    tokens_S: Tensor
    kl_S: Tensor
    """Sum of k3 over the tokens."""
    gap_S: Tensor
    """Sum of |sampler - trainer| log-prob over the tokens."""


class PolicyGradient:
    """Works out gradients through a model that answers with the weights of a fleet."""

    def __init__(
        self,
        forward: Forward,
        weights: FleetWeights,
        *,
        tokens: int,
        recompute: bool | Literal["auto"],
        autocast: Callable[[], AbstractContextManager[None]],
        importance_cap: float | None = None,
    ) -> None:
        self._forward, self._weights, self._autocast = forward, weights, autocast
        self._limit = self._tokens = tokens
        self._importance_cap = importance_cap
        forward.recompute.active = recompute is True
        self._recompute_in_need = recompute == "auto"

    def parts(self, trees_S: Sequence[Sequence[Tree]]) -> list[MicroBatch]:
        """The micro-batches in the order in which they are added, the same ones whatever memory this device has."""
        return self._micro_batches(dict(enumerate(trees_S)), self._limit)

    def __call__(
        self, weights_S_P: Tensor, trees_S: Sequence[Sequence[Tree]], options: Optimizer, part: int | None = None
    ) -> Gradients:
        """The gradient of each policy's loss, all micro-batches together or one alone."""
        totals = Gradients(torch.zeros_like(weights_S_P), *weights_S_P.new_zeros(3, len(trees_S)))
        batches = self.parts(trees_S)
        if part is not None:
            batches = [batches[part]]
        if self._tokens < self._limit:
            batches = [small for batch in batches for small in self._micro_batches(batch, self._tokens)]
        while batches:
            try:
                self._add(totals, weights_S_P, batches[0], options)
            except torch.OutOfMemoryError:
                self._make_room(batches[0])
                batches = [small for batch in batches for small in self._micro_batches(batch, self._tokens)]
            else:
                del batches[0]
        return totals

    def _micro_batches(self, trees_S: Mapping[int, Sequence[Tree]], tokens: int) -> list[MicroBatch]:
        return micro_batches(trees_S, tokens, self._forward.packs)

    def _add(self, totals: Gradients, weights_S_P: Tensor, batch: MicroBatch, options: Optimizer) -> None:
        """Adds a micro-batch to the totals, all of it or, out of memory, nothing."""
        forward = self._forward
        table = tables(batch, forward.packs, forward.dtype, forward.device)
        # Policies without trees are left out of the model altogether; with all of them there is nothing to copy.
        whole = len(batch) == len(weights_S_P)
        policies = slice(None) if whole else torch.tensor(list(batch), device=forward.device)
        # Layers may be run again in backward, and must then be what they were.
        with within(table.blocks):
            reference_M = self._reference(table, options) if options.kl else None
            with self._weights.learning(weights_S_P[policies]) as leaves:
                logprobs_M = self._log_probs(table, options)
                k3_M = torch.zeros_like(logprobs_M) if reference_M is None else k3(logprobs_M, reference_M)
                loss = self._importance(logprobs_M, table) @ logprobs_M + table.kl_weight_M @ k3_M
                gradients = torch.autograd.grad(loss, list(leaves.values()), allow_unused=True, materialize_grads=True)
        totals_by_name = self._weights.views(totals.gradients_S_P)
        for name, gradient in zip(leaves, gradients, strict=True):
            totals_by_name[name][policies] += gradient
        gap_M = (logprobs_M.detach() - table.sampler_M).abs()
        sums = ((totals.tokens_S, 1.0), (totals.kl_S, k3_M.detach()), (totals.gap_S, gap_M))
        for total_S, values_M in sums:
            added_P = total_S.new_zeros(len(batch)).index_add(0, table.targets.policy_M, values_M * table.samples_M)
            total_S[policies] += added_P

    def _importance(self, logprobs_M: Tensor, table: Tables) -> Tensor:
        """reward_weight_M, multiplied with min(cap, trainer's probability / sampler's) where there is a cap.

        Source: Yao et al. 2025, "Your efficient RL framework secretly brings you off-policy RL training": truncated
        importance sampling.
        """
        if self._importance_cap is None:
            return table.reward_weight_M
        ratio_M = (logprobs_M.detach() - table.sampler_M).exp()
        return table.reward_weight_M * ratio_M.clamp(max=self._importance_cap)

    @torch.no_grad()
    def _reference(self, table: Tables, options: Optimizer) -> Tensor:
        """logprobs_M under the base model."""
        with self._weights.base():
            return self._log_probs(table, options)

    def _log_probs(self, table: Tables, options: Optimizer) -> Tensor:
        """logprobs_M of the predicted tokens, as the model answers now."""
        with self._autocast():
            states_B_T_H = self._forward.states(table.ids_B_T, table.positions_B_T)
            hidden_P_U_H = states_B_T_H.flatten(0, 1)[table.place_P_U]
            return self._forward.head.log_probs(hidden_P_U_H, table.targets, options.temperature)

    def _make_room(self, batch: MicroBatch) -> None:
        recompute = self._forward.recompute
        if self._recompute_in_need and recompute.possible and not recompute.active:
            recompute.active = True
            warnings.warn("out of memory while training: from now on layers are recomputed in backward", stacklevel=2)
            return
        if len(batch) == 1 and all(len(trees) == 1 for trees in batch.values()):
            ((tree,),) = batch.values()
            raise ModelError(
                f"out of memory while training on {tree.length} tokens that belong together",
                hint="lower max_new_tokens or the trainer's rank, or use a smaller model or dtype",
            )
        self._tokens //= 2
        warnings.warn(f"out of memory while training: {self._tokens} tokens at once from now on", stacklevel=2)
