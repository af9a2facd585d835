"""Runs puzzle functions on witnesses: a program that reads JSON lines and answers each with one.

A witness is read as a literal and never run. What it can still do is to take time and memory: of both there is so much,
and the process that asks kills this one when an answer is late.
"""

import ast
import json
import math
import re
import resource
import sys
from collections.abc import Callable
from functools import lru_cache
from typing import Any

MEGABYTES = 1024
LONGEST = 20_000
_BUILTINS = {
    name: getattr(__import__("builtins"), name)
    for name in [
        "abs",
        "all",
        "any",
        "bin",
        "bool",
        "chr",
        "complex",
        "dict",
        "divmod",
        "enumerate",
        "filter",
        "float",
        "frozenset",
        "hash",
        "hex",
        "int",
        "isinstance",
        "iter",
        "len",
        "list",
        "map",
        "max",
        "min",
        "next",
        "oct",
        "ord",
        "pow",
        "range",
        "repr",
        "reversed",
        "round",
        "set",
        "slice",
        "sorted",
        "str",
        "sum",
        "tuple",
        "type",
        "zip",
        "ArithmeticError",
        "AssertionError",
        "Exception",
        "IndexError",
        "KeyError",
        "TypeError",
        "ValueError",
        "ZeroDivisionError",
        "StopIteration",
        "True",
        "False",
        "None",
    ]
    if name not in ("True", "False", "None")
}


@lru_cache(maxsize=512)
def compiled(source: str) -> Callable[[Any], object]:
    world: dict[str, Any] = {"__builtins__": _BUILTINS, "math": math, "re": re}
    # Annotations are names of typing, which a puzzle does not need to run.
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.arg):
            node.annotation = None
        if isinstance(node, ast.FunctionDef):
            node.returns = None
    exec(compile(tree, "puzzle", "exec"), world)
    return world["sat"]


def judge(source: str, kind: str, witness: str) -> tuple[str, str]:
    """Outcome and reason."""
    if len(witness) > LONGEST:
        return "unparsed", "too long"
    try:
        value = ast.literal_eval(witness.strip())
    except (SyntaxError, ValueError, TypeError, RecursionError, MemoryError):
        return "unparsed", "not a literal"
    if not fits(value, kind):
        return "wrong", "another type"
    try:
        verdict = compiled(source)(value)
    except MemoryError:
        return "crashed", "out of memory"
    except Exception:  # a checker that asserts and indexes says no in many ways
        return "wrong", "the checker raised"
    return ("correct", "") if verdict is True else ("wrong", "the checker said no")


def fits(value: object, kind: str) -> bool:
    """Whether a value is of a type such as `List[List[int]]`; an int is no float and a bool no int, as in the data."""
    if kind.startswith("List["):
        return isinstance(value, list) and all(fits(item, kind[5:-1]) for item in value)
    return type(value).__name__ == kind


def main() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MEGABYTES << 20, MEGABYTES << 20))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    for line in sys.stdin:
        job = json.loads(line)
        outcome, reason = judge(job["source"], job["kind"], job["witness"])
        print(json.dumps({"outcome": outcome, "reason": reason}), flush=True)


if __name__ == "__main__":
    main()
