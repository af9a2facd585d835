"""fail@k from completions that exist already: nobody samples, and nobody knows which model did."""

import gzip
import hashlib
import json
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from soarctl.api import Domain, Problem, Verdict, problem_id
from soarctl.errors import DataError
from soarctl.events import Tell
from soarctl.fail_at_k import undecided
from soarctl.grading import count_verdicts, grade
from soarctl.ledger import Filtered
from soarctl.spec import Spec

_QUESTIONS = ("question", "problem")
_COMPLETIONS = ("completions", "completion", "responses", "response")
_AT_ONCE = 4096
_HINT = 'each line: {"question": "...", "completions": ["...", "..."]}, or one `completion`; `id` may name the problem'


@dataclass(frozen=True, slots=True)
class Given:
    """What a file of completions gave."""

    found: Sequence[Filtered]
    """One entry per candidate, in order."""
    facts: Mapping[str, Any]
    """Where the completions are from, and how many could not be used. Plain JSON values."""


def fail_at_k_given(spec: Spec, domain: Domain, problems: Sequence[Problem], path: Path, tell: Tell) -> Given:
    """Judges the first k completions of each problem in a file, and counts successes.

    Args:
        problems: the candidates.
        path: JSON lines, gzipped or not; each with a question, or a problem's id, and completions of it.

    Raises:
        DataError: the file cannot be read, a line is something else, or a problem that might be hard has fewer than
            k completions.
    """
    content = _content(path)
    counts = Counter(rows=0, completions=0, rows_of_unknown_problems=0, completions_beyond_k=0)
    found = {p.id: Filtered(p, 0, 0, {}) for p in problems}
    attempts = _attempts(_text(content, path), path, found, spec.filter.samples, counts)
    while block := list(islice(attempts, _AT_ONCE)):
        verdicts: dict[str, list[Verdict]] = {}
        for (problem, _), verdict in zip(block, grade(domain, block, tell), strict=True):
            verdicts.setdefault(problem.id, []).append(verdict)
        for id, judged in verdicts.items():
            found[id] = _with(found[id], judged)
        tell("samples_judged", completions=len(block))
    _refuse_too_few(spec, domain, list(found.values()), path)
    return Given(list(found.values()), {"file": str(path), "sha256": hashlib.sha256(content).hexdigest(), **counts})


def _with(filtered: Filtered, judged: Sequence[Verdict]) -> Filtered:
    return Filtered(
        filtered.problem,
        filtered.samples + len(judged),
        filtered.successes + sum(verdict.correct for verdict in judged),
        Counter(filtered.verdicts) + count_verdicts(judged),
    )


def _refuse_too_few(spec: Spec, domain: Domain, found: Sequence[Filtered], path: Path) -> None:
    """What was never solved in fewer than k attempts might be solved in k: that is not for us to guess."""
    k = spec.filter.samples
    short = [f for f in found if f.samples < k and undecided(domain, f, k)]
    if not short:
        return
    shares = sorted(Counter(f.samples for f in short).items())
    raise DataError(
        f"{len(short)} of {len(found)} candidates have fewer than {k} completions and might still be hard: "
        + ", ".join(f"{problems:,} with {samples}" for samples, problems in shares),
        at=str(path),
        hint=f"the first is {short[0].problem.question[:80]!r}\n"
        "give more completions, load fewer problems, or ask for fewer with `--set filter.samples=K`",
    )


def _attempts(
    text: str, path: Path, found: Mapping[str, Filtered], k: int, counts: Counter[str]
) -> Iterator[tuple[Problem, str]]:
    """The completions of known problems, at most k of each."""
    taken: Counter[str] = Counter()
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        counts["rows"] += 1
        try:
            id, completions = _row(json.loads(line), found)
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise DataError(f"no completions of a problem: {error}", at=f"{path}:{number}", hint=_HINT) from error
        counts["completions"] += len(completions)
        if id not in found:
            counts["rows_of_unknown_problems"] += 1
            continue
        used = completions[: k - taken[id]]
        taken[id] += len(used)
        counts["completions_beyond_k"] += len(completions) - len(used)
        for completion in used:
            yield found[id].problem, completion
    if not counts["rows"]:
        raise DataError("the file is empty", at=str(path), hint=_HINT)


def _row(row: Any, known: Mapping[str, Filtered]) -> tuple[str, list[str]]:
    if not isinstance(row, dict):
        raise TypeError("the line is no object")
    completions = next((row[key] for key in _COMPLETIONS if key in row), None)
    if isinstance(completions, str):
        completions = [completions]
    if not isinstance(completions, list) or not all(isinstance(completion, str) for completion in completions):
        raise TypeError("`completions` is no list of texts")
    # Data sets have ids of their own; one counts as ours only if a candidate has it.
    id: Any = row.get("id")
    if isinstance(id, str) and id in known:
        return id, completions
    question = next((row[key] for key in _QUESTIONS if isinstance(row.get(key), str)), None)
    if question is None and not isinstance(id, str):
        raise KeyError("neither a question nor an id")
    return (problem_id(question) if question is not None else str(id)), completions


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"cannot read: {error.strerror or error}", at=str(path)) from error


def _text(content: bytes, path: Path) -> str:
    try:
        return (gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content).decode()
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"the gzip stream is damaged: {error}", at=str(path)) from error
    except UnicodeDecodeError as error:
        raise DataError(f"not UTF-8: {error}", at=str(path)) from error
