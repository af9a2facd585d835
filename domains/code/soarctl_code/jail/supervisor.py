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
from dataclasses import dataclass, field, replace
from pathlib import Path
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
MOST_TASKS = 256  # of a run, or one program could use up what the machine allows its user
UNSEEN = 1.0  # seconds for which /proc may say nothing of a run that is about to be reported as ended
# Bytes beside the interpreter's own: who holds more and sleeps keeps its place, or sleepers fill memory.
SMALL = 64 << 20
ASLEEP_HOLD = 512 << 20  # all together that have given their place away, whatever they did afterwards
# Where the kernel does not count what processes wait for a CPU, the clock on the wall decides.
SCHEDSTAT = os.path.exists("/proc/self/schedstat")
STARVED = 20  # times the wall limit, after which the machine and not the program is at fault
ATTEMPTS = 4
CROWDED_OUT = "sleepers held too much"
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


@dataclass(frozen=True, slots=True)
class Start:
    """A run that is to be started."""

    task: int
    job: Job
    attempt: int = 1
    keeps_place: bool = False
    """It never leaves its place to others, though it sleeps."""


@dataclass(frozen=True, slots=True)
class Usage:
    """What a run has had so far."""

    waited: float = 0.0
    """Seconds in which its processes could have run and had no CPU."""
    worked: float = 0.0
    """Seconds of CPU."""
    tasks: int = 0
    """Processes and threads there are now."""


