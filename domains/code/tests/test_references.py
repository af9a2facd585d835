"""Reference solutions of known problem sets pass in the jail; what does not is listed with its reason."""

import ast
import json
from pathlib import Path
from typing import Any

import pytest
from soarctl_code.domain import CodeDomain
from soarctl_code.jail import tiers, wire
from soarctl_code.loaders import Format

# An integer of more than 4,300 digits as text; more than two seconds of work; an answer of more than a mebibyte.
P3_OUT_OF_REACH = {"FivePowers:0", "Mastermind:0", "ExponentialCoinMoves:0"}


@pytest.fixture(params=["auto", "wasm"])
def sandbox(request: pytest.FixtureRequest) -> dict[str, Any]:
    """Options of the strongest tier, and of the one whose Python is another."""
    if request.param == "wasm" and not (report := tiers.inspect_tier("wasm")).usable:
        pytest.skip(f"the tier wasm does not hold here: {report.reason}")
    return {"tier": request.param}


def failures(sandbox: dict[str, Any], source: Format, path: Path, most: int | None = None) -> set[str]:
    domain = CodeDomain.model_validate({"data": [{"path": str(path), "format": source}], "sandbox": sandbox})
    problems = [p for p in domain.load() if p.meta.get("reference")]
    if source == "p3":
        problems = [p for p in problems if p.meta["row"].endswith(":0")]
    problems = problems[:most]
    assert problems
    verdicts = domain.grade([(p, f"```python\n{p.meta['reference']}\n```") for p in problems])
    return {p.meta["row"] for p, verdict in zip(problems, verdicts, strict=True) if not verdict.correct}


def test_humaneval(data: Path, sandbox: dict[str, Any]) -> None:
    assert failures(sandbox, "humaneval", data / "code" / "HumanEval.jsonl.gz", most=60) == set()


def test_stdin_problems(data: Path, sandbox: dict[str, Any]) -> None:
    assert failures(sandbox, "stdin", data / "code" / "stdin_problems.jsonl") == set()


@pytest.mark.slow
def test_all_of_humaneval_and_mbpp(data: Path, sandbox: dict[str, Any]) -> None:
    assert failures(sandbox, "humaneval", data / "code" / "HumanEval.jsonl.gz") == set()
    assert failures(sandbox, "mbpp", data / "code" / "mbpp_sanitized_nontest.json") == set()
    assert failures(sandbox, "mbpp", data / "code" / "mbpp_full_nontest.jsonl") == set()


@pytest.mark.slow
def test_p3(data: Path, sandbox: dict[str, Any]) -> None:
    assert failures(sandbox, "p3", data / "code" / "p3_puzzles.json.gz") <= P3_OUT_OF_REACH


@pytest.mark.slow
def test_cruxeval_programs_return_what_the_data_say(data: Path, sandbox: dict[str, Any]) -> None:
    domain = CodeDomain.model_validate(
        {"data": [{"path": str(data / "code" / "cruxeval.jsonl"), "format": "cruxeval"}], "sandbox": sandbox}
    )
    assert failures(sandbox, "cruxeval", data / "code" / "cruxeval.jsonl") == set()
    rows = [json.loads(line) for line in (data / "code" / "cruxeval.jsonl").read_text().splitlines()]
    problems = domain.load()
    attempts = []
    for row, problem in zip(rows, problems, strict=True):
        expected = wire.encode(ast.literal_eval(row["output"]))
        test = {"kind": "call", "fn": "outcome", "args": [], "expected": expected, "tagged": True}
        program = f"{row['code']}\n\ndef outcome():\n    return f({row['input']})\n"
        answer = json.dumps({"tests": [test]})
        attempts.append((type(problem)(problem.question, answer), f"```python\n{program}\n```"))
    verdicts = domain.grade(attempts)
    assert sum(v.correct for v in verdicts) >= 796
