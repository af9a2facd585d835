"""A run's numbers for TensorBoard, Trackio, W&B, MLflow and others, through accelerate's tracker classes.

The ledger is the record, a tracker a copy: all it gets is read from there, and how far it has got is kept in
`trackers.json`. What it missed, because it failed, because the run was killed in between, or because it was named only
when the run was gone on with, it gets at the next outer step. Nothing that a tracker does ends a run.
"""

import hashlib
import json
import os
import re
import sys
from collections.abc import Generator, Mapping
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

from soarctl.comparison import flat
from soarctl.errors import disk_errors
from soarctl.events import Tell
from soarctl.held_out import held_out_table
from soarctl.history import OuterStep, outer_steps
from soarctl.ledger import Ledger
from soarctl.runs import facts_of
from soarctl.spec import Spec

FILE = "trackers.json"
_PROJECT = "soarctl"
_FAILURES = 3
"""In a row, after which a tracker is left alone until the run is gone on with."""
_EXTRAS = ("tensorboard", "trackio", "wandb", "mlflow")
_WHEN = ("started", "step", "finished")
_UNUSUAL = re.compile(r"[^\w ./:-]")
"""What MLflow allows in no name."""


@contextmanager
def tracked(spec: Spec, directory: Path, ledger: Ledger, tell: Tell) -> Generator[Tell, None, None]:
    """`tell`, with the spec's trackers behind it."""
    trackers = [Tracker(name, options, spec, directory, tell) for name, options in spec.trackers.items()]

    def tell_and_track(event: str, /, **facts: Any) -> None:
        tell(event, **facts)
        if event in _WHEN:
            for tracker in trackers:
                tracker.catch_up(ledger)

    try:
        yield tell_and_track
    finally:
        for tracker in trackers:
            tracker.finish()


@dataclass
class Tracker:
    """One tracker of a run, and how far it has got."""

    name: str
    options: Mapping[str, Any]
    spec: Spec
    directory: Path
    tell: Tell
    _tracker: Any = None
    _failures: int = 0
    _given_up: bool = False
    _logged: dict[str, Any] = field(default_factory=dict[str, Any])

    def catch_up(self, ledger: Ledger) -> None:
        """Logs what the ledger has and the tracker has not. A failure is told once, and tried again at later steps."""
        if self._given_up:
            return
        try:
            # Some print; standard output is for the lines and events of the run.
            with redirect_stdout(sys.stderr):
                self._catch_up(ledger)
            self._failures = 0
        except Exception as error:
            self._failures += 1
            self._given_up = self._failures == _FAILURES
            if self._failures == 1:
                self._warn(error)

    def finish(self) -> None:
        """Closes the tracker, if it was opened."""
        if self._tracker is None:
            return
        try:
            with redirect_stdout(sys.stderr):
                # accelerate's class leaves the run with Trackio, which would end it again, and print, as Python exits.
                (import_module("trackio") if self.name == "trackio" else self._tracker).finish()
        except Exception as error:
            if not self._failures:
                self._warn(error)

    def _catch_up(self, ledger: Ledger) -> None:
        if self._tracker is None:
            self._logged = _read(self.directory).get(self.name, {})
            # A run that went back has fewer steps than it had.
            self._logged["step"] = min(self._logged.get("step", 0), ledger.steps_done)
            self._tracker = self._start(ledger)
        for step in outer_steps(ledger)[self._logged["step"] :]:
            self._tracker.log(step_values(ledger, step), step=step.step)
            self._note(step=step.step, evaluated=False)
        evaluation = evaluation_values(ledger)
        if evaluation and not self._logged.get("evaluated"):
            self._tracker.log(evaluation, step=ledger.steps_done)
            self._note(evaluated=True)

    def _start(self, ledger: Ledger) -> Any:
        kind = import_module("accelerate.tracking").LOGGER_TYPE_TO_CLASS[self.name]
        options = dict(self.options)
        if (project := options.pop("project", None)) is not None:
            options["experiment_name" if self.name == "mlflow" else "run_name"] = project
        # Its classes ask which process they are in. A trainer that uses accelerate has said so; others are one process.
        import_module("accelerate.state").PartialState()
        tracker = kind(**(self._defaults(facts_of(ledger)) | options))
        tracker.start()
        if not self._logged.get("configured"):
            tracker.store_init_configuration(configuration(ledger))
            run_id = tracker.tracker.info.run_id if self.name == "mlflow" else None
            self._note(configured=True, **({"run_id": run_id} if run_id else {}))
        return tracker

    def _defaults(self, facts: Mapping[str, Any]) -> dict[str, Any]:
        """Options that a tracker has unless the spec gives others. A resumed run goes on in the same place."""
        run, begun = self.spec.name, self._logged.get("configured", False)
        match self.name:
            case "tensorboard" | "aim":
                return {"run_name": run, "logging_dir": str(self.directory / self.name)}
            case "wandb":
                id = hashlib.sha256(f"{run} {facts['spec_sha256']} {facts['started']}".encode()).hexdigest()[:16]
                place = str(self.directory.resolve())
                return {"run_name": _PROJECT, "name": run, "id": id, "resume": "allow", "dir": place}
            case "trackio":
                return {"run_name": _PROJECT, "name": run, "resume": "allow" if begun else "never"}
            case "mlflow":
                again = {"run_id": self._logged["run_id"]} if begun else {}
                return {"experiment_name": _PROJECT, "run_name": run, **again}
            case "comet_ml" | "swanlab":
                return {"run_name": _PROJECT}
            case _:
                return {"run_name": run}

    def _note(self, **facts: Any) -> None:
        self._logged |= facts
        path, aside = self.directory / FILE, self.directory / f".{FILE}.partial"
        with disk_errors(path):
            aside.write_text(json.dumps(_read(self.directory) | {self.name: self._logged}, indent=1))
            os.replace(aside, path)

    def _warn(self, error: Exception) -> None:
        what = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
        if isinstance(error, ImportError):
            extra = f': pip install "soarctl[{self.name}]"' if self.name in _EXTRAS else ""
            what = f"its package is not installed ({error}){extra}"
        self.tell(
            "warning",
            text=f"tracker {self.name}: {what}. The run goes on, and its ledger has all of it. The tracker is tried "
            f"again after the next outer steps, {_FAILURES} times in all, and when the run is resumed.",
        )


