"""PQ, the promotion questions, as a dataset: all items of every promoted dataset, each with where it came from."""

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, get_type_hints

from soarctl import __version__
from soarctl.errors import DataError, RunError, disk_errors
from soarctl.history import best_window
from soarctl.ledger import Ledger
from soarctl.near_duplicates import THRESHOLD, N, NearDuplicate, leaks
from soarctl.runs import facts_of
from soarctl.solutions import Solver
from soarctl.stages import questions_of

CARD = "README.md"
_CARD_MARK = "<!-- written by soarctl export-pq -->"


@dataclass(frozen=True, slots=True)
class PromotionQuestion:
    """One row of the exported dataset. `COLUMNS` describes the columns."""

    id: str
    question: str
    answer: str
    run: str
    model: str
    outer_step: int
    promotion_index: int
    dataset: int
    position: int
    dataset_reward: float
    student_gain: float
    completion: str
    solver_answer: str | None
    solver_correct: bool | None


COLUMNS: Mapping[str, str] = {
    "id": "first 16 hex digits of the SHA-256 of the question with its white space normalised",
    "question": "the practice question",
    "answer": "the teacher's own answer, right or wrong: what students were graded against",
    "run": "name of the run",
    "model": "base model of teacher and students",
    "outer_step": "outer step that wrote it, counted from 1",
    "promotion_index": "which promotion it led to, counted from 1",
    "dataset": "index of its dataset in the outer step",
    "position": "index of the question in its dataset, in order of writing",
    "dataset_reward": "R_k: mean gain of the dataset's students on hard problems",
    "student_gain": "gain of the student that was promoted",
    "completion": "the whole teacher completion that the question was parsed from",
    "solver_answer": "the true answer, where the domain can compute one",
    "solver_correct": "whether `answer` is right, where the domain can tell",
}


@dataclass(frozen=True, slots=True)
class Exported:
    """What was written."""

    rows: int
    promotions: int
    duplicates: int
    """Rows left out because an earlier one asks the same question."""
    conflicting: int
    """Those of them whose answer differs from the earlier one's."""


