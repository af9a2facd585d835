"""Reading a large run: report, show, watch and promote --inspect on a synthetic ledger of 200 steps of 16 students.

    python benchmarks/report.py [--keep DIR]

Prints the best of five, in wall-clock and in CPU seconds; on a busy machine only the second means something.
"""

import argparse
import math
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from statistics import fmean

from soarctl import plugins
from soarctl.alarms import judge
from soarctl.api import Completion, Domain, Outcome, Problem, StepStats, Student, Verdict
from soarctl.inner_loop import Attempt, PracticeLog
from soarctl.ledger import Filtered, Ledger
from soarctl.practice import Practised
from soarctl.rloo import leave_one_out
from soarctl.soar import StepRecord, Writing
from soarctl.spec import Spec

STEPS, DATASETS, REPEATS, QUESTIONS = 200, 4, 4, 64
ROUNDS = 5
OPERATIONS = ("reverse", "left", "right", "swap", "up", "down", "flip", "bump")


def write_run(directory: Path) -> None:
    """A finished run with promotions, its numbers drawn at random and its shape that of the paper's runs."""
    spec = Spec.model_validate(
        {
            "name": "synthetic",
            "model": {"base": "package:soarctl_letters/model"},
            "domain": {"plugin": "letters", "candidates": 400},
            "reward": {"plugin": "grounded", "repeats": REPEATS},
            "outer": {"steps": STEPS},
        }
    )
    domain = plugins.load(Domain, "letters", spec.domain.options)
    rng, problems = random.Random(0), list(domain.load())
    train, test = problems[::4], problems[1::4]
    half = {p.id: "train" for p in train} | {p.id: "test" for p in test}
    with Ledger.create(directory, {"spec": spec.model_dump(mode="json"), "overrides": []}) as ledger:
        ledger.put_problems(Filtered(p, 128, 0, {"wrong": 128}, half.get(p.id)) for p in problems)
        ledger.put_baseline(0, None, None, None)
        stage, window = 0, list[float]()
        for step in range(1, STEPS + 1):
            stage = _write_step(ledger, spec, domain, train, step, stage, window, rng)
        ledger.put_evaluation("base", 32, {p.id: int(rng.random() < 0.05) for p in test})
        ledger.put_evaluation("promoted", 32, {p.id: int(32 * rng.random() ** 3) for p in test})


def _write_step(
    ledger: Ledger,
    spec: Spec,
    domain: Domain,
    train: list[Problem],
    step: int,
    stage: int,
    window: list[float],
    rng: random.Random,
) -> int:
    questions = [_question(rng) for _ in range(DATASETS * QUESTIONS)]
    completions = [Completion(f"{p.question} = {p.answer}", (0,), (1, 2), (-1.0, -1.0), "eos") for p in questions]
    gains_G_R = [
        [round(64 * rng.gauss(0.004 + 0.02 * math.sin(step / 15) ** 2, 0.02)) / 64 for _ in range(REPEATS)]
        for _ in range(DATASETS)
    ]
    rewards_G = [fmean(gains) for gains in gains_G_R]
    window[:] = [*window, fmean(rewards_G)][-3:]
    entered, best, promoted = tuple(window), rewards_G.index(max(rewards_G)), None
    if len(window) == 3 and fmean(window) > 0.02:
        promoted = (best, gains_G_R[best].index(sorted(gains_G_R[best])[1]))
        window.clear()
    rejected = rng.randrange(20, 80)
    record = StepRecord(
        step=step,
        stage=stage,
        writing=Writing(questions, completions, Counter({"no equals sign": rejected}), len(questions) + rejected),
        datasets_G=[questions[i : i + QUESTIONS] for i in range(0, len(questions), QUESTIONS)],
        asked=train[:64],
        rewards_G=rewards_G,
        advantages_G=leave_one_out(rewards_G),
        reward=entered[-1],
        window=entered,
        promoted=promoted,
        teacher=StepStats(stepped=True, grad_norm=0.3, kl=0.001),
    )
    with ledger.transaction():
        for k, gains_R in enumerate(gains_G_R):
            for j, gain in enumerate(gains_R):
                log = PracticeLog(
                    [0.3 + 0.03 * i for i in range(10)], 10, 30_000, Counter({"correct": 900, "wrong": 1660})
                )
                log.grad_norms = [1.0] * 10
                log.attempts = [Attempt(i, "CAT | up", "DBU", Verdict(Outcome.CORRECT, 1.0)) for i in range(10)]
                ledger.put_students(
                    step, [Practised(k, j, Student(None, 0.1 + gain, gain, j), log)], [None], "fingerprint"
                )
        if step == 1 or promoted:
            ledger.put_baseline_rates(stage, 0, {p.id: float(rng.random() < 0.01 + 0.04 * stage) for p in train})
        if promoted:
            ledger.put_baseline(stage + 1, step, promoted, "hash")
        ledger.put_step(record, window, [domain.measure(p) for p in questions])
        ledger.put_alarms(step, judge(ledger))
        ledger.put_timing(step, "outer_step", 900.0, 16_000_000)
    return stage + (promoted is not None)


def _question(rng: random.Random) -> Problem:
    word = "".join(rng.choices("ABCDEFGHIJKLMNOPQRSTUVWXYZ", k=3))
    return Problem(f"{word} | {' '.join(rng.choices(OPERATIONS, k=rng.choice([1, 2, 3])))}", word[::-1])


def best_of(arguments: list[str]) -> tuple[float, float]:
    """Least wall-clock and CPU seconds of a command."""
    rounds: list[tuple[float, float]] = []
    for _ in range(ROUNDS):
        before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
        subprocess.run([sys.executable, "-m", "soarctl", *arguments], check=True, stdout=subprocess.DEVNULL)
        after, wall = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic() - began
        rounds.append((wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime))
    return min(wall for wall, _ in rounds), min(cpu for _, cpu in rounds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keep", type=Path, help="leave the run here")
    keep = parser.parse_args().keep
    with tempfile.TemporaryDirectory() as scratch:
        run = keep or Path(scratch) / "run"
        run.mkdir(parents=True)
        write_run(run)
        print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores; seconds: wall, CPU")
        for command in (["report"], ["show"], ["watch", "--once"], ["promote", "--inspect"], ["analyze"]):
            wall, cpu = best_of([*command, str(run)])
            print(f"{' '.join(command):18} {wall:6.2f} {cpu:6.2f}")
        print(f"report.html is {(run / 'report.html').stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
