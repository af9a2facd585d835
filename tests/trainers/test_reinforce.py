import pytest

from soarctl.api import Completion, GradedSample, Optimizer
from soarctl.trainers.reinforce import Tree, loss_terms

PLAIN = Optimizer(lr=1.0)


def sample(prompt: str, written: str, advantage: float) -> GradedSample:
    """One token per character."""
    ids = tuple(map(ord, written))
    return GradedSample(Completion("", tuple(map(ord, prompt)), ids, (-0.5,) * len(ids), "eos"), advantage)


def text(tree: Tree) -> str:
    return "".join(map(chr, tree.tokens_N))


def weights(tree: Tree) -> dict[tuple[str, str], float]:
    """By the token before and the token that is predicted."""
    before = [text(tree)[node] for node in tree.node_M]
    return {(b, chr(t)): w for b, t, w in zip(before, tree.target_M, tree.reward_weight_M.tolist(), strict=True)}


def seen(tree: Tree) -> list[str]:
    """What each node sees."""
    return ["".join(text(tree)[j] for j in range(i + 1) if i < tree.ends_N[j]) for i in range(tree.length)]


def test_equal_samples_are_one_branch_with_the_sum_of_their_advantages() -> None:
    [tree] = loss_terms([sample("P", "ab", 3.0), sample("P", "ab", 1.0), sample("P", "ab", -2.0)], PLAIN, 99)
    assert text(tree) == "Pa"
    assert weights(tree) == pytest.approx({("P", "a"): -2 / 3, ("a", "b"): -2 / 3})
    assert tree.samples_M.tolist() == [3, 3]
    assert tree.sampler_M.tolist() == [-0.5, -0.5]


def test_shared_beginnings_stand_once_and_branch_where_samples_differ() -> None:
    [tree] = loss_terms([sample("PQ", "abc", 1.0), sample("PQ", "abd", 1.0), sample("PQ", "x", -2.0)], PLAIN, 99)
    assert text(tree) == "PQab"
    assert tree.is_chain
    thirds = {("Q", "a"): -2, ("a", "b"): -2, ("b", "c"): -1, ("b", "d"): -1, ("Q", "x"): 2}
    assert weights(tree) == pytest.approx({key: third / 3 for key, third in thirds.items()})


def test_a_node_sees_its_ancestors_and_itself() -> None:
    written = ("abcx", "abx", "abcdx", "a", "yzx", "abx")
    [tree] = loss_terms([sample("PQ", each, 1.0) for each in written], PLAIN, 99)
    assert text(tree) == "PQabcdyz"
    assert tree.depths_N.tolist() == [0, 1, 2, 3, 4, 5, 2, 3]
    assert seen(tree) == ["P", "PQ", "PQa", "PQab", "PQabc", "PQabcd", "PQy", "PQyz"]
    assert not tree.is_chain


def test_a_sample_that_another_one_goes_on_from_ends_on_the_way() -> None:
    [tree] = loss_terms([sample("P", "ab", 3.0), sample("P", "abc", 1.0)], PLAIN, 99)
    assert text(tree) == "Pab"
    assert weights(tree) == pytest.approx({("P", "a"): -2, ("a", "b"): -2, ("b", "c"): -0.5})


def test_prompts_do_not_share_a_tree() -> None:
    trees = loss_terms([sample("P", "ab", 1.0), sample("Q", "abc", -1.0)], PLAIN, 99)
    assert [text(tree) for tree in trees] == ["Qab", "Pa"]


def test_a_tree_that_would_be_too_large_is_several() -> None:
    samples = [sample("PPPP", f"{i}xyz", float(i)) for i in range(1, 6)]
    trees = loss_terms(samples, PLAIN, 12)
    assert [tree.length for tree in trees] == [10, 10, 7]
    total = sum(tree.reward_weight_M.sum() for tree in trees)
    assert abs(total - -4 * sum(range(1, 6)) / 5) < 1e-12


def test_without_trees_equal_samples_still_share() -> None:
    trees = loss_terms([sample("P", "ab", 1.0), sample("P", "ac", 1.0), sample("P", "ab", 1.0)], PLAIN, 0)
    assert [text(tree) for tree in trees] == ["Pa", "Pa"]
    assert all(tree.is_chain for tree in trees)


def test_samples_without_advantage_are_left_out_but_counted() -> None:
    assert loss_terms([sample("P", "ab", 0.0)] * 3, PLAIN, 99) == []
    [tree] = loss_terms([sample("P", "ab", 0.0), sample("P", "c", 1.0)], PLAIN, 99)
    assert tree.reward_weight_M.tolist() == [-0.5]
