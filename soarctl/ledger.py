"""The ledger: one SQLite database that holds all that happened in a run. `docs/run_directory.md` describes it.

What is recorded follows from the spec alone, so that two runs of one spec, one of them killed and resumed a hundred
times, have equal ledgers. Only the table `timings` knows of clocks. Reading needs neither torch nor the model.
"""

import json
import os
import sqlite3
from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any, Self

from soarctl.errors import RunError, disk_errors
from soarctl.savings import Seen

if TYPE_CHECKING:
    from soarctl.alarms import Sign
    from soarctl.api import Problem
    from soarctl.inner_loop import PracticeLog
    from soarctl.practice import Practised
    from soarctl.soar import StepRecord

SCHEMA_VERSION = 1
FILE = "ledger.sqlite"
STUDY_FILE = "study.sqlite"

# SQLite's codes for a file that is not, or no longer, a database: malformed, no database at all, shorter than it says.
_DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_IOERR_SHORT_READ)

# Tables that say something of an outer step.
_OF_STEPS = (
    "steps",
    "rejections",
    "datasets",
    "questions",
    "students",
    "lost_students",
    "attempts",
    "alarms",
    "checkpoints",
)

_SCHEMA = """
CREATE TABLE facts (
    key TEXT PRIMARY KEY, value TEXT NOT NULL               -- JSON: spec, model, versions, where overrides came from
) WITHOUT ROWID;
CREATE TABLE problems (                                     -- candidates, with what the fail@k filter found
    id TEXT PRIMARY KEY, question TEXT NOT NULL, answer TEXT NOT NULL, meta TEXT NOT NULL,
    samples INTEGER NOT NULL, successes INTEGER NOT NULL, verdicts TEXT NOT NULL,
    half TEXT CHECK (half IN ('train', 'test'))             -- NULL: not hard
) WITHOUT ROWID;
CREATE TABLE steps (                                        -- one row per finished outer step
    step INTEGER PRIMARY KEY, stage INTEGER NOT NULL, reward REAL NOT NULL, window TEXT NOT NULL,
    window_after TEXT NOT NULL, promoted INTEGER NOT NULL, q_r TEXT NOT NULL, drawn INTEGER NOT NULL,
    teacher TEXT NOT NULL, measures TEXT NOT NULL           -- measures: means over the step's questions
);
CREATE TABLE rejections (
    step INTEGER NOT NULL, rule TEXT NOT NULL, count INTEGER NOT NULL, PRIMARY KEY (step, rule)
) WITHOUT ROWID;
CREATE TABLE datasets (
    step INTEGER NOT NULL, dataset INTEGER NOT NULL, reward REAL NOT NULL, advantage REAL NOT NULL,
    PRIMARY KEY (step, dataset)
) WITHOUT ROWID;
CREATE TABLE questions (
    step INTEGER NOT NULL, dataset INTEGER NOT NULL, position INTEGER NOT NULL, id TEXT NOT NULL,
    question TEXT NOT NULL, answer TEXT NOT NULL, meta TEXT NOT NULL, completion TEXT NOT NULL,
    measures TEXT NOT NULL, PRIMARY KEY (step, dataset, position)
) WITHOUT ROWID;
CREATE TABLE students (                                     -- committed as each fleet finishes
    step INTEGER NOT NULL, dataset INTEGER NOT NULL, repeat INTEGER NOT NULL, accuracy REAL NOT NULL,
    gain REAL NOT NULL, updates INTEGER NOT NULL, tokens INTEGER NOT NULL, rewards TEXT NOT NULL,
    verdicts TEXT NOT NULL, grad_norms TEXT NOT NULL, logprob_gap REAL NOT NULL, fingerprint TEXT NOT NULL,
    weights TEXT,                                           -- hash of its checkpoint; NULL: never moved
    PRIMARY KEY (step, dataset, repeat)
) WITHOUT ROWID;
CREATE TABLE attempts (                                     -- the first completion of each student's inner step
    step INTEGER NOT NULL, dataset INTEGER NOT NULL, repeat INTEGER NOT NULL, inner_step INTEGER NOT NULL,
    question TEXT NOT NULL, completion TEXT NOT NULL, outcome TEXT NOT NULL, reason TEXT NOT NULL,
    reward REAL NOT NULL, PRIMARY KEY (step, dataset, repeat, inner_step)
) WITHOUT ROWID;
CREATE TABLE baselines (                                    -- stage 0 is the base model, each later one a promotion
    stage INTEGER PRIMARY KEY, step INTEGER, dataset INTEGER, repeat INTEGER, weights TEXT
);
CREATE TABLE baseline_rates (                               -- share of attempts that solve each hard train problem
    stage INTEGER NOT NULL, samples INTEGER NOT NULL, problem TEXT NOT NULL, rate REAL NOT NULL,
    PRIMARY KEY (stage, samples, problem)
) WITHOUT ROWID;
CREATE TABLE checkpoints (
    step INTEGER PRIMARY KEY, weights TEXT NOT NULL         -- hash of the teacher's checkpoint after `step` steps
);
CREATE TABLE evaluations (                                  -- held-out problems, read once, after the last step
    arm TEXT NOT NULL, problem TEXT NOT NULL, samples INTEGER NOT NULL, correct INTEGER NOT NULL,
    PRIMARY KEY (arm, problem)
) WITHOUT ROWID;
CREATE TABLE study_students (                               -- of a study: who is trained and measured, and on what
    arm TEXT NOT NULL, student INTEGER NOT NULL, source TEXT, questions TEXT NOT NULL, PRIMARY KEY (arm, student)
) WITHOUT ROWID;
CREATE TABLE study_steps (
    arm TEXT NOT NULL, student INTEGER NOT NULL, step INTEGER NOT NULL, reward REAL NOT NULL, grad_norm REAL NOT NULL,
    PRIMARY KEY (arm, student, step)
) WITHOUT ROWID;
CREATE TABLE study_evaluations (                            -- each row is one reading of the whole held-out half
    arm TEXT NOT NULL, student INTEGER NOT NULL, step INTEGER NOT NULL, samples INTEGER NOT NULL,
    correct TEXT NOT NULL, PRIMARY KEY (arm, student, step)
) WITHOUT ROWID;
CREATE TABLE study_checkpoints (                            -- the newest state of each fleet of an arm
    arm TEXT NOT NULL, fleet INTEGER NOT NULL, step INTEGER NOT NULL, weights TEXT NOT NULL, PRIMARY KEY (arm, fleet)
) WITHOUT ROWID;
CREATE TABLE study_skipped (
    arm TEXT PRIMARY KEY, reason TEXT NOT NULL              -- arms that could not be compared
) WITHOUT ROWID;
CREATE TABLE timings (
    step INTEGER NOT NULL, phase TEXT NOT NULL, seconds REAL NOT NULL, tokens INTEGER NOT NULL
);
"""

