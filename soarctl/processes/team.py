"""The first process and those that work for it: a queue of jobs that outlives any of the others."""

import faulthandler
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

from soarctl.crew import ATTEMPTS, FAILURES, Crew, Failed, Job, Result, Together, Workplace, said
from soarctl.errors import RunError, SoarError, disk_errors
from soarctl.practice import PracticeJob
from soarctl.processes.channel import Channel, Door, Gone
from soarctl.processes.ranks import Rank
from soarctl.processes.watchdog import deadline
from soarctl.processes.wire import Done, Event, Hello, Mistake, Ready, Stop, Task, Trouble

# A process that says nothing shows its stacks and ends by itself; so much later it is given up in any case.
_MARGIN = 5.0
_END_SECONDS = 15.0
_FIRST = 0
# Where one of these facts differs, so do the results.
_SAME = ("weights_sha256", "dtype")


@dataclass(eq=False)
class _Work:
    """A job on the way to its result."""

    index: int
    job: Job[Any]
    attempts: int = 0
    failed_in: int | None = None
    """The process that is not to have it again, if another one can."""


@dataclass(frozen=True)
class _Lost:
    """The process is gone."""

    reason: str


@dataclass(frozen=True)
class _News:
    """What a process said, and about which job."""

    rank: int
    message: Done | Trouble | Mistake | Event | Ready | _Lost
    work: _Work | None = None


@dataclass
class _Queue:
    """Jobs that wait, and who is there to do them."""

    waiting: deque[_Work] = field(default_factory=deque[_Work])
    present: set[int] = field(default_factory=lambda: {_FIRST})
    closed: bool = False
    changed: threading.Condition = field(default_factory=threading.Condition)

    def offer(self, works: Sequence[_Work]) -> None:
        with self.changed:
            self.waiting.extend(works)
            self.changed.notify_all()

    def withdraw(self) -> None:
        with self.changed:
            self.waiting.clear()

    def leave(self, rank: int) -> None:
        with self.changed:
            self.present.discard(rank)
            self.changed.notify_all()

    def close(self) -> None:
        with self.changed:
            self.closed = True
            self.changed.notify_all()

    def take(self, rank: int) -> _Work | None:
        """The next job for a process, if there is one now."""
        with self.changed:
            for work in self.waiting:
                if work.failed_in != rank or len(self.present) == 1:
                    self.waiting.remove(work)
                    return work
        return None

    def await_one(self, rank: int) -> _Work | None:
        """The next job for a process; None when there will be no more."""
        with self.changed:
            while not self.closed:
                work = self.take(rank)
                if work is not None:
                    return work
                self.changed.wait()
        return None


