"""Jobs that fail are tried once more; what fails for good is left out where it can be, and named where it cannot."""

from dataclasses import dataclass
from typing import Any

import pytest

from soarctl.api import ModelError, PluginError
from soarctl.crew import Alone, Failed, Job, Workplace
from soarctl.errors import RunError
from soarctl.testing import ToyDomain, ToyEngine, toy_run

attempts: list[bool] = []


@dataclass(frozen=True)
class Fails(Job[str]):
    """Raises so many times, then is done."""

    times: int
    error: Exception

    def run(self, place: Workplace, *, last: bool) -> str:
        attempts.append(last)
        if len(attempts) <= self.times:
            raise self.error
        return "done"


def alone() -> tuple[Alone, list[str]]:
    attempts.clear()
    said: list[str] = []

    def tell(event: str, /, **facts: Any) -> None:
        said.append(facts["text"])

    return Alone(Workplace(toy_run().spec, ToyDomain(), ToyEngine(1, (0.5,) * 5), tell)), said


@pytest.mark.parametrize("error", [ModelError("out of memory"), RuntimeError("CUDA error"), ArithmeticError("nan")])
def test_a_job_that_failed_is_tried_once_more(error: Exception) -> None:
    crew, said = alone()
    assert list(crew.map([Fails(1, error)])) == [(0, "done")]
    assert attempts == [False, True]
    assert said == [f"Fails failed, attempt 1: {type(error).__name__}: {error}"]


def test_a_job_that_fails_twice_is_given_up() -> None:
    crew, said = alone()
    assert list(crew.map([Fails(2, ModelError("out of memory"))])) == [(0, Failed("ModelError: out of memory"))]
    assert len(said) == 2


def test_where_no_result_can_be_done_without_the_run_ends_and_says_why() -> None:
    crew, _ = alone()
    with pytest.raises(RunError) as error:
        crew.all([Fails(2, ModelError("out of memory"))])
    assert str(error.value) == (
        "Fails failed 2 times: ModelError: out of memory\n"
        "  nothing that was finished is lost: mend the cause and go on with `--resume`"
    )


@pytest.mark.parametrize("error", [PluginError("the grader failed"), KeyError("skill")])
def test_a_mistake_is_not_tried_again(error: Exception) -> None:
    crew, said = alone()
    with pytest.raises(type(error)):
        crew.all([Fails(1, error)])
    assert (attempts, said) == ([False], [])
