"""A long run of small outer steps: does memory grow, do steps or the ledger's answers get slower?

    OMP_NUM_THREADS=1 python benchmarks/soak.py [--steps 200] [--out DIR]

The letters model with two students per step, no promotions and a teacher that hardly learns, so that all steps are
alike. Compared are the means of a tenth of the steps after a warm-up of a tenth, and of the last tenth: resident
memory, CPU seconds per step (which other programs disturb less than wall seconds), and how long a reader takes to open
the ledger and read the newest step. Exit code 1: memory grew by more than 5 %, or a time by more than a quarter.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean, median
from typing import Any

import psutil

from soarctl.ledger import Ledger
from soarctl.run import run
from soarctl.spec_reader import load_spec

SPEC = """\
name: soak
model: {base: "package:soarctl_letters/model"}
domain: {plugin: letters, candidates: 60}
filter: {samples: 16, max_new_tokens: 24}
teacher: {group_size: 2, dataset_size: 4, max_new_tokens: 24, lr: 1.0e-6, warmup_steps: 0}
reward: {questions: 8, repeats: 1, samples: 2}
inner: {steps: 2, batch_size: 2, group_size: 8, max_new_tokens: 24, lr: 2.0e-3}
promotion: {tau: 9}
trainer: {rank: 4, width: 2}
evaluation: null
"""
MEMORY, TIME = 0.05, 0.25
"""Growth that is allowed."""


class Soak:
    """Listens to a run, and measures after every outer step."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.memory: list[float] = []
        self.cpu: list[float] = []
        self.reading: list[float] = []
        self._process, self._since = psutil.Process(), time.process_time()

    def tell(self, event: str, /, **facts: Any) -> None:
        if event != "step":
            if event == "step_started":
                self._since = time.process_time()
            return
        self.cpu.append(time.process_time() - self._since)
        self.memory.append(self._process.memory_info().rss / 1e6)
        self.reading.append(median(1000 * self._read(facts["step"]) for _ in range(5)))

    def _read(self, step: int) -> float:
        """Seconds to open the ledger and read one step."""
        began = time.perf_counter()
        with Ledger.open(self.directory, read_only=True) as ledger:
            assert ledger.steps_done == step
            assert ledger.window
            for table in ("steps", "datasets", "questions", "students", "attempts"):
                assert ledger.rows(f"SELECT * FROM {table} WHERE step = ?", step)
        return time.perf_counter() - began


def soak(steps: int, directory: Path) -> dict[str, tuple[float, float]]:
    """Runs, and returns the early and the late mean of each measure."""
    (directory / "soak.yaml").write_text(SPEC)
    loaded = load_spec(directory / "soak.yaml", [f"outer.steps={steps}"])
    listening = Soak(directory / "run")
    run(loaded, directory / "run", listening.tell)
    return {
        "resident memory, MB": ends(listening.memory),
        "CPU seconds per step": ends(listening.cpu),
        "ledger reading, ms": ends(listening.reading),
    }


def ends(values: Sequence[float]) -> tuple[float, float]:
    """Means of the second and of the last tenth."""
    tenth = max(1, len(values) // 10)
    return fmean(values[tenth : 2 * tenth]), fmean(values[-tenth:])


def too_much(measured: Mapping[str, tuple[float, float]]) -> list[str]:
    """What grew by more than is allowed."""
    return [
        name
        for name, (early, late) in measured.items()
        if late > early * (1 + (MEMORY if name.startswith("resident") else TIME))
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--out", type=Path, help="keep the run here")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        directory = options.out or Path(place)
        directory.mkdir(parents=True, exist_ok=True)
        measured = soak(options.steps, directory)
    tenth = max(1, options.steps // 10)
    print(f"| {options.steps} outer steps | steps {tenth + 1} to {2 * tenth} | the last {tenth} | change |")
    print("|---|---|---|---|")
    for name, (early, late) in measured.items():
        print(f"| {name} | {early:.4g} | {late:.4g} | {100 * (late / early - 1):+.1f} % |")
    grown = too_much(measured)
    if grown:
        print(f"grew too much: {', '.join(grown)}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
