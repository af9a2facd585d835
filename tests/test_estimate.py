from dataclasses import replace

import pytest

from soarctl.estimate import estimate, estimates, forecast, sequences, what_if
from soarctl.plan import plan
from soarctl.rates import GPUS, Rates, Spent, place, write
from soarctl.testing import toy_run

LOADED = toy_run()  # 6 outer steps of 2 datasets of 4 questions, 3 students each, 6 inner steps of 2 x 8; 40 candidates
COUNTED = plan(LOADED)
RATES = Rates(
    device="cpu",
    machine="here",
    made="today",
    settings={},
    startup=5.0,
    sequences=64,
    random_weights=False,
    pass_rate=0.8,
    hard_rate=0.5,
    filter_attempts=3.0,
    spent={
        "filter": Spent(10, 50, 1.0),
        "teacher": Spent(10, 50, 1.0, 0.0, 1.0),
        "practice": Spent(100, 500, 1.0, 0.5, 0.5),
        "reward": Spent(10, 50, 2.0),
    },
)


def test_the_time_is_completions_times_what_each_takes() -> None:
    assert COUNTED.candidates == 40
    made = estimate(LOADED.spec, COUNTED, RATES)
    costs = {cost.what: cost for cost in made.costs}
    assert costs["filter"].completions == (120, 120)  # 40 candidates x 3 attempts
    assert costs["teacher"].completions == (60, 60)  # 6 x 8 kept, of which 80 % pass
    assert costs["practice"].completions == (6 * 6 * 6 * 16,) * 2
    assert costs["reward"].completions == (6 * 6 * 10 * 8,) * 2
    # Half of the candidates are hard, half of those train problems: 10 problems x 8 attempts, for up to 3 baselines,
    # since who is promoted after the last step starts no other.
    assert costs["baseline"].completions == (80, 3 * 80)
    # The other 10 problems x 16 attempts, with or without a promoted student.
    assert costs["held-out"].completions == (160, 320)
    least = 5 + 120 * 0.1 + 60 * 0.2 + 3456 * 0.02 + 2880 * 0.2 + 80 * 0.2 + 160 * 0.2
    assert made.seconds == pytest.approx((least, least + 160 * 0.2 + 160 * 0.2))
    assert (made.decode, made.train) == (500, 1000)


def test_what_could_not_be_counted_is_named_and_left_out() -> None:
    counted = replace(COUNTED, counts=[replace(c, total=None) if c.what == "filter" else c for c in COUNTED.counts])
    made = estimate(LOADED.spec, counted, RATES)
    assert made.unknown == ["filter"]
    assert "filter" not in [cost.what for cost in made.costs]


def test_a_model_of_unknown_size_or_too_small_is_not_reckoned_with() -> None:
    assert estimates(LOADED.spec, COUNTED) == []
    assert estimates(LOADED.spec, replace(COUNTED, parameters=1_000_000)) == []
    large = estimates(LOADED.spec, replace(COUNTED, parameters=3_000_000_000))
    assert [made.device for made in large] == ["H200", "H100", "A100", "L40S"]
    assert large[0].seconds < large[1].seconds


def test_caches_get_what_resident_memory_and_a_tenth_leave() -> None:
    loaded = toy_run(model={"base": "meta-llama/Llama-3.2-3B"}, inner={"max_new_tokens": 1000})
    counted = plan(loaded)
    assert counted.cache_bytes == 2 * 2 * 28 * 8 * 128
    memory = [replace(memory, bytes=0) for memory in counted.memory]
    # 0.9 x 141e9 / (114,688 bytes x (256 + 1,000) tokens)
    assert sequences(loaded.spec, replace(counted, memory=memory), GPUS[0]) == 880
    assert sequences(loaded.spec, counted, GPUS[0]) is None, "the toy trainer does not say what its adapters weigh"


def test_smaller_budgets_cost_what_they_say() -> None:
    smaller = {one.change: one for one in what_if(LOADED, COUNTED, RATES)}
    now = estimate(LOADED.spec, COUNTED, RATES).seconds[0]
    assert list(smaller) == [
        "reward.repeats 1 in place of 3",
        "inner.steps 3 in place of 6",
        "inner.max_new_tokens 512 in place of 1024",
        "outer.steps 3 in place of 6",
    ]
    assert smaller["reward.repeats 1 in place of 3"].seconds[0] == pytest.approx(
        now - 2 / 3 * (3456 * 0.02 + 2880 * 0.2)
    )
    assert smaller["reward.repeats 1 in place of 3"].resolution == 1 / (2 * 10 * 8)
    assert smaller["inner.steps 3 in place of 6"].seconds[0] == pytest.approx(now - 1728 * 0.02)
    # Sampling and training of students halve; grading does not.
    saved = 3456 * 0.0075 + (2880 + 80 + 160) * 0.1
    assert smaller["inner.max_new_tokens 512 in place of 1024"].seconds[0] == pytest.approx(now - saved)


def test_a_forecast_needs_a_measurement_on_this_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert forecast(LOADED, 40) is None
    write(RATES, place(LOADED.spec))
    assert forecast(LOADED, 40) == estimate(LOADED.spec, COUNTED, RATES)
    place(LOADED.spec).write_text("damaged")
    assert forecast(LOADED, 40) is None
