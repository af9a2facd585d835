"""A promoted student as files that other libraries load. The trainer that made it writes them."""

import shutil
from pathlib import Path

from soarctl import plugins
from soarctl.api import Trainer
from soarctl.errors import ModelError, RunError, disk_errors
from soarctl.ledger import Ledger
from soarctl.run_directory import load_baseline
from soarctl.runs import facts_of, spec_of
from soarctl.stages import no_such_stage


def export_student(ledger: Ledger, out: Path, *, stage: int | None = None, merge: bool = False) -> int:
    """Writes the student of a promotion, by default the last one, to the new directory `out`.

    Its weights are checked against the ledger first, then the base model against the one that it was trained on.

    Returns:
        The stage.

    Raises:
        RunError: there is no such promotion, or something stands at `out`.
        CheckpointError: the student's weights are damaged.
        ModelError: the base model cannot be loaded, or is another one by now.
    """
    [(last,)] = ledger.rows("SELECT COALESCE(MAX(stage), 0) FROM baselines")
    wanted = last if stage is None else stage
    if not 1 <= wanted <= last:
        raise no_such_stage(ledger, wanted or 1)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise RunError("something stands here already", at=str(out), hint="name a directory that does not exist yet")
    policy = load_baseline(ledger.path.parent, ledger, wanted)
    spec = spec_of(ledger)
    engine = plugins.load(Trainer, spec.trainer.plugin, spec.trainer.options).load(spec.model, spec.seed)
    trained_on = facts_of(ledger).get("model", {}).get("weights_sha256")
    if engine.facts.get("weights_sha256") != trained_on:
        raise ModelError(
            f"{spec.model.base} is not the model that the student was trained on",
            at="model.base",
            hint=f"its weights had the hash {trained_on}, now {engine.facts.get('weights_sha256')}",
        )
    aside = out.with_name(f".{out.name}.partial")
    with disk_errors(out):
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir(parents=True)
        engine.export(policy, aside, merge=merge)
        aside.replace(out)
    return wanted
