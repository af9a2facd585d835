"""When a student becomes the new baseline, and which one. On plain numbers."""

from collections.abc import Sequence
from fractions import Fraction
from statistics import fmean


def is_due(window: Sequence[float], tau: float, size: int) -> bool:
    """Whether the mean of the last `size` step rewards is strictly above `tau`.

    Compared as exact fractions of the decimals written, so that three times 0.01 is not above 0.01. Before `size`
    rewards are there the answer is no (row 22).

    Args:
        window: mean reward over all datasets, one value per outer step, oldest first.
        tau: the threshold.
        size: m, the number of most recent steps that count.

    Source: SOAR Algorithm 1; the comparison is strict.
    """
    if len(window) < size:
        return False
    recent = [Fraction(repr(float(reward))) for reward in window[len(window) - size :]]
    return sum(recent, Fraction(0)) / size > Fraction(repr(float(tau)))


def best_dataset(rewards_G: Sequence[float]) -> int:
    """Index of the dataset with the largest reward; the lowest index among equals (row 21)."""
    return max(range(len(rewards_G)), key=lambda k: (rewards_G[k], -k))


def median_student(gains_R: Sequence[float]) -> int:
    """Index of the student whose gain is the median of its dataset's repeats.

    For an even number the lower of the two middle ones, ties by index (row 20). The median rather than
    the best, so that a lucky seed is not what gets promoted.
    """
    by_gain = sorted(range(len(gains_R)), key=lambda j: (gains_R[j], j))
    return by_gain[(len(gains_R) - 1) // 2]


def inner_steps(base: int, per_promotion: int, cap: int, promotions: int) -> int:
    """RL steps of each student after `promotions` promotions: min(base + per_promotion * promotions, cap).

    Source: SOAR section B.7 ("+5 steps"), with the cap that its limitations section implies (row 15).
    """
    return min(base + per_promotion * promotions, cap)


def step_reward(rewards_G: Sequence[float]) -> float:
    """The mean reward of an outer step: what enters the promotion window."""
    return fmean(rewards_G)
