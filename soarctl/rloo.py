"""REINFORCE with a leave-one-out baseline (RLOO), on plain numbers."""

from collections.abc import Sequence


def leave_one_out(rewards_G: Sequence[float]) -> list[float]:
    """Advantage of each sample over the mean of the others in its group.

        A_i = r_i - (sum_j r_j - r_i) / (G - 1)

    Not divided by a standard deviation (SOAR Proposition 1). A group whose rewards are all equal gets exact zeros, so
    that callers may skip it by comparing with 0.

    Args:
        rewards_G: one reward per sample; G >= 2.

    Returns:
        advantages_G, in the same order. They sum to zero.

    Raises:
        ValueError: G < 2. With nobody to leave in there is no baseline.

    Source: Ahmadian et al. 2024, arXiv 2402.14740; SOAR Proposition 1.
    """
    count = len(rewards_G)
    if count < 2:
        raise ValueError(f"leave-one-out needs at least 2 rewards, found {count}")
    if all(reward == rewards_G[0] for reward in rewards_G):
        return [0.0] * count
    total = sum(rewards_G)
    return [reward - (total - reward) / (count - 1) for reward in rewards_G]
