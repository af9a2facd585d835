"""The kernel's means of confinement, called through ctypes: Landlock, seccomp, namespaces, capabilities, limits.

Everything works for an ordinary user. A call that fails raises OSError; whether what it promises really holds is
found out by the probes of `tiers.py` and not assumed here.
"""

import contextlib
import ctypes
import os
import resource
import struct
import sys
from collections.abc import Callable, Iterable, Sequence

from soarctl_code.jail import syscalls

libc = ctypes.CDLL(None, use_errno=True)
ARCH = syscalls.machine()

PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_NO_NEW_PRIVS, PR_CAP_AMBIENT = 1, 4, 38, 47
SECCOMP_SET_MODE_FILTER = 1
CLONE_NEWNS, CLONE_NEWCGROUP, CLONE_NEWUTS, CLONE_NEWIPC = 0x00020000, 0x02000000, 0x04000000, 0x08000000
CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET = 0x10000000, 0x20000000, 0x40000000
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_REMOUNT, MS_BIND, MS_REC, MS_PRIVATE = 1, 2, 4, 32, 4096, 16384, 1 << 18
MNT_DETACH = 2

# Landlock's access rights to files, by the version that brought them; all that a kernel knows are handled.
FILE_RIGHTS_BY_ABI = {1: (1 << 13) - 1, 2: 1 << 13, 3: 1 << 14, 5: 1 << 15, 9: 1 << 16}
READ = (1 << 2) | (1 << 3)  # READ_FILE, READ_DIR
READ_FILE = 1 << 2
WRITE_FILE = 1 << 1
# WRITE_FILE, REMOVE_DIR, REMOVE_FILE, MAKE_DIR, MAKE_REG, REFER, TRUNCATE: no devices, sockets, pipes and links.
WRITE = READ | WRITE_FILE | (1 << 4) | (1 << 5) | (1 << 7) | (1 << 8) | (1 << 13) | (1 << 14)
NET_RIGHTS_BY_ABI = {4: 0b0011, 10: 0b1100}  # bind and connect: TCP, then UDP
SCOPES = 0b11  # abstract unix sockets, signals

SYSTEM_PATHS = ("/lib", "/lib64", "/usr/lib", "/usr/lib64")
SINGLE_PATHS = (
    "/etc/ld.so.cache", "/etc/localtime", "/usr/share/zoneinfo",
    "/dev/null", "/dev/zero", "/dev/urandom", "/dev/random",
)  # fmt: skip
PACKAGES = ("site-packages", "dist-packages")


def call(name: str, *arguments: object) -> int:
    """A raw system call.

    Raises:
        OSError: the kernel refused.
    """
    return prepared(name, *arguments)()


def prepared(name: str, *arguments: object) -> Callable[[], int]:
    """The same call, to be made later and at little cost.

    Args:
        name: of the system call.
        arguments: as ctypes takes them; whole numbers become C longs.
    """
    value = syscalls.number(name, ARCH)
    syscall = libc.syscall
    long = ctypes.c_long
    words = [long(a) if isinstance(a, int) else a for a in (value or 0, *arguments)]

    def make() -> int:
        if value is None:
            raise OSError(38, f"no system call {name} on {ARCH}")
        result = syscall(*words)
        if result < 0:
            code = ctypes.get_errno()
            raise OSError(code, f"{name}: {os.strerror(code)}")
        return result

    return make


def prctl(option: int, value: int) -> None:
    call("prctl", option, value, 0, 0, 0)


# --- seccomp -----------------------------------------------------------------------------------------------------


class Filter:
    """A seccomp filter in memory, made before the fork so that a child only puts its pid in."""

    def __init__(self, program: Sequence[syscalls.Instruction]) -> None:
        code = syscalls.assemble(program)
        self.code = ctypes.create_string_buffer(code, len(code))
        header = struct.pack("@HP", len(program), ctypes.addressof(self.code))
        self.header = ctypes.create_string_buffer(header, len(header))
        self.pids = [8 * at + 4 for at, instruction in enumerate(program) if instruction.k == syscalls.OWN_PID]
        self.bind = prepared("seccomp", SECCOMP_SET_MODE_FILTER, 0, self.header)

    def install(self) -> None:
        """Binds this process to the filter, for good. Needs no_new_privs."""
        pid = os.getpid()
        for offset in self.pids:
            struct.pack_into("=I", self.code, offset, pid)
        self.bind()


# --- Landlock ----------------------------------------------------------------------------------------------------


def landlock_abi() -> int:
    """The kernel's Landlock version.

    Raises:
        OSError: it has none, or it is switched off.
    """
    return call("landlock_create_ruleset", None, 0, 1)


def file_rights(abi: int) -> int:
    return sum(bits for since, bits in FILE_RIGHTS_BY_ABI.items() if since <= abi)


def net_rights(abi: int) -> int:
    return sum(bits for since, bits in NET_RIGHTS_BY_ABI.items() if since <= abi)


