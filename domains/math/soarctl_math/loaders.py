"""Problems out of the rows of MATH, HARP, OlympiadBench, or any table with a question and an answer."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from soarctl.api import DataError, Problem
from soarctl_math.extract import boxed
from soarctl_math.files import HUB, Report, Row, rows
from soarctl_math.overlap import Known

Format = Literal["math", "harp", "olympiadbench", "table"]
_LAYOUTS: Mapping[str, tuple[str, ...]] = {
    "math": ("problem",),
    "harp": ("problem", "contest"),
    "olympiadbench": ("question", "final_answer"),
}


class Source(BaseModel):
    """A file or folder of problems."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    path: str
    """A local file or folder (JSON, JSONL, CSV, Parquet, .gz, .tar), or `hub:OWNER/NAME`."""
    format: Format = "math"
    """What the rows are: `math` (also MATH-500 and answer-only files), `harp`, `olympiadbench`, or any `table`."""
    question: str = "question"
    """Column of the question, in a `table`."""
    answer: str = "answer"
    """Column of the answer, in a `table`. A text with a box in it gives what the box holds."""
    keep: tuple[str, ...] = ()
    """Further columns of a `table` to keep with each problem, such as its subject and level."""
    config: str | None = None
    """Configuration of a data set on the hub."""
    split: str | None = None
    """Split of a data set on the hub; `test` where none is given."""

    @property
    def on_hub(self) -> bool:
        return self.path.startswith(HUB)


class Skipped(Exception):
    """A row that gives no problem. Its message is the kind under which it is counted."""


def load(source: Source, known: Known) -> tuple[list[Problem], Report]:
    """The problems of a source in the order of the file, and what was left out of it.

    Args:
        source: what to read.
        known: problems that are to be left out.

    Raises:
        DataError: it is missing, of another format, or nothing of it can be used.
    """
    report = Report(source.path)
    problems: list[Problem] = []
    here: dict[str, tuple[str, str]] = {}
    first: Row | None = None
    for place, row in rows(source.path, report, config=source.config, split=source.split):
        first = row if first is None else first
        try:
            problem = _READERS[source.format](row, source)
        except Skipped as skipped:
            report.note(str(skipped), place)
            continue
        if problem.id in here:
            earlier, answer = here[problem.id]
            same = "the same" if answer == problem.answer else "another"
            report.note(f"the same question with {same} answer", f"{place} is {earlier}")
            continue
        here[problem.id] = (place, problem.answer)
        if (elsewhere := known.find(problem.question)) is not None:
            report.note("problem of an excluded or earlier file", f"{place} is {elsewhere}")
        else:
            problems.append(problem)
    if not problems:
        hint = _why(source, first, report)
        raise DataError(f"no usable problem in format {source.format}", at=source.path, hint=hint)
    return problems, report


def _why(source: Source, first: Row | None, report: Report) -> str:
    lines = report.lines()
    if first is not None:
        lines.append(f"its rows have the keys {', '.join(list(first)[:12])}")
        fits = [name for name, needed in _LAYOUTS.items() if all(column in first for column in needed)]
        if fits and source.format not in fits:
            lines.append(f"did you mean format: {fits[-1]}?")
        elif not fits and source.format != "table":
            lines.append("for other files: format: table, with `question` and `answer` naming the columns")
    return "\n".join(lines) or "it is empty"


def _text(row: Row, column: str) -> str:
    value = row.get(column)
    if not isinstance(value, str) or not value.strip():
        raise Skipped(f"row without a {column}" if column in row else f'row without the key "{column}"')
    return value.strip()


def _gold(answer: Any) -> str:
    if isinstance(answer, (int, float)) and not isinstance(answer, bool):
        return str(answer)
    if not isinstance(answer, str) or not answer.strip():
        raise Skipped("row without an answer")
    return answer.strip()


def _kept(**values: Any) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value not in (None, "")}


