"""What an interpreter made of WebAssembly can call, called as a hostile guest would: there is nothing to be had."""

import os
import struct
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from soarctl_code.jail import wasi
from soarctl_code.jail.wasi import BADF, CALLS, CHUNK, FAULT, NOENT, PERM, ROOT, Wasi

SIZE = 4 * CHUNK
PREVIEW_1 = [
    "args_get", "args_sizes_get", "environ_get", "environ_sizes_get", "clock_res_get", "clock_time_get", "fd_advise",
    "fd_allocate", "fd_close", "fd_datasync", "fd_fdstat_get", "fd_fdstat_set_flags", "fd_fdstat_set_rights",
    "fd_filestat_get", "fd_filestat_set_size", "fd_filestat_set_times", "fd_pread", "fd_prestat_get",
    "fd_prestat_dir_name", "fd_pwrite", "fd_read", "fd_readdir", "fd_renumber", "fd_seek", "fd_sync", "fd_tell",
    "fd_write", "path_create_directory", "path_filestat_get", "path_filestat_set_times", "path_link", "path_open",
    "path_readlink", "path_remove_directory", "path_rename", "path_symlink", "path_unlink_file", "poll_oneoff",
    "proc_exit", "proc_raise", "sched_yield", "random_get", "sock_accept", "sock_recv", "sock_send", "sock_shutdown",
]  # fmt: skip
FILES = {"lib/a.py": b"a = 1\n", "lib/inner/b.py": b"b = 2\n", "c.py": b"c" * 100}
OUT = 1 << 10  # an address for answers
JOB, RESULT = 104, 103


class Bytes:
    """A guest's memory."""

    def __init__(self) -> None:
        self.data = bytearray(SIZE)

    def read(self, at: int, size: int) -> bytes:
        if not 0 <= at <= at + size <= SIZE:
            raise IndexError
        return bytes(self.data[at : at + size])

    def write(self, at: int, data: bytes) -> None:
        if not 0 <= at <= at + len(data) <= SIZE:
            raise IndexError
        self.data[at : at + len(data)] = data


class World:
    """A guest's calls and what is at the other end of its descriptors."""

    def __init__(self) -> None:
        self.memory = Bytes()
        self.reader, self.writer = os.pipe()
        os.set_blocking(self.reader, False)
        os.set_blocking(self.writer, False)
        streams = {0: self.reader, 1: self.writer, RESULT: self.writer}
        self.wasi = Wasi(self.memory, FILES, ["python", "-c", ""], {}, streams, lambda: b"the job", JOB)

    def close(self) -> None:
        os.close(self.reader)
        os.close(self.writer)

    def text(self, text: str, at: int = 0) -> tuple[int, int]:
        self.memory.write(at, text.encode())
        return at, len(text.encode())

    def number(self, at: int = OUT) -> int:
        return int.from_bytes(self.memory.read(at, 4), "little")

    def open(self, path: str, flags: int = 0, rights: int = 2) -> int:
        return self.wasi.call("path_open", [ROOT, 0, *self.text(path), flags, rights, 0, 0, OUT])

    def buffer(self, size: int) -> tuple[int, int]:
        """One vector of that many bytes."""
        self.memory.write(512, struct.pack("<II", 4096, size))
        return 512, 1


@pytest.fixture
def world() -> Iterator[World]:
    made = World()
    yield made
    made.close()


def test_all_that_can_be_called_is_a_part_of_the_standard() -> None:
    assert set(PREVIEW_1) > CALLS
    assert not [name for name in CALLS if name.startswith(("sock_", "proc_r"))]


@pytest.mark.parametrize("name", [*sorted(set(PREVIEW_1) - CALLS), "call", "", "__init__", "memory"])
def test_what_is_not_implemented_is_not_permitted(world: World, name: str) -> None:
    assert world.wasi.call(name, [0] * 9) == PERM


@pytest.mark.parametrize(
    "path", ["/etc/passwd", "../../etc/passwd", "lib/../../../etc/passwd", "/proc/self/environ", "lib//../..//dev/null"]
)
def test_no_path_leads_out_of_the_tree(world: World, path: str) -> None:
    assert world.open(path) == NOENT
    assert world.wasi.call("path_filestat_get", [ROOT, 0, *world.text(path), OUT]) == NOENT


@pytest.mark.parametrize(
    ("flags", "rights"), [(wasi.CREATE, 2), (wasi.TRUNCATE, 2), (0, 1 << 6), (0, 1 << 8), (0, 1 << 22)]
)
def test_nothing_is_opened_for_writing(world: World, flags: int, rights: int) -> None:
    assert world.open("c.py", flags, rights) == PERM
    assert world.open("new.py", flags, rights) == PERM


