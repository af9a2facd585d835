"""From graded samples to the terms of the loss: which tokens go through the model, and what they contribute.

Samples of one prompt share beginnings: the prompt itself, and often much of the answer. A *tree* holds each shared
beginning once, and each (beginning, next token) is one prediction that carries the summed weights of all samples that
pass it. The loss is linear in those weights, so this is the same gradient from fewer tokens.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from soarctl.api import GradedSample, Optimizer

Integers = NDArray[np.int64]
Numbers = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Tree:
    """Samples of one prompt: N nodes, a token each, depth first from the prompt's first token, and M predictions."""

    tokens_N: Integers
    """Those that go through the model. What ends a sample is only predicted."""
    depths_N: Integers
    """How many tokens come before each one in its samples."""
    ends_N: Integers
    """Node i sees node j, itself or an ancestor, if j <= i < ends_N[j]."""
    node_M: Integers
    """After which node each prediction is made."""
    target_M: Integers
    reward_weight_M: Numbers
    """Of the log-prob of the target."""
    kl_weight_M: Numbers
    """Of its k3."""
    samples_M: Integers
    """Samples that make this prediction."""
    sampler_M: Numbers
    """Mean log-prob of the target as the sampler reported it."""

    @property
    def length(self) -> int:
        return len(self.tokens_N)

    @property
    def is_chain(self) -> bool:
        return bool((self.ends_N == self.length).all())


def loss_terms(samples: Sequence[GradedSample], options: Optimizer, limit: int) -> list[Tree]:
    """The samples of one policy that contribute to its gradient, as trees, largest first.

        loss = -(1/N) sum_i A_i w_i sum_t logp_it + kl (1/N) sum_i w_i sum_t k3_it

    N counts all samples, those that are left out too. w_i is 1, or 1 / length for "seq_mean".

    Args:
        samples: of one policy.
        options: the KL coefficient and the aggregation.
        limit: most tokens of a tree; what would be larger stands in several. With 0 only equal samples share.
    """
    groups: dict[tuple[int, ...], list[GradedSample]] = {}
    for sample in samples:
        if sample.completion.token_ids and (sample.advantage != 0 or options.kl != 0):
            groups.setdefault(sample.completion.prompt_ids, []).append(sample)
    trees = [tree for group in groups.values() for tree in _trees(group, len(samples), options, limit)]
    return sorted(trees, key=lambda tree: -tree.length)


def _trees(group: list[GradedSample], total: int, options: Optimizer, limit: int) -> Iterator[Tree]:
    """Trees of samples with one prompt, as many as the limit makes necessary."""
    # Sorted, they stand in the order of their tree: what one shares with any before it, it shares with its neighbour.
    group = sorted(group, key=lambda sample: sample.completion.token_ids)
    lengths_K = np.array([len(sample.completion.token_ids) for sample in group])
    valid_K_T = np.arange(lengths_K.max()) < lengths_K[:, None]
    ids_K_T = np.full(valid_K_T.shape, -1)
    ids_K_T[valid_K_T] = list(chain.from_iterable(sample.completion.token_ids for sample in group))
    sampler_K_T = np.zeros(valid_K_T.shape)
    sampler_K_T[valid_K_T] = list(chain.from_iterable(sample.completion.logprobs for sample in group))
    shared_K = np.zeros(len(group), np.int64)
    shared_K[1:] = (ids_K_T[1:] == ids_K_T[:-1]).cumprod(1).sum(1).clip(max=lengths_K[1:])

    share_K = 1 / (total * lengths_K) if options.aggregation == "seq_mean" else np.full(len(group), 1 / total)
    advantage_K = np.array([sample.advantage for sample in group])
    prompt = np.array(group[0].completion.prompt_ids)
    cuts = _cuts(lengths_K, shared_K, len(prompt), limit)
    for start, end in zip(cuts, [*cuts[1:], len(group)], strict=True):
        rows = slice(start, end)
        shared_K[start] = 0
        yield _tree(
            prompt,
            ids_K_T[rows],
            lengths_K[rows],
            shared_K[rows],
            -(advantage_K * share_K)[rows],
            options.kl * share_K[rows],
            sampler_K_T[rows],
        )


