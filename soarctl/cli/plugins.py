"""`soarctl plugins`: what is installed, and what of it is broken."""

import json
from dataclasses import asdict


def plugins(*, check: bool, as_json: bool) -> None:
    """Prints one line for each installed plug-in."""
    from soarctl.plugins import describe

    found = describe(check=check)
    if as_json:
        print(json.dumps([asdict(plugin) for plugin in found], indent=2))
        return
    good = "works" if check else "installed"
    rows = [
        ("KIND", "NAME", "PACKAGE", "CLASS", "STATE"),
        *((p.kind, p.name, f"{p.package} {p.version}", p.target, p.problem or good) for p in found),
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    for row in rows:
        print("  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[-1]]))
