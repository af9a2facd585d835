"""Signs that a run goes wrong, judged from its ledger after each outer step, each with what to try.

A sign is a function of the ledger's rows alone, and is recorded in the transaction that commits the step. So a run that
was killed and resumed has the alarms of one that was not, and whoever reads a run judges nothing: `alarms` reads what
is recorded. Nothing in a run asks for them.
"""

import json
import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, median
from typing import Any

from soarctl.ledger import Ledger

STREAK = 10
"""Outer steps in a row without a gain that make a sign."""
_EDGE = 3
"""The last so many outer steps are compared with the first so many."""
_USUAL = 30
"""What is usual is the median of at most so many steps before the last."""
_LOOKED_AT = 64
"""Questions of a step that the Vendi score is of, as in `soarctl analyze`."""


@dataclass(frozen=True, slots=True)
class Sign:
    """What was seen after an outer step."""

    name: str
    said: str
    advice: str
    """What to try."""


@dataclass(frozen=True, slots=True)
class Alarm:
    """A sign with the outer steps after which it was seen."""

    name: str
    said: str
    """As of the last of them."""
    advice: str
    spans: Sequence[tuple[int, int]]
    """First and last outer step of each time that it held, in order."""
    holds: bool
    """Whether it held after the newest outer step."""

    @property
    def text(self) -> str:
        """In a line: what, when, what to try."""
        return f"{self.name} ({self.when}): {self.said}. Try {self.advice}."

    @property
    def when(self) -> str:
        """The outer steps in words."""
        before = f"{len(self.spans) - 1} times before, " if len(self.spans) > 2 else "once before, "
        before = before if len(self.spans) > 1 else ""
        since, last = self.spans[-1]
        if self.holds:
            return f"{before}since outer step {since}"
        return f"{before}{f'outer steps {since} to {last}' if since < last else f'outer step {last}'}"


@dataclass(frozen=True, slots=True)
class Variety:
    """Of the questions of an outer step."""

    different: float
    """Share that is not that of another in the same step."""
    vendi: float
    """The effective number of different ones among the first 64."""


@dataclass(frozen=True, slots=True)
class Step:
    """What signs are seen by, of one outer step."""

    step: int
    rewards_G: Sequence[float]
    drawn: int
    rejected: int
    grad_norm: float
    kl: float
    variety: Variety | None = None
    """Known of the first and of the last steps."""
    student_norm: float | None = None
    """The largest gradient norm of its students. Known of the last steps, where the reward trains students."""
    broken: int = 0
    """Verdicts of students that are timeouts or crashes. Known of the last steps."""
    verdicts: int = 0
    lost: int = 0
    """Students whose practice failed for good."""


def judge(ledger: Ledger) -> list[Sign]:
    """The signs that the rows of the last outer step, and of those before it, show."""
    steps = _steps(ledger)
    return [sign for seen in _SIGNS if (sign := seen(steps)) is not None] if steps else []


def alarms(ledger: Ledger) -> list[Alarm]:
    """All that was recorded, each name once, those that hold now first."""
    rows: defaultdict[str, list[Any]] = defaultdict(list)
    for name, *row in ledger.alarm_rows():
        rows[name].append(row)
    newest = ledger.steps_done
    found = [
        Alarm(name, of[-1][1], of[-1][2], _spans([step for step, _, _ in of]), of[-1][0] == newest)
        for name, of in rows.items()
    ]
    return sorted(found, key=lambda alarm: (not alarm.holds, alarm.spans[-1][0]))


def alarms_by_step(ledger: Ledger) -> dict[int, list[dict[str, Any]]]:
    """By outer step, the signs that were seen after it as events have them: `step` is when each was raised."""
    by_step: defaultdict[int, list[dict[str, Any]]] = defaultdict(list)
    raised: dict[str, tuple[int, int]] = {}
    for name, step, said, advice in ledger.alarm_rows():
        since, last = raised.get(name, (step, step))
        since = since if last >= step - 1 else step
        raised[name] = (since, step)
        by_step[step].append({"step": since, "name": name, "said": said, "advice": advice})
    return dict(by_step)


def zero_gain(steps: Sequence[Step]) -> Sign | None:
    """No dataset earned anything for a while."""
    streak = _streak(steps, lambda step: max(step.rewards_G) <= 0)
    if streak < STREAK:
        return None
    return Sign(
        "zero-gain streak",
        f"no dataset gained anything in the last {streak} outer steps",
        "more inner.steps or reward.questions; reward.samples where greedy answers say nothing; a larger inner.lr",
    )


