"""From runs to verdicts: what a program's tests say about it, by rules that the program has no part in.

Tests are plain data, as they stand in a problem's answer:

    {"kind": "call", "fn": name, "args": [...], "expected": value}    values are JSON, or tagged with "tagged": true
    {"kind": "stdin", "stdin": text, "stdout": text}                 "loose": true compares as LiveCodeBench does
    {"kind": "assert", "code": python, "names": [functions of the program]}
    {"kind": "literal", "expected": value}                   what is judged is a Python literal, not a program
"""

import json
import os
import signal
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from enum import StrEnum
from typing import Any

from soarctl_code.inspection import READ_LITERAL
from soarctl_code.jail import wire
from soarctl_code.jail.jobs import Job, Limits, Ran

Test = Mapping[str, Any]
Task = Generator[Job, Ran, "Finding"]

LIMITS = Limits()
SHOWN = 2048  # characters of output that a person sees
SETTLED_TIMEOUTS = 2  # further tests of a stdin problem are skipped after so many
SETTLED_WRONG = 10  # and after so many from the first on, none of which was right


class Word(StrEnum):
    """The verdict on a program."""

    PASSED = "passed"
    WRONG_ANSWER = "wrong_answer"
    RUNTIME_ERROR = "runtime_error"
    TIMEOUT = "timeout"
    MEMORY_LIMIT = "memory_limit"
    OUTPUT_LIMIT = "output_limit"
    INVALID_TEST = "invalid_test"


@dataclass(frozen=True, slots=True)
class Finding:
    """The verdict on a program with what it rests on."""

    word: Word
    passed: int
    """Tests with the right answer."""
    total: int
    detail: str = ""
    """For people: made harmless to look at, and short."""
    parsed: bool = True
    """Whether it is Python at all."""
    cpu: float = 0.0
    runs: int = 1

    @property
    def ran(self) -> bool:
        """Whether the program ran without error as far as it was asked, whatever it answered."""
        return self.word in (Word.PASSED, Word.WRONG_ANSWER)


def judge(
    program: str, tests: Sequence[Test], *, setup: str = "", preamble: str = "", limits: Limits = LIMITS, seed: int = 0
) -> Task:  # fmt: skip
    """Judges a program by its tests, all of one kind; yields the runs it needs.

    Args:
        program: untrusted source.
        tests: as above; an empty or unreadable list is an invalid test.
        setup: code of the tests that comes before them, for `assert`.
        preamble: code that runs in the program's module before it.
        limits: of each run.
        seed: of the program's random module.
    """
    try:
        kinds = {test["kind"] for test in tests}
        if len(kinds) != 1:
            return Finding(
                Word.INVALID_TEST, 0, len(tests), "no tests" if not kinds else "tests of several kinds", runs=0
            )
        if "\0" in program:
            return Finding(Word.RUNTIME_ERROR, 0, len(tests), "source holds null bytes", parsed=False, runs=0)
        job = Job(program, "call", preamble, seed=seed, limits=limits)
        match kinds.pop():
            case "call":
                return (yield from judge_calls(job, tests))
            case "stdin":
                return (yield from judge_stdin(job, tests))
            case "assert":
                return (yield from judge_asserts(replace(job, setup=setup), tests))
            case "literal":
                asked = [{**test, "kind": "call", "fn": "read", "args": [program], "tagged": False} for test in tests]
                wanted = [wire.decode(test["expected"]) if test.get("tagged") else test["expected"] for test in tests]
                asked = [{**test, "expected": value} for test, value in zip(asked, wanted, strict=True)]
                return (yield from judge_calls(replace(job, program=READ_LITERAL, preamble=""), asked))
            case other:
                return Finding(Word.INVALID_TEST, 0, len(tests), f"unknown kind of test: {other!r:.40}", runs=0)
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError, wire.Undecodable) as error:
        return Finding(Word.INVALID_TEST, 0, len(tests), f"malformed test: {visible(str(error))}", runs=0)


