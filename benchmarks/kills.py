"""Kills a small letters run with SIGKILL at random moments, resumes it each time, and compares it with one left alone.

    python benchmarks/kills.py [--kills 30] [--seed 0]

Compared are the ledger's content (everything but the timings) and every weight file, byte by byte. A resumed run must
get further than it was, so moments are drawn up to 10 seconds after the start: some fall into start-up, most into work.
"""

import argparse
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from soarctl.ledger import Ledger

SPEC = Path(__file__).parents[1] / "specs" / "quickstart.yaml"
SMALL = [
    "outer.steps=10",
    "domain.candidates=60",
    "filter.samples=32",
    "reward.questions=12",
    "teacher.dataset_size=4",
    "inner.group_size=8",
    "inner.batch_size=4",
    "promotion.tau=-0.05",  # so that promotions happen and are interrupted, too
]


def start(directory: Path) -> subprocess.Popen[bytes]:
    changes = [argument for value in SMALL for argument in ("--set", value)]
    command = [sys.executable, "-m", "soarctl", "run", str(SPEC), *changes, "--out", str(directory), "--resume"]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL)


def weights(directory: Path) -> dict[str, bytes]:
    return {str(path.relative_to(directory)): path.read_bytes() for path in sorted(directory.rglob("*.safetensors"))}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    moments = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as place:
        whole, killed = Path(place, "whole"), Path(place, "killed")
        assert start(whole).wait() == 0
        kills = 0
        while kills < options.kills:
            process = start(killed)
            began, wait = time.monotonic(), moments.uniform(0.5, 10)
            try:
                process.wait(timeout=wait)
                assert process.returncode == 0, process.returncode
                print("the run ended before all kills were spent: it is resumed and killed in its closing measurement")
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                kills += 1
                print(f"kill {kills} after {time.monotonic() - began:.1f} s", flush=True)
        assert start(killed).wait() == 0
        with Ledger.open(whole, read_only=True) as one, Ledger.open(killed, read_only=True) as other:
            assert one.content() == other.content(), "the ledgers differ"
            rows = one.content().count("\n") + 1
        assert weights(whole) == weights(killed), "the weights differ"
        print(f"{kills} kills: {rows} ledger rows and {len(weights(whole))} weight files are identical")


if __name__ == "__main__":
    main()
