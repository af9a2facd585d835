"""What our ctypes code asks of the kernel is what independent libraries ask: pyseccomp, landlockpy, kernel headers."""

import importlib
import json
import os
import re
import socket
import struct
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
from soarctl_code.jail import confine, syscalls

PID = 77
LOW = 0xFFFFFFFF
HEADERS = {
    "x86_64": Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h"),
    "aarch64": Path("/usr/include/asm-generic/unistd.h"),
}


# --- seccomp -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("arch", HEADERS)
def test_the_numbers_are_those_of_the_kernels_headers(arch: str) -> None:
    if not HEADERS[arch].exists():
        pytest.skip(f"{HEADERS[arch]} is not installed (Debian: linux-libc-dev); it is the oracle for the numbers")
    defined = re.findall(r"^#define __NR(?:3264)?_(\w+)\s+(\d+)$", HEADERS[arch].read_text(), re.MULTILINE)
    known = {name: int(number) for name, number in defined}
    # aarch64 takes its calls from the generic table, where some have the names of their 32-bit kin.
    aliases = {"newfstatat": "fstatat"} if arch == "aarch64" else {}
    for name in syscalls.NUMBERS:
        ours = syscalls.number(name, arch)
        if ours is not None:
            assert known[aliases.get(name, name)] == ours, name
        else:
            assert name not in known, name


def oracle(arch: str, *, lookups: bool, writes: bool) -> bytes:
    """The same rules in libseccomp's words, as it compiles them for that machine."""
    try:
        pyseccomp: Any = importlib.import_module("pyseccomp")
    except (ImportError, RuntimeError, OSError) as error:  # it wants libseccomp.so.2
        pytest.skip(f"pyseccomp cannot be imported; it is the oracle for the filter: {error}")
    arg, allow = pyseccomp.Arg, pyseccomp.ALLOW

    def low(at: int, value: int, mask: int = LOW) -> Any:
        return arg(at, pyseccomp.MASKED_EQ, mask, value)

    built = pyseccomp.SyscallFilter(pyseccomp.ERRNO(1))
    built.set_attr(pyseccomp.Attr.ACT_BADARCH, pyseccomp.KILL_PROCESS)
    if arch != syscalls.machine():
        built.add_arch({"x86_64": pyseccomp.Arch.X86_64, "aarch64": pyseccomp.Arch.AARCH64}[arch])
        built.remove_arch(pyseccomp.Arch.NATIVE)
    for name in syscalls.PLAIN + syscalls.LOOKUPS * lookups + syscalls.WRITES * writes:
        if syscalls.number(name, arch) is not None:
            built.add_rule(allow, name)
    built.add_rule(pyseccomp.ERRNO(38), "clone3")
    thread, others = syscalls.CLONE_THREAD, (1 << 64) - 1 - syscalls.THREAD_FLAGS
    built.add_rule(allow, "clone", arg(0, pyseccomp.MASKED_EQ, others | thread, thread))
    for signal in set(range(65)) - {9, 19}:
        built.add_rule(allow, "kill", low(0, PID), low(1, signal))
        built.add_rule(allow, "tgkill", low(0, PID), low(2, signal))
    for option in (15, 16):
        built.add_rule(allow, "prctl", low(0, option))
    for pid in (0, PID):
        built.add_rule(allow, "prlimit64", low(0, pid), low(1, 0), arg(2, pyseccomp.EQ, 0))
        for resource in range(1, 16):
            built.add_rule(allow, "prlimit64", low(0, pid), low(1, resource))
    for request in (0x5401, 0x5421, 0x5450, 0x5451, 0x541B):
        built.add_rule(allow, "ioctl", low(1, request))
    for command in (0, 1, 2, 3, 1030):
        built.add_rule(allow, "fcntl", low(1, command))
    built.add_rule(allow, "fcntl", low(1, 4), low(2, 0, 0x2000))
    if not lookups:
        built.add_rule(allow, "newfstatat", arg(0, pyseccomp.LT, 0xFFFFFF9C), low(3, 0x1000))
    with tempfile.TemporaryFile() as file:
        built.export_bpf(file)
        file.seek(0)
        return file.read()


