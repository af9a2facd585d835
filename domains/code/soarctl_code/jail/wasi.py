"""All that an interpreter compiled to WebAssembly can call: a part of WASI preview 1, with little behind it.

Behind it are the descriptors of a run, a clock, random bytes, and a tree of files in memory that can only be read. No
path of the machine has a name in here, and there are no sockets, processes and signals: whatever this module does not
implement is answered with EPERM.

The guest is not trusted: every address is checked against its memory, and no call takes more of ours than a few CHUNKs.

Source: WASI preview 1, github.com/WebAssembly/WASI, `wasi_snapshot_preview1.witx`.
"""

import errno
import os
import posixpath
import struct
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from mmap import mmap
from typing import Protocol

BADF, FAULT, INVAL, IO, MFILE, NOENT, NOTDIR, PERM, PIPE, SPIPE = 8, 21, 28, 29, 33, 44, 54, 63, 64, 70
UNKNOWN, DIRECTORY, FILE = 0, 3, 4  # kinds of files
ROOT = 3  # descriptor of the tree's root: where wasi-libc looks for one
WRITING = 1 << 6 | 1 << 8 | 1 << 22  # rights fd_write, fd_allocate and fd_filestat_set_size
CREATE, IN_FOLDERS_ONLY, TRUNCATE = 1, 2, 8  # flags of path_open
CLOCKS = (time.CLOCK_REALTIME, time.CLOCK_MONOTONIC, time.CLOCK_PROCESS_CPUTIME_ID, time.CLOCK_THREAD_CPUTIME_ID)
CHUNK = 1 << 16
VECTORS = 1024  # of one read or write
SUBSCRIPTIONS = 64
FILES_AT_ONCE = 64
ALL = (1 << 64) - 1

Content = bytes | mmap


class Memory(Protocol):
    """The guest's memory. Reading or writing outside of it raises IndexError."""

    def read(self, at: int, size: int) -> bytes: ...
    def write(self, at: int, data: bytes) -> None: ...


class Refused(Exception):
    """The call fails with this error number."""

    def __init__(self, number: int) -> None:
        self.number = number


@dataclass(slots=True)
class Opened:
    """A descriptor of something in the tree."""

    name: str
    at: int = 0


