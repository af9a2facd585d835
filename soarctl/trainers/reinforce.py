"""From graded samples to tensors: which tokens go through the model, and what they contribute to the loss.

Samples of one prompt share beginnings: the prompt itself, and often much of the answer. A *tree* holds each shared
beginning once, and each (beginning, next token) is one prediction that carries the summed weights of all samples that
pass it. The loss is linear in those weights, so this is the same gradient from fewer tokens.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from soarctl.api import GradedSample, Optimizer


@dataclass(slots=True)
class Prediction:
    """The samples that continue a beginning with the same token."""

    reward_weight: float = 0.0
    """Of the log-prob of the token."""
    kl_weight: float = 0.0
    """Of its k3."""
    samples: int = 0
    sampler: float = 0.0
    """The sum of its log-probs as the sampler reported them."""


@dataclass(slots=True)
class Tree:
    """Samples of one prompt. Node 0 is the first token of the prompt, and a parent comes before its children."""

    tokens: list[int]
    parents: list[int]
    """-1 for node 0."""
    predictions: dict[tuple[int, int], Prediction] = field(default_factory=dict[tuple[int, int], Prediction])
    """By (node, next token)."""
    children: dict[tuple[int, int], int] = field(default_factory=dict[tuple[int, int], int])
    """(node, next token) -> the node of that token, where it is followed by another one."""

    @property
    def length(self) -> int:
        """Tokens that go through the model. Those that end a sample are only predicted."""
        return len(self.tokens)

    @property
    def is_chain(self) -> bool:
        return all(parent == node - 1 for node, parent in enumerate(self.parents))


def loss_terms(samples: Sequence[GradedSample], options: Optimizer, limit: int) -> list[Tree]:
    """The samples of one policy that contribute to its gradient, as trees, largest first.

        loss = -(1/N) sum_i A_i w_i sum_t logp_it + kl (1/N) sum_i w_i sum_t k3_it

    N counts all samples, those that are left out too. w_i is 1, or 1 / length for "seq_mean".

    Args:
        samples: of one policy.
        options: the KL coefficient and the aggregation.
        limit: most tokens of a tree; what would be larger stands in several. With 0 only equal samples share.
    """
    trees: list[Tree] = []
    open_: dict[tuple[int, ...], Tree] = {}
    for sample in samples:
        completion = sample.completion
        if not completion.token_ids or (sample.advantage == 0 and options.kl == 0):
            continue
        share = 1 / len(samples)
        if options.aggregation == "seq_mean":
            share /= len(completion.token_ids)
        # Without room for a tree, a sample shares with its equals alone.
        key = completion.prompt_ids if limit else (*completion.prompt_ids, -1, *completion.token_ids)
        tree = open_.get(key)
        if tree is None or (limit and tree.length + len(completion.token_ids) > limit):
            prompt = list(completion.prompt_ids)
            tree = open_[key] = Tree(prompt, list(range(-1, len(prompt) - 1)))
            trees.append(tree)
        _grow(tree, sample, -sample.advantage * share, options.kl * share)
    return sorted(trees, key=lambda tree: -tree.length)


def _grow(tree: Tree, sample: GradedSample, reward_weight: float, kl_weight: float) -> None:
    completion = sample.completion
    node, last = len(completion.prompt_ids) - 1, len(completion.token_ids) - 1
    for t, (token, logprob) in enumerate(zip(completion.token_ids, completion.logprobs, strict=True)):
        prediction = tree.predictions.setdefault((node, token), Prediction())
        prediction.reward_weight += reward_weight
        prediction.kl_weight += kl_weight
        prediction.samples += 1
        prediction.sampler += logprob
        if t < last:
            if (node, token) not in tree.children:
                tree.children[node, token] = tree.length
                tree.tokens.append(token)
                tree.parents.append(node)
            node = tree.children[node, token]


MicroBatch = Mapping[int, Sequence[Tree]]
"""Trees by policy that go through the model together: equally many for each, or fewer where a policy has no more."""


def micro_batches(trees_S: Mapping[int, Sequence[Tree]], tokens: int) -> Iterator[MicroBatch]:
    """All trees in micro-batches of at most `tokens` tokens, padding included, but of at least one tree.

    Policies are taken together as far as one tree of each fits. Those without trees take no part.
    """
    left = sorted((s for s, trees in trees_S.items() if trees), key=lambda s: -trees_S[s][0].length)
    while left:
        together = left[: max(1, tokens // trees_S[left[0]][0].length)]
        left = left[len(together) :]
        at = 0
        while some := [s for s in together if at < len(trees_S[s])]:
            longest = max(trees_S[s][at].length for s in some)
            count = max(1, tokens // (longest * len(some)))
            yield {s: trees_S[s][at : at + count] for s in sorted(some)}
            at += count


@dataclass(frozen=True, slots=True)
class Tables:
    """A micro-batch as tensors: B rows, one tree each, and the M predictions of all of them."""

    ids_B_T: Tensor
    positions_B_T: Tensor | None
    """None where each token's position is its column."""
    sees_B_T_T: Tensor | None
    """Whether token i sees token j: j is i or one of its ancestors. None where that is what causal attention says."""
    keep: int
    """Logits are needed at the last `keep` columns."""
    row_M: Tensor
    column_M: Tensor
    """Among the last `keep` columns."""
    target_M: Tensor
    reward_weight_M: Tensor
    kl_weight_M: Tensor
    samples_M: Tensor
    sampler_M: Tensor
    """Mean log-prob as the sampler reported it."""
    policy_M: Tensor
    """Counted among the policies of the micro-batch."""


