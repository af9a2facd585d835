"""Signs that a run goes wrong, read from its ledger, each with what to try. Nothing in a run asks this."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean, median
from typing import Any

from soarctl.ledger import Ledger

STREAK = 10
"""Outer steps in a row that make a sign."""


@dataclass(frozen=True, slots=True)
class Alarm:
    """A sign that a run goes wrong."""

    name: str
    said: str
    """What was seen."""
    advice: str
    """What to try."""


@dataclass(frozen=True, slots=True)
class Step:
    """What alarms are told by, of one outer step."""

    step: int
    rewards_G: Sequence[float]
    drawn: int
    rejected: int
    asked: int
    different: int
    """Questions that are not those of another in the same step."""
    grad_norm: float
    kl: float
    broken: int
    """Verdicts of students that are timeouts or crashes."""
    verdicts: int


def alarms(ledger: Ledger) -> list[Alarm]:
    """The signs that there are now, by what the last outer steps say."""
    steps = _steps(ledger)
    return [alarm for sign in _SIGNS if (alarm := sign(steps)) is not None] if steps else []


def zero_gain(steps: Sequence[Step]) -> Alarm | None:
    """No dataset earned anything for a while."""
    streak = _streak(steps, lambda step: max(step.rewards_G) <= 0)
    if streak < STREAK:
        return None
    return Alarm(
        "zero-gain streak",
        f"no dataset gained anything in the last {streak} outer steps",
        "more inner.steps or reward.questions; reward.samples where greedy answers say nothing; a larger inner.lr",
    )


def all_equal(steps: Sequence[Step]) -> Alarm | None:
    """Datasets earn the same, so that the teacher has nothing to learn from."""
    streak = _streak(steps, lambda step: max(step.rewards_G) == min(step.rewards_G))
    if streak < 3:
        return None
    return Alarm(
        "equal rewards",
        f"all datasets earned the same in the last {streak} outer steps: the teacher learns nothing",
        "more reward.questions or reward.repeats, so that rewards have a finer resolution",
    )


def collapse(steps: Sequence[Step]) -> Alarm | None:
    """The teacher repeats itself."""
    last = fmean(step.different / step.asked for step in steps[-3:])
    first = fmean(step.different / step.asked for step in steps[:3])
    if last >= 0.5 * first:
        return None
    return Alarm(
        "diversity collapse",
        f"{100 * last:.0f} % of the questions of a step are different, {100 * first:.0f} % at first",
        "a larger teacher.kl, a smaller teacher.lr, or an earlier checkpoint of the teacher",
    )


def fewer_valid(steps: Sequence[Step]) -> Alarm | None:
    """Fewer completions pass the format filter."""
    last = fmean(1 - step.rejected / step.drawn for step in steps[-3:])
    first = fmean(1 - step.rejected / step.drawn for step in steps[:3])
    if last >= 0.7 * first:
        return None
    return Alarm(
        "fewer valid questions",
        f"{100 * last:.0f} % of the teacher's completions pass the format filter, {100 * first:.0f} % at first",
        "look at rejected completions; a larger teacher.kl; more teacher.max_new_tokens if they are cut off",
    )


def blow_up(steps: Sequence[Step]) -> Alarm | None:
    """The teacher's gradient or KL is far above what it was."""
    for name, values in (("gradient norm", [s.grad_norm for s in steps]), ("KL", [s.kl for s in steps])):
        usual = median(values[:-1]) if len(values) > 3 else 0.0
        if usual > 0 and values[-1] > 100 * usual:
            return Alarm(
                f"{name} blow-up",
                f"the teacher's {name} is {values[-1]:.3g}, usually {usual:.3g}",
                "a smaller teacher.lr; `--resume --from-step` goes back to before it",
            )
    return None


def broken_grader(steps: Sequence[Step]) -> Alarm | None:
    """Many verdicts are timeouts or crashes."""
    broken, verdicts = sum(s.broken for s in steps[-3:]), sum(s.verdicts for s in steps[-3:])
    if not verdicts or broken <= 0.05 * verdicts:
        return None
    return Alarm(
        "verifier failures",
        f"{100 * broken / verdicts:.0f} % of the verdicts of the last outer steps are timeouts or crashes",
        "`soarctl grade` on examples; a longer time limit or fewer grader processes in the domain's options",
    )


_SIGNS: Sequence[Callable[[Sequence[Step]], Alarm | None]] = (
    zero_gain,
    all_equal,
    collapse,
    fewer_valid,
    blow_up,
    broken_grader,
)


def _streak(steps: Sequence[Step], holds: Callable[[Step], bool]) -> int:
    count = 0
    for step in reversed(steps):
        if not holds(step):
            break
        count += 1
    return count


def _steps(ledger: Ledger) -> list[Step]:
    rewards: dict[int, list[float]] = {}
    for step, reward in ledger.rows("SELECT step, reward FROM datasets ORDER BY step, dataset"):
        rewards.setdefault(step, []).append(reward)
    rejected = dict(ledger.rows("SELECT step, SUM(count) FROM rejections GROUP BY step"))
    asked = {
        step: (count, different)
        for step, count, different in ledger.rows(
            "SELECT step, COUNT(*), COUNT(DISTINCT id) FROM questions GROUP BY step"
        )
    }
    last = max(rewards, default=0)
    verdicts: dict[int, tuple[int, int]] = {}
    for step, told in ledger.rows("SELECT step, verdicts FROM students WHERE step > ?", last - 3):
        counts: dict[str, int] = json.loads(told)
        broken = sum(n for name, n in counts.items() if name.partition("/")[0] in ("timeout", "crashed"))
        before = verdicts.get(step, (0, 0))
        verdicts[step] = (before[0] + broken, before[1] + sum(counts.values()))
    found: list[Step] = []
    for step, drawn, teacher in ledger.rows("SELECT step, drawn, teacher FROM steps ORDER BY step"):
        update: dict[str, Any] = json.loads(teacher)
        found.append(
            Step(
                step=step,
                rewards_G=rewards[step],
                drawn=drawn,
                rejected=rejected.get(step, 0),
                asked=asked[step][0],
                different=asked[step][1],
                grad_norm=update["grad_norm"],
                kl=update["kl"],
                broken=verdicts.get(step, (0, 0))[0],
                verdicts=verdicts.get(step, (0, 0))[1],
            )
        )
    return found
