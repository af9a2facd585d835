"""What a report says about a study: its table, and its charts."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from soarctl.ledger import Ledger
from soarctl.report.charts import Interval, Series, interval_chart, line_chart
from soarctl.report.figures import Figure
from soarctl.study.spec import MEANING, Arm
from soarctl.study.table import ArmRow, StudyTable, study_table
from soarctl.study.writers import difference, percent, questions, teacher_rows

_CURVES = ("base", "hard_only", "pq", "ps", "grounded_t", "intrinsic_t")
"""Arms that are drawn as lines; more of them could not be told apart."""


@dataclass(frozen=True)
class ArmLine:
    """A row of the study's table as text, with what it is sorted by."""

    arm: str
    meaning: str
    students: int
    questions: tuple[int, str]
    scores: Sequence[tuple[float, str]]
    interval: str
    difference: tuple[float, str] | None
    """To hard_only, with its interval."""
    ratio: float | None
    p: float | None


@dataclass(frozen=True)
class StudyPage:
    """One study, ready to be laid out."""

    table: StudyTable
    lines: Sequence[ArmLine]
    teachers: Sequence[Sequence[str]]
    figures: Sequence[Figure]


def study_page(ledger: Ledger) -> StudyPage:
    """A study as far as it has got."""
    table = study_table(ledger)
    found = [
        *(_forest(table, k) for k in dict.fromkeys((table.ks[0], table.ks[-1])) if table.arms),
        _pass_at_k(table),
        _measured(table),
        _training(table),
    ]
    return StudyPage(
        table=table,
        lines=[_line(arm, table.ks) for arm in table.arms],
        teachers=teacher_rows(table),
        figures=[figure for figure in found if figure is not None],
    )


def _line(arm: ArmRow, ks: Sequence[int]) -> ArmLine:
    first, compared = arm.pass_at[ks[0]], (arm.differences or {}).get(ks[0])
    return ArmLine(
        arm=arm.arm,
        meaning=MEANING[Arm(arm.arm)],
        students=len(arm.students),
        questions=(arm.questions[0], questions(arm, dash="–")),
        scores=[(arm.pass_at[k].mean, percent(arm.pass_at[k])) for k in ks],
        interval=f"{100 * first.low:.1f} to {100 * first.high:.1f}",
        difference=(compared.mean, difference(compared)) if compared else None,
        ratio=compared.ratio if compared else None,
        p=compared.p if compared else None,
    )


def _forest(table: StudyTable, k: int) -> Figure:
    rows = [
        Interval(arm.arm, s.mean, s.low, s.high, [student.pass_at[k] for student in arm.students])
        for arm in table.arms
        for s in [arm.pass_at[k]]
    ]
    hard = next((arm.pass_at[k].mean for arm in table.arms if arm.arm == "hard_only"), None)
    return Figure(
        f"pass@{k} of each arm",
        "Mean over students and problems, with its 95 % bootstrap interval; small dots are single students."
        + (" The line is hard_only." if hard is not None else ""),
        interval_chart(rows, label=f"pass@{k} by arm with intervals", x_label=f"pass@{k}", reference=hard),
    )


def _shown(table: StudyTable) -> list[tuple[int, ArmRow]]:
    by_name = {arm.arm: arm for arm in table.arms}
    return [(color, by_name[name]) for color, name in enumerate(_CURVES) if name in by_name]


def _pass_at_k(table: StudyTable) -> Figure | None:
    series = [
        Series(
            arm.arm,
            [(place, arm.pass_at[k].mean) for place, k in enumerate(table.ks)],
            color,
            whiskers=[(place, arm.pass_at[k].low, arm.pass_at[k].high) for place, k in enumerate(table.ks)],
        )
        for color, arm in _shown(table)
    ]
    if not series:
        return None
    return Figure(
        "pass@k",
        f"{table.problems} held-out hard problems, {table.samples} attempts each, with 95 % bootstrap intervals.",
        line_chart(
            series,
            label="pass@k of the main arms",
            x_label="k",
            y_label="pass@k",
            percent=True,
            x_ticks=[(place, str(k)) for place, k in enumerate(table.ks)],
            from_zero=True,
        ),
        series,
    )


def _measured(table: StudyTable) -> Figure | None:
    series: list[Series] = []
    for color, arm in _shown(table):
        steps = list(arm.students[0].curve)
        if len(steps) > 1:
            points = [(float(step), fmean(s.curve[step] for s in arm.students)) for step in steps]
            series.append(Series(arm.arm, points, color, faint=[list(s.curve.items()) for s in arm.students]))
    if not series:
        return None
    return Figure(
        f"pass@{table.ks[0]} on held-out problems while training",
        "Mean over students; thin lines are single students.",
        line_chart(
            series,
            label="Held-out accuracy by training step",
            x_label="training step",
            y_label=f"pass@{table.ks[0]}",
            percent=True,
            from_zero=True,
        ),
        series,
    )


def _training(table: StudyTable) -> Figure | None:
    series = [
        Series(
            arm.arm,
            [(i + 1, fmean(column)) for i, column in enumerate(zip(*(s.rewards for s in arm.students), strict=False))],
            color,
        )
        for color, arm in _shown(table)
        if arm.students[0].rewards
    ]
    if not series:
        return None
    return Figure(
        "Training reward",
        "On whatever is trained on at that step, mean over students. Where it levels off, scores begin to count.",
        line_chart(series, label="Training reward by step", x_label="training step", y_label="reward", wide=True),
        series,
        wide=True,
    )
