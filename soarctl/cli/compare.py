"""`soarctl compare`: runs beside each other."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from soarctl.comparison import Compared, Comparison


def compare(directories: Sequence[Path], *, as_json: bool) -> None:
    """Prints a column for each run.

    Raises:
        SoarError: one of the directories holds no run.
    """
    from dataclasses import asdict

    from soarctl.comparison import compare

    found = compare(directories)
    if as_json:
        print(json.dumps(asdict(found), indent=2, ensure_ascii=False))
    else:
        _print(found)


def _print(comparison: "Comparison") -> None:
    from soarctl.cli.table import print_table

    columns = [_column(compared) for compared in comparison.runs]
    arms = list(dict.fromkeys(arm for compared in comparison.runs for arm in compared.pass_at_1))
    rows = [[name, *(column[name] for column in columns)] for name in columns[0]]
    rows += [[f"pass@1, {arm}", *(_percent(c.pass_at_1.get(arm)) for c in comparison.runs)] for arm in arms]
    print_table(["", *(compared.run.name for compared in comparison.runs)], rows)
    print()
    if comparison.differences:
        print_table(
            ["SPEC", *(compared.run.name for compared in comparison.runs)],
            [[key, *map(_value, values)] for key, values in comparison.differences.items()],
        )
    else:
        print("their specs say the same")
    if not comparison.same_problems:
        print("\nthey have other hard problems, or other halves: their scores do not compare")


def _column(compared: "Compared") -> dict[str, str]:
    run = compared.run
    return {
        "state": str(run.progress),
        "outer steps": f"{run.steps_done} of {run.steps}",
        "promoted at": ", ".join(map(str, compared.promoted_at)) or "never",
        "mean reward": "" if compared.mean_reward is None else f"{compared.mean_reward:+.4f}",
        "passed the filter": _percent(compared.passed),
        "alarms": ", ".join(compared.alarms) or "none",
        "seconds": f"{compared.seconds:.0f}",
    }


def _percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.1f} %"


def _value(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
