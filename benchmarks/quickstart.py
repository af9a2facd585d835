"""The quickstart on several seeds: time, memory, promotions, and pass@k of base model and promoted student.

    python benchmarks/quickstart.py [--seeds 0 1 2 3 4] [--spec specs/quickstart_full.yaml]

One seed after the other, each a process of its own, on an otherwise quiet machine.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

SPEC = Path(__file__).parents[1] / "specs" / "quickstart.yaml"


def soarctl(*arguments: str) -> str:
    return subprocess.run(
        [sys.executable, "-m", "soarctl", *arguments], check=True, stdout=subprocess.PIPE, text=True
    ).stdout


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--spec", type=Path, default=SPEC)
    options = parser.parse_args()
    print(f"{'seed':>4} {'seconds':>8} {'promotions':>10} {'base @1':>8} {'@1':>7} {'@4':>7} {'@8':>7} {'times':>6}")
    for seed in options.seeds:
        with tempfile.TemporaryDirectory() as place:
            out, began = str(Path(place, "run")), time.monotonic()
            soarctl("run", str(options.spec), "--set", f"seed={seed}", "--out", out)
            seconds = time.monotonic() - began
            shown: dict[str, Any] = json.loads(soarctl("show", out, "--json"))
        arms = {arm["name"]: {k: e["value"] for k, e in arm["pass_at"].items()} for arm in shown["held_out"]}
        base, student = arms["base"], arms.get("promoted", arms["base"])
        print(
            f"{seed:4} {seconds:8.0f} {shown['promotions']:10} {base['1']:8.4f} {student['1']:7.3f} "
            f"{student['4']:7.3f} {student['8']:7.3f} {student['1'] / max(base['1'], 1e-9):6.0f}",
            flush=True,
        )
    print(f"peak memory {resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20:.2f} GiB")


if __name__ == "__main__":
    main()
