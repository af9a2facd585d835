"""Which kind of jail this machine allows, found out by trying to break out of each.

    namespace   user, mount, pid, ipc, host name and network namespaces with a private read-only root, and all of:
    landlock    Landlock, a seccomp allow list, resource limits
    seccomp     a seccomp allow list that refuses every path, resource limits
    wasm        CPython compiled to WebAssembly, which has no way to name anything outside; an extra
    command     whatever command the user puts around the fork server; believed, not verified
    unsafe      resource limits only: NOT ISOLATED

Version numbers say little: a container's profile may refuse a call, a kernel may lack a right. So every tier is
started and a program in it tries what must not work.
"""

import os
import socket
import sys
import tempfile
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from soarctl.api import PluginError
from soarctl_code.jail import confine, syscalls, wire
from soarctl_code.jail.jobs import Job, Limits, Ran, SandboxError
from soarctl_code.jail.supervisor import Pool

Tier = Literal["namespace", "landlock", "seccomp", "wasm", "command", "unsafe"]
TIERS: tuple[Tier, ...] = get_args(Tier)
ISOLATING: tuple[Tier, ...] = ("namespace", "landlock", "seccomp", "wasm")

MEANINGS: dict[Tier, str] = {
    "namespace": "isolated: files, network, processes, memory; own scratch folder",
    "landlock": "isolated: files, network, processes, memory",
    "seccomp": "isolated: files, network, processes, memory; modules that are not preloaded cannot be imported",
    "wasm": "isolated: files, network, processes, memory; programs run in a CPython 3.15 without threads",
    "command": "as given by the user, not verified",
    "unsafe": "NOT ISOLATED: resource limits only",
}

PROBES = {
    "write": "writing a file outside",
    "read": "reading a file outside",
    "environment": "reading this process's environment",
    "tcp": "connecting to a TCP port",
    "udp": "sending a datagram",
    "fork": "starting a process",
    "signal": "signalling another process",
    "limits": "changing another process's limits",
    "ptrace": "tracing another process",
    "userns": "making a user namespace",
    "memory": "taking more memory than allowed",
    "sleep": "sleeping for ever",
}
SLEEPER = Job("import time\ntime.sleep(60)\n", "script", limits=Limits(wall=0.05))
PROBE_PROGRAM = """
import os

def libc_call(name, *args):
    import ctypes
    libc = ctypes.CDLL(None, use_errno=True)
    if getattr(libc, name)(*args) != 0:
        raise OSError(ctypes.get_errno(), 'refused')

def read(path):
    with open(path, 'rb') as file:
        return file.read(1000)

def connect(port):
    import socket
    socket.create_connection(('127.0.0.1', port), 0.5).close()

def send(port):
    import socket
    socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('127.0.0.1', port))

def limits(pid):
    import resource
    resource.prlimit(pid, resource.RLIMIT_NOFILE)

def probe(folder, pid, tcp, udp):
    attempts = {
        'write': lambda: open(folder + '/written', 'w').close(),
        'read': lambda: read(folder + '/secret'),
        'environment': lambda: read('/proc/%d/environ' % pid),
        'tcp': lambda: connect(tcp),
        'udp': lambda: send(udp),
        'fork': lambda: os.fork() or os._exit(0),
        'signal': lambda: os.kill(pid, 0),
        'limits': lambda: limits(pid),
        'ptrace': lambda: libc_call('ptrace', 0x4206, pid, 0, 0),
        'userns': lambda: libc_call('unshare', 0x10000000),
        'memory': lambda: bytearray(1 << 30),
    }
    found = {}
    for name, attempt in attempts.items():
        try:
            attempt()
            found[name] = ''
        except (OSError, MemoryError, ImportError, AttributeError) as error:  # as where there is no such call
            found[name] = type(error).__name__
    return found
"""


class SandboxRefused(PluginError):
    """No tier that the spec accepts works here. No program has been started."""

    exit_code = 5


@dataclass(frozen=True, slots=True)
class Probe:
    """One thing that a program in the jail tried."""

    name: str
    contained: bool
    detail: str


@dataclass(frozen=True, slots=True)
class TierReport:
    """Whether a tier can be used here, and why not."""

    tier: Tier
    usable: bool
    reason: str
    """In one line: what holds, or what is missing."""
    probes: tuple[Probe, ...] = ()


def inspect_tiers(python: str = "", command: Sequence[str] = ()) -> list[TierReport]:
    """Every tier, strongest first, with the outcome of each probe: what `soarctl doctor` shows."""
    return [inspect_tier(tier, python, command) for tier in TIERS]


