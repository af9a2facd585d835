"""pass@k: the chance that at least one of k samples solves a problem."""

from collections.abc import Sequence
from fractions import Fraction
from math import comb
from statistics import fmean

import numpy as np

from soarctl.streams import Stream


def pass_at_k(samples: int, correct: int, k: int) -> Fraction:
    """Unbiased estimate of pass@k from `correct` of `samples` independent attempts at one problem.

        pass@k = 1 - C(n - c, k) / C(n, k)

    Raises:
        ValueError: k is not in 1..samples, or correct not in 0..samples. Fewer samples than k cannot be extrapolated.

    Source: Chen et al. 2021, arXiv 2107.03374, equation 1.
    """
    if not 1 <= k <= samples or not 0 <= correct <= samples:
        raise ValueError(f"pass@{k} cannot be estimated from {correct} correct of {samples} samples")
    return 1 - Fraction(comb(samples - correct, k), comb(samples, k))


def mean_pass_at_k(samples: int, correct_P: Sequence[int], k: int) -> float:
    """Mean of `pass_at_k` over problems, given each problem's number of correct samples."""
    return fmean(float(pass_at_k(samples, correct, k)) for correct in correct_P)


def bootstrap_interval(
    values_P: Sequence[float], stream: Stream, *, level: float = 0.95, resamples: int = 2000
) -> tuple[float, float]:
    """Percentile bootstrap interval of the mean of `values_P`, resampled over problems.

    Args:
        values_P: one value per problem, for example its pass@k.
        stream: decides the resamples.
        level: coverage, between 0 and 1.
        resamples: how often the problems are drawn with replacement.

    Source: Efron & Tibshirani 1993, chapter 13.
    """
    values = np.asarray(values_P, dtype=np.float64)
    drawn = (stream.uniforms(resamples, len(values)) * len(values)).astype(np.int64)
    low, high = np.quantile(values[drawn].mean(axis=1), [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
