"""What students gain when vLLM samples, against the decoder: same model, questions, budget and seeds.

Five students (seeds) in one fleet practise 32 questions for 16 steps of 8 x 16 and are measured on 40 others, before
and after, with 8 attempts each. Beside the gains it shows the canary: the mean gap of log-probs per token between
sampler and trainer, and what it would have been with weights that are one update old.

    make .venv-vllm/installed
    .venv-vllm/bin/python benchmarks/vllm_gains.py [--trainer accelerate | full] [--students 5] [--json]
"""

import argparse
import json
import random
import statistics
import tempfile
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from soarctl_letters.operations import HALF_KNOWN, KNOWN, apply
from wide_heads import save_widened

from soarctl import plugins
from soarctl.api import Completion, Domain, Optimizer, Problem, Prompt, Sampling, Stream, Trainer
from soarctl.events import silent
from soarctl.inner_loop import PracticeLog, batches, rloo_step, solve_rates
from soarctl.spec import Inner, ModelSection
from soarctl.trainers.turns import TurnsFleet

INNER = Inner(steps=16, batch_size=8, group_size=16, kl=0.0, max_new_tokens=24)
TRAINERS: dict[str, tuple[float, dict[str, Any]]] = {"accelerate": (2e-3, {"rank": 16}), "full": (8e-4, {})}
"""Learning rate and options: two thirds of the rates at which both gain the same (docs/benchmarks.md)."""


def questions(count: int, seed: int) -> list[Problem]:
    """One or two operations on three letters, with right answers."""
    rng = random.Random(seed)
    found: list[Problem] = []
    for _ in range(count):
        word = "".join(rng.choices("ABCDEFGHIJKLMNOPQRSTUVWXYZ", k=3))
        operations = rng.choices(KNOWN + HALF_KNOWN, k=rng.choice((1, 2)))
        found.append(Problem(f"{word} | {' '.join(operations)}", apply(word, operations)[-1]))
    return found


def arm(trainer: str, sampler: str, model: str, students: int) -> dict[str, Any]:
    """Gains by student, seconds, and the gaps of log-probs."""
    domain = plugins.load(Domain, "letters", {})
    lr, more = TRAINERS[trainer]
    options = {"width": students, "device": "cpu", "sampler": sampler, **more}
    engine = plugins.load(Trainer, trainer, options).load(ModelSection(base=model), 0)
    fleet = engine.fleet([engine.start()] * students, Optimizer(lr=lr))
    practised, held = questions(32, 0), questions(40, 1)

    def rates(when: str) -> list[float]:
        asked = [(s, p, Stream((when, s, i))) for s in range(students) for i, p in enumerate(held)]
        found = solve_rates(fleet, domain, asked, 8, INNER, silent)
        return [statistics.fmean(found[at : at + len(held)]) for at in range(0, len(found), len(held))]

    before = rates("before")
    logs = [PracticeLog() for _ in range(students)]
    plans = [batches(len(practised), INNER.batch_size, INNER.steps, Stream(("plan", s))) for s in range(students)]
    stale: list[float] = []
    began = time.perf_counter()
    for step in range(INNER.steps):
        probe = [
            Prompt(s, domain.student_prompt(practised[s].question), 4, Stream(("probe", s))) for s in range(students)
        ]
        old = dict(enumerate(fleet.sample(probe, Sampling(INNER.max_new_tokens))))
        batch = [[practised[i] for i in plan[step]] for plan in plans]
        rloo_step(fleet, domain, INNER, batch, [Stream((s,)) for s in range(students)], step, logs, silent)
        stale += gaps(fleet, old)
    seconds = time.perf_counter() - began
    gains = [after - start for start, after in zip(before, rates("after"), strict=True)]
    good = max(log.logprob_gap for log in logs)
    return {"before": before, "gains": gains, "seconds": seconds, "gap": good, "one_update_old": stale}


def gaps(fleet: Any, completions_S: dict[int, list[Completion]]) -> list[float]:
    """Between the log-probs that were sampled and those of the trainer now, by policy."""
    if isinstance(fleet, TurnsFleet):
        return [gap for s, policy in enumerate(fleet._policies_S) for gap in gaps(policy, {0: completions_S[s]})]
    return list(fleet.logprob_gaps(completions_S, 1.0).values())


def spread(values: Sequence[float]) -> str:
    return f"{statistics.fmean(values):+.3f} (sd {statistics.stdev(values):.3f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trainer", choices=TRAINERS, default="accelerate")
    parser.add_argument("--students", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as directory:
        save_widened("package:soarctl_letters/model", Path(directory), 32)
        arms = {name: arm(options.trainer, name, directory, options.students) for name in ("decoder", "vllm")}
    if options.json:
        print(json.dumps(arms | {"threads": torch.get_num_threads()}))
        return
    ours, theirs = arms["decoder"]["gains"], arms["vllm"]["gains"]
    print(f"{'':10}{'solved before':>16}{'gain':>24}{'largest gap':>14}{'an update old':>16}{'s':>8}")
    for name, found in arms.items():
        before = statistics.fmean(found["before"])
        old = f"{min(found['one_update_old']):.3f}-{max(found['one_update_old']):.3f}"
        print(
            f"{name:10}{before:16.3f}{spread(found['gains']):>24}{found['gap']:14.1e}{old:>16}{found['seconds']:8.1f}"
        )
    error = ((statistics.variance(ours) + statistics.variance(theirs)) / len(ours)) ** 0.5
    print(
        f"difference of the gains: {statistics.fmean(theirs) - statistics.fmean(ours):+.3f}, standard error {error:.3f}"
    )


if __name__ == "__main__":
    main()