def test_files_are_read_where_they_are(world: World) -> None:
    assert world.open("./lib/../c.py") == 0
    descriptor = world.number()
    assert world.wasi.call("fd_seek", [descriptor, 90, 0, OUT]) == 0
    assert world.wasi.call("fd_read", [descriptor, *world.buffer(50), OUT]) == 0
    assert (world.number(), world.memory.read(4096, 11)) == (10, b"c" * 10 + b"\0")
    assert world.wasi.call("fd_write", [descriptor, *world.buffer(5), OUT]) == PERM
    assert world.wasi.call("fd_close", [descriptor]) == 0
    assert world.wasi.call("fd_read", [descriptor, *world.buffer(5), OUT]) == BADF


def test_folders_list_what_is_in_them(world: World) -> None:
    assert world.open("lib", wasi.IN_FOLDERS_ONLY) == 0
    assert world.wasi.call("fd_readdir", [world.number(), 4096, 4096, 0, OUT]) == 0
    listed = world.memory.read(4096, world.number())
    assert [listed[24:28], listed[52:]] == [b"a.py", b"inner"]
    assert world.open("c.py", wasi.IN_FOLDERS_ONLY) == wasi.NOTDIR


def test_a_descriptor_that_is_not_the_runs_is_none(world: World) -> None:
    other = os.open(os.devnull, os.O_RDWR)
    for descriptor in {other, world.reader, world.writer} - {0, 1}:
        assert world.wasi.call("fd_write", [descriptor, *world.buffer(5), OUT]) == BADF
        assert world.wasi.call("fd_read", [descriptor, *world.buffer(5), OUT]) == BADF
    os.close(other)


def test_what_is_written_arrives_and_a_closed_stream_takes_no_more(world: World) -> None:
    world.memory.write(4096, b"hello")
    assert world.wasi.call("fd_write", [RESULT, *world.buffer(5), OUT]) == 0
    assert os.read(world.reader, 10) == b"hello"
    assert world.wasi.call("fd_close", [RESULT]) == 0
    assert world.wasi.call("fd_write", [RESULT, *world.buffer(5), OUT]) == BADF
    os.write(world.writer, b"x")  # ours is as open as before


def test_a_job_is_read_once_and_chance_begins_with_it(world: World) -> None:
    assert world.wasi.call("random_get", [4096, 16]) == 0
    assert world.memory.read(4096, 16) == bytes(16)
    assert world.wasi.call("fd_read", [JOB, *world.buffer(100), OUT]) == 0
    assert (world.number(), world.memory.read(4096, 7)) == (7, b"the job")
    assert world.wasi.call("fd_read", [JOB, *world.buffer(100), OUT]) == 0
    assert world.number() == 0
    assert world.wasi.call("random_get", [4096, 16]) == 0
    assert world.memory.read(4096, 16) != bytes(16)


def test_no_call_takes_more_than_a_chunk(world: World) -> None:
    vectors = struct.pack("<II", 0, 0xFFFFFFFF) * wasi.VECTORS
    world.memory.write(4096, vectors)
    assert world.wasi.call("fd_write", [1, 4096, wasi.VECTORS, OUT]) == 0
    assert world.number() <= CHUNK
    assert world.wasi.call("fd_write", [1, 4096, wasi.VECTORS + 1, OUT]) == wasi.INVAL
    assert world.wasi.call("random_get", [SIZE - 4, 5]) == FAULT


def test_files_that_are_open_at_once_are_bounded(world: World) -> None:
    answers = [world.open("c.py") for _ in range(100)]
    assert (answers.count(0), answers[-1]) == (wasi.FILES_AT_ONCE - 1, wasi.MFILE)


def test_sleep_ends_when_the_first_clock_strikes(world: World) -> None:
    entry = struct.pack("<QB7xI4xQQH6x", 7, 0, 1, 10_000_000, 0, 0)
    later = struct.pack("<QB7xI4xQQH6x", 8, 0, 1, 10**15, 0, 0)
    world.memory.write(4096, later + entry)
    assert world.wasi.call("poll_oneoff", [4096, 8192, 2, OUT]) == 0
    assert (world.number(), world.number(8192)) == (1, 7)


NUMBERS = st.one_of(st.integers(0, 200), st.integers(SIZE - 50, SIZE), st.integers(0, wasi.ALL))


@given(st.sampled_from(sorted(CALLS - {"proc_exit", "poll_oneoff"})), st.lists(NUMBERS, min_size=9, max_size=9))
def test_whatever_numbers_a_guest_passes_it_gets_an_error_number(name: str, arguments: list[int]) -> None:
    world = World()
    count = getattr(Wasi, name).__code__.co_argcount - 1
    try:
        assert 0 <= world.wasi.call(name, arguments[:count]) <= 76
    finally:
        world.close()
    assert len(world.memory.data) == SIZE
