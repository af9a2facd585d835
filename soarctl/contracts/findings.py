"""How checks are run: each is a promise, with what was found against it; a hang is a finding like any other."""

import faulthandler
import json
import math
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import FrameType, UnionType
from typing import Any, TypeVar

_W = TypeVar("_W")

Check = Callable[[_W], Iterable[str]]
"""A promise as its docstring; yields what breaks it."""

_SHOWN = 80


class ContractError(AssertionError):
    """A plug-in breaks promises of api.py. The message says which ones, and by what."""


class Broken(Exception):
    """What a check found, where it cannot yield it."""


class _TooLong(BaseException):
    """Not an Exception, so that a plug-in that catches everything does not catch this."""


def run_checks(call: str, plugin: object, world: _W, checks: Sequence[Check[_W]], seconds: float) -> None:
    """Runs every check and reports all that was found together.

    Args:
        call: what the user called: "check_domain".
        plugin: what is checked.
        world: what the checks look at.
        checks: in the order of the report.
        seconds: given to each check.

    Raises:
        ContractError: a promise is broken.
    """
    broken: list[str] = []
    for check in checks:
        found = _findings(check, world, seconds, _file(plugin))
        if found:
            broken.append(f"{promise(check)}\n" + "\n".join(f"    {line}" for line in found))
    if broken:
        promises = "1 promise" if len(broken) == 1 else f"{len(broken)} promises"
        listed = "\n  ".join(broken)
        raise ContractError(f"{call}: {type(plugin).__name__} breaks {promises} of soarctl.api\n  {listed}")


def promise(check: Check[_W]) -> str:
    """What a check holds a plug-in to, in a sentence."""
    return " ".join((check.__doc__ or "").split())


def shown(value: object) -> str:
    """A value in a message: one line, not too long."""
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 3]}..."


def is_plain_json(value: object) -> bool:
    """Whether a value comes back from JSON as it went in."""
    try:
        return json.loads(json.dumps(value, allow_nan=False)) == value
    except (TypeError, ValueError):
        return False


def is_a(value: object, kind: type | UnionType) -> bool:
    """isinstance, where the type checker believes what a plug-in's signature says."""
    return isinstance(value, kind)


def is_number(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def strict_options(plugin: Any) -> Iterator[str]:
    """What is wrong with how a plug-in takes its options."""
    options = dict(plugin)
    again = type(plugin).model_validate(options)
    if again != plugin:
        yield f"made again from its own options {shown(options)} it is another one"
    if not plugin.model_config.get("frozen"):
        yield "model_config has lost frozen=True: its options can be changed after it was loaded"
    try:
        type(plugin).model_validate(options | {"no_such_option": 1})
    except ValueError:
        return
    yield 'it took an option "no_such_option": model_config has lost extra="forbid"'


@contextmanager
def time_limit(seconds: float) -> Generator[None, None, None]:
    """Ends what takes too long with an exception, wherever Python lets it.

    A call that never gives control back, such as 10**10**10, cannot be ended: after three times the limit the
    process prints where every thread is and exits.
    """
    faulthandler.dump_traceback_later(3 * seconds, exit=True, file=sys.__stderr__ or sys.stderr)
    # Signals reach the main thread alone, and Windows has no timer.
    armed = threading.current_thread() is threading.main_thread() and hasattr(signal, "setitimer")
    before = signal.signal(signal.SIGALRM, _ring) if armed else None
    if armed:
        signal.setitimer(signal.ITIMER_REAL, seconds, 1.0)
    try:
        yield
    finally:
        if armed:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)
        faulthandler.cancel_dump_traceback_later()


def _ring(number: int, frame: FrameType | None) -> None:
    raise _TooLong


def _findings(check: Check[_W], world: _W, seconds: float, file: str) -> list[str]:
    try:
        with time_limit(seconds):
            return list(check(world))
    except _TooLong as late:
        return [f"it did not come back within {seconds:g} s, last seen in {_place(late, file)}"]
    except Broken as broken:
        return [str(broken)]
    except Exception as error:  # the boundary around a plug-in: whatever it raises is the finding
        return [f"{type(error).__name__}: {error}", f"raised in {_place(error, file)}"]


def _file(plugin: object) -> str:
    return getattr(sys.modules.get(type(plugin).__module__), "__file__", None) or ""


def _place(error: BaseException, file: str) -> str:
    """The innermost line of the plug-in's own module, else of anything."""
    frames = traceback.extract_tb(error.__traceback__)
    last = next((frame for frame in reversed(frames) if frame.filename == file), frames[-1])
    return f"{last.name}, {last.filename}:{last.lineno}"


def same_mapping(a: Mapping[str, Any], b: Mapping[str, Any], tolerance: float = 0.0) -> bool:
    """Whether two mappings of arrays have the same names and numbers."""
    import numpy as np

    return a.keys() == b.keys() and all(
        np.array_equal(a[name], b[name])
        if not tolerance
        else np.allclose(a[name], b[name], rtol=tolerance, atol=tolerance)
        for name in a
    )
