"""Ways to spend less that change the method: when to stop, whom to measure again, what was seen. On plain numbers.

All are off unless a spec's `savings` section says otherwise. They look at what the ledger holds and at nothing else, so
that a run that is interrupted decides the same when it goes on.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import sqrt
from statistics import fmean

Question = tuple[str, str]
"""A practice question and the teacher's answer to it."""


@dataclass(frozen=True, slots=True)
class Seen:
    """A dataset of an earlier outer step, practised from the same baseline."""

    questions: list[Question]
    gains: list[float]
    """Of the students that practised it."""


def is_flat(rewards_T: Sequence[float], window: int) -> bool:
    """Whether the mean reward of the last `window` inner steps is not above that of the `window` steps before them.

    A window of whole epochs compares the same questions with themselves; a shorter one is noisier.
    """
    if len(rewards_T) < 2 * window:
        return False
    return fmean(rewards_T[-window:]) <= fmean(rewards_T[-2 * window : -window])


def undecided(gains_G_R: Sequence[Sequence[float]], moved_G: Sequence[bool]) -> list[int]:
    """Datasets whose place in the ranking by mean gain another student may change, in order.

    Two neighbours in the ranking are undecided while their means are closer than the standard error of the difference,

        |mean_k - mean_l| < sqrt(v_k / R_k + v_l / R_l),

    where v is the variance within datasets, pooled over those that moved anybody, and 0 for one that moved nobody: that
    has no signal, gains exactly nothing, and would do so again.

    Args:
        gains_G_R: of the students measured so far.
        moved_G: whether any student of a dataset differs from its baseline.
    """
    means_G = [fmean(gains) for gains in gains_G_R]
    noisy = [k for k, moved in enumerate(moved_G) if moved]
    freedom = sum(len(gains_G_R[k]) - 1 for k in noisy)
    if not freedom:
        return []
    variance = sum((gain - means_G[k]) ** 2 for k in noisy for gain in gains_G_R[k]) / freedom
    error2_G = [variance * moved / len(gains) for moved, gains in zip(moved_G, gains_G_R, strict=True)]
    ranking = sorted(range(len(means_G)), key=lambda k: means_G[k])
    close = {
        k
        for low, high in pairwise(ranking)
        if means_G[high] - means_G[low] < sqrt(error2_G[low] + error2_G[high])
        for k in (low, high)
    }
    return sorted(close & set(noisy))


def known_gains(questions: Sequence[Question], seen: Sequence[Seen], overlap: float) -> Sequence[float]:
    """Gains of the earlier dataset that has the largest share of these questions; none if that is below `overlap`.

    A question counts as often as it stands in both. Among equals the dataset with the most students decides, then the
    earliest.
    """
    counted = Counter(questions)

    def share(dataset: Seen) -> float:
        return (counted & Counter(dataset.questions)).total() / len(questions)

    alike = max(seen, key=lambda dataset: (share(dataset), len(dataset.gains)), default=None)
    return alike.gains if alike is not None and share(alike) >= overlap else ()
