"""What students of an arm are trained on, and how."""

from soarctl.api import Optimizer, Problem, Stream
from soarctl.spec import Inner
from soarctl.study.spec import Arm, Training
from soarctl.study.training import data_plan, inner_of, optimizer_of

SYNTHETIC = [Problem(f"s{i}", "") for i in range(6)]
HARD = [Problem(f"h{i}", "") for i in range(10)]
STREAM = Stream(("test",))


def kinds(training: Training, synthetic: list[Problem]) -> list[str]:
    plan = data_plan(training, 2, synthetic, HARD, STREAM)
    return ["".join(problem.question[0] for problem in batch) for batch in plan]


def test_a_curriculum_is_synthetic_first_and_hard_alone_after() -> None:
    assert kinds(Training(steps=7, synthetic_steps=3), SYNTHETIC) == ["ss"] * 3 + ["hh"] * 4


def test_hard_only_is_hard_from_the_first_step() -> None:
    assert kinds(Training(steps=5, synthetic_steps=3), []) == ["hh"] * 5


def test_mixed_draws_every_item_once_an_epoch() -> None:
    plan = data_plan(Training(steps=8, mix="mixed"), 2, SYNTHETIC, HARD, STREAM)
    assert sorted(p.question for batch in plan for p in batch) == sorted(p.question for p in (*SYNTHETIC, *HARD))


def test_a_curriculum_longer_than_the_training_never_gets_to_hard_problems() -> None:
    assert kinds(Training(steps=2, synthetic_steps=64), SYNTHETIC) == ["ss", "ss"]


def test_one_arm_has_four_times_the_completions_and_else_nothing_differs() -> None:
    inner = Inner()
    assert inner_of(inner, Arm.HARD_ONLY_4X) == inner.model_copy(update={"group_size": 128})
    assert inner_of(inner, Arm.PQ) == inner


def test_promotion_questions_with_a_curriculum_begin_without_warm_up() -> None:
    optimizer, curriculum, mixed = Optimizer(1e-5), Training(), Training(mix="mixed")
    assert optimizer_of(optimizer, curriculum, Arm.PQ).warmup_steps == 0
    assert optimizer_of(optimizer, curriculum, Arm.GROUNDED_T).warmup_steps == 20
    assert optimizer_of(optimizer, mixed, Arm.PQ).warmup_steps == 20