class Team(Crew):
    """Processes that share the work. This one does jobs as well, between looking at what the others say."""

    def __init__(
        self, rank: Rank, spec_hash: str, patience: float, children: Sequence["subprocess.Popen[bytes]"]
    ) -> None:
        self.size = rank.size
        self._spec_hash, self._patience, self._children = spec_hash, patience, children
        self._queue = _Queue()
        self._news: SimpleQueue[_News] = SimpleQueue()
        self._unread: deque[_News] = deque()
        self._channels: dict[int, Channel] = {}
        self._heard: dict[int, float] = {}
        """When each process last said something, or was last given something to do."""
        self._warned = False

    # What happens in the threads, one for each other process.

    def visit(self, channel: Channel) -> None:
        """Takes in a process that came to work, and gives it jobs as long as it is there."""
        try:
            hello = channel.receive(_END_SECONDS)
        except (Gone, TimeoutError, ValueError):
            channel.close()
            return
        if not isinstance(hello, Hello) or not 0 < hello.rank < self.size or hello.rank in self._channels:
            channel.close()
            return
        self._channels[hello.rank] = channel
        self._heard[hello.rank] = time.monotonic()
        work = None
        try:
            if hello.spec != self._spec_hash:
                raise ValueError("it was started with another spec")
            self._hear(channel, hello.rank, None)
            while (work := self._queue.await_one(hello.rank)) is not None:
                self._heard[hello.rank] = time.monotonic()
                channel.send(Task(work.job, last=work.attempts + 1 == ATTEMPTS))
                self._hear(channel, hello.rank, work)
        except (Gone, TimeoutError, ValueError) as error:
            self._queue.leave(hello.rank)
            if not self._queue.closed:
                who = f"process {hello.rank} (pid {hello.pid} on {hello.host})"
                self._news.put(_News(hello.rank, _Lost(f"{who} {self._why(hello.rank, error)}"), work))
            channel.close()

    def _hear(self, channel: Channel, rank: int, work: _Work | None) -> None:
        """Passes on what a process says, up to the end of what it is doing."""
        while True:
            message = channel.receive(self._patience + _MARGIN)
            self._heard[rank] = time.monotonic()
            self._news.put(_News(rank, message, work))
            if isinstance(message, Ready):
                with self._queue.changed:
                    self._queue.present.add(rank)
            if not isinstance(message, Event):
                return

    def _why(self, rank: int, error: Exception) -> str:
        if isinstance(error, ValueError):
            return str(error)
        if time.monotonic() - self._heard[rank] >= self._patience:
            # Its own stacks are in its output; these are of the one that waited.
            faulthandler.dump_traceback(file=2, all_threads=True)
            with suppress(IndexError, OSError):
                self._child(rank).kill()
            return f"said nothing for {self._patience:g} s and was given up"
        with suppress(IndexError, subprocess.TimeoutExpired):
            status = self._child(rank).wait(1.0)
            return f"was killed by signal {-status}" if status < 0 else f"ended with exit code {status}"
        return "ended"

    def _child(self, rank: int) -> "subprocess.Popen[bytes]":
        return self._children[rank - 1]

    # What happens in the main thread.

    def assemble(self, place: Workplace) -> "Team":
        """Waits until all processes have loaded the model.

        Raises:
            RunError: one of them ended, is missing for too long, or has another model.
        """
        self.place = place
        facts, missing, end = dict(place.engine.facts), set(range(1, self.size)), time.monotonic() + self._patience
        while missing:
            for rank, child in enumerate(self._children, start=1):
                if rank in missing and rank not in self._channels and child.poll() is not None:
                    raise RunError(f"process {rank} ended with exit code {child.poll()} before it began to work")
            if time.monotonic() > end:
                raise RunError(
                    f"{len(missing)} of {self.size} processes did not begin to work within {self._patience:g} s: "
                    f"{', '.join(map(str, sorted(missing)))}",
                    hint="look at their output; `--patience` waits longer",
                )
            try:
                news = self._news.get(timeout=0.2)
            except Empty:
                continue
            match news.message:
                case Ready():
                    missing.discard(news.rank)
                    differs = compare(news.rank, facts, news.message.facts)
                    if differs:
                        place.tell("warning", text=differs)
                case Mistake():
                    raise _error(news.message)
                case _Lost():
                    raise RunError(f"{news.message.reason} before it began to work")
                case _:
                    pass
        place.tell("processes", count=self.size)
        return self

    def map(self, jobs: Sequence[Job[Result]]) -> Iterator[tuple[int, Result | Failed]]:
        self._look_at_the_cut(jobs)
        works = [_Work(index, job) for index, job in enumerate(jobs)]
        open_ = set(works)
        self._queue.offer(works)
        try:
            while open_:
                self._catch_up()
                mine = None if self._unread else self._queue.take(_FIRST)
                news = self._do(mine) if mine else self._next()
                work, message = news.work, news.message
                if isinstance(message, Mistake):
                    raise _error(message)
                if isinstance(message, _Lost):
                    self.place.tell("warning", text=f"{message.reason}; the others go on")
                    message = Trouble(message.reason)
                if work not in open_:
                    continue  # nothing of this call's
                if isinstance(message, Done):
                    open_.discard(work)
                    yield work.index, message.result
                elif isinstance(message, Trouble):
                    failed = self._failed(work, news.rank, message.reason)
                    if failed:
                        open_.discard(work)
                        yield work.index, failed
        finally:
            self._queue.withdraw()

    def _look_at_the_cut(self, jobs: Sequence[Job[Any]]) -> None:
        if not self._warned and isinstance(jobs[0] if jobs else None, PracticeJob) and len(jobs) < self.size:
            self._warned = True
            self.place.tell(
                "warning",
                text=f"{len(jobs)} fleets of students for {self.size} processes: some have nothing to do; "
                "a smaller trainer.width makes more fleets",
            )

    def _failed(self, work: _Work, rank: int, reason: str) -> Failed | None:
        """Gives a job that failed to another process, or gives it up."""
        work.attempts, work.failed_in = work.attempts + 1, rank
        name = type(work.job).__name__
        self.place.tell("warning", text=f"{name} failed in process {rank}, attempt {work.attempts}: {reason}")
        if work.attempts == ATTEMPTS:
            return Failed(reason)
        self._queue.offer([work])
        return None

    def _do(self, work: _Work) -> _News:
        with deadline(self._tell, self._patience) as heard:
            here = Workplace(self.place.spec, self.place.domain, self.place.engine, heard)
            try:
                return _News(_FIRST, Done(work.job.run(here, last=work.attempts + 1 == ATTEMPTS)), work)
            except FAILURES as error:
                return _News(_FIRST, Trouble(said(error)), work)

    def _tell(self, event: str, /, **facts: Any) -> None:
        """Of this process, after what the others told in the meantime."""
        self._catch_up()
        self.place.tell(event, **facts)

    def _next(self) -> _News:
        """The next that is more than an event. Threads see to it that something comes before patience ends."""
        while not self._unread:
            self._pass_on(self._news.get())
        return self._unread.popleft()

    def _catch_up(self) -> None:
        while not self._news.empty():
            self._pass_on(self._news.get())

    def _pass_on(self, news: _News) -> None:
        if isinstance(news.message, Event):
            self.place.tell(news.message.name, **news.message.facts)
        else:
            self._unread.append(news)

    def close(self) -> None:
        """Tells all processes to stop."""
        self._queue.close()
        for channel in list(self._channels.values()):
            with suppress(Gone):
                channel.send(Stop())


