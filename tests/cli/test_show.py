import json
import os
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from soarctl.history import outer_steps
from soarctl.ledger import FILE, STUDY_FILE, Ledger
from soarctl.run_directory import lock
from soarctl.runs import newest

SHOWN = """\
small: finished
  directory   runs/small
  model       package:soarctl_letters/model
  plug-ins    domain letters, reward grounded, trainer accelerate
  spec        aaaaaaaaaaaaaaaa, seed 7
  problems    4 hard to learn from, 4 hard held out, of 10 tried
  outer steps 4 of 4, 1 promotion

STEP  STAGE        REWARDS     MEAN     WINDOW > 0.01  PROMOTED              PASSED  correct  half_known  operations
   1      0  +0.000 +0.000  +0.0000  +0.0000 (1 of 2)                          80 %    1.000       0.000       1.000
   2      0  +0.000 +0.250  +0.1250           +0.0625  dataset 1, student 0    80 %    0.750       0.500       1.250
   3      1  +0.000 +0.000  +0.0000  +0.0000 (1 of 2)                          80 %    1.000       0.000       1.000
   4      1  +0.000 +0.000  +0.0000           +0.0000                          80 %    1.000       0.000       1.000

4 held-out hard problems, 4 attempts each, with 95 % bootstrap intervals
"""


def test_a_run_is_shown_step_by_step_with_the_closing_table(
    folder: Path, small_run: Path, soarctl: Callable[..., Any]
) -> None:
    ran = soarctl("show", "runs/small")
    assert ran.code == 0
    assert ran.out.startswith(SHOWN)
    header, base, promoted = ran.out.removeprefix(SHOWN).splitlines()
    assert header.split() == ["pass@1", "pass@2", "pass@4"]
    assert base.split()[:2] == ["base", "0.062"]
    assert promoted.split()[:2] == ["promoted", "0.438"]


def test_the_newest_run_is_shown_by_default(
    folder: Path, write_run: Callable[..., Path], soarctl: Callable[..., Any]
) -> None:
    for age, name in enumerate(["b", "c", "a"]):
        write_run(folder / "runs" / name, name=name)
        os.utime(folder / "runs" / name / FILE, (1000 + age, 1000 + age))
    (folder / "runs" / "d").mkdir()
    assert newest() == Path("runs/a")
    assert soarctl("show").out.startswith("a: interrupted\n")


def test_json_has_the_numbers(small_run: Path, soarctl: Callable[..., Any]) -> None:
    shown = json.loads(soarctl("show", str(small_run), "--json").out)
    assert (shown["progress"], shown["steps_done"], shown["promotions"]) == ("finished", 4, 1)
    step = shown["outer_steps"][1]
    assert step["rewards_G"] == [0.0, 0.25]
    assert (step["window_mean"], step["window_filled"], step["promoted"]) == (0.0625, 2, [1, 0])
    assert (step["drawn"], step["accepted"]) == (5, 4)
    assert step["measures"] == {"correct": 0.75, "half_known": 0.5, "operations": 1.25}
    assert [arm["name"] for arm in shown["held_out"]] == ["base", "promoted"]


def test_a_locked_run_is_running_and_says_where(small_run: Path, soarctl: Callable[..., Any]) -> None:
    with lock(small_run):
        shown = soarctl("show", str(small_run)).out
    assert shown.splitlines()[0] == f"small: running, pid {os.getpid()} on {socket.gethostname()}"


def test_a_killed_run_leaves_its_name_behind_and_is_interrupted(
    tmp_path: Path, write_run: Callable[..., Path], soarctl: Callable[..., Any]
) -> None:
    run = write_run(tmp_path / "run")
    (run / "lock.holder").write_text("pid 1 on nowhere")
    assert soarctl("show", str(run)).out.splitlines()[0] == "small: interrupted"


def test_a_run_without_a_closing_measurement_ends_with_its_last_step(
    tmp_path: Path, write_run: Callable[..., Path], soarctl: Callable[..., Any]
) -> None:
    run = write_run(tmp_path / "run", evaluation=None)
    shown = soarctl("show", str(run)).out
    assert shown.splitlines()[0] == "small: finished"
    assert "held-out" not in shown


def test_a_directory_without_a_run_is_refused(folder: Path, soarctl: Callable[..., Any]) -> None:
    (folder / "empty").mkdir()
    ran = soarctl("show", "empty")
    assert ran.code == 2
    assert ran.err == (
        "error: empty: no run here: ledger.sqlite is missing\n  `soarctl run SPEC` makes a run directory\n"
    )


