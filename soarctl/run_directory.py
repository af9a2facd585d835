"""The run directory: who may write in it, and where the weights are. `docs/run_directory.md` shows one."""

import os
import platform
import shutil
import socket
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from soarctl import __version__, checkpoints
from soarctl.api import Engine, Fleet, Policy, Student
from soarctl.errors import CheckpointError, RunError, disk_errors
from soarctl.ledger import FILE, Ledger
from soarctl.practice import Baseline, Practised
from soarctl.spec import Checkpoints
from soarctl.spec_reader import LoadedSpec

# Changing these between a run and its resumption changes nothing that was or will be learned.
HARMLESS = ("name", "checkpoints", "evaluation", "trackers", "teacher.resample_cap")

_MODEL = "model"
"""The fact with which the work of a run begins."""


@contextmanager
def lock(directory: Path) -> Generator[None, None, None]:
    """Holds the run directory for this process.

    Raises:
        RunError: another process has it; it is named by host and pid.
    """
    holder = directory / "lock.holder"
    file_lock = FileLock(directory / "lock")
    with disk_errors(directory):
        try:
            file_lock.acquire(timeout=0)
        except Timeout:
            named = holder.read_text() if holder.exists() else "another process"
            raise RunError(
                f"in use by {named}", at=str(directory), hint="wait for it, or give `--out` another name"
            ) from None
    try:
        with disk_errors(directory):
            holder.write_text(f"pid {os.getpid()} on {socket.gethostname()}")
        yield
    finally:
        holder.unlink(missing_ok=True)
        file_lock.release()


def open_ledger(directory: Path, loaded: LoadedSpec, *, resume: bool) -> Ledger:
    """The ledger of a new run, or with `resume` of the one that is there.

    A run that failed before its model was loaded has done nothing: another may begin in its place.

    Raises:
        RunError: there is a run and `resume` was not asked for, or it follows another spec.
    """
    if not (directory / FILE).exists():
        _write_spec(directory, loaded)
        return Ledger.create(directory, _first_facts(loaded))
    ledger = Ledger.open(directory)
    if _MODEL not in ledger.facts:
        _write_spec(directory, loaded)
        ledger.set_facts(_first_facts(loaded))
        return ledger
    if not resume:
        ledger.close()
        raise RunError(
            "there is a run here already",
            at=str(directory),
            hint="`--resume` goes on with it; `--out` names another directory",
        )
    spec = loaded.spec.model_dump(mode="json")
    before, now = _flat(ledger.facts["spec"]), _flat(spec)
    changed = [key for key in sorted(before | now) if before.get(key) != now.get(key)]
    grave = [key for key in changed if not {key, key.split(".")[0]} & set(HARMLESS)]
    if "split" in ledger.facts or before.get("filter.reuse") is not None:
        # Results are taken from there in one go, with the halves; from then on it does not matter where they were.
        grave = [key for key in grave if key != "filter.reuse"]
    if grave:
        ledger.close()
        raise RunError(
            "the spec is not the one that this run was started with",
            at=str(directory),
            hint="\n".join(f"{key}: was {before.get(key)!r}, is {now.get(key)!r}" for key in grave)
            + f"\nonly {', '.join(HARMLESS)} may change; another spec needs another directory",
        )
    if changed:
        ledger.set_facts({"spec": spec, "spec_sha256": loaded.hash})
    return ledger


def is_filtered(directory: Path) -> bool:
    """Whether the run in a directory, if there is one, knows its hard problems."""
    if not (directory / FILE).exists():
        return False
    with Ledger.open(directory, read_only=True) as ledger:
        return "split" in ledger.facts


def _write_spec(directory: Path, loaded: LoadedSpec) -> None:
    with disk_errors(directory):
        (directory / "spec.yaml").write_text(loaded.text)


def _first_facts(loaded: LoadedSpec) -> dict[str, Any]:
    return {
        "spec": loaded.spec.model_dump(mode="json"),
        "spec_sha256": loaded.hash,
        "overrides": [asdict(override) for override in loaded.overrides],
        "soarctl_version": __version__,
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": platform.platform(),
    }


def check_model(ledger: Ledger, engine: Engine, *, what: str = "run") -> None:
    """Records the base model of a new run, or of a new study where that is `what`.

    Raises:
        RunError: it was started with another one.
    """
    known, now = ledger.facts.get(_MODEL), dict(engine.facts)
    if known is None:
        ledger.set_facts({_MODEL: now})
    elif known.get("weights_sha256") != now.get("weights_sha256"):
        raise RunError(
            f"the base model {now.get('base')} is not the one that this {what} was started with",
            at=str(ledger.path),
            hint=f"its weights had the hash {known.get('weights_sha256')}, now {now.get('weights_sha256')}",
        )


