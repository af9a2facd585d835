"""Puzzles from a data file, and how a text is recognised as one of them with other arguments.

A puzzle is a function `sat` that takes a witness first and arguments with defaults after it:

    def sat(factors: List[int], n=141752, num_factors=6): ...

The functions come from the data file, which is trusted as code is. Questions are not: a question counts only if it is
one of these functions, up to the values of its defaults. So no code that a model wrote is ever run.
"""

import ast
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from gzip import decompress
from pathlib import Path
from typing import Any, cast

from soarctl.api import DataError

LONGEST = 4000
_FORBIDDEN = frozenset(
    [
        "eval",
        "exec",
        "compile",
        "open",
        "input",
        "__import__",
        "globals",
        "locals",
        "vars",
        "getattr",
        "setattr",
        "delattr",
        "breakpoint",
        "exit",
        "quit",
    ]
)


@dataclass(frozen=True)
class Puzzle:
    """A puzzle function with its arguments."""

    name: str
    family: str
    """The name without its number: all puzzles of a family are one function with other arguments."""
    question: str
    """Its source, as `ast.unparse` writes it."""
    kind: str
    """The type of a witness: "List[int]"."""


@cache
def read(path: Path) -> tuple[Puzzle, ...]:
    """The puzzles of a file whose functions can be trusted with any witness.

    Raises:
        DataError: the file is missing, unreadable, or holds no puzzle.
    """
    try:
        rows = json.loads(decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes())
        puzzles = [puzzle for row in rows if (puzzle := _puzzle(row["name"], row["sat"], row["ans_type"]))]
    except (OSError, EOFError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"cannot be read as puzzles: {error!r}", at=str(path)) from error
    if not puzzles:
        raise DataError("holds no puzzle", at=str(path))
    # Some functions stand there twice.
    return tuple({puzzle.question: puzzle for puzzle in reversed(puzzles)}.values())[::-1]


@cache
def shapes(path: Path) -> Mapping[str, Puzzle]:
    """The puzzles by their source without the values of defaults."""
    return {shape(ast.parse(puzzle.question)): puzzle for puzzle in reversed(read(path))}


def recognise(question: str, path: Path) -> Puzzle | None:
    """The known puzzle that a text is, up to the values of its defaults."""
    if len(question) > LONGEST:
        return None
    try:
        tree = ast.parse(question)
        return shapes(path).get(shape(tree)) if _plain_defaults(tree) else None
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def with_arguments(puzzle: Puzzle, arguments: Mapping[str, Any]) -> str | None:
    """The puzzle's source with other values of its defaults; None where it has no such argument of that type."""
    tree = ast.parse(puzzle.question)
    places = _defaults(tree)
    if not arguments.keys() <= places.keys():
        return None
    function = _function(tree)
    for name, value in arguments.items():
        before = ast.literal_eval(function.args.defaults[places[name]])
        if type(value) is not type(before):
            return None
        function.args.defaults[places[name]] = ast.parse(repr(value), mode="eval").body
    return ast.unparse(tree)


def shape(tree: ast.Module) -> str:
    """The source without the values of defaults. Changes the tree."""
    function = _function(tree)
    function.args.defaults = [ast.Constant(None) for _ in function.args.defaults]
    return ast.unparse(tree)


def _puzzle(name: str, sat: str, kind: str) -> Puzzle | None:
    if len(sat) > LONGEST:
        return None
    tree = ast.parse(sat)
    trusted = _plain_defaults(tree) and not any(map(_is_dangerous, ast.walk(tree)))
    return Puzzle(name, name.partition(":")[0], ast.unparse(tree), kind) if trusted else None


def _is_dangerous(node: ast.AST) -> bool:
    """Whether a witness could make this part of a puzzle do something else than compute."""
    match node:
        case ast.Import() | ast.ImportFrom() | ast.Global():
            return True
        case ast.Name(id=name):
            return name in _FORBIDDEN or name.startswith("__")
        case ast.Attribute(attr=name):
            return name.startswith("_") or name in ("format", "format_map")
        case _:
            return False


def _function(tree: ast.Module) -> ast.FunctionDef:
    match tree.body:
        case [ast.FunctionDef(name="sat") as function] if function.args.args and not function.decorator_list:
            return function
        case _:
            raise ValueError("not a puzzle function")


def _defaults(tree: ast.Module) -> dict[str, int]:
    """Each argument after the witness, with the place of its default."""
    function = _function(tree)
    named = function.args.args[-len(function.args.defaults) :] if function.args.defaults else []
    return {argument.arg: place for place, argument in enumerate(named)}


def _plain_defaults(tree: ast.Module) -> bool:
    try:
        return all(ast.literal_eval(default) is not ... for default in _function(tree).args.defaults)
    except (ValueError, TypeError):
        return False


def read_call(text: str) -> tuple[str, dict[str, Any]] | None:
    """Name and arguments of `Name(n=3, text='a')`; None for anything else."""
    try:
        call = ast.parse(text.strip(), mode="eval").body
        match call:
            case ast.Call(func=ast.Name(id=name), args=[], keywords=keywords):
                named = cast(Sequence[ast.keyword], keywords)
                return name, {str(word.arg): ast.literal_eval(word.value) for word in named if word.arg}
            case _:
                return None
    except (SyntaxError, ValueError, TypeError, RecursionError, MemoryError):
        return None
