"""The report: what is on the page, what cannot get onto it, what it needs, and how a real browser takes it."""

import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import pytest

from soarctl.errors import RunError
from soarctl.report.page import write_report

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
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


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here")
@pytest.mark.slow
@pytest.mark.parametrize("size", ["1280,900", "390,800"])
def test_a_real_browser_shows_it_without_a_complaint(small_run: Path, tmp_path: Path, size: str) -> None:
    report = tmp_path / "report.html"
    write_report([small_run], report)
    # A page of its own reports what the browser found: errors, what was fetched, and whether anything is too wide.
    watched = report.read_text().replace(
        "</body>",
        "<script>document.querySelector('th button').click();"
        "document.title = JSON.stringify([performance.getEntriesByType('resource').length,"
        "document.documentElement.scrollWidth <= document.documentElement.clientWidth,"
        "document.querySelectorAll('[aria-sort]').length]);</script></body>",
    )
    report.write_text(watched)
    flags = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
    flags += " --disable-component-update --disable-sync --enable-logging=stderr --dump-dom"
    done = subprocess.run(
        [
            str(CHROMIUM),
            *flags.split(),
            f"--user-data-dir={tmp_path / 'profile'}",
            f"--window-size={size}",
            f"file://{report}",
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert re.findall(r"<title>(.*?)</title>", done.stdout) == ["[0,true,1]"]
    assert "CONSOLE" not in done.stderr
