"""A run from its spec to its last line: filter, outer steps, closing measurement, every stage of it resumable.

The order of writing is what makes a kill harmless: weights first, under a name that nothing refers to yet, then one
transaction in the ledger that refers to them. Whatever the ledger does not know of was not done, and is done again.
"""

import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from soarctl import asking
from soarctl.alarms import alarms, alarms_by_step, judge
from soarctl.api import Domain, Engine, Problem, Reward, Sampling, Stream
from soarctl.crew import Crew, Together, Workplace, by_itself
from soarctl.errors import DataError, disk_errors
from soarctl.estimate import forecast
from soarctl.events import Tell
from soarctl.fail_at_k import fail_at_k, halve
from soarctl.filter_results import given_samples, manifest, reuse
from soarctl.ledger import Filtered, Ledger, mean_measures
from soarctl.named_files import check_files
from soarctl.practice import Baseline, Practice
from soarctl.run_directory import (
    StudentShelf,
    check_model,
    drop_old_teachers,
    go_back,
    is_filtered,
    load_baseline,
    lock,
    open_ledger,
    restore_teacher,
    save_baseline,
    save_teacher,
)
from soarctl.shared_teacher import SharedTeacher
from soarctl.soar import State, StepRecord, outer_step
from soarctl.solving import count_solved_by
from soarctl.spec import Evaluation, Spec
from soarctl.spec_reader import LoadedSpec
from soarctl.tracking import tracked


def run(
    loaded: LoadedSpec,
    directory: Path,
    tell: Tell,
    *,
    resume: bool = False,
    from_step: int | None = None,
    together: Together = by_itself,
) -> None:
    """Does what the spec says, in `directory`.

    Args:
        loaded: the spec with its plug-ins.
        directory: of the run; made if it is not there.
        tell: hears of all progress.
        resume: go on with the run that is there.
        from_step: with `resume`: go back to the checkpoint after this outer step first.
        together: calls the processes that share the work.

    Raises:
        RunError: the directory is in use, holds another run, or cannot be written.
        SpecError: a file that the spec names is not there.
    """
    began = time.monotonic()
    filtered = is_filtered(directory)
    check_files(loaded, filtered=filtered)
    with disk_errors(directory):
        directory.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        stack.enter_context(lock(directory))
        # Before there is a ledger, so that what fails here leaves no run behind.
        problems = _candidates(loaded.domain, loaded.spec.domain.plugin)
        if loaded.spec.filter.reuse is not None and not filtered:
            reuse(loaded.spec, loaded.domain, Path(loaded.spec.filter.reuse), problems, None)
        ledger = stack.enter_context(open_ledger(directory, loaded, resume=resume))
        tell = stack.enter_context(tracked(loaded.spec, directory, ledger, tell))
        assemble = stack.enter_context(together(directory))
        engine = loaded.trainer.load(loaded.spec.model, loaded.spec.seed)
        check_model(ledger, engine)
        if from_step is not None:
            go_back(directory, ledger, from_step)
        _record_estimate(ledger, loaded, len(problems))
        meter = Meter(tell, ledger, began)
        meter.lap(0, "loading")
        crew = assemble(Workplace(loaded.spec, loaded.domain, engine, meter.tell))
        work = _Run(loaded.spec, loaded.domain, loaded.reward, engine, crew, ledger, directory, meter)
        work.announce()
        train, test = work.filter(problems)
        work.outer_loop(train)
        if loaded.spec.evaluation is not None:
            work.measure_held_out(test, loaded.spec.evaluation)
        tell(
            "finished",
            directory=str(directory),
            alarms=[asdict(alarm) for alarm in alarms(ledger)],
            seconds=ledger.seconds,
            estimate=ledger.facts.get("estimate"),
        )


