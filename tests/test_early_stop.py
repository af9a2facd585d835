import math

import pytest

from soarctl.early_stop import counted, counted_at, early_stop


def test_a_saturating_curve_stops_where_its_slope_is_below_the_share() -> None:
    # Rises by exp(-t / 50): the slope is below 15 % of the first one from t = 50 ln(1 / 0.15) = 94.9 on.
    rewards = [1 - math.exp(-t / 50) for t in range(400)]
    # Smoothed slope i is that between windows centred on i + 12 and i + 13, and the largest is the first.
    assert early_stop(rewards, 25, 0.15) == 95 + 12 + 1


def test_the_share_moves_the_step_little() -> None:
    rewards = [1 - math.exp(-t / 50) for t in range(1500)]
    assert [early_stop(rewards, 25, share) for share in (0.10, 0.15, 0.20)] == [129, 108, 94]


def test_a_curve_that_begins_flat_stops_after_its_rise() -> None:
    rewards = [1 / (1 + math.exp((100 - t) / 10)) for t in range(300)]
    assert 110 < early_stop(rewards, 25, 0.15) < 150


@pytest.mark.parametrize("rewards", [[0.0] * 50, [1.0 - t / 50 for t in range(50)], [0.5], []])
def test_a_curve_that_never_rises_stops_where_it_starts(rewards: list[float]) -> None:
    assert early_stop(rewards, 25, 0.15) == 0


def test_a_curve_that_rises_to_the_end_stops_at_the_end() -> None:
    assert early_stop([t / 60 for t in range(60)], 25, 0.15) == 60


def test_what_comes_before_the_start_does_not_count() -> None:
    late = [1 - math.exp(-t / 20) for t in range(200)]
    assert early_stop([5.0, 0.0, 9.0, *late], 25, 0.15, start=3) == 3 + early_stop(late, 25, 0.15)


def test_a_curve_shorter_than_the_window_is_one_window() -> None:
    assert early_stop([0.0, 0.5, 1.0], 25, 0.15) == 0


def test_scale_and_offset_of_the_reward_change_nothing() -> None:
    rewards = [math.sqrt(t) for t in range(300)]
    assert early_stop([120 * r - 7 for r in rewards], 25, 0.15) == early_stop(rewards, 25, 0.15)


def test_the_measurements_after_the_stop_count() -> None:
    steps = list(range(25, 1501, 25))
    assert counted(steps, 100, 200) == [125, 150, 175, 200, 225, 250, 275, 300]
    assert counted(steps, 1490, 200) == [1500]


def test_the_last_measurement_counts_where_none_comes_after_the_stop() -> None:
    assert counted([25, 50], 50, 200) == [50]


def test_the_first_measurement_after_the_stop_counts_where_none_comes_soon_enough() -> None:
    assert counted(list(range(25, 1501, 25)), 60, 10) == [75]


def test_a_fixed_step_counts_alone_and_one_that_was_not_measured_is_the_next_that_was() -> None:
    steps = list(range(25, 1501, 25))
    assert [counted_at(steps, at) for at in (50, 51, 2000)] == [[50], [75], [1500]]
