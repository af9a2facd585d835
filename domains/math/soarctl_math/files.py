"""Rows of a data file, whatever it is: a folder, JSON, JSONL, CSV or Parquet, compressed or not, from disk or the hub.

What is wrong with a file is counted with the places where it stands, and read past where something is left to read.
"""

import csv
import io
import json
import tarfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from soarctl.api import DataError

HUB = "hub:"
_SHOWN = 5
MAX_BYTES = 4 << 30
"""Of an uncompressed file. MATH has 10 MB; a gzip bomb has more than this."""
Row = Mapping[str, Any]


@dataclass
class Report:
    """What a file holds that cannot be used, by kind, with the first places of each."""

    path: str
    counts: dict[str, int] = field(default_factory=dict[str, int])
    places: dict[str, list[str]] = field(default_factory=dict[str, list[str]])

    def note(self, kind: str, place: str) -> None:
        self.counts[kind] = self.counts.get(kind, 0) + 1
        shown = self.places.setdefault(kind, [])
        if len(shown) < _SHOWN:
            shown.append(place)

    def lines(self) -> list[str]:
        """One line per kind, such as `row without an answer: 2 (line 12, line 80)`."""
        return [
            f"{kind}: {count} ({', '.join(self.places[kind])}{', ...' if count > _SHOWN else ''})"
            for kind, count in self.counts.items()
        ]


def rows(
    path: str, report: Report, *, config: str | None = None, split: str | None = None
) -> Iterator[tuple[str, Row]]:
    """(where it stands, row) for all rows of a file, a folder of JSON files, or `hub:OWNER/NAME`.

    Args:
        path: what to read.
        report: takes what cannot be read.
        config: of a data set on the hub.
        split: of a data set on the hub.

    Raises:
        DataError: it is missing or is no file of rows.
    """
    if path.startswith(HUB):
        yield from _hub(path.removeprefix(HUB), config, split)
        return
    place = Path(path).expanduser()
    if place.is_dir():
        files = sorted(
            place.rglob("*.json"), key=lambda file: [_natural(part) for part in file.relative_to(place).parts]
        )
        if not files:
            raise DataError("the folder holds no .json files", at=path, hint="MATH is MATH/test/<subject>/<n>.json")
        for file in files:
            yield from _members(str(file.relative_to(place)), file.read_bytes(), report)
        return
    if not place.is_file():
        raise DataError("no such file", at=path, hint="a local path, or hub:OWNER/NAME for a data set on the hub")
    suffixes = [suffix.lower() for suffix in place.suffixes]
    if suffixes[-1:] == [".parquet"]:
        yield from _parquet(place)
    elif ".tar" in suffixes or suffixes[-1:] == [".tgz"]:
        yield from _tar(place, report)
    else:
        yield from _text(place, suffixes, report)


def _natural(part: str) -> tuple[int, str]:
    stem = part.partition(".")[0]
    return (int(stem), "") if stem.isdigit() and len(stem) < 10 else (-1, part)


def _hub(name: str, config: str | None, split: str | None) -> Iterator[tuple[str, Row]]:
    try:
        from datasets import load_dataset  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise DataError(
            "reading from the hub needs the package `datasets`", at=f"hub:{name}", hint="pip install 'soarctl[data]'"
        ) from error
    try:
        loaded: Any = load_dataset(name, config, split=split or "test")
    except Exception as error:  # whatever a foreign loader raises: no network, no such data set, no such split
        raise DataError(f"the hub did not give it: {error}", at=f"hub:{name}") from error
    for index, row in enumerate(loaded):
        yield f"row {index}", row


def _parquet(path: Path) -> Iterator[tuple[str, Row]]:
    try:
        from pyarrow import parquet  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise DataError("Parquet needs pyarrow", at=str(path), hint="pip install 'soarctl[data]'") from error
    try:
        table: Any = parquet.read_table(path)
    except (OSError, ValueError) as error:
        raise DataError(f"not a Parquet file: {error}", at=str(path)) from error
    for index, row in enumerate(table.to_pylist()):
        yield f"row {index}", row


