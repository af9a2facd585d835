"""What runs in a worker process: Math-Verify, one request a line. Imports nothing of ours; may be killed at any time.

Run as a script. Requests and replies are JSON lines; the first reply says that the imports are done.
"""

import json
import os
import resource
import signal
import sys
from functools import lru_cache
from typing import Any, TextIO


def main(memory: int, limit: float) -> None:
    """Serves requests from standard input until it closes.

    Args:
        memory: bytes of address space that the process may use.
        limit: seconds after which the kernel ends the process, should its parent be gone by then.
    """
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    import math_verify  # pyright: ignore[reportMissingImports]

    _reply(replies, {"ready": True})
    for line in sys.stdin:
        # The default action of SIGALRM ends the process even inside a C call, where no Python handler would run.
        signal.setitimer(signal.ITIMER_REAL, limit)
        _reply(replies, _answered(math_verify, json.loads(line)))
        signal.setitimer(signal.ITIMER_REAL, 0)


def _reply(replies: TextIO, message: dict[str, Any]) -> None:
    replies.write(json.dumps(message) + "\n")
    replies.flush()


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
    except Exception as error:  # whatever a foreign parser raises on hostile text
        return {"error": "parse error", "detail": f"{type(error).__name__}: {error}"[:200]}


@lru_cache(maxsize=256)
def _parsed(math_verify: Any, text: str) -> Any:
    configs = [math_verify.LatexExtractionConfig(boxed_match_priority=0), math_verify.ExprExtractionConfig()]
    return math_verify.parse(
        f"\\boxed{{{text}}}", configs, parsing_timeout=None, fallback_mode="no_fallback", raise_on_error=False
    )


if __name__ == "__main__":
    main(int(sys.argv[1]), float(sys.argv[2]))