def create_ruleset(abi: int) -> int:
    """A descriptor of a ruleset that refuses everything it can, network and signals included where it knows them."""
    fields = [file_rights(abi), net_rights(abi), SCOPES if abi >= 6 else 0]
    attributes = struct.pack("=3Q", *fields)[: 24 if abi >= 6 else 16 if abi >= 4 else 8]
    buffer = ctypes.create_string_buffer(attributes, len(attributes))
    return call("landlock_create_ruleset", buffer, len(attributes), 0)


def allow_path(ruleset: int, path: str, rights: int, abi: int) -> None:
    """Grants rights beneath a path; a path that is absent is left out."""
    try:
        descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return
    try:
        directory = os.path.isdir(path)
        rights &= file_rights(abi) & (~0 if directory else READ_FILE | WRITE_FILE | (1 << 14))
        rule = ctypes.create_string_buffer(struct.pack("=Qi", rights, descriptor), 12)
        call("landlock_add_rule", ruleset, 1, rule, 0)
    finally:
        os.close(descriptor)


def readable_paths() -> list[str]:
    """What programs may read: the standard library and the system's shared libraries, entry by entry.

    Entry by entry because installed packages lie among them, and with those perhaps this project and its tests.
    """
    library = os.path.dirname(os.path.realpath(os.__file__))
    found = [path for path in SINGLE_PATHS if os.path.exists(path)]
    found += _entries(library, lambda name: name not in PACKAGES)
    for prefix in {sys.base_prefix, sys.base_exec_prefix}:
        for folder in (os.path.join(prefix, "lib"), os.path.join(prefix, "lib64")):
            found += _entries(folder, lambda name: ".so" in name)
    for folder in SYSTEM_PATHS:
        found += _entries(os.path.realpath(folder), lambda name: not name.startswith("python"))
    return sorted(set(found))


def _entries(folder: str, wanted: Callable[[str], bool]) -> list[str]:
    try:
        return [os.path.join(folder, name) for name in os.listdir(folder) if wanted(name)]
    except OSError:
        return []


def library_ruleset(abi: int) -> int:
    """The ruleset of the Landlock tier: `readable_paths` can be read, nothing can be written."""
    ruleset = create_ruleset(abi)
    for path in readable_paths():
        allow_path(ruleset, path, READ, abi)
    allow_path(ruleset, os.devnull, READ | WRITE_FILE, abi)
    # importlib lists a folder before it opens a module in it; this shows names of what lies beneath, no content.
    allow_path(ruleset, os.path.dirname(os.path.realpath(os.__file__)), 1 << 3, abi)
    return ruleset


# --- Capabilities and limits -------------------------------------------------------------------------------------

CAPABILITY_HEADER = ctypes.create_string_buffer(struct.pack("=Ii", 0x20080522, 0), 8)
NO_CAPABILITIES = ctypes.create_string_buffer(24)


def drop_privileges() -> None:
    """Gives up every capability, the possibility to gain any, and being traced or dumped by others of the same user."""
    prctl(PR_SET_NO_NEW_PRIVS, 1)
    call("capset", CAPABILITY_HEADER, NO_CAPABILITIES)
    prctl(PR_SET_DUMPABLE, 0)


def set_limits(limits: dict[str, int], mapped: int, *, data: bool = False) -> None:
    """Resource limits of one run.

    Args:
        limits: `memory` in bytes beyond `mapped`, `cpu` in whole seconds, `file` in bytes, `descriptors`.
        mapped: bytes of address space that the warm interpreter takes up by itself.
        data: count writable memory only, where much more is reserved than used.
    """
    for kind, value in (
        (resource.RLIMIT_DATA if data else resource.RLIMIT_AS, mapped + limits["memory"]),
        (resource.RLIMIT_FSIZE, limits["file"]),
        (resource.RLIMIT_NOFILE, limits["descriptors"]),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_MEMLOCK, 0),
        (resource.RLIMIT_MSGQUEUE, 0),
    ):
        resource.setrlimit(kind, (value, value))
    resource.setrlimit(resource.RLIMIT_CPU, (limits["cpu"], limits["cpu"] + 1))


def mapped_bytes(*, data: bool = False) -> int:
    """Address space in use by this process, or only its private writable memory."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[5 if data else 0]) * resource.getpagesize()


# --- Namespaces --------------------------------------------------------------------------------------------------


def enter_namespaces() -> None:
    """Leaves the machine's users, mounts, processes (for children), ipc, host name and network behind."""
    user, group = os.getuid(), os.getgid()
    call("unshare", CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWIPC | CLONE_NEWUTS)
    # Some sites allow none of these; then the seccomp filter alone keeps sockets away.
    with contextlib.suppress(OSError):
        call("unshare", CLONE_NEWNET)
    for name, text in (("setgroups", "deny"), ("uid_map", f"1000 {user} 1"), ("gid_map", f"1000 {group} 1")):
        with open(f"/proc/self/{name}", "w") as file:
            file.write(text)


