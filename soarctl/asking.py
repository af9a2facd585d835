"""The boundary around a domain: what its methods return is what api.py promises, or an error says whose it is.

Here for what is asked one by one; `grading.grade` for attempts, which arrive in thousands.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn, TypeVar

from soarctl.api import Domain, PluginError, Problem, Rejection, SoarError

_Value = TypeVar("_Value")
_HINT = "`soarctl.testing.check_domain` shows in the plug-in's own tests what is wrong"


def load(domain: Domain) -> list[Problem]:
    """All candidate problems.

    Raises:
        DataError: as the domain says.
        PluginError: `load` failed, or returned something that is not a problem.
    """
    problems = _ask(domain.load)
    if not isinstance(problems, Sequence):
        _refuse(domain.load, problems, "a list of problems")
    for problem in problems:
        if not isinstance(problem, Problem):
            _refuse(domain.load, problem, "problems")
    return list(problems)


def teacher_prompt(domain: Domain) -> str:
    """What the teacher is asked.

    Raises:
        PluginError: `teacher_prompt` failed, or returned no text.
    """
    return _text(domain.teacher_prompt, _ask(domain.teacher_prompt))


def student_prompt(domain: Domain, question: str) -> str:
    """What a student is asked.

    Raises:
        PluginError: `student_prompt` failed, or returned no text.
    """
    return _text(domain.student_prompt, _ask(domain.student_prompt, question))


def parse(domain: Domain, completion: str) -> Problem | Rejection:
    """The practice question in a teacher completion, or why there is none.

    Raises:
        PluginError: `parse` failed, or returned neither.
    """
    parsed = _ask(domain.parse, completion)
    if not isinstance(parsed, Problem | Rejection):
        _refuse(domain.parse, parsed, "a Problem or a Rejection")
    return parsed


def facts(domain: Domain) -> dict[str, Any]:
    """What the domain says about itself.

    Raises:
        PluginError: `facts` failed, or returned no mapping.
    """
    found = _ask(domain.facts)
    if not isinstance(found, Mapping):
        _refuse(domain.facts, found, "plain values by name")
    return dict(found)


def measure(domain: Domain, problem: Problem) -> dict[str, float]:
    """The domain's numbers about a practice question.

    Raises:
        PluginError: `measure` failed, or returned what is no finite number. JSON, and so the ledger, has none of those.
    """
    measured = _ask(domain.measure, problem)
    if not isinstance(measured, Mapping) or not all(
        isinstance(name, str) and isinstance(value, int | float) and math.isfinite(value)
        for name, value in measured.items()
    ):
        _refuse(domain.measure, measured, "finite numbers by name")
    return dict(measured)


def solve(domain: Domain, question: str) -> str | None:
    """The true answer to a practice question; None where the domain has none, or fails. For people only."""
    try:
        answer: object = domain.solve(question)
    except Exception:  # fed with what a model wrote, and nothing in the method may depend on it
        return None
    return answer if isinstance(answer, str) else None


def _ask(method: Callable[..., _Value], *arguments: object) -> Any:
    """What a method of a plug-in returns: anything, whatever it promises.

    Raises:
        PluginError: it failed; names the plug-in and the method.
    """
    try:
        return method(*arguments)
    except SoarError:
        raise
    except Exception as error:
        raise PluginError(f"{_name(method)} failed: {type(error).__name__}: {error}", hint=_HINT) from error


def _text(method: Callable[..., Any], found: Any) -> str:
    if not isinstance(found, str):
        _refuse(method, found, "text")
    return found


def _refuse(method: Callable[..., Any], found: object, wanted: str) -> NoReturn:
    shown = repr(found)
    raise PluginError(
        f"{_name(method)} returned {shown if len(shown) <= 200 else shown[:197] + '...'}, which is not {wanted}",
        hint=_HINT,
    )


def _name(method: Callable[..., Any]) -> str:
    owner: object = getattr(method, "__self__", None)
    return f"{type(owner).__name__}.{method.__name__}"
