"""`soarctl export-pq`: the promotion questions of a run as a dataset."""

import json
from dataclasses import asdict
from pathlib import Path


def export_pq(directory: Path | None, out: Path, *, dedup: bool, force: bool, as_json: bool) -> None:
    """Writes the dataset and its card, and prints the counts.

    Raises:
        SoarError: there is nothing to write, or it cannot be written there.
    """
    from soarctl.export import CARD, export_pq
    from soarctl.runs import open_run
    from soarctl.solutions import solver_of

    with open_run(directory) as ledger:
        exported = export_pq(ledger, solver_of(ledger), out, dedup=dedup, force=force)
    if as_json:
        print(json.dumps({"file": str(out), **asdict(exported)}, indent=2))
        return
    promotions = "1 promotion" if exported.promotions == 1 else f"{exported.promotions} promotions"
    print(f"{exported.rows} questions of {promotions} are in {out}, described in {out.with_name(CARD)}")
    if dedup:
        print(f"{exported.duplicates} duplicates left out, {exported.conflicting} of them with another answer")
