"""The job script: what it asks Slurm for, that bash reads it, and that its tasks become the processes of one run."""

import os
import subprocess
from pathlib import Path

import pytest

from soarctl.cli.slurm import print_job_script
from soarctl.errors import SoarError

SPEC = """\
name: small
model: {base: "package:soarctl_letters/model"}
domain: {plugin: letters}
"""
# What Slurm documents of the two commands that the script calls.
SLURM = """
scontrol() { if [ "$1" = show ]; then printf 'node7\\nnode8\\n'; else echo "scontrol $*"; fi; }
srun() {
  shift
  for task in 0 1 2 3; do SLURM_PROCID=$task SLURM_LOCALID=$((task % 2)) SLURM_NTASKS=4 "$@"; done
}
export SLURM_JOB_NODELIST='node[7-8]' SLURM_JOB_ID=42
"""


def script(tmp_path: Path, capsys: pytest.CaptureFixture[str], *overrides: str) -> str:
    (tmp_path / "a spec.yaml").write_text(SPEC)
    place = tmp_path / "runs" / "small"
    print_job_script(str(tmp_path / "a spec.yaml"), list(overrides), place, processes=4, nodes=2, patience=600.0)
    return capsys.readouterr().out


def test_the_script_asks_for_a_task_and_a_gpu_for_each_process(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = [line.removeprefix("#SBATCH ") for line in script(tmp_path, capsys).splitlines() if "#SBATCH" in line]
    assert {"--job-name=small", "--nodes=2", "--ntasks-per-node=2", "--gpus-per-node=2", "--requeue"} <= set(asked)


def test_its_tasks_are_the_processes_of_one_run_which_goes_on_where_it_was(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "soarctl").write_text(
        '#!/bin/bash\necho "$RANK $LOCAL_RANK $WORLD_SIZE $LOCAL_WORLD_SIZE $MASTER_ADDR"; printf "%s|" "$@"; echo\n'
    )
    (tmp_path / "soarctl").chmod(0o755)
    text = SLURM + script(tmp_path, capsys, "outer.steps=5", "model.revision=a b")
    environment = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = subprocess.run(["bash", "-c", text], env=environment, capture_output=True, text=True, check=True)
    lines = done.stdout.splitlines()
    assert lines[::2] == ["0 0 4 2 node7", "1 1 4 2 node7", "2 0 4 2 node7", "3 1 4 2 node7"]
    run = f"run|{tmp_path}/a spec.yaml|--set|outer.steps=5|--set|model.revision=a b|--out|{tmp_path}/runs/small|"
    assert set(lines[1::2]) == {f"{run}--patience|600|--resume|"}


def test_a_signal_before_the_time_is_up_queues_the_job_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = SLURM + "srun() { sleep 0.3; }\n" + script(tmp_path, capsys)
    with subprocess.Popen(["bash", "-c", f"(sleep 0.1; kill -USR1 $$) & {text}"], stdout=subprocess.PIPE) as job:
        out, _ = job.communicate(timeout=10)
    assert out.decode().splitlines() == ["scontrol requeue 42"]


def test_processes_that_cannot_be_spread_are_an_error(tmp_path: Path) -> None:
    (tmp_path / "spec.yaml").write_text(SPEC)
    with pytest.raises(SoarError) as error:
        print_job_script(str(tmp_path / "spec.yaml"), [], None, processes=3, nodes=2, patience=1.0)
    assert str(error.value) == (
        "--processes: 3 processes cannot be spread evenly over 2 nodes\n  it counts those of all nodes together"
    )
