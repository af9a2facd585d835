"""The outside of the jail: starts fork servers, hands out runs, keeps the clocks and collects what comes back.

What it sees itself comes first: the deadline, the CPU time that the kernel counted, the size of the output, the exit
status. A fault of the sandbox (a server that died, a fork that was refused) is counted and the run repeated; it never
becomes a finding about a program.
"""

import contextlib
import heapq
import marshal
import os
import secrets
import select
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from soarctl_code.jail import wire
from soarctl_code.jail.jobs import Ended, Job, Ran, SandboxError, Stream
from soarctl_code.jail.servers import START_PATIENCE, Server
from soarctl_code.jail.wire import ASK, JOB, REPLY, RESULT

T = TypeVar("T")

RUNS_PER_SERVER = 4  # at once; one fork takes about a millisecond, and a server forks one at a time
ASLEEP_AT_ONCE = 48
TICK = 0.05  # between looks at a run that takes long
KILL_PATIENCE = 10.0  # after which a server that does not report a killed child is taken for lost
# On a machine so busy that a run takes this many seconds longer than its wall limit, half of the CPU limit will do.
PATIENCE, ENOUGH = 1.0, 0.5
PROCESS_CLOCK = 2  # CPUCLOCK_SCHED: with a pid before it, the clock of that process
THREADS_SEEN = 64
SMALL = (
    64 << 20
)  # bytes beside the interpreter's own: who holds more and sleeps keeps its place, or sleepers fill memory
SCHEDSTAT = os.path.exists("/proc/self/schedstat")
STARVED = 20  # times the wall limit, after which the machine and not the program is at fault
ATTEMPTS = 4
JOB_FORMAT = 2  # of marshal: the newest that every interpreter reads alike


@dataclass(frozen=True, slots=True)
class Exit:
    """What the kernel said about a process at its end."""

    status: int = 0
    """As `wait` gives it."""
    cpu: float = 0.0
    rss: int = 0
    """KiB."""


@dataclass(slots=True)
class Part:
    """One process of a run."""

    number: int
    judge: bool
    pipes: dict[Stream, int] = field(default_factory=dict[Stream, int])
    data: dict[Stream, bytearray] = field(default_factory=dict[Stream, bytearray])
    pid: int = 0
    exit: Exit | None = None
    struck_by_us: bool = False


