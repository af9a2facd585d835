from itertools import combinations
from statistics import fmean

import pytest

from soarctl.passk import bootstrap_interval, mean_pass_at_k, pass_at_k
from soarctl.streams import Stream


@pytest.mark.parametrize("n", range(1, 8))
def test_pass_at_k_equals_the_share_of_k_subsets_with_a_correct_sample(n: int) -> None:
    for c in range(n + 1):
        for k in range(1, n + 1):
            subsets = list(combinations([True] * c + [False] * (n - c), k))
            assert float(pass_at_k(n, c, k)) == pytest.approx(fmean(map(any, subsets)))


def test_at_k_of_n_it_is_whether_any_sample_was_correct() -> None:
    assert mean_pass_at_k(32, [0, 1, 32, 0], 32) == 0.5


@pytest.mark.parametrize(("samples", "correct", "k"), [(8, 0, 9), (8, 9, 1), (8, -1, 1), (8, 0, 0)])
def test_it_refuses_to_extrapolate(samples: int, correct: int, k: int) -> None:
    with pytest.raises(ValueError, match="cannot be estimated"):
        pass_at_k(samples, correct, k)


def test_a_bootstrap_interval_holds_the_mean_and_narrows_with_more_problems() -> None:
    few, many = [0.0, 1.0] * 10, [0.0, 1.0] * 1000
    low, high = bootstrap_interval(few, Stream(("few",)))
    assert low < 0.5 < high
    narrow_low, narrow_high = bootstrap_interval(many, Stream(("many",)))
    # 1.96 standard errors of a fair coin: 0.5 / sqrt(2000) = 0.0112.
    assert narrow_high - narrow_low == pytest.approx(2 * 1.96 * 0.5 / 2000**0.5, rel=0.1)
    assert narrow_high - narrow_low < high - low
