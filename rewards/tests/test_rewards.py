from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest
from soarctl_rewards.grounded import Grounded
from soarctl_rewards.learnability import Learnability, learnability

from soarctl.api import Problem, RewardContext, Student

EASY, HALF, IMPOSSIBLE = Problem("easy", "1"), Problem("half", "1"), Problem("impossible", "1")


@dataclass
class Context(RewardContext):
    """Students gain a tenth for every question of their dataset, and twice that with seed 1."""

    asked: list[object] = field(default_factory=list)

    def draw_hard(self, count: int) -> Sequence[Problem]:
        self.asked.append(("draw", count))
        return [Problem(str(i), "") for i in range(count)]

    def practise(
        self, datasets_G: Sequence[Sequence[Problem]], repeats: int, questions: Sequence[Problem], samples: int
    ) -> list[list[Student]]:
        self.asked.append(("practise", repeats, len(questions), samples))
        return [[Student(None, 0.0, 0.1 * (j + 1) * len(X), j) for j in range(repeats)] for X in datasets_G]

    def solve_rates(self, problems: Sequence[Problem], samples: int) -> list[float]:
        self.asked.append(("solve", samples))
        return [{"easy": 1.0, "half": 0.5, "impossible": 0.0}[p.question] for p in problems]


def test_the_grounded_reward_is_the_mean_gain_of_a_datasets_students() -> None:
    context = Context()
    scores = Grounded(questions=5, repeats=2, samples=3).score([[EASY], [EASY, HALF]], context)
    assert scores.rewards_G == pytest.approx([0.15, 0.3])
    assert context.asked == [("draw", 5), ("practise", 2, 5, 3)]
    assert scores.students_G_R is not None
    assert [[s.gain for s in students] for students in scores.students_G_R] == [[0.1, 0.2], [0.2, 0.4]]


def test_the_grounded_reward_is_the_papers_by_default() -> None:
    reward = Grounded()
    assert (reward.questions, reward.repeats, reward.samples) == (64, 4, 0)


@pytest.mark.parametrize(("rate", "worth"), [(0.0, 0.0), (1 / 32, 31 / 32), (0.5, 0.5), (1.0, 0.0)])
def test_learnability_is_zero_at_both_ends(rate: float, worth: float) -> None:
    assert learnability(rate) == worth


def test_the_learnability_reward_is_the_mean_over_a_dataset_and_trains_nobody() -> None:
    context = Context()
    scores = Learnability().score([[EASY, HALF], [IMPOSSIBLE, IMPOSSIBLE], [HALF]], context)
    assert scores.rewards_G == [0.25, 0.0, 0.5]
    assert scores.students_G_R is None
    assert context.asked == [("solve", 32)], "no hard problem was drawn, and no student trained"
