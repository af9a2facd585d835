"""Real processes that share a run of the toy world, and what is left of it when they fail, hang or die."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from soarctl.errors import RunError
from soarctl.events import silent
from soarctl.ledger import Ledger
from soarctl.processes.team import compare
from soarctl.run import run
from soarctl.testing import toy_run

# A fleet for each student, two blocks to filter, and work that is cut into several shares.
SECTIONS = {"trainer": {"side_by_side": 1}, "domain": {"each": 70}, "outer": {"steps": 3}}
# The toy world behind the real command. A slow sampler stands for a model that takes its time, so that every process
# gets its share; what a test adds to it is done by one of them, in practice.
PROGRAM = """
import os, signal, sys, time
from pathlib import Path
from soarctl import spec_reader
from soarctl.api import ModelError
from soarctl.cli.app import main
from soarctl.testing import ToyFleet, toy_run
rank, calls = int(os.environ.get("RANK", "0")), 0
spec_reader.load_spec = lambda path, overrides: toy_run(**SECTIONS)
sample = ToyFleet.sample
def slow(self, prompts, sampling):
    global calls
    calls += "practice" in prompts[0].stream.path
    FAULT
    time.sleep(0.01)
    return sample(self, prompts, sampling)
ToyFleet.sample = slow
(Path(sys.argv[sys.argv.index("--out") + 1]) / f"pid-{rank}").write_text(str(os.getpid()))
main()
"""


@contextmanager
def running(directory: Path, processes: int, fault: str = "", *options: str, **environment: str) -> Iterator[Any]:
    directory.mkdir(exist_ok=True)
    command = [
        sys.executable,
        "-c",
        PROGRAM.replace("FAULT", fault or "pass").replace("SECTIONS", repr(SECTIONS)),
        "run",
        "toy.yaml",
    ]
    command += ["--out", str(directory), "--processes", str(processes), "--json", *options]
    environment = os.environ | environment
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as started:
        try:
            yield started
        finally:
            started.kill()


def finished(directory: Path, processes: int, fault: str = "", *options: str) -> tuple[list[dict[str, Any]], str]:
    """The events of a run that comes to its end, and what stood on stderr."""
    with running(directory, processes, fault, *options) as process:
        out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    return [json.loads(line) for line in out.splitlines()], err


def warnings(events: list[dict[str, Any]]) -> list[str]:
    return [event["text"] for event in events if event["event"] == "warning"]


def outcome(directory: Path) -> tuple[str, dict[str, bytes]]:
    with Ledger.open(directory, read_only=True) as ledger:
        content = ledger.content()
    return content, {str(p.relative_to(directory)): p.read_bytes() for p in directory.rglob("*.safetensors")}


def assert_gone(directory: Path, processes: int) -> None:
    pids = [int((directory / f"pid-{rank}").read_text()) for rank in range(processes)]
    end = time.monotonic() + 15
    while left := [pid for pid in pids if alive(pid)]:
        assert time.monotonic() < end, f"processes {left} are still there"
        time.sleep(0.05)


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, dict[str, bytes]]:
    """What one process comes to."""
    directory = tmp_path_factory.mktemp("whole")
    run(toy_run(**SECTIONS), directory, silent)
    return outcome(directory)


def test_three_processes_come_to_the_same_ledger_and_weights_as_one(whole: Any, tmp_path: Path) -> None:
    events, err = finished(tmp_path, 3)
    assert outcome(tmp_path) == whole
    assert warnings(events) == []
    assert err == ""
    assert_gone(tmp_path, 3)
    assert not (tmp_path / "processes.json").exists()


def test_a_process_that_is_killed_leaves_its_work_to_the_others(whole: Any, tmp_path: Path) -> None:
    events, _ = finished(tmp_path, 3, "if rank == 1 and calls == 5: os.kill(os.getpid(), signal.SIGKILL)")
    assert outcome(tmp_path) == whole
    pid = (tmp_path / "pid-1").read_text()
    lost, again = warnings(events)
    assert lost.startswith(f"process 1 (pid {pid} on ")
    assert lost.endswith(") was killed by signal 9; the others go on")
    assert again.startswith("PracticeJob failed in process 1, attempt 1: process 1 (pid ")


@pytest.mark.slow
def test_a_job_that_runs_out_of_memory_is_done_elsewhere(whole: Any, tmp_path: Path) -> None:
    events, _ = finished(tmp_path, 2, "if rank == 1 and calls == 5: raise ModelError('out of memory')")
    assert outcome(tmp_path) == whole
    assert warnings(events) == ["PracticeJob failed in process 1, attempt 1: ModelError: out of memory"]


@pytest.mark.slow
def test_a_process_that_hangs_shows_where_and_is_given_up(whole: Any, tmp_path: Path) -> None:
    events, err = finished(tmp_path, 2, "if rank == 1 and calls == 5: time.sleep(1000)", "--patience", "2")
    assert outcome(tmp_path) == whole
    assert warnings(events)[0].endswith("said nothing for 2 s and was given up; the others go on")
    assert "Timeout (0:00:02)!" in err
    assert "in slow" in err, "the stack of the process that hung"
    assert "in _why" in err, "and that of the one that waited"
    assert_gone(tmp_path, 2)


@pytest.mark.slow
def test_when_the_first_process_hangs_it_shows_where_and_all_end(whole: Any, tmp_path: Path) -> None:
    with running(tmp_path, 2, "if rank == 0 and calls == 5: time.sleep(1000)", "--patience", "2") as process:
        _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "Timeout (0:00:02)!" in err
    assert "in slow" in err
    assert_gone(tmp_path, 2)
    finished(tmp_path, 2, "", "--resume")
    assert outcome(tmp_path) == whole


@pytest.mark.slow
def test_when_the_first_process_is_killed_the_others_end_and_a_resumed_run_ends_the_same(
    whole: Any, tmp_path: Path
) -> None:
    with running(tmp_path, 3) as process:
        for line in process.stdout:
            if json.loads(line)["event"] == "students":
                break
        process.send_signal(signal.SIGKILL)
    assert_gone(tmp_path, 3)
    finished(tmp_path, 2, "", "--resume")
    assert outcome(tmp_path) == whole


@pytest.mark.parametrize(
    ("sent", "code", "said"), [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")]
)
@pytest.mark.slow
def test_ctrl_c_and_a_scheduler_end_all_processes(whole: Any, tmp_path: Path, sent: int, code: int, said: str) -> None:
    with running(tmp_path, 3) as process:
        for line in process.stdout:
            if json.loads(line)["event"] == "inner_step":
                break
        process.send_signal(sent)
        _, err = process.communicate(timeout=60)
    assert process.returncode == code
    assert f"{said}; nothing finished is lost. `soarctl run toy.yaml --out {tmp_path} --processes 3 --resume`" in err
    assert "Traceback" not in err
    assert_gone(tmp_path, 3)
    finished(tmp_path, 1, "", "--resume")
    assert outcome(tmp_path) == whole


def test_a_process_that_never_comes_is_missed(tmp_path: Path) -> None:
    # As a launcher starts the first of two, without the second.
    with running(tmp_path, 2, "", "--patience", "1", RANK="0", WORLD_SIZE="2") as process:
        _, err = process.communicate(timeout=60)
    assert process.returncode == 2
    assert "error: 1 of 2 processes did not begin to work within 1 s: 1\n" in err
    assert "Traceback" not in err


def test_a_mistake_in_another_process_ends_the_run_with_its_message(tmp_path: Path) -> None:
    with running(tmp_path, 2, "if rank == 1: raise KeyError('skill')") as process:
        _, err = process.communicate(timeout=60)
    assert process.returncode == 2
    assert "error: KeyError: 'skill'\n  Traceback (most recent call last):" in err
    assert_gone(tmp_path, 2)


FACTS = {"weights_sha256": "abc", "dtype": "bfloat16", "device": "NVIDIA H200"}


def test_a_process_with_another_model_is_refused() -> None:
    with pytest.raises(RunError) as error:
        compare(2, FACTS, FACTS | {"weights_sha256": "def"})
    assert str(error.value) == "process 2 has loaded another model than process 0\n  weights_sha256: 'def', not 'abc'"


def test_a_cpu_beside_a_gpu_is_refused() -> None:
    with pytest.raises(RunError) as error:
        compare(1, FACTS, FACTS | {"device": "cpu"})
    assert str(error.value) == (
        "process 1 computes on cpu, process 0 on NVIDIA H200\n"
        "  let each process see a GPU (CUDA_VISIBLE_DEVICES), or none use one: `--set trainer.device=cpu`"
    )
    with pytest.raises(RunError, match="process 1 computes on NVIDIA H200, process 0 on cpu"):
        compare(1, FACTS | {"device": "cpu"}, FACTS)


def test_a_gpu_of_another_kind_is_a_warning() -> None:
    assert compare(1, FACTS, FACTS) is None
    assert compare(1, FACTS, FACTS | {"device": "NVIDIA H100"}) == (
        "process 1 may round otherwise than process 0: device: 'NVIDIA H100', not 'NVIDIA H200'"
    )