class Meter:
    """Passes events on, and writes down how long each phase took and how many tokens were sampled in it."""

    def __init__(self, tell: Tell, ledger: Ledger, since: float) -> None:
        self._tell = tell
        self._ledger = ledger
        self._tokens = 0
        self._since = since

    def tell(self, event: str, /, **facts: Any) -> None:
        self._tokens += facts.get("tokens", 0)
        self._tell(event, **facts)

    def lap(self, step: int, phase: str) -> float:
        """Records what passed since the last lap, and returns its seconds."""
        now = time.monotonic()
        seconds, tokens, self._since, self._tokens = now - self._since, self._tokens, now, 0
        self._ledger.put_timing(step, phase, seconds, tokens)
        return seconds


def _record_estimate(ledger: Ledger, loaded: LoadedSpec, candidates: int) -> None:
    """Keeps what `soarctl bench` lets us expect, to stand beside the truth. The first start of a run decides."""
    if "estimate" not in ledger.facts and (expected := forecast(loaded, candidates)):
        ledger.set_facts(
            {"estimate": {"seconds": expected.seconds, "device": expected.device, "source": expected.source}}
        )


def _candidates(domain: Domain, name: str) -> list[Problem]:
    problems = asking.load(domain)
    if not problems:
        raise DataError(f"the domain {name!r} loaded no problems", at="domain")
    twice = len(problems) - len({p.id for p in problems})
    if twice:
        raise DataError(
            f"{twice} of {len(problems)} problems of the domain {name!r} have the id of another", at="domain"
        )
    return problems


