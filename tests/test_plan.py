import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from soarctl.model_size import ModelShape, read_shape
from soarctl.plan import Plan, plan
from soarctl.spec_reader import load_spec

# The paper's numbers are the spec's defaults; see paper.md 8.1 for what they cost.
PAPER = """\
name: paper
model: {base: nobody/no-such-model}
domain: {plugin: letters}
"""


@pytest.fixture
def planned(tmp_path: Path) -> Callable[..., Plan]:
    """`planned("outer.steps=5")`: the plan of the paper's spec with changes."""
    path = tmp_path / "paper.yaml"
    path.write_text(PAPER)

    def call(*overrides: str) -> Plan:
        return plan(load_spec(path, overrides))

    return call


def test_an_outer_step_of_the_paper_costs_what_the_paper_says(planned: Callable[..., Plan]) -> None:
    paper = planned()
    assert paper.students == 4 * 4
    assert paper.count("practice").per_step == (40_960, 81_920)  # 16 students x 10 or, promoted, 20 steps x 8 x 32
    assert paper.count("reward").per_step == (1_024, 1_024)
    # The paper's 1,088 greedy completions ask the baseline in every step; here it is asked once about all problems.
    assert paper.count("reward").per_step[0] + paper.questions == 1_088
    assert paper.count("teacher").per_step == (256, 5_120)


def test_a_whole_run_of_the_paper(planned: Callable[..., Plan]) -> None:
    paper = planned()
    assert paper.student_updates[0] == 32_000
    assert paper.count("practice").total[0] == 8_192_000
    assert paper.count("practice").tokens == paper.count("practice").total[1] * 1024
    assert paper.count("teacher").total == (51_200, 1_024_000)


def test_two_groups_per_step_double_it(planned: Callable[..., Plan]) -> None:
    paper = planned("teacher.groups_per_step=2")
    assert paper.students == 32
    assert paper.count("practice").per_step[0] == 81_920
    assert paper.count("reward").per_step[0] + paper.questions == 2_112


def test_students_practise_longer_after_each_promotion_that_there_can_be(planned: Callable[..., Plan]) -> None:
    # Promotions after steps 3 and 6 at the earliest: 10 steps, then 15, then 20 in the seventh.
    paper = planned("outer.steps=7")
    assert paper.promotions == (0, 2)
    assert paper.student_updates == (7 * 16 * 10, (3 * 10 + 3 * 15 + 20) * 16)


def test_a_window_that_is_kept_lets_every_step_promote(planned: Callable[..., Plan]) -> None:
    paper = planned("outer.steps=5", "promotion.reset_window=false")
    assert paper.promotions == (0, 3)
    assert paper.student_updates[1] == (3 * 10 + 15 + 20) * 16


def test_what_depends_on_how_many_problems_are_hard_is_at_most(planned: Callable[..., Plan]) -> None:
    paper = planned("outer.steps=7", "domain.candidates=100")
    assert paper.count("filter").total == (100, 12_800)
    assert paper.count("baseline").total == (0, 50 * 3)
    assert paper.count("held-out").total == (0, 50 * 32 * 2)


def test_results_of_an_earlier_filter_say_how_many_are_hard(planned: Callable[..., Plan], tmp_path: Path) -> None:
    manifest = {"train": {"count": 30}, "test": {"count": 10}}
    (tmp_path / "hard.manifest.json").write_text(json.dumps(manifest))
    paper = planned("outer.steps=3", f"filter.reuse={tmp_path / 'hard.jsonl'}")
    assert paper.count("baseline").total == (0, 20)
    assert paper.count("held-out").total == (0, 20 * 32 * 2)
    assert "filter" not in [count.what for count in paper.counts]
    assert "the reward asks for 64 hard train problems; there are 20 at most" in paper.warnings


def test_sampled_rewards_count_every_attempt(planned: Callable[..., Plan]) -> None:
    paper = planned("reward.samples=8", "reward.questions=10", "domain.candidates=100", "outer.steps=1")
    assert paper.count("reward").per_step == (16 * 10 * 8,) * 2
    assert paper.count("baseline").total == (0, 50 * 8)
    assert paper.resolution == 1 / 1_280


def test_an_intrinsic_reward_trains_nobody_and_promotes_nobody(planned: Callable[..., Plan]) -> None:
    paper = planned("reward.plugin=learnability")
    assert (paper.students, paper.promotions, paper.resolution) == (0, (0, 0), None)
    assert paper.count("solve rates").per_step == (256 * 32,) * 2
    assert "practice" not in [count.what for count in paper.counts]
    assert list(paper.warnings) == [
        "this reward trains no students, so nothing is ever promoted and there are no promotion questions"
    ]


