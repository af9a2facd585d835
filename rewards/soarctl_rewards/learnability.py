"""The intrinsic reward that SOAR is compared with: questions that are neither too easy nor impossible."""

from collections.abc import Sequence
from statistics import fmean

from pydantic import PositiveInt

from soarctl.api import Problem, Reward, RewardContext, Scores


def learnability(solve_rate: float) -> float:
    """0 where the teacher's answer is never given, else 1 - solve_rate; so 0 for what is always solved, too.

    Source: SOAR section B.4.
    """
    return 0.0 if solve_rate == 0 else 1.0 - solve_rate


class Learnability(Reward):
    """The mean learnability of a dataset's questions. Trains no students and sees no hard problem."""

    samples: PositiveInt = 32
    """Attempts per question, at temperature 1 (section B.4)."""

    def score(self, datasets_G: Sequence[Sequence[Problem]], context: RewardContext) -> Scores:
        rates = iter(context.solve_rates([problem for dataset in datasets_G for problem in dataset], self.samples))
        return Scores([fmean(learnability(next(rates)) for _ in dataset) for dataset in datasets_G])
