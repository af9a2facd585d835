"""The invariants of Algorithm 1, on scripted rewards and on the toy world."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest

from soarctl.api import (
    Completion,
    Fleet,
    GradedSample,
    Policy,
    Problem,
    Prompt,
    Reward,
    RewardContext,
    Sampling,
    Scores,
    StepStats,
    Stream,
    Student,
    Tensors,
)
from soarctl.crew import Alone, Workplace
from soarctl.errors import TeacherError
from soarctl.events import silent
from soarctl.practice import Baseline, Practice
from soarctl.soar import State, outer_step, partition, write_questions
from soarctl.spec import Spec
from soarctl.testing import ToyDomain, ToyEngine

DOMAIN = ToyDomain()
ENGINE = ToyEngine(width=4, can=(0.9, 0.9, 0.9, 0.3, 0.3))
SPEC = Spec.model_validate(
    {
        "name": "toy",
        "model": {"base": "toy"},
        "domain": {"plugin": "toy"},
        "teacher": {"group_size": 2, "dataset_size": 3, "reward_scale": 1.0},
        "promotion": {"tau": 0.01, "window": 3},
    }
)


@dataclass
class Script(Fleet):
    """A teacher that writes what it is told to, and remembers what it was taught."""

    texts: Sequence[str]
    lessons: list[list[tuple[str, float]]] = field(default_factory=list)
    drawn: int = 0

    def sample(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[list[Completion]]:
        [prompt] = prompts
        start, self.drawn = self.drawn, self.drawn + prompt.samples
        return [
            [Completion(self.texts[i % len(self.texts)], (), (i,), (0.0,), "eos") for i in range(start, self.drawn)]
        ]

    def reinforce(self, samples_S: Sequence[Sequence[GradedSample]]) -> list[StepStats]:
        self.lessons.append([(s.completion.text, s.advantage) for s in samples_S[0]])
        return [StepStats(stepped=True)]

    def snapshot(self, policy: int) -> Policy:
        raise NotImplementedError

    def state(self) -> Tensors:
        raise NotImplementedError

    def restore(self, state: Tensors) -> None:
        raise NotImplementedError


class Fixed(Reward):
    """Pays what it was told to; dataset k's student j has the policy [k, j]."""

    gains: tuple[tuple[float, ...], ...]

    def score(self, datasets_G: Sequence[Sequence[Problem]], context: RewardContext) -> Scores:
        students = [
            [Student(Policy({"id": np.array([k, j])}), gain, gain, j) for j, gain in enumerate(gains)]
            for k, gains in enumerate(self.gains)
        ]
        return Scores([sum(gains) / len(gains) for gains in self.gains], students)


def world(texts: Sequence[str] = ("3 #1", "4 #2")) -> tuple[Script, State]:
    teacher = Script(texts)
    return teacher, State(teacher, Baseline(ENGINE.start(), 0))


def one_step(state: State, reward: Reward, spec: Spec = SPEC) -> Any:
    train = list(DOMAIN.load())
    step = state.step + 1
    crew = Alone(Workplace(spec, DOMAIN, ENGINE, silent))
    practice = Practice(crew, train, state.baseline, step, Stream(("t", step)), Nowhere())
    return outer_step(spec, DOMAIN, reward, state, practice)


class Nowhere:
    """A shelf that keeps nothing."""

    def recall(self, *_: Any) -> None:
        return None

    def keep(self, *_: Any) -> None:
        return None


def test_every_completion_of_a_dataset_gets_the_advantage_of_its_dataset() -> None:
    teacher, state = world(["3 #1", "4 #2"])
    one_step(state, Fixed(gains=((0.25,), (-0.25,))))
    assert teacher.lessons == [
        [("3 #1", 0.5), ("4 #2", 0.5), ("3 #1", 0.5), ("4 #2", -0.5), ("3 #1", -0.5), ("4 #2", -0.5)]
    ]


def test_a_constant_added_to_all_rewards_changes_the_promotion_but_not_the_update() -> None:
    low_teacher, low = world()
    high_teacher, high = world()
    for _ in range(3):
        one_step(low, Fixed(gains=((0.0,), (-0.5,))))
        one_step(high, Fixed(gains=((0.75,), (0.25,))))
    assert low_teacher.lessons == high_teacher.lessons
    assert (low.baseline.stage, high.baseline.stage) == (0, 1)


