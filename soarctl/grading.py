"""The boundary around a domain's grader: every attempt gets exactly one verdict, or the run stops and says why."""

import math
from collections import Counter
from collections.abc import Sequence
from typing import cast

from soarctl.api import Domain, Outcome, PluginError, Problem, SoarError, Verdict
from soarctl.events import Tell

_ALARM_FROM = 32  # in smaller batches one slow answer is no sign of a broken grader


def grade(domain: Domain, attempts: Sequence[tuple[Problem, str]], tell: Tell) -> list[Verdict]:
    """The domain's verdicts, checked for number and kind, with an alarm when most of them say nothing about the answer.

    Raises:
        PluginError: the grader raised, or returned another number of verdicts, or what is none. Nothing of that may
            become a silent zero.
    """
    if not attempts:
        return []
    try:
        given: object = domain.grade(attempts)
    except SoarError:
        raise
    except Exception as error:
        raise PluginError(
            f"the grader of {type(domain).__name__} failed on a batch of {len(attempts)} attempts: "
            f"{type(error).__name__}: {error}",
            hint="a grader answers every attempt with a verdict; `soarctl.testing.check_domain` shows where",
        ) from error
    verdicts = _checked(domain, given, len(attempts))
    broken = sum(verdict.outcome in (Outcome.TIMEOUT, Outcome.CRASHED) for verdict in verdicts)
    if len(verdicts) >= _ALARM_FROM and 2 * broken > len(verdicts):
        tell(
            "warning",
            text=f"{broken} of {len(verdicts)} verdicts are timeouts or crashes: the rewards of this batch mean little",
        )
    return verdicts


def _checked(domain: Domain, given: object, attempts: int) -> list[Verdict]:
    grader, hint = f"the grader of {type(domain).__name__}", "`grade` returns one verdict for each attempt, in order"
    if not isinstance(given, Sequence):
        raise PluginError(f"{grader} returned {given!r}, which is no list of verdicts", hint=hint)
    verdicts: list[Verdict] = []
    for verdict in cast(Sequence[object], given):
        if not isinstance(verdict, Verdict) or not math.isfinite(verdict.reward):
            raise PluginError(f"{grader} returned {verdict!r}, which is no verdict with a finite reward", hint=hint)
        verdicts.append(verdict)
    if len(verdicts) != attempts:
        raise PluginError(f"{grader} returned {len(verdicts)} verdicts for {attempts} attempts", hint=hint)
    return verdicts


def count_verdicts(verdicts: Sequence[Verdict]) -> Counter[str]:
    """How often each outcome and reason occurred, by `outcome` or `outcome/reason`."""
    return Counter(f"{v.outcome}/{v.reason}" if v.reason else str(v.outcome) for v in verdicts)
