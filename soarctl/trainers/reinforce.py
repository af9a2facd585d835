"""The policy gradient of a fleet: which rows go through the model together, and what they contribute."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from soarctl.api import GradedSample, Optimizer


@dataclass(frozen=True, slots=True)
class TrainingRow:
    """A completion with the weights of its terms in the loss of its policy."""

    prompt_ids: tuple[int, ...]
    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    """As the sampler reported them."""
    reward_weight: float
    """Of the sum of its log-probs."""
    kl_weight: float
    """Of the sum of its k3."""

    @property
    def length(self) -> int:
        """Tokens that go through the model: the last one is only predicted."""
        return len(self.prompt_ids) + len(self.token_ids) - 1


def training_rows(samples: Sequence[GradedSample], options: Optimizer) -> list[TrainingRow]:
    """The rows of one policy that contribute to its gradient, longest first.

        loss = -(1/N) sum_i A_i w_i sum_t logp_it + kl (1/N) sum_i w_i sum_t k3_it

    N counts all samples, those that are left out too. w_i is 1, or 1 / length for "seq_mean".
    """
    rows = list[TrainingRow]()
    for sample in samples:
        completion = sample.completion
        if not completion.token_ids or (sample.advantage == 0 and options.kl == 0):
            continue
        share = 1 / len(samples)
        if options.aggregation == "seq_mean":
            share /= len(completion.token_ids)
        rows.append(
            TrainingRow(
                completion.prompt_ids,
                completion.token_ids,
                completion.logprobs,
                reward_weight=-sample.advantage * share,
                kl_weight=options.kl * share,
            )
        )
    return sorted(rows, key=lambda row: -row.length)


MicroBatch = Mapping[int, Sequence[TrainingRow]]
"""Rows by policy that go through the model together: equally many for each, or fewer where a policy has no more."""


def micro_batches(rows_S: Mapping[int, Sequence[TrainingRow]], tokens: int) -> Iterator[MicroBatch]:
    """All rows in micro-batches of at most `tokens` tokens, padding included, but of at least one row.

    Policies are taken together as far as one row of each fits. Those without rows take no part.
    """
    left = sorted((s for s, rows in rows_S.items() if rows), key=lambda s: -rows_S[s][0].length)
    while left:
        together = left[: max(1, tokens // rows_S[left[0]][0].length)]
        left = left[len(together) :]
        at = 0
        while some := [s for s in together if at < len(rows_S[s])]:
            longest = max(rows_S[s][at].length for s in some)
            count = max(1, tokens // (longest * len(some)))
            yield {s: rows_S[s][at : at + count] for s in sorted(some)}
            at += count


@dataclass(frozen=True, slots=True)
class Tables:
    """A micro-batch as tensors. Fillers have weight 0 and an empty `chosen`."""

    ids_B_T: Tensor
    targets_B_C: Tensor
    """The next token at each of the last C positions."""
    chosen_B_C: Tensor
    """Which targets are sampled tokens."""
    sampler_B_C: Tensor
    """Their log-probs as the sampler reported them, 0 elsewhere."""
    reward_weight_B: Tensor
    kl_weight_B: Tensor


def tables(batch: MicroBatch, device: torch.device) -> Tables:
    """Rows padded on the right, policy by policy."""
    count, length = max(map(len, batch.values())), max(row.length for rows in batch.values() for row in rows)
    # Position t predicts token t + 1; nothing is needed before the end of the shortest prompt.
    first = min(len(row.prompt_ids) for rows in batch.values() for row in rows) - 1
    shape = (len(batch) * count, length + 1)
    ids, chosen = np.zeros(shape, np.int64), np.zeros(shape, np.bool_)
    sampler, weights = np.zeros(shape, np.float32), np.zeros((2, shape[0]), np.float32)
    for p, rows in enumerate(batch.values()):
        for b, row in enumerate(rows, p * count):
            start, end = len(row.prompt_ids), row.length + 1
            ids[b, :end] = row.prompt_ids + row.token_ids
            chosen[b, start:end] = True
            sampler[b, start:end] = row.logprobs
            weights[:, b] = row.reward_weight, row.kl_weight

    def tensor(array: NDArray[np.generic]) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).to(device)

    return Tables(
        ids_B_T=tensor(ids[:, :-1]),
        targets_B_C=tensor(ids[:, first + 1 :]),
        chosen_B_C=tensor(chosen[:, first + 1 :]),
        sampler_B_C=tensor(sampler[:, first + 1 :]),
        reward_weight_B=tensor(weights[0]),
        kl_weight_B=tensor(weights[1]),
    )


def log_probs(logits_B_C_V: Tensor, targets_B_C: Tensor, temperature: float) -> Tensor:
    """logprobs_B_C of the targets, fp32, at the temperature they were sampled with."""
    logits_B_C_V = logits_B_C_V.float()
    if temperature not in (0, 1):
        logits_B_C_V = logits_B_C_V / temperature
    return logits_B_C_V.log_softmax(2).gather(2, targets_B_C[..., None])[..., 0]


def k3(logprobs: Tensor, reference: Tensor) -> Tensor:
    """An estimate of KL(policy || reference) from one sampled token: never negative, unbiased.

        k3 = exp(ref - logp) - (ref - logp) - 1

    Source: Schulman 2020, joschu.net/blog/kl-approx.html.
    """
    difference = reference - logprobs
    return difference.exp() - difference - 1
