"""From trees to what goes through the model: micro-batches with little padding, and their tensors."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from soarctl.trainers.block_attention import Block, Blocks
from soarctl.trainers.head import Targets
from soarctl.trainers.reinforce import Tree

# Share of a micro-batch that may be padding because policies have different numbers of tokens.
PADDING = 0.05

MicroBatch = Mapping[int, Sequence[Tree]]
"""Trees by policy that go through the model together."""


def micro_batches(trees_S: Mapping[int, Sequence[Tree]], tokens: int, packs: bool) -> list[MicroBatch]:
    """All trees in micro-batches of at most `tokens` tokens, padding included, but of at least one tree.

    Every policy has the same number of tokens in a micro-batch, so policies share one only where they need little
    padding, and where one alone does not fill it.

    Args:
        trees_S: by policy, largest first. A policy without trees takes no part.
        tokens: the budget.
        packs: trees of a policy stand in one row, one after the other, and cost no padding; otherwise each has a row
            of its own, as long as the longest.
    """
    if not packs:
        return [{s: rows} for s, trees in trees_S.items() for rows in _rows(trees, tokens)]
    bins = [(s, own) for s, trees in trees_S.items() for own in _bins(trees, tokens)]
    bins.sort(key=lambda each: -_size(each[1]))
    batches = list[dict[int, Sequence[Tree]]]()
    width, total = 0, 0
    for s, trees in bins:
        size = _size(trees)
        shared = (len(batches[-1]) + 1) * width if batches else 0
        # Of bins that are less than half full a policy has one at most.
        if batches and shared <= tokens and shared - (total + size) <= PADDING * shared:
            batches[-1][s] = trees
            total += size
        else:
            batches.append({s: trees})
            width = total = size
    return [dict(sorted(batch.items())) for batch in batches]


def _size(trees: Sequence[Tree]) -> int:
    return sum(tree.length for tree in trees)


def _bins(trees: Sequence[Tree], tokens: int) -> list[list[Tree]]:
    """First fit, largest first."""
    bins, free = list[list[Tree]](), list[int]()
    for tree in trees:
        at = next((i for i, room in enumerate(free) if tree.length <= room), len(bins))
        if at == len(bins):
            bins.append([])
            free.append(tokens)
        bins[at].append(tree)
        free[at] -= tree.length
    return bins


def _rows(trees: Sequence[Tree], tokens: int) -> Iterator[Sequence[Tree]]:
    at = 0
    while at < len(trees):
        count = max(1, tokens // trees[at].length)
        yield trees[at : at + count]
        at += count


@dataclass(frozen=True, slots=True)
class Tables:
    """A micro-batch as tensors: B rows, equally many for each of P policies, and the M predictions of all of them."""

    ids_B_T: Tensor
    positions_B_T: Tensor | None
    blocks: Blocks | None
    """None where each row is one chain: then causal attention says who sees whom, and a column is a position."""
    place_P_U: Tensor
    """Where the states are from which something is predicted: counted through all rows. A policy that has fewer of
    them than another repeats its first token."""
    targets: Targets
    reward_weight_M: Tensor
    kl_weight_M: Tensor
    samples_M: Tensor
    sampler_M: Tensor
    """Mean log-prob as the sampler reported it."""


def tables(batch: MicroBatch, packs: bool, dtype: torch.dtype, device: torch.device) -> Tables:
    """The tensors of a micro-batch, for a model of this dtype."""
    rows_P = [1 if packs else len(trees) for trees in batch.values()]
    width = max(_size(trees) if packs else max(tree.length for tree in trees) for trees in batch.values())
    ids, positions = np.zeros(sum(rows_P) * width, np.int64), np.zeros(sum(rows_P) * width, np.int64)
    blocks, predicting_P = list[Block](), list[NDArray[np.int64]]()
    policy, column, first = list[NDArray[np.int64]](), list[NDArray[np.int64]](), 0
    for p, (rows, trees) in enumerate(zip(rows_P, batch.values(), strict=True)):
        starts = np.cumsum([0, *(tree.length if packs else width for tree in trees)])[:-1] + first
        for start, tree in zip(starts.tolist(), trees, strict=True):
            ids[start : start + tree.length] = tree.tokens_N
            positions[start : start + tree.length] = tree.depths_N
            blocks.append(Block(start, tree.depths_N, tree.ends_N))
        places = np.concatenate([start + tree.node_M for start, tree in zip(starts, trees, strict=True)])
        predicting, own = np.unique(places, return_inverse=True)
        predicting_P.append(predicting)
        column.append(own)
        policy.append(np.full(len(own), p))
        first += rows * width
    # Ascending in the states that they are made from, so that some states go with some predictions.
    column_M = np.concatenate(column)
    order = column_M.argsort(kind="stable")
    place_P_U = np.zeros((len(batch), max(map(len, predicting_P))), np.int64)
    for p, predicting in enumerate(predicting_P):
        place_P_U[p, : len(predicting)] = predicting
        place_P_U[p, len(predicting) :] = predicting[0]
    every = [tree for trees in batch.values() for tree in trees]

    def sent(values: NDArray[np.int64]) -> Tensor:
        return torch.from_numpy(values).to(device)

    def numbers(values: Sequence[NDArray[np.float64] | NDArray[np.int64]]) -> Tensor:
        return torch.from_numpy(np.concatenate(values)[order].astype(np.float32)).to(device)

    return Tables(
        ids_B_T=sent(ids).view(-1, width),
        positions_B_T=sent(positions).view(-1, width) if packs else None,
        blocks=Blocks(blocks, len(ids), dtype, device) if packs else None,
        place_P_U=sent(place_P_U),
        targets=Targets(
            sent(np.concatenate(policy)[order]),
            column_M[order],
            sent(np.concatenate([tree.target_M for tree in every])[order]),
        ),
        reward_weight_M=numbers([tree.reward_weight_M for tree in every]),
        kl_weight_M=numbers([tree.kl_weight_M for tree in every]),
        samples_M=numbers([tree.samples_M for tree in every]),
        sampler_M=numbers([tree.sampler_M for tree in every]),
    )