def call_others(spec_hash: str, rank: Rank, patience: float, spawn: Mapping[str, str] | None) -> Together:
    """Calls the processes that share a run.

    Args:
        spec_hash: of the spec that all of them were given.
        rank: of this process, which is the first one.
        patience: seconds for which any of them may say nothing.
        spawn: the environment to start the others in; None where a launcher has started them.
    """

    @contextmanager
    def call(directory: Path) -> Generator[Callable[[Workplace], Crew]]:
        children: list[subprocess.Popen[bytes]] = []
        team = Team(rank, spec_hash, patience, children)
        with disk_errors(directory):
            door = Door(directory, rank.address, team.visit)
        try:
            if spawn is not None:
                children += [_start(number, rank.size, spawn) for number in range(1, rank.size)]
            yield team.assemble
        finally:
            team.close()
            door.close()
            _end(children)

    return call


def _start(number: int, size: int, environment: Mapping[str, str]) -> "subprocess.Popen[bytes]":
    """Starts this very command once more, as another process of the run."""
    numbers = {"RANK": number, "LOCAL_RANK": number, "WORLD_SIZE": size, "LOCAL_WORLD_SIZE": size}
    # In a session of their own, so that a Ctrl-C that comes while Python starts does not end them with a traceback.
    return subprocess.Popen(
        [sys.executable, *sys.orig_argv[1:]],
        env={**environment, **{name: str(value) for name, value in numbers.items()}},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )


def _end(children: Sequence["subprocess.Popen[bytes]"]) -> None:
    end = time.monotonic() + _END_SECONDS
    for child in children:
        try:
            child.wait(max(0.0, end - time.monotonic()))
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


def _error(mistake: Mistake) -> SoarError:
    return SoarError(mistake.message, at=mistake.at, hint=mistake.hint)


def compare(rank: int, ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> str | None:
    """A warning where a process may round otherwise than process 0, by the facts of their engines.

    Raises:
        RunError: it has another model, or one of the two has no GPU.
    """
    differs = [f"{key}: {theirs.get(key)!r}, not {value!r}" for key, value in ours.items() if theirs.get(key) != value]
    if any(theirs.get(key) != ours.get(key) for key in _SAME):
        raise RunError(f"process {rank} has loaded another model than process 0", hint="\n".join(differs))
    device, first = theirs.get("device"), ours.get("device")
    if device != first and "cpu" in (device, first):
        raise RunError(
            f"process {rank} computes on {device}, process 0 on {first}",
            hint="let each process see a GPU (CUDA_VISIBLE_DEVICES), or none use one: `--set trainer.device=cpu`",
        )
    return f"process {rank} may round otherwise than process 0: {'; '.join(differs)}" if differs else None