def judge_calls(job: Job, tests: Sequence[Test]) -> Task:
    calls = [(str(test["fn"]), plain_arguments(test)) for test in tests]
    ran = yield replace(job, calls=calls)
    right = 0
    worst = None
    for index, test in enumerate(tests):
        answer = ran.answers[index] if index < len(ran.answers) else None
        word = answer_word(answer, test)
        right += word is Word.PASSED
        worst = worst or (word if word is not Word.PASSED else None)
    word = observed(ran) or own_end(ran) or worst or Word.PASSED
    return finding(word, right, len(tests), ran)


def plain_arguments(test: Test) -> list[Any]:
    return [wire.decode(tree) for tree in test["args"]] if test.get("tagged") else list(test["args"])


def answer_word(answer: wire.Tree, test: Test) -> Word:
    """What one answer of a program is worth; None is no answer."""
    if not isinstance(answer, list) or not answer:
        return Word.WRONG_ANSWER
    if answer[0] == "value" and len(answer) == 2:
        expected = wire.decode(test["expected"]) if test.get("tagged") else test["expected"]
        alike = bool(test.get("sequences_alike"))
        if wire.matches(answer[1], expected, sequences_alike=alike):
            return Word.PASSED
        # APPS wraps some expected values into a list of one.
        if test.get("wrapped") and isinstance(expected, list) and len(expected) == 1:
            return Word.PASSED if wire.matches(answer[1], expected[0], sequences_alike=alike) else Word.WRONG_ANSWER
        return Word.WRONG_ANSWER
    if answer[0] == "large":
        return Word.OUTPUT_LIMIT
    if answer[0] == "raise" and answer[1:2] == ["MemoryError"]:
        return Word.MEMORY_LIMIT
    return Word.RUNTIME_ERROR


def judge_stdin(job: Job, tests: Sequence[Test]) -> Task:
    """One fresh process per test, until both a right and a wrong answer have been seen and the rest cannot matter.

    The verdict is that of the first failure. Only whether some test passes is left open by SETTLED_WRONG ones.
    """
    right = wrong = timeouts = runs = 0
    first: Finding | None = None
    for test in tests:
        text = test["stdin"].encode("utf-8", "surrogateescape")
        wanted = test["stdout"].encode("utf-8", "surrogateescape")
        # Or nobody could pass a test that expects more than others may write.
        output = max(job.limits.output, 2 * len(wanted))
        ran = yield replace(job, mode="script", stdin=text, limits=replace(job.limits, output=output))
        runs += 1
        word = observed(ran) or own_end(ran)
        if word is None:
            same = same_tokens if test.get("loose") else same_lines
            word = Word.PASSED if same(ran.stdout, wanted) else Word.WRONG_ANSWER
        if word is Word.PASSED:
            right += 1
        else:
            wrong += 1
            timeouts += word is Word.TIMEOUT
            first = first or finding(word, 0, len(tests), ran)
        if first is not None and (right or timeouts >= SETTLED_TIMEOUTS or wrong >= SETTLED_WRONG):
            break
    if first is None:
        return Finding(Word.PASSED, right, len(tests), runs=runs)
    return replace(first, passed=right, runs=runs)


def same_lines(found: bytes, wanted: bytes) -> bool:
    """Line by line, after white space at ends of lines and of the whole has been removed."""
    return [line.rstrip() for line in found.rstrip().split(b"\n")] == [
        line.rstrip() for line in wanted.rstrip().split(b"\n")
    ]


def same_tokens(found: bytes, wanted: bytes) -> bool:
    """Line by line without white space at both ends, or by the values of its numbers: LiveCodeBench's comparison."""
    ours, theirs = ([line.strip() for line in text.strip().split(b"\n")] for text in (found, wanted))
    return len(ours) == len(theirs) and all(
        one == two or same_numbers(one, two) for one, two in zip(ours, theirs, strict=True)
    )