def _tar(path: Path, report: Report) -> Iterator[tuple[str, Row]]:
    try:
        with tarfile.open(path) as archive:
            for member in archive:
                if member.isfile() and member.name.endswith(".json") and member.size < MAX_BYTES:
                    content = archive.extractfile(member)
                    if content is not None:
                        yield from _members(member.name, content.read(), report)
    except (tarfile.TarError, EOFError, OSError) as error:
        if not isinstance(error, (tarfile.ReadError, EOFError)):
            raise DataError(f"cannot read: {error}", at=str(path)) from error
        report.note("archive cut off", f"{path.name}: {error}")


def _members(name: str, content: bytes, report: Report) -> Iterator[tuple[str, Row]]:
    try:
        value = json.loads(_decoded(content, name, report))
    except ValueError:
        report.note("file that is not JSON", name)
        return
    for index, row in enumerate(value if isinstance(value, list) else [value]):
        if isinstance(row, dict):
            yield name if index == 0 else f"{name}[{index}]", row
        else:
            report.note("entry that is no object", f"{name}[{index}]")


def _text(path: Path, suffixes: list[str], report: Report) -> Iterator[tuple[str, Row]]:
    content = _bytes(path, report)
    if b"\0" in content[:4096]:
        raise DataError("a binary file, not rows of text", at=str(path), hint="JSON, JSONL, CSV or Parquet is read")
    if ".csv" in suffixes or ".tsv" in suffixes:
        delimiter = "\t" if ".tsv" in suffixes else ","
        reader = csv.DictReader(io.StringIO(_decoded(content, path.name, report), newline=""), delimiter=delimiter)
        try:
            for row in reader:
                yield f"line {reader.line_num}", row
        except csv.Error as error:
            raise DataError(f"not CSV: {error}", at=f"{path}:{reader.line_num}") from error
    elif content.lstrip()[:1] == b"[":
        yield from _members(path.name, content, report)
    else:
        yield from _json_lines(content, report)


def _json_lines(content: bytes, report: Report) -> Iterator[tuple[str, Row]]:
    for number, line in enumerate(content.split(b"\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(_decoded(line, f"line {number}", report))
        except ValueError:
            report.note("line that is not JSON", f"line {number}")
            continue
        if isinstance(row, dict):
            yield f"line {number}", row
        else:
            report.note("line that is no object", f"line {number}")


def _bytes(path: Path, report: Report) -> bytes:
    """The content, decompressed; what could be read of it, where it is cut off."""
    with path.open("rb") as raw:
        if raw.read(2) != b"\x1f\x8b":
            raw.seek(0)
            return raw.read()
        raw.seek(0)
        parts: list[bytes] = []
        size, stream, problem = 0, zlib.decompressobj(31), ""
        while not problem and (block := stream.unused_data or raw.read(1 << 18)):
            if stream.eof:
                stream = zlib.decompressobj(31)  # a file may hold several streams
            try:
                parts.append(stream.decompress(block, 1 << 24))
                while stream.unconsumed_tail:
                    parts.append(stream.decompress(stream.unconsumed_tail, 1 << 24))
                    size += len(parts[-1])
                    if size > MAX_BYTES:
                        raise DataError(f"decompresses to more than {MAX_BYTES >> 30} GiB", at=str(path))
            except zlib.error as error:
                problem = str(error)
        if not problem and not stream.eof:
            problem = "it ends too early"
        if problem:
            report.note("gzip stream cut off or damaged", f"after line {sum(p.count(10) for p in parts)}: {problem}")
        return b"".join(parts)


def _decoded(content: bytes, place: str, report: Report) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        report.note("not UTF-8, read as Windows-1252", place)
        return content.decode("cp1252", errors="replace")
