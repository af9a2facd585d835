"""What each saving spends less, and what it costs in the precision of the teacher's reward, on the letters domain.

    OMP_NUM_THREADS=1 python benchmarks/savings.py [--steps 16] [--repeats 4] [--seed 0]

A teacher learns for `--steps` outer steps of the quickstart without promotions. In each step the same datasets are
practised, on the same hard problems, in every arm: faithfully, and with one saving each. All arms have one seed, so an
arm's students are those of the faithful arm as far as it trains them, and are trained once for all arms. What rewards
are held against is a second faithful measurement with another seed: the arm called "faithful" shows how well two
faithful measurements agree.

Shown are students, inner steps and completions of an outer step (its time goes with completions), and Pearson's
correlation with the second measurement: of dataset rewards within their step, which is what advantages are made of, and
of the mean rewards of steps, which is what promotions are made of. The table grows with every step.
"""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from soarctl.api import Problem, Scores, Stream, Student
from soarctl.crew import Alone, Workplace
from soarctl.events import silent
from soarctl.fail_at_k import fail_at_k, halve
from soarctl.practice import Baseline, Practice, Practised
from soarctl.savings import Seen
from soarctl.soar import State, outer_step
from soarctl.spec import Savings, Spec
from soarctl.spec_reader import LoadedSpec, load_spec

SPEC = Path(__file__).parents[1] / "specs" / "quickstart.yaml"


@dataclass
class Shelf:
    """Keeps students, by how and with which seed they practised, for all arms."""

    kept: dict[tuple[object, ...], Practised] = field(default_factory=dict)
    how: tuple[object, ...] = ()
    used: list[Practised] = field(default_factory=list)

    def recall(self, step: int, jobs: Sequence[tuple[int, int]], fingerprint: str) -> list[Student | None] | None:
        found = [self.kept.get((*self.how, step, *job)) for job in jobs]
        if not all(found):
            return None
        self.used += found
        return [practised.student for practised in found]

    def keep(
        self, step: int, students: Sequence[Practised], lost: Mapping[tuple[int, int], str], fingerprint: str
    ) -> None:
        self.kept |= {(*self.how, step, p.dataset, p.repeat): p for p in students}
        self.used += students


@dataclass
class Arm:
    """A way to measure, and what came of it."""

    name: str
    repeats: int
    savings: Savings
    seed: int = 0
    seen: list[Seen] = field(default_factory=list)
    rewards_T_G: list[list[float]] = field(default_factory=list)
    students: int = 0
    inner_steps: int = 0
    moved: int = 0

    def measure(self, loaded: LoadedSpec, datasets_G: Sequence[Sequence[Problem]], practice: Practice) -> Scores:
        """The datasets' rewards in this arm's way."""
        spec = loaded.spec.model_copy(update={"savings": self.savings})
        shelf = practice.shelf
        shelf.how, shelf.used = (self.seed, self.savings.flat_window), []
        stream = practice.stream.child("seed", self.seed) if self.seed else practice.stream
        hard = practice.draw_hard(loaded.reward.questions)  # from the step's stream, so the same in every arm
        crew = Alone(replace(practice.crew.place, spec=spec))
        world = replace(practice, crew=crew, seen=self.seen, stream=stream)
        students_G_R = world.practise(datasets_G, self.repeats, hard, loaded.reward.samples)
        self.students += len(shelf.used)
        self.inner_steps += sum(len(p.log.rewards) for p in shelf.used)
        self.moved += sum(p.student.policy is not None for p in shelf.used)
        for k, dataset in enumerate(datasets_G):
            gains = [p.student.gain for p in shelf.used if p.dataset == k]
            self.seen.append(Seen([(p.question, p.answer) for p in dataset], gains))
        rewards_G = [fmean(student.gain for student in students_R) for students_R in students_G_R]
        self.rewards_T_G.append(rewards_G)
        return Scores(rewards_G, students_G_R)

    def completions(self, loaded: LoadedSpec) -> int:
        """Of practice and on hard problems."""
        inner, reward = loaded.spec.inner, loaded.reward
        return self.inner_steps * inner.batch_size * inner.group_size + self.moved * reward.questions * reward.samples


@dataclass
class Measured:
    """A reward that measures in every arm and pays as the first one says."""

    loaded: LoadedSpec
    arms: Sequence[Arm]

    def score(self, datasets_G: Sequence[Sequence[Problem]], practice: Any) -> Scores:
        scores = [arm.measure(self.loaded, datasets_G, practice) for arm in self.arms]
        return Scores(scores[0].rewards_G)  # without students, so that nobody is promoted


def arms_of(spec: Spec, repeats: int) -> list[Arm]:
    epoch = -(-spec.teacher.dataset_size // spec.inner.batch_size)
    return [
        Arm("faithful", repeats, Savings()),
        Arm("the other measurement", repeats, Savings(), seed=1),
        Arm(f"{repeats // 2} repeats", repeats // 2, Savings()),
        Arm(f"flat_window {epoch}", repeats, Savings(flat_window=epoch)),
        Arm("race_from 2", repeats, Savings(race_from=2)),
        Arm("race_from 3", repeats, Savings(race_from=3)),
        Arm("reuse_overlap 0.5", repeats, Savings(reuse_overlap=0.5)),
        Arm("reuse_overlap 0.1", repeats, Savings(reuse_overlap=0.1)),
    ]


def within(rewards_T_G: Sequence[Sequence[float]]) -> list[float]:
    return [reward - fmean(rewards_G) for rewards_G in rewards_T_G for reward in rewards_G]


def correlation(some: Sequence[float], others: Sequence[float]) -> float:
    return float(np.corrcoef(some, others)[0, 1]) if len(some) > 2 else float("nan")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=4)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    changes = [f"outer.steps={options.steps}", f"seed={options.seed}", "trainer.width=16"]
    loaded = load_spec(str(SPEC), changes)
    spec, domain = loaded.spec, loaded.domain
    engine = loaded.trainer.load(spec.model, spec.seed)
    crew = Alone(Workplace(spec, domain, engine, silent))
    tried = fail_at_k(crew, domain.load(), {}, lambda _: None)
    train = [f.problem for f in halve(domain, tried, spec) if f.half == "train"]
    state = State(engine.fleet([engine.start()], spec.teacher_optimizer), Baseline(engine.start(), 0))
    arms = arms_of(spec, options.repeats)
    for step in range(1, options.steps + 1):
        practice = Practice(crew, train, state.baseline, step, Stream((spec.seed, "outer", step)), Shelf())
        outer_step(spec, domain, Measured(loaded, arms), state, practice)
        print(f"\nafter {step} of {options.steps} outer steps\n")
        show(loaded, arms, step)


def show(loaded: LoadedSpec, arms: Sequence[Arm], steps: int) -> None:
    truth = arms[1].rewards_T_G
    faithful = arms[0].completions(loaded)
    print("| | students | inner steps | completions | correlation of datasets | of step means |")
    print("|---|---|---|---|---|---|")
    for arm in arms:
        if arm.rewards_T_G is truth:
            continue
        means = correlation([fmean(r) for r in arm.rewards_T_G], [fmean(r) for r in truth])
        print(
            f"| {arm.name} | {arm.students / steps:.1f} | {arm.inner_steps / steps:.0f} "
            f"| {100 * arm.completions(loaded) / faithful:.0f} % "
            f"| {correlation(within(arm.rewards_T_G), within(truth)):.2f} | {means:.2f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
