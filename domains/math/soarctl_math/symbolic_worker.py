"""What runs Math-Verify: a process that has imported it, and copies of that process that answer requests.

Imports nothing of ours; run as a script. Over its control socket the first process is told to fork a copy, which then
serves one socket, or to kill one. A copy may be killed at any time, and a new one takes ten milliseconds.
"""

import contextlib
import json
import os
import resource
import signal
import socket
import sys
from functools import lru_cache
from typing import Any


def main(control: int, memory: int, limit: float) -> None:
    """Forks and kills copies of itself as it is told, until the control socket closes.

    Args:
        control: the number of the control socket.
        memory: bytes of address space that a copy may use.
        limit: seconds after which the kernel ends a copy that is still at one request, should nobody kill it.
    """
    nowhere = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(nowhere, stream)
    import math_verify  # pyright: ignore[reportMissingImports]
    from sympy.core.random import seed  # pyright: ignore[reportMissingImports]

    children: set[int] = set()
    with socket.socket(fileno=control) as commands:
        commands.sendall(b'{"ready": true}\n')
        while True:
            message, descriptors, _, _ = socket.recv_fds(commands, 4096, 1)
            if not message:
                break
            command = json.loads(message)
            if "kill" in command:
                _end(command["kill"], children)
                commands.sendall(b'{"killed": true}\n')
                continue
            child = os.fork()
            if child == 0:
                commands.close()
                with contextlib.suppress(BaseException):
                    _serve(math_verify, seed, descriptors[0], memory, limit)
                os._exit(0)
            os.close(descriptors[0])
            children.add(child)
            commands.sendall(json.dumps({"pid": child}).encode() + b"\n")
    for child in list(children):
        _end(child, children)


def _end(child: int, children: set[int]) -> None:
    # Nobody else waits for our children, so this number is still theirs.
    if child in children:
        children.remove(child)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def _serve(math_verify: Any, seed: Any, descriptor: int, memory: int, limit: float) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    with socket.socket(fileno=descriptor) as connection, connection.makefile("rb") as requests:
        for line in requests:
            # The default action of SIGALRM ends the process even inside a C call, where no Python handler would run.
            signal.setitimer(signal.ITIMER_REAL, limit)
            seed(0)  # SymPy tries random points: two runs are to try the same ones
            reply = _answered(math_verify, json.loads(line))
            signal.setitimer(signal.ITIMER_REAL, 0)
            connection.sendall(json.dumps(reply).encode() + b"\n")


def _answered(math_verify: Any, request: dict[str, Any]) -> dict[str, Any]:
    try:
        gold = _parsed(math_verify, request["gold"])
        if "answer" not in request:
            return {"equal": any(not isinstance(item, str) for item in gold)}
        answer = _parsed(math_verify, request["answer"])
        if not gold or not answer:
            return {"error": "parse error"}
        if all(isinstance(item, str) for item in gold) or all(isinstance(item, str) for item in answer):
            return {"equal": False}  # equal strings were accepted before we were asked
        equal = math_verify.verify(gold, answer, float_rounding=12, numeric_precision=50, timeout_seconds=None)
        return {"equal": bool(equal)}
    except MemoryError:
        os._exit(3)
    except Exception:  # whatever a foreign parser raises on hostile text
        return {"error": "parse error"}


@lru_cache(maxsize=256)
def _parsed(math_verify: Any, text: str) -> Any:
    configs = [math_verify.LatexExtractionConfig(boxed_match_priority=0), math_verify.ExprExtractionConfig()]
    return math_verify.parse(
        f"\\boxed{{{text}}}", configs, parsing_timeout=None, fallback_mode="no_fallback", raise_on_error=False
    )


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]))
