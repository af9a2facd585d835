"""Charts as SVG: scales that can be checked on paper, and text that cannot break out."""

import xml.etree.ElementTree as ET

import pytest

from soarctl.report.charts import Interval, Series, interval_chart, line_chart, round_numbers


@pytest.mark.parametrize(
    ("low", "high", "count", "ticks"),
    [
        (0, 1, 5, [0, 0.2, 0.4, 0.6, 0.8, 1]),
        (0.0, 0.031, 4, [0, 0.01, 0.02, 0.03, 0.04]),
        (-3, 7, 5, [-4, -2, 0, 2, 4, 6, 8]),
        (1, 200, 8, [0, 50, 100, 150, 200]),
        (5, 5, 5, [5.0, 5.1, 5.2, 5.3, 5.4, 5.5]),
    ],
)
def test_ticks_are_round_and_cover_the_values(low: float, high: float, count: int, ticks: list[float]) -> None:
    assert round_numbers(low, high, count) == ticks


def drawn(svg: str, size: str = "middle") -> ET.Element:
    """The drawing for half of a page; `narrow` is that for a phone."""
    return next(one for one in ET.fromstring(f"<div>{svg}</div>") if one.get("class") == size)


def test_points_stand_where_their_values_say() -> None:
    svg = drawn(line_chart([Series("a", [(0, 0), (1, 0.5), (2, 1)], 0)], label="l", x_label="x", y_label="y"))
    line = next(e for e in svg if e.get("class") == "line c0")
    (x0, y0), (x1, y1), (x2, y2) = [tuple(map(float, p.split(","))) for p in str(line.get("points")).split()]
    assert x1 == pytest.approx((x0 + x2) / 2, abs=0.1)
    assert y1 == pytest.approx((y0 + y2) / 2, abs=0.1)
    assert y2 < y0


def test_a_single_point_is_no_error() -> None:
    drawn(line_chart([Series("a", [(3, 0.0)], 0)], label="l", x_label="x", y_label="y", percent=True))


def test_names_of_models_cannot_become_markup() -> None:
    row = Interval("<script>alert(1)</script>", 0.1, 0.0, 0.2, [0.1])
    svg = interval_chart([row], label='"><script>', x_label="<b>")
    assert "<script" not in svg
    assert "&lt;script&gt;alert(1)" in svg
    drawn(svg)


def test_a_chart_says_in_words_what_it_shows() -> None:
    svg = drawn(line_chart([Series("a", [(0, 0), (1, 1)], 0)], label="rewards over 9 steps", x_label="x", y_label="y"))
    assert (svg.get("role"), svg.get("aria-label")) == ("img", "rewards over 9 steps")


def test_marks_a_level_bands_and_whiskers_are_drawn() -> None:
    series = [
        Series("a", [(0, 0), (1, 1)], 0, band=[(0, 0, 1), (1, 0, 2)]),
        Series("b", [(0, 1)], 1, whiskers=[(0, 0, 2)]),
    ]
    svg = drawn(line_chart(series, label="l", x_label="x", y_label="y", marks=[0.5], level=0.25))
    classes = [e.get("class") for e in svg]
    assert classes.count("mark") == classes.count("level") == classes.count("band c0") == 1
    assert classes.count("whisker c1") == 1


def test_a_phone_gets_a_drawing_of_its_own_with_fewer_ticks() -> None:
    ticks = [(float(x), f"stage {x}") for x in range(20)]
    svg = line_chart([Series("a", [(0, 0), (19, 1)], 0)], label="l", x_label="x", y_label="y", x_ticks=ticks, wide=True)
    shown = {
        size: [t.text for t in drawn(svg, size) if t.tag == "text" and str(t.text).startswith("stage")]
        for size in ("narrow", "middle", "broad")
    }
    assert 2 < len(shown["narrow"]) < len(shown["middle"]) < len(shown["broad"])
    for size, left, right in (("narrow", 0, 340), ("middle", 0, 560), ("broad", 0, 1140)):
        points = next(str(e.get("points")) for e in drawn(svg, size) if e.get("class") == "line c0").split()
        assert all(left < float(point.split(",")[0]) < right for point in points)