def all_equal(steps: Sequence[Step]) -> Sign | None:
    """Datasets earn the same, so that the teacher has nothing to learn from."""
    streak = _streak(steps, lambda step: max(step.rewards_G) == min(step.rewards_G))
    if streak < _EDGE:
        return None
    return Sign(
        "equal rewards",
        f"all datasets earned the same in the last {streak} outer steps: the teacher learns nothing",
        "more reward.questions or reward.repeats, so that rewards have a finer resolution",
    )


def collapse(steps: Sequence[Step]) -> Sign | None:
    """The teacher repeats itself, word for word or nearly."""
    first = [step.variety for step in steps[:_EDGE] if step.variety is not None]
    last = [step.variety for step in steps[-_EDGE:] if step.variety is not None]
    advice = "a new run with a larger teacher.kl or a smaller teacher.lr"
    now, then = fmean(v.different for v in last), fmean(v.different for v in first)
    if now < 0.5 * then:
        said = f"{100 * now:.0f} % of the questions of a step are different, {100 * then:.0f} % at first"
        return Sign("diversity collapse", said, advice)
    # One is the least there is: a teacher that began with one question has nothing to lose.
    now, then = fmean(v.vendi for v in last), fmean(v.vendi for v in first)
    if now - 1 < 0.5 * (then - 1):
        said = f"the questions of a step are alike: a Vendi score of {now:.1f}, {then:.1f} at first"
        return Sign("diversity collapse", said, advice)
    return None


def fewer_valid(steps: Sequence[Step]) -> Sign | None:
    """Fewer completions pass the format filter."""
    last = fmean(1 - step.rejected / step.drawn for step in steps[-_EDGE:])
    first = fmean(1 - step.rejected / step.drawn for step in steps[:_EDGE])
    if last >= 0.7 * first:
        return None
    return Sign(
        "fewer valid questions",
        f"{100 * last:.0f} % of the teacher's completions pass the format filter, {100 * first:.0f} % at first",
        "look at what is rejected (`soarctl analyze`); a larger teacher.kl; more teacher.max_new_tokens if they are "
        "cut off",
    )


def gradient_blow_up(steps: Sequence[Step]) -> Sign | None:
    """The teacher's gradient is far above what it was."""
    # Where datasets earn the same there is no gradient but that of the KL, and what is usual is not seen.
    taught = [step.grad_norm for step in steps[:-1] if max(step.rewards_G) > min(step.rewards_G)]
    return _blow_up("gradient norm", "the teacher's", [*taught, steps[-1].grad_norm], 100, 0.0, "teacher.lr")


def kl_blow_up(steps: Sequence[Step]) -> Sign | None:
    """The teacher is far from where it began, of a sudden."""
    # It begins at nothing and grows: what is small may be many times as much as before.
    return _blow_up("KL", "the teacher's", [step.kl for step in steps], 10, 0.1, "teacher.lr or a larger teacher.kl")


def student_blow_up(steps: Sequence[Step]) -> Sign | None:
    """The gradient of a student is far above what those of students were."""
    if steps[-1].student_norm is None:
        return None
    norms = [step.student_norm for step in steps if step.student_norm]
    norms = norms if steps[-1].student_norm else [*norms, 0.0]
    return _blow_up("students' gradient norm", "the largest student's", norms, 100, 0.0, "inner.lr")


def broken_grader(steps: Sequence[Step]) -> Sign | None:
    """Many verdicts are timeouts or crashes."""
    broken, verdicts = sum(s.broken for s in steps[-_EDGE:]), sum(s.verdicts for s in steps[-_EDGE:])
    if not verdicts or broken <= 0.05 * verdicts:
        return None
    return Sign(
        "verifier failures",
        f"{100 * broken / verdicts:.0f} % of the verdicts of the last outer steps are timeouts or crashes",
        "`soarctl grade` on examples; a longer time limit or fewer grader processes in the domain's options",
    )


def lost_students(steps: Sequence[Step]) -> Sign | None:
    """Students are missing in the means of their datasets."""
    if not steps[-1].lost:
        return None
    return Sign(
        "lost students",
        f"the practice of {steps[-1].lost} of the last outer step's students failed for good, and is left out",
        "what their errors say, in the ledger's table lost_students; where memory ran out, a smaller trainer.width",
    )


