"""Charts as inline SVG. Colours are CSS classes, so that a page shows them light or dark; nothing here knows of runs.

Text would shrink with a chart that is scaled down, so each is drawn for a phone, for half of a page, and a wide one for
the whole of it; the page shows the one that fits. What distinguishes two series is colour and dash, never colour alone.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from markupsafe import Markup, escape

Point = tuple[float, float]

_DODGE = 5
_TOP, _BOTTOM = 14, 42
_ROW = 26


@dataclass(frozen=True, slots=True)
class _Size:
    """What a drawing is made for."""

    css: str
    width: int
    height: int
    left: int
    """Where the plot begins: room for the labels of the y axis."""
    ticks: int
    """Round numbers on the x axis, about."""

    @property
    def right(self) -> int:
        """Where it ends."""
        return self.width - 14

    @property
    def bottom(self) -> int:
        return self.height - _BOTTOM


_NARROW, _MIDDLE, _BROAD = (
    _Size("narrow", 340, 240, 56, 5),
    _Size("middle", 560, 280, 66, 8),
    _Size("broad", 1140, 280, 66, 16),
)


@dataclass(frozen=True, slots=True)
class Series:
    """What is drawn in one colour."""

    name: str
    points: Sequence[Point]
    color: int
    """Which of the page's colours, from 0."""
    kind: Literal["line", "steps", "dots"] = "line"
    band: Sequence[tuple[float, float, float]] = ()
    """(x, low, high): an interval behind the line."""
    whiskers: Sequence[tuple[float, float, float]] = ()
    """(x, low, high): an upright interval beside its point, where bands would hide each other."""
    faint: Sequence[Sequence[Point]] = ()
    """Lines of which `points` is the mean."""


@dataclass(frozen=True, slots=True)
class Interval:
    """A row of an interval chart: a mean with its interval, and the values it is the mean of."""

    name: str
    mean: float
    low: float
    high: float
    values: Sequence[float] = ()


def line_chart(
    series: Sequence[Series],
    *,
    label: str,
    x_label: str,
    y_label: str,
    percent: bool = False,
    marks: Sequence[float] = (),
    level: float | None = None,
    x_ticks: Sequence[tuple[float, str]] | None = None,
    from_zero: bool = False,
    wide: bool = False,
) -> Markup:
    """Series over a common x.

    Args:
        series: at least one point among them.
        label: what a reader who cannot see it is told.
        x_label: of the axis.
        y_label: of the axis.
        percent: y values are shares, shown in percent.
        marks: x of upright lines.
        level: y of a level line.
        x_ticks: in place of round numbers, which are whole.
        from_zero: the y axis begins at 0.
        wide: for a figure that has a row of the page to itself.
    """
    xs = [x for s in series for x, _ in s.points] + list(marks)
    ys = [y for s in series for line in (s.points, *s.faint) for _, y in line]
    ys += [y for s in series for _, *ends in (*s.band, *s.whiskers) for y in ends]
    ys += [level] if level is not None else []
    ys += [0.0] if from_zero else []
    y_ticks = round_numbers(min(ys), max(ys), 5)

    def draw(size: _Size) -> list[str]:
        places = _fitting(x_ticks, size) if x_ticks else _steps(min(xs), max(xs), size.ticks)
        room = 6 + (_DODGE * len(series) / 2 if any(s.whiskers for s in series) else 0)
        at_x = _scale(min(xs), max(xs), size.left + room, size.right - room)
        at_y = _scale(min(y_ticks[0], *ys), max(y_ticks[-1], *ys), size.bottom, _TOP)
        parts = [_axis_y(y_ticks, at_y, percent, size), *(_tick_x(at_x(x), text, size) for x, text in places)]
        parts += [_line(at_x(x), _TOP, at_x(x), size.bottom, "mark") for x in marks]
        if level is not None:
            parts.append(_line(size.left, at_y(level), size.right, at_y(level), "level"))
        for place, s in enumerate(series):
            aside = _DODGE * (place - (len(series) - 1) / 2)
            parts += [
                _line(at_x(x) + aside, at_y(low), at_x(x) + aside, at_y(high), f"whisker c{s.color}")
                for x, low, high in s.whiskers
            ]
            parts += _drawn(s, lambda x, aside=aside if s.whiskers else 0.0: at_x(x) + aside, at_y)
        name = f'transform="translate(12 {(_TOP + size.bottom) / 2:.0f}) rotate(-90)" text-anchor="middle"'
        return [
            *parts,
            _text((size.left + size.right) / 2, size.height - 6, x_label, "middle"),
            f"<text {name}>{escape(y_label)}</text>",
        ]

    return _svgs([(size, draw(size)) for size in (_NARROW, _MIDDLE, *([_BROAD] if wide else []))], label)