def step_values(ledger: Ledger, step: OuterStep) -> dict[str, float]:
    """The numbers of an outer step, by name."""
    [(teacher,)] = ledger.rows("SELECT teacher FROM steps WHERE step = ?", step.step)
    [(seconds, tokens)] = ledger.rows(
        "SELECT SUM(seconds), SUM(tokens) FROM timings WHERE step = ? AND phase = 'outer_step'", step.step
    )
    values: dict[str, float] = {
        "reward/mean": step.reward,
        "reward/moving_average": step.window_mean,
        "promotions": step.stage + (step.promoted is not None),
        "alarms": sum(at == step.step for _, at, _, _ in ledger.alarm_rows()),
        "questions/passed": step.accepted / step.drawn,
        **{f"reward/dataset_{k}": reward for k, reward in enumerate(step.rewards_G)},
        **{f"questions/{name}": value for name, value in step.measures.items()},
        **{f"teacher/{name}": value for name, value in json.loads(teacher).items() if name != "stepped"},
    }
    for rule, count in ledger.rows("SELECT rule, count FROM rejections WHERE step = ?", step.step):
        values[f"rejected/{rule}"] = count / step.drawn
    [(least, mean, most)] = ledger.rows(
        "SELECT MIN(gain), AVG(gain), MAX(gain) FROM students WHERE step = ?", step.step
    )
    if mean is not None:
        values |= {"students/gain_least": least, "students/gain": mean, "students/gain_most": most}
    if seconds:
        values |= {"time/seconds": seconds, "time/tokens_per_second": tokens / seconds}
    return {_UNUSUAL.sub("_", name): value for name, value in values.items()}


def evaluation_values(ledger: Ledger) -> dict[str, float]:
    """The closing table by name; nothing before it is whole."""
    facts = facts_of(ledger)
    [(promotions,)] = ledger.rows("SELECT COUNT(*) FROM baselines WHERE stage > 0")
    arms = held_out_table(ledger) if ledger.steps_done >= facts["spec"]["outer"]["steps"] else []
    if len(arms) < (2 if promotions else 1):
        return {}
    return {
        f"held_out/{arm.name}_pass_at_{k}{end}": value
        for arm in arms
        for k, estimate in arm.pass_at.items()
        for end, value in (("", estimate.value), ("_low", estimate.low), ("_high", estimate.high))
    }


def configuration(ledger: Ledger) -> dict[str, str | int | float | bool]:
    """The spec with dotted keys, and which soarctl and model it is run with."""
    facts = facts_of(ledger)
    about = {name: facts.get(name) for name in ("spec_sha256", "soarctl_version", "model")}
    values = flat({**{key: value for key, value in facts["spec"].items() if key != "trackers"}, **about})
    return {key: value if isinstance(value, str | int | float) else json.dumps(value) for key, value in values.items()}


def _read(directory: Path) -> dict[str, Any]:
    path = directory / FILE
    return json.loads(path.read_text()) if path.is_file() else {}