def inspect_tier(tier: Tier, python: str = "", command: Sequence[str] = ()) -> TierReport:
    """Starts one tier and tries to break out of it."""
    if tier == "unsafe":
        return TierReport(tier, True, MEANINGS[tier])
    if tier == "command" and not command:
        return TierReport(tier, False, "no command is given in the spec")
    if tier == "wasm" and python:
        return TierReport(
            tier, False, "programs run in its own interpreter, and the spec names another: sandbox.python"
        )
    if missing := unsupported():
        return TierReport(tier, False, missing)
    try:
        pool = Pool(tier, workers=2, python=python, command=command)
    except SandboxError as error:
        return TierReport(tier, False, error.message)
    try:
        return probe(pool, tier)
    except SandboxError as error:
        return TierReport(tier, False, error.message)
    finally:
        pool.close()


def unsupported() -> str:
    """Why no tier can work on this system at all, or nothing."""
    if not sys.platform.startswith("linux"):
        return f"needs Linux, and this is {sys.platform}"
    if confine.ARCH not in syscalls.AUDIT_ARCHS:
        return f"there is no system-call table for {confine.ARCH}; x86_64 and aarch64 have one"
    return ""


def probe(pool: Pool, tier: Tier) -> TierReport:
    """Lets a program try everything, and looks from outside as well at what it did."""
    with (
        tempfile.TemporaryDirectory(prefix="soarctl-probe-") as folder,
        listen(socket.SOCK_STREAM) as tcp,
        listen(socket.SOCK_DGRAM) as udp,
    ):
        Path(folder, "secret").write_text("secret")
        arguments = [folder, os.getpid(), tcp.getsockname()[1], udp.getsockname()[1]]
        attempts = Job(PROBE_PROGRAM, "call", calls=[("probe", arguments)])
        ran, slept = pool.drive([one_run(attempts), one_run(SLEEPER)])
        reached = {"write": Path(folder, "written").exists(), "tcp": touched(tcp), "udp": touched(udp)}
    answer = ran.answers[0] if ran.answers else None
    found = wire.decode(answer[1]) if isinstance(answer, list) and answer[0] == "value" else None
    if not isinstance(found, dict):
        return TierReport(tier, False, f"the probe program did not run: {ran.stderr[-200:].decode(errors='replace')!r}")
    if slept.ended == "timeout":
        found["sleep"] = "stopped"
    probes = tuple(
        Probe(text, bool(found.get(name)) and not reached.get(name, False), str(found.get(name) or "succeeded"))
        for name, text in PROBES.items()
    )
    broken = [p.name for p in probes if not p.contained]
    if broken and tier in ISOLATING:
        return TierReport(tier, False, f"not contained: {', '.join(broken)}", probes)
    abi = pool.servers[0].abi
    return TierReport(tier, True, MEANINGS[tier] + (f" (Landlock ABI {abi})" if abi else ""), probes)


def one_run(job: Job) -> Generator[Job, Ran, Ran]:
    ran = yield job
    return ran


def listen(kind: socket.SocketKind) -> socket.socket:
    listener = socket.socket(socket.AF_INET, kind)
    listener.bind(("127.0.0.1", 0))
    if kind is socket.SOCK_STREAM:
        listener.listen(1)
    listener.settimeout(0.01)
    return listener


def touched(listener: socket.socket) -> bool:
    try:
        if listener.type is socket.SOCK_DGRAM:
            listener.recv(10)
        else:
            listener.accept()[0].close()
    except TimeoutError:
        return False
    return True


def allowed(weakest: Tier) -> tuple[Tier, ...]:
    """The tiers that are at least as strong as `weakest`, the strongest first."""
    # WebAssembly contains what seccomp does; it comes after it for its speed and its other Python.
    return TIERS[: TIERS.index("wasm" if weakest == "seccomp" else weakest) + 1]


def choose(wanted: Tier | Literal["auto"], weakest: Tier, python: str, command: Sequence[str]) -> TierReport:
    """The tier to run in: the strongest that works here, or the wanted one.

    Raises:
        SandboxRefused: none that is at least as strong as `weakest` works.
    """
    tried: list[TierReport] = []
    candidates = allowed(weakest) if wanted == "auto" else (wanted,)
    for tier in candidates:
        report = inspect_tier(tier, python, command)
        if report.usable:
            return report
        tried.append(report)
    raise SandboxRefused(
        f'no sandbox of at least min_tier "{weakest}" works on this machine, so no program was started',
        at="domain.sandbox",
        hint="\n".join([*(f"{report.tier}: {report.reason}" for report in tried), REMEDY]),
    )


REMEDY = (
    "help for it: a kernel with Landlock (5.13 or newer, enabled) or with seccomp filters; a sandbox of your own as\n"
    "domain.sandbox.command with min_tier: command; the last resort is described in docs/code.md"
)
