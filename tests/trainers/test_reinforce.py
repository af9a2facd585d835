from soarctl.api import Completion, GradedSample, Optimizer
from soarctl.trainers.reinforce import Tree, loss_terms

PLAIN = Optimizer(lr=1.0)


def sample(prompt: str, written: str, advantage: float) -> GradedSample:
    """One token per character."""
    ids = tuple(map(ord, written))
    return GradedSample(Completion("", tuple(map(ord, prompt)), ids, (-0.5,) * len(ids), "eos"), advantage)


def text(tree: Tree) -> str:
    return "".join(map(chr, tree.tokens))


def test_equal_samples_are_one_branch_with_the_sum_of_their_advantages() -> None:
    [tree] = loss_terms([sample("P", "ab", 3.0), sample("P", "ab", 1.0), sample("P", "ab", -2.0)], PLAIN, 99)
    assert text(tree) == "Pa"
    weights = {(text(tree)[node], chr(token)): p.reward_weight for (node, token), p in tree.predictions.items()}
    assert weights == {("P", "a"): -2 / 3, ("a", "b"): -2 / 3}
    assert [p.samples for p in tree.predictions.values()] == [3, 3]


def test_shared_beginnings_stand_once_and_branch_where_samples_differ() -> None:
    [tree] = loss_terms([sample("PQ", "abc", 1.0), sample("PQ", "abd", 1.0), sample("PQ", "x", -2.0)], PLAIN, 99)
    assert text(tree) == "PQab"
    assert tree.parents == [-1, 0, 1, 2]
    predicted = {(text(tree)[node], chr(token)): 3 * p.reward_weight for (node, token), p in tree.predictions.items()}
    assert predicted == {("Q", "a"): -2, ("a", "b"): -2, ("b", "c"): -1, ("b", "d"): -1, ("Q", "x"): 2}


def test_prompts_do_not_share_a_tree() -> None:
    trees = loss_terms([sample("P", "ab", 1.0), sample("Q", "abc", -1.0)], PLAIN, 99)
    assert [text(tree) for tree in trees] == ["Qab", "Pa"]


def test_a_tree_that_would_be_too_large_is_several() -> None:
    samples = [sample("PPPP", f"{i}xyz", float(i)) for i in range(1, 6)]
    trees = loss_terms(samples, PLAIN, 12)
    assert [tree.length for tree in trees] == [10, 10, 7]
    total = sum(p.reward_weight for tree in trees for p in tree.predictions.values())
    assert abs(total - -4 * sum(range(1, 6)) / 5) < 1e-12


def test_without_trees_equal_samples_still_share() -> None:
    trees = loss_terms([sample("P", "ab", 1.0), sample("P", "ac", 1.0), sample("P", "ab", 1.0)], PLAIN, 0)
    assert [text(tree) for tree in trees] == ["Pa", "Pa"]
    assert all(tree.is_chain for tree in trees)


def test_samples_without_advantage_are_left_out_but_counted() -> None:
    assert loss_terms([sample("P", "ab", 0.0)] * 3, PLAIN, 99) == []
    [tree] = loss_terms([sample("P", "ab", 0.0), sample("P", "c", 1.0)], PLAIN, 99)
    assert [p.reward_weight for p in tree.predictions.values()] == [-0.5]
