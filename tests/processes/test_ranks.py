"""Which process this is, by what launchers say, and which device it may see."""

from pathlib import Path

import pytest

from soarctl.errors import SpecError
from soarctl.processes.ranks import Rank, gpus, rank_of, take_own_device

LAUNCHED = {"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "4", "MASTER_ADDR": "node0"}


def test_without_a_launcher_there_is_one_process_or_as_many_as_are_asked_for() -> None:
    assert rank_of({}, None) == Rank(0, 1, 0, "127.0.0.1")
    assert rank_of({}, 3) == Rank(0, 3, 0, "127.0.0.1")


def test_a_launcher_says_which_process_this_is_and_where_the_first_one_is() -> None:
    assert rank_of(LAUNCHED, None) == rank_of(LAUNCHED, 8) == Rank(5, 8, 1, "node0")
    assert rank_of(LAUNCHED | {"LOCAL_WORLD_SIZE": "8"}, None).address == "127.0.0.1", (
        "on one machine nobody listens outside"
    )


@pytest.mark.parametrize(
    ("environment", "asked", "said"),
    [
        (LAUNCHED, 2, "--processes 2: a launcher has started 8 processes\n  leave out one of the two"),
        (LAUNCHED | {"RANK": "8"}, None, "RANK, WORLD_SIZE: process 8 of 8\n  RANK counts from 0"),
        (LAUNCHED | {"MASTER_ADDR": ""}, None, "MASTER_ADDR: several machines, and nobody says where process 0 is"),
        (LAUNCHED | {"RANK": "x"}, None, "the launcher's variables are not numbers: invalid literal for int() with"),
    ],
)
def test_what_makes_no_sense_is_a_clear_error(environment: dict[str, str], asked: int | None, said: str) -> None:
    with pytest.raises(SpecError) as error:
        rank_of(environment, asked)
    assert said in str(error.value)


@pytest.mark.parametrize(
    ("visible", "own"), [(None, "1"), ("4,5,6,7", "5"), ("4", "4"), ("GPU-a,GPU-b", "GPU-b"), ("", "")]
)
def test_a_process_sees_its_own_gpu_and_no_launcher(visible: str | None, own: str) -> None:
    environment = LAUNCHED | ({} if visible is None else {"CUDA_VISIBLE_DEVICES": visible})
    take_own_device(environment, rank_of(LAUNCHED, None), gpus=4)
    assert environment == {"CUDA_VISIBLE_DEVICES": own}


def test_a_process_alone_keeps_all_gpus() -> None:
    environment = {"CUDA_VISIBLE_DEVICES": "0,1", "HOME": "/"}
    take_own_device(environment, rank_of(environment, None), gpus=2)
    assert environment == {"CUDA_VISIBLE_DEVICES": "0,1", "HOME": "/"}


@pytest.mark.parametrize(("gpus", "own"), [(1, "0"), (2, "1"), (4, "3")])
def test_where_nobody_says_which_gpus_there_are_processes_share_those_of_the_machine_in_turn(
    gpus: int, own: str
) -> None:
    environment = dict[str, str]()
    take_own_device(environment, Rank(3, 4, 3, "127.0.0.1"), gpus)
    assert environment == {"CUDA_VISIBLE_DEVICES": own}


def test_on_a_machine_without_gpus_a_process_is_given_none() -> None:
    environment = dict[str, str]()
    take_own_device(environment, Rank(3, 4, 3, "127.0.0.1"), gpus=0)
    assert environment == {}


def test_gpus_are_counted_by_their_device_files(tmp_path: Path) -> None:
    assert gpus(tmp_path) == 0
    for name in ("nvidia0", "nvidia1", "nvidia10", "nvidiactl", "nvidia-uvm", "null"):
        (tmp_path / name).touch()
    assert gpus(tmp_path) == 3
