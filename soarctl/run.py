"""A run from its spec to its last line: filter, outer steps, closing measurement, every stage of it resumable.

The order of writing is what makes a kill harmless: weights first, under a name that nothing refers to yet, then one
transaction in the ledger that refers to them. Whatever the ledger does not know of was not done, and is done again.
"""

import platform
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from statistics import fmean
from typing import Any

from soarctl import __version__
from soarctl.api import Domain, Engine, Problem, Prompt, Reward, Sampling, Stream
from soarctl.errors import DataError, RunError, disk_errors
from soarctl.events import Tell
from soarctl.fail_at_k import fail_at_k, halve
from soarctl.filter_results import manifest, reuse
from soarctl.grading import grade
from soarctl.ledger import FILE, Filtered, Ledger, mean_measures
from soarctl.practice import Baseline, Practice
from soarctl.run_directory import (
    StudentShelf,
    drop_old_teachers,
    go_back,
    load_baseline,
    lock,
    restore_teacher,
    save_baseline,
    save_teacher,
)
from soarctl.soar import State, StepRecord, outer_step
from soarctl.spec import Evaluation, Spec
from soarctl.spec_reader import LoadedSpec

# Changing these between a run and its resumption changes nothing that was or will be learned.
HARMLESS = ("name", "checkpoints", "evaluation")


def run(loaded: LoadedSpec, directory: Path, tell: Tell, *, resume: bool = False, from_step: int | None = None) -> None:
    """Does what the spec says, in `directory`.

    Args:
        loaded: the spec with its plug-ins.
        directory: of the run; made if it is not there.
        tell: hears of all progress.
        resume: go on with the run that is there.
        from_step: with `resume`: go back to the checkpoint after this outer step first.

    Raises:
        RunError: the directory is in use, holds another run, or cannot be written.
    """
    spec, domain = loaded.spec, loaded.domain
    with disk_errors(directory):
        directory.mkdir(parents=True, exist_ok=True)
    with lock(directory), _open_ledger(loaded, directory, resume) as ledger:
        problems = _candidates(domain, spec.domain.plugin)
        engine = loaded.trainer.load(spec.model, spec.seed)
        _check_model(ledger, engine)
        if from_step is not None:
            go_back(directory, ledger, from_step)
        meter = Meter(tell, ledger)
        meter.tell(
            "started",
            name=spec.name,
            directory=str(directory),
            model=dict(engine.facts),
            domain=spec.domain.plugin,
            reward=spec.reward.plugin,
            steps=spec.outer.steps,
            tau=spec.promotion.tau,
            steps_done=ledger.steps_done,
        )
        found = _filter(spec, domain, engine, problems, ledger, meter)
        train = [f.problem for f in found if f.half == "train"]
        _outer_loop(spec, domain, loaded.reward, engine, train, ledger, directory, meter)
        if spec.evaluation is not None:
            test = [f.problem for f in found if f.half == "test"]
            _measure_held_out(spec, spec.evaluation, domain, engine, test, ledger, directory, meter)
        meter.tell("finished", directory=str(directory))


class Meter:
    """Passes events on, and writes down how long each phase took and how many tokens were sampled in it."""

    def __init__(self, tell: Tell, ledger: Ledger) -> None:
        self._tell = tell
        self._ledger = ledger
        self._tokens = 0
        self._since = time.monotonic()

    def tell(self, event: str, /, **facts: Any) -> None:
        self._tokens += facts.get("tokens", 0)
        self._tell(event, **facts)

    def lap(self, step: int, phase: str) -> float:
        """Records what passed since the last lap, and returns its seconds."""
        now = time.monotonic()
        seconds, tokens, self._since, self._tokens = now - self._since, self._tokens, now, 0
        self._ledger.put_timing(step, phase, seconds, tokens)
        return seconds


