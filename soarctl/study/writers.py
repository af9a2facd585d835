"""The table of a study as plain rows, CSV, LaTeX and JSON."""

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import asdict

from soarctl.study.estimates import Difference, Score
from soarctl.study.table import ArmRow, StudyTable


def rows_of(table: StudyTable) -> tuple[list[str], list[list[str]]]:
    """Header and rows in percent, mean ± SD over students, and how the first k compares with hard_only."""
    k = table.ks[0]
    header = ["ARM", "STUDENTS", "QUESTIONS", *(f"PASS@{k}" for k in table.ks), f"95 % OF @{k}"]
    header += [f"@{k} - HARD_ONLY", f"@{k} / HARD_ONLY", "P"]
    return header, [_row(arm, table.ks) for arm in table.arms]


def teacher_rows(table: StudyTable) -> list[list[str]]:
    """Arm, run, and the mean of the students of that run's teacher at each k, in percent."""
    return [
        [arm.arm, source, *(f"{100 * pass_at[k]:.1f}" for k in table.ks)]
        for arm in table.arms
        for source, pass_at in arm.teachers.items()
    ]


def as_csv(table: StudyTable) -> str:
    """One line per arm and k, and after those of an arm one per teacher and k with the mean of its students."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    compared_by = ["difference", "difference_low", "difference_high", "p", "ratio"]
    counts = ["students", "questions_min", "questions_max"]
    writer.writerow(["arm", "teacher", *counts, "k", "mean", "sd", "low", "high", *compared_by])
    for arm in table.arms:
        for k in table.ks:
            score, compared = arm.pass_at[k], (arm.differences or {}).get(k)
            line = [arm.arm, None, len(arm.students), *arm.questions, k, score.mean, score.sd, score.low, score.high]
            line += [compared.mean, compared.low, compared.high, compared.p, compared.ratio] if compared else [None] * 5
            writer.writerow(line)
        for teacher, means in arm.teachers.items():
            asked = [student.questions for student in arm.students if student.source == teacher]
            known = [arm.arm, teacher, len(asked), min(asked), max(asked)]
            writer.writerows([*known, k, means[k], *[None] * 8] for k in table.ks)
    return out.getvalue()


def as_latex(table: StudyTable) -> str:
    """Tabulars for booktabs, in percent: the arms, and the means of each teacher's students."""
    k = table.ks[0]
    passes = [f"pass@{k}" for k in table.ks]
    arms: list[list[str]] = []
    for arm in table.arms:
        first, compared = arm.pass_at[k], (arm.differences or {}).get(k)
        cells = [rf"${100 * s.mean:.1f} \pm {100 * s.sd:.1f}$" for s in map(arm.pass_at.__getitem__, table.ks)]
        cells.append(f"{100 * first.low:.1f} to {100 * first.high:.1f}")
        cells += [f"${100 * compared.mean:+.1f}$", f"{compared.p:.4f}"] if compared else ["", ""]
        arms.append([_latex(arm.arm), questions(arm, dash="--"), *cells])
    said = (
        f"% {table.name}: {table.problems} held-out hard problems, {table.samples} attempts each, {table.steps} steps"
    )
    found = [said, *_tabular(["", "questions", *passes, rf"95\,\% of @{k}", rf"@{k} $-$ hard\_only", "$p$"], arms)]
    teachers = [[_latex(arm), _latex(run), *means] for arm, run, *means in teacher_rows(table)]
    if teachers:
        found += ["% means of the students of each teacher", *_tabular(["", "run", *passes], teachers)]
    return "\n".join([*found, ""])


def _tabular(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    body = [" & ".join(row) + r" \\" for row in (header, *rows)]
    return [
        rf"\begin{{tabular}}{{l{'r' * (len(header) - 1)}}}",
        r"\toprule",
        body[0],
        r"\midrule",
        *body[1:],
        r"\bottomrule",
        r"\end{tabular}",
    ]


def _latex(name: str) -> str:
    return name.replace("_", r"\_")


def as_json(table: StudyTable) -> str:
    """Everything, students and their curves included."""
    return json.dumps(asdict(table), indent=1, ensure_ascii=False) + "\n"


def _row(arm: ArmRow, ks: Sequence[int]) -> list[str]:
    first = arm.pass_at[ks[0]]
    compared = arm.differences[ks[0]] if arm.differences is not None else None
    return [
        arm.arm,
        str(len(arm.students)),
        questions(arm),
        *(percent(arm.pass_at[k]) for k in ks),
        f"{100 * first.low:.1f} to {100 * first.high:.1f}",
        "" if compared is None else difference(compared),
        "" if compared is None or compared.ratio is None else f"{compared.ratio:.2f}",
        "" if compared is None else f"{compared.p:.4f}",
    ]


def questions(arm: ArmRow, dash: str = "-") -> str:
    """How many different questions a student practises beside the hard problems: `96`, or `62-72`; none is empty."""
    fewest, most = arm.questions
    return "" if most == 0 else str(most) if fewest == most else f"{fewest}{dash}{most}"


def difference(compared: Difference) -> str:
    """A difference to hard_only with its interval, in points of percent."""
    return f"{100 * compared.mean:+.1f} ({100 * compared.low:.1f} to {100 * compared.high:.1f})"


def percent(score: Score) -> str:
    """A score as the paper writes it: mean ± SD, in percent."""
    return f"{100 * score.mean:.1f} ± {100 * score.sd:.1f}"
