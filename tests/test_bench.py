"""Measuring, in the toy world and with the letters model."""

import json
from pathlib import Path

import pytest

from soarctl.bench import measure
from soarctl.errors import TeacherError
from soarctl.events import silent
from soarctl.plan import plan
from soarctl.rates import settings_of
from soarctl.spec_reader import load_spec
from soarctl.testing import toy_run


def test_every_purpose_of_a_run_is_measured() -> None:
    loaded = toy_run()
    rates = measure(loaded, plan(loaded), 5, silent)
    assert rates.settings == settings_of(loaded.spec)
    # 6 students, 4 of them side by side, for all 6 inner steps of 2 questions x 8; measured on 10 questions x 8.
    assert rates.sequences == 4 * 2 * 8
    assert rates.spent["practice"].completions == 4 * 6 * 2 * 8
    assert rates.spent["reward"].completions == 4 * 10 * 8
    # A sixth of what the toy teacher writes is malformed.
    assert rates.pass_rate is not None
    assert 0.5 < rates.pass_rate <= 1
    assert rates.spent["teacher"].completions == round(8 / rates.pass_rate) or rates.pass_rate * 8 < 8
    # All toy problems are hard to some degree: 3 or 4 skills of 0.3 each.
    assert rates.hard_rate is not None
    assert rates.hard_rate > 0.5
    assert rates.filter_attempts is not None
    assert rates.spent["filter"].completions == round(32 * rates.filter_attempts)
    assert all(spent.sampling > 0 for spent in rates.spent.values())
    assert rates.spent["practice"].training > 0


def test_a_reward_that_trains_nobody_is_measured_on_the_base_model() -> None:
    loaded = toy_run(reward={"plugin": "learnability", "samples": 8})
    rates = measure(loaded, plan(loaded), 5, silent)
    assert "practice" not in rates.spent
    assert rates.spent["reward"].completions == 8 * 8


def test_what_takes_too_long_is_measured_with_fewer_students() -> None:
    loaded = toy_run(trainer={"plugin": "toy", "side_by_side": 16}, reward={"repeats": 8}, inner={"group_size": 64})
    rates = measure(loaded, plan(loaded), 0.001, silent)
    assert rates.sequences == 2 * 64
    assert rates.spent["practice"].completions == 2 * 64
    assert rates.filter_attempts is None


def test_a_teacher_that_writes_nothing_is_an_error_as_in_a_run() -> None:
    loaded = toy_run(teacher={"resample_cap": 1, "dataset_size": 40})
    with pytest.raises(TeacherError, match="of 80 questions in 80 completions"):
        measure(loaded, plan(loaded), 5, silent)


CONFIG = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 300,
    "max_position_embeddings": 256,
    "bos_token_id": None,
    "eos_token_id": 1,
    "tie_word_embeddings": True,
}


def test_random_weights_stand_for_a_model_that_is_not_here(tmp_path: Path) -> None:
    from soarctl.cli.bench import bench

    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    (tmp_path / "spec.yaml").write_text(
        "name: made-up\nmodel: {base: nobody/no-such-model}\ndomain: {plugin: letters, candidates: 20}\n"
        "teacher: {group_size: 2, dataset_size: 4, max_new_tokens: 20}\nreward: {questions: 4, repeats: 1}\n"
        "inner: {steps: 2, batch_size: 2, group_size: 4, max_new_tokens: 10}\ntrainer: {rank: 2, width: 2}\n"
    )
    out = tmp_path / "rates.json"
    bench(str(tmp_path / "spec.yaml"), [], out, tmp_path / "config.json", seconds=3, as_json=True)
    made = json.loads(out.read_text())
    assert made["settings"] == settings_of(load_spec(tmp_path / "spec.yaml").spec)
    assert made["random_weights"]
    assert (made["pass_rate"], made["hard_rate"], made["filter_attempts"]) == (None, None, None)
    # 40 % of the longest; one token in 300 ends a text before that.
    practice = made["spent"]["practice"]
    assert practice["completions"] == 2 * 2 * 2 * 4
    assert 3 < practice["tokens"] / practice["completions"] <= 4
    assert practice["training"] > 0, "there is nothing to learn, but learning is what is timed"