def test_each_group_of_datasets_is_compared_within_itself() -> None:
    spec = SPEC.model_copy(update={"teacher": SPEC.teacher.model_copy(update={"groups_per_step": 2})})
    _, state = world()
    record = one_step(state, Fixed(gains=((1.0,), (0.0,), (5.0,), (4.0,))), spec)
    assert record.advantages_G == [1.0, -1.0, 1.0, -1.0]


def test_reward_scale_multiplies_the_update_and_not_the_record() -> None:
    spec = SPEC.model_copy(update={"teacher": SPEC.teacher.model_copy(update={"reward_scale": 10.0})})
    teacher, state = world()
    record = one_step(state, Fixed(gains=((0.25,), (-0.25,))), spec)
    assert record.rewards_G == [0.25, -0.25]
    assert {advantage for _, advantage in teacher.lessons[0]} == {5.0, -5.0}


def test_without_promotion_the_baseline_is_the_very_same() -> None:
    _, state = world()
    before = state.baseline
    for _ in range(5):
        assert one_step(state, Fixed(gains=((0.01,), (0.01,)))).promoted is None
    assert state.baseline is before


def test_a_promotion_keeps_the_median_student_of_the_best_dataset_and_clears_the_window() -> None:
    _, state = world()
    reward = Fixed(gains=((0.0, 0.0, 0.0), (0.9, 0.1, 0.2)))
    records = [one_step(state, reward) for _ in range(4)]
    assert [record.promoted for record in records] == [None, None, (1, 2), None]
    assert state.baseline.policy.tensors["id"].tolist() == [1, 2]
    assert state.baseline.stage == 1
    assert len(state.window) == 1


def test_the_window_is_kept_when_the_spec_says_so() -> None:
    spec = SPEC.model_copy(update={"promotion": SPEC.promotion.model_copy(update={"reset_window": False})})
    _, state = world()
    records = [one_step(state, Fixed(gains=((0.5,), (0.5,))), spec) for _ in range(4)]
    assert [record.promoted is not None for record in records] == [False, False, True, True]


def test_a_reward_that_trains_no_students_promotes_nobody() -> None:
    class Generous(Reward):
        def score(self, datasets_G: Sequence[Sequence[Problem]], context: RewardContext) -> Scores:
            return Scores([9.0] * len(datasets_G))

    _, state = world()
    assert [one_step(state, Generous()).promoted for _ in range(4)] == [None] * 4


def test_rejected_completions_are_counted_and_never_trained_on() -> None:
    teacher, state = world(["nothing", "3 #1", "nothing"])
    record = one_step(state, Fixed(gains=((0.1,), (0.2,))))
    assert [text for text, _ in teacher.lessons[0]] == ["3 #1"] * 6
    assert len(record.writing.questions) == 6
    # In order of writing: 6 completions give 2, 12 more (a third passes) the missing 4.
    assert record.writing.drawn == 18
    assert record.writing.rejections == {"no skill": 12}


def test_a_teacher_that_never_passes_the_filter_is_given_up_with_the_reasons() -> None:
    teacher = Script(["rubbish"])
    spec = replace_teacher(resample_cap=4)
    with pytest.raises(TeacherError) as error:
        write_questions(spec.teacher, 6, DOMAIN, teacher, Stream(("t",)))
    assert str(error.value) == (
        "teacher: the teacher wrote 0 of 6 questions in 24 completions (0.0 % pass the format filter)\n"
        "  rejected by rule:\n"
        "     24 x no skill, for example: 'rubbish'\n"
        "  look at the teacher prompt and model.chat_template; `--resume` may raise teacher.resample_cap"
    )


def test_datasets_are_formed_by_order_of_writing() -> None:
    assert partition([1, 2, 3, 4, 5, 6], 2) == [[1, 2], [3, 4], [5, 6]]


def replace_teacher(**values: Any) -> Spec:
    return SPEC.model_copy(update={"teacher": SPEC.teacher.model_copy(update=values)})


def test_a_step_record_says_what_the_next_step_starts_from() -> None:
    _, state = world()
    record = one_step(state, Fixed(gains=((0.5,), (0.25,))))
    assert (record.step, record.reward, list(record.window)) == (1, 0.375, [0.375])
    assert replace(record, reward=0.0).stage == 0
