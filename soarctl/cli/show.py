"""`soarctl show`: how a run went, step by step, and what came of it."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from soarctl.alarms import Alarm
    from soarctl.held_out import Arm
    from soarctl.history import OuterStep, Overview


def show(directory: Path | None, *, as_json: bool) -> None:
    """Prints a run; by default the newest one.

    Raises:
        RunError: it cannot be read.
    """
    from soarctl.alarms import alarms
    from soarctl.history import outer_steps, overview
    from soarctl.runs import open_run

    with open_run(directory) as ledger:
        run, steps, signs = overview(ledger), outer_steps(ledger), alarms(ledger)
        arms: list[Arm] = []
        if ledger.rows("SELECT 1 FROM evaluations LIMIT 1"):
            from soarctl.held_out import held_out_table  # numpy, which a run in progress does not need

            arms = held_out_table(ledger)
    if as_json:
        from dataclasses import asdict

        facts = asdict(run) | {
            "outer_steps": [asdict(step) for step in steps],
            "held_out": [asdict(arm) for arm in arms],
            "alarms": [asdict(alarm) for alarm in signs],
        }
        print(json.dumps(facts, indent=2, ensure_ascii=False))
        return
    print_overview(run)
    if steps:
        print()
        print_steps(run, steps)
    if signs:
        print()
        print_alarms(signs)
    if arms:
        print()
        print_held_out(arms)


def print_overview(run: "Overview") -> None:
    """What a run is and how far it got."""
    progress = f"running, {run.holder}" if run.holder else str(run.progress)
    print(f"{run.name}: {progress}")
    promotions = "1 promotion" if run.promotions == 1 else f"{run.promotions} promotions"
    for name, said in (
        ("directory", run.directory),
        ("model", run.model),
        ("plug-ins", f"domain {run.domain}, reward {run.reward}, trainer {run.trainer}"),
        ("spec", f"{run.spec_sha256[:16]}, seed {run.seed}"),
        ("problems", f"{run.train} hard to learn from, {run.test} hard held out, of {run.problems} tried"),
        ("outer steps", f"{run.steps_done} of {run.steps}, {promotions}"),
    ):
        print(f"  {name:12}{said}")


def print_steps(run: "Overview", steps: Sequence["OuterStep"]) -> None:
    """One line per outer step."""
    from soarctl.cli.table import print_table

    measures = sorted({name for step in steps for name in step.measures})
    header = ["STEP", "STAGE", "REWARDS", "MEAN", f"WINDOW > {run.tau:g}", "PROMOTED", "PASSED", *measures]
    print_table(
        header,
        [
            [
                str(step.step),
                str(step.stage),
                " ".join(f"{reward:+.3f}" for reward in step.rewards_G),
                f"{step.reward:+.4f}",
                _window(step, run.window),
                f"dataset {step.promoted[0]}, student {step.promoted[1]}" if step.promoted else "",
                f"{100 * step.accepted / step.drawn:.0f} %",
                *(f"{step.measures[name]:.3f}" if name in step.measures else "" for name in measures),
            ]
            for step in steps
        ],
    )


def print_alarms(signs: Sequence["Alarm"]) -> None:
    """One line per alarm, those that hold now first."""
    for alarm in signs:
        print(f"alarm: {alarm.text}")


def print_held_out(arms: Sequence["Arm"]) -> None:
    """The closing table, which `soarctl run` ends with."""
    from soarctl.cli.table import print_table

    first = arms[0]
    print(f"{first.problems} held-out hard problems, {first.samples} attempts each, with 95 % bootstrap intervals")
    ks = list(first.pass_at)
    print_table(
        ["", *(f"pass@{k}" for k in ks)],
        [
            [arm.name, *(f"{e.value:.3f} [{e.low:.3f}, {e.high:.3f}]" for e in map(arm.pass_at.__getitem__, ks))]
            for arm in arms
        ],
    )


def _window(step: "OuterStep", size: int) -> str:
    mean = f"{step.window_mean:+.4f}"
    return mean if step.window_filled == size else f"{mean} ({step.window_filled} of {size})"
