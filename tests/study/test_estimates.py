"""Means, intervals and the paired test."""

import numpy as np
import pytest

from soarctl.streams import Stream
from soarctl.study.estimates import FLIPS, difference, score, sign_flip_test

STREAM = Stream(("test",))


def test_a_score_is_a_mean_with_the_spread_of_students() -> None:
    found = score(np.array([[0.0, 0.5], [0.5, 1.0]]), STREAM)
    assert (found.mean, found.sd) == (0.5, 0.25)
    assert found.low < 0.5 < found.high


def test_one_student_has_no_spread() -> None:
    assert score(np.array([[0.0, 1.0, 1.0]]), STREAM).sd == 0.0


def test_equal_values_have_an_interval_of_no_width() -> None:
    found = score(np.full((3, 7), 0.25), STREAM)
    assert (found.low, found.high) == (0.25, 0.25)


def test_the_interval_has_the_width_of_both_samples() -> None:
    # Students differ by 0.1 and problems by 0.2: the mean of 16 x 64 has SD sqrt(0.01 / 16 + 0.04 / 64) = 0.035.
    u, v = STREAM.child("u").uniforms(16, 1), STREAM.child("v").uniforms(1, 64)
    values = 0.1 * np.sqrt(12) * u + 0.2 * np.sqrt(12) * v
    found = score(values, STREAM)
    assert (found.high - found.low) / (2 * 1.96) == pytest.approx(0.035, rel=0.2)


def test_the_exact_p_of_three_equal_differences_is_a_quarter() -> None:
    # Of the 8 assignments of signs only +++ and --- are as large.
    assert sign_flip_test(np.array([0.5, 0.5, 0.5]), STREAM) == pytest.approx(0.25, abs=0.02)


def test_no_difference_has_p_one_and_a_clear_one_the_least() -> None:
    assert sign_flip_test(np.zeros(9), STREAM) == 1.0
    assert sign_flip_test(np.full(60, 0.1), STREAM) == 1 / (FLIPS + 1)


def test_problems_are_paired() -> None:
    # Problems differ wildly and the arms by 0.1 on each: only the pairing shows it.
    base = np.linspace(0.0, 0.9, 40)[None, :]
    found = difference(base + 0.1, base, STREAM)
    assert found.mean == pytest.approx(0.1)
    assert (found.low, found.high) == (pytest.approx(0.1), pytest.approx(0.1))
    assert found.p < 0.001
    assert found.ratio == pytest.approx(0.55 / 0.45)


def test_there_is_no_ratio_to_nothing() -> None:
    assert difference(np.ones((2, 3)), np.zeros((1, 3)), STREAM).ratio is None