def same_numbers(found: bytes, wanted: bytes) -> bool:
    try:
        values = [[Decimal(word.decode("ascii")) for word in line.split()] for line in (wanted, found)]
        return values[0] == values[1]
    except (UnicodeDecodeError, ArithmeticError):
        return False


def judge_asserts(job: Job, tests: Sequence[Test]) -> Task:
    names = list(dict.fromkeys(str(name) for test in tests for name in test["names"]))
    codes = [str(test["code"]) for test in tests]
    ran = yield replace(job, mode="serve", tests=codes, names=names)
    verdicts = ran.verdicts if ran.verdicts is not None and len(ran.verdicts) == len(tests) else None
    right = sum(verdict[0] == "passed" for verdict in verdicts or [])
    word = observed(ran)
    if word is None and verdicts is None:
        word = own_end(ran) or Word.INVALID_TEST
    if word is None:
        word = own_end(ran) if any(v[0] == "gone" for v in verdicts or []) else None
    if word is None:
        words = [verdict_word(verdict) for verdict in verdicts or []]
        word = next((w for w in words if w is not Word.PASSED), Word.PASSED)
    detail = next((f"{v[0]} {v[1]}" for v in verdicts or [] if v[0] != "passed"), "")
    return finding(word, right, len(tests), ran, detail)


def verdict_word(verdict: Sequence[str]) -> Word:
    match verdict[0]:
        case "passed":
            return Word.PASSED
        case "failed" | "gone":
            return Word.WRONG_ANSWER
        case "raised" if verdict[1] == "MemoryError":
            return Word.MEMORY_LIMIT
        case "large":
            return Word.OUTPUT_LIMIT
        case "raised" | "missing":
            return Word.RUNTIME_ERROR
        case _:
            return Word.INVALID_TEST


def observed(ran: Ran) -> Word | None:
    """What was seen from outside, before anything that the program said."""
    match ran.ended:
        case "output_limit":
            return Word.OUTPUT_LIMIT
        case "timeout":
            return Word.TIMEOUT
        case "killed":
            return Word.MEMORY_LIMIT
        case "exited":
            return None


def own_end(ran: Ran) -> Word | None:
    """How the program ended by itself, where that was not well."""
    raised = next((a[1] for a in ran.answers if isinstance(a, list) and a[:1] == ["raise"] and len(a) == 2), None)
    if raised == "MemoryError":
        return Word.MEMORY_LIMIT
    if os.WIFSIGNALED(ran.status):
        return None if os.WTERMSIG(ran.status) == signal.SIGKILL else Word.RUNTIME_ERROR
    return Word.RUNTIME_ERROR if os.WEXITSTATUS(ran.status) != 0 else None


def finding(word: Word, right: int, total: int, ran: Ran, detail: str = "") -> Finding:
    said = ran.stderr[-SHOWN:].decode("utf-8", "backslashreplace") if word is not Word.PASSED else ""
    text = "\n".join(filter(None, (said, detail)))
    parsed = not any(isinstance(answer, list) and answer[:1] == ["unparsed"] for answer in ran.answers)
    return Finding(word, right, total, visible(text), parsed=parsed, cpu=ran.cpu)


def visible(text: str) -> str:
    """Text that can be shown: control characters, escapes and bidi controls spelt out, and no more than SHOWN."""
    shown = (c if c.isprintable() or c in "\n\t" else c.encode("unicode_escape").decode() for c in text[-SHOWN:])
    return "".join(shown)


def read_tests(answer: str) -> tuple[list[dict[str, Any]], str]:
    """The tests and their set-up in a problem's answer, or ([], "") where it is none."""
    try:
        data = json.loads(answer)
        tests, setup = data["tests"], data.get("setup", "")
    except (ValueError, TypeError, KeyError, RecursionError):
        return [], ""
    return (tests, setup) if isinstance(tests, list) and isinstance(setup, str) else ([], "")
