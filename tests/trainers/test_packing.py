from collections.abc import Sequence

import numpy as np
import pytest
import torch

from soarctl.api import Completion, GradedSample, Optimizer
from soarctl.trainers.packing import MicroBatch, micro_batches, tables
from soarctl.trainers.reinforce import Tree, loss_terms


def chains(lengths: Sequence[int]) -> list[Tree]:
    """One tree of each length, largest first, as `loss_terms` gives them; their first tokens differ."""
    samples = [
        GradedSample(Completion("", (i, 7), (8,) * (length - 1), (-1.0,) * (length - 1), "eos"), 1.0)
        for i, length in enumerate(lengths)
    ]
    return loss_terms(samples, Optimizer(lr=1.0), 10_000)


def places(batch: MicroBatch) -> int:
    """Tokens that go through the model, padding included."""
    return tables(batch, True, torch.float32, torch.device("cpu")).ids_B_T.numel()


def skewed(policy: int, count: int, longest: int) -> list[int]:
    """Many short lengths and few long ones."""
    rng = np.random.default_rng(policy)
    return np.minimum(longest, 3 + rng.lognormal(3.0 + 0.2 * (policy % 3), 1.0, count).astype(int)).tolist()


@pytest.mark.parametrize("policies", [1, 4, 16])
@pytest.mark.parametrize("tokens", [512, 2048, 8192])
def test_every_tree_is_in_one_micro_batch_within_the_budget_and_a_twentieth_is_padding_at_most(
    policies: int, tokens: int
) -> None:
    trees_S = {s: chains(skewed(s, 10 + 7 * s, 400)) for s in range(policies)}
    batches = micro_batches(trees_S, tokens, packs=True)
    found = [(s, id(tree)) for batch in batches for s, trees in batch.items() for tree in trees]
    assert sorted(found) == sorted((s, id(tree)) for s, trees in trees_S.items() for tree in trees)
    assert all(places(batch) <= tokens for batch in batches)
    used = sum(tree.length for trees in trees_S.values() for tree in trees)
    assert used >= 0.95 * sum(map(places, batches))


def test_policies_share_a_micro_batch_where_they_have_nearly_the_same_number_of_tokens() -> None:
    trees_S = {0: chains([60, 37]), 1: chains([50]), 2: chains([100]), 3: [], 4: chains([49])}
    batches = micro_batches(trees_S, 200, packs=True)
    assert [sorted(batch) for batch in batches] == [[0, 2], [1, 4]]


def test_a_tree_that_is_larger_than_the_budget_goes_alone() -> None:
    batches = micro_batches({0: chains([300, 90, 20])}, 100, packs=True)
    assert [[tree.length for tree in batch[0]] for batch in batches] == [[300], [90], [20]]


def test_without_packing_each_tree_has_a_row_as_long_as_the_longest() -> None:
    batches = micro_batches({0: chains([30, 29, 10, 8]), 1: chains([5])}, 60, packs=False)
    assert [{s: [tree.length for tree in trees] for s, trees in batch.items()} for batch in batches] == [
        {0: [30, 29]},
        {0: [10, 8]},
        {1: [5]},
    ]
    table = tables(batches[0], False, torch.float32, torch.device("cpu"))
    assert table.ids_B_T.shape == (2, 30)
    assert table.blocks is None
    assert table.positions_B_T is None
