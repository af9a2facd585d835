"""A long-running program that answers each line with a line: started when needed, killed when late, restarted."""

import atexit
import json
import selectors
import subprocess
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any


class Process:
    """One program. Safe to use from several threads; nobody gets another one's answer."""

    def __init__(self, command: Sequence[str]) -> None:
        self._command = list(command)
        self._lock = threading.Lock()
        self._running: subprocess.Popen[str] | None = None
        atexit.register(self.stop)

    def ask(self, question: Mapping[str, Any], seconds: float) -> Mapping[str, Any] | None:
        """The answer, or None where none came in time: then the program is killed, and the next call starts it anew.

        Raises:
            OSError: the program cannot be started, or ends without an answer twice in a row.
        """
        with self._lock:
            for _ in range(2):
                process = self._started()
                try:
                    # JSON keeps a line a line, whatever the text holds.
                    print(json.dumps(question), file=process.stdin, flush=True)
                    if not _readable(process, seconds):
                        self._kill()
                        return None
                    line = next(process.stdout or iter(()), "")
                except BrokenPipeError:
                    line = ""
                except BaseException:
                    # Ctrl-C between question and answer: the next one would get this one's.
                    self._kill()
                    raise
                if line:
                    return json.loads(line)
                self._kill()  # it ended: a crash, or somebody killed it
            raise OSError(f"{self._command[0]} ends without an answer")

    def stop(self) -> None:
        """Ends the program."""
        with self._lock:
            self._kill()

    def _started(self) -> subprocess.Popen[str]:
        if self._running is None:
            self._running = subprocess.Popen(
                self._command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                encoding="utf-8",
                # Ctrl-C goes to every process of a terminal; the run decides when this one ends.
                start_new_session=True,
            )
        return self._running

    def _kill(self) -> None:
        if self._running is not None:
            self._running.kill()
            with suppress(BrokenPipeError):  # what it did not read any more
                self._running.communicate()
            self._running = None


def _readable(process: subprocess.Popen[str], seconds: float) -> bool:
    with selectors.DefaultSelector() as selector:
        if process.stdout is not None:
            selector.register(process.stdout, selectors.EVENT_READ)
        return bool(selector.select(seconds))
