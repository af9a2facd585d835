"""A fork server as its supervisor sees it: a process, and a socket to it."""

import math
import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from soarctl_code.jail import compiled
from soarctl_code.jail.jobs import SandboxError

BOOT = (
    "import sys; sys.path.insert(0, sys.argv[1]); from soarctl_code.jail.server import main; del sys.path[0]; "
    "main(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), *sys.argv[5:])"
)
START_PATIENCE = 30.0


class Server:
    """One fork server and the socket to it."""

    def __init__(self, tier: str, python: str, prefix: Sequence[str], scratch: int) -> None:
        self.tier = tier
        self.workdir = tempfile.mkdtemp(prefix="soarctl-jail-") if tier in ("unsafe", "command") else None
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        package = str(Path(__file__).resolve().parents[2])
        inside = "command" if prefix else tier
        self.abi = 0
        """Of Landlock; 0 where the tier does without."""
        self.held = (0, 0)
        """What `memory` says of it when it has started."""
        try:
            self.process = self.start(theirs, [*prefix, python], package, inside, scratch)
        except (OSError, SandboxError) as error:
            failure = error.message if isinstance(error, SandboxError) else str(error)
        else:
            # Our copy of its end would keep us waiting for a server that has died.
            theirs.close()
            ours.settimeout(START_PATIENCE)
            failure = self.first_message(ours)
        finally:
            theirs.close()
        ours.settimeout(None)
        self.control = ours
        if failure:
            self.close()
            raise SandboxError(f"the {tier} sandbox does not start: {failure}")

    def start(
        self, theirs: socket.socket, command: list[str], package: str, tier: str, scratch: int
    ) -> "subprocess.Popen[bytes]":
        # Nothing of our environment goes in, but what a shared interpreter needs to be started at all.
        environment = {"PYTHONHASHSEED": "0", "PYTHONUTF8": "1", "MALLOC_ARENA_MAX": "1"}
        environment["LD_BIND_NOW"] = "1"  # or each child would look symbols up again
        if "LD_LIBRARY_PATH" in os.environ:
            environment["LD_LIBRARY_PATH"] = os.environ["LD_LIBRARY_PATH"]
        if tier == "command":  # a command such as bwrap has to be found
            environment["PATH"] = os.environ.get("PATH", os.defpath)
        descriptors = [theirs.fileno()]
        arguments = [package, tier, str(descriptors[0]), str(scratch)]
        if tier == "wasm":
            interpreter = compiled.locate()
            descriptors.append(compiled.machine_code(interpreter))
            arguments += [str(descriptors[-1]), str(interpreter.library), str(interpreter.packages)]
        try:
            return subprocess.Popen(
                [*command, "-s", "-S", "-B", "-P", "-c", BOOT, *arguments],
                pass_fds=descriptors, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                stderr=subprocess.PIPE, cwd=self.workdir or "/", start_new_session=True,
            )  # fmt: skip
        finally:
            for code in descriptors[1:]:
                os.close(code)

    def first_message(self, control: socket.socket) -> str:
        """Waits until the server is ready: nothing, or why it is not."""
        try:
            verb, _, text = (control.recv(4096) or b"failed it ended at once").decode("utf-8", "replace").partition(" ")
        except OSError as error:
            verb, text = "failed", str(error)
        said = self.hang_up_streams()
        if verb == "started":
            self.abi = int(text.split()[1])
            self.held = memory(self.process.pid) or (0, 0)
            return ""
        return f"{text}: {said}" if said else text

    def hang_up_streams(self) -> str:
        """Closes our ends of the server's standard streams, which were pipes so that Python there sees pipes."""
        said = b""
        for stream in (self.process.stderr, self.process.stdout):
            if stream is not None:
                os.set_blocking(stream.fileno(), False)
                said = said or stream.read(4096) or b""
                stream.close()
        return said.decode("utf-8", "replace").strip()[-500:]

    def send(self, message: str, descriptors: Sequence[int] = ()) -> None:
        socket.send_fds(self.control, [message.encode()], list(descriptors))

    def taken(self, pid: int) -> float:
        """Bytes that a child holds beyond what it was born with; infinite if that cannot be seen."""
        if (held := memory(pid)) is None:
            return math.inf
        (own, shared), (own_before, shared_before) = held, self.held
        # A fork has its parent's own memory from the start, but finds shared pages again only as it touches them.
        return own - own_before + max(shared - shared_before, 0)

    def close(self) -> None:
        """Hangs up, which ends the server and all its children, and waits for that."""
        self.control.close()
        process = getattr(self, "process", None)
        if process is not None:
            try:
                process.wait(timeout=2)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        if self.workdir:
            shutil.rmtree(self.workdir, ignore_errors=True)


def memory(pid: int) -> tuple[int, int] | None:
    """Bytes that a process holds, without what it maps from files on a disk: its own, and what it could share.

    None if it is gone or /proc hides it.
    """
    held = {b"RssAnon": 0, b"RssShmem": 0}
    try:
        with open(f"/proc/{pid}/status", "rb") as file:
            for line in file:
                name, _, value = line.partition(b":")
                if name in held:
                    held[name] = int(value.split()[0]) << 10
    except OSError:
        return None
    return held[b"RssAnon"], held[b"RssShmem"]
