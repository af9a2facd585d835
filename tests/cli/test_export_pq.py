import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


def test_what_was_written_is_said_in_a_line(folder: Path, small_run: Path, soarctl: Callable[..., Any]) -> None:
    ran = soarctl("export-pq", "--out", "pq/questions.jsonl", "--dedup")
    assert ran.code == 0
    assert ran.out == (
        "2 questions of 1 promotion are in pq/questions.jsonl, described in pq/README.md\n"
        "0 duplicates left out, 0 of them with another answer\n"
    )
    assert sorted(path.name for path in Path("pq").iterdir()) == ["README.md", "questions.jsonl"]


def test_json_has_the_counts(folder: Path, small_run: Path, soarctl: Callable[..., Any]) -> None:
    assert json.loads(soarctl("export-pq", "runs/small", "--out", "q.jsonl", "--json").out) == {
        "file": "q.jsonl",
        "rows": 2,
        "promotions": 1,
        "duplicates": 0,
        "conflicting": 0,
    }


def test_an_earlier_export_is_overwritten_on_request_alone(
    folder: Path, small_run: Path, soarctl: Callable[..., Any]
) -> None:
    soarctl("export-pq", "--out", "pq/questions.jsonl")
    ran = soarctl("export-pq", "--out", "pq/questions.jsonl")
    assert (ran.code, ran.err) == (2, "error: pq/questions.jsonl: the file exists\n  `--force` overwrites it\n")
    ran = soarctl("export-pq", "--out", "pq/other.jsonl")
    assert (ran.code, ran.err) == (2, "error: pq/README.md: the dataset card exists\n  `--force` overwrites it\n")
    assert soarctl("export-pq", "--out", "pq/questions.jsonl", "--force").code == 0


def test_a_readme_that_is_no_dataset_card_is_never_overwritten(
    folder: Path, small_run: Path, soarctl: Callable[..., Any]
) -> None:
    Path("README.md").write_text("# My project\n")
    ran = soarctl("export-pq", "--out", "questions.jsonl", "--force")
    assert ran.code == 2
    assert ran.err == (
        "error: README.md: the dataset card goes here, but this file is something else\n"
        "  write to a directory of its own: --out pq/questions.jsonl\n"
    )
    assert Path("README.md").read_text() == "# My project\n"
    assert not Path("questions.jsonl").exists()


def test_a_run_without_promotions_has_nothing_to_export(
    folder: Path, write_run: Callable[..., Path], soarctl: Callable[..., Any]
) -> None:
    write_run(folder / "runs" / "none", gains=[[[0.0] * 3, [0.0] * 3]] * 3)
    ran = soarctl("export-pq", "--out", "pq/questions.jsonl")
    assert ran.code == 2
    assert ran.err == (
        "error: runs/none: the run has made no promotion in 3 outer steps, so there are no promotion questions\n"
        "  a promotion needs a mean reward above 0.01 over 2 steps; the best was 0, at step 2\n"
    )
    assert not Path("pq").exists()


def test_a_name_says_jsonl_or_parquet(folder: Path, small_run: Path, soarctl: Callable[..., Any]) -> None:
    ran = soarctl("export-pq", "--out", "questions.csv")
    assert (ran.code, ran.err) == (2, "error: questions.csv: the name should end in .jsonl or .parquet\n")


def test_parquet_without_pyarrow_says_what_to_install(
    folder: Path, small_run: Path, soarctl: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    ran = soarctl("export-pq", "--out", "questions.parquet")
    assert ran.code == 2
    assert ran.err == (
        "error: Parquet needs pyarrow, which is not installed\n"
        '  pip install "soarctl[data]", or export to a name that ends in .jsonl\n'
    )