def test_the_directory_of_a_study_is_called_one(folder: Path, soarctl: Callable[..., Any]) -> None:
    (folder / "both").mkdir()
    Ledger.create(folder / "both", {}, STUDY_FILE).close()
    for command in (
        ["show"],
        ["watch"],
        ["analyze"],
        ["compare"],
        ["promote", "--inspect"],
        ["export-pq", "--out", "pq.jsonl"],
    ):
        ran = soarctl(*command, "both")
        assert ran.code == 2
        assert ran.err == (
            "error: both: this is a study, not a run\n"
            "  `soarctl report both` shows it, and `soarctl study SPEC` goes on with it;\n"
            "  its runs are in both/runs\n"
        ), command


def test_without_runs_there_is_no_newest(folder: Path, soarctl: Callable[..., Any]) -> None:
    ran = soarctl("show")
    assert ran.code == 2
    assert ran.err == (
        "error: runs: no run here\n  `soarctl run SPEC` makes one; a run elsewhere is named as an argument\n"
    )


def test_a_damaged_ledger_is_refused(folder: Path, small_run: Path, soarctl: Callable[..., Any]) -> None:
    whole = (small_run / FILE).read_bytes()
    (small_run / f"before-going-back-from-4-to-2.{FILE}").write_bytes(whole)
    for content, why in (
        (b"not a database" * 100, "file is not a database"),
        (whole[: len(whole) // 2], "database disk image is malformed"),
        (b"", "it holds no ledger"),
    ):
        (small_run / FILE).write_bytes(content)
        ran = soarctl("show", "runs/small")
        assert ran.code == 2
        assert ran.err == (
            f"error: runs/small/ledger.sqlite: the file is damaged: {why}\n"
            "  put a copy of it in its place, from a backup or before-going-back-from-4-to-2.ledger.sqlite, "
            "remove ledger.sqlite-wal and ledger.sqlite-shm, and resume;\n"
            "  without a copy it begins anew in another directory; "
            "the weights in promotions are still there, as safetensors\n"
        )


def test_a_ledger_of_a_newer_soarctl_is_refused(folder: Path, small_run: Path, soarctl: Callable[..., Any]) -> None:
    db = sqlite3.connect(small_run / FILE)
    db.execute("PRAGMA user_version = 99")
    db.close()
    ran = soarctl("show", "runs/small")
    assert ran.code == 2
    assert ran.err.splitlines()[0] == (
        "error: runs/small/ledger.sqlite: the ledger has schema version 99; this soarctl reads version 1"
    )


def test_a_run_that_was_killed_before_it_began_is_refused(folder: Path, soarctl: Callable[..., Any]) -> None:
    Ledger.create(folder, {}).close()
    ran = soarctl("show", ".")
    assert ran.code == 2
    assert ran.err == (
        "error: ledger.sqlite: the run ended before it began: its ledger holds no spec\n"
        "  nothing is lost by removing the directory\n"
    )


@pytest.mark.parametrize("command", ["show", "promote --inspect", "export-pq --out pq/questions.jsonl"])
def test_a_run_is_read_without_torch(command: str, folder: Path, small_run: Path) -> None:
    script = (
        "import sys, atexit\n"
        "atexit.register(lambda: print('torch' in sys.modules, file=sys.stderr))\n"
        "from soarctl.cli.app import main\n"
        f"sys.argv = {['soarctl', *command.split()]!r}\n"
        "main()\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "False\n")


def test_all_commands_give_one_number_for_the_share_that_passes(
    folder: Path, small_run: Path, soarctl: Callable[..., Any]
) -> None:
    """Of 6 completions one was rejected and 4 were needed: 5 of 6 passed."""
    with sqlite3.connect(small_run / FILE) as db:
        db.execute("UPDATE steps SET drawn = 6")
    db.close()
    assert soarctl("show", "runs/small").out.count(" 83 % ") == 4
    assert soarctl("analyze", "runs/small").out.count(" 83 % ") == 4
    assert json.loads(soarctl("compare", "runs/small", "--json").out)["runs"][0]["passed"] == pytest.approx(5 / 6)
    soarctl("report", "runs/small", "--out", "report.html")
    assert "83 %" in Path("report.html").read_text()
    with Ledger.open(small_run, read_only=True) as ledger:
        assert [(step.accepted, step.drawn) for step in outer_steps(ledger)] == [(5, 6)] * 4
