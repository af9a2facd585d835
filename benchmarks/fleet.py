"""Time of students in one fleet against the same students one after another: sample, then reinforce.

    python benchmarks/fleet.py [--json]

The model and prompts are those of benchmarks/decode.py; each student has 8 prompts with 32 samples each, and random
advantages.
"""

import argparse
import json
import time

import numpy as np
import torch
from decode import NEW_TOKENS, SAMPLES, texts

from soarctl import plugins
from soarctl.api import Engine, Fleet, GradedSample, Optimizer, Prompt, Sampling, Stream, Trainer
from soarctl.spec import ModelSection

PROMPTS = 8


def inner_step(fleet: Fleet, students: range) -> tuple[float, float]:
    """Seconds for sampling and for reinforcing one step of these students."""
    start = time.perf_counter()
    prompts = [Prompt(i, text, SAMPLES, Stream((s, text))) for i, s in enumerate(students) for text in texts(PROMPTS)]
    groups = fleet.sample(prompts, Sampling(NEW_TOKENS))
    sampled = time.perf_counter()
    rng = np.random.default_rng(0)
    completions = [[c for group in groups[i : i + PROMPTS] for c in group] for i in range(0, len(groups), PROMPTS)]
    fleet.reinforce([[GradedSample(c, float(rng.standard_normal())) for c in own] for own in completions])
    return sampled - start, time.perf_counter() - sampled


def compare(engine: Engine, size: int, rounds: int) -> dict[str, float]:
    """Best seconds per student, side by side and one after another, rounds alternating."""
    optimizer = Optimizer(lr=1e-5)
    together, alone = [(9e9, 9e9)], [(9e9, 9e9)]
    for _ in range(rounds):
        seconds = inner_step(engine.fleet([engine.start()] * size, optimizer), range(size))
        together.append((seconds[0] / size, seconds[1] / size))
        each = [inner_step(engine.fleet([engine.start()], optimizer), range(s, s + 1)) for s in range(size)]
        alone.append((sum(e[0] for e in each) / size, sum(e[1] for e in each) / size))
    return {
        "students": size,
        "fleet_sample": min(t[0] for t in together),
        "fleet_reinforce": min(t[1] for t in together),
        "alone_sample": min(t[0] for t in alone),
        "alone_reinforce": min(t[1] for t in alone),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--students", type=int, nargs="+", default=[1, 4, 16])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    model = ModelSection(base="package:soarctl_letters/model")
    engine = plugins.load(Trainer, "accelerate", {"device": "cpu"}).load(model, 0)
    rows = [compare(engine, size, options.rounds) for size in options.students]
    if options.json:
        print(json.dumps({"threads": options.threads, "rows": rows}))
        return
    print(f"seconds per student, {options.threads} threads")
    print("students  in a fleet: sample  reinforce    one by one: sample  reinforce    ratio")
    for row in rows:
        fleet, alone = row["fleet_sample"] + row["fleet_reinforce"], row["alone_sample"] + row["alone_reinforce"]
        print(
            f"{row['students']:8.0f}  {row['fleet_sample']:18.3f}  {row['fleet_reinforce']:9.3f}"
            f"  {row['alone_sample']:20.3f}  {row['alone_reinforce']:9.3f}  {alone / fleet:7.2f}"
        )


if __name__ == "__main__":
    main()
