"""The inner loop in the toy world."""

from statistics import fmean
from typing import Any

import numpy as np
import pytest

from soarctl.api import Optimizer, Policy, Problem, Sampling, Stream
from soarctl.events import silent
from soarctl.inner_loop import batches, inner_loop, solve_rates
from soarctl.spec import Inner
from soarctl.testing import ToyDomain, ToyEngine

DOMAIN = ToyDomain()
INNER = Inner(steps=5, batch_size=4, group_size=16, lr=2.0)
HELPFUL = [Problem(f"{3 + i % 2} #{i}", str(3 + i % 2)) for i in range(6)]
USELESS = [Problem(f"0 #{i}", "wrong") for i in range(6)]


def test_an_epoch_is_a_permutation_and_the_second_one_fills_the_last_batches() -> None:
    plan = batches(64, 8, 10, Stream(("b",)))
    assert [len(batch) for batch in plan] == [8] * 10
    drawn = [index for batch in plan for index in batch]
    assert sorted(drawn[:64]) == list(range(64))
    assert len(set(drawn[64:])) == 16


def test_a_group_is_compared_within_its_question_only() -> None:
    seen = []

    class Watched(type(ToyEngine(1, (0.5,) * 5).fleet([], Optimizer(lr=1.0)))):  # type: ignore[misc]
        def reinforce(self, samples_S: Any) -> Any:
            seen.extend(samples_S)
            return super().reinforce(samples_S)

    start = Policy({"solve": np.zeros(5), "write": np.zeros(6)})
    fleet = Watched([start], 1.0)
    logs = inner_loop(fleet, DOMAIN, INNER, [HELPFUL], [Stream(("s",))], 2, silent)
    size = INNER.group_size
    for samples in seen:
        assert len(samples) == INNER.batch_size * size
        for at in range(0, len(samples), size):
            assert sum(s.advantage for s in samples[at : at + size]) == pytest.approx(0)
    assert logs[0].updates == 2
    assert sum(logs[0].verdicts.values()) == 2 * INNER.batch_size * size
    assert len(logs[0].attempts) == 2


def test_greedy_attempts_ask_each_problem_once() -> None:
    sure = ToyEngine(1, (0.9, 0.9, 0.9, 0.6, 0.4))
    fleet = sure.fleet([sure.start()], Optimizer(lr=1.0))
    asked = [(0, Problem("3 3 #1", "6"), Stream((1,))), (0, Problem("3 4 #1", "7"), Stream((2,)))]
    assert solve_rates(fleet, DOMAIN, asked, 0, INNER, silent) == [1.0, 0.0]
    assert solve_rates(fleet, DOMAIN, [], 0, INNER, silent) == []


def test_sampled_attempts_estimate_the_success_rate() -> None:
    sure = ToyEngine(1, (0.9, 0.9, 0.9, 0.6, 0.4))
    fleet = sure.fleet([sure.start()], Optimizer(lr=1.0))
    asked = [(0, Problem(f"3 4 #{i}", "7"), Stream((i,))) for i in range(50)]
    rates = solve_rates(fleet, DOMAIN, asked, 64, INNER, silent)
    # 0.6 * 0.4, with a standard error of sqrt(0.24 * 0.76 / 3200) = 0.0075.
    assert fmean(rates) == pytest.approx(0.24, abs=0.03)


def test_sampling_is_what_the_spec_says() -> None:
    draws: list[Sampling] = []

    class Listening:
        def sample(self, prompts: Any, sampling: Sampling) -> Any:
            draws.append(sampling)
            return [[] for _ in prompts]

    solve_rates(Listening(), DOMAIN, [(0, HELPFUL[0], Stream((1,)))], 0, INNER, silent)  # type: ignore[arg-type]
    assert draws == [Sampling(max_new_tokens=1024, temperature=0.0)]


def test_a_student_whose_rewards_are_flat_stops_and_the_others_do_not_notice() -> None:
    def logs(flat_window: int | None) -> Any:
        engine = ToyEngine(2, (0.9, 0.9, 0.9, 0.3, 0.3))
        fleet = engine.fleet([engine.start()] * 2, Optimizer(lr=2.0))
        streams_S = [Stream(("flat", s)) for s in range(2)]
        return inner_loop(fleet, DOMAIN, INNER, [HELPFUL, USELESS], streams_S, 9, silent, flat_window)

    faithful, shorter = logs(None), logs(4)
    assert [len(log.rewards) for log in faithful] == [9, 9]
    assert [len(log.rewards) for log in shorter] == [9, 8]  # no reward at all: the second window is not above the first
    assert shorter[0] == faithful[0]