def interval_chart(rows: Sequence[Interval], *, label: str, x_label: str, reference: float | None = None) -> Markup:
    """One row for each interval, from top to bottom, with a line at `reference`. Values are shares."""
    ends = [end for row in rows for end in (row.low, row.high, *row.values)]

    def draw(size: _Size) -> list[str]:
        ticks = round_numbers(0.0, max(*ends, 1e-9), size.ticks - 2)
        at_x = _scale(0.0, max(ticks[-1], *ends), size.left + 6, size.right - 6)
        parts = [_line(at_x(x), _TOP, at_x(x), size.bottom, "grid") for x in ticks]
        parts += [_tick_x(at_x(x), f"{100 * x:g} %", size) for x in ticks]
        if reference is not None:
            parts.append(_line(at_x(reference), _TOP, at_x(reference), size.bottom, "level"))
        for place, row in enumerate(rows):
            y = _TOP + _ROW * (place + 0.5)
            parts += [_text(size.left - 6, y + 4, row.name, "end")]
            parts += [_line(at_x(row.low), y, at_x(row.high), y, "interval c0")]
            parts += [f'<circle class="value" cx="{at_x(v):.1f}" cy="{y:.1f}" r="3"/>' for v in row.values]
            parts.append(f'<circle class="dot c0" cx="{at_x(row.mean):.1f}" cy="{y:.1f}" r="5"/>')
        return [*parts, _text((size.left + size.right) / 2, size.height - 6, x_label, "middle")]

    left, height = round(14 + 7.2 * max(len(row.name) for row in rows)), _TOP + _ROW * len(rows) + _BOTTOM
    sizes = [replace(size, left=left, height=height) for size in (_NARROW, _MIDDLE)]
    return _svgs([(size, draw(size)) for size in sizes], label)


def round_numbers(low: float, high: float, count: int) -> list[float]:
    """About `count` round numbers from at most `low` to at least `high`."""
    if high <= low:
        high = low + (abs(low) or 1.0) * 0.1
    raw = (high - low) / count
    size = 10.0 ** math.floor(math.log10(raw))
    step = next(size * m for m in (1, 2, 5, 10) if size * m >= raw * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(i * step, 12) for i in range(first, last + 1)]


def _drawn(s: Series, at_x: Callable[[float], float], at_y: Callable[[float], float]) -> list[str]:
    parts: list[str] = []
    if s.band:
        there = [f"{at_x(x):.1f},{at_y(high):.1f}" for x, _, high in s.band]
        back = [f"{at_x(x):.1f},{at_y(low):.1f}" for x, low, _ in reversed(s.band)]
        parts.append(f'<polygon class="band c{s.color}" points="{" ".join([*there, *back])}"/>')
    for line in s.faint:
        path = " ".join(f"{at_x(x):.1f},{at_y(y):.1f}" for x, y in line)
        parts.append(f'<polyline class="faint c{s.color}" points="{path}"/>')
    places = [(at_x(x), at_y(y)) for x, y in s.points]
    if s.kind == "dots":
        # One path of points without length, with round ends, is a tenth of as many circles.
        path = "".join(f"M{x:.1f} {y:.1f}h0" for x, y in places)
        return [*parts, f'<path class="dots c{s.color}" d="{path}"/>']
    if s.kind == "steps":
        places = [
            p for (x, y), after in zip(places, [*places[1:], places[-1]], strict=True) for p in ((x, y), (after[0], y))
        ]
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    parts.append(f'<polyline class="line c{s.color}" points="{line}"/>')
    if len(s.points) <= 12 and s.kind == "line":
        parts += [f'<circle class="dot c{s.color}" cx="{x:.1f}" cy="{y:.1f}" r="3.5"/>' for x, y in places]
    return parts


def _axis_y(ticks: Sequence[float], at_y: Callable[[float], float], percent: bool, size: _Size) -> str:
    parts: list[str] = []
    for y in ticks:
        text = f"{100 * y:g} %" if percent else _number(y)
        parts += [
            _line(size.left, at_y(y), size.right, at_y(y), "grid"),
            _text(size.left - 6, at_y(y) + 4, text, "end"),
        ]
    return "".join(parts)


def _steps(low: float, high: float, count: int) -> list[tuple[float, str]]:
    """Round numbers of steps, of which there are no halves."""
    return [(x, _number(x)) for x in round_numbers(low, high, count) if low <= x <= high and float(x).is_integer()]


def _fitting(ticks: Sequence[tuple[float, str]], size: _Size) -> Sequence[tuple[float, str]]:
    """As many of them, evenly, as have room for their text."""
    room = 10 + 8 * max(len(text) for _, text in ticks)
    return ticks[:: math.ceil(len(ticks) * room / (size.right - size.left))]


def _tick_x(x: float, text: str, size: _Size) -> str:
    return _text(x, size.bottom + 17, text, "middle")


def _scale(low: float, high: float, start: float, end: float) -> Callable[[float], float]:
    width = high - low
    return lambda value: (start + end) / 2 if width == 0 else start + (value - low) / width * (end - start)


def _line(x1: float, y1: float, x2: float, y2: float, css: str) -> str:
    return f'<line class="{css}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _number(value: float) -> str:
    return f"{value:g}".replace("-", "\N{MINUS SIGN}")


def _svgs(drawings: Sequence[tuple[_Size, Sequence[str]]], label: str) -> Markup:
    return Markup("").join(
        Markup(
            f'<svg class="{size.css}" viewBox="0 0 {size.width} {size.height}" role="img" '
            f'aria-label="{escape(label)}">{"".join(parts)}</svg>'
        )
        for size, parts in drawings
    )
