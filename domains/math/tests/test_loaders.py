"""Real files, and everything that can be wrong with one."""

import gzip
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest
from soarctl_math.loaders import Format, Source, load, problems_of
from soarctl_math.overlap import Known

from soarctl.api import DataError

REAL: dict[str, tuple[Format, int, str]] = {
    "math/math_test_dev.jsonl.gz": ("math", 2531, "10"),
    "math/math500.jsonl.gz": ("math", 500, r"\left( 3, \frac{\pi}{2} \right)"),
    "math/MATH_layout_500.tar.gz": ("math", 500, "4"),
    "math/math_train_answers.jsonl.gz": ("math", 7469, "0"),
    "harp/harp_short_dev.jsonl.gz": ("harp", 228, r"$125\%$"),
    "harp/harp_mcq_dev.jsonl.gz": ("harp", 250, r"$\text{882 dollars}$"),
    "olympiadbench/OE_TO_maths_en_COMP_dev.json.gz": ("olympiadbench", 338, "$N=n$"),
    "extra/gsm8k_test_dev.jsonl.gz": ("table", 660, "18"),
}


def write(path: Path, *rows: Any) -> Source:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return Source(path=str(path), format="table")


@pytest.mark.parametrize("name", REAL)
def test_real_files_give_their_problems(data: Path, name: str) -> None:
    kind, count, first = REAL[name]
    problems, _ = load(Source(path=str(data / name), format=kind), Known())
    assert len(problems) == count
    assert problems[0].answer == first
    assert len({problem.id for problem in problems}) == count


def test_the_folder_layout_of_math_gives_what_its_jsonl_form_gives(data: Path, tmp_path: Path) -> None:
    with tarfile.open(data / "math" / "MATH_layout_500.tar.gz") as archive:
        archive.extractall(tmp_path)  # `filter` came with 3.11.4; the archive is our own
    folder, _ = load(Source(path=str(tmp_path / "MATH")), Known())
    lines, _ = load(Source(path=str(data / "math" / "math500.jsonl.gz")), Known())
    assert {problem.id: problem.answer for problem in folder} == {problem.id: problem.answer for problem in lines}
    assert folder[0].meta == {"subject": "Algebra", "level": "1"}


def test_rows_without_an_answer_are_counted_with_their_lines(data: Path) -> None:
    _, report = load(Source(path=str(data / "math" / "math_train_answers.jsonl.gz")), Known())
    assert report.lines() == [
        "row without an answer: 4 (line 887, line 1010, line 5329, line 5331)",
        "the same question with the same answer: 1 (line 958 is line 924)",
    ]


def test_a_file_of_proof_problems_is_an_error_that_says_why(data: Path) -> None:
    with pytest.raises(DataError, match="no usable problem in format harp") as raised:
        load(Source(path=str(data / "harp" / "harp_proof_dev.jsonl.gz"), format="harp"), Known())
    assert 'row without the key "answer", such as a problem that asks for a proof: 155' in str(raised.value)


def test_a_file_in_another_format_is_an_error_that_names_it(data: Path) -> None:
    path = str(data / "olympiadbench" / "OE_TO_maths_en_COMP_dev.json.gz")
    with pytest.raises(DataError, match="did you mean format: olympiadbench"):
        load(Source(path=path), Known())


def test_problems_of_harp_that_stand_in_math_are_found_though_they_are_worded_otherwise(data: Path) -> None:
    known = Known()
    known.add(r"Let $p(x) = x^2 + bx + c,$ where $b$ and $c$ are integers. If $p(x)$ is factor of both ...", "here")
    assert known.find(r"Let $p(x) = x^{2} + bx + c$, where $b$ and $c$ are integers. If $p(x)$ is a factor of both ...")
    assert (
        known.find(r"Let $q(x) = x^{3} + bx + d$, where $b$ and $d$ are reals. Find the product of all roots.") is None
    )
    maths = [
        Source(path=str(data / "math" / name)) for name in ("math_test_dev.jsonl.gz", "math_train_answers.jsonl.gz")
    ]
    harp = Source(path=str(data / "harp" / "harp_short_dev.jsonl.gz"), format="harp")
    ((problems, report),) = problems_of([harp], maths)
    # A sixth of HARP by its authors' count; a quarter of MATH is missing from these files.
    assert 15 <= report.counts["problem of an excluded or earlier file"] <= 40
    assert len(problems) == 228 - report.counts["problem of an excluded or earlier file"]


