"""Decisions that spend less, on numbers that can be worked out on paper."""

from soarctl.savings import Seen, is_flat, known_gains, undecided


def test_rewards_are_flat_when_a_window_is_not_above_the_one_before() -> None:
    assert is_flat([0.1, 0.3, 0.2, 0.2], 2)
    assert not is_flat([0.1, 0.3, 0.2, 0.3], 2)
    assert is_flat([0.9, 0.0, 0.0], 1)
    assert not is_flat([0.0, 0.0, 0.9], 1)


def test_rewards_are_not_flat_before_two_windows_are_there() -> None:
    assert not is_flat([0.5, 0.5, 0.5], 2)


def test_neighbours_closer_than_the_noise_are_undecided() -> None:
    # Within datasets every gain is 0.01 off its mean: v = 6 x 0.0001 / 3, and sqrt(v / 2 + v / 2) = 0.0141.
    assert undecided([[0.29, 0.31], [0.09, 0.11], [0.30, 0.32]], [True] * 3) == [0, 2]
    assert undecided([[0.29, 0.31], [0.09, 0.11], [0.39, 0.41]], [True] * 3) == []


def test_more_students_decide_what_fewer_could_not() -> None:
    # The means differ by 0.01 in both cases; the standard errors are 0.0141 and 0.0037.
    assert undecided([[0.0, 0.02], [0.01, 0.03]], [True] * 2) == [0, 1]
    assert undecided([[0.0, 0.02] * 8, [0.01, 0.03] * 8], [True] * 2) == []


def test_a_dataset_that_moves_nobody_gets_no_more_students() -> None:
    assert undecided([[0.0, 0.0], [0.0, 0.0], [0.1, 0.14]], [False, False, True]) == []
    # Where something that moves students may be no better than it, those get more.
    assert undecided([[0.0, 0.0], [0.0, 0.0], [-0.02, 0.04]], [False, False, True]) == [2]


def test_a_single_gain_each_says_nothing_about_the_noise() -> None:
    assert undecided([[0.1], [0.2]], [True] * 2) == []


A, B, C, D = (("a", "1"), ("b", "2"), ("c", "3"), ("d", "4"))


def test_the_gains_of_the_most_similar_dataset_are_known() -> None:
    seen = [Seen([A, B, C, D], [0.1]), Seen([A, A, B, C], [0.2, 0.3])]
    assert known_gains([A, B, C, C], seen, 0.75) == [0.2, 0.3]  # both share three; the second has more students
    assert known_gains([A, B, C, D], seen, 0.75) == [0.1]
    assert known_gains([A, A, A, A], seen, 0.5) == [0.2, 0.3]
    assert known_gains([A, A, A, A], seen, 0.6) == ()
    assert known_gains([A, A, A, A], [], 0.1) == ()


def test_another_answer_makes_another_question() -> None:
    assert known_gains([("a", "9")], [Seen([A], [0.1])], 0.5) == ()
