"""A deadline for silence: where a process says nothing for too long, it shows what all of its threads do, and ends."""

import faulthandler
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

from soarctl.events import Tell

_STDERR = 2


@contextmanager
def deadline(tell: Tell, seconds: float) -> Generator[Tell]:
    """Ends the process with exit code 1, after its stacks went to stderr, when nothing is told for so many seconds.

    That needs no Python to run any more, so it works where a library hangs with everything locked.
    """

    def heard(event: str, /, **facts: Any) -> None:
        faulthandler.dump_traceback_later(seconds, exit=True, file=_STDERR)
        tell(event, **facts)

    faulthandler.dump_traceback_later(seconds, exit=True, file=_STDERR)
    try:
        yield heard
    finally:
        faulthandler.cancel_dump_traceback_later()
