"""SOAR's reward: how much students improve on hard problems by practising a dataset."""

from collections.abc import Sequence
from statistics import fmean

from pydantic import Field, PositiveInt

from soarctl.api import Problem, Reward, RewardContext, Scores


class Grounded(Reward):
    """The mean gain on hard problems of the students of a dataset.

    R_k = mean_j (Acc(student_kj, Q_R) - Acc(baseline, Q_R))
    """

    questions: PositiveInt = 64
    """M = |Q_R|: hard train problems drawn anew at every outer step (section 4.2)."""
    repeats: PositiveInt = 4
    """r: students per dataset, which differ in seed only (section B.3)."""
    samples: int = Field(default=0, ge=0)
    """Attempts per question at temperature 1. 0, the paper's way, is one greedy attempt."""

    def score(self, datasets_G: Sequence[Sequence[Problem]], context: RewardContext) -> Scores:
        hard = context.draw_hard(self.questions)
        students_G_R = context.practise(datasets_G, self.repeats, hard, self.samples)
        # Negative where practice does harm, and not clipped (paper.md 2.1, step 6).
        return Scores([fmean(student.gain for student in students_R) for students_R in students_G_R], students_G_R)
