"""System-call numbers of x86-64 and aarch64, and the seccomp filter that is made of them.

The filter is an allow list: a call that nobody thought of is refused. Numbers come from the kernel's own tables and a
test compares them with libseccomp's.
"""

import errno
import platform
import struct
from collections.abc import Sequence
from dataclasses import dataclass

# name: (x86-64, aarch64); 0 where a machine has no such call (read is 0 on x86-64, and stands apart for that).
NUMBERS: dict[str, tuple[int, int]] = {
    "access": (21, 0), "alarm": (37, 0), "brk": (12, 214), "capset": (126, 91), "chdir": (80, 49),
    "clock_getres": (229, 114), "clock_gettime": (228, 113), "clock_nanosleep": (230, 115), "clone": (56, 220),
    "clone3": (435, 435), "close": (3, 57), "close_range": (436, 436), "dup": (32, 23), "dup2": (33, 0),
    "dup3": (292, 24), "exit": (60, 93), "exit_group": (231, 94), "faccessat": (269, 48), "faccessat2": (439, 439),
    "fadvise64": (221, 223), "fchdir": (81, 50), "fcntl": (72, 25), "fdatasync": (75, 83), "fstat": (5, 80),
    "fstatfs": (138, 44), "fsync": (74, 82), "ftruncate": (77, 46), "futex": (202, 98), "getcpu": (309, 168),
    "getcwd": (79, 17), "getdents64": (217, 61), "getegid": (108, 177), "geteuid": (107, 175), "getgid": (104, 176),
    "getgroups": (115, 158), "getitimer": (36, 102), "getpgrp": (111, 0), "getpid": (39, 172), "getppid": (110, 173),
    "getrandom": (318, 278), "getrlimit": (97, 163), "getrusage": (98, 165), "gettid": (186, 178),
    "gettimeofday": (96, 169), "getuid": (102, 174), "ioctl": (16, 29), "kill": (62, 129),
    "landlock_add_rule": (445, 445), "landlock_create_ruleset": (444, 444), "landlock_restrict_self": (446, 446),
    "lseek": (8, 62), "lstat": (6, 0), "madvise": (28, 233), "membarrier": (324, 283), "mkdir": (83, 0),
    "mkdirat": (258, 34), "mmap": (9, 222), "mount": (165, 40), "mprotect": (10, 226), "mremap": (25, 216),
    "munmap": (11, 215), "nanosleep": (35, 101), "newfstatat": (262, 79), "open": (2, 0), "openat": (257, 56),
    "pause": (34, 0), "pipe": (22, 0), "pipe2": (293, 59), "pivot_root": (155, 41), "poll": (7, 0),
    "ppoll": (271, 73), "prctl": (157, 167), "pread64": (17, 67), "preadv": (295, 69), "prlimit64": (302, 261),
    "pselect6": (270, 72), "ptrace": (101, 117), "pwrite64": (18, 68), "pwritev": (296, 70), "read": (0, 63),
    "readlink": (89, 0), "readlinkat": (267, 78), "readv": (19, 65), "rename": (82, 0), "renameat": (264, 38),
    "renameat2": (316, 276), "restart_syscall": (219, 128), "rmdir": (84, 0), "rseq": (334, 293),
    "rt_sigaction": (13, 134), "rt_sigpending": (127, 136), "rt_sigprocmask": (14, 135), "rt_sigreturn": (15, 139),
    "rt_sigsuspend": (130, 133), "rt_sigtimedwait": (128, 137), "sched_getaffinity": (204, 123),
    "sched_yield": (24, 124), "seccomp": (317, 277), "select": (23, 0), "set_robust_list": (273, 99),
    "set_tid_address": (218, 96), "setitimer": (38, 103), "sigaltstack": (131, 132), "stat": (4, 0),
    "statx": (332, 291), "sysinfo": (99, 179), "tgkill": (234, 131), "time": (201, 0), "times": (100, 153),
    "truncate": (76, 45), "umask": (95, 166), "umount2": (166, 39), "uname": (63, 160), "unlink": (87, 0),
    "unlinkat": (263, 35), "unshare": (272, 97), "write": (1, 64), "writev": (20, 66),
}  # fmt: skip

AUDIT_ARCHS = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}