@dataclass(frozen=True)
class _Run:
    """A run in progress: what its phases share."""

    spec: Spec
    domain: Domain
    reward: Reward
    engine: Engine
    crew: Crew
    ledger: Ledger
    directory: Path
    meter: Meter

    def announce(self) -> None:
        """Says what runs, and records what the domain says of itself where it runs now."""
        self.ledger.set_facts({"domain": asking.facts(self.domain)})
        self.meter.tell(
            "started",
            name=self.spec.name,
            directory=str(self.directory),
            model=dict(self.engine.facts),
            domain=self.spec.domain.plugin,
            domain_facts=self.ledger.facts["domain"],
            reward=self.spec.reward.plugin,
            steps=self.spec.outer.steps,
            tau=self.spec.promotion.tau,
            steps_done=self.ledger.steps_done,
            alarms=alarms_by_step(self.ledger).get(self.ledger.steps_done, []),
        )

    def filter(self, problems: Sequence[Problem]) -> tuple[list[Problem], list[Problem]]:
        """The hard problems in two halves: to learn from, and held out."""
        if "split" not in self.ledger.facts:
            found = halve(self.domain, self._attempted(problems), self.spec)
            made = manifest(self.spec, self.domain, self.engine.facts, found, given_samples(self.spec))
            with self.ledger.transaction():
                self.ledger.put_problems(found)
                self.ledger.set_facts({"split": made})
            self.meter.lap(0, "filter")
        found = self.ledger.filtered()
        train, test = ([f.problem for f in found if f.half == half] for half in ("train", "test"))
        self.meter.tell("filtered", problems=len(found), train=len(train), test=len(test))
        return train, test

    def _attempted(self, problems: Sequence[Problem]) -> list[Filtered]:
        if self.spec.filter.reuse is not None:
            return reuse(self.spec, self.domain, Path(self.spec.filter.reuse), problems, self.engine.facts)
        done = {f.problem.id: f for f in self.ledger.filtered()}
        return fail_at_k(self.crew, problems, done, self.ledger.put_problems)

    def outer_loop(self, train: Sequence[Problem]) -> None:
        """The outer steps that are not done yet, each committed when it is."""
        shelf = StudentShelf(self.directory / "students", self.ledger, self.engine.repeats)
        state = self._restore()
        while state.step < self.spec.outer.steps:
            step, before = state.step + 1, state.baseline
            self.meter.tell("step_started", step=step, stage=before.stage)
            practice = Practice(
                crew=self.crew,
                train=train,
                baseline=before,
                step=step,
                stream=Stream((self.spec.seed, "outer", step)),
                shelf=shelf,
                seen=self.ledger.seen(before.stage) if self.spec.savings.reuse_overlap else (),
            )
            record = outer_step(self.spec, self.domain, self.reward, state, practice)
            measures = [asking.measure(self.domain, problem) for problem in record.writing.questions]
            self._commit(record, before, state, measures)
            shelf.clear()
            drop_old_teachers(self.directory, self.ledger, self.spec.checkpoints)
            seconds = self.meter.lap(step, "outer_step")
            seen = alarms_by_step(self.ledger).get(step, [])
            self.meter.tell("step", seconds=seconds, alarms=seen, **_facts_of(record, measures, self.domain))
            for alarm in seen:
                if alarm["step"] == step:
                    self.meter.tell("alarm", **alarm)

    def _commit(
        self, record: StepRecord, before: Baseline, state: State, measures: Sequence[Mapping[str, float]]
    ) -> None:
        weights = save_teacher(self.directory, record.step, state.teacher)
        promoted = save_baseline(self.directory, state.baseline, record.step) if record.promoted else None
        with self.ledger.transaction():
            for samples, rates in before.rates.items():
                self.ledger.put_baseline_rates(before.stage, samples, rates)
            if promoted is not None:
                self.ledger.put_baseline(state.baseline.stage, record.step, record.promoted, promoted)
            self.ledger.put_step(record, state.window, measures)
            self.ledger.put_alarms(record.step, judge(self.ledger))
            self.ledger.put_checkpoint(record.step, weights)

    def _restore(self) -> State:
        """What the last finished outer step left."""
        teacher = SharedTeacher(self.engine.fleet([self.engine.start()], self.spec.teacher_optimizer), self.crew)
        restore_teacher(self.directory, self.ledger, teacher)
        if not self.ledger.rows("SELECT stage FROM baselines"):
            self.ledger.put_baseline(0, None, None, None)
        baseline = self._baseline()
        for samples, problem, rate in self.ledger.rows(
            "SELECT samples, problem, rate FROM baseline_rates WHERE stage = ?", baseline.stage
        ):
            baseline.rates.setdefault(samples, {})[problem] = rate
        return State(teacher, baseline, self.ledger.steps_done, self.ledger.window)

    def _baseline(self) -> Baseline:
        [(stage,)] = self.ledger.rows("SELECT MAX(stage) FROM baselines")
        return Baseline(load_baseline(self.directory, self.ledger, stage) if stage else self.engine.start(), stage)

    def measure_held_out(self, test: Sequence[Problem], evaluation: Evaluation) -> None:
        """Base model and promoted student on the held-out half, which nothing before this line has asked about."""
        baseline = self._baseline()
        arms = {"base": self.engine.start()} | ({"promoted": baseline.policy} if baseline.stage else {})
        self.ledger.set_facts({"test_half_opened_after_step": self.ledger.steps_done})
        draw = Sampling(self.spec.inner.max_new_tokens, evaluation.temperature, stop=tuple(self.domain.student_stops()))
        for arm, policy in arms.items():
            questions = [(p, Stream((self.spec.seed, "evaluation", arm, p.id))) for p in test]
            solved = count_solved_by(self.crew, policy, questions, evaluation.samples, draw)
            correct = {p.id: count for p, count in zip(test, solved, strict=True)}
            self.ledger.put_evaluation(arm, evaluation.samples, correct)
            self.meter.lap(self.ledger.steps_done, f"evaluation of {arm}")
            self.meter.tell("evaluated", arm=arm, problems=len(test))


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
        "accepted": record.writing.drawn - sum(record.writing.rejections.values()),
        "rejections": dict(record.writing.rejections),
        "teacher": asdict(record.teacher),
        "measures": mean_measures(measures),
        "questions": [
            {"dataset": k, "question": dataset[0].question, "answer": dataset[0].answer}
            | {"solution": asking.solve(domain, dataset[0].question)}
            for k, dataset in enumerate(record.datasets_G)
        ],
    }