def decide(code: bytes, arch: str, number: int, arguments: tuple[int, ...]) -> int:
    """What a classic BPF program returns, whoever compiled it."""
    data = struct.pack("<IIQ6Q", number & LOW, syscalls.AUDIT_ARCHS[arch], 0, *(arguments + (0,) * 6)[:6])
    at = accumulator = 0
    while True:
        operation, if_true, if_false, k = struct.unpack_from("=HBBI", code, 8 * at)
        at += 1
        match operation:
            case 0x20:
                accumulator = struct.unpack_from("<I", data, k)[0]
            case 0x54:
                accumulator &= k
            case 0x05:
                at += k
            case 0x15 | 0x25 | 0x35 | 0x45:
                tests = {0x15: accumulator == k, 0x25: accumulator > k, 0x35: accumulator >= k}
                at += if_true if tests.get(operation, bool(accumulator & k)) else if_false
            case 0x06:
                return k
            case other:
                raise AssertionError(hex(other))


ARGUMENTS: dict[str, list[tuple[int, ...]]] = {
    "clone": [(f,) for f in (0, 17, 0x3D0F00, 0x7D0F00, 0x10000, 0x003C0F00, 0x103D0F00, 1 << 33 | 0x3D0F00)],
    "kill": [(pid, signal) for pid in (0, 1, PID, PID + 1, LOW) for signal in (0, 1, 9, 15, 19, 64)],
    "tgkill": [(pid, PID, signal) for pid in (0, 1, PID, LOW) for signal in (0, 6, 9, 15, 19)],
    "prctl": [(option, 1) for option in (1, 4, 15, 16, 22, 38, 47, 59)],
    "prlimit64": [(pid, kind, new) for pid in (0, 1, PID) for kind in (0, 7, 9) for new in (0, 1, 1 << 32)],
    "ioctl": [(0, request) for request in (0x5401, 0x5402, 0x5412, 0x5421, 0x5450, 0x5451, 0x541B, 0x5420)],
    "fcntl": [
        (3, command, value) for command in (0, 1, 2, 3, 4, 8, 10, 1024, 1030, 1033) for value in (0, 0x2000, 0x2800)
    ],
    "newfstatat": [(fd, 1, 1, flags) for fd in (0, 3, 0xFFFFFF9C) for flags in (0, 0x100, 0x1000, 0x1100)],
}


@pytest.mark.parametrize("arch", HEADERS)
@pytest.mark.parametrize(("lookups", "writes"), [(True, True), (True, False), (False, False)])
def test_the_filter_decides_every_call_as_libseccomps_does(arch: str, lookups: bool, writes: bool) -> None:
    theirs = oracle(arch, lookups=lookups, writes=writes)
    program = syscalls.jail_filter(arch, lookups=lookups, writes=writes)
    ours = syscalls.assemble(program).replace(struct.pack("=I", syscalls.OWN_PID), struct.pack("=I", PID))
    special = {n: vectors for name, vectors in ARGUMENTS.items() if (n := syscalls.number(name, arch)) is not None}
    numbers = [*range(600), 0x40000000, 0x40000001, 0x40000208]
    for number in numbers:
        for arguments in special.get(number, [(), (1, 1, 1, 1, 1, 1)]):
            decided = [decide(code, arch, number, arguments) for code in (ours, theirs)]
            assert decided[0] == decided[1], (number, [hex(a) for a in arguments], [hex(d) for d in decided])
    allowed = sum(decide(ours, arch, n, ()) == syscalls.ALLOW for n in range(600))
    assert 60 < allowed < 110


def test_calls_of_other_machines_kill_in_both() -> None:
    codes = (
        oracle("x86_64", lookups=True, writes=False),
        syscalls.assemble(syscalls.jail_filter("x86_64", lookups=True, writes=False)),
    )
    assert [decide(code, "aarch64", 63, ()) for code in codes] == [syscalls.KILL] * 2


# --- Landlock ----------------------------------------------------------------------------------------------------


def test_the_rights_that_are_handled_are_those_that_each_kernel_knows() -> None:
    landlockpy: Any = pytest.importorskip("landlockpy")
    for abi in range(1, 12):
        assert confine.file_rights(abi) == int(landlockpy.fs_for_abi(abi))
        assert confine.net_rights(abi) == int(landlockpy.net_for_abi(abi))
        assert confine.SCOPES * (abi >= 6) == int(landlockpy.scope_for_abi(abi))


