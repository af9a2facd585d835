"""Real easier problems for the arm `oracle`: those of a file, or candidates that the filter found not to be hard."""

import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

from soarctl.api import Problem
from soarctl.errors import DataError


def real_problems(path: Path) -> list[Problem]:
    """The problems of a file of JSON lines with `question` and `answer`, and `meta` where the domain needs it.

    Raises:
        DataError: it cannot be read, holds anything else, or nothing.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else None
        raise DataError(f"the file of `oracle` cannot be read: {reason or error}", at=str(path)) from error
    found = [_problem(line, f"{path}:{number}") for number, line in enumerate(lines, start=1) if line.strip()]
    if not found:
        raise DataError("the file of `oracle` is empty", at=str(path), hint="JSON lines with question and answer")
    return found


def not_held_out(problems: Collection[Problem], held_out: Collection[Problem], at: str) -> list[Problem]:
    """Those that may be practised: a problem that is measured on must not be.

    Raises:
        DataError: none is left.
    """
    measured = {problem.id for problem in held_out}
    kept = [problem for problem in problems if problem.id not in measured]
    if not kept:
        raise DataError(
            f"all {len(problems)} problems are held out in this study, and nothing is left to practise",
            at=at,
            hint="`oracle` needs easier problems than those that students are measured on",
        )
    return kept


def _problem(line: str, at: str) -> Problem:
    try:
        row: Any = json.loads(line)
    except ValueError as error:
        raise DataError(f"not a line of JSON: {error}", at=at) from error
    if not isinstance(row, dict):
        raise DataError(f"expected an object with question and answer, found {line.strip()[:80]}", at=at)
    for key in ("question", "answer"):
        if not isinstance(row.get(key), str):
            raise DataError(f"{key}: expected a text, found {json.dumps(row.get(key))[:80]}", at=at)
    meta = row.get("meta", {})
    if not isinstance(meta, dict):
        raise DataError(f"meta: expected keys and values, found {json.dumps(meta)[:80]}", at=at)
    return Problem(row["question"], row["answer"], meta)