def tables(batch: MicroBatch, device: torch.device) -> Tables:
    """Trees padded on the right, policy by policy."""
    count, length = max(map(len, batch.values())), max(tree.length for trees in batch.values() for tree in trees)
    placed = [(p, p * count + i, tree) for p, trees in enumerate(batch.values()) for i, tree in enumerate(trees)]
    rows = len(batch) * count
    ids_B_T = np.zeros((rows, length), np.int64)
    for _, row, tree in placed:
        ids_B_T[row, : tree.length] = tree.tokens
    positions_B_T, sees_B_T_T = None, None
    if not all(tree.is_chain for _, _, tree in placed):
        positions_B_T = np.zeros((rows, length), np.int64)
        # Padding sees itself: a row that sees nothing has no attention to normalise.
        sees_B_T_T = np.tile(np.eye(length, dtype=np.bool_), (rows, 1, 1))
        for _, row, tree in placed:
            _ancestors(tree, positions_B_T[row], sees_B_T_T[row])
    # Nothing is predicted before the end of the shortest prompt.
    first = min(node for _, _, tree in placed for node, _ in tree.predictions)
    found = [(p, row, key, prediction) for p, row, tree in placed for key, prediction in tree.predictions.items()]

    def integers(values: Sequence[int] | NDArray[np.int64]) -> Tensor:
        return torch.from_numpy(np.array(values, np.int64)).to(device)

    def numbers(values: Sequence[float]) -> Tensor:
        return torch.tensor(values, dtype=torch.float32, device=device)

    return Tables(
        ids_B_T=integers(ids_B_T),
        positions_B_T=None if positions_B_T is None else integers(positions_B_T),
        sees_B_T_T=None if sees_B_T_T is None else torch.from_numpy(sees_B_T_T).to(device),
        keep=length - first,
        row_M=integers([row for _, row, _, _ in found]),
        column_M=integers([node - first for _, _, (node, _), _ in found]),
        target_M=integers([token for _, _, (_, token), _ in found]),
        reward_weight_M=numbers([prediction.reward_weight for *_, prediction in found]),
        kl_weight_M=numbers([prediction.kl_weight for *_, prediction in found]),
        samples_M=numbers([prediction.samples for *_, prediction in found]),
        sampler_M=numbers([prediction.sampler / prediction.samples for *_, prediction in found]),
        policy_M=integers([p for p, *_ in found]),
    )


def _ancestors(tree: Tree, positions_T: NDArray[np.int64], sees_T_T: NDArray[np.bool_]) -> None:
    for node, parent in enumerate(tree.parents):
        if parent >= 0:
            positions_T[node] = positions_T[parent] + 1
            sees_T_T[node] |= sees_T_T[parent]


def log_probs(logits_M_V: Tensor, target_M: Tensor, temperature: float) -> Tensor:
    """logprobs_M of the targets, fp32, at the temperature they were sampled with."""
    logits_M_V = logits_M_V.float()
    if temperature not in (0, 1):
        logits_M_V = logits_M_V / temperature
    return logits_M_V.log_softmax(1).gather(1, target_M[:, None])[:, 0]


def k3(logprobs: Tensor, reference: Tensor) -> Tensor:
    """An estimate of KL(policy || reference) from one sampled token: never negative, unbiased.

        k3 = exp(ref - logp) - (ref - logp) - 1

    Source: Schulman 2020, joschu.net/blog/kl-approx.html.
    """
    difference = reference - logprobs
    return difference.exp() - difference - 1
