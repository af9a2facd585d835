"""Math-Verify behind a wall: worker processes that live long, and are killed and replaced when one takes too long.

Math-Verify limits itself by signals, which work in the main thread alone and interrupt no C call; with gmpy2 a single
call can run for hours or abort the interpreter. So it runs in processes of its own, in which any of this may happen.
One of them has imported it and forks the others, so that a new worker is there at once. Nothing here depends on the
thread, on the event loop or on how the calling process was started.
"""

import atexit
import contextlib
import importlib.util
import json
import os
import select
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

START_LIMIT = 60.0
"""Seconds that the import of Math-Verify may take on a machine that is busy."""
_ANSWER_LIMIT = 10.0
"""Seconds for a fork or a kill."""
_GRACE = 5.0
"""Seconds beyond the limit after which the kernel ends a worker that nobody has killed."""

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


class _Nursery:
    """The process that has imported Math-Verify and forks the workers."""

    def __init__(self, memory: int, limit: float) -> None:
        script = Path(__file__).with_name("symbolic_worker.py")
        self.control, theirs = socket.socketpair()
        with theirs:
            # -P keeps our folder off its path, so that its imports are the installed ones.
            self.process = subprocess.Popen(
                [sys.executable, "-P", str(script), str(theirs.fileno()), str(memory), str(limit + _GRACE)],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C is for us
                env={
                    **os.environ,
                    "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry),
                    # SymPy's way through a simplification depends on the order of sets.
                    "PYTHONHASHSEED": "0",
                },
            )
        self.control.settimeout(START_LIMIT)
        try:
            self._answer()
        except OSError:
            self.close()
            raise
        self.control.settimeout(_ANSWER_LIMIT)

    def fork(self) -> "_Worker":
        """A new worker.

        Raises:
            OSError: the process is gone, or can have no child.
        """
        ours, theirs = socket.socketpair()
        with theirs:
            socket.send_fds(self.control, [b'{"fork": true}\n'], [theirs.fileno()])
            return _Worker(int(self._answer()["pid"]), ours)

    def end(self, worker: "_Worker") -> None:
        worker.connection.close()
        with contextlib.suppress(OSError):
            self.control.sendall(json.dumps({"kill": worker.pid}).encode() + b"\n")
            self._answer()

    def close(self) -> None:
        self.control.close()  # upon which it ends its workers and itself
        try:
            self.process.wait(_ANSWER_LIMIT)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def _answer(self) -> dict[str, Any]:
        answer = self.control.recv(4096)
        if not answer:
            raise ConnectionError("the process that runs Math-Verify is gone")
        return json.loads(answer)


class _Worker:
    def __init__(self, pid: int, connection: socket.socket) -> None:
        self.pid = pid
        self.connection = connection
        self.job = -1
        self.deadline = 0.0
        self._read = b""

    def send(self, job: int, request: Request, limit: float) -> None:
        self.job = job
        self.deadline = time.monotonic() + limit
        with contextlib.suppress(OSError):  # it died in between: the answer will be its end of file
            self.connection.sendall(json.dumps(dict(request)).encode() + b"\n")

    def receive(self) -> dict[str, Any] | None:
        """A reply, {} while it is incomplete, None when the process is gone."""
        try:
            piece = self.connection.recv(65536)
        except OSError:
            return None
        if not piece:
            return None
        self._read += piece
        line, newline, rest = self._read.partition(b"\n")
        if not newline:
            return {}
        self._read = rest
        return json.loads(line)


class Workers:
    """A fixed number of worker processes. Safe to call from several threads; one batch is answered at a time.

    Args:
        count: of processes that work side by side.
        limit: seconds for a request.
        memory: bytes of address space of each.
    """

    def __init__(self, count: int, limit: float, memory: int) -> None:
        self.count = count
        self.limit = limit
        self.memory = memory
        self.killed = 0
        self._forget()
        atexit.register(self.close)

    def ask(self, requests: Sequence[Request]) -> list[Reply]:
        """One reply for each request: {"gold": ...} asks whether it can be read, with "answer" whether they are equal.

        Whatever a request does to its worker, the others get their replies.
        """
        if self._owner != os.getpid():
            self._forget()
        with self._lock:
            return self._serve(requests) if requests else []

    def close(self) -> None:
        """Ends all processes; the next batch starts new ones."""
        if self._owner != os.getpid():
            return
        for worker in self._workers:
            worker.connection.close()
        self._workers = []
        if self._nursery is not None:
            self._nursery.close()
            self._nursery = None

    def _forget(self) -> None:
        """Starts with nothing: after a fork what there is belongs to our parent, its lock perhaps held by a thread."""
        self._abandoned = (getattr(self, "_nursery", None), getattr(self, "_workers", None))
        self._lock = threading.Lock()
        self._owner = os.getpid()
        self._nursery: _Nursery | None = None
        self._workers: list[_Worker] = []

    def _serve(self, requests: Sequence[Request]) -> list[Reply]:
        replies: list[Reply | None] = [None] * len(requests)
        waiting = deque(range(len(requests)))
        while any(reply is None for reply in replies):
            try:
                self._staff(len(requests))
            except OSError:  # no process can be had: nothing can be asked
                self._dismiss()
                break
            for worker in self._workers:
                if worker.job < 0 and waiting:
                    job = waiting.popleft()
                    worker.send(job, requests[job], self.limit)
            for worker, reply in self._next():
                replies[worker.job] = reply
                worker.job = -1
                if reply.reason in ("timeout", "crash"):
                    self.killed += 1
                    self._workers.remove(worker)
                    if self._nursery is not None:
                        self._nursery.end(worker)
        return [reply or Reply(False, "crash") for reply in replies]

    def _staff(self, wanted: int) -> None:
        if self._nursery is not None and self._nursery.process.poll() is not None:
            self._dismiss()
        if self._nursery is None:
            self._nursery = _Nursery(self.memory, self.limit)
        while len(self._workers) < min(self.count, wanted):
            self._workers.append(self._nursery.fork())

    def _dismiss(self) -> None:
        for worker in self._workers:
            worker.connection.close()
        nursery, self._nursery, self._workers = self._nursery, None, []
        if nursery is not None:
            nursery.close()

    def _next(self) -> list[tuple[_Worker, Reply]]:
        """The replies that are there, or come next: one of a worker that is late or gone is among them."""
        busy = {worker.connection.fileno(): worker for worker in self._workers if worker.job >= 0}
        poll = select.poll()  # unlike select, it takes descriptors above 1024
        for number in busy:
            poll.register(number, select.POLLIN | select.POLLHUP)
        wait = min(worker.deadline for worker in busy.values()) - time.monotonic()
        found: list[tuple[_Worker, Reply]] = []
        for number, _ in poll.poll(max(0.0, wait) * 1000 + 1):
            worker = busy.pop(number)
            message = worker.receive()
            if message is None:
                found.append((worker, Reply(False, "crash")))
            elif message:
                found.append((worker, Reply(message.get("equal") is True, str(message.get("error", "symbolic")))))
        now = time.monotonic()
        return found + [(worker, Reply(False, "timeout")) for worker in busy.values() if worker.deadline <= now]
