from collections.abc import Callable
from pathlib import Path

import pytest

from soarctl.held_out import Estimate, held_out_table
from soarctl.runs import open_run


def test_pass_at_k_is_the_mean_over_held_out_problems(small_run: Path) -> None:
    # Of 4 attempts the promoted student has 4, 2, 0, 1 right; the base model 0, 0, 0, 1.
    with open_run(small_run) as ledger:
        base, promoted = held_out_table(ledger)
    assert (base.name, promoted.name) == ("base", "promoted")
    assert (base.problems, base.samples) == (4, 4)
    assert {k: e.value for k, e in base.pass_at.items()} == {1: 1 / 16, 2: 1 / 8, 4: 1 / 4}
    # pass@2 of 2 right in 4 is 1 - C(2, 2) / C(4, 2) = 5/6, of 1 in 4 it is 1 - 3/6.
    assert promoted.pass_at[1].value == (1 + 1 / 2 + 0 + 1 / 4) / 4
    assert promoted.pass_at[2].value == pytest.approx((1 + 5 / 6 + 0 + 1 / 2) / 4)
    assert promoted.pass_at[4].value == 3 / 4


def test_an_interval_holds_its_estimate_and_is_the_same_at_every_call(small_run: Path) -> None:
    with open_run(small_run) as ledger:
        tables = [held_out_table(ledger) for _ in range(2)]
    assert tables[0] == tables[1]
    assert all(e.low <= e.value <= e.high for arm in tables[0] for e in arm.pass_at.values())


def test_problems_that_are_all_alike_leave_no_uncertainty(tmp_path: Path, write_run: Callable[..., Path]) -> None:
    with open_run(write_run(tmp_path / "run", held_out={"base": [2, 2, 2, 2]})) as ledger:
        [base] = held_out_table(ledger)
    assert base.pass_at[1] == Estimate(0.5, 0.5, 0.5)


def test_k_beyond_the_attempts_that_were_made_is_left_out(tmp_path: Path, write_run: Callable[..., Path]) -> None:
    # The evaluation of a finished run may be changed; until it is measured again, its attempts are those of before.
    run = write_run(tmp_path / "run", held_out={"base": [0, 0, 0, 1]}, evaluation={"samples": 8, "k": [1, 8]})
    with open_run(run) as ledger:
        [base] = held_out_table(ledger)
    assert list(base.pass_at) == [1]


def test_there_is_no_table_before_the_measurement(tmp_path: Path, write_run: Callable[..., Path]) -> None:
    with open_run(write_run(tmp_path / "run")) as ledger:
        assert held_out_table(ledger) == []
