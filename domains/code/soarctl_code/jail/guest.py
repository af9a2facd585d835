"""CPython as WebAssembly in the fork server: started once, and forked in the middle of a call.

The guest makes itself warm and then reads its job. In the server that call does not return: the server serves from
inside it. In each forked child it returns, with the child's job, and the guest goes on there. So a run costs a fork,
as in the other tiers, and not the start of an interpreter.

WebAssembly keeps the guest in its own memory, and its imports are all that it can call; `wasi.py` has them.
"""

import ctypes
import importlib
import mmap
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from soarctl_code.jail.wasi import Content, Wasi
from soarctl_code.jail.wire import ASK, JOB, REPLY, RESULT

wasmtime: Any = importlib.import_module("wasmtime")  # of the extra

LIBRARY = "usr/local/lib/python315.zip"  # where the interpreter looks for it
WASI = "wasi_snapshot_preview1"
GUESTS = 100  # added to a descriptor of wire: the guest's own low numbers are taken by its files
STACK = 5 << 20  # of the 8 MiB that a main thread usually has
U32, U64 = (1 << 32) - 1, (1 << 64) - 1
CRASHED = 134
INSIDE = ("wire", "child", "interpreter")

BOOT = f"""
import gc, marshal, os, sys
sys.path.append("/")
from soarctl_code.jail import wire
wire.RESULT, wire.JOB, wire.ASK, wire.REPLY = {RESULT + GUESTS}, {JOB + GUESTS}, {ASK + GUESTS}, {REPLY + GUESTS}
from soarctl_code.jail import child, interpreter
interpreter.preload(interpreter.USUAL)
interpreter.settle()
sys.path.remove("/")
os.environ.clear()
gc.collect()
gc.freeze()
job = b""
while part := os.read(wire.JOB, 1 << 16):
    job += part
child.do(marshal.loads(job))
"""


def engine() -> Any:
    config = wasmtime.Config()
    config.wasm_exceptions = True
    # wasmtime wants this to be the larger one, though nothing here is asynchronous.
    importlib.import_module("wasmtime._bindings").wasmtime_config_async_stack_size_set(config.ptr(), STACK)
    config.max_wasm_stack = STACK
    config.memory_may_move = False
    if sys.platform == "darwin":
        config.macos_use_mach_ports = False  # their thread would not be there after a fork
    return wasmtime.Engine(config)


def compiled(path: str) -> bytes:
    """Machine code of a module, for this CPU."""
    return bytes(wasmtime.Module.from_file(engine(), path).serialize())


class LateMemory:
    """The memory of an instance, which is there only after its imports."""

    def __init__(self, store: Any) -> None:
        self.store = store
        self.memory: Any = None

    def place(self, at: int, size: int) -> int:
        if at < 0 or size < 0 or at + size > self.memory.data_len(self.store):
            raise IndexError("outside of the guest's memory")
        return ctypes.addressof(self.memory.data_ptr(self.store).contents) + at

    def read(self, at: int, size: int) -> bytes:
        return ctypes.string_at(self.place(at, size), size)

    def write(self, at: int, data: bytes) -> None:
        ctypes.memmove(self.place(at, len(data)), data, len(data))


def tree(library: str) -> dict[str, Content]:
    """The guest's files: its standard library, and our modules that run inside."""
    own = Path(__file__).parent
    files: dict[str, Content] = {f"soarctl_code/jail/{name}.py": (own / f"{name}.py").read_bytes() for name in INSIDE}
    with open(library, "rb") as file:  # mapped, so that servers share it
        files[LIBRARY] = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    return {"soarctl_code/jail/__init__.py": b"", **files}


def run(machine_code: int, library: str, wait: Callable[[], bytes]) -> NoReturn:
    """Starts the guest; it ends the process when it ends.

    Args:
        machine_code: descriptor of what `compiled` gave; it is trusted.
        library: its standard library, a zip file.
        wait: gives it a job when it asks for one.
    """
    made = engine()
    module = wasmtime.Module.deserialize_file(made, f"/dev/fd/{machine_code}")
    store = wasmtime.Store(made)
    late = LateMemory(store)
    streams = {number: number for number in (0, 1, 2)} | {n + GUESTS: n for n in (RESULT, ASK, REPLY)}
    arguments = ["python", "-c", BOOT]
    wasi = Wasi(late, tree(library), arguments, {}, streams, wait, JOB + GUESTS)
    imports = [function(store, wasi, wanted) for wanted in module.imports]
    exports = wasmtime.Instance(store, module, imports).exports(store)
    late.memory = exports["memory"]
    try:
        exports["_initialize"](store)
        exports["run"](store)
    except BaseException as error:
        code = getattr(error, "trap_code", None)  # of a Trap, where it has one
        os.write(2, f"the interpreter crashed: {code.name if code else type(error).__name__}\n".encode())
    finally:
        os._exit(CRASHED)


def function(store: Any, wasi: Wasi, wanted: Any) -> Any:
    """What the guest gets for an import: a call of WASI, or one that is always refused."""
    name = wanted.name if wanted.module == WASI else ""
    masks = [U64 if kind == wasmtime.ValType.i64() else U32 for kind in wanted.type.params]
    answers = len(wanted.type.results) > 0

    def made(*arguments: int) -> int | None:
        number = wasi.call(name, [argument & mask for argument, mask in zip(arguments, masks, strict=True)])
        return number if answers else None

    return wasmtime.Func(store, wanted.type, made)
