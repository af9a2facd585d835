import pytest

from soarctl.promotion import best_dataset, inner_steps, is_due, median_student


def test_a_moving_average_equal_to_tau_does_not_promote() -> None:
    assert not is_due([0.01, 0.01, 0.01], tau=0.01, size=3)
    assert sum([0.1, 0.1, 0.1]) / 3 > 0.1, "as floats it would"
    assert not is_due([0.1, 0.1, 0.1], tau=0.1, size=3)


def test_a_moving_average_above_tau_promotes() -> None:
    assert is_due([0.011, 0.011, 0.011], tau=0.01, size=3)


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
