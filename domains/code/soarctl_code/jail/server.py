"""The fork server: a warm interpreter that forks one child per run and tells when it ended.

It is started by a fresh exec, holds no descriptor but the control socket, and never reads a job: the child does. Each
message is one packet of words, and the run's descriptors come with the first:

    fork NUMBER PLACE...    where the descriptors go in the child, in their order    kill NUMBER
    started PID ABI    exit NUMBER STATUS CPU_SECONDS RSS_KIB    fault NUMBER TEXT    failed TEXT

After a fork every page that either side writes to is copied, and reference counts are written to by reading. So the
path of a run touches little: no signal wrappers, no JSON, and no work twice.
"""

import ctypes
import fcntl
import gc
import importlib
import marshal
import os
import resource
import select
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from typing import NoReturn

from soarctl_code.jail import child, confine, interpreter

LARGEST_MESSAGE = 4096
HIGH = 32  # the server's own descriptors are at or above it, so a run's arrive at 3, 4, ...

# os.fork runs hooks in the child that put locks and generators in order which a process of one thread has no need of;
# they cost four times as much as the fork.
bare_fork = ctypes.PyDLL(None, use_errno=True).fork


# Without the enumerations of the signal module, which cost more than the call.
set_handler: Callable[[int, int], object] = importlib.import_module("_signal").signal
CHILD_ENDED, DEFAULT = int(signal.SIGCHLD), int(signal.SIG_DFL)


def default_signals() -> None:
    """Undoes what the server set up for itself."""
    signal.set_wakeup_fd(-1)
    set_handler(CHILD_ENDED, DEFAULT)


class Forked(BaseException):
    """This process is a child now; it is confined, and `job` is what it has to do."""

    def __init__(self, job: bytes) -> None:
        self.job = job


class Server:
    """The loop of one fork server."""

    def __init__(self, control: socket.socket, tier: str, scratch: int) -> None:
        self.control = control
        self.tier = tier
        self.scratch = scratch
        self.runs: dict[int, int] = {}  # pid: run
        self.mapped = confine.mapped_bytes(data=tier == "wasm")
        self.proc = move_high(os.open("/proc", os.O_PATH | os.O_CLOEXEC))
        self.abi, self.ruleset = self.landlock()
        self.die_with_server = confine.prepared("prctl", confine.PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        self.filter = None if tier in ("wasm", "unsafe", "command") else confine.filter_for(tier)

    def landlock(self) -> tuple[int, int]:
        """The kernel's Landlock version and a ready ruleset, or (0, -1) where the tier does without."""
        if self.tier == "landlock":
            abi = confine.landlock_abi()
            return abi, move_high(confine.library_ruleset(abi))
        if self.tier == "namespace":
            try:
                return confine.landlock_abi(), -1
            except OSError:
                return 0, -1
        return 0, -1

    def confine(self, limits: dict[str, int], *, scratch: bool) -> int:
        """Binds a child to the tier; its pid as the supervisor sees it.

        Args:
            limits: of the run.
            scratch: whether it gets a folder of its own, where the tier has them.
        """
        outside = int(os.readlink("self", dir_fd=self.proc))
        os.close(self.proc)
        if self.tier == "namespace":
            if scratch:
                confine.own_scratch(self.scratch)
            confine.drop_privileges()
        if self.tier == "namespace" and scratch and self.abi:
            confine.restrict_to_scratch(self.abi)
        elif self.ruleset >= 0:
            self.restrict()
        if self.ruleset >= 0:
            os.close(self.ruleset)
        confine.set_limits(limits, self.mapped, data=self.tier == "wasm")
        self.die_with_server()
        if self.filter is not None:
            self.filter.install()
        return outside

    def loop(self) -> None:
        """Serves until the supervisor hangs up."""
        self.restrict = confine.prepared("landlock_restrict_self", self.ruleset, 0)
        if self.tier != "namespace":  # where the children inherit it; there they have mounts to make first
            confine.drop_privileges()
        wake_read, wake_write = map(move_high, os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC))
        os.closerange(3, HIGH)
        signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, ignore)
        poll = select.poll()
        poll.register(self.control.fileno(), select.POLLIN)
        poll.register(wake_read, select.POLLIN)
        self.send(f"started {os.getpid()} {self.abi}")
        while True:
            for descriptor, _ in poll.poll():
                if descriptor == wake_read:
                    os.read(wake_read, 4096)
                    self.reap()
                elif not self.receive():
                    self.end()
                    return

    def receive(self) -> bool:
        try:
            data, descriptors, _, _ = socket.recv_fds(self.control, LARGEST_MESSAGE, 16)
        except ConnectionError:
            return False
        if not data:
            return False
        verb, number, *places = data.split()
        if verb == b"fork":
            self.fork(int(number), places, descriptors)
        else:
            for pid, run in self.runs.items():
                if run == int(number):
                    os.kill(pid, signal.SIGKILL)
        for descriptor in descriptors:
            os.close(descriptor)
        return True

    def next_job(self) -> bytes:
        """Serves until the supervisor hangs up, and then ends; returns in each child, with its job."""
        try:
            self.loop()
        except Forked as forked:
            return forked.job
        os._exit(0)

    def fork(self, run: int, places: Sequence[bytes], descriptors: Sequence[int]) -> None:
        pid = bare_fork()
        if pid == 0:
            self.become_child([int(place) for place in places], descriptors)
        elif pid < 0:
            self.send(f"fault {run} fork: {os.strerror(ctypes.get_errno())}")
        else:
            self.runs[pid] = run

    def become_child(self, places: Sequence[int], descriptors: Sequence[int]) -> NoReturn:
        try:
            default_signals()
            os.setsid()
            arrange(places, descriptors, [self.proc, self.ruleset] if self.ruleset >= 0 else [self.proc])
            gc.enable()
            if self.tier == "wasm":
                job = child.read_job()
                child.begin(marshal.loads(job), self.confine)
                raise Forked(job)
            child.serve_job(self.confine)
        except Forked:
            raise
        except BaseException:
            os._exit(72)

    def reap(self) -> None:
        while self.runs:
            pid, status, usage = os.wait4(-1, os.WNOHANG)
            if pid == 0:
                return
            run = self.runs.pop(pid, None)
            if run is not None:
                self.send(f"exit {run} {status} {usage.ru_utime + usage.ru_stime} {usage.ru_maxrss}")

    def send(self, message: str) -> None:
        self.control.send(message.encode())

    def end(self) -> None:
        for pid in self.runs:
            os.kill(pid, signal.SIGKILL)


