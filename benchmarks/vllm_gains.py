"""What students gain when vLLM samples, against the decoder: same model, questions, budget and seeds.

Five students (seeds) in one fleet practise 32 questions for 16 steps of 8 x 16 and are measured on 40 others, before
and after, with 8 attempts each. Beside the gains it shows the canary: the mean gap of log-probs per token between
sampler and trainer, and what it would have been with an adapter that is one update old.

    make .venv-vllm/installed
    .venv-vllm/bin/python benchmarks/vllm_gains.py [--students 5] [--json]
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
from soarctl.api import Domain, Optimizer, Problem, Prompt, Sampling, Stream, Trainer
from soarctl.events import silent
from soarctl.inner_loop import PracticeLog, batches, rloo_step, solve_rates
from soarctl.spec import Inner, ModelSection

INNER = Inner(steps=16, batch_size=8, group_size=16, lr=2e-3, kl=0.0, max_new_tokens=24)
OPTIMIZER = Optimizer(lr=INNER.lr)


def questions(count: int, seed: int) -> list[Problem]:
    """One or two operations on three letters, with right answers."""
    rng = random.Random(seed)
    found: list[Problem] = []
    for _ in range(count):
        word = "".join(rng.choices("ABCDEFGHIJKLMNOPQRSTUVWXYZ", k=3))
        operations = rng.choices(KNOWN + HALF_KNOWN, k=rng.choice((1, 2)))
        found.append(Problem(f"{word} | {' '.join(operations)}", apply(word, operations)[-1]))
    return found


def arm(sampler: str, model: str, students: int) -> dict[str, Any]:
    """Gains by student, seconds, and the gaps of log-probs."""
    domain = plugins.load(Domain, "letters", {})
    options = {"rank": 16, "width": students, "device": "cpu", "sampler": sampler}
    engine = plugins.load(Trainer, "accelerate", options).load(ModelSection(base=model), 0)
    fleet = engine.fleet([engine.start()] * students, OPTIMIZER)
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
        stale += fleet.logprob_gaps(old, 1.0).values()  # type: ignore[attr-defined]  # of adapters
    seconds = time.perf_counter() - began
    gains = [after - start for start, after in zip(before, rates("after"), strict=True)]
    good = max(log.logprob_gap for log in logs)
    return {"before": before, "gains": gains, "seconds": seconds, "gap": good, "one_update_old": stale}


def spread(values: Sequence[float]) -> str:
    return f"{statistics.fmean(values):+.3f} (sd {statistics.stdev(values):.3f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--students", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as directory:
        save_widened("package:soarctl_letters/model", Path(directory), 32)
        arms = {name: arm(name, directory, options.students) for name in ("decoder", "vllm")}
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
