"""One run of the letters model by 1, 2 and 3 processes of one core each: the same ledger and weights, in what time.

    python benchmarks/processes.py [--processes 1 2 3] [--steps 6]

Loading is not counted: times are those that the ledgers give to the filter, the outer steps and the measurement.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from soarctl.ledger import Ledger

SPEC = Path(__file__).parents[1] / "specs" / "quickstart.yaml"
SETTINGS = [
    "domain.candidates=512",  # four blocks for the filter
    "teacher.dataset_size=16",
    "reward.questions=20",
    "trainer.width=2",  # four fleets in an outer step
    "trainer.max_sequences=1024",
    "trainer.micro_batch_tokens=512",  # several parts of the teacher's gradient
]


def run(directory: Path, processes: int, steps: int) -> None:
    changes = [part for change in [*SETTINGS, f"outer.steps={steps}"] for part in ("--set", change)]
    command = [sys.executable, "-m", "soarctl", "run", str(SPEC), *changes, "--out", str(directory)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    subprocess.run([*command, "--processes", str(processes)], env=environment, stdout=subprocess.DEVNULL, check=True)


def outcome(directory: Path) -> tuple[str, dict[str, bytes], dict[str, float]]:
    """The ledger's content, the weights, and seconds by phase."""
    with Ledger.open(directory, read_only=True) as ledger:
        content = ledger.content()
        seconds = dict(ledger.rows("SELECT phase, SUM(seconds) FROM timings GROUP BY phase"))
    weights = {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*.safetensors")}
    return content, weights, seconds


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--steps", type=int, default=6)
    asked = parser.parse_args()
    print(f"{os.cpu_count()} cores; seconds by phase, and times as fast as {asked.processes[0]} process(es)")
    first: tuple[str, dict[str, bytes], dict[str, float]] | None = None
    with tempfile.TemporaryDirectory() as root:
        for processes in asked.processes:
            directory = Path(root) / str(processes)
            run(directory, processes, asked.steps)
            found = outcome(directory)
            first = first or found
            same = found[:2] == first[:2]
            phases = {phase: (seconds, first[2][phase]) for phase, seconds in found[2].items() if phase != "loading"}
            total, before = (sum(each) for each in zip(*phases.values(), strict=True))
            parts = ", ".join(
                f"{phase} {seconds:.1f} s ({old / seconds:.2f} x)" for phase, (seconds, old) in phases.items()
            )
            print(f"{processes} processes: {total:.1f} s ({before / total:.2f} x): {parts}; ", end="")
            print("the same ledger and weights" if same else "ANOTHER RESULT", flush=True)
            if not same:
                sys.exit(1)


if __name__ == "__main__":
    main()
