"""The outside of the jail: starts fork servers, hands out runs, keeps the clocks and collects what comes back.

What it sees itself comes first: the deadline, the CPU time that the kernel counted, the size of the output, the exit
status. A fault of the sandbox (a server that died, a fork that was refused) is counted and the run repeated; it never
becomes a finding about a program.
"""

import contextlib
import heapq
import json
import math
import os
import secrets
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

from soarctl.api import PluginError
from soarctl_code.jail import wire

T = TypeVar("T")

Stream = Literal["result", "stdout", "stderr"]
Ended = Literal["exited", "timeout", "output_limit", "killed"]

BOOT = (
    "import sys; sys.path.insert(0, sys.argv[1]); from soarctl_code.jail.server import main; del sys.path[0]; "
    "main(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), sys.argv[5] == '1')"
)
RUNS_PER_SERVER = 4  # at once; one fork takes about a millisecond, and a server forks one at a time
ASLEEP_AT_ONCE = 48
TICK = 0.05  # between looks at a run that takes long
START_PATIENCE = 30.0
STARVED = 20  # times the wall limit, after which the machine and not the program is at fault
ATTEMPTS = 4


class SandboxError(PluginError):
    """The sandbox itself does not work: nothing can be said about the programs."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What one run may use."""

    wall: float = 2.0
    """Seconds on the clock, not counting those in which the program waited for a free CPU."""
    cpu: float = 2.0
    """Seconds of CPU."""
    memory: int = 256 << 20
    """Bytes of address space beside the interpreter's own."""
    output: int = 64 << 10
    """Bytes on each of stdout and stderr."""
    result: int = wire.SIZE
    """Bytes of answers."""
    file: int = 1 << 20
    """Bytes of one file, where files can be written at all."""
    descriptors: int = 64

    def for_child(self) -> dict[str, int]:
        return {
            "memory": self.memory, "file": self.file, "descriptors": self.descriptors,
            # A backstop in whole seconds: the kernel's own count for it is coarse, so `look` comes first.
            "cpu": math.ceil(self.cpu) + 1,
        }  # fmt: skip


@dataclass(frozen=True, slots=True)
class Job:
    """One run: a program as a script, a program that answers calls, or a program with a judge beside it."""

    program: str
    mode: Literal["script", "call", "serve"]
    stdin: bytes = b""
    calls: Sequence[tuple[str, Sequence[Any]]] = ()
    """For `call`: function names and plain arguments."""
    tests: Sequence[str] = ()
    """For `serve`: what the judge runs, one after the other."""
    setup: str = ""
    names: Sequence[str] = ()
    """For `serve`: the program's functions that tests call."""
    seed: int = 0
    limits: Limits = Limits()


@dataclass(slots=True)
class Ran:
    """What was seen of a run."""

    ended: Ended
    status: int
    """Of the program's process, as `wait` gives it."""
    cpu: float
    answers: list[wire.Tree]
    """What the program sent, in order, after it was ready."""
    stdout: bytes
    stderr: bytes
    verdicts: list[list[str]] | None = None
    """The judge's, one per test; None where it gave none."""
    rss: int = 0


@dataclass(slots=True)
class Part:
    """One process of a run."""

    number: int
    judge: bool
    pipes: dict[Stream, int] = field(default_factory=dict[Stream, int])
    data: dict[Stream, bytearray] = field(default_factory=dict[Stream, bytearray])
    pid: int = 0
    exit: dict[str, Any] | None = None


@dataclass(slots=True)
class Run:
    """A job on its way."""

    task: int
    job: Job
    attempt: int
    server: "Server"
    parts: list[Part]
    token: str
    started: float
    ready: float = 0.0
    ended: Ended = "exited"
    asleep: bool = False
    used: float = 0.0
    looked: float = 0.0
    killed: bool = False
    dismissed: bool = False
    fault: str = ""


