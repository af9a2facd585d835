"""A letters run, torch and all, by one process and by three of which one is killed."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from soarctl.ledger import Ledger

SPEC = Path(__file__).parents[2] / "specs" / "quickstart.yaml"
# Four fleets in an outer step, two blocks to filter, several shares and parts of the teacher's gradient.
SMALL = [
    "outer.steps=2",
    "domain.candidates=200",
    "filter.samples=32",
    "reward.questions=12",
    "teacher.dataset_size=4",
    "inner.group_size=8",
    "inner.batch_size=4",
    "promotion.tau=-0.05",
    "trainer.width=2",
    "trainer.max_sequences=128",
    "trainer.micro_batch_tokens=256",
]


def start(directory: Path, processes: int) -> "subprocess.Popen[str]":
    changes = [part for change in SMALL for part in ("--set", change)]
    command = [sys.executable, "-m", "soarctl", "run", str(SPEC), *changes, "--out", str(directory), "--json"]
    return subprocess.Popen(
        [*command, "--processes", str(processes)],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        text=True,
    )


def outcome(directory: Path) -> tuple[str, dict[str, bytes]]:
    with Ledger.open(directory, read_only=True) as ledger:
        content = ledger.content()
    return content, {str(p.relative_to(directory)): p.read_bytes() for p in directory.rglob("*.safetensors")}


@pytest.mark.slow
def test_three_processes_of_which_one_is_killed_come_to_the_bits_of_one(tmp_path: Path) -> None:
    with start(tmp_path / "one", 1) as one:
        one.communicate(timeout=300)
    with start(tmp_path / "three", 3) as three:
        assert three.stdout is not None
        for line in three.stdout:
            if json.loads(line)["event"] == "inner_step":
                break
        children = subprocess.run(["ps", "-o", "pid=", "--ppid", str(three.pid)], capture_output=True, text=True)
        os.kill(int(children.stdout.split()[0]), signal.SIGKILL)
        rest = [json.loads(line) for line in three.stdout]
    assert three.returncode == 0
    warnings = [event["text"] for event in rest if event["event"] == "warning"]
    assert "was killed by signal 9; the others go on" in warnings[0]
    assert outcome(tmp_path / "three") == outcome(tmp_path / "one")
