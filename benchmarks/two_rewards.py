"""Would the intrinsic reward pay a teacher for the same datasets as the grounded one?

    python benchmarks/two_rewards.py RUN [RUN...]

RUN is a run with grounded rewards, such as those of a study. For each of its datasets that students practised from the
base model, the gain that the teacher was paid is set beside the dataset's learnability, measured now with 32 attempts
of the base model at each question, and beside the numbers that the domain gives questions (letters: the share of
half-known operations, for one). Shown is Pearson's correlation over the datasets of all runs, and within outer steps,
which is what advantages see.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

import numpy as np
from soarctl_rewards.learnability import learnability

from soarctl import plugins
from soarctl.api import Domain, Problem, Sampling, Stream, Trainer
from soarctl.events import silent
from soarctl.ledger import Ledger, mean_measures
from soarctl.runs import spec_of
from soarctl.solving import count_solved
from soarctl.stages import questions_of

SAMPLES = 32


def datasets_of(ledger: Ledger) -> list[tuple[int, float, list[Problem]]]:
    """Outer step, reward and questions of every dataset that was practised from the base model."""
    rows = ledger.rows(
        "SELECT step, dataset, datasets.reward FROM datasets JOIN steps USING (step) WHERE stage = 0 ORDER BY 1, 2"
    )
    return [(step, reward, [p for _, p, _ in questions_of(ledger, step, k)]) for step, k, reward in rows]


def correlation(some: Sequence[float], others: Sequence[float]) -> float:
    return float(np.corrcoef(some, others)[0, 1])


def within(groups: Sequence[tuple[Path, int]], values: Sequence[float]) -> list[float]:
    """Each value less the mean of its group."""
    return [
        value - fmean(v for g, v in zip(groups, values, strict=True) if g == group)
        for group, value in zip(groups, values, strict=True)
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN")
    steps: list[tuple[Path, int]] = []
    values: dict[str, list[float]] = {"gain": []}
    for run in parser.parse_args().runs:
        with Ledger.open(run, read_only=True) as ledger:
            spec, datasets = spec_of(ledger), datasets_of(ledger)
        domain = plugins.load(Domain, spec.domain.plugin, spec.domain.options)
        engine = plugins.load(Trainer, spec.trainer.plugin, spec.trainer.options).load(spec.model, spec.seed)
        base = engine.fleet([engine.start()], spec.student_optimizer)
        draw = Sampling(spec.inner.max_new_tokens, stop=tuple(domain.student_stops()))
        for number, (step, reward, asked) in enumerate(datasets):
            questions = [(0, p, Stream(("two rewards", run.name, number, i))) for i, p in enumerate(asked)]
            solved = count_solved(base, domain, questions, SAMPLES, draw, silent)
            steps.append((run, step))
            values["gain"].append(reward)
            measured = {"learnability": fmean(learnability(count / SAMPLES) for count in solved)}
            measured |= mean_measures([domain.measure(problem) for problem in asked])
            for name, value in measured.items():
                values.setdefault(name, []).append(value)
    print(f"{len(steps)} datasets of {len(set(steps))} outer steps; correlation with the gain: all, within steps")
    for name in values.keys() - {"gain"}:
        found = correlation(values[name], values["gain"])
        inner = correlation(within(steps, values[name]), within(steps, values["gain"]))
        print(f"{name:20} {found:6.2f} {inner:6.2f}")


if __name__ == "__main__":
    main()