@dataclass(slots=True)
class Run:
    """A job on its way."""

    number: int
    start: Start
    server: Server
    parts: list[Part]
    token: str
    started: float
    ready: float = 0.0
    ended: Ended = "exited"
    asleep: bool = False
    slept: bool = False
    """Whether another was let in for it."""
    unseen: float = 0.0
    """Since when /proc says nothing of it; 0 if it does."""
    used: float = 0.0
    looked: float = 0.0
    killed: float = 0.0
    """When, on the clock; 0 if it was not."""
    dismissed: bool = False
    over: bool = False

    fault: str = ""

    @property
    def job(self) -> Job:
        return self.start.job

    def usage(self, now: float) -> Usage | None:
        """What it has had so far; None if one of its processes has ended, which is about to be reported."""
        pids = [part.pid for part in self.parts if part.exit is None]
        worked = 0.0
        try:
            worked = sum(map(seconds_worked, pids))
            waits = list(map(waited_and_tasks, pids))
        except OSError:
            # Or /proc hides it (hidepid): then the clock on the wall decides.
            self.unseen = self.unseen or now
            return None if now - self.unseen < UNSEEN else Usage(worked=worked)
        self.unseen = 0.0
        return Usage(sum(waited for waited, _ in waits), worked, sum(tasks for _, tasks in waits))

    def waits(self) -> bool:
        """Whether one of its processes waits for a CPU now; the kernel counts that only when it gets one."""
        return any(runnable(part.pid) for part in self.parts if part.exit is None)

    def taken(self) -> float:
        """Bytes that its processes hold beyond what they were born with; infinite if that cannot be seen."""
        return sum(self.server.taken(part.pid) for part in self.parts if part.exit is None)

    def seconds_left(self, now: float, usage: Usage) -> float:
        """Until its time is up at the earliest. The clock stands still while the machine has no CPU for the run."""
        limits, elapsed = self.job.limits, now - self.ready
        if usage.worked >= limits.cpu or (elapsed >= limits.wall + PATIENCE and usage.worked >= ENOUGH * limits.cpu):
            return 0.0
        return limits.wall - (elapsed - usage.waited)


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
        self.crowded = False
        """A fork was refused: nothing is started before a run has ended."""
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
            waiting: deque[Start] = deque()
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
                            self.start(waiting.popleft())
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
        waiting: deque[Start], index: int, ran: Ran | None,
    ) -> None:  # fmt: skip
        """Lets one task go on until its next job or its end."""
        try:
            job = next(generators[index]) if ran is None else generators[index].send(ran)
            waiting.appendleft(Start(index, job))
        except StopIteration as stop:
            results[index] = stop.value

    def finish(
        self, run: Run, generators: list[Generator[Job, Ran, T]], results: dict[int, T], waiting: deque[Start]
    ) -> None:
        ran = None if run.fault else self.observe(run)
        self.forget(run)
        start = run.start
        if run.fault == "killed from outside" and start.attempt == ATTEMPTS:
            # Three fresh starts and always killed by something that is not us: it takes more memory than there is.
            ran = Ran("killed", signal.SIGKILL, 0.0, [], b"", b"")
        # Others have what it lacks, and will have ended some time: that is no attempt of its own.
        self.crowded = run.fault.startswith("fork: ") and bool(self.runs)
        if ran is not None:
            self.step(generators, results, waiting, start.task, ran)
        elif self.crowded:
            self.count(run.fault)
            waiting.appendleft(start)
        elif run.fault == CROWDED_OUT:
            self.count(run.fault)
            waiting.append(replace(start, keeps_place=True))
        elif start.attempt < ATTEMPTS:
            self.count(run.fault)
            time.sleep(0.05 * (start.attempt - 1))
            waiting.append(replace(start, attempt=start.attempt + 1))
        else:
            raise SandboxError(
                f"a run failed {ATTEMPTS} times for reasons of the sandbox: {run.fault}",
                hint=f"faults so far: {self.faults}; memory, processes or disk of the machine may be exhausted",
            )

    def has_room(self) -> bool:
        asleep = sum(run.asleep for run in self.runs.values())
        return len(self.runs) - asleep < self.workers and asleep < ASLEEP_AT_ONCE and not self.crowded

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

    def start(self, start: Start) -> None:
        """Sends a job to the server with the fewest runs."""
        job = start.job
        server = min(self.servers, key=lambda s: sum(run.server is s for run in self.runs.values()))
        now = time.monotonic()
        token = secrets.token_hex(8)
        self.numbers += 1
        run = Run(self.numbers, start, server, [], token, now)
        seed = {"seed": job.seed, "limits": job.limits.for_child()}
        program = {"role": "candidate", "preamble": job.preamble, "program": job.program, **seed}
        opened: list[int] = []
        try:
            if job.mode == "serve":
                ask_read, ask_write = os.pipe()
                reply_read, reply_write = os.pipe()
                opened += [ask_read, ask_write, reply_read, reply_write]
                judge = {"role": "judge", "tests": list(job.tests), "setup": job.setup, "token": token}
                judge |= {"names": list(job.names), **seed}
                self.fork(run, self.part(run, judge=True), judge, {ASK: ask_write, REPLY: reply_read}, opened)
                candidate = {**program, "mode": "serve"}
                self.fork(run, self.part(run), candidate, {ASK: ask_read, REPLY: reply_write}, opened)
            else:
                calls = [
                    [name, [wire.encode(value, items=sys.maxsize) for value in values]] for name, values in job.calls
                ]
                candidate = {**program, "mode": job.mode, "calls": calls}
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
        room = float(ASLEEP_HOLD)
        for run in self.runs.values():
            if run.ready and now - run.ready > TICK and not run.killed and (usage := run.usage(now)) is not None:
                room = self.look_at(run, usage, now, room)

    def look_at(self, run: Run, usage: Usage, now: float, room: float) -> float:
        """Checks one run.

        Args:
            run: it.
            usage: what it has had.
            now: the time.
            room: bytes that it and those after it may hold, if they sleep or have slept.

        Returns:
            What it leaves of the room.
        """
        used = usage.waited + usage.worked
        idle = used - run.used < 0.2 * (now - run.looked) and not run.start.keeps_place and not run.waits()
        run.used, run.looked = used, now
        if run.seconds_left(now, usage) <= 0:
            self.kill(run, "timeout")
        elif usage.tasks > MOST_TASKS:
            self.kill(run, "killed")
        elif idle or run.slept:
            taken = run.taken()
            run.asleep = idle and taken < SMALL and taken <= room
            run.slept |= run.asleep
            if run.slept and taken > room:
                run.fault = CROWDED_OUT
                self.kill(run, "killed")
            elif run.slept:
                return room - taken
        else:
            run.asleep = False
        return room

    def check_deadline(self, run: Run, now: float) -> None:
        if run.killed:
            if now - run.killed >= KILL_PATIENCE:
                self.lose_server(run.server)
            return
        if not run.ready:
            if now - run.started >= START_PATIENCE:
                run.fault = "not ready in time"
                self.kill(run, "killed")
            return
        usage = run.usage(now)
        left = TICK if usage is None else run.seconds_left(now, usage)
        if left <= 0.001:
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


def seconds_worked(pid: int) -> float:
    """Seconds of CPU that all threads of a process had.

    Raises:
        OSError: it is gone.
    """
    return time.clock_gettime(~pid << 3 | PROCESS_CLOCK)


def waited_and_tasks(pid: int) -> tuple[float, int]:
    """Seconds for which a process could have run and had no CPU, and the number of its threads.

    Raises:
        OSError: it is gone, or hidden.
    """
    tasks = os.listdir(f"/proc/{pid}/task")
    waits: list[int] = []
    for task in tasks[:THREADS_SEEN]:
        # A thread may have ended since, and programs can see to it that one always has.
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            waits.append(int(Path(f"/proc/{pid}/task/{task}/schedstat").read_bytes().split()[1]))
    if SCHEDSTAT and not waits:
        raise ProcessLookupError(f"process {pid}")
    return max(waits, default=0) / 1e9, len(tasks)


def runnable(pid: int) -> bool:
    """Whether a process has a CPU or waits for one."""
    try:
        return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[0] == b"R"
    except OSError:
        return False
