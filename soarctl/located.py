"""YAML text to values that know where they stand.

Plain scalars are read as YAML 1.2 reads them, so `1e-5` is a number and `no` is text. Tags, merge keys, several
documents, NaN and infinity have no use in a spec and are refused. Size, depth and the expansion of aliases are bounded,
because a spec may come from anywhere.
"""

import json
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias, cast

import yaml

from soarctl.errors import SoarError, SpecError

MAX_BYTES = 2**20
MAX_VALUES = 10_000
MAX_DEPTH = 20
MAX_SHOWN = 20

OPTION = "--set "
"""How a source begins that is an option of the command line and not a file."""

Key: TypeAlias = tuple[str | int, ...]


def clipped(text: str, limit: int = 60) -> str:
    """Text from a spec as an error quotes it: on one line, never long, and harmless to a terminal."""
    short = text if len(text) <= limit else text[: limit - 3] + "..."
    return short if short.isprintable() else short.encode("unicode_escape").decode("ascii")


def dotted(key: Key) -> str:
    """A key as people write it: `evaluation.k[2]`."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{clipped(part)}" for part in key).removeprefix(".")


@dataclass(frozen=True, slots=True)
class Place:
    """A line and column of a file, counted from 1, or an option of the command line, which has neither."""

    source: str
    line: int = 0
    column: int = 0

    def __str__(self) -> str:
        return f"{self.source}:{self.line}:{self.column}" if self.line else clipped(self.source, 200)

    def of(self, key: str) -> str:
        """The place together with the key that stands there, for the front of an error."""
        # "--set teacher.lr=abc" names its key already.
        return str(self) if not key or self.source.startswith(f"{OPTION}{key}=") else f"{self}: {key}"


@dataclass(frozen=True, slots=True)
class Located:
    """A value of a spec with the place of its key, or of itself where it is an item of a list."""

    value: "bool | int | float | str | list[Located] | dict[str, Located] | None"
    place: Place
    size: int = 1
    """Values in it, itself included, with aliases expanded."""
    height: int = 1

    def plain(self) -> Any:
        """The value without places."""
        match self.value:
            case dict() as entries:
                return {key: entry.plain() for key, entry in entries.items()}
            case list() as items:
                return [item.plain() for item in items]
            case scalar:
                return scalar

    def walk(self, key: Key = ()) -> Iterator[tuple[Key, "Located"]]:
        """This value and all values in it, each with its key."""
        yield key, self
        match self.value:
            case dict() as entries:
                for name, entry in entries.items():
                    yield from entry.walk((*key, name))
            case list() as items:
                for index, item in enumerate(items):
                    yield from item.walk((*key, index))
            case _:
                pass


class SpecProblems(SpecError):
    """All that was found wrong at once: a single problem as it is, several in a block each."""

    def __init__(self, problems: Sequence[SoarError], source: str) -> None:
        self.problems = list(problems)
        if len(self.problems) == 1:
            [only] = self.problems
            super().__init__(only.message, at=only.at, hint=only.hint)
            return
        blocks = [str(problem) for problem in self.problems[:MAX_SHOWN]]
        if len(self.problems) > MAX_SHOWN:
            blocks.append(f"... and {len(self.problems) - MAX_SHOWN} more")
        super().__init__(f"{len(self.problems)} problems", at=source, hint="\n".join(blocks))


def decode(data: bytes, source: str) -> str:
    """The text of a file.

    Raises:
        SpecError: it is not UTF-8.
    """
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = data[: error.start].decode("utf-8-sig")
        raise SpecError(
            f"not UTF-8: found the byte 0x{data[error.start]:02x}",
            at=str(_place_after(before, source)),
            hint="save the file as UTF-8",
        ) from None


def parse(text: str, source: str) -> Located | None:
    """The one YAML document in `text`; None where there is none.

    Args:
        text: YAML, at most MAX_BYTES of it.
        source: what error messages call it: the file as the user named it, or the option `--set key=value`.

    Raises:
        SpecError: it is not YAML, or uses what a spec may not use. Names every problem that was found.
    """
    _refuse_control_characters(text, source)
    builder = _Builder(source)
    try:
        for event in yaml.parse(text, Loader=_Loader):
            builder.take(event)
    except _Stop:
        pass
    except yaml.MarkedYAMLError as error:
        builder.problems.append(_syntax_problem(error, text, source))
    except yaml.YAMLError as error:
        builder.problems.append(SpecError(f"not valid YAML: {error}", at=source))
    if builder.problems:
        raise SpecProblems(builder.problems, source)
    return builder.root


_Loader = cast("type[yaml.SafeLoader]", getattr(yaml, "CSafeLoader", yaml.SafeLoader))

# What YAML itself forbids, and half a surrogate pair, which is how Python keeps a command line that is not UTF-8.
_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f\ud800-\udfff\ufffe\uffff]")
_NULLS = ("", "~", "null", "Null", "NULL")
_BOOLS = {word: word.lower() == "true" for word in ("true", "True", "TRUE", "false", "False", "FALSE")}
_DECIMAL = re.compile(r"[-+]?[0-9]+")
_PREFIXED = re.compile(r"0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_NOT_FINITE = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_MAX_DIGITS = 300


class _Stop(Exception):
    """Reading on makes no sense."""


class _Unusable(Exception):
    """A scalar that is no value."""


def _resolve(text: str) -> bool | int | float | str | None:
    """The value of a plain scalar under the core schema of YAML 1.2."""
    if text in _NULLS:
        return None
    if text in _BOOLS:
        return _BOOLS[text]
    if _NOT_FINITE.fullmatch(text):
        raise _Unusable(f"{text} is not a number that a spec can use")
    prefixed = _PREFIXED.fullmatch(text)
    if not prefixed and not _FLOAT.fullmatch(text):
        return text
    if len(text) > _MAX_DIGITS:
        raise _Unusable(f"a number of {len(text)} characters")
    if prefixed:
        return int(text, 0)
    if _DECIMAL.fullmatch(text):
        return int(text)
    number = float(text)
    if math.isinf(number):
        raise _Unusable(f"{clipped(text)} is too large for a number")
    return number


@dataclass(slots=True)
class _Open:
    """A list or mapping whose end has not come yet."""

    place: Place
    anchor: str | None
    mapping: bool
    items: list[Located] = field(default_factory=list[Located])
    entries: dict[str, Located] = field(default_factory=dict[str, Located])
    size: int = 1
    height: int = 1
    key: str | None = None
    key_place: Place | None = None
    """None while the next node is a key."""


class _Builder:
    def __init__(self, source: str) -> None:
        self.source = source
        self.problems: list[SoarError] = []
        self.root: Located | None = None
        self._documents = 0
        self._values = 0
        self._open: list[_Open] = []
        self._anchors: dict[str, Located] = {}

    def take(self, event: Any) -> None:
        place = _place(self.source, event.start_mark.line, event.start_mark.column)
        if getattr(event, "tag", None) is not None:
            self._problem(f"the tag {_shown_tag(event.tag)} is not allowed", place, "a spec needs no tags")
        match event:
            case yaml.DocumentStartEvent():
                self._documents += 1
                if self._documents > 1:
                    raise self._fatal("a second document starts here", place, "one file holds one spec")
            case yaml.AliasEvent():
                self._alias(event.anchor or "", place)
            case yaml.ScalarEvent():
                self._count(1, place)
                self._add(Located(self._scalar(event, place), place), event.anchor)
            case yaml.SequenceStartEvent() | yaml.MappingStartEvent():
                if len(self._open) >= MAX_DEPTH:
                    raise self._fatal(f"nested deeper than {MAX_DEPTH} levels", place)
                self._count(1, place)
                self._open.append(_Open(place, event.anchor, isinstance(event, yaml.MappingStartEvent)))
            case yaml.SequenceEndEvent() | yaml.MappingEndEvent():
                done = self._open.pop()
                value = done.entries if done.mapping else done.items
                self._add(Located(value, done.place, done.size, done.height), done.anchor)
            case _:
                pass

    def _scalar(self, event: Any, place: Place) -> bool | int | float | str | None:
        text: str = event.value
        try:
            if event.implicit[0]:
                return _resolve(text)
            if "\0" in text or any("\ud800" <= character <= "\udfff" for character in text):
                raise _Unusable("text with a character that files and terminals cannot hold")
        except _Unusable as error:
            self._problem(str(error), place)
        return text

    def _alias(self, anchor: str, place: Place) -> None:
        # An anchor counts once its value is complete, so nothing can contain itself.
        if anchor not in self._anchors:
            raise self._fatal(f'the alias "*{clipped(anchor)}" stands for nothing that was complete before it', place)
        target = self._anchors[anchor]
        if len(self._open) + target.height > MAX_DEPTH + 1:
            raise self._fatal(f"nested deeper than {MAX_DEPTH} levels through aliases", place)
        self._count(target.size, place)
        self._add(replace(target, place=place), None)

    def _count(self, values: int, place: Place) -> None:
        self._values += values
        if self._values > MAX_VALUES:
            raise self._fatal(f"more than {MAX_VALUES:,} values, aliases expanded", place)

    def _add(self, node: Located, anchor: str | None) -> None:
        if anchor:
            self._anchors[anchor] = node
        parent = self._open[-1] if self._open else None
        if parent is not None:
            parent.height = max(parent.height, node.height + 1)
            parent.size += node.size
        if parent is None:
            self.root = node
        elif not parent.mapping:
            parent.items.append(node)
        elif parent.key_place is None:
            parent.key, parent.key_place = self._key(node, parent), node.place
        else:
            if parent.key is not None:
                parent.entries[parent.key] = replace(node, place=parent.key_place)
            parent.key, parent.key_place = None, None

    def _key(self, node: Located, parent: _Open) -> str | None:
        """The node as a key of `parent`; None where it cannot be one, and its value is to be dropped."""
        hint = None
        match node.value:
            case "<<":
                message, hint = "merge keys are not read", 'use "extends", or write the keys out'
            case str() as key if key in parent.entries:
                message = f'"{clipped(key)}" stands twice; first on line {parent.entries[key].place.line}'
            case str() as key:
                return key
            case list() | dict():
                message = "a key must be text, found a list or mapping"
            case value:
                word = clipped(json.dumps(value))
                message, hint = f"a key must be text, found {word}", f'put it in quotes: "{word}"'
        self._problem(message, node.place, hint)
        return None

    def _problem(self, message: str, place: Place, hint: str | None = None) -> None:
        self.problems.append(SpecError(message, at=place.of(dotted(self._path())), hint=hint))

    def _fatal(self, message: str, place: Place, hint: str | None = None) -> _Stop:
        self._problem(message, place, hint)
        return _Stop()

    def _path(self) -> Key:
        parts: list[str | int] = []
        for level in self._open:
            if not level.mapping:
                parts.append(len(level.items))
            elif level.key is not None:
                parts.append(level.key)
        return tuple(parts)


def _shown_tag(tag: str) -> str:
    return clipped(tag.replace("tag:yaml.org,2002:", "!!"))


def _refuse_control_characters(text: str, source: str) -> None:
    found = _CONTROL.search(text)
    if found is None:
        return
    code = ord(found.group())
    if 0xD800 <= code <= 0xDFFF:
        raise SpecError("not UTF-8", at=ascii(source)[1:-1])
    raise SpecError(
        f"the control character U+{code:04X}",
        at=str(_place_after(text[: found.start()], source)),
        hint="remove it, or write it as an escape in double quotes",
    )


def _place(source: str, line: int, column: int) -> Place:
    """From a line and column counted from 0."""
    return Place(source) if source.startswith(OPTION) else Place(source, line + 1, column + 1)


def _place_after(text: str, source: str) -> Place:
    return _place(source, text.count("\n"), len(text) - (text.rfind("\n") + 1))


def _syntax_problem(error: yaml.MarkedYAMLError, text: str, source: str) -> SpecError:
    mark = error.problem_mark or error.context_mark
    if mark is None:
        return SpecError(f"not valid YAML: {error.problem}", at=source)
    place = _place(source, mark.line, mark.column)
    lines = text.splitlines()
    line = lines[mark.line] if mark.line < len(lines) else ""
    if "\t" in line[: len(line) - len(line.lstrip())] or line[mark.column : mark.column + 1] == "\t":
        place = _place(source, mark.line, line.index("\t"))
        return SpecError("a tab where YAML wants spaces", at=str(place), hint="indent with spaces")
    since = error.context_mark
    hint = f"{error.context}, from line {since.line + 1}" if error.context and since else error.context
    return SpecError(f"not valid YAML: {error.problem}", at=str(place), hint=hint)
