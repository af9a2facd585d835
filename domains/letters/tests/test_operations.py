"""The operations, the text form of a question, and the documents the base model learns from."""

import itertools
from collections import defaultdict
from statistics import fmean

import pytest
from soarctl_letters.corpus import ASK_MALFORMED, LONGEST, RIGHT, SOLVE_SHARE, documents
from soarctl_letters.operations import HALF_KNOWN, KNOWN, OPERATIONS, apply, parse_question


@pytest.mark.parametrize(
    ("operation", "word", "result"),
    [
        ("reverse", "CAT", "TAC"),
        ("left", "CAT", "ATC"),
        ("right", "CAT", "TCA"),
        ("swap", "CAT", "CTA"),
        ("up", "CAZ", "DBA"),
        ("down", "CAT", "BZS"),
        ("flip", "CAT", "ACT"),
        ("bump", "ZAT", "AAT"),
    ],
)
def test_each_operation_does_what_its_name_says(operation: str, word: str, result: str) -> None:
    assert OPERATIONS[operation](word) == result


def test_every_operation_is_either_known_or_half_known() -> None:
    assert (*KNOWN, *HALF_KNOWN) == tuple(OPERATIONS)


def test_apply_gives_the_word_after_each_operation() -> None:
    assert apply("CAT", ["reverse", "up", "swap"]) == ["TAC", "UBD", "UDB"]


def test_apply_refuses_an_operation_it_does_not_know() -> None:
    with pytest.raises(KeyError, match="twist"):
        apply("CAT", ["twist"])


def test_a_question_is_a_word_a_bar_and_operations() -> None:
    assert parse_question(" CAT | up swap") == ("CAT", ("up", "swap"))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "CAT up",
        "CA | up",
        "CATS | up",
        "cat | up",
        "CAT |",
        "CAT | twist",
        "CAT | up | up",
        "CAT | up =",
        "CAT |  up",
    ],
)
def test_anything_else_is_not_a_question(text: str) -> None:
    assert parse_question(text) is None


def test_the_same_seed_gives_the_same_documents() -> None:
    first, again, other = (list(itertools.islice(documents(seed), 100)) for seed in (1, 1, 2))
    assert first == again
    assert first != other


def test_each_operation_is_executed_right_as_often_as_stated() -> None:
    outcomes: dict[str, list[bool]] = defaultdict(list)
    lengths: set[int] = set()
    for document in itertools.islice(documents(0), 20_000):
        if document.prompt == "ask:":
            continue
        parsed = parse_question(document.prompt.removeprefix("solve:").removesuffix(" ="))
        assert parsed is not None
        word, operations = parsed
        words = document.completion.split()
        lengths.add(len(words))
        for operation, before, after in zip(operations, [word, *words], words, strict=False):
            outcomes[operation].append(OPERATIONS[operation](before) == after)
    assert {name: fmean(rights) for name, rights in outcomes.items()} == pytest.approx(RIGHT, abs=0.02)
    assert lengths == set(range(1, LONGEST + 1))


def test_the_teacher_asks_a_quarter_of_the_documents_and_some_of_them_are_malformed() -> None:
    sample = list(itertools.islice(documents(0), 20_000))
    asked = [document.completion for document in sample if document.prompt == "ask:"]
    questions = [parse_question(text.partition(" =")[0]) for text in asked]
    workings = [text.partition(" =")[2].split() for text in asked]
    malformed = fmean(
        question is None or len(question[1]) != len(words) for question, words in zip(questions, workings, strict=True)
    )
    assert len(asked) / len(sample) == pytest.approx(1 - SOLVE_SHARE, abs=0.02)
    assert malformed == pytest.approx(ASK_MALFORMED, abs=0.02)
