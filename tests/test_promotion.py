from statistics import fmean

import pytest

from soarctl.promotion import best_dataset, inner_steps, is_due, median_student, settled, step_reward


def test_a_moving_average_equal_to_tau_does_not_promote() -> None:
    assert not is_due([0.01, 0.01, 0.01], tau=0.01, size=3)
    assert sum([0.1, 0.1, 0.1]) / 3 > 0.1, "as floats it would"
    assert not is_due([0.1, 0.1, 0.1], tau=0.1, size=3)


def test_a_moving_average_above_tau_promotes() -> None:
    assert is_due([0.011, 0.011, 0.011], tau=0.01, size=3)


def test_rewards_that_are_tau_but_for_the_last_bits_of_floats_do_not_promote() -> None:
    before = fmean([1.0] * 3 + [0.0] * 47)
    # Of 50 problems 3 were solved before; four students solve 0, 1 and 2 more and 1 less, in the mean half a problem.
    after_R = [fmean([1.0] * (3 + more) + [0.0] * (47 - more)) for more in (0, 1, 2, -1)]
    gains_R = [after - before for after in after_R]
    assert fmean(gains_R) > 0.01
    reward = step_reward([fmean(settled(gain) for gain in gains_R)] * 2)
    assert reward == 0.01
    assert not is_due([reward] * 3, tau=0.01, size=3)
    assert not is_due([fmean(gains_R)] * 3, tau=0.01, size=3)


def test_equal_rewards_of_different_students_are_equal_so_that_the_first_dataset_is_the_best() -> None:
    before = fmean([3 / 8] + [0] * 39)
    gains = {solved: fmean([1 / 8] * solved + [0] * (40 - solved)) - before for solved in (3, 4, 5)}
    means = [fmean([gains[5], gains[3]]), fmean([gains[4], gains[4]])]
    assert means[0] < means[1]
    assert best_dataset([settled(mean) for mean in means]) == 0


def test_only_the_most_recent_rewards_count() -> None:
    assert not is_due([9.0, 0.0, 0.0, 0.0], tau=0.01, size=3)
    assert is_due([-9.0, 0.02, 0.02, 0.02], tau=0.01, size=3)


def test_a_window_that_is_not_full_never_promotes() -> None:
    assert not is_due([9.0, 9.0], tau=0.01, size=3)


def test_the_best_of_equal_datasets_is_the_first() -> None:
    assert best_dataset([0.0, 0.5, 0.5, -1.0]) == 1


@pytest.mark.parametrize(
    ("gains", "index"),
    [([0.3, 0.1, 0.2], 2), ([0.4, 0.1, 0.3, 0.2], 3), ([0.2, 0.2, 0.2, 0.2], 1), ([0.5], 0), ([0.2, 0.1], 1)],
)
def test_the_median_student_is_the_lower_middle_one(gains: list[float], index: int) -> None:
    assert median_student(gains) == index


def test_students_practise_five_steps_longer_after_each_promotion_up_to_the_cap() -> None:
    assert [inner_steps(10, 5, 20, promotions) for promotions in range(4)] == [10, 15, 20, 20]
