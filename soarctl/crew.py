"""Who does the work of a run: this process alone so far; several that hold the same model would be another `Crew`.

The algorithm cuts its work into jobs and knows nothing of who does them. How it is cut follows from the spec alone, and
a job's result from the job alone, so that the number of processes, retries and the order of finishing change nothing.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeAlias, TypeVar

from soarctl.api import Domain, Engine, ModelError
from soarctl.errors import RunError
from soarctl.events import Tell
from soarctl.spec import Spec

Result = TypeVar("Result")
ATTEMPTS = 2

# What may go otherwise the next time, or elsewhere: memory that ran out, a device that failed, numbers that are none.
# Anything else is a mistake in the spec, in a plug-in or in soarctl, and ends the run at once.
FAILURES = (ModelError, RuntimeError, ArithmeticError, MemoryError)


@dataclass(frozen=True)
class Workplace:
    """What every process of a run has."""

    spec: Spec
    domain: Domain
    engine: Engine
    tell: Tell


class Job(ABC, Generic[Result]):
    """A piece of work as plain data: a frozen dataclass that can be sent to another process."""

    @abstractmethod
    def run(self, place: Workplace, *, last: bool) -> Result:
        """Does it.

        Args:
            place: where.
            last: whether this is the last attempt, so that a result with gaps is better than none.
        """


@dataclass(frozen=True, slots=True)
class Failed:
    """In place of a result: every attempt failed."""

    reason: str


class Crew(ABC):
    """All processes of a run, seen from the one that the algorithm runs in."""

    place: Workplace
    """This process's own."""
    size: int
    """How many processes there are."""

    @abstractmethod
    def map(self, jobs: Sequence[Job[Result]]) -> Iterator[tuple[int, Result | Failed]]:
        """Results as they come, each with the index of its job. A job that failed is tried once more, elsewhere if
        there is an elsewhere."""

    def each(self, jobs: Sequence[Job[Result]]) -> Iterator[tuple[int, Result]]:
        """As `map`, where no result can be done without.

        Raises:
            RunError: a job failed for good.
        """
        for index, result in self.map(jobs):
            if isinstance(result, Failed):
                raise RunError(
                    f"{type(jobs[index]).__name__} failed {ATTEMPTS} times: {result.reason}",
                    hint="nothing that was finished is lost: mend the cause and go on with `--resume`",
                )
            yield index, result

    def all(self, jobs: Sequence[Job[Result]]) -> list[Result]:
        """As `each`, in order."""
        found = dict(self.each(jobs))
        return [found[index] for index in range(len(jobs))]


class Alone(Crew):
    """One process, which does one job after the other."""

    size = 1

    def __init__(self, place: Workplace) -> None:
        self.place = place

    def map(self, jobs: Sequence[Job[Result]]) -> Iterator[tuple[int, Result | Failed]]:
        for index, job in enumerate(jobs):
            yield index, self._attempt(job)

    def _attempt(self, job: Job[Result]) -> Result | Failed:
        reason = ""
        for attempt in range(1, ATTEMPTS + 1):
            try:
                return job.run(self.place, last=attempt == ATTEMPTS)
            except FAILURES as error:
                reason = said(error)
                self.place.tell("warning", text=f"{type(job).__name__} failed, attempt {attempt}: {reason}")
        return Failed(reason)


# Calls other processes to work on the run in a directory. They load the model while this one does, and what is returned
# waits for them.
Together: TypeAlias = Callable[[Path], AbstractContextManager[Callable[[Workplace], Crew]]]


@contextmanager
def by_itself(directory: Path) -> Generator[Callable[[Workplace], Crew]]:
    """Calls nobody."""
    yield Alone


def said(error: BaseException) -> str:
    """An exception in one line."""
    return " ".join(f"{type(error).__name__}: {error}".split())