@dataclass(slots=True)
class Run:
    """A job on its way."""

    number: int
    task: int
    job: Job
    attempt: int
    server: Server
    parts: list[Part]
    token: str
    started: float
    ready: float = 0.0
    ended: Ended = "exited"
    asleep: bool = False
    used: float = 0.0
    looked: float = 0.0
    killed: float = 0.0
    """When, on the clock; 0 if it was not."""
    dismissed: bool = False
    over: bool = False

    def usage(self) -> tuple[float, float] | None:
        """Seconds in which its processes waited for a CPU, and in which they had one; None if one has ended."""
        try:
            usages = [waited_and_worked(part.pid) for part in self.parts if part.exit is None]
        except OSError:
            # Also where a kernel does not count: then the clock on the wall decides, and CPU limits are the kernel's.
            return None if SCHEDSTAT else (0.0, 0.0)
        return sum(waited for waited, _ in usages), sum(worked for _, worked in usages)

    def seconds_left(self, now: float, waited: float, worked: float) -> float:
        """Until its time is up at the earliest. The clock stands still while the machine has no CPU for the run."""
        limits, elapsed = self.job.limits, now - self.ready
        if worked >= limits.cpu or (elapsed >= limits.wall + PATIENCE and worked >= ENOUGH * limits.cpu):
            return 0.0
        return limits.wall - (elapsed - waited)

    fault: str = ""


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
            self.end(run)

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
        self.numbers += 1
        run = Run(self.numbers, task, job, attempt, server, [], token, now)
        seed = {"seed": job.seed, "limits": job.limits.for_child()}
        opened: list[int] = []
        try:
            if job.mode == "serve":
                ask_read, ask_write = os.pipe()
                reply_read, reply_write = os.pipe()
                opened += [ask_read, ask_write, reply_read, reply_write]
                judge = {"role": "judge", "tests": list(job.tests), "setup": job.setup, "token": token}
                judge |= {"names": list(job.names), **seed}
                self.fork(run, self.part(run, judge=True), judge, {ASK: ask_write, REPLY: reply_read}, opened)
                candidate = {"role": "candidate", "program": job.program, "mode": "serve", **seed}
                self.fork(run, self.part(run), candidate, {ASK: ask_read, REPLY: reply_write}, opened)
            else:
                calls = [
                    [name, [wire.encode(value, items=sys.maxsize) for value in values]] for name, values in job.calls
                ]
                candidate = {"role": "candidate", "program": job.program, "mode": job.mode, "calls": calls, **seed}
                extra: dict[int, int] = {}
                if job.mode == "script":
                    extra[0] = memory_file(job.stdin)
                    opened.append(extra[0])
                self.fork(run, self.part(run), candidate, extra, opened)
        except OSError as error:
            run.fault = f"start: {error.strerror}"
            self.end(run)
        finally:
            for descriptor in opened:
                os.close(descriptor)
        self.runs[run.number] = run
        heapq.heappush(self.timers, (now + START_PATIENCE, run.number))

    def part(self, run: Run, *, judge: bool = False) -> Part:
        self.numbers += 1
        part = Part(self.numbers, judge)
        run.parts.append(part)
        self.by_part[part.number] = (run, part)
        return part

    def fork(self, run: Run, part: Part, job: dict[str, Any], extra: dict[int, int], opened: list[int]) -> None:
        """Asks the server for a child with this job and these descriptors."""
        # In this order: they arrive at 3, 4, ... and only those for 0, 1 and 2 have to be moved.
        places = {RESULT: self.pipe(run, part, "result", opened), JOB: memory_file(marshal.dumps(job, JOB_FORMAT))}
        opened.append(places[JOB])
        places |= extra
        if not part.judge:
            places |= {1: self.pipe(run, part, "stdout", opened), 2: self.pipe(run, part, "stderr", opened)}
        run.server.send(f"fork {part.number} {' '.join(map(str, places))}", list(places.values()))

    def pipe(self, run: Run, part: Part, stream: Stream, opened: list[int]) -> int:
        """A pipe that is read here; the end for the child."""
        reader, writer = os.pipe()
        opened.append(writer)
        os.set_blocking(reader, False)
        part.pipes[stream] = reader
        part.data[stream] = bytearray()
        self.by_pipe[reader] = (run, part, stream)
        self.poll.register(reader, select.EPOLLIN)
        return writer

    def read(self, run: Run, part: Part, stream: Stream) -> bool:
        """Takes some of what a pipe holds, up to its cap; beyond it the run is over. False if there was nothing."""
        descriptor = part.pipes[stream]
        try:
            chunk = os.read(descriptor, 1 << 16)
        except BlockingIOError:
            return False
        if not chunk:
            self.close_pipe(part, stream)
            return False
        data = part.data[stream]
        data += chunk
        if stream == "result" and part.pid == 0:
            self.note_start(run, part)
        cap = run.job.limits.result if stream == "result" else run.job.limits.output
        if len(data) > cap:
            del data[cap:]
            self.close_pipe(part, stream)
            self.kill(run, "output_limit")
        return True

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
            run.ready = run.looked = time.monotonic()
            heapq.heappush(self.timers, (run.ready + run.job.limits.wall, run.number))

    def close_pipe(self, part: Part, stream: Stream) -> None:
        descriptor = part.pipes.pop(stream)
        del self.by_pipe[descriptor]
        self.poll.unregister(descriptor)
        os.close(descriptor)

    def kill(self, run: Run, why: Ended) -> None:
        if run.killed or run.over:
            return
        run.killed = time.monotonic()
        run.ended = why
        heapq.heappush(self.timers, (run.killed + KILL_PATIENCE, run.number))
        for part in run.parts:
            self.kill_part(run, part)

    def kill_part(self, run: Run, part: Part) -> None:
        if part.exit is None:
            part.struck_by_us = True
            with contextlib.suppress(OSError):
                run.server.send(f"kill {part.number}")

    def hear(self, server: Server) -> None:
        """Takes one message of a server."""
        try:
            data = server.control.recv(4096)
        except OSError:
            data = b""
        if not data:
            self.lose_server(server)
            return
        verb, number, *words = data.decode().split(" ", 4)
        entry = self.by_part.get(int(number))
        if entry is None:
            return
        run, part = entry
        if verb == "fault":
            run.fault = " ".join(words)
            self.kill(run, "killed")
            part.exit = Exit()
        else:
            part.exit = Exit(int(words[0]), float(words[1]), int(words[2]))
        for stream in list(part.pipes):
            while stream in part.pipes and self.read(run, part, stream):
                pass
        if part.judge:  # its work is done, or it failed: the candidate has nobody to answer
            run.dismissed = True
            for other in run.parts:
                self.kill_part(run, other)
        if all(other.exit is not None for other in run.parts):
            self.end(run)

    def end(self, run: Run) -> None:
        if not run.over:
            run.over = True
            self.done.append(run)

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
                if (usage := run.usage()) is None:
                    continue
                waited, worked = usage
                idle = waited + worked - run.used < 0.2 * (now - run.looked)
                run.asleep = idle and sum(run.server.taken(part.pid) for part in run.parts) < SMALL
                run.used, run.looked = waited + worked, now
                if run.seconds_left(now, waited, worked) <= 0:
                    self.kill(run, "timeout")

    def check_deadline(self, run: Run, now: float) -> None:
        if run.killed:
            if now - run.killed >= KILL_PATIENCE:
                self.lose_server(run.server)
        elif not run.ready:
            if now - run.started >= START_PATIENCE:
                run.fault = "not ready in time"
                self.kill(run, "killed")
        elif (usage := run.usage()) is None:
            heapq.heappush(self.timers, (now + TICK, run.number))  # its end is about to be reported
        elif (left := run.seconds_left(now, *usage)) <= 0.001:
            self.kill(run, "timeout")
        elif now - run.ready > STARVED * run.job.limits.wall:
            run.fault = "starved of CPU"
            self.kill(run, "killed")
        else:
            heapq.heappush(self.timers, (now + max(left, 0.002), run.number))

    def observe(self, run: Run) -> Ran | None:
        """What was seen of an ended run, or None with `run.fault` set where the sandbox failed it."""
        program = run.parts[-1]
        exits = [part.exit or Exit() for part in run.parts]
        unready = [part for part in run.parts if part.pid <= 0 and (part.judge or not run.dismissed)]
        if unready and run.ended == "exited":
            run.fault = "ended before it was confined"
            return None
        status, cpu = exits[-1].status, sum(exit.cpu for exit in exits)
        ended = run.ended
        for part, exit in zip(run.parts, exits, strict=True):
            signalled = os.WTERMSIG(exit.status) if os.WIFSIGNALED(exit.status) else 0
            struck = signalled == signal.SIGKILL
            if ended == "exited" and exit.cpu >= run.job.limits.cpu:
                ended = "timeout"
            elif struck and ended == "exited" and not part.struck_by_us:
                # No program can send this signal, not even to itself.
                run.fault = "killed from outside"
                return None
        verdicts = None
        if len(run.parts) == 2:
            for frame in wire.frames(bytes(run.parts[0].data["result"])):
                if isinstance(frame, list) and frame[:2] == ["verdicts", run.token]:
                    verdicts = told_verdicts(frame)
        return Ran(
            ended=ended, status=status, cpu=cpu, answers=wire.frames(bytes(program.data["result"]))[1:],
            stdout=bytes(program.data["stdout"]), stderr=bytes(program.data["stderr"]), verdicts=verdicts,
            rss=exits[-1].rss,
        )  # fmt: skip

    def forget(self, run: Run) -> None:
        self.runs.pop(run.number, None)
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


def told_verdicts(frame: list[wire.Tree]) -> list[list[str]] | None:
    """The verdicts in a judge's report; None if it is none, since hostile tests may have written it."""
    verdicts: list[wire.Tree] | None = frame[2] if len(frame) == 3 and isinstance(frame[2], list) else None
    for verdict in verdicts or []:
        if not (isinstance(verdict, list) and [type(word) for word in verdict] == [str, str]):
            return None
    return verdicts


def memory_file(data: bytes) -> int:
    """An anonymous file with this content, read from its start."""
    descriptor = os.memfd_create("job", os.MFD_CLOEXEC)
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]
    os.lseek(descriptor, 0, os.SEEK_SET)
    return descriptor


def waited_and_worked(pid: int) -> tuple[float, float]:
    """Seconds for which a process could have run and had no CPU, and seconds of CPU that all its threads had.

    Raises:
        OSError: it is gone.
    """
    worked = time.clock_gettime(~pid << 3 | PROCESS_CLOCK)
    waited = 0
    for task in os.listdir(f"/proc/{pid}/task")[:THREADS_SEEN]:
        with open(f"/proc/{pid}/task/{task}/schedstat") as file:
            waited = max(waited, int(file.read().split()[1]))
    return waited / 1e9, worked