class Server:
    """One fork server and the socket to it."""

    def __init__(self, tier: str, python: str, prefix: Sequence[str], scratch: int) -> None:
        self.tier = tier
        self.runs = 0
        self.workdir = tempfile.mkdtemp(prefix="soarctl-jail-") if tier in ("unsafe", "command") else None
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        package = str(Path(__file__).resolve().parents[2])
        inside = "command" if prefix else tier
        try:
            self.process = self.start(theirs, [*prefix, python], package, inside, scratch)
        except OSError as error:
            self.facts: dict[str, Any] = {"failed": str(error)}
        else:
            # Our copy of its end would keep us waiting for a server that has died.
            theirs.close()
            ours.settimeout(START_PATIENCE)
            self.facts = self.first_message(ours)
        finally:
            theirs.close()
        ours.settimeout(None)
        self.control = ours
        if "failed" in self.facts:
            self.close()
            raise SandboxError(f"the {tier} sandbox does not start: {self.facts['failed']}")

    def start(
        self, theirs: socket.socket, command: list[str], package: str, tier: str, scratch: int
    ) -> "subprocess.Popen[bytes]":
        # Nothing of our environment goes in, but what a shared interpreter needs to be started at all.
        environment = {"PYTHONHASHSEED": "0", "PYTHONUTF8": "1", "MALLOC_ARENA_MAX": "1"}
        if "LD_LIBRARY_PATH" in os.environ:
            environment["LD_LIBRARY_PATH"] = os.environ["LD_LIBRARY_PATH"]
        if tier == "command":  # a command such as bwrap has to be found
            environment["PATH"] = os.environ.get("PATH", os.defpath)
        descriptor = theirs.fileno()
        network = "0" if os.environ.get("SOARCTL_JAIL_NO_NETNS") else "1"
        return subprocess.Popen(
            [*command, "-s", "-S", "-B", "-P", "-c", BOOT, package, tier, str(descriptor), str(scratch), network],
            pass_fds=[descriptor], env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, cwd=self.workdir or "/", start_new_session=True,
        )  # fmt: skip

    def first_message(self, control: socket.socket) -> dict[str, Any]:
        """What a server says once it is ready, or why it is not."""
        try:
            facts: dict[str, Any] = json.loads(control.recv(4096) or b'{"failed": "it ended at once"}')
        except OSError as error:
            facts = {"failed": str(error)}
        if (said := self.hang_up_streams()) and "failed" in facts:
            facts["failed"] += f": {said}"
        return facts

    def hang_up_streams(self) -> str:
        """Closes our ends of the server's standard streams, which were pipes so that Python there sees pipes."""
        said = b""
        for stream in (self.process.stderr, self.process.stdout):
            if stream is not None:
                os.set_blocking(stream.fileno(), False)
                said = said or stream.read(4096) or b""
                stream.close()
        return said.decode("utf-8", "replace").strip()[-500:]

    def send(self, message: dict[str, Any], descriptors: Sequence[int] = ()) -> None:
        socket.send_fds(self.control, [json.dumps(message).encode()], list(descriptors))

    def close(self) -> None:
        """Hangs up, which ends the server and all its children, and waits for that."""
        self.control.close()
        process = getattr(self, "process", None)
        if process is not None:
            try:
                process.wait(timeout=2)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        if self.workdir:
            shutil.rmtree(self.workdir, ignore_errors=True)


