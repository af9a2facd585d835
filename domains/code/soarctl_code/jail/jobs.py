"""What is run in the jail and what was seen of it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from soarctl.api import PluginError
from soarctl_code.jail import wire

Stream = Literal["result", "stdout", "stderr"]
Ended = Literal["exited", "timeout", "output_limit", "killed"]


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
    preamble: str = ""
    """Code that runs in the program's module before it."""
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