# Runs that began before there were these tables have none; they are made when such a run is gone on with.
_LATER = """
CREATE TABLE IF NOT EXISTS alarms (                         -- one row for each sign that was seen after an outer step
    step INTEGER NOT NULL, name TEXT NOT NULL, said TEXT NOT NULL, advice TEXT NOT NULL, PRIMARY KEY (step, name)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS lost_students (                  -- whose practice failed for good; the others are averaged
    step INTEGER NOT NULL, dataset INTEGER NOT NULL, repeat INTEGER NOT NULL, reason TEXT NOT NULL,
    PRIMARY KEY (step, dataset, repeat)
) WITHOUT ROWID;
"""


@dataclass(frozen=True, slots=True)
class Filtered:
    """A candidate problem with what the fail@k filter found."""

    problem: "Problem"
    samples: int
    successes: int
    verdicts: Mapping[str, int]
    half: str | None = None
    """'train' or 'test' once hard problems are split; None for a problem that is not hard."""


class Ledger:
    """The database of one run directory."""

    def __init__(self, connection: sqlite3.Connection, path: Path) -> None:
        self._db = connection
        self.path = path

    @classmethod
    def create(cls, directory: Path, facts: Mapping[str, Any], file: str = FILE) -> Self:
        """A new ledger with its facts; `file` is STUDY_FILE for that of a study.

        Raises:
            RunError: it cannot be written.
        """
        # Made aside and renamed, so that a ledger that is there always holds its facts.
        aside = directory / f".{file}.partial"
        with disk_errors(aside), _database_errors(aside):
            aside.unlink(missing_ok=True)
            with closing(sqlite3.connect(aside, isolation_level=None)) as db:
                db.executescript(f"BEGIN; {_SCHEMA} {_LATER} PRAGMA user_version = {SCHEMA_VERSION};")
                cls(db, aside).set_facts(facts)
                db.commit()
            aside.replace(directory / file)
        return cls.open(directory, file=file)

    @classmethod
    def open(cls, directory: Path, *, read_only: bool = False, file: str = FILE) -> Self:
        """The ledger of an existing run, or of a study where `file` is STUDY_FILE.

        Raises:
            RunError: there is none, it is damaged, or a newer soarctl wrote it.
        """
        path = directory / file
        if not path.is_file():
            kind = "run" if file == FILE else "study"
            if file == FILE and (directory / STUDY_FILE).is_file():
                raise RunError(
                    "this is a study, not a run",
                    at=str(directory),
                    hint=f"`soarctl report {directory}` shows it, and `soarctl study SPEC` goes on with it;\n"
                    f"its runs are in {directory / 'runs'}",
                )
            raise RunError(
                f"no {kind} here: {file} is missing",
                at=str(directory),
                hint=f"`soarctl {kind} SPEC` makes a {kind} directory",
            )
        with _database_errors(path):
            options = _how_to_read(path) if read_only else "mode=rw"
            db = sqlite3.connect(f"{path.resolve().as_uri()}?{options}", uri=True, isolation_level=None)
            try:
                [(version,)] = db.execute("PRAGMA user_version").fetchall()
            except sqlite3.Error:
                db.close()
                raise
            if version == 0:  # of an empty file, too
                db.close()
                raise _damaged(path, "it holds no ledger")
            if version != SCHEMA_VERSION:
                db.close()
                raise RunError(
                    f"the ledger has schema version {version}; this soarctl reads version {SCHEMA_VERSION}",
                    at=str(path),
                    hint="install the soarctl that wrote it, named in its table `facts`; nothing was changed",
                )
            if not read_only:
                db.executescript(f"PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; {_LATER}")
        return cls(db, path)

    def close(self) -> None:
        self._db.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextmanager
    def transaction(self) -> Generator[None, None, None]:
        """All or nothing. Nested use joins the outer one.

        Raises:
            RunError: the disk is full or the database damaged; the transaction is undone.
        """
        if self._db.in_transaction:
            yield
            return
        with _database_errors(self.path):
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
            except BaseException:
                self._db.rollback()
                raise
            self._db.commit()

    def rows(self, query: str, *values: Any) -> list[Any]:
        """The rows of a query."""
        with _database_errors(self.path):
            return self._db.execute(query, values).fetchall()

    # What is written, in the order in which a run writes it. Outer steps count from 1.

    def set_facts(self, facts: Mapping[str, Any]) -> None:
        self._put("facts", ({"key": key, "value": _json(value)} for key, value in facts.items()), replace=True)

    def put_problems(self, filtered: Iterable[Filtered]) -> None:
        self._put(
            "problems",
            (
                {
                    "id": f.problem.id,
                    "question": f.problem.question,
                    "answer": f.problem.answer,
                    "meta": f.problem.meta,
                    "samples": f.samples,
                    "successes": f.successes,
                    "verdicts": f.verdicts,
                    "half": f.half,
                }
                for f in filtered
            ),
            replace=True,
        )

    def put_baseline(self, stage: int, step: int | None, student: tuple[int, int] | None, weights: str | None) -> None:
        dataset, repeat = student or (None, None)
        row = {"stage": stage, "step": step, "dataset": dataset, "repeat": repeat, "weights": weights}
        self._put("baselines", [row])

    def put_baseline_rates(self, stage: int, samples: int, rates: Mapping[str, float]) -> None:
        self._put(
            "baseline_rates",
            ({"stage": stage, "samples": samples, "problem": id, "rate": rate} for id, rate in rates.items()),
            replace=True,
        )

    def drop_students(self, step: int, jobs: Sequence[tuple[int, int]]) -> None:
        """Forgets finished students of an outer step that is not finished itself."""
        with self.transaction():
            for table in ("students", "attempts"):
                self._db.executemany(
                    f"DELETE FROM {table} WHERE step = ? AND dataset = ? AND repeat = ?", [(step, *job) for job in jobs]
                )

    def put_students(
        self, step: int, students: Sequence["Practised"], weights: Sequence[str | None], fingerprint: str
    ) -> None:
        """Finished students of an outer step that is not finished itself."""
        with self.transaction():
            for practised, digest in zip(students, weights, strict=True):
                log = practised.log
                job = {"step": step, "dataset": practised.dataset, "repeat": practised.repeat}
                # A fleet that lost a student is trained again when the run is resumed before the step is finished.
                for table in ("students", "lost_students", "attempts"):
                    self._db.execute(
                        f"DELETE FROM {table} WHERE step = ? AND dataset = ? AND repeat = ?", [*job.values()]
                    )
                row = {
                    "accuracy": practised.student.accuracy,
                    "gain": practised.student.gain,
                    "updates": log.updates,
                    "tokens": log.tokens,
                    "rewards": log.rewards,
                    "verdicts": log.verdicts,
                    "grad_norms": log.grad_norms,
                    "logprob_gap": log.logprob_gap,
                    "fingerprint": fingerprint,
                    "weights": digest,
                }
                self._put("students", [job | row])
                self._put(
                    "attempts",
                    (
                        job
                        | {"inner_step": a.inner_step, "question": a.question, "completion": a.completion}
                        | {"outcome": a.verdict.outcome.value, "reason": a.verdict.reason, "reward": a.verdict.reward}
                        for a in log.attempts
                    ),
                )

    def put_lost_students(self, step: int, lost: Mapping[tuple[int, int], str]) -> None:
        """(dataset, repeat) of students whose practice failed for good, with the reason."""
        self._put(
            "lost_students",
            ({"step": step, "dataset": k, "repeat": j, "reason": reason} for (k, j), reason in lost.items()),
            replace=True,
        )

    def put_step(
        self, record: "StepRecord", window_after: Sequence[float], measures: Sequence[Mapping[str, float]]
    ) -> None:
        """All of a finished outer step but its students, which are there already.

        Args:
            record: what happened.
            window_after: the promotion window that the next step starts with.
            measures: the domain's numbers about each question, in order of writing.
        """
        step, n = record.step, len(record.datasets_G[0])
        with self.transaction():
            self._put(
                "steps",
                [
                    {
                        "step": step,
                        "stage": record.stage,
                        "reward": record.reward,
                        "window": record.window,
                        "window_after": window_after,
                        "promoted": int(record.promoted is not None),
                        "q_r": [p.id for p in record.asked],
                        "drawn": record.writing.drawn,
                        "teacher": asdict(record.teacher),
                        "measures": mean_measures(measures),
                    }
                ],
            )
            self._put(
                "rejections",
                ({"step": step, "rule": rule, "count": count} for rule, count in record.writing.rejections.items()),
            )
            self._put(
                "datasets",
                (
                    {"step": step, "dataset": k, "reward": reward, "advantage": advantage}
                    for k, (reward, advantage) in enumerate(zip(record.rewards_G, record.advantages_G, strict=True))
                ),
            )
            written = zip(record.writing.questions, record.writing.completions, measures, strict=True)
            self._put(
                "questions",
                (
                    {"step": step, "dataset": i // n, "position": i % n, "id": p.id, "question": p.question}
                    | {"answer": p.answer, "meta": p.meta, "completion": completion.text, "measures": measured}
                    for i, (p, completion, measured) in enumerate(written)
                ),
            )

    def put_alarms(self, step: int, signs: Sequence["Sign"]) -> None:
        """The signs that are seen after an outer step."""
        self._put("alarms", ({"step": step, **asdict(sign)} for sign in signs))

    def put_checkpoint(self, step: int, weights: str) -> None:
        self._put("checkpoints", [{"step": step, "weights": weights}], replace=True)

    def put_evaluation(self, arm: str, samples: int, correct: Mapping[str, int]) -> None:
        self._put(
            "evaluations",
            ({"arm": arm, "problem": id, "samples": samples, "correct": n} for id, n in correct.items()),
            replace=True,
        )

    def put_study_students(self, arm: str, questions: Mapping[int, tuple[str | None, Sequence["Problem"]]]) -> None:
        """Who is trained in an arm: student -> source and practice questions."""
        self._put(
            "study_students",
            (
                {"arm": arm, "student": student, "source": source, "questions": [[p.question, p.answer] for p in asked]}
                for student, (source, asked) in questions.items()
            ),
            replace=True,
        )

    def put_study_training(self, arm: str, student: int, first: int, log: "PracticeLog") -> None:
        """RLOO steps of one student of an arm, the first of them being step `first`."""
        rows = zip(log.rewards, log.grad_norms, strict=True)
        self._put(
            "study_steps",
            (
                {"arm": arm, "student": student, "step": step, "reward": reward, "grad_norm": norm}
                for step, (reward, norm) in enumerate(rows, start=first)
            ),
        )

    def put_study_evaluation(self, arm: str, student: int, step: int, samples: int, correct_P: Sequence[int]) -> None:
        row = {"arm": arm, "student": student, "step": step, "samples": samples, "correct": correct_P}
        self._put("study_evaluations", [row])

    def put_study_checkpoint(self, arm: str, fleet: int, step: int, weights: str) -> None:
        row = {"arm": arm, "fleet": fleet, "step": step, "weights": weights}
        self._put("study_checkpoints", [row], replace=True)

    def put_study_skipped(self, arm: str, reason: str) -> None:
        self._put("study_skipped", [{"arm": arm, "reason": reason}], replace=True)

    def put_timing(self, step: int, phase: str, seconds: float, tokens: int) -> None:
        """How long a phase took. One that is done again, after a resume, takes the place of the earlier."""
        with self.transaction():
            self._db.execute("DELETE FROM timings WHERE step = ? AND phase = ?", (step, phase))
            self._put("timings", [{"step": step, "phase": phase, "seconds": seconds, "tokens": tokens}])

    def forget_after(self, step: int) -> None:
        """Removes every trace of the outer steps after `step`, and of the baselines they promoted."""
        with self.transaction():
            for table in _OF_STEPS:
                self._db.execute(f"DELETE FROM {table} WHERE step > ?", (step,))
            self._db.execute("DELETE FROM baselines WHERE step > ?", (step,))
            self._db.execute("DELETE FROM baseline_rates WHERE stage NOT IN (SELECT stage FROM baselines)")
            self._db.execute("DELETE FROM evaluations")
            self._db.execute("DELETE FROM timings WHERE step > ? OR phase LIKE 'evaluation %'", (step,))

    def copy_to(self, path: Path) -> None:
        """Writes the whole database to another file."""
        with _database_errors(path), closing(sqlite3.connect(path)) as copy:
            self._db.backup(copy)

    # What is read.

    @property
    def facts(self) -> dict[str, Any]:
        return {key: json.loads(value) for key, value in self.rows("SELECT key, value FROM facts")}

    @property
    def steps_done(self) -> int:
        [(count,)] = self.rows("SELECT COUNT(*) FROM steps")
        return count

    @property
    def seconds(self) -> float:
        """How long the run took, without what was interrupted and done again."""
        [(seconds,)] = self.rows("SELECT COALESCE(SUM(seconds), 0) FROM timings")
        return seconds

    @property
    def window(self) -> list[float]:
        """The promotion window that the next outer step starts with."""
        rows = self.rows("SELECT window_after FROM steps ORDER BY step DESC LIMIT 1")
        return json.loads(rows[0][0]) if rows else []

    def alarm_rows(self) -> list[Any]:
        """Name, step, what was said and the advice of every recorded sign, in order of steps."""
        if not self.rows("SELECT 1 FROM sqlite_master WHERE name = 'alarms'"):
            return []
        return self.rows("SELECT name, step, said, advice FROM alarms ORDER BY step")

    def filtered(self) -> list[Filtered]:
        from soarctl.api import Problem  # 0.15 s of pydantic that `soarctl show` does not pay

        return [
            Filtered(Problem(question, answer, json.loads(meta)), samples, successes, json.loads(verdicts), half)
            for question, answer, meta, samples, successes, verdicts, half in self.rows(
                "SELECT question, answer, meta, samples, successes, verdicts, half FROM problems ORDER BY id"
            )
        ]

    def seen(self, stage: int) -> list[Seen]:
        """The datasets of the finished outer steps of a stage, with the gains of those who practised them."""
        found: dict[tuple[int, int], Seen] = {}
        for step, dataset, question, answer in self.rows(
            "SELECT step, dataset, question, answer FROM questions JOIN steps USING (step) WHERE stage = ? "
            "ORDER BY step, dataset, position",
            stage,
        ):
            found.setdefault((step, dataset), Seen([], [])).questions.append((question, answer))
        for step, dataset, gain in self.rows(
            "SELECT step, dataset, gain FROM students JOIN steps USING (step) WHERE stage = ? "
            "ORDER BY step, dataset, repeat",
            stage,
        ):
            found[step, dataset].gains.append(gain)
        return list(found.values())

    def content(self) -> str:
        """Everything but the timings, as text: equal for two runs exactly when they went the same way."""
        tables = [name for (name,) in self.rows("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name")]
        lines: list[str] = []
        for table in tables:
            if table == "timings":
                continue
            # Starting again on another day or machine is no difference either.
            but = " WHERE key NOT IN ('machine', 'started', 'estimate')" if table == "facts" else ""
            lines += sorted(f"{table} {row!r}" for row in self.rows(f"SELECT * FROM {table}{but}"))
        return "\n".join(lines)

    def _put(self, table: str, rows: Iterable[Mapping[str, Any]], *, replace: bool = False) -> None:
        """Inserts rows; a value that SQLite has no type for goes in as JSON."""
        verb = "INSERT OR REPLACE" if replace else "INSERT"
        with self.transaction():
            for row in rows:
                values = [v if isinstance(v, str | int | float | None) else _json(v) for v in row.values()]
                names, places = ", ".join(f'"{name}"' for name in row), ", ".join("?" * len(row))
                self._db.execute(f"{verb} INTO {table} ({names}) VALUES ({places})", values)


def mean_measures(measures: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Mean of each of a domain's numbers over the questions that it gave one for."""
    names = sorted({name for measured in measures for name in measured})
    return {name: fmean(measured[name] for measured in measures if name in measured) for name in names}


def _how_to_read(path: Path) -> str:
    # Even a reader of a write-ahead log makes files beside it. Where it may not, and nobody else has made them, nobody
    # writes: someone else's finished run, or an archive.
    log = path.with_name(f"{path.name}-wal")
    return "mode=ro" if log.exists() or os.access(path.parent, os.W_OK) else "mode=ro&immutable=1"


@contextmanager
def _database_errors(path: Path) -> Generator[None, None, None]:
    try:
        yield
    except sqlite3.Error as error:
        if getattr(error, "sqlite_errorcode", None) in _DAMAGED:
            raise _damaged(path, str(error)) from error
        raise RunError(
            f"the ledger refused: {error}",
            at=str(path),
            hint="what was committed is still there; free space or mend the permissions, then resume the run",
        ) from error


def _damaged(path: Path, why: str) -> RunError:
    copies = sorted(copy.name for copy in path.parent.glob(f"before-*.{FILE}"))
    weights = [name for name in ("checkpoints", "promotions") if (path.parent / name).is_dir()]
    hint = (
        f"put a copy of it in its place, from a backup{f' or {copies[-1]}' if copies else ''}, "
        f"remove {path.name}-wal and {path.name}-shm, and resume;\nwithout a copy it begins anew in another directory"
    )
    if weights:
        hint += f"; the weights in {' and '.join(weights)} are still there, as safetensors"
    return RunError(f"the file is damaged: {why}", at=str(path), hint=hint)


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
