"""The seccomp tables agree with an independent source, and the filter does what its rules say."""

import ctypes
import errno
import struct

import pytest
from soarctl_code.jail import syscalls

ARCH_TOKENS = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}


@pytest.mark.parametrize("arch", ["x86_64", "aarch64"])
def test_every_number_is_the_one_that_libseccomp_knows(arch: str) -> None:
    try:
        library = ctypes.CDLL("libseccomp.so.2")
    except OSError:
        pytest.skip("libseccomp.so.2 is not installed; it is the oracle for the tables")
    resolve = library.seccomp_syscall_resolve_name_arch
    for name in syscalls.NUMBERS:
        known = resolve(ctypes.c_uint32(ARCH_TOKENS[arch]), name.encode())
        ours = syscalls.number(name, arch)
        assert ours == (known if known >= 0 else None), name


def run(program: list[syscalls.Instruction], arch: str, nr: int, *arguments: int, pid: int = 77) -> int:
    """A small interpreter of the instructions that the filter uses."""
    padded = [*arguments, 0, 0, 0, 0, 0, 0][:6]
    data = struct.pack("<IIQ6Q", nr, syscalls.AUDIT_ARCHS[arch], 0, *[a & (2**64 - 1) for a in padded])
    at = accumulator = 0
    while True:
        i = program[at]
        k = pid if i.k == syscalls.OWN_PID else i.k
        at += 1
        match i.code:
            case syscalls.LOAD:
                accumulator = struct.unpack_from("<I", data, k)[0]
            case syscalls.EQUAL:
                at += i.if_true if accumulator == k else i.if_false
            case syscalls.AT_LEAST:
                at += i.if_true if accumulator >= k else i.if_false
            case syscalls.ANY_BIT:
                at += i.if_true if accumulator & k else i.if_false
            case syscalls.RETURN:
                return k
            case _:
                raise AssertionError(i)


REFUSED = syscalls.ERRNO | errno.EPERM


@pytest.mark.parametrize("arch", ["x86_64", "aarch64"])
@pytest.mark.parametrize(
    ("call", "arguments", "verdict"),
    [
        ("read", (0,), syscalls.ALLOW),
        ("ptrace", (16, 1), REFUSED),
        ("unshare", (0x10000000,), REFUSED),
        ("mount", (), REFUSED),
        ("clone3", (), syscalls.ERRNO | errno.ENOSYS),
        ("clone", (0x003D0F00,), syscalls.ALLOW),
        ("clone", (17,), REFUSED),
        ("clone", (0x10000000 | 0x003D0F00,), REFUSED),
        ("clone", (0x003D0F00 | 1 << 33,), REFUSED),
        ("kill", (77, 15), syscalls.ALLOW),
        ("kill", (77, 9), REFUSED),
        ("kill", (78, 15), REFUSED),
        ("kill", (0, 15), REFUSED),
        ("kill", (-1, 15), REFUSED),
        ("tgkill", (77, 77, 6), syscalls.ALLOW),
        ("tgkill", (1, 1, 6), REFUSED),
        ("prctl", (15,), syscalls.ALLOW),
        ("prctl", (1, 0), REFUSED),
        ("prlimit64", (0, 7), syscalls.ALLOW),
        ("prlimit64", (1, 7), REFUSED),
        ("fcntl", (1, 4, 0x800), syscalls.ALLOW),
        ("fcntl", (1, 4, 0x2000), REFUSED),
        ("fcntl", (1, 8, 77), REFUSED),
        ("fcntl", (1, 3), syscalls.ALLOW),
        ("ioctl", (1, 0x5412), REFUSED),
        ("ioctl", (1, 0x5401), syscalls.ALLOW),
    ],
)
def test_a_rule_decides_a_call(arch: str, call: str, arguments: tuple[int, ...], verdict: int) -> None:
    nr = syscalls.number(call, arch)
    assert nr is not None
    for lookups in (True, False):
        assert run(syscalls.jail_filter(arch, lookups=lookups, writes=False), arch, nr, *arguments) == verdict


def test_calls_of_another_machine_and_x32_calls_kill() -> None:
    program = syscalls.jail_filter("x86_64", lookups=True, writes=True)
    assert run(program, "aarch64", 0) == syscalls.KILL
    assert run(program, "x86_64", 0x40000000) == syscalls.KILL


@pytest.mark.parametrize("arch", ["x86_64", "aarch64"])
def test_paths_are_refused_where_nothing_else_guards_them(arch: str) -> None:
    openat = syscalls.number("openat", arch) or 0
    assert run(syscalls.jail_filter(arch, lookups=False, writes=False), arch, openat) == REFUSED
    assert run(syscalls.jail_filter(arch, lookups=True, writes=False), arch, openat) == syscalls.ALLOW
    mkdirat = syscalls.number("mkdirat", arch) or 0
    assert run(syscalls.jail_filter(arch, lookups=True, writes=False), arch, mkdirat) == REFUSED
    assert run(syscalls.jail_filter(arch, lookups=True, writes=True), arch, mkdirat) == syscalls.ALLOW
    sockets = {"x86_64": 41, "aarch64": 198}[arch]
    assert run(syscalls.jail_filter(arch, lookups=True, writes=True), arch, sockets) == REFUSED


def test_every_jump_stays_inside_the_filter() -> None:
    for arch in ARCH_TOKENS:
        program = syscalls.jail_filter(arch, lookups=True, writes=True)
        assert all(at + 1 + max(i.if_true, i.if_false) < len(program) for at, i in enumerate(program[:-1]))
        assert all(max(i.if_true, i.if_false) < 256 for i in program)
