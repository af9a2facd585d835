"""Runs a file of attack programs in one tier of the jail and prints, as JSON, which rows were not met.

    python attack_corpus.py FILE [--tier landlock] [--python PATH] [--container] [--batch 1] [--rounds 1]

With --container the whole run happens under a filter like that of a default container. With --batch 1 every row is
run and checked by itself; larger batches are faster, and their memory and disk checks hold for the batch as a whole.
"""

import argparse
import contextlib
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve()
sys.path[:0] = [str(HERE.parents[3]), str(HERE.parents[1])]

from soarctl_code.jail import confine, syscalls  # noqa: E402
from soarctl_code.jail.jobs import Limits  # noqa: E402
from soarctl_code.jail.supervisor import Pool  # noqa: E402
from soarctl_code.verdicts import Finding, judge  # noqa: E402

LIMITS = Limits()
# Some rows call the kernel by the numbers of x86-64. The same calls on aarch64:
ON_AARCH64 = {
    "'unshare_user', (272": "'unshare_user', (97", "'bpf', (321": "'bpf', (280", "'keyctl', (250": "'keyctl', (219",
    "'ptrace', (101": "'ptrace', (117", "'userfaultfd', (323": "'userfaultfd', (282",
    "'perf_event_open', (298": "'perf_event_open', (241",
}  # fmt: skip
CONTROL = """
import math, os, re, sys, json, heapq, collections, itertools, functools, decimal
def listing():
    try:
        return os.listdir('.')
    except OSError:
        return []
def solve(x):
    ok = [len([1, 2]) == 2, math.sqrt(4) == 2, 'SOARCTL_LEAK' not in os.environ,
          os.environ.get('PATH') != '/nowhere', '/tmp' not in sys.path, json.loads('1') == 1,
          sys.getrecursionlimit() >= 500, collections.Counter('aa')['a'] == 2,
          len(list(itertools.permutations('ab'))) == 2, bool(re.match('a', 'a')),
          functools.lru_cache is not None, decimal.getcontext().prec == 28,
          'left_behind.txt' not in listing()]
    return x * x if all(ok) else repr(ok)
"""
BYSTANDER = """
import sys
keep = bytearray(b'BYSTANDER-CANARY' * 64)
print('up', flush=True)
for line in sys.stdin:
    print(bytes(keep[:16]).decode(), bytes(keep) == b'BYSTANDER-CANARY' * 64, flush=True)
"""