def ignore(number: int, frame: object) -> None:
    """A handler for a signal whose wake-up byte says all."""


def arrange(places: Sequence[int], descriptors: Sequence[int], keep: Sequence[int]) -> None:
    """Puts the run's descriptors where the child expects them and closes the rest; unused standard ones stay null.

    Args:
        places: a standard descriptor, or the number itself under which the descriptor has arrived.
        descriptors: those that came with the message.
        keep: descriptors that stay open; the confinement closes them.

    Raises:
        OSError: a descriptor has arrived under another number, so something else was open.
    """
    for place, descriptor in zip(places, descriptors, strict=True):
        if place <= 2:
            os.dup2(descriptor, place)
        elif place != descriptor:
            raise OSError(f"descriptor {descriptor} is not {place}")
    wanted = sorted({0, 1, 2, *places, *keep})
    for low, above in zip(wanted, [*wanted[1:], 256], strict=True):
        if above > low + 1:
            os.closerange(low + 1, above)


def move_high(descriptor: int) -> int:
    """The same open file at a number that no child uses."""
    return fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, HIGH)


def main(tier: str, descriptor: int, scratch: int, *engine: str) -> None:
    """Runs in the fresh interpreter until its supervisor is gone.

    Args:
        tier: how children are confined.
        descriptor: of the control socket.
        scratch: bytes of a child's scratch folder, in the namespace tier.
        engine: for the WebAssembly tier, what `guest.Guest` is made of.
    """
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256))
    descriptor = move_high(descriptor)
    control = socket.socket(fileno=descriptor)
    if tier == "wasm":
        serve_guest(control, *engine)
    interpreter.preload(interpreter.USUAL + (interpreter.ALL if tier == "seccomp" else []))
    os.closerange(3, HIGH)
    if tier not in ("unsafe", "command"):
        os.chdir("/")
    try:
        if tier == "namespace":
            start: Callable[[], Server] = lambda: namespace_server(control, scratch)  # noqa: E731
            confine.enter_namespaces()
            become_init()
        else:
            start = lambda: Server(control, tier, scratch)  # noqa: E731
        server = start()
    except OSError as error:
        control.send(f"failed {error}".encode())
        return
    interpreter.settle()
    calm()
    server.loop()


def calm() -> None:
    """Leaves nothing to do or to find for what is forked from here on."""
    os.environ.clear()
    null = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(null, number)
    os.close(null)
    gc.collect()
    gc.disable()
    gc.freeze()


def serve_guest(control: socket.socket, code: str, library: str, packages: str) -> NoReturn:
    """Starts the interpreter made of WebAssembly, and serves when it is warm and asks for a job."""
    sys.path.append(packages)
    from soarctl_code.jail import guest

    os.chdir("/")

    def serve() -> bytes:
        calm()
        return Server(control, "wasm", 0).next_job()

    # What the engine keeps open shall come above the numbers that a run's descriptors have.
    fill = [os.open(os.devnull, os.O_RDONLY)]
    while fill[-1] < HIGH:
        fill.append(os.open(os.devnull, os.O_RDONLY))
    guest.run(int(code), library, serve)


def namespace_server(control: socket.socket, scratch: int) -> Server:
    server = Server(control, "namespace", scratch)
    confine.enter_private_root(server.abi)
    if server.abi:
        server.ruleset = move_high(confine.root_ruleset(server.abi))
    return server


def become_init() -> None:
    """Goes on as the first process of the new pid namespace; the old one waits and takes everything down with it."""
    pid = os.fork()
    if pid:
        os.closerange(3, 256)
        os.waitpid(pid, 0)
        os._exit(0)
    confine.prctl(confine.PR_SET_PDEATHSIG, signal.SIGKILL)
