"""The puzzles domain on real data, which is not in this repository, and on a few puzzles that are."""

import json
import time
from pathlib import Path

import pytest
from soarctl_puzzles.checker import compiled, fits, judge
from soarctl_puzzles.domain import PuzzlesDomain
from soarctl_puzzles.puzzles import read, recognise, with_arguments

from soarctl.api import DataError, Outcome, Problem, Rejection
from soarctl.testing import check_domain

_DATA = Path(__file__).parents[3].parent / "shared/data/code"
REAL = next((path for path in sorted(_DATA.glob("p3_puzzles.json*"))), None)

SOURCES = {
    "Multiple": "def sat(i: int, n=7, low=50):\n    return i % n == 0 and i > low",
    "Doubled": "def sat(s: str, t='ab'):\n    return s == t + t",
    "Sum": "def sat(li: List[int], total=12):\n    return sum(li) == total and len(li) == 3",
    "Even": "def sat(i: int, n=4):\n    return i % 2 == 0 and i > n",
}
WITNESSES = {"Multiple": "770", "Doubled": "'abab'", "Sum": "[4, 4, 4]", "Even": "6"}
KINDS = {"Doubled": "str", "Sum": "List[int]"}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    rows = [
        {"name": f"{name}:{k}", "sat": source.replace("7", "11") if k else source, "ans_type": KINDS.get(name, "int")}
        for name, source in SOURCES.items()
        for k in range(2)
    ]
    rows.append({"name": "Quine:0", "sat": "def sat(q: str):\n    return eval(q) == q", "ans_type": "str"})
    place = tmp_path / "puzzles.json"
    place.write_text(json.dumps(rows))
    return place


@pytest.fixture
def domain(path: Path) -> PuzzlesDomain:
    return PuzzlesDomain(path=path, workbook=1, seconds=0.5)


def puzzle(domain: PuzzlesDomain, name: str) -> Problem:
    found = {p.name: p for p in read(domain.path)}[f"{name}:0"]
    return Problem(found.question, "any")


def gold(problem: Problem) -> str:
    """A witness of a puzzle above, worked out from its source; a practice question's answer is one already."""
    return WITNESSES[str(problem.meta["family"])] if problem.answer.startswith("a value of") else problem.answer


def test_it_keeps_what_every_domain_promises_without_gold_answers(domain: PuzzlesDomain) -> None:
    [name] = {p.family for p in read(domain.path)} - {str(p.meta["family"]) for p in domain.load()}
    check_domain(
        domain,
        gold=gold,
        accepted=[f"{name}()\n{WITNESSES[name]}"],
        rejected={
            "": "no function with arguments",
            "Unknown(n=3)\n3": "not a function of the workbook",
            f"{name}(n='x', q=3)\n3": "other arguments than the function has",
            f"{name}()": "no value",
        },
        batch=1000,
        examples=4,
    )


def test_another_witness_is_as_right_as_the_first(domain: PuzzlesDomain) -> None:
    asked = puzzle(domain, "Sum")
    verdicts = domain.grade([(asked, "[4, 4, 4]"), (asked, "[12, 0, 0]"), (asked, "[1, 2, 3]"), (asked, "(4, 4, 4)")])
    assert [v.outcome for v in verdicts] == [Outcome.CORRECT, Outcome.CORRECT, Outcome.WRONG, Outcome.WRONG]


def test_a_witness_is_read_and_never_run() -> None:
    assert judge(SOURCES["Even"], "int", "__import__('os').getpid()") == ("unparsed", "not a literal")
    assert judge(SOURCES["Even"], "int", "3 + 3") == ("unparsed", "not a literal")


def test_code_that_a_model_wrote_is_not_run(domain: PuzzlesDomain) -> None:
    forged = Problem("def sat(i: int):\n    return True", "1")
    [verdict] = domain.grade([(forged, "1")])
    assert (verdict.outcome, verdict.reason) == (Outcome.UNPARSED, "no such puzzle")
    body = Problem(SOURCES["Even"].replace("i > n", "i < n"), "1")
    assert domain.grade([(body, "2")])[0].reason == "no such puzzle"
    default = Problem(SOURCES["Even"].replace("n=4", "n=print(4)"), "1")
    assert domain.grade([(default, "6")])[0].reason == "no such puzzle"


def test_a_checker_that_runs_on_is_a_timeout_and_the_next_attempt_is_judged(tmp_path: Path) -> None:
    slow = {"name": "Slow:0", "sat": "def sat(i: int, n=3):\n    while i != n:\n        pass\n    return True"}
    (tmp_path / "slow.json").write_text(json.dumps([slow | {"ans_type": "int"}]))
    domain = PuzzlesDomain(path=tmp_path / "slow.json", seconds=0.5)
    asked = puzzle(domain, "Slow")
    began = time.monotonic()
    verdicts = domain.grade([(asked, "4"), (asked, "3")])
    assert [v.outcome for v in verdicts] == [Outcome.TIMEOUT, Outcome.CORRECT]
    assert time.monotonic() - began < 5


def test_puzzles_that_run_their_witness_are_left_out(path: Path) -> None:
    assert "Quine" not in {p.family for p in read(path)}


def test_arguments_may_change_and_nothing_else(path: Path) -> None:
    multiple = {p.name: p for p in read(path)}["Multiple:0"]
    changed = with_arguments(multiple, {"n": 9})
    assert changed is not None
    assert recognise(changed, path) is not None
    assert compiled(changed)(54) is True
    assert with_arguments(multiple, {"n": "9"}) is None
    assert with_arguments(multiple, {"m": 9}) is None


def test_a_family_is_in_one_half(domain: PuzzlesDomain) -> None:
    halves = domain.split(domain.load(), 0.5, 0)
    assert not {p.meta["family"] for p in halves.train} & {p.meta["family"] for p in halves.test}


def test_types_are_told_apart() -> None:
    assert fits([[1], []], "List[List[int]]")
    assert not fits([1.0], "List[int]")
    assert not fits(True, "int")


def test_a_file_without_puzzles_is_a_data_error(tmp_path: Path) -> None:
    (tmp_path / "empty.json").write_text("[]")
    with pytest.raises(DataError, match="holds no puzzle"):
        PuzzlesDomain(path=tmp_path / "empty.json").load()


@pytest.mark.skipif(REAL is None, reason="the P3 puzzles are not beside this checkout")
def test_the_real_puzzles_load_and_their_known_solutions_verify() -> None:
    assert REAL is not None
    domain = PuzzlesDomain(path=REAL, workbook=6)
    problems = domain.load()
    assert len(problems) > 500
    assert isinstance(domain.parse("f(x)"), Rejection)
    asked = next(p for p in problems if p.meta["name"] == "Study_6:0")
    verdicts = domain.grade([(asked, str(10**10 + 123 - 10**10 % 123 + 4)), (asked, "4"), (asked, "'4'")])
    assert [v.outcome for v in verdicts] == [Outcome.CORRECT, Outcome.WRONG, Outcome.WRONG]
