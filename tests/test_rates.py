import json
from pathlib import Path

import pytest

from soarctl.errors import DataError
from soarctl.rates import (
    GPUS,
    Rates,
    Spent,
    decode_estimate,
    estimated,
    find,
    going_on,
    place,
    read,
    train_estimate,
    write,
)
from soarctl.spec import Spec
from soarctl.testing import toy_run

SPEC = toy_run().spec
RATES = Rates(
    device="cpu",
    machine="here",
    made="2026-01-02T03:04:05+00:00",
    settings={},
    startup=2.0,
    sequences=64,
    random_weights=False,
    pass_rate=0.5,
    hard_rate=0.25,
    filter_attempts=3.0,
    spent={"practice": Spent(100, 1000, 2.0, 1.0, 7.0)},
)


def test_a_completion_takes_its_sampling_grading_and_training() -> None:
    spent = Spent(100, 1000, 2.0, 1.0, 7.0)
    assert spent.seconds_each == 0.1
    assert spent.tokens_each == 10


def test_rates_are_read_as_they_were_written(tmp_path: Path) -> None:
    write(RATES, tmp_path / "a" / "rates.json")
    assert read(tmp_path / "a" / "rates.json") == RATES


def test_rates_are_found_for_a_spec_that_differs_in_what_costs_no_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert find(SPEC) is None
    write(RATES, place(SPEC))
    assert place(SPEC).parent == tmp_path / "soarctl" / "rates"
    assert find(toy_run(seed=9, outer={"steps": 99}, promotion={"tau": 0.5}).spec) == RATES
    assert find(toy_run(inner={"group_size": 4}).spec) is None
    assert find(toy_run(trainer={"plugin": "toy", "side_by_side": 2}).spec) is None


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": 1, "spent": {"a": 1}}', json.dumps({"format": 1})])
def test_what_is_no_file_of_rates_is_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "rates.json"
    path.write_text(text)
    with pytest.raises(DataError) as error:
        read(path)
    assert str(error.value).startswith(f"{path}: is not a file of rates: ")
    assert str(error.value).endswith(f"  `soarctl bench SPEC --out {path}` makes one")


def test_rates_of_another_format_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "rates.json"
    write(RATES, path)
    path.write_text(path.read_text().replace('"format": 1', '"format": 2'))
    with pytest.raises(DataError, match="has format 2; this soarctl reads format 1"):
        read(path)


def test_estimates_go_with_bandwidth_and_peak_and_against_parameters() -> None:
    h200, h100, *_ = GPUS
    assert decode_estimate(h200, 3_200_000_000, 1000) == 30_000
    assert decode_estimate(h200, 6_400_000_000, 1000) == 15_000
    assert decode_estimate(h100, 3_200_000_000, 1000) == pytest.approx(30_000 * 3.35 / 4.8)
    # 0.4 of 989 TFLOP/s, 4 FLOP per parameter and token: forward, and backward through frozen weights.
    assert train_estimate(h200, 3_200_000_000, kl=False) == pytest.approx(0.4 * 989e12 / (4 * 3.2e9))
    assert train_estimate(h200, 3_200_000_000, kl=True) == pytest.approx(0.4 * 989e12 / (6 * 3.2e9))
    assert train_estimate(h200, 3_200_000_000, kl=True, frozen=False) == pytest.approx(0.4 * 989e12 / (8 * 3.2e9))


def test_fewer_than_a_thousand_sequences_are_sampled_no_quicker_each() -> None:
    h200, h100, *_ = GPUS
    assert decode_estimate(h200, 3_200_000_000, 100) == decode_estimate(h100, 6_400_000_000, 100) == 3_000
    assert decode_estimate(h200, 3_200_000_000, 4000) == 30_000


def test_of_the_decoders_batch_forty_percent_go_on_and_an_engine_refills_its_own() -> None:
    def spec(**options: object) -> Spec:
        trainer = type(SPEC.trainer).model_validate({"plugin": "any", **options})
        return SPEC.model_copy(update={"trainer": trainer})

    own = spec(max_sequences=448, sampler={"plugin": "decoder"})
    assert going_on(own, None) == pytest.approx(0.4 * 448)
    assert going_on(own, 100) == pytest.approx(40)
    assert going_on(own, 5000) == pytest.approx(0.4 * 448)
    assert going_on(spec(max_sequences=448, sampler={"plugin": "vllm", "max_sequences": 1024}), None) == 1024
    assert going_on(spec(), None) == 1000, "a trainer that says nothing has enough of them"


def test_an_estimated_completion_is_forty_percent_of_the_longest() -> None:
    spec = toy_run(inner={"max_new_tokens": 1000, "kl": 0.0}, teacher={"max_new_tokens": 100}).spec
    spent = estimated(spec, GPUS[0], 3_200_000_000)
    assert (spent["practice"].tokens_each, spent["teacher"].tokens_each) == (400, 40)
    assert spent["practice"].seconds_each == pytest.approx(400 / 30_000 + 400 / (0.4 * 989e12 / 12.8e9))
    assert spent["reward"].seconds_each == pytest.approx(400 / 30_000)
