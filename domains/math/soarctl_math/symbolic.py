"""Math-Verify behind a wall: worker processes that live long, and are killed and replaced when one takes too long.

Math-Verify limits itself by signals, which work in the main thread alone and interrupt no C call; with gmpy2 a single
call can run for hours or abort the interpreter. So it runs in processes of its own, in which any of this may happen.
Nothing here depends on the thread, on the event loop or on how the calling process was started.
"""

import atexit
import contextlib
import importlib.util
import json
import os
import select
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

START_LIMIT = 60.0
"""Seconds that the imports of a worker may take on a machine that is busy."""


Request = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Reply:
    """What a worker made of a request."""

    equal: bool
    reason: str
    """"symbolic" where it was answered; "parse error", "timeout" or "crash" where it was not."""


@cache
def available() -> bool:
    """Whether Math-Verify is installed. It is never imported into this process."""
    return all(importlib.util.find_spec(name) is not None for name in ("math_verify", "latex2sympy2_extended"))


class _Worker:
    def __init__(self, memory: int, limit: float) -> None:
        script = Path(__file__).with_name("symbolic_worker.py")
        # -P keeps our folder off its path, so that its imports are the installed ones.
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-X", "utf8", str(script), str(memory), str(limit + 5)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,
            start_new_session=True,  # Ctrl-C is for us
            env={**os.environ, "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)},
        )
        self.ready = False
        self.job = -1
        self.deadline = time.monotonic() + START_LIMIT
        self._read = b""

    def fileno(self) -> int:
        assert self.process.stdout is not None
        return self.process.stdout.fileno()

    def send(self, job: int, request: Request, limit: float) -> None:
        assert self.process.stdin is not None
        self.job = job
        self.deadline = time.monotonic() + limit
        with contextlib.suppress(OSError):  # it died in between: the answer will be its end of file
            self.process.stdin.write(json.dumps(request).encode() + b"\n")

    def receive(self) -> dict[str, object] | None:
        """A reply, {} while it is incomplete, None when the process is gone."""
        piece = os.read(self.fileno(), 65536)
        if not piece:
            return None
        self._read += piece
        line, newline, rest = self._read.partition(b"\n")
        if not newline:
            return {}
        self._read = rest
        return json.loads(line)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()


class Workers:
    """A fixed number of worker processes. Safe to call from several threads; one batch is answered at a time."""

    def __init__(self, count: int, limit: float, memory: int) -> None:
        self.count = count
        self.limit = limit
        self.memory = memory
        self.killed = 0
        self._owner = os.getpid()
        self._lock = threading.Lock()
        self._workers: list[_Worker] = []
        self._abandoned: list[_Worker] = []
        atexit.register(self.close)

    def ask(self, requests: Sequence[Request]) -> list[Reply]:
        """One reply for each request: {"gold": ...} asks whether it can be read, with "answer" whether they are equal.

        Whatever a request does to its worker, the others get their replies.
        """
        if self._owner != os.getpid():  # a fork: these are our parent's workers, and perhaps its lock
            self._lock, self._owner = threading.Lock(), os.getpid()
            self._abandoned, self._workers = self._workers, []
        with self._lock:
            return self._serve(requests) if requests else []

    def close(self) -> None:
        """Ends all workers; the next batch starts new ones."""
        workers, self._workers = self._workers, []
        if self._owner == os.getpid():
            for worker in workers:
                worker.kill()

    def _serve(self, requests: Sequence[Request]) -> list[Reply]:
        replies: list[Reply | None] = [None] * len(requests)
        waiting = deque(range(len(requests)))
        dead_starts = 0
        while any(reply is None for reply in replies):
            while len(self._workers) < min(self.count, len(requests)):
                self._workers.append(_Worker(self.memory, self.limit))
            for worker in self._workers:
                if worker.ready and worker.job < 0 and waiting:
                    job = waiting.popleft()
                    worker.send(job, requests[job], self.limit)
            for worker, event in self._events():
                job = worker.job
                if event == "ready":
                    worker.ready, dead_starts = True, 0
                    continue
                if isinstance(event, Reply):
                    worker.job = -1
                    replies[job] = event
                    continue
                self._replace(worker)
                if job >= 0:
                    replies[job] = Reply(False, event)
                elif not worker.ready:
                    dead_starts += 1
                    if dead_starts > 2:
                        return [reply or Reply(False, "crash") for reply in replies]
        return [reply or Reply(False, "crash") for reply in replies]

    def _events(self) -> list[tuple[_Worker, "Reply | str"]]:
        """What has happened by now, or happens next: a worker is ready, has replied, is late or is gone."""
        watched = [worker for worker in self._workers if worker.job >= 0 or not worker.ready]
        if not watched:
            return []
        poll = select.poll()  # unlike select, it takes descriptors above 1024
        by_number = {worker.fileno(): worker for worker in watched}
        for number in by_number:
            poll.register(number, select.POLLIN | select.POLLHUP)
        wait = min(worker.deadline for worker in watched) - time.monotonic()
        events: list[tuple[_Worker, Reply | str]] = []
        for number, _ in poll.poll(max(0.0, wait) * 1000 + 1):
            worker = by_number.pop(number)
            message = worker.receive()
            if message is None:
                events.append((worker, "crash"))
            elif "ready" in message:
                events.append((worker, "ready"))
            elif message:
                events.append((worker, Reply(message.get("equal") is True, str(message.get("error", "symbolic")))))
        now = time.monotonic()
        events += [(worker, "timeout") for worker in by_number.values() if worker.deadline <= now]
        return events

    def _replace(self, worker: _Worker) -> None:
        worker.kill()
        self.killed += 1
        # The new one imports while we go on with the others.
        self._workers[self._workers.index(worker)] = _Worker(self.memory, self.limit)
