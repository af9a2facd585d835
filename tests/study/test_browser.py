"""The report of a study and its runs in a real browser: on a phone, a tablet and a desk, light and dark."""

import html
import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from soarctl.report.page import write_report

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
AXE = Path(os.environ.get("AXE_CORE", Path(__file__).parents[2] / "node_modules" / "axe-core")) / "axe.min.js"
WIDTHS, SCHEMES = (390, 768, 1280), ("dark", "light")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here: apt-get install chromium"),
]

# The page stands in a frame, since a browser's window cannot be as narrow as a phone's.
HARNESS = """<!doctype html><iframe id="frame" style="border: 0; width: WIDTHpx; height: 900px" srcdoc="PAGE"></iframe>
<script>
const frame = document.getElementById("frame");
frame.addEventListener("load", async () => {
  const view = frame.contentWindow, page = frame.contentDocument, root = page.documentElement;
  page.querySelector("th button").click();
  const axe = view.axe ? await view.axe.run(page) : null;
  document.title = JSON.stringify({
    width: view.innerWidth,
    dark: view.matchMedia("(prefers-color-scheme: dark)").matches,
    fetched: view.performance.getEntriesByType("resource").map(entry => entry.name),
    overflow: root.scrollWidth - root.clientWidth,
    sorted: page.querySelectorAll("[aria-sort]").length,
    drawings: [...page.querySelectorAll("figure")].map(
      figure => [...figure.querySelectorAll(":scope > svg")].filter(svg => svg.getClientRects().length).length),
    checks: axe && axe.passes.length,
    violations: axe && axe.violations.map(v => v.id + ": " + v.nodes.map(node => node.html).slice(0, 3).join(" ")),
  });
});
</script>"""


def looked_at(page: str, scratch: Path, width: int, scheme: str) -> dict[str, Any]:
    """What the browser says of a page; what it complains of is under `console`."""
    harness = scratch / "harness.html"
    harness.write_text(HARNESS.replace("WIDTH", str(width)).replace("PAGE", html.escape(page)))
    flags = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
    flags += " --disable-component-update --disable-sync --enable-logging=stderr --virtual-time-budget=60000 --dump-dom"
    done = subprocess.run(
        [
            str(CHROMIUM),
            *flags.split(),
            f"--user-data-dir={scratch / 'profile'}",
            f"--blink-settings=preferredColorScheme={SCHEMES.index(scheme)}",
            "--window-size=1400,1000",
            f"file://{harness}",
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    [title] = re.findall(r"<title>(\{.*?)</title>", done.stdout)
    return json.loads(html.unescape(title)) | {
        "console": [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    }


@pytest.fixture(scope="module")
def page(whole_study: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    out = tmp_path_factory.mktemp("report") / "report.html"
    write_report([whole_study], out)
    return out.read_text()


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("width", WIDTHS)
def test_the_page_shows_without_a_complaint(page: str, tmp_path: Path, width: int, scheme: str) -> None:
    seen = looked_at(page, tmp_path, width, scheme)
    assert (seen["width"], seen["dark"]) == (width, scheme == "dark")
    assert seen["console"] == []
    assert seen["fetched"] == []
    assert seen["overflow"] == 0
    assert seen["sorted"] == 1
    assert set(seen["drawings"]) == {1}, "each figure shows the one drawing that fits"


@pytest.mark.skipif(not AXE.is_file(), reason="no axe-core here: npm install --no-save axe-core")
@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("width", WIDTHS)
def test_axe_finds_no_violation(page: str, tmp_path: Path, width: int, scheme: str) -> None:
    script = AXE.read_text().replace("</script", "<\\/script")
    seen = looked_at(page.replace("</body>", f"<script>{script}</script></body>"), tmp_path, width, scheme)
    assert seen["checks"] > 30
    assert seen["violations"] == []


@pytest.mark.skipif(not AXE.is_file(), reason="no axe-core here: npm install --no-save axe-core")
def test_axe_would_find_one(page: str, tmp_path: Path) -> None:
    script = AXE.read_text().replace("</script", "<\\/script")
    worse = page.replace("</main>", "<button></button></main>").replace("</body>", f"<script>{script}</script></body>")
    [violation] = looked_at(worse, tmp_path, 390, "light")["violations"]
    assert violation == "button-name: <button></button>"
