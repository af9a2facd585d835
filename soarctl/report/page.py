"""The report as one HTML file."""

import os
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from soarctl import __version__
from soarctl.errors import disk_errors
from soarctl.ledger import FILE, STUDY_FILE, Ledger
from soarctl.report.run_page import RunPage, clock, run_page, signed
from soarctl.report.study_page import StudyPage, study_page
from soarctl.study.table import open_study


def write_report(directories: Sequence[Path], out: Path, price: float | None = None) -> None:
    """Writes the report of runs and studies; a study brings the runs that it made.

    Args:
        directories: of runs and studies.
        out: the file.
        price: of the machine per hour, in any currency; None leaves the cost out.

    Raises:
        RunError: one of the directories holds neither, or the file cannot be written.
    """
    runs: list[RunPage] = []
    studies: list[StudyPage] = []
    for directory in _expanded(directories):
        if (directory / STUDY_FILE).is_file():
            with open_study(directory) as ledger:
                studies.append(study_page(ledger))
        else:
            with Ledger.open(directory, read_only=True) as ledger:
                runs.append(run_page(ledger))
    html = render(runs, studies, datetime.now(UTC), price)
    with disk_errors(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        aside = out.with_name(f".{out.name}.partial")
        aside.write_text(html, encoding="utf-8")
        os.replace(aside, out)


def render(runs: Sequence[RunPage], studies: Sequence[StudyPage], now: datetime, price: float | None = None) -> str:
    """The page. Every text of a model or a file is escaped by the template."""
    environment = Environment(
        loader=PackageLoader("soarctl.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["clock"] = clock
    environment.filters["signed"] = signed
    titles = [study.table.name for study in studies] + [page.run.name for page in runs]
    return environment.get_template("page.html").render(
        title=", ".join(titles[:3]) + (f" and {len(titles) - 3} more" if len(titles) > 3 else ""),
        runs=runs,
        studies=studies,
        price=price,
        made=f"{now:%d %B %Y, %H:%M} UTC",
        version=__version__,
    )


def _expanded(directories: Sequence[Path]) -> list[Path]:
    found: list[Path] = []
    for directory in directories:
        found.append(directory)
        if (directory / STUDY_FILE).is_file():
            found += sorted(place.parent for place in (directory / "runs").glob(f"*/{FILE}"))
    return list(dict.fromkeys(found))
