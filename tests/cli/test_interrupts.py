"""Ctrl-C, sent to a real run: once finishes the students and commits, twice stops at once; both can be resumed."""

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import pytest

from soarctl.ledger import Ledger

# The toy world behind the real command; a slow sampler stands for a model that takes its time.
PROGRAM = """
import time
from soarctl import spec_reader
from soarctl.cli.app import main
from soarctl.testing import ToyFleet, toy_run
spec_reader.load_spec = lambda path, overrides: toy_run()
sample = ToyFleet.sample
def slow(self, prompts, sampling):
    time.sleep({seconds})
    return sample(self, prompts, sampling)
ToyFleet.sample = slow
main()
"""


@contextmanager
def running(directory: Path, seconds: float, *options: str) -> Iterator[tuple[subprocess.Popen[str], IO[str]]]:
    command = [sys.executable, "-c", PROGRAM.format(seconds=seconds), "run", "toy.yaml", "--out", str(directory)]
    with subprocess.Popen(
        [*command, "--json", *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            yield process, process.stdout
        finally:
            process.kill()


def await_event(stdout: IO[str], name: str) -> None:
    for line in stdout:
        if json.loads(line)["event"] == name:
            return
    pytest.fail(f"no event {name}")


def content(directory: Path) -> str:
    with Ledger.open(directory, read_only=True) as ledger:
        return ledger.content()


def finished_students(directory: Path) -> int:
    with Ledger.open(directory, read_only=True) as ledger:
        return ledger.rows("SELECT COUNT(*) FROM students")[0][0]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> str:
    directory = tmp_path_factory.mktemp("whole") / "run"
    with running(directory, 0.0) as (process, stdout):
        stdout.read()
    assert process.returncode == 0
    return content(directory)


def resumed(directory: Path) -> str:
    with running(directory, 0.0, "--resume") as (process, stdout):
        stdout.read()
    assert process.returncode == 0
    return content(directory)


def test_one_ctrl_c_finishes_the_students_and_prints_a_line_that_resumes_the_run(whole: str, tmp_path: Path) -> None:
    with running(tmp_path / "a run", 0.03) as (process, stdout):
        await_event(stdout, "inner_step")
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)
    events: list[dict[str, Any]] = [json.loads(line) for line in out.splitlines()]
    assert [event["event"] for event in events][-1] == "students", "the fleet went on to its end"
    assert [event["event"] for event in events].count("warning") == 1
    assert process.returncode == 130
    assert finished_students(tmp_path / "a run") == 4
    assert "the students in training are finished first; Ctrl-C again stops at once" in err
    assert f"`soarctl run toy.yaml --out '{tmp_path / 'a run'}' --resume` goes on." in err
    assert "Traceback" not in err
    assert resumed(tmp_path / "a run") == whole


@pytest.mark.slow
def test_two_ctrl_c_stop_at_once_and_lose_the_fleet_in_training_alone(whole: str, tmp_path: Path) -> None:
    with running(tmp_path / "run", 0.2) as (process, stdout):
        await_event(stdout, "inner_step")
        process.send_signal(signal.SIGINT)
        assert process.stderr is not None
        process.stderr.readline()
        process.stderr.readline()
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)
    assert "students" not in [json.loads(line)["event"] for line in out.splitlines()]
    assert process.returncode == 130
    assert finished_students(tmp_path / "run") == 0
    assert "--resume` goes on." in err
    assert "Traceback" not in err
    assert resumed(tmp_path / "run") == whole
