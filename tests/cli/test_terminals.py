"""What the commands do where they are run: pipes, narrow terminals, NO_COLOR, shells that complete."""

import os
import pty
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

HEADER = ["step", "rewards", "state"]
ROWS = [["1", "+0.019 +0.006", ""], ["2", "-0.250 +0.125", "promoted a student"]]
PROGRAM = f"from soarctl.cli.table import print_table; print_table({HEADER!r}, {ROWS!r})"


def on_a_terminal(command: Sequence[str], columns: int, **environment: str) -> str:
    """What a program prints on a terminal of this width."""
    controller, terminal = pty.openpty()
    variables = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "FORCE_COLOR")}
    variables |= {"COLUMNS": str(columns), "TERM": "xterm-256color", **environment}
    with subprocess.Popen(command, stdin=terminal, stdout=terminal, stderr=terminal, env=variables) as process:
        os.close(terminal)
        said = b""
        while True:
            try:
                part = os.read(controller, 65536)
            except OSError:  # how Linux says that the other end is closed
                break
            if not part:
                break
            said += part
    os.close(controller)
    assert process.returncode == 0
    return said.decode().replace("\r\n", "\n")


def test_a_table_that_does_not_fit_is_listed_and_nothing_is_cut() -> None:
    assert on_a_terminal([sys.executable, "-c", PROGRAM], columns=30) == (
        "step 1\n  rewards  +0.019 +0.006\nstep 2\n  rewards  -0.250 +0.125\n  state    promoted a student\n"
    )


def test_a_table_that_fits_is_drawn() -> None:
    said = on_a_terminal([sys.executable, "-c", PROGRAM], columns=80)
    assert "───" in said
    assert "promoted a student" in said


def test_no_color_is_honoured() -> None:
    colour = re.compile(r"\x1b\[(?:\d+;)*(?:3|4|9|10)\d")
    assert not colour.search(on_a_terminal([sys.executable, "-c", PROGRAM], columns=80, NO_COLOR="1"))
    assert "\x1b" not in on_a_terminal([sys.executable, "-m", "soarctl", "--help"], columns=80, NO_COLOR="1")


def test_in_a_pipe_a_row_is_a_line() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [
        "step        rewards  state",
        "   1  +0.019 +0.006",
        "   2  -0.250 +0.125  promoted a student",
    ]


@pytest.mark.parametrize("columns", [50, 80, 200])
def test_help_is_no_wider_than_the_terminal(columns: int) -> None:
    said = on_a_terminal([sys.executable, "-m", "soarctl", "--help"], columns=columns)
    assert max(map(len, said.splitlines())) <= columns


@pytest.mark.parametrize(
    ("words", "offered"), [("soarctl pro", "promote"), ("soarctl run --re", "--resume"), ("soarctl ne", "new")]
)
def test_a_shell_completes_commands_and_options(words: str, offered: str, tmp_path: Path) -> None:
    environment = os.environ | {
        "_SOARCTL_COMPLETE": "complete_bash",
        "COMP_WORDS": words,
        "COMP_CWORD": str(len(words.split()) - 1),
    }
    done = subprocess.run(
        [sys.executable, "-m", "soarctl"], env=environment, cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert offered in done.stdout.split()


def test_completion_can_be_installed() -> None:
    done = subprocess.run([sys.executable, "-m", "soarctl", "--help"], capture_output=True, text=True, check=True)
    assert "--install-completion" in done.stdout


@pytest.mark.parametrize(
    "command",
    [["plugins", "--json"], ["schema"], ["show", "runs/small", "--json"], ["promote", "--inspect", "runs/small"]],
    ids=lambda command: command[0],
)
def test_a_reader_that_stops_early_ends_a_command_without_a_complaint(command: Sequence[str], small_run: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)  # as `head` does when it has its lines, and before the first of ours
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    for variables in (os.environ, environment):
        done = subprocess.run(
            [sys.executable, "-m", "soarctl", *command],
            stdout=writing, stderr=subprocess.PIPE, env=dict(variables), cwd=small_run.parents[1], check=False,
        )  # fmt: skip
        assert (done.returncode, done.stderr) == (141, b"")
    os.close(writing)