# What a pure computation with threads, clocks and its own pipes needs.
PLAIN = [
    "read", "write", "close", "fstat", "lseek", "mmap", "munmap", "futex", "brk", "mprotect", "mremap",
    "madvise", "rt_sigaction", "rt_sigprocmask", "rt_sigreturn", "clock_gettime", "getrandom", "exit_group",
    "exit", "pread64", "pwrite64", "readv", "writev", "preadv", "pwritev", "close_range", "dup", "dup2", "dup3",
    "pipe", "pipe2", "poll", "ppoll", "select", "pselect6", "rt_sigpending", "rt_sigtimedwait", "rt_sigsuspend",
    "sigaltstack", "pause", "alarm", "setitimer", "getitimer", "nanosleep", "clock_nanosleep", "clock_getres",
    "gettimeofday", "time", "times", "getrusage", "getpid", "gettid", "getppid", "getuid", "geteuid", "getgid",
    "getegid", "getpgrp", "getgroups", "uname", "sysinfo", "getcpu", "sched_yield", "sched_getaffinity",
    "set_robust_list", "rseq", "membarrier", "set_tid_address", "restart_syscall", "umask", "getrlimit",
    "getcwd", "fadvise64", "fsync", "fdatasync",
]  # fmt: skip
# Only where something else (Landlock, a private root) decides which paths can be reached.
LOOKUPS = [
    "newfstatat", "openat", "stat", "lstat", "open", "statx", "access", "faccessat", "faccessat2", "readlink",
    "readlinkat", "getdents64", "chdir", "fchdir", "fstatfs",
]  # fmt: skip
# Only where there is a private scratch directory and nothing else that can be written.
WRITES = [
    "mkdir", "mkdirat", "unlink", "unlinkat", "rmdir", "rename", "renameat", "renameat2", "ftruncate",
    "truncate",
]  # fmt: skip

ALLOW, ERRNO, KILL = 0x7FFF0000, 0x00050000, 0x80000000
LOAD, EQUAL, AT_LEAST, ANY_BIT, AND, RETURN = 0x20, 0x15, 0x35, 0x45, 0x54, 0x06
# Offsets in struct seccomp_data; arguments are 64 bits, low word first on both machines.
NR, ARCH, ARGS = 0, 4, 16
OWN_PID = 0xFFFF_FFF1  # a placeholder that no real operand equals, patched in each child

THREAD_FLAGS = 0x007D0F00  # what glibc and musl ask of clone for a thread, and no namespace flag
CLONE_THREAD = 0x00010000
FCNTL_ALLOWED = (0, 1, 2, 3, 1030)  # DUPFD, GETFD, SETFD, GETFL, DUPFD_CLOEXEC; SETFL stands apart
F_SETFL, O_ASYNC = 4, 0x2000  # O_ASYNC with an owner is a way to send signals without kill
IOCTL_ALLOWED = (0x5401, 0x5421, 0x5450, 0x5451, 0x541B)  # TCGETS, FIONBIO, FIONCLEX, FIOCLEX, FIONREAD
PRCTL_ALLOWED = (15, 16)  # SET_NAME, GET_NAME
SIGKILL, SIGSTOP = 9, 19
RLIMIT_CPU = 0
AT_EMPTY_PATH = 0x1000
AT_FDCWD = 0xFFFF_FF9C


@dataclass(frozen=True, slots=True)
class Instruction:
    """One classic BPF instruction."""

    code: int
    k: int
    if_true: int = 0
    if_false: int = 0


def machine() -> str:
    """`x86_64` or `aarch64`, or another word for which there are no tables."""
    return {"amd64": "x86_64", "arm64": "aarch64"}.get(platform.machine().lower(), platform.machine().lower())


def number(name: str, arch: str) -> int | None:
    """A call's number on that machine, or None where it has no such call."""
    value = NUMBERS[name][0 if arch == "x86_64" else 1]
    return value if value or (name == "read" and arch == "x86_64") else None


def jail_filter(arch: str, *, lookups: bool, writes: bool) -> list[Instruction]:
    """The filter, with OWN_PID wherever the pid of the confined process belongs.

    The kernel walks a new filter once for every call that it knows, so the numbers are found by halving: a list that
    is read in order takes it three times as long, in each run.

    Args:
        arch: `x86_64` or `aarch64`.
        lookups: whether paths may be looked up at all.
        writes: whether files may be made, renamed and removed.
    """
    head = [Instruction(LOAD, ARCH), Instruction(EQUAL, AUDIT_ARCHS[arch], 1, 0), Instruction(RETURN, KILL)]
    head.append(Instruction(LOAD, NR))
    if arch == "x86_64":  # x32 calls share the arch word and have their own numbers
        head += [Instruction(AT_LEAST, 0x40000000, 0, 1), Instruction(RETURN, KILL)]
    rules = {name: [Instruction(RETURN, ALLOW)] for name in PLAIN + LOOKUPS * lookups + WRITES * writes}
    rules |= argument_rules(lookups=lookups)
    numbered = {value: body for name, body in rules.items() if (value := number(name, arch)) is not None}
    return head + tree(ranges(numbered))


