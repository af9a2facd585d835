"""The table of a study as plain rows, CSV, LaTeX and JSON."""

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import asdict

from soarctl.study.estimates import Score
from soarctl.study.table import ArmRow, StudyTable


def rows_of(table: StudyTable) -> tuple[list[str], list[list[str]]]:
    """Header and rows in percent, mean ± SD over students, and how the first k compares with hard_only."""
    k = table.ks[0]
    header = ["ARM", "STUDENTS", *(f"PASS@{k}" for k in table.ks), f"95 % OF @{k}", f"@{k} / HARD_ONLY", "P"]
    return header, [_row(arm, table.ks) for arm in table.arms]


def teacher_rows(table: StudyTable) -> list[list[str]]:
    """Arm, run, and the mean of the students of that run's teacher at each k, in percent."""
    return [
        [arm.arm, source, *(f"{100 * pass_at[k]:.1f}" for k in table.ks)]
        for arm in table.arms
        for source, pass_at in arm.teachers.items()
    ]


def as_csv(table: StudyTable) -> str:
    """One line per arm and k."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    compared_by = ["difference", "difference_low", "difference_high", "p", "ratio"]
    writer.writerow(["arm", "students", "k", "mean", "sd", "low", "high", *compared_by])
    for arm in table.arms:
        for k in table.ks:
            score, compared = arm.pass_at[k], (arm.differences or {}).get(k)
            line = [arm.arm, len(arm.students), k, score.mean, score.sd, score.low, score.high]
            line += [compared.mean, compared.low, compared.high, compared.p, compared.ratio] if compared else [None] * 5
            writer.writerow(line)
    return out.getvalue()


def as_latex(table: StudyTable) -> str:
    """A tabular for booktabs, in percent."""
    lines = [
        rf"% {table.name}: {table.problems} held-out hard problems, {table.samples} attempts each, {table.steps} steps",
        rf"\begin{{tabular}}{{l{'r' * len(table.ks)}}}",
        r"\toprule",
        " & ".join(["", *(f"pass@{k}" for k in table.ks)]) + r" \\",
        r"\midrule",
    ]
    for arm in table.arms:
        cells = [rf"${100 * s.mean:.1f} \pm {100 * s.sd:.1f}$" for s in map(arm.pass_at.__getitem__, table.ks)]
        lines.append(" & ".join([arm.arm.replace("_", r"\_"), *cells]) + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", ""])


def as_json(table: StudyTable) -> str:
    """Everything, students and their curves included."""
    return json.dumps(asdict(table), indent=1, ensure_ascii=False) + "\n"


def _row(arm: ArmRow, ks: Sequence[int]) -> list[str]:
    first = arm.pass_at[ks[0]]
    compared = arm.differences[ks[0]] if arm.differences is not None else None
    return [
        arm.arm,
        str(len(arm.students)),
        *(percent(arm.pass_at[k]) for k in ks),
        f"{100 * first.low:.1f} to {100 * first.high:.1f}",
        "" if compared is None or compared.ratio is None else f"{compared.ratio:.2f}",
        "" if compared is None else f"{compared.p:.4f}",
    ]


def percent(score: Score) -> str:
    """A score as the paper writes it: mean ± SD, in percent."""
    return f"{100 * score.mean:.1f} ± {100 * score.sd:.1f}"
