"""`soarctl filter --from-samples` on completions that others published."""

import gzip
import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from soarctl.filter_results import manifest_path, read_results

GRADED = Path(__file__).parents[3] / "shared" / "data" / "graded"
needs_data = pytest.mark.skipif(not GRADED.is_dir(), reason="the real data files are not beside this checkout")


def math_spec(folder: Path, data: str) -> Path:
    path = folder / "graded.yaml"
    path.write_text(
        "name: graded\nmodel: {base: nowhere/no-model}\n"
        f"domain: {{plugin: math, symbolic: {str(find_spec('math_verify') is not None).lower()}, data: [{data}]}}\n"
    )
    return path


@needs_data
def test_published_completions_of_math_are_filtered_without_a_model(tmp_path: Path, soarctl: Any) -> None:
    graded = GRADED / "math_8samples_dev.jsonl.gz"
    spec, out = math_spec(tmp_path, f"{{path: {graded}, format: table, answer: solution}}"), tmp_path / "hard.jsonl"
    arguments = ("filter", str(spec), "--from-samples", str(graded), "--out", str(out))
    refused = soarctl(*arguments)  # 8 samples are not 128
    assert refused.code == 2
    assert "candidates have fewer than 128 completions and might still be hard: " in refused.err
    assert not out.exists()
    done = soarctl(*arguments, "--set", "filter.samples=8")
    assert done.code == 0
    assert "400 completions in 50 rows" in done.out
    assert done.out.splitlines()[-1] == "too few to halve: a run needs some to learn from and some to measure on"
    published = {" ".join(row["question"].split()): sum(row["score"]) for row in _read(graded)}
    ours = {" ".join(f.problem.question.split()): f.successes for f in read_results(out).values()}
    assert ours.keys() == published.keys()
    # Two golds are written in a way that the published grader could not read; it solved nothing that we did not.
    assert sum(ours[question] != published[question] for question in ours) <= 3
    assert all(ours[question] >= published[question] - 1 for question in ours)
    made = json.loads(manifest_path(out).read_text())
    assert made["train"]["count"] + made["test"]["count"] == sum(successes == 0 for successes in ours.values()) == 1


@needs_data
def test_one_raw_completion_per_problem_of_olympiadbench_is_not_enough(tmp_path: Path, soarctl: Any) -> None:
    data = GRADED.parent / "olympiadbench" / "OE_TO_maths_en_COMP_dev.json.gz"
    raw = GRADED / "olympiad_qwen2_0.5b_raw_dev.jsonl.gz"
    spec = math_spec(tmp_path, f"{{path: {data}, format: olympiadbench}}")
    arguments = ("filter", str(spec), "--from-samples", str(raw), "--out", str(tmp_path / "hard.jsonl"))
    assert "with 1\n" in soarctl(*arguments, "--set", "filter.samples=2").err
    done = soarctl(*arguments, "--set", "filter.samples=1", "--json")
    assert done.code == 0
    facts = json.loads(done.out.splitlines()[-1])
    assert facts["given_samples"]["rows_of_unknown_problems"] == 0
    assert facts["train"]["count"] + facts["test"]["count"] > 0.8 * facts["problems"]


def _read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in gzip.decompress(path.read_bytes()).splitlines()]
