import numpy as np
import pytest

from soarctl.streams import Stream


def test_a_stream_is_a_function_of_its_path() -> None:
    assert np.array_equal(Stream((0, "a")).child("b", 1).uniforms(5), Stream((0, "a", "b", 1)).uniforms(5))


def test_streams_of_different_paths_differ() -> None:
    paths: list[tuple[str | int, ...]] = [("a", 1), ("a", "1"), ("a", "1", ""), ("a1",), (1, "a"), ("a", 2)]
    assert len({float(Stream(path).uniforms(1)[0]) for path in paths}) == len(paths)


def test_numbers_do_not_change_between_versions() -> None:
    # Written down once: a run that is resumed under another numpy must go on with the same numbers.
    assert Stream((0, "write", 1)).uniforms(2).tolist() == pytest.approx(PINNED, abs=0)


def test_a_longer_first_axis_starts_with_the_numbers_of_a_shorter_one() -> None:
    assert np.array_equal(Stream(("x",)).uniforms(8, 3)[:2], Stream(("x",)).uniforms(2, 3))


def test_uniforms_are_uniform() -> None:
    counts, _ = np.histogram(Stream(("u",)).uniforms(100_000), bins=10, range=(0, 1))
    # Chi-squared with 9 degrees of freedom exceeds 27.9 one time in a thousand.
    assert ((counts - 10_000) ** 2 / 10_000).sum() < 27.9


def test_order_is_a_permutation_and_choose_its_start() -> None:
    stream = Stream(("o",))
    assert sorted(stream.order(50)) == list(range(50))
    assert stream.choose(50, 7) == stream.order(50)[:7]


def test_one_cannot_choose_more_than_there_are() -> None:
    with pytest.raises(ValueError, match="cannot choose 4 of 3"):
        Stream(("o",)).choose(3, 4)


PINNED = [0.6231114224813398, 0.3038651522567508]
