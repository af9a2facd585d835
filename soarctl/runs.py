"""Which runs there are, how to open one for reading, and who is at work in it. Changes nothing."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from soarctl.errors import RunError
from soarctl.ledger import FILE, Ledger

if TYPE_CHECKING:
    from soarctl.spec import Spec

ROOT = Path("runs")


def open_run(directory: Path | None = None) -> Ledger:
    """The ledger of a run, for reading; by default of the one in `runs/` that was last written to.

    Raises:
        RunError: there is no run, its ledger is damaged, or another version wrote it.
    """
    return Ledger.open(newest() if directory is None else directory, read_only=True)


def newest(root: Path = ROOT) -> Path:
    """The run directory in `root` that was last written to.

    Raises:
        RunError: there is none.
    """
    try:
        found = [directory for directory in root.iterdir() if (directory / FILE).is_file()]
    except OSError:
        found = []
    if not found:
        raise RunError(
            "no run here", at=str(root), hint="`soarctl run SPEC` makes one; a run elsewhere is named as an argument"
        )
    return max(found, key=lambda directory: (_last_written(directory), directory.name))


def facts_of(ledger: Ledger) -> dict[str, Any]:
    """What the ledger says about the run as a whole.

    Raises:
        RunError: the run was killed before it had written that.
    """
    facts = ledger.facts
    if "spec" not in facts:
        raise RunError(
            "the run ended before it began: its ledger holds no spec",
            at=str(ledger.path),
            hint="nothing is lost by removing the directory",
        )
    return facts


def spec_of(ledger: Ledger) -> "Spec":
    """The spec that a run follows.

    Raises:
        RunError: this soarctl has another idea of specs than the one that wrote it.
    """
    from pydantic import ValidationError

    from soarctl.spec import Spec

    facts = facts_of(ledger)
    try:
        return Spec.model_validate_json(json.dumps(facts["spec"]))
    except ValidationError as error:
        raise RunError(
            f"{error.error_count()} values of the run's spec are not what this soarctl expects",
            at=str(ledger.path),
            hint=f"soarctl {facts.get('soarctl_version')} wrote it",
        ) from error


def holder(directory: Path) -> str | None:
    """Who works in a run directory now, as `pid 12 on host`; None if nobody does."""
    try:
        said = (directory / "lock.holder").read_text()
    except OSError:
        return None
    from filelock import FileLock, Timeout

    try:
        # A run that was killed leaves its name behind, but not its lock.
        with FileLock(directory / "lock", timeout=0):
            return None
    except (Timeout, OSError):
        return said


def _last_written(directory: Path) -> float:
    # Until SQLite moves it into the database, what was written last is in the write-ahead log.
    log = directory / f"{FILE}-wal"
    times = [path.stat().st_mtime for path in (directory / FILE, log) if path.exists() and path.stat().st_size]
    return max(times, default=0.0)
