from soarctl.near_duplicates import NearDuplicate, contained, leaks

HARD = ["How many primes are there below one hundred and twenty?", "Find the area of a circle of radius four."]


def test_a_copy_is_found_in_both_directions() -> None:
    found = leaks([HARD[0].upper(), "What is two plus two, my dear friend?"], HARD)
    assert [near.other for near in found.questions_in_problems] == [HARD[0]]
    assert [(near.text, near.share) for near in found.problems_in_questions] == [(HARD[0], 1.0)]


def test_a_question_inside_a_longer_problem_is_found_one_way() -> None:
    part = "how many primes are there below one hundred"
    found = leaks([part], HARD)
    # Eight tokens have four runs of five, all of them in the problem; the problem's eleven tokens have seven.
    assert found.questions_in_problems == [NearDuplicate(part, HARD[0], 1.0)]
    assert [near.share for near in found.problems_in_questions] == [4 / 7]


def test_below_the_threshold_nothing_is_said() -> None:
    assert contained(["a b c d e f g h i j"], ["a b c d e x y z"], 5, 0.5) == []
    assert [near.share for near in contained(["a b c d e f"], ["a b c d e x"], 5, 0.5)] == [0.5]


def test_a_text_shorter_than_an_ngram_is_looked_for_as_a_whole() -> None:
    assert [near.other for near in contained(["CAT | up"], ["DOG | up", "CAT | up left"], 5, 0.5)] == ["CAT | up left"]


def test_questions_that_stand_twice_count_once() -> None:
    assert leaks(["a", "a", "b"], HARD).questions == 2


def test_empty_texts_are_no_error() -> None:
    assert contained(["", "a"], [""], 5, 0.5) == []