def _open_ledger(loaded: LoadedSpec, directory: Path, resume: bool) -> Ledger:
    spec = loaded.spec.model_dump(mode="json")
    if not (directory / FILE).exists():
        with disk_errors(directory):
            (directory / "spec.yaml").write_text(loaded.text)
        return Ledger.create(
            directory,
            {
                "spec": spec,
                "spec_sha256": loaded.hash,
                "overrides": [asdict(override) for override in loaded.overrides],
                "soarctl_version": __version__,
                "started": datetime.now(UTC).isoformat(timespec="seconds"),
                "machine": platform.platform(),
            },
        )
    if not resume:
        raise RunError(
            "there is a run here already",
            at=str(directory),
            hint="`--resume` goes on with it; `--out` names another directory",
        )
    ledger = Ledger.open(directory)
    before, now = _flat(ledger.facts["spec"]), _flat(spec)
    changed = [key for key in sorted(before | now) if before.get(key) != now.get(key)]
    grave = [key for key in changed if key.split(".")[0] not in HARMLESS]
    if grave:
        ledger.close()
        raise RunError(
            "the spec is not the one that this run was started with",
            at=str(directory),
            hint="\n".join(f"{key}: was {before.get(key)!r}, is {now.get(key)!r}" for key in grave)
            + f"\nonly {', '.join(HARMLESS)} may change; another spec needs another directory",
        )
    if changed:
        ledger.set_facts({"spec": spec, "spec_sha256": loaded.hash})
    return ledger


def _candidates(domain: Domain, name: str) -> list[Problem]:
    problems = list(domain.load())
    if not problems:
        raise DataError(f"the domain {name!r} loaded no problems", at="domain")
    twice = len(problems) - len({p.id for p in problems})
    if twice:
        raise DataError(
            f"{twice} of {len(problems)} problems of the domain {name!r} have the id of another", at="domain"
        )
    return problems


def _check_model(ledger: Ledger, engine: Engine) -> None:
    known, now = ledger.facts.get("model"), dict(engine.facts)
    if known is None:
        ledger.set_facts({"model": now})
    elif known.get("weights_sha256") != now.get("weights_sha256"):
        raise RunError(
            f"the base model {now.get('base')} is not the one that this run was started with",
            at=str(ledger.path),
            hint=f"its weights had the hash {known.get('weights_sha256')}, now {now.get('weights_sha256')}",
        )


def _filter(
    spec: Spec, domain: Domain, engine: Engine, problems: Sequence[Problem], ledger: Ledger, meter: Meter
) -> list[Filtered]:
    if "split" not in ledger.facts:
        if spec.filter.reuse is None:
            done = {f.problem.id: f for f in ledger.filtered()}
            found = fail_at_k(spec, domain, engine, problems, done, ledger.put_problems, meter.tell)
        else:
            found = reuse(spec, Path(spec.filter.reuse), problems, engine.facts)
        found = halve(domain, found, spec)
        with ledger.transaction():
            ledger.put_problems(found)
            ledger.set_facts({"split": manifest(spec, engine.facts, found)})
        meter.lap(0, "filter")
    found = ledger.filtered()
    meter.tell(
        "filtered",
        problems=len(found),
        train=sum(f.half == "train" for f in found),
        test=sum(f.half == "test" for f in found),
        samples=sum(f.samples for f in found),
    )
    return found


def _outer_loop(
    spec: Spec,
    domain: Domain,
    reward: Reward,
    engine: Engine,
    train: Sequence[Problem],
    ledger: Ledger,
    directory: Path,
    meter: Meter,
) -> None:
    shelf = StudentShelf(directory / "students", ledger)
    state = _restore(spec, engine, ledger, directory)
    while state.step < spec.outer.steps:
        step = state.step + 1
        stream = Stream((spec.seed, "outer", step))
        meter.tell("step_started", step=step, stage=state.baseline.stage)
        practice = Practice(spec, domain, engine, train, state.baseline, step, stream, shelf, meter.tell)
        before = state.baseline
        record = outer_step(spec, domain, reward, state, practice)
        measures = [domain.measure(problem) for problem in record.writing.questions]
        weights = save_teacher(directory, step, state.teacher)
        promoted = save_baseline(directory, state.baseline, step) if record.promoted else None
        with ledger.transaction():
            for samples, rates in before.rates.items():
                ledger.put_baseline_rates(before.stage, samples, rates)
            if promoted is not None:
                ledger.put_baseline(state.baseline.stage, step, record.promoted, promoted)
            ledger.put_step(record, state.window, measures)
            ledger.put_checkpoint(step, weights)
        shelf.clear()
        drop_old_teachers(directory, ledger, spec.checkpoints)
        seconds = meter.lap(step, "outer_step")
        meter.tell("step", seconds=seconds, **_facts_of(record, measures, domain))


