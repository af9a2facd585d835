"""`soarctl plan`: what a spec will cost, before anything runs."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from soarctl.plan import Plan, Range


def plan(path: str, overrides: Sequence[str], *, as_json: bool) -> None:
    """Prints the counts.

    Raises:
        SoarError: the spec asks for something impossible.
    """
    from soarctl.plan import plan
    from soarctl.spec_reader import load_spec

    counted = plan(load_spec(path, overrides))
    if as_json:
        tokens = {"counts": [asdict(count) | {"tokens": count.tokens} for count in counted.counts]}
        print(json.dumps(asdict(counted) | tokens, indent=2))
    else:
        _print(counted)


def _print(plan: "Plan") -> None:
    from soarctl.cli.table import print_table

    print(f"{plan.name}: {plan.outer_steps} outer steps, {plan.datasets} datasets and {plan.students} students in each")
    print(f"  student updates       {_range(plan.student_updates)}")
    print(f"  promotions            {_range(plan.promotions)}")
    print(f"  candidate problems    {_number(plan.candidates)}")
    print(f"  base model            {_number(plan.parameters)} parameters")
    print(f"  adapter               {_number(plan.adapter_parameters)} parameters")
    print()
    print_table(
        ["COMPLETIONS", "PER OUTER STEP", "WHOLE RUN", "TOKENS AT MOST", ""],
        [
            [count.what, _range(count.per_step), _range(count.total) or "unknown", _number(count.tokens), count.note]
            for count in plan.counts
        ],
    )
    print("prompt tokens are not counted; a range is from no promotion to as many as there can be")
    print()
    print_table(["MEMORY", "BYTES", ""], [[m.role, _bytes(m.bytes), m.what] for m in plan.memory])
    print("what sampling and training need for a moment, caches and activations, comes on top")
    if plan.resolution is not None:
        print()
        print(
            f"an outer step's reward moves in steps of {plan.resolution:.2g}; "
            f"a promotion needs a mean above {plan.tau:g} over {plan.window} outer steps"
        )
    for warning in plan.warnings:
        print(f"warning: {warning}")


def _range(counted: "Range | None") -> str:
    if counted is None:
        return ""
    least, most = counted
    return f"{least:,}" if least == most else f"{least:,} to {most:,}"


def _number(value: int | None) -> str:
    return "unknown" if value is None else f"{value:,}"


def _bytes(value: int | None) -> str:
    if value is None:
        return "unknown"
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if value >= size:
            return f"{value / size:.1f} {unit}"
    return f"{value} B"