def test_tolerances_and_units_of_olympiadbench_are_kept(data: Path) -> None:
    path = str(data / "olympiadbench" / "OE_TO_maths_en_COMP_dev.json.gz")
    problems, _ = load(Source(path=path, format="olympiadbench"), Known())
    assert {problem.meta["tolerance"] for problem in problems if "tolerance" in problem.meta} <= {0.1}
    assert any("unit" in problem.meta for problem in problems)


def test_rows_of_the_hub_version_that_are_no_english_text_are_left_out(tmp_path: Path) -> None:
    row = {"question": "1+1?", "final_answer": ["2"], "language": "English", "modality": "Text-only"}
    path = tmp_path / "rows.jsonl"
    write(
        path, row, {**row, "question": "a", "language": "Chinese"}, {**row, "question": "b", "modality": "Multimodal"}
    )
    problems, report = load(Source(path=str(path), format="olympiadbench"), Known())
    assert [problem.answer for problem in problems] == ["2"]
    assert report.lines() == ["row of another language: 1 (line 2)", "row of another modality: 1 (line 3)"]


def test_a_table_takes_its_columns_from_the_spec(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text('prompt,gold,year\n"1+1, say",2,1999\n3+4,7,2001\n')
    source = Source(path=str(path), format="table", question="prompt", answer="gold", keep=("year",))
    problems, _ = load(source, Known())
    assert [(p.question, p.answer, p.meta) for p in problems] == [
        ("1+1, say", "2", {"year": "1999"}),
        ("3+4", "7", {"year": "2001"}),
    ]


def test_parquet_is_a_table_like_any_other(tmp_path: Path) -> None:
    arrow = pytest.importorskip("pyarrow", reason="pyarrow is not installed: pip install 'soarctl[data]'")
    parquet = pytest.importorskip("pyarrow.parquet")
    parquet.write_table(arrow.table({"question": ["1+1"], "answer": [2]}), tmp_path / "rows.parquet")
    problems, _ = load(Source(path=str(tmp_path / "rows.parquet"), format="table"), Known())
    assert [(problem.question, problem.answer) for problem in problems] == [("1+1", "2")]


def test_the_same_question_twice_is_one_problem_and_says_whether_the_answers_agree(tmp_path: Path) -> None:
    rows = [("a", "1"), ("b", "2"), ("a ", "1"), ("b", "3")]
    source = write(tmp_path / "rows.jsonl", *({"question": q, "answer": a} for q, a in rows))
    problems, report = load(source, Known())
    assert [problem.answer for problem in problems] == ["1", "2"]
    assert report.lines() == [
        "the same question with the same answer: 1 (line 3 is line 1)",
        "the same question with another answer: 1 (line 4 is line 2)",
    ]


def test_a_gzip_stream_that_is_cut_off_gives_what_it_still_holds(tmp_path: Path) -> None:
    rows = "".join(json.dumps({"question": f"q{k}", "answer": str(k * k)}) + "\n" for k in range(2000))
    path = tmp_path / "rows.jsonl.gz"
    path.write_bytes(gzip.compress(rows.encode())[:-2000])
    problems, report = load(Source(path=str(path), format="table"), Known())
    assert 0 < len(problems) < 2000
    assert any(line.startswith("gzip stream cut off or damaged: 1 (after line ") for line in report.lines())


def test_lines_in_another_encoding_or_no_json_are_read_past(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(
        b'{"question": "caf\xe9", "answer": "1"}\nnot json\n[1]\n\xef\xbb\xbf{"question": "b", "answer": 2.5}\n'
    )
    problems, report = load(Source(path=str(path), format="table"), Known())
    assert [(problem.question, problem.answer) for problem in problems] == [("café", "1"), ("b", "2.5")]
    assert report.lines() == [
        "not UTF-8, read as Windows-1252: 1 (line 1)",
        "line that is not JSON: 1 (line 2)",
        "line that is no object: 1 (line 3)",
    ]


@pytest.mark.parametrize("content", [b"", b"\x89PNG\r\n\x1a\n\0\0\0\0", b"<html></html>\n"])
def test_a_file_of_which_nothing_can_be_used_is_an_error(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(content)
    with pytest.raises(DataError):
        load(Source(path=str(path), format="math"), Known())


def test_a_missing_file_is_an_error_that_names_the_two_ways(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file") as raised:
        load(Source(path=str(tmp_path / "absent")), Known())
    assert "hub:OWNER/NAME" in str(raised.value)