_SIGNS: Sequence[Callable[[Sequence[Step]], Sign | None]] = (
    zero_gain,
    all_equal,
    collapse,
    fewer_valid,
    gradient_blow_up,
    kl_blow_up,
    student_blow_up,
    broken_grader,
    lost_students,
)


def _blow_up(name: str, whose: str, values: Sequence[float], times: int, least: float, less: str) -> Sign | None:
    """The last value is above `least` and more than `times` the median of those before it."""
    before = values[-1 - _USUAL : -1]
    usual = median(before) if len(before) >= _EDGE else 0.0
    # What is not a number is above nothing, and worse than any number.
    if math.isfinite(values[-1]) and (usual <= 0 or values[-1] <= max(times * usual, least)):
        return None
    return Sign(
        f"{name} blow-up",
        f"{whose} is {values[-1]:.3g}, usually {usual:.3g}",
        f"a new run with a smaller {less}",
    )


def _streak(steps: Sequence[Step], holds: Callable[[Step], bool]) -> int:
    count = 0
    for step in reversed(steps):
        if not holds(step):
            break
        count += 1
    return count


def _spans(steps: Sequence[int]) -> list[tuple[int, int]]:
    spans: list[tuple[int, int]] = []
    for step in steps:
        if spans and step == spans[-1][1] + 1:
            spans[-1] = (spans[-1][0], step)
        else:
            spans.append((step, step))
    return spans


def _steps(ledger: Ledger) -> list[Step]:
    """All outer steps. Whatever is large is read of the first and the last of them alone: this is asked every step."""
    rewards: defaultdict[int, list[float]] = defaultdict(list)
    for step, reward in ledger.rows("SELECT step, reward FROM datasets ORDER BY step, dataset"):
        rewards[step].append(reward)
    rejected = dict(ledger.rows("SELECT step, SUM(count) FROM rejections GROUP BY step"))
    rows = ledger.rows("SELECT step, drawn, teacher FROM steps ORDER BY step")
    updates: dict[int, dict[str, Any]] = {step: json.loads(teacher) for step, _, teacher in rows}
    varieties = {step: _variety(ledger, step) for step in {*list(updates)[:_EDGE], *list(updates)[-_EDGE:]}}
    lost = dict(ledger.rows("SELECT step, COUNT(*) FROM lost_students GROUP BY step"))
    norms, verdicts = _students(ledger, last=len(rows))
    return [
        Step(
            step=step,
            rewards_G=rewards[step],
            drawn=drawn,
            rejected=rejected.get(step, 0),
            grad_norm=updates[step]["grad_norm"],
            kl=updates[step]["kl"],
            variety=varieties.get(step),
            student_norm=norms.get(step),
            broken=verdicts.get(step, (0, 0))[0],
            verdicts=verdicts.get(step, (0, 0))[1],
            lost=lost.get(step, 0),
        )
        for step, drawn, _ in rows
    ]


def _variety(ledger: Ledger, step: int) -> Variety:
    from soarctl.diversity import diversity  # numpy, which those who read what is recorded do not need

    texts = [
        question
        for (question,) in ledger.rows("SELECT question FROM questions WHERE step = ? ORDER BY dataset, position", step)
    ]
    found = diversity(texts, set(), _LOOKED_AT)
    return Variety(1 - found.repeated, found.vendi)


def _students(ledger: Ledger, last: int) -> tuple[Mapping[int, float], Mapping[int, tuple[int, int]]]:
    """Of the last steps: the largest gradient norm, and verdicts that are no verdicts, of how many."""
    norms: dict[int, float] = {}
    verdicts: dict[int, tuple[int, int]] = {}
    for step, of_steps, told in ledger.rows(
        "SELECT step, grad_norms, verdicts FROM students WHERE step BETWEEN ? AND ?", last - _USUAL, last
    ):
        counts: dict[str, int] = json.loads(told)
        broken = sum(n for name, n in counts.items() if name.partition("/")[0] in ("timeout", "crashed"))
        before = verdicts.get(step, (0, 0))
        verdicts[step] = (before[0] + broken, before[1] + sum(counts.values()))
        # max() would lose what is not a number.
        largest = max((norm if math.isfinite(norm) else math.inf for norm in json.loads(of_steps)), default=0.0)
        norms[step] = max(norms.get(step, 0.0), largest)
    return norms, verdicts
