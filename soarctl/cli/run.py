"""`soarctl run`: a run with its progress on the screen, and what came of it in the last lines."""

import os
import shlex
import sys
from pathlib import Path
from typing import Any


def run(
    path: str,
    overrides: list[str],
    out: Path | None,
    *,
    resume: bool,
    from_step: int | None,
    processes: int | None = None,
    patience: float = 3600.0,
    as_json: bool,
) -> None:
    """Runs a spec, or as one of a run's other processes does what the first one asks for.

    Raises:
        SoarError: what stands in the way.
    """
    from soarctl.cli.interrupts import Interrupts, Terminated
    from soarctl.cli.run_view import JsonLines, LiveView, PlainLines
    from soarctl.crew import by_itself
    from soarctl.errors import SoarError
    from soarctl.processes.ranks import gpus, rank_of, take_own_device
    from soarctl.run import run as run_spec
    from soarctl.spec_reader import load_spec

    if from_step is not None and not resume:
        raise SoarError("--from-step goes with --resume", at=f"--from-step {from_step}")
    environment = dict(os.environ)
    rank = rank_of(environment, processes)
    take_own_device(os.environ, rank, gpus())
    loaded = load_spec(path, overrides)
    directory = out or Path("runs") / loaded.spec.name
    if rank.number:
        from soarctl.processes.member import serve

        serve(loaded, directory, rank, patience)
        return
    together = by_itself
    if rank.size > 1:
        from soarctl.processes.team import call_others

        together = call_others(loaded.hash, rank, patience, None if "WORLD_SIZE" in environment else environment)
    view = JsonLines() if as_json else LiveView() if sys.stdout.isatty() else PlainLines()
    try:
        with view, Interrupts(view.tell) as interrupts:
            run_spec(loaded, directory, interrupts.tell, resume=resume, from_step=from_step, together=together)
    except KeyboardInterrupt as error:
        words = ["soarctl", "run", path, *(word for override in overrides for word in ("--set", override))]
        words += ["--out", str(out)] if out else []
        words += ["--processes", str(processes)] if processes else []
        again = shlex.join(words)
        what, code = ("terminated", 143) if isinstance(error, Terminated) else ("interrupted", 130)
        print(f"{what}; nothing finished is lost. `{again} --resume` goes on.", file=sys.stderr)
        sys.exit(code)
    if not as_json:
        _say_what_came_of_it(directory)


def _say_what_came_of_it(directory: Path) -> None:
    from soarctl.alarms import alarms
    from soarctl.cli.durations import duration, durations
    from soarctl.cli.show import print_alarms, print_held_out
    from soarctl.held_out import held_out_table
    from soarctl.ledger import Ledger

    with Ledger.open(directory, read_only=True) as ledger:
        arms, signs = held_out_table(ledger), alarms(ledger)
        stages: list[Any] = ledger.rows("SELECT step FROM baselines WHERE stage > 0 ORDER BY stage")
        seconds, estimate = ledger.seconds, ledger.facts.get("estimate")
    promotions = ", ".join(str(step) for (step,) in stages)
    print()
    print(f"promoted after outer step {promotions}" if stages else "no student was promoted")
    if arms:
        print_held_out(arms)
    print_alarms(signs)
    if estimate:
        print()
        print(f"took {duration(seconds)}; estimated were {durations(estimate['seconds'])}, {estimate['source']}")
    print()
    print(f"soarctl promote --inspect {directory}    # the questions that made the difference")
