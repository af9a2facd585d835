"""`soarctl grade`: a verdict and its reason, and a confusion table of a file."""

import json
import shlex
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from soarctl.cli.app import app

pytest.importorskip("math_verify", reason="pip install 'soarctl[math]'")

PAIRS = [
    {"gold": "5", "answer": "5.0", "equivalent": True, "kind": "variant/decimal"},
    {"gold": "5", "answer": "6", "equivalent": False, "kind": "mutant/digit"},
    {"gold": "5", "answer": "7", "equivalent": True, "kind": "mutant/mislabelled", "id": "odd"},
    {"gold": "5", "answer": "so it is $5$"},
]


@pytest.fixture
def pairs(folder: Path) -> Path:
    (folder / "pairs.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in PAIRS))
    return folder / "pairs.jsonl"


def test_the_example_of_its_help_is_true(soarctl: Any) -> None:
    epilog: str = get_command(app).commands["grade"].epilog  # type: ignore[attr-defined]
    ran = soarctl(*shlex.split(epilog.removeprefix("Example: soarctl ")))
    assert ran.code == 0
    assert ran.out == "correct: exact\n  gold    1/2\n  answer  0.5\n  reward  120\n"


def test_a_wrong_answer_says_why(soarctl: Any) -> None:
    expected = "wrong: exact, contains the gold\n  gold    5\n  answer  5, 6\n  reward  20\n"
    assert soarctl("grade", "5", r"so it is \boxed{5, 6}").out == expected
    assert soarctl("grade", "5", r"so it is \boxed{").out.splitlines()[2] == "  answer  none was found"


def test_negative_answers_stand_after_two_dashes_as_the_help_says(soarctl: Any) -> None:
    assert soarctl("grade", "--", "-3", "-3.0").out.startswith("correct: exact\n")
    assert soarctl("grade", "--json", "--", "-3", "3").out.startswith('{"outcome": "wrong"')
    refused = soarctl("grade", "-3", "-3.0")
    assert refused.code == 2
    assert "No such option: -3" in refused.err
    assert "soarctl grade -- -3 -3.0" in " ".join(soarctl("grade", "--help").out.split())


def test_json_holds_the_verdict(soarctl: Any) -> None:
    facts = json.loads(soarctl("grade", r"\frac12", "0.5", "--json").out)
    assert facts == {"outcome": "correct", "reason": "exact", "gold": r"\frac12", "answer": "0.5", "reward": 120.0}


def test_a_file_gives_a_confusion_table_and_what_was_misjudged(soarctl: Any, pairs: Path) -> None:
    facts = json.loads(soarctl("grade", "--file", str(pairs), "--json").out)
    assert facts["pairs"] == 4
    assert facts["confusion"] == {
        "mutant": {"wrong rejected": 1, "right rejected": 1},
        "variant": {"right accepted": 1},
        "all": {"right accepted": 1, "wrong rejected": 1, "right rejected": 1},
    }
    assert facts["reasons"] == {"correct: exact": 2, "wrong: exact": 2}
    assert facts["misjudged"] == [{"row": "odd", "verdict": "wrong", "reason": "exact"}]
    lines = soarctl("grade", "--file", str(pairs)).out.splitlines()
    assert lines[0].startswith("4 pairs in ")
    assert [line.split() for line in lines if line.startswith("all")] == [["all", "1", "1", "0", "1"]]


def test_a_pair_or_a_file_is_needed_and_not_both(soarctl: Any, pairs: Path) -> None:
    said = (
        "error: a pair or a file of pairs is needed, and only one of them\n"
        "  soarctl grade GOLD ANSWER, or soarctl grade --file pairs.jsonl\n"
    )
    for arguments in ([], ["5"], ["5", "5", "--file", str(pairs)]):
        ran = soarctl("grade", *arguments)
        assert (ran.code, ran.err) == (2, said)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"gold": "5", "answer": "5"}\n{"gold": 5}\n', "pairs.jsonl:2: not a pair: TypeError"),
        ("5, 5\n", "pairs.jsonl:1: not a pair: JSONDecodeError"),
        ("", "pairs.jsonl: the file is empty"),
    ],
)
def test_a_file_of_something_else_is_an_error_with_its_line(
    soarctl: Any, folder: Path, content: str, message: str
) -> None:
    Path("pairs.jsonl").write_text(content)
    ran = soarctl("grade", "--file", "pairs.jsonl")
    assert ran.code == 2
    assert ran.err.startswith(f"error: {message}")
    missing = soarctl("grade", "--file", "nowhere.jsonl")
    assert missing.err == "error: nowhere.jsonl: cannot read: No such file or directory\n"


def test_another_domain_judges_texts_as_they_are(soarctl: Any) -> None:
    assert soarctl("grade", "UPD", "UPD", "--domain", "letters").out.startswith("correct")
    assert soarctl("grade", "1", "1", "--domain", "maths").err.startswith(
        'error: domain.plugin: no domain is called "maths"'
    )
