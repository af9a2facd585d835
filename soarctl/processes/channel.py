"""Connections between the processes of a run: who listens where, and a secret that both sides must know.

The first process writes address and secret into the run directory, readable by its owner alone; so all processes need
the same file system, as they do for the model. Connections are authenticated and not encrypted.
"""

import json
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable
from multiprocessing import AuthenticationError
from multiprocessing.connection import Client, Connection, Listener, answer_challenge, deliver_challenge
from pathlib import Path
from typing import Any

from soarctl.errors import RunError
from soarctl.processes.wire import decode, encode

FILE = "processes.json"
_JOIN_SECONDS = 300.0
"""For which a process looks for the first one."""


class Gone(Exception):
    """Nobody is there any more."""


class Channel:
    """Messages to and from one other process."""

    def __init__(self, connection: "Connection[Any, Any]") -> None:
        self._connection = connection
        self._sending = threading.Lock()
        _notice_dead_machines(connection.fileno())

    def send(self, message: object) -> None:
        """Raises Gone."""
        data = encode(message)
        try:
            with self._sending:
                self._connection.send_bytes(data)
        except OSError as error:
            raise Gone from error

    def receive(self, seconds: float | None = None) -> Any:
        """The next message.

        Raises:
            TimeoutError: none came within so many seconds.
            Gone: none will come.
        """
        try:
            there = self._connection.poll(seconds)
            data = self._connection.recv_bytes() if there else b""
        except (OSError, EOFError) as error:
            raise Gone from error
        if not there:
            raise TimeoutError
        return decode(data)

    def close(self) -> None:
        self._connection.close()


class Door:
    """Where the first process is found. Every visitor who knows the secret is handed on."""

    def __init__(self, directory: Path, address: str, visit: Callable[[Channel], None]) -> None:
        self._place, self._visit = directory / FILE, visit
        self._key = secrets.token_bytes(32)
        # Whom other machines call listens on all of its own addresses: MASTER_ADDR may be a name for any of them.
        bind = address if address == "127.0.0.1" else ""
        self._listener = Listener((bind, 0), "AF_INET", backlog=64)
        port = self._listener.address[1]
        said = json.dumps({"address": address, "port": port, "key": self._key.hex()})
        aside = self._place.with_name(f".{FILE}.partial")
        aside.unlink(missing_ok=True)
        with os.fdopen(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(said)
        os.replace(aside, self._place)
        threading.Thread(target=self._open, name="door", daemon=True).start()

    def close(self) -> None:
        self._place.unlink(missing_ok=True)
        self._listener.close()

    def _open(self) -> None:
        while True:
            try:
                connection = self._listener.accept()
            except OSError:  # closed
                return
            # A stranger who says nothing keeps nobody else waiting.
            threading.Thread(target=self._greet, args=(connection,), name="visitor", daemon=True).start()

    def _greet(self, connection: "Connection[Any, Any]") -> None:
        try:
            deliver_challenge(connection, self._key)
            answer_challenge(connection, self._key)
            channel = Channel(connection)
        except (AuthenticationError, OSError, EOFError):
            connection.close()
        else:
            self._visit(channel)


def join(directory: Path, alive: Callable[[], bool]) -> Channel:
    """A connection to the first process of the run in `directory`.

    Args:
        alive: whether it makes sense to go on looking.

    Raises:
        RunError: it was not found.
    """
    place, end, seen = directory / FILE, time.monotonic() + _JOIN_SECONDS, "the file is missing"
    while time.monotonic() < end and alive():
        try:
            said = json.loads(place.read_text())
            connection = Client((said["address"], said["port"]), "AF_INET")
            # What listens there may be something else by now, and say nothing.
            if not connection.poll(5.0):
                raise TimeoutError("nobody answers")
            key = bytes.fromhex(said["key"])
            answer_challenge(connection, key)
            deliver_challenge(connection, key)
            return Channel(connection)
        except (OSError, EOFError, ValueError, KeyError, AuthenticationError) as error:
            seen = f"{type(error).__name__}: {error}"
            time.sleep(0.1)
    raise RunError(
        f"the first process of the run was not found: {seen}",
        at=str(place),
        hint="all processes need the same run directory, and the first one must be running",
    )


def _notice_dead_machines(descriptor: int) -> None:
    """Makes a connection fail within two minutes after the other machine lost its power or its network."""
    with socket.socket(fileno=os.dup(descriptor)) as same:
        same.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        same.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in (("TCP_KEEPIDLE", 30), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 6)):
            if hasattr(socket, name):  # macOS names the first one otherwise
                same.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
        if hasattr(socket, "TCP_USER_TIMEOUT"):
            same.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 120_000)
