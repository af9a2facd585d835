"""Values between processes that do not trust each other: plain data only, with exact types, as tagged JSON.

None, booleans and text stand for themselves; everything else is a list whose first element names the type:

    ["i", "-0x1f"]  ["f", "0x1.8p+0"]  ["c", re, im]  ["b", "hex"]  ["l", ...]  ["t", ...]  ["s", ...]  ["z", ...]
    ["d", key, value, ...]  ["r", start, stop, step]
    ["y", "int"]                 one of the builtin types in TYPES itself
    ["n", "Fraction", content]   an instance of one of the library's types in PACKED, with what it is made of
    ["x", type name, content]    an instance of a subclass of a plain type, with its plain content
    ["o", type name, truth]      anything else

Nothing is ever unpickled or evaluated. A reader of a tree decides what it wants to build from it.
"""

import collections
import datetime
import itertools
import json
import math
import os
import types
from abc import ABCMeta
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from typing import Any

DEPTH = 60
SIZE = 1 << 20
ARGUMENTS = 4 * SIZE  # of a test, which writes them down or makes them: an answer is as long as a program likes
ITEMS = SIZE // 4  # an element takes about four bytes at least

TYPES = {
    kind.__name__: kind
    for kind in (bool, int, float, complex, str, bytes, list, tuple, set, frozenset, dict, range, object, type(None))
}


def values_of(items: list[Any]) -> Any:
    return dict(enumerate(items)).values()


# Types of the library that programs like to return: how to take an instance apart, and how to make one.
PACKED: dict[type, tuple[Callable[[Any], Any], Callable[[Any], Any]]] = {
    Fraction: (lambda value: (value.numerator, value.denominator), lambda parts: Fraction(*parts)),
    Decimal: (str, Decimal),
    datetime.date: (datetime.date.isoformat, datetime.date.fromisoformat),
    datetime.time: (datetime.time.isoformat, datetime.time.fromisoformat),
    datetime.datetime: (datetime.datetime.isoformat, datetime.datetime.fromisoformat),
    datetime.timedelta: (lambda v: (v.days, v.seconds, v.microseconds), lambda parts: datetime.timedelta(*parts)),
    bytearray: (bytes, bytearray),
    collections.deque: (list, collections.deque),
    collections.Counter: (dict, collections.Counter),
    collections.OrderedDict: (dict, collections.OrderedDict),
    collections.defaultdict: (dict, lambda items: collections.defaultdict(None, items)),
    type({}.keys()): (list, lambda items: dict.fromkeys(items).keys()),
    type({}.values()): (list, values_of),
    type({}.items()): (dict, dict.items),
}
NAMED = {kind.__name__: unpack for kind, (_, unpack) in PACKED.items()} | {"iterator": iter}
ITERATORS = frozenset(
    [types.GeneratorType, map, filter, zip, enumerate, reversed]
    + [type(iter(some)) for some in ([], (), "", "\xe9", b"", range(1), set[int](), {}, {}.values(), {}.items())]
    + [kind for kind in vars(itertools).values() if isinstance(kind, type)]
)

RESULT, JOB, ASK, REPLY = 3, 4, 5, 6  # descriptors in a child

Tree = Any  # None | bool | str | list[Tree]: JSON without objects and numbers


class Undecodable(Exception):
    """What was sent is not a value."""


class TooLarge(Exception):
    """A value has more elements than an answer may."""


class Uncrossable(Exception):
    """A value, or a part of it, is of no type that crosses."""


class Opaque:
    """A value that did not cross: only its type's name and its truth are known."""

    def __init__(self, name: str, truth: bool) -> None:
        self.name = name
        self.truth = truth

    def __bool__(self) -> bool:
        return self.truth

    def __repr__(self) -> str:
        return f"<{self.name} object>"


def encode(value: Any, items: int = ITEMS) -> Tree:
    """A value as a tree; what is nested deeper than DEPTH becomes opaque.

    Runs beside untrusted code, so it uses no method that a value could override, but for the truth of opaque ones.

    Raises:
        TooLarge: it has more than `items` elements in all.
    """
    return _encode(value, DEPTH, [items])


def opaque_part(tree: Tree) -> str:
    """The type's name of something in a tree that did not cross, or nothing."""
    if not isinstance(tree, list):
        return ""
    if tree[:1] == ["o"]:
        return str(tree[1])
    return next(filter(None, map(opaque_part, tree)), "")


