"""`soarctl report`: runs and studies as one HTML page."""

import json
from collections.abc import Sequence
from pathlib import Path


def report(directories: Sequence[Path], out: Path | None, price: float | None, *, as_json: bool) -> None:
    """Writes the page; by default of the newest run, beside its ledger.

    Raises:
        SoarError: there is no run, or the page cannot be written.
    """
    from soarctl.report.page import write_report
    from soarctl.runs import newest

    chosen = list(directories) or [newest()]
    place = out or chosen[0] / "report.html"
    write_report(chosen, place, price)
    size = place.stat().st_size
    if as_json:
        print(json.dumps({"file": str(place), "bytes": size}, indent=2))
    else:
        print(f"{place}: {size / 1e6:.2f} MB, open it in any browser")
