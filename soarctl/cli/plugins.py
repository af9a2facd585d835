"""`soarctl plugins`: what is installed, and what of it is broken."""

import json
from dataclasses import asdict

from soarctl.cli.table import print_table


def plugins(*, check: bool, as_json: bool) -> None:
    """Prints one line for each installed plug-in."""
    from soarctl.plugins import describe

    found = describe(check=check)
    if as_json:
        print(json.dumps([asdict(plugin) for plugin in found], indent=2))
        return
    good = "works" if check else "installed"
    print_table(
        ("kind", "name", "package", "class", "state"),
        [(p.kind, p.name, f"{p.package} {p.version}", p.target, p.problem or good) for p in found],
    )
