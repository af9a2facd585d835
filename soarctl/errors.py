"""What users see when something is wrong: what happened, where, what to do.

Every error that a user can cause or mend is a `SoarError`. The command line prints it without a traceback and exits
with its `exit_code`. Any other exception is a bug of ours and keeps its traceback.
"""

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

EXIT_CODES = {
    0: "done",
    1: "`doctor` found something wrong; from `run`, a job hung longer than `--patience` and all stacks were shown; "
    "from any other command a bug of ours: please report the traceback",
    2: "an error that the message explains, or a wrong option",
    5: "no sandbox of at least `min_tier` works on this machine; no program was started",
    130: "interrupted with Ctrl-C; `--resume` goes on",
    141: "who read the output, `head` for one, stopped before its end",
    143: "terminated (SIGTERM); `--resume` goes on",
}
"""What the command ends with, and why."""


class SoarError(Exception):
    """An error with a place and a hint.

    Args:
        message: what happened, with the value that was found.
        at: where: a file with line and column, a spec key, a row of a data file.
        hint: what to do about it; may span several lines.
    """

    exit_code = 2

    def __init__(self, message: str, *, at: str | None = None, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.at = at
        self.hint = hint

    def __str__(self) -> str:
        head = f"{self.at}: {self.message}" if self.at else self.message
        return head if self.hint is None else head + "".join(f"\n  {line}" for line in self.hint.splitlines())


class SpecError(SoarError):
    """The YAML spec cannot be read or says something impossible."""


class PluginError(SoarError):
    """A domain, reward, trainer or sampler is unknown, broken, or stands twice under one name."""


class DataError(SoarError):
    """A data file is missing, unreadable, or holds nothing usable."""


class ModelError(SoarError):
    """A model or tokenizer cannot be loaded, or does not fit what the spec asks of it."""


class SamplerError(SoarError):
    """An inference engine cannot be used, failed, or serves other weights than the trainer holds."""


class RunError(SoarError):
    """A run directory is in use, belongs to another spec, or cannot be written."""


class CheckpointError(SoarError):
    """A checkpoint is missing, truncated, or does not have the hash its manifest promises."""


class TeacherError(SoarError):
    """The teacher does not write enough questions that pass the format filter."""


@contextmanager
def disk_errors(place: Path) -> Generator[None, None, None]:
    """Turns the operating system's refusal to write at `place` into a RunError."""
    try:
        yield
    except OSError as error:
        raise RunError(
            f"cannot write: {error.strerror or error}",
            at=str(place),
            hint="nothing that was finished is lost; free space or mend the permissions, then do it again",
        ) from error