def export_pq(ledger: Ledger, solver: Solver, out: Path, *, dedup: bool = False, force: bool = False) -> Exported:
    """Writes the promotion questions to `out`, JSON lines or Parquet by its suffix, and a dataset card beside it.

    Args:
        ledger: of the run.
        solver: says which of the teacher's answers are right.
        out: ends in `.jsonl` or `.parquet`.
        dedup: keep the first of several items that ask the same question, white space aside.
        force: overwrite an earlier export.

    Raises:
        RunError: the run has made no promotion, or something stands at `out` already.
        DataError: the suffix is neither, or pyarrow is not installed.
    """
    write = _writer(out)
    _refuse_to_overwrite(out, force)
    every = promotion_questions(ledger, solver)
    rows = first_of_each(every) if dedup else every
    answers = {row.id: row.answer for row in rows}
    exported = Exported(
        rows=len(rows),
        promotions=len({row.promotion_index for row in rows}),
        duplicates=len(every) - len(rows),
        conflicting=sum(answers[row.id].split() != row.answer.split() for row in every) if dedup else 0,
    )
    with disk_errors(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        _replace(out, lambda aside: write(rows, aside))
        card = dataset_card(ledger, rows, exported, out.name)
        _replace(out.with_name(CARD), lambda aside: aside.write_text(card, encoding="utf-8"))
    return exported


def promotion_questions(ledger: Ledger, solver: Solver) -> list[PromotionQuestion]:
    """All items of the promoted datasets, in order of promotion and of writing.

    Raises:
        RunError: there was no promotion.
    """
    promoted = ledger.rows(
        "SELECT baselines.stage, step, dataset, reward, gain FROM baselines"
        " JOIN datasets USING (step, dataset) JOIN students USING (step, dataset, repeat) ORDER BY 1"
    )
    if not promoted:
        raise _nothing_promoted(ledger)
    spec = facts_of(ledger)["spec"]
    rows: list[PromotionQuestion] = []
    for stage, step, dataset, reward, gain in promoted:
        written = questions_of(ledger, step, dataset)
        solutions = solver.solve([problem for _, problem, _ in written])
        rows += [
            PromotionQuestion(
                id=problem.id,
                question=problem.question,
                answer=problem.answer,
                run=spec["name"],
                model=spec["model"]["base"],
                outer_step=step,
                promotion_index=stage,
                dataset=dataset,
                position=position,
                dataset_reward=reward,
                student_gain=gain,
                completion=completion,
                solver_answer=solution.answer,
                solver_correct=solution.correct,
            )
            for (position, problem, completion), solution in zip(written, solutions, strict=True)
        ]
    return rows


def first_of_each(rows: Sequence[PromotionQuestion]) -> list[PromotionQuestion]:
    """The rows without those that ask what an earlier one asks."""
    first: dict[str, PromotionQuestion] = {}
    for row in rows:
        first.setdefault(row.id, row)
    return list(first.values())


def dataset_card(ledger: Ledger, rows: Sequence[PromotionQuestion], exported: Exported, file: str) -> str:
    """What someone who finds the file must know: what it is, how it was made, what not to trust."""
    facts = facts_of(ledger)
    spec, split = facts["spec"], facts.get("split", {})
    candidates = {id for (id,) in ledger.rows("SELECT id FROM problems")}
    judged = [row.solver_correct for row in rows if row.solver_correct is not None]
    right = (
        f"The domain can compute answers: {sum(judged)} of {len(judged)} are right."
        if judged
        else "The domain has no way to compute true answers, so how many are right is not known."
    )
    near = leaks(
        [row.question for row in rows],
        [q for (q,) in ledger.rows("SELECT question FROM problems WHERE half IS NOT NULL")],
    )
    dropped = (
        f"{exported.duplicates} items that repeat an earlier question were left out, "
        f"{exported.conflicting} of them with another answer."
        if exported.duplicates
        else "Repeated questions, if any, are kept, as in the run."
    )
    columns = "\n".join(f"| `{name}` | {meaning} |" for name, meaning in COLUMNS.items())
    return f"""---
configs:
- config_name: default
  data_files: {json.dumps(file, ensure_ascii=False)}
tags:
- synthetic
- soar
---
{_CARD_MARK}

# Promotion questions of the run {spec["name"]}

Practice questions that a teacher, a copy of `{spec["model"]["base"]}`, wrote for students, other copies of it, while
being paid by how much the students improved on problems that the model never solved. These are the questions of the
datasets whose students improved enough to be promoted (SOAR, arXiv 2601.18778).

| | |
|---|---|
| questions | {exported.rows} |
| promotions | {exported.promotions} |
| outer steps of the run | {ledger.steps_done} |
| domain | {spec["domain"]["plugin"]} |
| reward | {spec["reward"]["plugin"]} |
| seed | {spec["seed"]} |
| spec, SHA-256 | {facts.get("spec_sha256", "not recorded")} |
| hard problems learned from, SHA-256 | {_half(split, "train")} |
| hard problems held out, SHA-256 | {_half(split, "test")} |
| questions that equal a candidate problem | {sum(row.id in candidates for row in rows)} |
| near-duplicates: questions in a hard problem | {_shares(near.questions_in_problems, near.questions)} |
| near-duplicates: hard problems in a question | {_shares(near.problems_in_questions, near.problems)} |
| soarctl | {__version__} |

{dropped}

A near-duplicate shares at least {100 * THRESHOLD:.0f} % of its runs of {N} tokens with the other text. Hard problems of
both halves were compared, the held-out ones included.

## Do not trust the answers

`answer` is what the teacher gave with its question. Nobody checked it, students were graded against it all the same,
and it may be wrong. {right}

The questions come from a run with promotions: from the times that went well. The reward was measured on hard problems
of the train half; the held-out half had no part in making them.

## Columns

| column | meaning |
|---|---|
{columns}

## Licence

Not stated. Whoever publishes this file decides, with the licence of `{spec["model"]["base"]}` in view.
"""


def _half(split: Mapping[str, Any], name: str) -> str:
    half = split.get(name)
    return f"{half['sha256']} ({half['count']} problems)" if half else "not recorded"


def _shares(found: Sequence[NearDuplicate], of: int) -> str:
    return f"{len(found)} of {of}, at most {100 * found[0].share:.0f} % shared" if found else f"0 of {of}"


def _nothing_promoted(ledger: Ledger) -> RunError:
    spec, best = facts_of(ledger)["spec"], best_window(ledger)
    tau, m = spec["promotion"]["tau"], spec["promotion"]["window"]
    return RunError(
        f"the run has made no promotion in {ledger.steps_done} outer steps, so there are no promotion questions",
        at=str(ledger.path.parent),
        hint=f"a promotion needs a mean reward above {tau:g} over {m} steps"
        + (f"; the best was {best.window_mean:.4g}, at step {best.step}" if best else ""),
    )


def _refuse_to_overwrite(out: Path, force: bool) -> None:
    if out.exists() and not force:
        raise RunError("the file exists", at=str(out), hint="`--force` overwrites it")
    card = out.with_name(CARD)
    # A README that is not ours stays, whatever the user is willing to lose of the export.
    ours = card.exists() and _CARD_MARK in card.read_text(encoding="utf-8", errors="replace")
    if card.exists() and not ours:
        raise RunError(
            "the dataset card goes here, but this file is something else",
            at=str(card),
            hint=f"write to a directory of its own: --out {out.parent / 'pq' / out.name}",
        )
    if ours and not force:
        raise RunError("the dataset card exists", at=str(card), hint="`--force` overwrites it")


def _replace(path: Path, write: Callable[[Path], object]) -> None:
    aside = path.with_name(f".{path.name}.partial")
    write(aside)
    os.replace(aside, path)


def _writer(out: Path) -> Callable[[Sequence[PromotionQuestion], Path], object]:
    if out.suffix == ".jsonl":
        return _write_jsonl
    if out.suffix == ".parquet":
        _pyarrow()
        return _write_parquet
    raise DataError("the name should end in .jsonl or .parquet", at=str(out))


def _write_jsonl(rows: Sequence[PromotionQuestion], path: Path) -> None:
    path.write_text("".join(json.dumps(asdict(row), ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def _write_parquet(rows: Sequence[PromotionQuestion], path: Path) -> None:
    pa, parquet = _pyarrow()
    # Said and not inferred: a column of nothing but None has no type of its own.
    types = {str: pa.string(), int: pa.int64(), float: pa.float64(), str | None: pa.string(), bool | None: pa.bool_()}
    schema = pa.schema([(name, types[kind]) for name, kind in get_type_hints(PromotionQuestion).items()])
    parquet.write_table(pa.Table.from_pylist([asdict(row) for row in rows], schema=schema), path)


def _pyarrow() -> tuple[Any, Any]:
    try:
        return import_module("pyarrow"), import_module("pyarrow.parquet")
    except ImportError as error:
        raise DataError(
            "Parquet needs pyarrow, which is not installed",
            hint='pip install "soarctl[data]", or export to a name that ends in .jsonl',
        ) from error
