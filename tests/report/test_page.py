"""The report: what is on the page, what cannot get onto it, and what it needs."""

import re
import subprocess
import sys
from collections.abc import Callable
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import pytest

from soarctl.errors import RunError
from soarctl.report.page import write_report

VOID = {"meta"}


class Outline(HTMLParser):
    """Tags that were opened and not closed, what is fetched from elsewhere, and the headings in order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.fetched: list[str] = []
        self.headings: list[int] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in VOID:
            self.open.append(tag)
        self.fetched += [f"{tag} {value}" for name, value in attrs if name in ("src", "srcset", "data", "action")]
        self.fetched += [f"{tag} {v}" for name, v in attrs if name == "href" and not str(v).startswith("#")]
        if re.fullmatch(r"h[1-6]", tag):
            self.headings.append(int(tag[1]))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def outline(html: str) -> Outline:
    parser = Outline()
    parser.feed(html)
    return parser


@pytest.fixture
def page(small_run: Path, tmp_path: Path) -> str:
    write_report([small_run], tmp_path / "report.html")
    return (tmp_path / "report.html").read_text()


def test_a_run_is_told_with_its_promotions_questions_and_time(page: str) -> None:
    for said in (
        "Run small",
        "What the teacher earned",
        "On held-out hard problems",
        "DOG | flip bump",
        "QDG",
        "stage 1",
        "no equals sign",
        "Near-duplicates of hard problems",
        "outer_step",
    ):
        assert said in page


def test_the_page_is_whole_and_fetches_nothing(page: str) -> None:
    found = outline(page)
    assert found.open == []
    assert found.fetched == []
    assert "http" not in page.replace('http-equiv="Content-Security-Policy"', "")
    assert "default-src 'none'" in page
    assert "@import" not in page
    assert "url(" not in page


def test_headings_go_down_one_at_a_time(page: str) -> None:
    headings = outline(page).headings
    assert headings[0] == 1
    assert all(after - before <= 1 for before, after in pairwise(headings))


def test_every_table_has_heads_and_every_chart_a_name(page: str) -> None:
    assert page.count("<table") == page.count("<thead")
    assert not re.search(r"<th(?! scope=)[ >]", page)
    assert all("aria-" in svg for svg in re.findall(r"<svg[^>]*>", page))


def test_what_a_model_writes_cannot_become_markup(write_run: Callable[..., Path], tmp_path: Path) -> None:
    evil = [("<script>alert(1)</script>", "<img src=x onerror=alert(1)>"), ("</td></table><h1>", "{{ 7 * 7 }}")]
    run = write_run(tmp_path / "run", datasets_of_step={2: [evil, evil]})
    write_report([run], tmp_path / "report.html")
    html = (tmp_path / "report.html").read_text()
    assert "<script>alert" not in html
    assert "<img" not in html
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in html
    assert "{{ 7 * 7 }}" in html
    assert outline(html).open == []


def test_a_run_that_has_just_begun_has_a_page(write_run: Callable[..., Path], tmp_path: Path) -> None:
    write_report([write_run(tmp_path / "run", gains=[])], tmp_path / "report.html")
    assert "No outer step is finished yet." in (tmp_path / "report.html").read_text()


def test_a_price_per_hour_gives_the_cost(small_run: Path, tmp_path: Path) -> None:
    # Four outer steps of two seconds: 8 s at 900 per hour.
    write_report([small_run], tmp_path / "report.html", price=900.0)
    html = (tmp_path / "report.html").read_text()
    assert "0:08 in all, 0:02 per outer step; at 900 per hour that is 2.00, 2.00 for each promotion." in html
    assert '<td class="n" data-value="2.0">2.00</td>' in html


def test_a_long_run_is_drawn_as_means_with_the_single_steps_behind(
    write_run: Callable[..., Path], tmp_path: Path
) -> None:
    run = write_run(tmp_path / "run", gains=[[[0.0, 0.25, 0.5]] * 2] * 60, promotion={"tau": 9.0})
    write_report([run], tmp_path / "report.html")
    html = (tmp_path / "report.html").read_text()
    assert "it is the mean over 9 outer steps" in html
    assert 'class="faint c0"' in html


def test_a_directory_without_a_run_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no run here"):
        write_report([tmp_path], tmp_path / "report.html")


def test_neither_torch_nor_matplotlib_is_imported(small_run: Path, tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from soarctl.report.page import write_report;"
        "write_report([Path(sys.argv[1])], Path(sys.argv[2]));"
        "print(*{'torch', 'transformers', 'matplotlib', 'pandas'} & set(sys.modules))"
    )
    arguments = [sys.executable, "-c", code, str(small_run), str(tmp_path / "report.html")]
    assert subprocess.run(arguments, capture_output=True, text=True, check=True).stdout == "\n"


def luminance(color: str) -> float:
    """Relative luminance of `#rrggbb`, as WCAG 2.2 defines it."""
    channels = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return sum(weight * c for weight, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def contrast(one: str, other: str) -> float:
    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("scheme", range(3), ids=["light", "dark", "print"])
def test_text_and_lines_stand_out_from_what_they_are_on(page: str, scheme: int) -> None:
    # A browser's accessibility check cannot see what is behind the text of a drawing.
    colors = dict(re.findall(r"--(\w+): (#\w+)", re.findall(r":root \{(.*?)\}", page, flags=re.DOTALL)[scheme]))
    colors = {
        name: color if len(color) == 7 else "#" + "".join(2 * c for c in color[1:]) for name, color in colors.items()
    }
    for behind in ("paper", "card"):
        for text in ("ink", "soft", "good", "bad", "c0"):
            assert contrast(colors[text], colors[behind]) >= 4.5, text
        for line in (f"c{i}" for i in range(6)):
            assert contrast(colors[line], colors[behind]) >= 3, line
    assert contrast(colors["ink"], colors["warn"]) >= 4.5
