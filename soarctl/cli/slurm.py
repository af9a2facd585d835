"""`soarctl run --print-slurm`: a job script that starts a run on a Slurm cluster, and goes on when the time was up."""

import shlex
from pathlib import Path

_SCRIPT = """\
#!/bin/bash
#SBATCH --job-name={name}
#SBATCH --nodes={nodes}
#SBATCH --ntasks-per-node={each}
#SBATCH --gpus-per-node={each}
#SBATCH --cpus-per-task=8
#SBATCH --time=24:00:00
#SBATCH --requeue
#SBATCH --signal=B:USR1@120
#SBATCH --open-mode=append
#SBATCH --output={log}

# Two minutes before its time is up Slurm says so: the job queues again, and goes on from what the ledger holds.
# A kill at any moment loses the students in training and nothing else.
trap 'scontrol requeue "$SLURM_JOB_ID"' USR1

# One process for each GPU. The run directory must be on a file system that all nodes see.
export MASTER_ADDR=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
export LOCAL_WORLD_SIZE={each}
srun --kill-on-bad-exit=0 bash -c \\
  'RANK=$SLURM_PROCID LOCAL_RANK=$SLURM_LOCALID WORLD_SIZE=$SLURM_NTASKS exec "$@"' task \\
  {command} &
wait $!
"""


def print_job_script(
    path: str, overrides: list[str], out: Path | None, *, processes: int, nodes: int, patience: float
) -> None:
    """Prints a script for `sbatch`.

    Raises:
        SoarError: the spec cannot be read, or the processes cannot be spread evenly.
    """
    from soarctl.errors import SoarError
    from soarctl.spec_reader import load_spec

    loaded = load_spec(path, overrides)
    if processes % nodes:
        raise SoarError(
            f"{processes} processes cannot be spread evenly over {nodes} nodes",
            at="--processes",
            hint="it counts those of all nodes together",
        )
    directory = out or Path("runs") / loaded.spec.name
    command = ["soarctl", "run", path, *(part for o in overrides for part in ("--set", o)), "--out", str(directory)]
    print(
        _SCRIPT.format(
            name=loaded.spec.name,
            nodes=nodes,
            each=processes // nodes,
            log=shlex.quote(f"{directory}.log"),
            command=shlex.join([*command, "--patience", f"{patience:g}", "--resume"]),
        ),
        end="",
    )
