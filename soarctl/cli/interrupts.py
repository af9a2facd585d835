"""Ctrl-C during a run: once ends it where nothing is lost, twice ends it at once."""

import os
import signal
import sys
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Any, NoReturn, Self

if TYPE_CHECKING:
    from soarctl.events import Tell

# After these the ledger holds all that was done so far.
SAFE = frozenset({"filter", "filtered", "step_started", "students", "step", "evaluated"})

_WAIT = "interrupted: the students in training are finished first; Ctrl-C again stops at once"


class Terminated(KeyboardInterrupt):
    """The operating system, a launcher or a scheduler asks for the end: SIGTERM."""


class Interrupts:
    """Passes events on, and after one Ctrl-C raises KeyboardInterrupt at the next event that is safe.

    A second Ctrl-C raises it wherever the run is; that loses the fleets in training and nothing else. So does SIGTERM.
    """

    def __init__(self, tell: "Tell") -> None:
        self._tell = tell
        self._asked = self._told = False

    def __enter__(self) -> Self:
        self._before = {
            signal.SIGINT: signal.signal(signal.SIGINT, self._ask),
            signal.SIGTERM: signal.signal(signal.SIGTERM, _end),
        }
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def tell(self, event: str, /, **facts: Any) -> None:
        self._tell(event, **facts)
        if self._asked and not self._told:
            self._told = True
            self._tell("warning", text=_WAIT)  # a live view draws over what it did not print itself
        if self._asked and event in SAFE:
            raise KeyboardInterrupt

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self._asked:
            raise KeyboardInterrupt
        self._asked = True
        # os.write, because the interrupted code may be in the middle of a print.
        os.write(sys.__stderr__.fileno() if sys.__stderr__ else 2, f"\n{_WAIT}\n".encode())


def _end(number: int, frame: FrameType | None) -> NoReturn:
    raise Terminated