def argument_rules(*, lookups: bool) -> dict[str, list[Instruction]]:
    """What is decided by a call's arguments."""
    refuse, allow = Instruction(RETURN, ERRNO | errno.EPERM), Instruction(RETURN, ALLOW)
    rules = {
        # glibc falls back to clone, whose flags a filter can read.
        "clone3": [Instruction(RETURN, ERRNO | errno.ENOSYS)],
        "clone": [
            *word(0, high=True), Instruction(EQUAL, 0, 1, 0), refuse,
            *word(0), Instruction(ANY_BIT, 0xFFFFFFFF & ~THREAD_FLAGS, 0, 1), refuse,
            Instruction(ANY_BIT, CLONE_THREAD, 1, 0), refuse, allow,
        ],
        "prctl": one_of(0, PRCTL_ALLOWED),
        # Not the limit of CPU time: a program that lowers it dies of SIGKILL, as if it had been struck from outside.
        "prlimit64": [
            *word(1), Instruction(EQUAL, RLIMIT_CPU, 0, 5),
            *word(2), Instruction(EQUAL, 0, 0, 2), *word(2, high=True), Instruction(EQUAL, 0, 1, 0), refuse,
            *one_of(0, (0, OWN_PID)),
        ],
        "ioctl": one_of(1, IOCTL_ALLOWED),
        "fcntl": [
            *word(1), Instruction(EQUAL, F_SETFL, 0, 4),
            *word(2), Instruction(ANY_BIT, O_ASYNC, 0, 1), refuse, allow,
            *one_of(1, FCNTL_ALLOWED),
        ],
    }  # fmt: skip
    for name, signal in (("kill", 1), ("tgkill", 2)):
        # Not SIGKILL nor SIGSTOP even to itself: so that a run that dies of one was struck from outside.
        rules[name] = [
            *word(0), Instruction(EQUAL, OWN_PID, 1, 0), refuse,
            *word(signal), Instruction(EQUAL, SIGKILL, 0, 1), refuse,
            Instruction(EQUAL, SIGSTOP, 0, 1), refuse, allow,
        ]  # fmt: skip
    if not lookups:
        # glibc 2.33 to 2.38 spell fstat(fd) as newfstatat(fd, "", AT_EMPTY_PATH).
        rules["newfstatat"] = [
            *word(0), Instruction(EQUAL, AT_FDCWD, 0, 1), refuse,
            *word(3), Instruction(EQUAL, AT_EMPTY_PATH, 1, 0), refuse, allow,
        ]  # fmt: skip
    return rules


def ranges(bodies: dict[int, list[Instruction]]) -> list[tuple[int, list[Instruction]]]:
    """From which number on which body decides; what is in none is refused."""
    refuse = [Instruction(RETURN, ERRNO | errno.EPERM)]
    found: list[tuple[int, list[Instruction]]] = [(0, bodies.get(0, refuse))]
    for value in sorted({at for known in bodies for at in (known, known + 1)}):
        body = bodies.get(value, refuse)
        if body != found[-1][1]:
            found.append((value, body))
    return found


def tree(parts: list[tuple[int, list[Instruction]]]) -> list[Instruction]:
    """Finds a number's part by halving."""
    if len(parts) == 1:
        return parts[0][1]
    middle = len(parts) // 2
    lower, upper = tree(parts[:middle]), tree(parts[middle:])
    return [Instruction(AT_LEAST, parts[middle][0], len(lower), 0), *lower, *upper]


def container_filter(arch: str) -> list[Instruction]:
    """What Docker's default profile refuses a process without capabilities, for tests of the tiers below namespaces."""
    refused = ["unshare", "mount", "umount2", "pivot_root", "ptrace"]
    refused_numbers = [n for name in refused if (n := number(name, arch)) is not None]
    # setns, process_vm_readv, process_vm_writev, bpf, keyctl, userfaultfd; then io_uring and pidfd_getfd.
    refused_numbers += [308, 310, 311, 321, 250, 323] if arch == "x86_64" else [268, 270, 271, 280, 219, 282]
    refused_numbers += [425, 426, 427, 438]
    out = [Instruction(LOAD, NR)]
    for value in refused_numbers:
        out += [Instruction(EQUAL, value, 0, 1), Instruction(RETURN, ERRNO | errno.EPERM)]
    clone3 = NUMBERS["clone3"][0]
    out += [Instruction(EQUAL, clone3, 0, 1), Instruction(RETURN, ERRNO | errno.ENOSYS)]
    clone = number("clone", arch) or 0
    out += [Instruction(EQUAL, clone, 0, 3), *word(0), Instruction(ANY_BIT, 0x7E020000, 0, 1)]
    out += [Instruction(RETURN, ERRNO | errno.EPERM), Instruction(RETURN, ALLOW)]
    return out


def word(argument: int, *, high: bool = False) -> list[Instruction]:
    return [Instruction(LOAD, ARGS + 8 * argument + (4 if high else 0))]


def one_of(argument: int, values: tuple[int, ...]) -> list[Instruction]:
    out = word(argument)
    for value in values:
        out += [Instruction(EQUAL, value, 0, 1), Instruction(RETURN, ALLOW)]
    return [*out, Instruction(RETURN, ERRNO | errno.EPERM)]


def assemble(program: Sequence[Instruction]) -> bytes:
    """The filter as the kernel reads it."""
    return b"".join(struct.pack("=HBBI", i.code, i.if_true, i.if_false, i.k) for i in program)