@dataclass
class StudentShelf:
    """Finished students of the outer step in progress: weights on disk, the rest in the ledger."""

    directory: Path
    ledger: Ledger
    repeats: bool
    """Whether an interrupted outer step is repeated exactly (`Engine.repeats`)."""

    def recall(self, step: int, jobs: Sequence[tuple[int, int]], fingerprint: str) -> list[Student] | None:
        rows = {
            (dataset, repeat): row
            for dataset, repeat, *row in self.ledger.rows(
                "SELECT dataset, repeat, accuracy, gain, fingerprint, weights FROM students WHERE step = ?", step
            )
        }
        if not all(job in rows for job in jobs):
            return None
        other = any(rows[job][2] != fingerprint for job in jobs)
        if other and not self.repeats:
            # The step is sampled anew, and these students practised what its teacher wrote before.
            self.ledger.drop_students(step, jobs)
            return None
        if other:
            raise RunError(
                f"the teacher wrote other questions in outer step {step} than before the interruption",
                at=str(self.directory),
                hint="this machine or its libraries compute differently; resume where the run was started,\n"
                f"or go back to the last finished step with `--resume --from-step {step - 1}`",
            )
        moved = any(rows[job][3] for job in jobs)
        weights = checkpoints.read(self._place(step, jobs[0]), rows[jobs[0]][3]) if moved else {}
        return [
            Student(Policy(weights[_stem(*job)]) if _stem(*job) in weights else None, *rows[job][:2], repeat=job[1])
            for job in jobs
        ]

    def keep(
        self, step: int, students: Sequence[Practised], lost: Mapping[tuple[int, int], str], fingerprint: str
    ) -> None:
        weights = {_stem(p.dataset, p.repeat): p.student.policy.tensors for p in students if p.student.policy}
        digest = None
        if weights:
            place = self._place(step, (students[0].dataset, students[0].repeat))
            digest = checkpoints.write(place, weights, {"step": step})
        with self.ledger.transaction():
            self.ledger.put_students(step, students, [digest] * len(students), fingerprint)
            self.ledger.put_lost_students(step, lost)

    def clear(self) -> None:
        """Throws the students of the finished step away, as Algorithm 1 does."""
        shutil.rmtree(self.directory, ignore_errors=True)

    def _place(self, step: int, first: tuple[int, int]) -> Path:
        return self.directory / f"step-{step:06d}-{_stem(*first)}"


def _stem(dataset: int, repeat: int) -> str:
    return f"dataset-{dataset}-repeat-{repeat}"


def teacher_checkpoint(directory: Path, step: int) -> Path:
    """Where the teacher's state after `step` outer steps is kept."""
    return directory / "checkpoints" / f"step-{step:06d}"


def baseline_checkpoint(directory: Path, stage: int) -> Path:
    """Where the student of the `stage`-th promotion is kept."""
    return directory / "promotions" / f"stage-{stage:02d}"


def save_baseline(directory: Path, baseline: Baseline, step: int) -> str:
    """Writes a promoted student; returns the checkpoint's hash."""
    tensors = {"policy": baseline.policy.tensors}
    return checkpoints.write(baseline_checkpoint(directory, baseline.stage), tensors, {"step": step})


def load_baseline(directory: Path, ledger: Ledger, stage: int) -> Policy:
    """The weights of a promoted student (stage 1 and up).

    Raises:
        RunError: there was no such promotion.
        CheckpointError: its files are damaged.
    """
    rows = ledger.rows("SELECT weights FROM baselines WHERE stage = ? AND stage > 0", stage)
    if not rows:
        raise RunError(
            f"no promotion {stage} in this run", at=str(directory), hint="`soarctl promote --inspect` lists them"
        )
    return Policy(checkpoints.read(baseline_checkpoint(directory, stage), rows[0][0])["policy"])


def save_teacher(directory: Path, step: int, teacher: Fleet) -> str:
    """Writes the teacher's state after `step` outer steps; returns the checkpoint's hash."""
    return checkpoints.write(teacher_checkpoint(directory, step), {"teacher": teacher.state()}, {"step": step})


def restore_teacher(directory: Path, ledger: Ledger, teacher: Fleet) -> None:
    """Puts the teacher where the last finished outer step left it.

    Raises:
        CheckpointError: the checkpoint is damaged; the hint names the newest one that is not.
    """
    step = ledger.steps_done
    if step == 0:
        return
    [(digest,)] = ledger.rows("SELECT weights FROM checkpoints WHERE step = ?", step)
    try:
        teacher.restore(checkpoints.read(teacher_checkpoint(directory, step), digest)["teacher"])
    except CheckpointError as error:
        good = _newest_whole(directory, ledger, step)
        raise CheckpointError(
            error.message,
            at=error.at,
            hint=f"the checkpoint after step {good} is whole: `--resume --from-step {good}` goes on from there\n"
            "and does the later steps again; the ledger is copied aside first",
        ) from error


def drop_old_teachers(directory: Path, ledger: Ledger, keep: Checkpoints) -> None:
    """Removes teacher checkpoints that are neither among the last, nor of every N-th step, nor of a promotion."""
    done = ledger.steps_done
    promoted = {step for (step,) in ledger.rows("SELECT step FROM steps WHERE promoted")}
    for (step,) in ledger.rows("SELECT step FROM checkpoints ORDER BY step"):
        if step <= done - keep.keep_last and step % keep.every and step not in promoted:
            shutil.rmtree(teacher_checkpoint(directory, step), ignore_errors=True)


def go_back(directory: Path, ledger: Ledger, step: int) -> None:
    """Forgets the outer steps after `step`. What the ledger held before is copied aside.

    Raises:
        RunError: the run never got there.
        CheckpointError: the checkpoint after `step` is gone or damaged.
    """
    if not 0 <= step <= ledger.steps_done:
        raise RunError(
            f"cannot go back to step {step}: the run has finished {ledger.steps_done} outer steps", at=str(directory)
        )
    if step:
        [(digest,)] = ledger.rows("SELECT weights FROM checkpoints WHERE step = ?", step)
        checkpoints.read(teacher_checkpoint(directory, step), digest)
    ledger.copy_to(directory / f"before-going-back-from-{ledger.steps_done}-to-{step}.{FILE}")
    ledger.forget_after(step)


def _newest_whole(directory: Path, ledger: Ledger, before: int) -> int:
    for step, digest in ledger.rows("SELECT step, weights FROM checkpoints WHERE step < ? ORDER BY step DESC", before):
        try:
            checkpoints.read(teacher_checkpoint(directory, step), digest)
        except CheckpointError:
            continue
        return step
    return 0


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one, with dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return flat
