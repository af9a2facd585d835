import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from soarctl.history import Progress, best_window, outer_steps, overview
from soarctl.ledger import FILE, Ledger
from soarctl.runs import holder, newest, open_run, spec_of


@pytest.fixture
def locked_away(small_run: Path) -> Iterator[Path]:
    """A finished run in a directory that may be read and not written."""
    small_run.chmod(0o555)
    yield small_run
    small_run.chmod(0o755)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_finished_run_of_someone_else_can_be_read(locked_away: Path) -> None:
    with open_run(locked_away) as ledger:
        assert ledger.steps_done == 4


def test_reading_does_not_make_a_run_the_newest(tmp_path: Path, write_run: Callable[..., Path]) -> None:
    for age, name in enumerate(["old", "new"]):
        write_run(tmp_path / name)
        os.utime(tmp_path / name / FILE, (1000 + age, 1000 + age))
    with open_run(tmp_path / "old") as ledger:
        assert len(outer_steps(ledger)) == 4
        assert newest(tmp_path) == tmp_path / "new"
    assert newest(tmp_path) == tmp_path / "new"


def test_what_is_still_in_the_log_counts_as_written(tmp_path: Path, write_run: Callable[..., Path]) -> None:
    for age, name in enumerate(["running", "finished"]):
        write_run(tmp_path / name)
        os.utime(tmp_path / name / FILE, (1000 + age, 1000 + age))
    with Ledger.open(tmp_path / "running") as ledger:
        ledger.put_timing(5, "outer_step", 1.0, 1)
        assert newest(tmp_path) == tmp_path / "running"


def test_the_holder_of_a_run_is_seen_from_another_process(small_run: Path) -> None:
    script = (
        "import sys\nfrom pathlib import Path\nfrom soarctl.run_directory import lock\n"
        f"with lock(Path({str(small_run)!r})):\n    print('held', flush=True)\n    sys.stdin.read()\n"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        assert (holder(small_run) or "").startswith(f"pid {process.pid} on ")
        process.kill()
    assert (small_run / "lock.holder").exists()
    assert holder(small_run) is None


def test_the_spec_of_a_run_is_the_one_it_was_written_with(small_run: Path) -> None:
    with open_run(small_run) as ledger:
        assert spec_of(ledger).promotion.window == 2
        assert overview(ledger).progress is Progress.FINISHED


def test_the_best_window_is_a_full_one(tmp_path: Path, write_run: Callable[..., Path]) -> None:
    # Step rewards 0.3, -0.4, 0.2: windows of two have the means -0.05 and -0.1, and 0.3 alone is none.
    gains = [[[0.3] * 3] * 2, [[-0.4] * 3] * 2, [[0.2] * 3] * 2]
    with open_run(write_run(tmp_path / "run", gains=gains)) as ledger:
        best = best_window(ledger)
    assert best is not None
    assert (best.step, best.window_mean) == (2, pytest.approx(-0.05))