def _encode(value: Any, depth: int, room: list[int]) -> Tree:
    kind = type(value)
    if value is None or kind is bool or kind is str:
        return value
    if kind is int:
        return ["i", hex(value)]
    if kind is float:
        return ["f", float.hex(value)]
    if kind is list or kind is tuple or kind is set or kind is frozenset or kind is dict:
        room[0] -= len(value)
        if room[0] < 0:
            raise TooLarge
        if depth <= 0:
            return ["o", kind.__name__, bool(value)]
        if kind is dict:
            flat = ["d"]
            for key, item in value.items():
                flat += [_encode(key, depth - 1, room), _encode(item, depth - 1, room)]
            return flat
        tag = "l" if kind is list else "t" if kind is tuple else "s" if kind is set else "z"
        return [tag, *[_encode(item, depth - 1, room) for item in value]]
    if kind is bytes:
        return ["b", value.hex()]
    if kind is complex:
        return ["c", value.real.hex(), value.imag.hex()]
    if kind is range:
        return ["r", hex(value.start), hex(value.stop), hex(value.step)]
    if kind is type and TYPES.get(value.__name__) is value:
        return ["y", value.__name__]
    honest = type(kind) is type or type(kind) is ABCMeta  # another metaclass may lie about what its types equal
    if honest and kind in PACKED:
        return ["n", kind.__name__, _encode(PACKED[kind][0](value), depth - 1, room)]
    if honest and kind in ITERATORS:
        # Without end it is too large.
        return ["n", "iterator", _encode(list(itertools.islice(value, room[0] + 1)), depth - 1, room)]
    return _encode_foreign(value, depth, room)


def _encode_foreign(value: Any, depth: int, room: list[int]) -> Tree:
    """An instance of another class: its plain content where it derives from a plain type."""
    name = str(type(value).__name__)[:80]
    if isinstance(value, str):
        return ["x", name, str.__str__(value)]
    if isinstance(value, int):
        return ["x", name, ["i", hex(int.__index__(value))]]
    if isinstance(value, float):
        return ["x", name, ["f", float.hex(value)]]
    if isinstance(value, (list, tuple, set, frozenset)):
        base: Any = next(base for base in type(value).__mro__ if base in (list, tuple, set, frozenset))
        return ["x", name, _encode(base(base.__iter__(value)), depth, room)]
    if isinstance(value, dict):
        return ["x", name, _encode(dict(dict.items(value)), depth, room)]
    return ["o", name, bool(value)]


def decode(tree: Tree, depth: int = DEPTH) -> Any:
    """The value of a tree, built whole. Only inside the jail: a hostile set or dict can cost quadratic time.

    Raises:
        Undecodable: it is no value.
    """
    if tree is None or isinstance(tree, (bool, str)):
        return tree
    if depth <= 0 or not isinstance(tree, list) or not tree or not isinstance(tree[0], str):
        raise Undecodable("not a tagged value")
    tag, rest = tree[0], tree[1:]
    try:
        match tag:
            case "i" | "f" | "c" | "b" | "r":
                return decode_scalar(tag, rest)
            case "l":
                return [decode(item, depth - 1) for item in rest]
            case "t":
                return tuple([decode(item, depth - 1) for item in rest])
            case "s" | "z":
                items = [decode(item, depth - 1) for item in rest]
                return set(items) if tag == "s" else frozenset(items)
            case "d":
                flat = [decode(item, depth - 1) for item in rest]
                return dict(zip(flat[::2], flat[1::2], strict=True))
            case "y":
                return TYPES[rest[0]]
            case "n":
                return NAMED[rest[0]](decode(rest[1], depth - 1))
            case "x":
                return decode(rest[1], depth)
            case "o":
                return Opaque(str(rest[0]), rest[1] is True)
            case _:
                raise Undecodable(f"unknown tag {tag[:20]!r}")
    except (ValueError, TypeError, IndexError, KeyError, ArithmeticError, RecursionError) as error:
        raise Undecodable(type(error).__name__) from None


def decode_scalar(tag: str, rest: list[str]) -> Any:
    match tag:
        case "i":
            return int(rest[0], 16)
        case "f":
            return float.fromhex(rest[0])
        case "c":
            return complex(float.fromhex(rest[0]), float.fromhex(rest[1]))
        case "b":
            return bytes.fromhex(rest[0])
        case _:
            return range(int(rest[0], 16), int(rest[1], 16), int(rest[2], 16))


def matches(tree: Tree, expected: Any, *, sequences_alike: bool = False) -> bool:
    """Whether a tree is the expected plain value: same types and content; int, float and bool compare by value.

    It builds nothing whose size differs from what is expected, so that a hostile answer costs its own length at most.

    Args:
        tree: what an untrusted process sent.
        expected: plain data.
        sequences_alike: lists and tuples are the same thing, for expected values that come from JSON.
    """
    try:
        return _matches(tree, expected, sequences_alike, DEPTH)
    except (Undecodable, ValueError, TypeError, IndexError, OverflowError, RecursionError):
        return False