def mount(source: str, target: str, kind: str, flags: int, options: str = "") -> None:
    call("mount", source.encode(), target.encode(), kind.encode(), flags, options.encode())


def enter_private_root(abi: int | None) -> None:
    """Makes a read-only root that holds the interpreter's library, the shared libraries and an empty scratch folder.

    Args:
        abi: of Landlock, which then hides installed packages as well; without it they are covered by empty mounts.
    """
    root = "/tmp"
    mount("none", "/", "", MS_REC | MS_PRIVATE)
    library = os.path.dirname(os.path.realpath(os.__file__))
    folders = {os.path.realpath(path) for path in SYSTEM_PATHS} | {library}
    folders |= {os.path.realpath(os.path.join(p, "lib")) for p in (sys.base_prefix, sys.base_exec_prefix)}
    folders = {path for path in folders if os.path.isdir(path)}
    sources = {
        path: os.open(path, os.O_PATH | os.O_CLOEXEC) for path in (*folders, *SINGLE_PATHS) if os.path.exists(path)
    }
    links = {path: os.readlink(path) for path in SYSTEM_PATHS if os.path.islink(path)}
    mount("root", root, "tmpfs", MS_NOSUID | MS_NODEV, "size=1m,mode=755")
    for path in outermost(sources):
        bind(f"/proc/self/fd/{sources[path]}", root + path)
    for path, target in links.items():
        if not os.path.lexists(root + path):
            os.symlink(target, root + path)
    for folder in folders:
        cover_packages(root + folder)
    for name in ("/scratch", "/old"):
        os.mkdir(root + name)
    os.chdir(root)
    call("pivot_root", b".", b"old")
    os.chdir("/")
    call("umount2", b"/old", MNT_DETACH)
    os.rmdir("/old")
    mount("none", "/", "", MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID | MS_NODEV)
    for descriptor in sources.values():
        os.close(descriptor)


def outermost(paths: Iterable[str]) -> list[str]:
    """Those paths that lie under no other."""
    kept: list[str] = []
    for path in sorted(paths):
        if not any(path.startswith(parent + "/") for parent in kept):
            kept.append(path)
    return kept


def bind(source: str, target: str) -> None:
    """Mounts a part of the old root read-only at a place of the new one."""
    directory = os.path.isdir(source)
    os.makedirs(target if directory else os.path.dirname(target), exist_ok=True)
    if not directory:
        os.close(os.open(target, os.O_CREAT | os.O_WRONLY))
    mount(source, target, "", MS_BIND)
    # Flags that the source came with are locked in a user namespace and have to be repeated.
    kept = os.statvfs(target).f_flag & (os.ST_NOSUID | os.ST_NODEV | os.ST_NOEXEC | os.ST_NOATIME | os.ST_RELATIME)
    flags = MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID
    flags |= kept & (os.ST_NODEV | os.ST_NOEXEC)
    flags |= (1024 if kept & os.ST_NOATIME else 0) | ((1 << 21) if kept & os.ST_RELATIME else 0)
    mount("none", target, "", flags)


def cover_packages(folder: str) -> None:
    """Puts an empty folder over every folder of installed packages at the usual places beneath."""
    candidates = [os.path.join(folder, name) for name in PACKAGES]
    try:
        inner = [name for name in os.listdir(folder) if name.startswith("python")]
    except OSError:
        inner = []
    candidates += [os.path.join(folder, name, package) for name in inner for package in PACKAGES]
    for path in candidates:
        if os.path.isdir(path):
            mount("none", path, "tmpfs", MS_RDONLY | MS_NOSUID | MS_NODEV, "size=4k")


def own_scratch(size: int) -> None:
    """An empty folder of this process alone, limited in bytes and files, as the working directory."""
    call("unshare", CLONE_NEWNS)
    mount("scratch", "/scratch", "tmpfs", MS_NOSUID | MS_NODEV, f"size={size},nr_inodes=256,mode=700")
    os.chdir("/scratch")


def root_ruleset(abi: int) -> int:
    """The ruleset of the namespace tier: the private root can be read, nothing can be written."""
    ruleset = create_ruleset(abi)
    allow_path(ruleset, "/", READ, abi)
    allow_path(ruleset, os.devnull, READ | WRITE_FILE, abi)
    return ruleset


def restrict_to_scratch(abi: int) -> None:
    """Binds this process to that ruleset with its own scratch folder, which can be written."""
    ruleset = root_ruleset(abi)
    allow_path(ruleset, "/scratch", WRITE, abi)
    call("landlock_restrict_self", ruleset, 0)
    os.close(ruleset)


def filter_for(tier: str) -> Filter:
    """The seccomp filter of a tier."""
    return Filter(syscalls.jail_filter(ARCH, lookups=tier != "seccomp", writes=tier == "namespace"))