ATTEMPTS = """
import json, os, pathlib, socket, sys
def attempt(action):
    try:
        action()
        return 'done'
    except OSError as error:
        return error.errno
def connect(kind, address):
    with socket.socket(kind, socket.SOCK_STREAM) as s:
        s.settimeout(1)
        s.connect(address)
def tries(folder, library, parent, port, unix):
    yield attempt(lambda: os.listdir(library))
    yield attempt(lambda: pathlib.Path(library, 'os.py').read_bytes())
    yield attempt(lambda: os.listdir('/'))
    yield attempt(lambda: os.listdir(os.path.join(library, 'json')))
    yield attempt(lambda: pathlib.Path('/etc/passwd').read_bytes())
    yield attempt(lambda: pathlib.Path('/proc/self/maps').read_bytes())
    yield attempt(lambda: pathlib.Path('/dev/null').write_bytes(b'x'))
    yield attempt(lambda: pathlib.Path('/dev/urandom').open('rb').close())
    yield attempt(lambda: pathlib.Path(folder, 'new').write_bytes(b'x'))
    yield attempt(lambda: pathlib.Path(folder, 'old').read_bytes())
    yield attempt(lambda: os.truncate(os.path.join(folder, 'old'), 0))
    yield attempt(lambda: os.unlink(os.path.join(folder, 'old')))
    yield attempt(lambda: os.mkdir(os.path.join(folder, 'sub')))
    yield attempt(lambda: os.symlink('x', os.path.join(folder, 'link')))
    yield attempt(lambda: os.rename(os.path.join(folder, 'old'), os.path.join(folder, 'older')))
    yield attempt(lambda: os.link(os.path.join(folder, 'old'), os.path.join(folder, 'hard')))
    yield attempt(lambda: connect(socket.AF_INET, ('127.0.0.1', port)))
    yield attempt(lambda: socket.create_server(('127.0.0.1', 0)).close())
    yield attempt(lambda: connect(socket.AF_UNIX, unix))
    yield attempt(lambda: os.kill(parent, 0))
def report(arguments):
    print(json.dumps(list(tries(*arguments))))
"""
OURS = """
sys.path[:0] = [{root!r}, {package!r}]
from soarctl_code.jail import confine
confine.prctl(confine.PR_SET_NO_NEW_PRIVS, 1)
ruleset = confine.library_ruleset(confine.landlock_abi())
confine.call('landlock_restrict_self', ruleset, 0)
"""
THEIRS = """
sys.path[:0] = [{root!r}, {package!r}]
from soarctl_code.jail import confine
import landlockpy
from landlockpy import AccessFS, Ruleset, Scope
read = AccessFS.READ_FILE | AccessFS.READ_DIR
with Ruleset(scoped=Scope.ABSTRACT_UNIX_SOCKET | Scope.SIGNAL) as ruleset:
    for path in confine.readable_paths():
        ruleset.allow_path(path, read if os.path.isdir(path) else AccessFS.READ_FILE)
    ruleset.allow_path('/dev/null', AccessFS.READ_FILE | AccessFS.WRITE_FILE | AccessFS.TRUNCATE)
    ruleset.allow_path(os.path.dirname(os.path.realpath(os.__file__)), AccessFS.READ_DIR)
    ruleset.restrict()
"""


def test_the_landlock_rules_allow_and_refuse_what_landlockpys_do(tmp_path: Path) -> None:
    pytest.importorskip("landlockpy")
    try:
        abi = confine.landlock_abi()
    except OSError as error:
        pytest.skip(f"no Landlock here: {error}")
    folders = {"root": str(Path(__file__).parents[3]), "package": str(Path(__file__).parents[1])}
    outcomes = []
    with socket.create_server(("127.0.0.1", 0)) as tcp, socket.socket(socket.AF_UNIX) as unix:
        unix.bind("\0" + f"oracle-{os.getpid()}")
        unix.listen()
        library = os.path.dirname(os.path.realpath(os.__file__))
        for number, restrict in enumerate((OURS, THEIRS, "")):
            folder = tmp_path / str(number)
            folder.mkdir()
            (folder / "old").write_text("old")
            arguments = [str(folder), library, os.getpid(), tcp.getsockname()[1], f"\0oracle-{os.getpid()}"]
            program = f"{ATTEMPTS}{restrict.format(**folders)}\nreport({arguments!r})\n"
            done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stderr
            outcomes.append(json.loads(done.stdout))
    ours, theirs, free = outcomes
    assert ours == theirs
    assert ours[:2] == ["done", "done"]
    # What an older kernel cannot refuse: truncation, the two TCP calls, the abstract socket and the signal.
    unknown = 1 * (abi < 3) + 2 * (abi < 4) + 2 * (abi < 6)
    # The library's folder, one in it, a module, /dev/null and /dev/urandom.
    assert ours.count("done") == 5 + unknown
    assert free.count("done") > 14