class Wasi:
    """The calls of one guest: a method for each, with the name and the arguments that WASI gives it, all unsigned."""

    def __init__(
        self,
        memory: Memory,
        files: Mapping[str, Content],
        arguments: Sequence[str],
        environment: Mapping[str, str],
        streams: Mapping[int, int],
        wait: Callable[[], bytes],
        job: int,
    ) -> None:
        """What is behind the calls.

        Args:
            memory: of the guest.
            files: paths in the tree and what they hold.
            arguments: the command line.
            environment: all of it.
            streams: descriptors of the guest and what they are here.
            wait: gives the content of descriptor `job` when the guest first reads from it.
            job: a descriptor of the guest.
        """
        self.memory = memory
        self.files = {name.strip("/"): data for name, data in files.items()}
        self.folders = {""} | {parent for name in self.files for parent in parents(name)}
        self.strings = {
            "args": [text.encode() + b"\0" for text in arguments],
            "environ": [f"{name}={value}".encode() + b"\0" for name, value in environment.items()],
        }
        self.streams = dict(streams)
        self.wait = wait
        self.job = job
        self.task: bytes | None = None
        self.opened = {ROOT: Opened("")}

    def call(self, name: str, arguments: Sequence[int]) -> int:
        """Makes a call by its name; its error number, or 0."""
        method: Callable[..., None] | None = getattr(self, name, None) if name in CALLS else None
        if method is None:
            return PERM
        try:
            method(*arguments)
        except Refused as refused:
            return refused.number
        except IndexError:
            return FAULT
        except OSError as error:
            return {errno.EPIPE: PIPE, errno.EBADF: BADF}.get(error.errno or 0, IO)
        return 0

    # --- the guest's memory ------------------------------------------------------------------------------------

    def put(self, at: int, layout: str, *values: int) -> None:
        self.memory.write(at, struct.pack(layout, *values))

    def vectors(self, at: int, count: int) -> list[tuple[int, int]]:
        """Addresses and sizes of buffers, CHUNK bytes at most in all."""
        if count > VECTORS:
            raise Refused(INVAL)
        found: list[tuple[int, int]] = []
        room = CHUNK
        for place, size in struct.iter_unpack("<II", self.memory.read(at, 8 * count)):
            found.append((place, min(size, room)))
            room -= found[-1][1]
        return found

    def scatter(self, vectors: Sequence[tuple[int, int]], data: bytes) -> int:
        done = 0
        for place, size in vectors:
            self.memory.write(place, data[done : done + size])
            done = min(done + size, len(data))
        return done

    # --- command line, clock, chance ---------------------------------------------------------------------------

    def args_sizes_get(self, count: int, size: int) -> None:
        self.put_sizes("args", count, size)

    def args_get(self, addresses: int, place: int) -> None:
        self.put_strings("args", addresses, place)

    def environ_sizes_get(self, count: int, size: int) -> None:
        self.put_sizes("environ", count, size)

    def environ_get(self, addresses: int, place: int) -> None:
        self.put_strings("environ", addresses, place)

    def put_sizes(self, kind: str, count: int, size: int) -> None:
        self.put(count, "<I", len(self.strings[kind]))
        self.put(size, "<I", sum(map(len, self.strings[kind])))

    def put_strings(self, kind: str, addresses: int, place: int) -> None:
        for number, text in enumerate(self.strings[kind]):
            self.memory.write(place, text)
            self.put(addresses + 4 * number, "<I", place)
            place += len(text)

    def clock_res_get(self, clock: int, out: int) -> None:
        self.put(out, "<Q", max(1, int(1e9 * time.clock_getres(known_clock(clock)))))

    def clock_time_get(self, clock: int, _precision: int, out: int) -> None:
        self.put(out, "<Q", time.clock_gettime_ns(known_clock(clock)))

    def random_get(self, at: int, size: int) -> None:
        # Nothing is left to chance before a job is there: so all hash alike, as with PYTHONHASHSEED=0.
        chance = bytes if self.task is None else os.urandom
        for start in range(at, at + size, CHUNK):
            self.memory.write(start, chance(min(CHUNK, at + size - start)))

    def sched_yield(self) -> None:
        os.sched_yield()

    def poll_oneoff(self, subscriptions: int, events: int, count: int, out: int) -> None:
        """Sleeps until the first clock strikes; descriptors are always ready."""
        if not 0 < count <= SUBSCRIPTIONS:
            raise Refused(INVAL)
        data = self.memory.read(subscriptions, 48 * count)
        asked = [struct.unpack_from("<QB7xI4xQQH", data, 48 * n) for n in range(count)]
        ready = [(user, kind) for user, kind, *_ in asked if kind != 0]
        if not ready:
            ends = [(sleep_until(clock, at, flags), user) for user, _, clock, at, _, flags in asked]
            first, user = min(ends)
            time.sleep(max(0.0, first - time.monotonic()))
            ready = [(user, 0)]
        for number, (user, kind) in enumerate(ready):
            self.put(events + 32 * number, "<QHB5xQH6x", user, 0, kind, 1 if kind else 0, 0)
        self.put(out, "<I", len(ready))

    def proc_exit(self, status: int) -> None:
        os._exit(status & 0xFF)

    # --- descriptors -------------------------------------------------------------------------------------------

    def file(self, descriptor: int) -> tuple[Opened, Content]:
        """An open file of the tree and its content; of a folder, none."""
        opened = self.opened.get(descriptor)
        if opened is None:
            raise Refused(SPIPE if descriptor in self.streams else BADF)
        return opened, self.files.get(opened.name, b"")

    def fd_read(self, descriptor: int, vectors: int, count: int, out: int) -> None:
        places = self.vectors(vectors, count)
        size = sum(size for _, size in places)
        if descriptor == self.job:
            if self.task is None:
                self.task = self.wait()
            data, self.task = self.task[:size], self.task[size:]
        elif descriptor in self.streams:
            data = os.read(self.streams[descriptor], size)
        else:
            opened, content = self.file(descriptor)
            data = content[opened.at : opened.at + size]
            opened.at += len(data)
        self.put(out, "<I", self.scatter(places, data))

    def fd_pread(self, descriptor: int, vectors: int, count: int, offset: int, out: int) -> None:
        places = self.vectors(vectors, count)
        _, content = self.file(descriptor)
        self.put(out, "<I", self.scatter(places, content[offset : offset + CHUNK]))

    def fd_write(self, descriptor: int, vectors: int, count: int, out: int) -> None:
        places = self.vectors(vectors, count)
        if descriptor not in self.streams:
            raise Refused(PERM if descriptor in self.opened else BADF)
        data = b"".join([self.memory.read(place, size) for place, size in places])
        self.put(out, "<I", os.write(self.streams[descriptor], data))

    def fd_seek(self, descriptor: int, offset: int, whence: int, out: int) -> None:
        opened, content = self.file(descriptor)
        if whence > 2:
            raise Refused(INVAL)
        at = (0, opened.at, len(content))[whence] + signed(offset)
        if not 0 <= at <= ALL >> 1:
            raise Refused(INVAL)
        opened.at = at
        self.put(out, "<Q", at)

    def fd_tell(self, descriptor: int, out: int) -> None:
        self.put(out, "<Q", self.file(descriptor)[0].at)

    def fd_close(self, descriptor: int) -> None:
        if descriptor in self.streams:
            del self.streams[descriptor]
        elif descriptor != ROOT:  # or nothing more could be imported
            self.file(descriptor)
            del self.opened[descriptor]

    def fd_fdstat_get(self, descriptor: int, out: int) -> None:
        # All rights: what is allowed is decided call by call, so that errors are those that programs know.
        self.put(out, "<BxHxxxxQQ", self.kind(descriptor), 0, ALL, ALL)

    def fd_fdstat_set_flags(self, descriptor: int, _flags: int) -> None:
        self.kind(descriptor)

    def fd_filestat_get(self, descriptor: int, out: int) -> None:
        kind = self.kind(descriptor)
        opened = self.opened.get(descriptor)
        size = len(self.files.get(opened.name, b"")) if opened else 0
        if descriptor in self.streams:  # programs ask for the length of their input
            size = os.fstat(self.streams[descriptor]).st_size
        self.put_filestat(out, kind, size)

    def kind(self, descriptor: int) -> int:
        if descriptor in self.streams or descriptor == self.job:
            return UNKNOWN
        return FILE if self.file(descriptor)[0].name in self.files else DIRECTORY

    def put_filestat(self, out: int, kind: int, size: int) -> None:
        self.put(out, "<QQB7xQQQQQ", 1, 0, kind, 1, size, 0, 0, 0)

    # --- the tree ----------------------------------------------------------------------------------------------

    def fd_prestat_get(self, descriptor: int, out: int) -> None:
        if descriptor != ROOT:
            raise Refused(BADF)
        self.put(out, "<B3xI", 0, 1)

    def fd_prestat_dir_name(self, descriptor: int, place: int, size: int) -> None:
        if descriptor != ROOT or size < 1:
            raise Refused(BADF)
        self.memory.write(place, b"/")

    def look_up(self, folder: int, path: int, size: int) -> str:
        """The name in the tree that a path means; nothing leads out of it, since it has no outside."""
        opened, _ = self.file(folder)
        if size > 4096:
            raise Refused(INVAL)
        text = self.memory.read(path, size).decode("utf-8", "surrogateescape")
        name = posixpath.normpath(posixpath.join("/", opened.name, text)).strip("/")
        if name not in self.files and name not in self.folders:
            raise Refused(NOENT)
        return name

    def path_filestat_get(self, folder: int, _flags: int, path: int, size: int, out: int) -> None:
        name = self.look_up(folder, path, size)
        self.put_filestat(out, FILE if name in self.files else DIRECTORY, len(self.files.get(name, b"")))

    def path_open(
        self, folder: int, _follow: int, path: int, size: int, flags: int, rights: int, _inherited: int, _mode: int,
        out: int,
    ) -> None:  # fmt: skip
        if flags & (CREATE | TRUNCATE) or rights & WRITING:
            raise Refused(PERM)
        name = self.look_up(folder, path, size)
        if flags & IN_FOLDERS_ONLY and name in self.files:
            raise Refused(NOTDIR)
        if len(self.opened) >= FILES_AT_ONCE:
            raise Refused(MFILE)
        taken = {*self.opened, *self.streams, self.job}
        descriptor = next(number for number in range(ROOT + 1, 1024) if number not in taken)
        self.opened[descriptor] = Opened(name)
        self.put(out, "<I", descriptor)

    def fd_readdir(self, descriptor: int, place: int, size: int, cookie: int, out: int) -> None:
        folder = self.file(descriptor)[0].name
        inside = sorted(name for name in {*self.files, *self.folders} if name and posixpath.dirname(name) == folder)
        data = b""
        for number, name in enumerate(inside[cookie:], cookie + 1):
            text = posixpath.basename(name).encode("utf-8", "surrogateescape")
            data += struct.pack("<QQIB3x", number, 0, len(text), FILE if name in self.files else DIRECTORY) + text
        data = data[: min(size, CHUNK)]
        self.memory.write(place, data)
        self.put(out, "<I", len(data))


KINDS = ("args_", "environ_", "clock_", "fd_", "path_", "random_get", "sched_yield", "poll_oneoff", "proc_exit")
CALLS = frozenset(name for name in vars(Wasi) if name.startswith(KINDS))


def parents(name: str) -> list[str]:
    found: list[str] = []
    while name := posixpath.dirname(name):
        found.append(name)
    return found


def known_clock(number: int) -> int:
    if number >= len(CLOCKS):
        raise Refused(INVAL)
    return CLOCKS[number]


def sleep_until(clock: int, nanoseconds: int, flags: int) -> float:
    """When a clock strikes, on ours."""
    now = time.monotonic()
    wait = nanoseconds / 1e9 - (time.clock_gettime(known_clock(clock)) if flags & 1 else 0.0)
    return now + min(wait, 1e6)


def signed(value: int) -> int:
    return value - (1 << 64) if value >> 63 else value
