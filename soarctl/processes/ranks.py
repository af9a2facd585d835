"""Which of a run's processes this one is, and which device is its own."""

import re
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass
from pathlib import Path

from soarctl.errors import SpecError

# What launchers tell a process about the others. Ours share work through connections, not through collectives, which do
# not outlive a process that dies: nothing that is loaded later is to see these and wait for the others.
_LAUNCHERS = (
    *("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "GROUP_RANK", "ROLE_RANK", "ROLE_WORLD_SIZE"),
    *("MASTER_ADDR", "MASTER_PORT", "PMI_RANK", "PMI_SIZE", "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"),
    *("OMPI_COMM_WORLD_LOCAL_RANK", "MV2_COMM_WORLD_RANK", "MV2_COMM_WORLD_SIZE", "MV2_COMM_WORLD_LOCAL_RANK"),
)


@dataclass(frozen=True, slots=True)
class Rank:
    """One of a run's processes."""

    number: int
    """The algorithm runs in process 0."""
    size: int
    local: int
    """Its number among those of its machine."""
    address: str
    """Where the others find process 0."""


def rank_of(environment: Mapping[str, str], asked: int | None) -> Rank:
    """This process by what `accelerate launch`, torchrun or a Slurm script say; without them it is the first.

    Args:
        environment: of the process.
        asked: how many processes the command line asks for.

    Raises:
        SpecError: what they say makes no sense.
    """
    if asked is not None and environment.get("WORLD_SIZE", str(asked)) != str(asked):
        raise SpecError(
            f"a launcher has started {environment['WORLD_SIZE']} processes",
            at=f"--processes {asked}",
            hint="leave out one of the two",
        )
    try:
        size = int(environment.get("WORLD_SIZE", asked or 1))
        number, local = int(environment.get("RANK", "0")), int(environment.get("LOCAL_RANK", "0"))
        here = int(environment.get("LOCAL_WORLD_SIZE", str(size)))
    except ValueError as error:
        raise SpecError(
            f"the launcher's variables are not numbers: {error}", at="RANK, WORLD_SIZE, LOCAL_RANK"
        ) from None
    if not 0 <= number < size:
        raise SpecError(f"process {number} of {size}", at="RANK, WORLD_SIZE", hint="RANK counts from 0")
    address = "127.0.0.1" if here >= size else environment.get("MASTER_ADDR", "")
    if not address:
        raise SpecError("several machines, and nobody says where process 0 is", at="MASTER_ADDR")
    return Rank(number, size, local, address)


def gpus(devices: Path = Path("/dev")) -> int:
    """NVIDIA GPUs that this process may open, by their device files: nobody has loaded torch yet to ask it."""
    return sum(bool(re.fullmatch(r"nvidia\d+", file.name)) for file in devices.glob("nvidia*"))


def take_own_device(environment: MutableMapping[str, str], rank: Rank, gpus: int) -> None:
    """Makes this process one that sees its own GPU and knows of no others. To be called before torch is imported.

    Args:
        environment: of the process.
        rank: which process it is.
        gpus: how many there are, where CUDA_VISIBLE_DEVICES does not say.
    """
    for name in _LAUNCHERS:
        environment.pop(name, None)
    if rank.size > 1:
        visible = environment.get("CUDA_VISIBLE_DEVICES")
        devices = visible.split(",") if visible is not None else [str(i) for i in range(gpus)]
        if devices:
            # As many processes as GPUs, or processes that share them in turn.
            environment["CUDA_VISIBLE_DEVICES"] = devices[rank.local % len(devices)]
