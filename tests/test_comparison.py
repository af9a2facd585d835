"""Runs beside each other."""

from collections.abc import Callable
from pathlib import Path

import pytest

from soarctl.comparison import compare, flat
from soarctl.errors import RunError


def test_what_differs_is_said_and_nothing_else(write_run: Callable[..., Path], tmp_path: Path) -> None:
    one = write_run(tmp_path / "one", name="one")
    two = write_run(tmp_path / "two", name="two", seed=8, promotion={"tau": 0.5, "window": 2})
    found = compare([one, two])
    assert found.differences == {"promotion.tau": [0.01, 0.5], "seed": [7, 8]}
    assert [compared.promoted_at for compared in found.runs] == [[2], []]
    # (0 + 0.125 + 0 + 0) / 4, and 4 of 5 completions.
    assert [(c.mean_reward, c.passed) for c in found.runs] == [(0.03125, 0.8)] * 2
    assert found.same_problems


def test_options_of_another_plug_in_are_differences(write_run: Callable[..., Path], tmp_path: Path) -> None:
    one = write_run(tmp_path / "one")
    two = write_run(tmp_path / "two", reward={"plugin": "learnability", "samples": 32})
    differences = compare([one, two]).differences
    assert differences["reward.plugin"] == ["grounded", "learnability"]
    assert differences["reward.repeats"] == [3, None]


def test_a_run_without_steps_compares_too(write_run: Callable[..., Path], tmp_path: Path) -> None:
    [compared] = compare([write_run(tmp_path / "run", gains=[])]).runs
    assert (compared.mean_reward, compared.passed) == (None, None)


def test_what_is_no_run_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no run here"):
        compare([tmp_path])


def test_nested_values_have_dotted_keys() -> None:
    assert flat({"a": {"b": {"c": 1}, "d": [2]}, "e": None}) == {"a.b.c": 1, "a.d": [2], "e": None}