class Pool:
    """Fork servers of one tier and everything that runs in them."""

    def __init__(
        self, tier: str, *, workers: int = 0, python: str = "", command: Sequence[str] = (), scratch: int = 16 << 20
    ) -> None:
        self.tier = tier
        self.workers = workers or max(2, len(os.sched_getaffinity(0)))
        self.python = python or sys.executable
        self.command = list(command)
        self.scratch = scratch
        self.faults: dict[str, int] = {}
        """Sandbox faults so far, by kind. Each was followed by a new attempt."""
        self.total = 0
        self.owner = os.getpid()
        self.lock = threading.Lock()
        self.numbers = 0
        self.servers: list[Server] = []
        self.by_part: dict[int, tuple[Run, Part]] = {}
        self.by_pipe: dict[int, tuple[Run, Part, Stream]] = {}
        self.runs: dict[int, Run] = {}
        self.timers: list[tuple[float, int]] = []
        self.next_look = 0.0
        self.poll = select.epoll()
        for _ in range(-(-self.workers // RUNS_PER_SERVER)):
            self.add_server()

    # --- servers -----------------------------------------------------------------------------------------------

    def add_server(self) -> None:
        server = Server(self.tier, self.python, self.command, self.scratch)
        self.servers.append(server)
        self.poll.register(server.control.fileno(), select.EPOLLIN)

    def lose_server(self, server: Server) -> None:
        """A server died or cannot be talked to: its runs are repeated elsewhere."""
        self.count("server lost")
        self.servers.remove(server)
        with contextlib.suppress(OSError):
            self.poll.unregister(server.control.fileno())
        server.close()
        self.add_server()
        for run in [run for run in self.runs.values() if run.server is server]:
            run.fault = "server lost"
            self.done.append(run)

    def close(self) -> None:
        for run in list(self.runs.values()):
            self.forget(run)
        for server in self.servers:
            server.close()
        self.servers.clear()
        self.poll.close()

    def count(self, kind: str) -> None:
        self.faults[kind] = self.faults.get(kind, 0) + 1

    # --- the loop ----------------------------------------------------------------------------------------------

    def drive(self, tasks: Iterable[Generator[Job, Ran, T]]) -> list[T]:
        """Runs tasks side by side. A task yields jobs, one at a time, gets what was seen of each, and returns.

        Raises:
            SandboxError: a run could not be brought to an end, whoever's fault, in several attempts.
        """
        with self.lock:
            generators = list(tasks)
            results: dict[int, T] = {}
            waiting: deque[tuple[int, Job, int]] = deque()
            fresh = iter(range(len(generators)))
            self.done: list[Run] = []
            try:
                while len(results) < len(generators):
                    while self.has_room():
                        if not waiting:
                            index = next(fresh, None)
                            if index is None:
                                break
                            self.step(generators, results, waiting, index, None)
                        if waiting:
                            self.start(*waiting.popleft())
                    self.wait()
                    for run in self.done:
                        self.finish(run, generators, results, waiting)
                    self.done.clear()
            except BaseException:
                self.abandon()
                raise
            return [results[index] for index in range(len(generators))]

    def step(
        self, generators: list[Generator[Job, Ran, T]], results: dict[int, T],
        waiting: "deque[tuple[int, Job, int]]", index: int, ran: Ran | None,
    ) -> None:  # fmt: skip
        """Lets one task go on until its next job or its end."""
        try:
            job = next(generators[index]) if ran is None else generators[index].send(ran)
            waiting.appendleft((index, job, 1))
        except StopIteration as stop:
            results[index] = stop.value

    def finish(
        self, run: Run, generators: list[Generator[Job, Ran, T]], results: dict[int, T],
        waiting: "deque[tuple[int, Job, int]]",
    ) -> None:  # fmt: skip
        ran = None if run.fault else self.observe(run)
        self.forget(run)
        if run.fault == "killed from outside" and run.attempt == ATTEMPTS:
            # Three fresh starts and always killed by something that is not us: it takes more memory than there is.
            ran = Ran("killed", signal.SIGKILL, 0.0, [], b"", b"")
        if ran is not None:
            self.step(generators, results, waiting, run.task, ran)
        elif run.attempt < ATTEMPTS:
            self.count(run.fault)
            time.sleep(0.05 * (run.attempt - 1))
            waiting.append((run.task, run.job, run.attempt + 1))
        else:
            raise SandboxError(
                f"a run failed {ATTEMPTS} times for reasons of the sandbox: {run.fault}",
                hint=f"faults so far: {self.faults}; memory, processes or disk of the machine may be exhausted",
            )

    def has_room(self) -> bool:
        asleep = sum(run.asleep for run in self.runs.values())
        return len(self.runs) - asleep < self.workers and asleep < ASLEEP_AT_ONCE

    def wait(self) -> None:
        """Waits for the next event and handles all that are there."""
        now = time.monotonic()
        pause = min(max(self.timers[0][0] - now, 0.0), TICK) if self.timers else TICK
        for descriptor, _ in self.poll.poll(pause):
            entry = self.by_pipe.get(descriptor)
            if entry is not None:
                self.read(*entry)
                continue
            for server in self.servers:
                if server.control.fileno() == descriptor:
                    self.hear(server)
                    break
        self.look()

    # --- one run -----------------------------------------------------------------------------------------------

    def start(self, task: int, job: Job, attempt: int) -> None:
        """Sends a job to the server with the fewest runs."""
        server = min(self.servers, key=lambda s: sum(run.server is s for run in self.runs.values()))
        now = time.monotonic()
        token = secrets.token_hex(8)
        run = Run(task, job, attempt, server, [], token, now)
        seed = {"seed": job.seed, "limits": job.limits.for_child()}
        opened: list[int] = []
        try:
            if job.mode == "serve":
                ask_read, ask_write = os.pipe()
                reply_read, reply_write = os.pipe()
                opened += [ask_read, ask_write, reply_read, reply_write]
                judge = {"role": "judge", "tests": list(job.tests), "setup": job.setup, "token": token}
                judge |= {"names": list(job.names), **seed}
                self.fork(run, self.part(run, judge=True), judge, {4: ask_write, 5: reply_read}, opened)
                candidate = {"role": "candidate", "program": job.program, "mode": "serve", **seed}
                self.fork(run, self.part(run), candidate, {4: ask_read, 5: reply_write}, opened)
            else:
                calls = [[name, [wire.encode(value) for value in values]] for name, values in job.calls]
                candidate = {"role": "candidate", "program": job.program, "mode": job.mode, "calls": calls, **seed}
                extra: dict[int, int] = {}
                if job.mode == "script":
                    extra[0] = memory_file(job.stdin)
                    opened.append(extra[0])
                self.fork(run, self.part(run), candidate, extra, opened)
        except OSError as error:
            run.fault = f"start: {error.strerror}"
            self.done.append(run)
        finally:
            for descriptor in opened:
                os.close(descriptor)
        self.runs[id(run)] = run
        heapq.heappush(self.timers, (now + START_PATIENCE, id(run)))

    def part(self, run: Run, *, judge: bool = False) -> Part:
        self.numbers += 1
        part = Part(self.numbers, judge)
        run.parts.append(part)
        self.by_part[part.number] = (run, part)
        return part

    def fork(self, run: Run, part: Part, job: dict[str, Any], extra: dict[int, int], opened: list[int]) -> None:
        """Asks the server for a child with this job and these descriptors."""
        places = dict(extra)
        places[9] = memory_file(json.dumps(job).encode())
        opened.append(places[9])
        streams: dict[Stream, int] = {"result": 3} if part.judge else {"result": 3, "stdout": 1, "stderr": 2}
        for stream, place in streams.items():
            reader, places[place] = os.pipe()
            opened.append(places[place])
            os.set_blocking(reader, False)
            part.pipes[stream] = reader
            part.data[stream] = bytearray()
            self.by_pipe[reader] = (run, part, stream)
            self.poll.register(reader, select.EPOLLIN)
        run.server.send({"fork": part.number, "places": list(places)}, list(places.values()))

    def read(self, run: Run, part: Part, stream: Stream) -> None:
        """Takes what a pipe holds, up to its cap; beyond it the run is over."""
        descriptor = part.pipes[stream]
        try:
            chunk = os.read(descriptor, 1 << 16)
        except BlockingIOError:
            return
        if not chunk:
            self.close_pipe(part, stream)
            return
        data = part.data[stream]
        data += chunk
        if stream == "result" and part.pid == 0:
            self.note_start(run, part)
        cap = run.job.limits.result if stream == "result" else run.job.limits.output
        if len(data) > cap:
            del data[cap:]
            self.close_pipe(part, stream)
            self.kill(run, "output_limit")

    def note_start(self, run: Run, part: Part) -> None:
        """The first frame comes from our own code in the child: it is confined now, or could not be."""
        first = wire.frames(bytes(part.data["result"]))[:1]
        if not first:
            return
        if first[0][0] == "fault":
            run.fault = f"confinement: {first[0][1]}"
            self.kill(run, "killed")
            part.pid = -1
            return
        part.pid = int(first[0][1], 16)
        if all(other.pid > 0 for other in run.parts):
            run.ready = time.monotonic()
            heapq.heappush(self.timers, (run.ready + run.job.limits.wall, id(run)))

    def close_pipe(self, part: Part, stream: Stream) -> None:
        descriptor = part.pipes.pop(stream)
        del self.by_pipe[descriptor]
        self.poll.unregister(descriptor)
        os.close(descriptor)

    def kill(self, run: Run, why: Ended) -> None:
        if run.killed:
            return
        run.killed = True
        run.ended = why
        for part in run.parts:
            self.kill_part(run, part)

    def kill_part(self, run: Run, part: Part) -> None:
        if part.exit is None:
            with contextlib.suppress(OSError):
                run.server.send({"kill": part.number})

    def hear(self, server: Server) -> None:
        """Takes one message of a server."""
        try:
            data = server.control.recv(4096)
        except OSError:
            data = b""
        if not data:
            self.lose_server(server)
            return
        message = json.loads(data)
        entry = self.by_part.get(message.get("exit", message.get("fault", -1)))
        if entry is None:
            return
        run, part = entry
        if "fault" in message:
            run.fault = message["error"]
            self.kill(run, "killed")
            message = {"status": 0, "cpu": 0.0, "rss": 0}
        part.exit = message
        for stream in list(part.pipes):
            while stream in part.pipes and self.readable(part, stream):
                self.read(run, part, stream)
        if part.judge:  # its work is done, or it failed: the candidate has nobody to answer
            run.dismissed = True
            for other in run.parts:
                self.kill_part(run, other)
        if all(other.exit is not None for other in run.parts):
            self.done.append(run)

    def readable(self, part: Part, stream: Stream) -> bool:
        ready, _, _ = select.select([part.pipes[stream]], [], [], 0)
        return bool(ready)

    def look(self) -> None:
        """Checks deadlines, and which long runs are asleep and so leave their CPU to others."""
        now = time.monotonic()
        while self.timers and self.timers[0][0] <= now:
            _, key = heapq.heappop(self.timers)
            run = self.runs.get(key)
            if run is not None:
                self.check_deadline(run, now)
        if now < self.next_look:
            return
        self.next_look = now + TICK
        for run in self.runs.values():
            if run.ready and now - run.ready > TICK and not run.killed:
                usages = [waited_and_worked(part.pid) for part in run.parts]
                used = sum(sum(usage) for usage in usages)
                run.asleep = used - run.used < 0.2 * (now - run.looked)
                run.used, run.looked = used, now
                if sum(worked for _, worked in usages) >= run.job.limits.cpu:
                    self.kill(run, "timeout")

    def check_deadline(self, run: Run, now: float) -> None:
        if run.killed:
            return
        limits = run.job.limits
        if not run.ready:
            if now - run.started >= START_PATIENCE:
                run.fault = "not ready in time"
                self.kill(run, "killed")
            return
        usages = [waited_and_worked(part.pid) for part in run.parts]
        waited, worked = (sum(column) for column in zip(*usages, strict=True))
        left = limits.wall - (now - run.ready - waited)
        if left <= 0.001 or worked >= limits.cpu:
            self.kill(run, "timeout")
        elif now - run.ready > STARVED * limits.wall:
            run.fault = "starved of CPU"
            self.kill(run, "killed")
        else:
            heapq.heappush(self.timers, (now + max(left, 0.002), id(run)))

    def observe(self, run: Run) -> Ran | None:
        """What was seen of an ended run, or None with `run.fault` set where the sandbox failed it."""
        program = run.parts[-1]
        exits = [part.exit or {} for part in run.parts]
        unready = [part for part in run.parts if part.pid <= 0 and (part.judge or not run.dismissed)]
        if unready and run.ended == "exited":
            run.fault = "ended before it was confined"
            return None
        status, cpu = exits[-1]["status"], sum(exit["cpu"] for exit in exits)
        ended = run.ended
        for part, exit in zip(run.parts, exits, strict=True):
            signalled = os.WTERMSIG(exit["status"]) if os.WIFSIGNALED(exit["status"]) else 0
            struck = signalled == signal.SIGKILL
            if ended == "exited" and (exit["cpu"] >= run.job.limits.cpu or signalled == signal.SIGXCPU):
                ended = "timeout"
            elif struck and ended == "exited" and (part.judge or len(run.parts) == 1):
                # No program can send this signal, not even to itself.
                run.fault = "killed from outside"
                return None
        verdicts = None
        if len(run.parts) == 2:
            for frame in wire.frames(bytes(run.parts[0].data["result"])):
                if isinstance(frame, list) and frame[:2] == ["verdicts", run.token]:
                    verdicts = frame[2]
        return Ran(
            ended=ended, status=status, cpu=cpu, answers=wire.frames(bytes(program.data["result"]))[1:],
            stdout=bytes(program.data["stdout"]), stderr=bytes(program.data["stderr"]), verdicts=verdicts,
            rss=exits[-1]["rss"],
        )  # fmt: skip

    def forget(self, run: Run) -> None:
        self.total += 1
        self.runs.pop(id(run), None)
        for part in run.parts:
            self.by_part.pop(part.number, None)
            for stream in list(part.pipes):
                self.close_pipe(part, stream)
            self.kill_part(run, part)

    def abandon(self) -> None:
        """After an error: nothing of the runs under way may outlive it."""
        for run in list(self.runs.values()):
            self.forget(run)
        self.timers.clear()


def memory_file(data: bytes) -> int:
    """An anonymous file with this content, read from its start."""
    descriptor = os.memfd_create("job", os.MFD_CLOEXEC)
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]
    os.lseek(descriptor, 0, os.SEEK_SET)
    return descriptor


def waited_and_worked(pid: int) -> tuple[float, float]:
    """Seconds for which a process could have run and had no CPU, and seconds of CPU that it had; zeros if unknown."""
    waited = worked = 0
    try:
        for task in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{task}/schedstat") as file:
                run, delay, _ = file.read().split()
            worked += int(run)
            waited = max(waited, int(delay))
    except (OSError, ValueError):
        return waited / 1e9, worked / 1e9
    return waited / 1e9, worked / 1e9
