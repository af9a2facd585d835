"""Means, intervals and a paired test over students and problems. On arrays; every draw comes from a named stream."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from soarctl.streams import Stream

Values = NDArray[np.float64]

RESAMPLES = 2000
FLIPS = 10_000


@dataclass(frozen=True, slots=True)
class Score:
    """A mean over students and problems."""

    mean: float
    sd: float
    """Over students, of their means over problems; the population's (row 41). 0 for a single student."""
    low: float
    """Of the 95 % bootstrap interval."""
    high: float


@dataclass(frozen=True, slots=True)
class Difference:
    """An arm less another."""

    mean: float
    low: float
    """Of the 95 % bootstrap interval."""
    high: float
    p: float
    """Two-sided, of the paired permutation test."""
    ratio: float | None
    """Of the means; None where the other arm's is 0."""


def score(values_S_P: Values, stream: Stream) -> Score:
    """Mean with its spread over students and its interval.

    The bootstrap draws students and problems anew, each with replacement: a study is a sample of both.

    Source: the crossed bootstrap of Owen 2007, "The pigeonhole bootstrap", which errs on the wide side.
    """
    means_B = _resampled(values_S_P, _draws(values_S_P.shape[1], stream.child("problems")), stream.child("students"))
    low, high = np.quantile(means_B, [0.025, 0.975])
    return Score(float(values_S_P.mean()), float(values_S_P.mean(axis=1).std()), float(low), float(high))


def difference(values_S_P: Values, other_S_P: Values, stream: Stream) -> Difference:
    """An arm less another on the same problems.

    Both arms are resampled on the same problems, each with students of its own.
    """
    drawn_B_P = _draws(values_S_P.shape[1], stream.child("problems"))
    means_B = _resampled(values_S_P, drawn_B_P, stream.child("students"))
    others_B = _resampled(other_S_P, drawn_B_P, stream.child("other students"))
    low, high = np.quantile(means_B - others_B, [0.025, 0.975])
    mean, other = float(values_S_P.mean()), float(other_S_P.mean())
    by_problem = values_S_P.mean(axis=0) - other_S_P.mean(axis=0)
    return Difference(
        mean=mean - other,
        low=float(low),
        high=float(high),
        p=sign_flip_test(by_problem, stream.child("flips")),
        ratio=mean / other if other else None,
    )


def sign_flip_test(differences_P: Values, stream: Stream) -> float:
    """Two-sided p of the paired permutation test: were the two arms exchanged on any problem, all would be as likely.

    It speaks about problems, with the students as they are; the intervals speak about students as well. The observed
    assignment counts as one of the permutations, so p is never 0.

    Source: Good 2005, section 3.
    """
    signs_F_P = np.where(stream.uniforms(FLIPS, len(differences_P)) < 0.5, -1.0, 1.0)
    flipped_F = np.abs(signs_F_P @ differences_P)
    # Equal sums in another order of adding differ in their last bits, and count as equal.
    as_large = flipped_F >= abs(differences_P.sum()) * (1 - 1e-9)
    return float((as_large.sum() + 1) / (FLIPS + 1))


def _draws(count: int, stream: Stream) -> NDArray[np.int64]:
    return (stream.uniforms(RESAMPLES, count) * count).astype(np.int64)


def _resampled(values_S_P: Values, drawn_B_P: NDArray[np.int64], stream: Stream) -> Values:
    """Means of the bootstrap samples."""
    drawn_B_S = _draws(values_S_P.shape[0], stream)
    # How often each student is drawn, times its mean over the drawn problems.
    weights_B_S = np.stack([(drawn_B_S == s).mean(axis=1) for s in range(values_S_P.shape[0])], axis=1)
    means_S_B = np.stack([values_P[drawn_B_P].mean(axis=1) for values_P in values_S_P])
    return (weights_B_S * means_S_B.T).sum(axis=1)