def _matches(tree: Tree, expected: Any, alike: bool, depth: int) -> bool:
    if tree is None or isinstance(tree, str):
        return type(tree) is type(expected) and tree == expected
    if isinstance(expected, (bool, int, float)):
        return _same_number(tree, expected)
    if depth <= 0 or not isinstance(tree, list) or not tree:
        return False
    tag, rest = tree[0], tree[1:]
    kind = type(expected)
    if kind in (list, tuple):
        if tag not in (("l", "t") if alike else ("l" if kind is list else "t",)) or len(rest) != len(expected):
            return False
        return all(_matches(t, e, alike, depth - 1) for t, e in zip(rest, expected, strict=True))
    if kind in (set, frozenset):
        if tag != ("s" if kind is set else "z") or len(rest) != len(expected):
            return False
        return {spelt(item) for item in rest} == {spelt(encode(item)) for item in expected}
    if kind is dict:
        if tag != "d" or len(rest) != 2 * len(expected):
            return False
        found = dict(zip([spelt(key) for key in rest[::2]], rest[1::2], strict=True))
        wanted = {spelt(encode(key)): value for key, value in expected.items()}
        return found.keys() == wanted.keys() and all(
            _matches(found[key], value, alike, depth - 1) for key, value in wanted.items()
        )
    return tag in "bcr" and type(value := decode_scalar(tag, rest)) is kind and value == expected


def spelt(tree: Tree, depth: int = DEPTH) -> str:
    """One text for all trees of equal hashable values.

    Texts, because numbers that a program chooses can all have the same hash, and a set of them costs quadratic time.

    Raises:
        Undecodable: it is no plain hashable value.
    """
    if tree is None or isinstance(tree, str):
        return repr(tree)
    if isinstance(tree, bool):
        return hex(tree)
    if depth <= 0 or not isinstance(tree, list) or not tree:
        raise Undecodable("not a tagged value")
    tag, rest = tree[0], tree[1:]
    if tag in ("t", "z"):
        parts = [spelt(item, depth - 1) for item in rest]
        return f"{tag}({','.join(parts if tag == 't' else sorted(set(parts)))})"
    if tag not in ("i", "f", "c", "b", "r"):
        raise Undecodable("not a plain hashable value")
    value = decode_scalar(tag, rest)
    if isinstance(value, complex) and value.imag == 0:
        value = value.real
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return hex(value) if isinstance(value, int) else repr(value)


def _same_number(tree: Tree, expected: bool | int | float) -> bool:
    if isinstance(tree, bool):
        return tree == expected
    if not isinstance(tree, list) or len(tree) != 2 or tree[0] not in ("i", "f"):
        return False
    value = decode_scalar(tree[0], tree[1:])
    return value == expected or (value != value and isinstance(expected, float) and math.isnan(expected))


def _no_number(text: str) -> Any:
    raise ValueError(f"numbers are sent as text, not as {text[:20]}")


_READER = json.JSONDecoder(parse_int=_no_number, parse_float=_no_number, parse_constant=_no_number)


_WRITER = json.JSONEncoder(separators=(",", ":"), check_circular=False)


def dumps(tree: Tree) -> bytes:
    """One frame: four bytes of length, then JSON in ASCII."""
    return framed(_WRITER.encode(tree).encode())


def framed(body: bytes) -> bytes:
    return len(body).to_bytes(4, "little") + body


def loads(body: bytes) -> Tree:
    """The tree of a frame's body.

    Raises:
        Undecodable: it is not JSON, or holds objects or numbers.
    """
    try:
        return _READER.decode(body.decode("ascii"))
    except (ValueError, RecursionError):
        raise Undecodable("not a frame") from None


def frames(data: bytes) -> list[Tree]:
    """All whole frames at the start of `data`; reading stops at the first thing that is none."""
    found: list[Tree] = []
    at = 0
    while at + 4 <= len(data):
        size = int.from_bytes(data[at : at + 4], "little")
        if size > SIZE or at + 4 + size > len(data):
            break
        try:
            found.append(loads(data[at + 4 : at + 4 + size]))
        except Undecodable:
            break
        at += 4 + size
    return found


def send(descriptor: int, tree: Tree) -> None:
    """Writes one frame, all of it."""
    write(descriptor, dumps(tree))


def write(descriptor: int, data: bytes) -> None:
    """Writes all of it."""
    while data:
        data = data[os.write(descriptor, data) :]


def receive(descriptor: int, most: int = SIZE) -> Tree:
    """Reads one frame of at most so many bytes.

    Raises:
        EOFError: the other end is gone.
        Undecodable: it is too large or no frame.
    """
    size = int.from_bytes(_exactly(descriptor, 4), "little")
    if size > most:
        raise Undecodable("too large")
    return loads(_exactly(descriptor, size))


def _exactly(descriptor: int, size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
        chunk = os.read(descriptor, size - len(data))
        if not chunk:
            raise EOFError
        data += chunk
    return bytes(data)
