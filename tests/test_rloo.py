from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from soarctl.rloo import leave_one_out

rewards = st.lists(st.integers(-1000, 1000), min_size=2, max_size=40)


def test_an_advantage_is_the_reward_minus_the_mean_of_the_others() -> None:
    assert leave_one_out([1.0, 0.0, 0.0, 3.0]) == [0.0, -1.3333333333333333, -1.3333333333333333, 2.6666666666666665]


@given(rewards)
def test_advantages_equal_the_exact_ones_to_rounding(values: list[int]) -> None:
    exact = [Fraction(v) - Fraction(sum(values[:i] + values[i + 1 :]), len(values) - 1) for i, v in enumerate(values)]
    assert leave_one_out(list(map(float, values))) == pytest.approx(list(map(float, exact)), abs=1e-9)


@given(rewards)
def test_advantages_sum_to_zero(values: list[int]) -> None:
    assert sum(leave_one_out([v / 64 for v in values])) == pytest.approx(0, abs=1e-9)


@given(rewards, st.integers(-100, 100))
def test_a_constant_added_to_all_rewards_changes_no_advantage(values: list[int], constant: int) -> None:
    shifted = leave_one_out([float(v + constant) for v in values])
    assert shifted == pytest.approx(leave_one_out(list(map(float, values))), abs=1e-9)


def test_equal_rewards_have_advantages_of_exactly_zero() -> None:
    assert leave_one_out([0.1] * 7) == [0.0] * 7


def test_one_reward_has_nobody_to_be_compared_with() -> None:
    with pytest.raises(ValueError, match="at least 2 rewards, found 1"):
        leave_one_out([1.0])
