"""Forty outer steps of the quickstart without promotions: does the teacher learn what helps?

    python benchmarks/teacher_learns.py [--steps 40] [--seeds 0 1 2] [--lr 0.0015]

Without promotions every reward is measured against the same baseline, so rewards of different steps can be compared.
The teacher's rate is half of the quickstart's, since a run of three times the steps at the full rate goes too far: see
with `--lr 0.003`. Shown are, for every seed, means over quarters of the run and Spearman's rank correlation with the
step.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

import numpy as np

from soarctl.ledger import Ledger

SPEC = Path(__file__).parents[1] / "specs" / "quickstart.yaml"


def rank_correlation(values: Sequence[float]) -> float:
    """Spearman's correlation of values with their order."""
    ranks = np.argsort(np.argsort(values))
    return float(np.corrcoef(ranks, np.arange(len(values)))[0, 1])


def steps_of_a_run(changes: list[str]) -> list[dict[str, float]]:
    """What the ledger says of each step: the mean reward, and the domain's measures of the questions."""
    with tempfile.TemporaryDirectory() as place:
        out = Path(place, "run")
        changes = [*changes, "promotion.tau=9", "evaluation=null"]
        arguments = [argument for change in changes for argument in ("--set", change)]
        command = [sys.executable, "-m", "soarctl", "run", str(SPEC), *arguments, "--out", str(out)]
        subprocess.run(command, check=True, stdout=sys.stderr)
        with Ledger.open(out, read_only=True) as ledger:
            return [
                {"reward": reward, **json.loads(measures)}
                for reward, measures in ledger.rows("SELECT reward, measures FROM steps ORDER BY step")
            ]


def show(steps: list[dict[str, float]]) -> None:
    quarter = len(steps) // 4
    print(f"{'':12}{'1st quarter':>12}{'2nd':>8}{'3rd':>8}{'4th':>8}{'rank correlation':>18}")
    for name in steps[0]:
        values = [step[name] for step in steps]
        means = [fmean(values[i * quarter : (i + 1) * quarter]) for i in range(4)]
        print(
            f"{name:12}{means[0]:12.3f}" + "".join(f"{m:8.3f}" for m in means[1:]) + f"{rank_correlation(values):18.2f}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--lr", type=float, default=0.0015)
    options = parser.parse_args()
    for seed in options.seeds:
        print(f"seed {seed}", flush=True)
        show(steps_of_a_run([f"outer.steps={options.steps}", f"seed={seed}", f"teacher.lr={options.lr}"]))


if __name__ == "__main__":
    main()
