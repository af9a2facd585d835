"""`soarctl grade`: what a domain's verifier thinks of an answer, or of a file of them."""

import json
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from soarctl.api import Domain, Verdict

# Here one asks what the verifier thinks, so that a text without a box is judged as well.
_OPTIONS: dict[str, dict[str, Any]] = {"math": {"require_box": False}}
_DELIMITERS = ("\\boxed", "\\fbox", "\\(", "\\[", "answer", "Answer")
_TEXT_KINDS = ("model_text", "hard/text_", "suite/math-verify", "suite/lighteval")
_MISJUDGED_SHOWN = 20


def grade(gold: str | None, answer: str | None, *, file: Path | None, domain: str = "math", as_json: bool) -> None:
    """Judges ANSWER against GOLD, or every line of a file against each other.

    Args:
        gold: the answer that is right.
        answer: an answer on its own, or a text that holds one.
        file: JSONL with `gold`, `answer` and, for a confusion table, `equivalent` (true or false) and `kind`.
        domain: whose verifier.
        as_json: print JSON.

    Raises:
        SoarError: the domain, or the file, cannot be used.
    """
    from soarctl import plugins
    from soarctl.api import Domain, SoarError

    pair = gold is not None and answer is not None
    if pair if file is not None else not pair:
        raise SoarError(
            "a pair or a file of pairs is needed, and only one of them",
            hint="soarctl grade GOLD ANSWER, or soarctl grade --file pairs.jsonl",
        )
    grader = plugins.load(Domain, domain, _OPTIONS.get(domain, {}))
    text = completion if domain == "math" else _as_it_is
    if file is not None:
        _grade_file(grader, file, text, as_json=as_json)
    elif gold is not None and answer is not None:
        _grade_one(grader, gold, answer, text(answer), as_json=as_json)


def completion(answer: str, kind: str = "") -> str:
    """What is graded: a text as it is, an answer on its own as if it stood in a box."""
    plain = answer.replace("\\$", "")
    is_text = "$" in plain or any(mark in plain for mark in _DELIMITERS) or kind.startswith(_TEXT_KINDS)
    return answer if is_text else f"\\boxed{{{answer}}}"


def _as_it_is(answer: str, kind: str = "") -> str:
    return answer


def _grade_one(grader: "Domain", gold: str, answer: str, text: str, *, as_json: bool) -> None:
    from soarctl.api import Problem

    (verdict,) = grader.grade([(Problem("", gold), text)])
    facts = {
        "outcome": str(verdict.outcome),
        "reason": verdict.reason,
        "gold": gold,
        "answer": verdict.answer,
        "reward": verdict.reward,
    }
    if as_json:
        print(json.dumps(facts, ensure_ascii=False))
        return
    print(_said(verdict))
    print(f"  gold    {gold}")
    print(f"  answer  {'none was found' if verdict.answer is None else verdict.answer}")
    print(f"  reward  {verdict.reward:g}")


def _said(verdict: "Verdict") -> str:
    return f"{verdict.outcome}: {verdict.reason}" if verdict.reason else str(verdict.outcome)


def _grade_file(grader: "Domain", file: Path, text: Callable[[str, str], str], *, as_json: bool) -> None:
    from soarctl.api import Problem

    rows = _rows(file)
    start = time.perf_counter()
    attempts = [(Problem("", row["gold"]), text(row["answer"], str(row.get("kind", "")))) for row in rows]
    verdicts = grader.grade(attempts)
    seconds = time.perf_counter() - start
    confusion = _confusion(rows, verdicts)
    reasons = Counter(map(_said, verdicts))
    misjudged = [
        (row, verdict)
        for row, verdict in zip(rows, verdicts, strict=True)
        if isinstance(row.get("equivalent"), bool) and row["equivalent"] is not verdict.correct
    ]
    if as_json:
        facts = {
            "pairs": len(rows),
            "seconds": round(seconds, 3),
            "confusion": confusion,
            "reasons": dict(reasons),
            "misjudged": [
                {"row": row.get("id", row["gold"]), "verdict": str(verdict.outcome), "reason": verdict.reason}
                for row, verdict in misjudged
            ],
        }
        print(json.dumps(facts, indent=2, ensure_ascii=False))
        return
    _print(len(rows), seconds, confusion, reasons, misjudged)


def _rows(file: Path) -> list[dict[str, Any]]:
    from soarctl.api import DataError

    rows: list[dict[str, Any]] = []
    try:
        with file.open(encoding="utf-8") as lines:
            for line in lines:
                row = json.loads(line)
                if not isinstance(row["gold"], str) or not isinstance(row["answer"], str):
                    raise TypeError("gold and answer are texts")
                rows.append(row)
    except OSError as error:
        raise DataError(f"cannot read: {error.strerror}", at=str(file)) from error
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"not a pair: {error!r}", at=f"{file}:{len(rows) + 1}", hint='each line: {"gold": "5", "answer": "5.0"}'
        ) from error
    if not rows:
        raise DataError("the file is empty", at=str(file))
    return rows


def _confusion(rows: Sequence[dict[str, Any]], verdicts: "Sequence[Verdict]") -> dict[str, dict[str, int]]:
    """Per stratum (the first part of `kind`) and for all: accepted and rejected, of the right and the wrong ones."""
    table: dict[str, Counter[str]] = {}
    for row, verdict in zip(rows, verdicts, strict=True):
        if not isinstance(row.get("equivalent"), bool):
            continue
        cell = f"{'right' if row['equivalent'] else 'wrong'} {'accepted' if verdict.correct else 'rejected'}"
        for stratum in (str(row.get("kind", "pairs")).partition("/")[0], "all"):
            table.setdefault(stratum, Counter())[cell] += 1
    ordered = sorted(table, key=lambda stratum: (stratum == "all", stratum))
    return {stratum: dict(table[stratum]) for stratum in ordered}


_CELLS = ("right accepted", "right rejected", "wrong accepted", "wrong rejected")


def _print(
    pairs: int,
    seconds: float,
    confusion: dict[str, dict[str, int]],
    reasons: Counter[str],
    misjudged: "Sequence[tuple[dict[str, Any], Verdict]]",
) -> None:
    from soarctl.cli.table import print_table

    print(f"{pairs} pairs in {seconds:.2f} s")
    if confusion:
        print()
        print_table(
            ["", *(cell.upper() for cell in _CELLS)],
            [[stratum, *(str(cells.get(cell, 0)) for cell in _CELLS)] for stratum, cells in confusion.items()],
        )
    print()
    print_table(["VERDICT", "PAIRS"], [[reason, str(count)] for reason, count in reasons.most_common()])
    if misjudged:
        print()
        print_table(
            ["MISJUDGED", "GOLD", "ANSWER", "VERDICT"],
            [
                [
                    row.get("kind", ""),
                    _short(row["gold"]),
                    _short(row["answer"]),
                    _said(verdict),
                ]
                for row, verdict in misjudged[:_MISJUDGED_SHOWN]
            ],
        )
        if len(misjudged) > _MISJUDGED_SHOWN:
            print(f"and {len(misjudged) - _MISJUDGED_SHOWN} more")


def _short(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= 40 else f"{text[:18]} ... {text[-17:]}"