class World:
    """What attacks aim at: listeners, a bystander, secrets."""

    def __init__(self) -> None:
        self.root = Path(tempfile.mkdtemp(prefix="jail-world-"))
        self.secret = f"soarctl-file-{secrets.token_hex(8)}"
        self.environment_secret = f"soarctl-env-{secrets.token_hex(8)}"
        os.environ["SOARCTL_ATTACK_SECRET"] = self.environment_secret
        self.seen: dict[str, int] = dict.fromkeys(("tcp", "tcp6", "udp", "unix", "abstract"), 0)
        self.unix = str(self.root / "listener.sock")
        self.abstract = f"soarctl-{secrets.token_hex(6)}"
        self.ports = {name: self.listen(name) for name in self.seen}
        self.bystander = subprocess.Popen(
            [sys.executable, "-c", BYSTANDER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self.bystander.stdout is not None
        self.bystander.stdout.readline()
        self.bystander_limits = self.read_limits()

    def listen(self, name: str) -> int:
        family = {"tcp6": socket.AF_INET6, "unix": socket.AF_UNIX, "abstract": socket.AF_UNIX}.get(name, socket.AF_INET)
        kind = socket.SOCK_DGRAM if name == "udp" else socket.SOCK_STREAM
        try:
            listener = socket.socket(family, kind)
            address: Any = {"tcp6": ("::1", 0), "unix": self.unix, "abstract": "\0" + self.abstract}.get(
                name, ("127.0.0.1", 0)
            )
            listener.bind(address)
        except OSError:
            return 1
        if name != "udp":
            listener.listen(16)
        threading.Thread(target=self.serve, args=(name, listener), daemon=True).start()
        return listener.getsockname()[1] if family in (socket.AF_INET, socket.AF_INET6) else 0

    def serve(self, name: str, listener: socket.socket) -> None:
        while True:
            with contextlib.suppress(OSError):
                if name == "udp":
                    listener.recvfrom(100)
                else:
                    listener.accept()[0].close()
                self.seen[name] += 1

    def read_limits(self) -> str:
        return Path(f"/proc/{self.bystander.pid}/limits").read_text()

    def bystander_untouched(self) -> bool:
        status = Path(f"/proc/{self.bystander.pid}/status").read_text()
        if "\nTracerPid:\t0\n" not in status or "State:\tT" in status or "State:\tt" in status:
            return False
        assert self.bystander.stdin is not None
        assert self.bystander.stdout is not None
        self.bystander.stdin.write("?\n")
        self.bystander.stdin.flush()
        return (
            self.bystander.stdout.readline() == "BYSTANDER-CANARY True\n"
            and self.read_limits() == self.bystander_limits
        )

    def close(self) -> None:
        self.bystander.kill()
        self.bystander.wait()
        shutil.rmtree(self.root, ignore_errors=True)


class Row:
    """One attack with its own canaries."""

    def __init__(self, world: World, raw: dict[str, Any]) -> None:
        self.raw = raw
        self.world = world
        self.canary = Path(tempfile.mkdtemp(prefix="canary-", dir=world.root))
        self.tokens = {
            "@CANARY@": str(self.canary), "@PROJECT@": str(HERE.parents[3]), "@TOKEN@": f"tok{secrets.token_hex(6)}",
            "@FILE_SECRET@": world.secret, "@ENV_SECRET@": world.environment_secret,
            "@TCP_PORT@": str(world.ports["tcp"]), "@UDP_PORT@": str(world.ports["udp"]),
            "@TCP6_PORT@": str(world.ports["tcp6"]), "@UNIX_PATH@": world.unix, "@ABSTRACT@": world.abstract,
            "@BYSTANDER_PID@": str(world.bystander.pid), "@HARNESS_PID@": str(os.getpid()),
        }  # fmt: skip
        for name in ("victim.txt", "victim2.txt"):
            (self.canary / name).write_text(f"{name} is untouched\n")
        (self.canary / "secret.txt").write_text(world.secret)
        (self.canary / "tree").mkdir()
        (self.canary / "tree" / "leaf.txt").write_text("leaf\n")
        self.marks = {
            c["path"]: self.mark(self.fill(c["path"])) for c in raw["must_not"] if c["check"] == "path_unchanged"
        }

    def fill(self, text: str) -> str:
        for token, value in (self.tokens | (ON_AARCH64 if confine.ARCH == "aarch64" else {})).items():
            text = text.replace(token, value)
        return text

    def mark(self, path: str) -> tuple[Any, ...]:
        state = os.lstat(path)
        return state.st_mode, state.st_nlink, state.st_mtime_ns, state.st_size, Path(path).read_bytes()

    def task(self) -> Any:
        tests = json.loads(self.fill(json.dumps(self.raw["tests"])))
        return judge(self.fill(self.raw["program"]), tests, limits=LIMITS)

    def wrongs(self, found: Finding, deltas: dict[str, float], control_clean: bool) -> list[str]:
        report = json.dumps(
            {"verdict": found.word, "detail": found.detail, "passed": found.passed, "total": found.total}
        )
        wrongs = [] if found.word in self.raw["expected_verdict"] else [f"verdict {found.word}: {found.detail[-200:]}"]
        if found.word == "passed" and found.passed != found.total:
            wrongs.append("a pass without all answers")
        if not control_clean:
            wrongs.append("the control program does not pass afterwards")
        return wrongs + [
            c["check"] for c in self.raw["must_not"] if not self.holds(c, report, found, deltas, control_clean)
        ]

    def holds(self, check: dict[str, Any], report: str, found: Finding, deltas: dict[str, float], clean: bool) -> bool:
        match check["check"]:
            case "path_absent":
                return not os.path.lexists(self.fill(check["path"]))
            case "path_unchanged":
                return self.mark(self.fill(check["path"])) == self.marks[check["path"]]
            case "no_traffic":
                return self.world.seen[check["on"]] == 0
            case "report_lacks":
                return self.fill(check["text"]) not in report + found.detail
            case "report_bytes_below":
                return len(report) < check["bytes"]
            case "report_has_no_control_chars":
                return all(c.isprintable() or c in "\n\t" for c in found.detail)
            case "bystander_untouched":
                return self.world.bystander_untouched()
            case "rss_growth_below_mb":
                return deltas["rss_mb"] < check["mb"] * deltas["batch"]
            case "disk_growth_below_mb":
                return deltas["disk_mb"] < check["mb"]
            case "inode_growth_below":
                return deltas["inodes"] < next(v for k, v in check.items() if k != "check")
            case "no_new_listener":
                return deltas["listeners"] <= 0
            case "no_new_sysv_ipc":
                return deltas["ipc"] <= 0
            case "no_process_named":
                return not any(check["comm"] in text for text in processes("comm"))
            case "no_cmdline":
                return not any(self.fill(check["text"]) in text for text in processes("cmdline"))
            case "workdirs_removed":
                return True  # there are none but in private mounts
            case "next_run_clean":
                return clean
            case other:
                raise ValueError(f"unknown check {other}")


def processes(file: str) -> list[str]:
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit() and int(entry) != os.getpid():
            with contextlib.suppress(OSError):
                found.append(Path(f"/proc/{entry}/{file}").read_text(errors="replace").replace("\0", " "))
    return found


def own_children() -> set[int]:
    """All descendants of this process but the bystander and the servers."""
    parents: dict[int, int] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            with contextlib.suppress(OSError):
                parents[int(entry)] = int(Path(f"/proc/{entry}/stat").read_text().rpartition(")")[2].split()[1])
    found = {os.getpid()}
    while (more := {p for p, parent in parents.items() if parent in found} | found) != found:
        found = more
    return found - {os.getpid()}


def state() -> dict[str, float]:
    disk = [os.statvfs(path) for path in (tempfile.gettempdir(), "/dev/shm")]
    listeners = 0
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        with contextlib.suppress(OSError):
            listeners += sum(line.split()[3] == "0A" for line in Path(table).read_text().splitlines()[1:])
    ipc = sum(len(Path(f"/proc/sysvipc/{kind}").read_text().splitlines()) for kind in ("shm", "sem", "msg"))
    return {
        "disk_mb": -sum(d.f_bavail * d.f_frsize for d in disk) / 2**20, "inodes": -sum(d.f_favail for d in disk),
        "listeners": listeners, "ipc": ipc,
    }  # fmt: skip


class MemoryWatch:
    """The largest growth of the resident memory of our processes, sampled."""

    def __enter__(self) -> "MemoryWatch":
        self.stop = threading.Event()
        self.base = self.now()
        self.most = 0.0
        self.thread = threading.Thread(target=self.watch, daemon=True)
        self.thread.start()
        return self

    def now(self) -> float:
        total = 0
        for pid in own_children() | {os.getpid()}:
            with contextlib.suppress(OSError, ValueError):
                total += int(Path(f"/proc/{pid}/statm").read_text().split()[1]) - int(
                    Path(f"/proc/{pid}/statm").read_text().split()[2]
                )
        return total * 4096 / 2**20

    def watch(self) -> None:
        while not self.stop.wait(0.1):
            self.most = max(self.most, self.now() - self.base)

    def __exit__(self, *_: object) -> None:
        self.stop.set()
        self.thread.join()


def run_batch(pool: Pool, world: World, raws: list[dict[str, Any]]) -> dict[str, list[str]]:
    rows = [Row(world, raw) for raw in raws]
    alive = own_children()
    before = state()
    with MemoryWatch() as memory:
        started = time.monotonic()
        findings = pool.drive([row.task() for row in rows])
        seconds = time.monotonic() - started
    control = pool.drive([judge(CONTROL, [{"kind": "call", "fn": "solve", "args": [7], "expected": 49}])])[0]
    if any(c["check"] in ("no_process_named", "no_cmdline") for raw in raws for c in raw["must_not"]):
        time.sleep(0.8)
    deltas = {key: value - before[key] for key, value in state().items()} | {"rss_mb": memory.most, "batch": len(raws)}
    wrongs = {
        row.raw["id"]: row.wrongs(found, deltas, control.word == "passed")
        for row, found in zip(rows, findings, strict=True)
    }
    if pool.faults:
        wrongs["faults"] = [f"{pool.faults}"]
    runs = len(raws[0]["tests"]) if raws[0]["tests"][0]["kind"] == "stdin" else 1
    if len(raws) == 1 and seconds > (LIMITS.wall + 3) * max(1, runs):
        wrongs[raws[0]["id"]].append(f"took {seconds:.1f} s")
    if left := own_children() - alive:
        wrongs["processes left"] = [" ".join(map(str, left))]
    return {key: value for key, value in wrongs.items() if value}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("file")
    parser.add_argument("--tier", default="landlock")
    parser.add_argument("--python", default="")
    parser.add_argument("--container", action="store_true")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--only", default="")
    parser.add_argument("--seconds", type=float, default=2.0, help="wall and CPU limit of a run")
    options = parser.parse_args()
    signal.alarm(1200)
    if options.container:
        confine.prctl(confine.PR_SET_NO_NEW_PRIVS, 1)
        confine.Filter(syscalls.container_filter(confine.ARCH)).install()
    raws = [json.loads(line) for line in Path(options.file).read_text().splitlines()]
    raws = [raw for raw in raws if options.only in raw["id"]]
    global LIMITS
    LIMITS = Limits(wall=options.seconds, cpu=options.seconds)
    world = World()
    pool = Pool(options.tier, python=options.python)
    wrongs: dict[str, list[str]] = {}
    try:
        for _ in range(options.rounds):
            for at in range(0, len(raws), options.batch):
                wrongs |= run_batch(pool, world, raws[at : at + options.batch])
    finally:
        pool.close()
        world.close()
    print(json.dumps({"rows": len(raws), "tier": options.tier, "wrong": wrongs}, indent=1))


if __name__ == "__main__":
    main()