def _cuts(lengths_K: Integers, shared_K: Integers, prompt: int, limit: int) -> list[int]:
    """Where each tree begins, so that none has more than `limit` tokens, unless it is a single sample."""
    cuts, size = [0], prompt + int(lengths_K[0]) - 1
    for k, (length, shared) in enumerate(zip(lengths_K.tolist(), shared_K.tolist(), strict=True)):
        if k == 0 or length == shared:
            continue
        # A sample that only goes on where another one ended makes that end a node.
        size += length - shared
        if size > limit:
            cuts.append(k)
            size = prompt + length - 1
    return cuts


def _tree(
    prompt: Integers,
    ids_K_T: Integers,
    lengths_K: Integers,
    shared_K: Integers,
    reward_weight_K: Numbers,
    kl_weight_K: Numbers,
    sampler_K_T: Numbers,
) -> Tree:
    """The tree of sorted samples, each of which has its first `shared_K` tokens in common with the one before."""
    column_T = np.arange(ids_K_T.shape[1])
    valid_K_T = column_T < lengths_K[:, None]
    new_K_T = valid_K_T & (column_T >= shared_K[:, None])
    # Which prediction each token of each sample is: its own, or that of the nearest sample above that begins alike.
    made_K_T = np.where(new_K_T, new_K_T.cumsum().reshape(new_K_T.shape) - 1, -1)
    made_K_T = np.maximum.accumulate(made_K_T)
    count = int(new_K_T.sum())
    made_L = made_K_T[valid_K_T]
    continued_K_T = column_T < lengths_K[:, None] - 1
    is_node_M = np.bincount(made_K_T[continued_K_T], minlength=count) > 0
    node_of_M = len(prompt) - 1 + is_node_M.cumsum()
    before_K_T = np.concatenate([np.full((len(ids_K_T), 1), -1), made_K_T[:, :-1]], axis=1)[new_K_T]
    target_M = ids_K_T[new_K_T]
    samples_M = np.bincount(made_L, minlength=count)
    tokens_N = np.concatenate([prompt, target_M[is_node_M]])
    depths_N = np.concatenate([np.arange(len(prompt)), len(prompt) + np.nonzero(new_K_T)[1][is_node_M]])
    return Tree(
        tokens_N,
        depths_N,
        _ends(depths_N),
        node_M=np.where(before_K_T < 0, len(prompt) - 1, node_of_M[before_K_T]),
        target_M=target_M,
        reward_weight_M=_sums(made_L, np.repeat(reward_weight_K, lengths_K), count),
        kl_weight_M=_sums(made_L, np.repeat(kl_weight_K, lengths_K), count),
        samples_M=samples_M,
        sampler_M=_sums(made_L, sampler_K_T[valid_K_T], count) / samples_M,
    )


def _sums(group_L: Integers, values_L: Numbers, count: int) -> Numbers:
    """sums_M of the values, by group."""
    return np.bincount(group_L, values_L, count).astype(np.float64)


def _ends(depths_N: Integers) -> Integers:
    """Of each node, the next one in depth-first order that is not below it."""
    ends_N = np.full(len(depths_N), len(depths_N))
    if depths_N[-1] == len(depths_N) - 1:
        return ends_N
    above = list[tuple[int, int]]()
    for node, depth in enumerate(depths_N.tolist()):
        while above and above[-1][1] >= depth:
            ends_N[above.pop()[0]] = node
        above.append((node, depth))
    return ends_N


def k3(logprobs: Tensor, reference: Tensor) -> Tensor:
    """An estimate of KL(policy || reference) from one sampled token: never negative, unbiased.

        k3 = exp(ref - logp) - (ref - logp) - 1

    Source: Schulman 2020, joschu.net/blog/kl-approx.html.
    """
    difference = reference - logprobs
    return difference.exp() - difference - 1
