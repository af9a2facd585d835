"""`soarctl doctor`: is this machine ready, and what to type next?"""

import json
from dataclasses import asdict


def doctor(spec: str | None, *, deep: bool, as_json: bool) -> bool:
    """Prints what was found; returns whether nothing is wrong.

    Raises:
        SoarError: the spec is wrong.
    """
    from soarctl.cli.table import print_table
    from soarctl.doctor import diagnose

    diagnosis = diagnose(spec, deep=deep)
    if as_json:
        print(json.dumps(asdict(diagnosis) | {"healthy": diagnosis.healthy}, indent=2))
    else:
        print_table(["LOOKED AT", "FOUND", "PROBLEM"], [[f.what, f.found, f.problem or ""] for f in diagnosis.findings])
        print(f"\nnext: {diagnosis.next_command}")
    return diagnosis.healthy