def test_a_threshold_within_the_noise_is_warned_of(planned: Callable[..., Plan]) -> None:
    # p = 1/130 after no success in 128; sqrt(p (1 - p) / 64 * (1 + 1/16) / 3) = 0.0065.
    paper = planned()
    assert paper.resolution == 1 / 1024
    assert paper.standard_error == pytest.approx(0.0065, abs=5e-5)
    [warning] = paper.warnings
    assert warning == (
        "tau 0.01 is below 3 standard errors of the mean over 3 steps (0.0195, if the baseline solves 0.77 % of hard "
        "problems): some promotions may be luck; 244 hard problems per step or tau 0.0195 would do"
    )


def test_the_remedies_that_the_warning_names_do_help(planned: Callable[..., Plan]) -> None:
    assert list(planned("reward.questions=244", "domain.candidates=500").warnings) == []
    assert list(planned("promotion.tau=0.0195").warnings) == []


def test_a_threshold_below_one_solved_problem_is_warned_of(planned: Callable[..., Plan]) -> None:
    warnings = planned("promotion.tau=0.0003").warnings
    assert "tau 0.0003 is so low that one solved problem in 3 steps is a promotion" in warnings


@pytest.mark.parametrize(
    ("shape", "parameters"),
    [
        # As the models' own pages and files say.
        (ModelShape("llama", 3072, 8192, 28, 24, 8, 128, 128_256, True, False, False), 3_212_749_824),
        (ModelShape("qwen2", 896, 4864, 24, 14, 2, 64, 151_936, True, True, False), 494_032_768),
        (ModelShape("qwen3", 1024, 3072, 28, 16, 8, 128, 151_936, True, False, False), 596_049_920),
    ],
    ids=["Llama-3.2-3B", "Qwen2.5-0.5B", "Qwen3-0.6B"],
)
def test_parameters_follow_from_the_config(shape: ModelShape, parameters: int) -> None:
    assert shape.parameters == parameters


def test_an_adapter_has_rank_times_in_plus_out_numbers_per_layer() -> None:
    shape = ModelShape("llama", 96, 256, 3, 4, 4, 24, 67, False, False, False)
    assert shape.adapter_parameters(16, ["q_proj"]) == 3 * 16 * (96 + 96)
    assert shape.adapter_parameters(16, ["q_proj", "down_proj"]) == 3 * 16 * (96 + 96 + 256 + 96)
    assert shape.adapter_parameters(16, ["c_attn"]) is None


CONFIG = {
    "model_type": "llama",
    "hidden_size": 96,
    "intermediate_size": 256,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "vocab_size": 67,
}


def test_memory_is_counted_for_a_model_whose_config_is_here(planned: Callable[..., Plan], tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    paper = planned(f"model.base={tmp_path}")
    assert paper.parameters == 345_312
    # rank 16 on 4 square layers of 96 and 3 between 96 and 256, in each of 3 blocks
    assert paper.policy_parameters == 3 * 16 * (4 * 192 + 3 * 352)
    memory = {each.role: each.bytes for each in paper.memory}
    assert memory["all roles"] == 345_312 * 2
    assert memory["teacher"] == paper.policy_parameters * 16
    assert memory["students"] == paper.policy_parameters * 16 * 16
    assert memory["finished students"] == paper.policy_parameters * 4 * 16


def test_all_weights_take_turns_on_the_device_and_wait_in_host_memory(
    planned: Callable[..., Plan], tmp_path: Path
) -> None:
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    paper = planned(f"model.base={tmp_path}", "trainer={plugin: full}")
    assert paper.policy_parameters == paper.parameters == 345_312
    assert {each.role: each.bytes for each in paper.memory if not each.host} == {
        "all roles": 345_312 * 2 * 2,
        "whose turn it is": 345_312 * 16,
    }
    assert {each.role: each.bytes for each in paper.memory if each.host} == {
        "waiting": 345_312 * 12,
        "baseline": 345_312 * 4,
        "finished students": 345_312 * 4 * 16,
    }
    three = planned(f"model.base={tmp_path}", "trainer={plugin: full, width: 3}")
    assert next(each.bytes for each in three.memory if each.role == "waiting") == 345_312 * 12 * 3


def test_memory_of_a_model_that_is_not_here_is_unknown(planned: Callable[..., Plan]) -> None:
    paper = planned()
    assert paper.parameters is None
    assert {each.bytes for each in paper.memory} == {None}


@pytest.mark.parametrize("config", ["{", "[]", '{"model_type": "mamba"}', '{"model_type": "llama"}'])
def test_a_config_that_says_too_little_is_unknown(config: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(config)
    assert read_shape(str(tmp_path), None) is None


def test_a_plan_is_plain_json(planned: Callable[..., Plan]) -> None:
    from dataclasses import asdict

    values: dict[str, Any] = json.loads(json.dumps(asdict(planned())))
    assert values["promotions"] == [0, 66]