def _restore(spec: Spec, engine: Engine, ledger: Ledger, directory: Path) -> State:
    teacher = engine.fleet([engine.start()], spec.teacher_optimizer)
    restore_teacher(directory, ledger, teacher)
    if not ledger.rows("SELECT stage FROM baselines"):
        ledger.put_baseline(0, None, None, None)
    [(stage,)] = ledger.rows("SELECT MAX(stage) FROM baselines")
    baseline = Baseline(load_baseline(directory, ledger, stage) if stage else engine.start(), stage)
    for samples, problem, rate in ledger.rows(
        "SELECT samples, problem, rate FROM baseline_rates WHERE stage = ?", stage
    ):
        baseline.rates.setdefault(samples, {})[problem] = rate
    return State(teacher, baseline, ledger.steps_done, ledger.window)


def _facts_of(record: StepRecord, measures: Sequence[Mapping[str, float]], domain: Domain) -> dict[str, Any]:
    """A finished outer step as plain values, for whoever shows it."""
    return {
        "step": record.step,
        "stage": record.stage,
        "reward": record.reward,
        "rewards": list(record.rewards_G),
        "window_mean": fmean(record.window),
        "promoted": record.promoted,
        "drawn": record.writing.drawn,
        "accepted": len(record.writing.questions),
        "rejections": dict(record.writing.rejections),
        "teacher": asdict(record.teacher),
        "measures": mean_measures(measures),
        "questions": [
            {"dataset": k, "question": dataset[0].question, "answer": dataset[0].answer}
            | {"solution": domain.solve(dataset[0].question)}
            for k, dataset in enumerate(record.datasets_G)
        ],
    }


def _measure_held_out(
    spec: Spec,
    evaluation: Evaluation,
    domain: Domain,
    engine: Engine,
    test: Sequence[Problem],
    ledger: Ledger,
    directory: Path,
    meter: Meter,
) -> None:
    """Base model and promoted student on the held-out half, which nothing before this line has asked about."""
    [(stage,)] = ledger.rows("SELECT MAX(stage) FROM baselines")
    arms = {"base": engine.start()} | ({"promoted": load_baseline(directory, ledger, stage)} if stage else {})
    ledger.set_facts({"test_half_opened_after_step": ledger.steps_done})
    draw = Sampling(spec.inner.max_new_tokens, evaluation.temperature, stop=tuple(domain.student_stops()))
    for arm, policy in arms.items():
        prompts = [
            Prompt(
                policy=0,
                text=domain.student_prompt(p.question),
                samples=evaluation.samples,
                stream=Stream((spec.seed, "evaluation", arm, p.id)),
            )
            for p in test
        ]
        groups = engine.fleet([policy], spec.student_optimizer).sample(prompts, draw)
        attempts = [(p, c.text) for p, group in zip(test, groups, strict=True) for c in group]
        verdicts = iter(grade(domain, attempts, meter.tell))
        ledger.put_evaluation(
            arm,
            evaluation.samples,
            {p.id: sum(next(verdicts).correct for _ in group) for p, group in zip(test, groups, strict=True)},
        )
        meter.lap(ledger.steps_done, f"evaluation of {arm}")
        meter.tell("evaluated", arm=arm, problems=len(test))


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one, with dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return flat
