"""The bars of the verifier on labelled pairs, and every gold of every real file against itself."""

import gzip
import json
import re
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from soarctl_math import numeric
from soarctl_math.domain import MathDomain
from soarctl_math.extract import boxed
from soarctl_math.symbolic import Workers
from soarctl_math.verifier import Verifier, judge_alone

from soarctl.api import Problem, Verdict
from soarctl.cli.grade import completion

REAL = {"self", "variant", "mutant", "cross", "model_bare", "model_text"}
HEADLINE = REAL | {"suite", "hard"}
needs_mpmath = pytest.mark.skipif(not numeric.available(), reason="pip install 'soarctl[math]'")


def _rows(path: Path) -> list[dict[str, Any]]:
    content = path.read_bytes()
    text = (gzip.decompress(content) if path.suffix == ".gz" else content).decode()
    return json.loads(text) if text.startswith("[") else [json.loads(line) for line in text.splitlines()]


def _stratum(row: dict[str, Any]) -> str:
    return row["kind"].partition("/")[0]


def _attempt(row: dict[str, Any]) -> tuple[Problem, str]:
    return Problem("", row["gold"]), completion(row["answer"], row["kind"])


def _counts(
    rows: Sequence[dict[str, Any]], verdicts: Sequence[Verdict], strata: set[str]
) -> Counter[tuple[bool, bool]]:
    judged = zip(rows, verdicts, strict=True)
    return Counter((row["equivalent"], verdict.correct) for row, verdict in judged if _stratum(row) in strata)


@needs_mpmath
def test_labelled_pairs_are_judged_as_labelled(data: Path, workers: Workers, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    rows = _rows(data / "verifier_pairs.jsonl")
    verdicts = MathDomain(require_box=False, workers=1).grade([_attempt(row) for row in rows])
    for strata, recall in ((HEADLINE, 0.985), (REAL, 0.995)):
        counts = _counts(rows, verdicts, strata)
        assert counts[False, True] == 0
        assert counts[True, True] >= recall * (counts[True, True] + counts[True, False])
    assert list(tmp_path.iterdir()) == []  # nothing that was in the answers has run


@needs_mpmath
def test_hostile_answers_are_judged_quickly_and_never_accepted(data: Path, workers: Workers, tmp_path: Path) -> None:
    rows = [row for row in _rows(data / "verifier_pairs.jsonl") if _stratum(row) == "adversarial"]
    domain = MathDomain(require_box=False, workers=1)
    domain.grade([_attempt(row) for row in rows[:1]])
    verdicts: list[Verdict] = []
    slowest = 0.0
    start = time.perf_counter()
    for row in rows:
        before = time.perf_counter()
        verdicts += domain.grade([_attempt(row)])
        slowest = max(slowest, time.perf_counter() - before)
    assert time.perf_counter() - start < 30
    assert slowest < 2.5
    counts = _counts(rows, verdicts, {"adversarial"})
    assert counts[False, True] == 0
    assert counts[True, True] >= 12
    assert not {"crashed", "timeout"} & {str(verdict.outcome) for verdict in verdicts}


_DOLLAR = re.compile(r"(?<!\\)\$")
GOLDS = {
    "math/math_test_dev.jsonl.gz": lambda row: boxed(row["solution"], alone=True),
    "math/math500.jsonl.gz": lambda row: row["answer"],
    "math/math_train_answers.jsonl.gz": lambda row: row["answer"],
    "harp/harp_short_dev.jsonl.gz": lambda row: row["answer"],
    "harp/harp_mcq_dev.jsonl.gz": lambda row: row["answer"],
    "olympiadbench/OE_TO_maths_en_COMP_dev.json.gz": lambda row: row["final_answer"][0],
    "extra/aime24.jsonl.gz": lambda row: row["answer"],
    "extra/gsm8k_test_dev.jsonl.gz": lambda row: row["answer"].rpartition("#### ")[2],
}  # pyright: ignore[reportUnknownLambdaType]


@pytest.mark.parametrize("name", GOLDS)
def test_every_gold_of_every_file_is_right_when_it_is_boxed(data: Path, name: str) -> None:
    golds = [gold for row in _rows(data / name) if (gold := GOLDS[name](row))]
    verifier = Verifier(None)
    answers = [boxed(f"so it is \\boxed{{ {_DOLLAR.sub('', gold)} }}.") for gold in golds]
    pairs = [(gold, answer or "") for gold, answer in zip(golds, answers, strict=True)]
    # Some golds of HARP are sentences with formulas in them; they are the same but for spelling.
    wrong = [pair for pair, verdict in zip(pairs, verifier.judge_all(pairs), strict=True) if not verdict.equal]
    assert wrong == []


@needs_mpmath
def test_published_verdicts_on_400_model_answers_are_ours(data: Path, workers: Workers) -> None:
    rows = _rows(data / "graded" / "math_8samples_dev.jsonl.gz")
    domain = MathDomain(require_box=False, workers=1)
    attempts = [
        (Problem("", boxed(row["solution"], alone=True) or ""), text) for row in rows for text in row["response"]
    ]
    verdicts = [verdict.correct for verdict in domain.grade(attempts)]
    published = [score for row in rows for score in row["score"]]
    assert len(verdicts) == 400
    # Two golds are written in a way that the published grader could not read: 10{,}000 and 4:30\text{ p.m.}.
    assert sum(ours != theirs for ours, theirs in zip(verdicts, published, strict=True)) <= 16
    assert not [
        text for (_, text), ours, theirs in zip(attempts, verdicts, published, strict=True) if theirs and not ours
    ]


def test_a_box_gives_its_verdict_in_a_tenth_of_a_millisecond_or_so(data: Path) -> None:
    pairs = [(row["gold"], row["answer"]) for row in _rows(data / "verifier_pairs.jsonl") if _stratum(row) == "variant"]
    times: list[float] = []
    for pair in pairs:
        start = time.process_time()
        judge_alone(*pair)
        times.append(time.process_time() - start)
    assert sorted(times)[len(times) // 2] < 0.0005  # 0.05 ms on an idle core
