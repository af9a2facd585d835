"""When a student becomes the new baseline, and which one. On plain numbers."""

from collections.abc import Sequence
from statistics import fmean

DIGITS = 12
NOISE = 1e-9
"""More than floats can be off, and far less than 1/(M g r m), by which the mean of a window can change."""


def settled(value: float) -> float:
    """A gain or a reward without its last bits.

    It is a difference of means, and those bits are noise that would tell apart what is equal.
    """
    return round(value, DIGITS)


def is_due(window: Sequence[float], tau: float, size: int) -> bool:
    """Whether the mean of the last `size` step rewards is strictly above `tau`.

    By more than floats can be off, so that three times 0.1 is not above 0.1. Before `size` rewards are there the
    answer is no (row 22).

    Args:
        window: mean reward over all datasets, one value per outer step, oldest first.
        tau: the threshold.
        size: m, the number of most recent steps that count.

    Source: SOAR Algorithm 1; the comparison is strict.
    """
    if len(window) < size:
        return False
    return fmean(window[len(window) - size :]) - tau > NOISE


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
    return settled(fmean(rewards_G))