def _math(row: Row, source: Source) -> Problem:
    question = _text(row, "problem")
    if "answer" in row or "solution" not in row:
        answer = _gold(row.get("answer"))
    else:
        solution = boxed(str(row["solution"]), alone=True)
        if solution is None:
            raise Skipped("row whose solution has no box")
        answer = _gold(solution)
    level = str(row.get("level", "")).removeprefix("Level ")
    subject = row.get("type", row.get("subject"))
    return Problem(question, answer, _kept(subject=subject, level=level, source=row.get("unique_id")))


def _harp(row: Row, source: Source) -> Problem:
    question = _text(row, "problem")
    if "answer" not in row:
        raise Skipped('row without the key "answer", such as a problem that asks for a proof')
    name = "/".join(str(row[part]) for part in ("year", "contest", "number") if part in row)
    return Problem(
        question, _gold(row["answer"]), _kept(subject=row.get("subject"), level=str(row.get("level", "")), source=name)
    )


def _olympiadbench(row: Row, source: Source) -> Problem:
    question = _text(row, "question")
    for column, wanted in (
        ("language", "english"),
        ("modality", "text"),
        ("question_type", "open"),
        ("subject", "math"),
    ):
        value = row.get(column)
        if isinstance(value, str) and not value.lower().startswith(wanted) and value.lower() != "oe":
            raise Skipped(f"row of another {column.replace('_', ' ')}")
    finals = row.get("final_answer")
    if isinstance(finals, str):  # CSV and some copies hold the list as text
        finals = [finals]
    if not isinstance(finals, list) or not finals or not all(isinstance(final, str) for final in finals):
        raise Skipped("row without an answer")
    context = row.get("context")
    if isinstance(context, str) and context.strip():
        question = f"{context.strip()}\n\n{question}"
    return Problem(
        question,
        _gold(", ".join(finals)),
        _kept(
            subject=row.get("subfield"),
            level=row.get("difficulty"),
            source=str(row.get("id", "")),
            unit=row.get("unit"),
            tolerance=_tolerance(row.get("error")),
        ),
    )


def _tolerance(error: Any) -> float | None:
    try:
        tolerance = float(error)
    except (TypeError, ValueError):
        return None
    return tolerance if 0 < tolerance < 1 else None


def _table(row: Row, source: Source) -> Problem:
    question = _text(row, source.question)
    if source.answer not in row:
        raise Skipped(f'row without the key "{source.answer}"')
    answer = row[source.answer]
    if isinstance(answer, str) and "\\boxed" in answer:
        answer = boxed(answer)
    elif isinstance(answer, str) and "\n#### " in answer:  # GSM8K
        answer = answer.rpartition("\n#### ")[2]
    return Problem(question, _gold(answer), _kept(**{column: _plain(row.get(column)) for column in source.keep}))


def _plain(value: Any) -> Any:
    """The value as JSON has it."""
    return json.loads(json.dumps(value, default=str))


_READERS: Mapping[Format, Callable[[Row, Source], Problem]] = {
    "math": _math,
    "harp": _harp,
    "olympiadbench": _olympiadbench,
    "table": _table,
}


def problems_of(sources: Sequence[Source], leave_out: Sequence[Source]) -> Iterator[tuple[list[Problem], Report]]:
    """Each source's problems and report; what stands in an earlier source is left out of a later one."""
    known = Known()
    for source in leave_out:
        known.extend(_questions(source))
    for number, source in enumerate(sources, start=1):
        problems, report = load(source, known)
        if number < len(sources):
            known.extend((problem.question, source.path) for problem in problems)
        yield problems, report


def _questions(source: Source) -> Iterator[tuple[str, str]]:
    """All questions of a source, answered or not, and where they stand."""
    for place, row in rows(source.path, Report(source.path), config=source.config, split=source.split):
        question = row.get("problem", row.get("question", row.get(source.question)))
        if isinstance(question, str):
            yield question, f"{place} of {source.path}"
