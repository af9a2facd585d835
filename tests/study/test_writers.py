"""The table of a study in its forms."""

import csv
import io
import json
from dataclasses import replace
from pathlib import Path

import pytest

from soarctl.study import writers
from soarctl.study.estimates import Difference, Score
from soarctl.study.table import ArmRow, StudentRow, StudyTable, open_study, study_table

HALF = {1: 0.05, 4: 0.125}
HARD = StudentRow(0, None, 0, 2, [4], HALF, [0.1, 0.2, 0.3, 0.4], {4: 0.05})
STUDENT = StudentRow(0, "run_0", 16, 2, [4], HALF, [0.1, 0.2, 0.3, 0.4], {4: 0.05})
TABLE = StudyTable(
    name="small",
    directory="runs/small",
    ks=(1, 4),
    problems=9,
    samples=8,
    steps=4,
    seeds=1,
    asked=24,
    arms=[
        ArmRow(
            "hard_only",
            [HARD],
            (0, 0),
            {k: Score(v, 0.01, 0.02, 0.08) for k, v in HALF.items()},
            {},
            None,
        ),
        ArmRow(
            "pq",
            [STUDENT],
            (16, 24),
            {k: Score(2 * v, 0.02, 0.05, 0.15) for k, v in HALF.items()},
            {"run_0": HALF},
            {k: Difference(v, 0.01, 0.09, 0.0123, 2.0) for k, v in HALF.items()},
        ),
    ],
    skipped={"ps": "no run made a promotion"},
    waiting=[],
    readings=2,
)


def test_rows_are_in_percent_with_the_comparison() -> None:
    header, rows = writers.rows_of(TABLE)
    assert header == [
        *("ARM", "STUDENTS", "QUESTIONS", "PASS@1", "PASS@4"),
        *("95 % OF @1", "@1 - HARD_ONLY", "@1 / HARD_ONLY", "P"),
    ]
    assert rows == [
        ["hard_only", "1", "", "5.0 ± 1.0", "12.5 ± 1.0", "2.0 to 8.0", "", "", ""],
        ["pq", "1", "16-24", "10.0 ± 2.0", "25.0 ± 2.0", "5.0 to 15.0", "+5.0 (1.0 to 9.0)", "2.00", "0.0123"],
    ]
    assert writers.teacher_rows(TABLE) == [["pq", "run_0", "5.0", "12.5"]]


def test_an_arm_with_fewer_questions_than_asked_for_is_named() -> None:
    assert TABLE.short == {
        "pq": "students practise as few as 16 different questions where training.questions asks for 24"
    }
    assert replace(TABLE, asked=16).short == {}


def test_csv_has_a_line_for_each_arm_and_k_and_for_each_teacher() -> None:
    rows = list(csv.DictReader(io.StringIO(writers.as_csv(TABLE))))
    assert [(row["arm"], row["teacher"], row["k"], row["mean"], row["ratio"]) for row in rows] == [
        ("hard_only", "", "1", "0.05", ""),
        ("hard_only", "", "4", "0.125", ""),
        ("pq", "", "1", "0.1", "2.0"),
        ("pq", "", "4", "0.25", "2.0"),
        ("pq", "run_0", "1", "0.05", ""),
        ("pq", "run_0", "4", "0.125", ""),
    ]
    assert [rows[4][key] for key in ("students", "questions_min", "questions_max")] == ["1", "16", "16"]
    assert [rows[2][key] for key in ("questions_min", "questions_max")] == ["16", "24"]


def test_latex_is_a_tabular_with_its_underscores_escaped() -> None:
    assert writers.as_latex(TABLE).splitlines()[1:] == [
        r"\begin{tabular}{lrrrrrr}",
        r"\toprule",
        r" & questions & pass@1 & pass@4 & 95\,\% of @1 & @1 $-$ hard\_only & $p$ \\",
        r"\midrule",
        r"hard\_only &  & $5.0 \pm 1.0$ & $12.5 \pm 1.0$ & 2.0 to 8.0 &  &  \\",
        r"pq & 16--24 & $10.0 \pm 2.0$ & $25.0 \pm 2.0$ & 5.0 to 15.0 & $+5.0$ & 0.0123 \\",
        r"\bottomrule",
        r"\end{tabular}",
        "% means of the students of each teacher",
        r"\begin{tabular}{lrrr}",
        r"\toprule",
        r" & run & pass@1 & pass@4 \\",
        r"\midrule",
        r"pq & run\_0 & 5.0 & 12.5 \\",
        r"\bottomrule",
        r"\end{tabular}",
    ]


def test_json_has_the_students_and_their_curves(whole_study: Path) -> None:
    with open_study(whole_study) as ledger:
        table = json.loads(writers.as_json(study_table(ledger)))
    arm = next(arm for arm in table["arms"] if arm["arm"] == "pq")
    assert len(arm["students"][0]["rewards"]) == 8
    assert list(arm["students"][0]["curve"]) == ["3", "6", "8"]
    assert arm["pass_at"]["1"]["mean"] == pytest.approx(sum(s["pass_at"]["1"] for s in arm["students"]) / 3)
