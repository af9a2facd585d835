"""How long completions take on this machine: the parts of an outer step, done once with the clock running.

The parts are the run's own functions, with the spec's model, fleet width and lengths; what would take too long is
measured with fewer students side by side.
"""

import platform
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from soarctl import asking
from soarctl.api import (
    Completion,
    Engine,
    Fleet,
    GradedSample,
    Policy,
    Problem,
    Prompt,
    Sampling,
    StepStats,
    Stream,
    Tensors,
)
from soarctl.crew import Alone, Workplace
from soarctl.errors import DataError
from soarctl.events import Tell, silent
from soarctl.fail_at_k import fail_at_k, is_hard
from soarctl.inner_loop import PracticeLog, batches, rloo_step, solve_rates
from soarctl.plan import Plan
from soarctl.rates import LENGTH, Rates, Spent, settings_of
from soarctl.soar import write_questions
from soarctl.spec import Spec
from soarctl.spec_reader import LoadedSpec

_CANDIDATES = 32
"""Problems that the filter is tried on."""


class Timed(Fleet):
    """A fleet that knows what its calls took."""

    def __init__(self, fleet: Fleet, *, must_learn: bool) -> None:
        self._fleet, self._must_learn = fleet, must_learn
        self.completions = self.tokens = 0
        self.sampling = self.training = 0.0

    def sample(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[list[Completion]]:
        began = time.perf_counter()
        groups = self._fleet.sample(prompts, sampling)
        self.sampling += time.perf_counter() - began
        self.completions += sum(map(len, groups))
        self.tokens += sum(len(completion.token_ids) for group in groups for completion in group)
        return groups

    def reinforce(self, samples_S: Sequence[Sequence[GradedSample]]) -> list[StepStats]:
        if self._must_learn:
            # Random weights solve nothing, and completions without an advantage would not be trained on.
            samples_S = [
                [replace(sample, advantage=1.0 if i % 2 else -1.0) for i, sample in enumerate(samples)]
                for samples in samples_S
            ]
        began = time.perf_counter()
        stats_S = self._fleet.reinforce(samples_S)
        self.training += time.perf_counter() - began
        return stats_S

    def snapshot(self, policy: int) -> Policy:
        return self._fleet.snapshot(policy)

    def state(self) -> Tensors:
        return self._fleet.state()

    def restore(self, state: Mapping[str, Any]) -> None:
        self._fleet.restore(state)

    def spent(self, wall: float) -> Spent:
        """What was done since the beginning, `wall` seconds ago; what was neither sampling nor training is grading."""
        grading = max(0.0, wall - self.sampling - self.training)
        return Spent(self.completions, self.tokens, self.sampling, grading, self.training)


def measure(loaded: LoadedSpec, counted: Plan, seconds: float, tell: Tell, *, random_weights: bool = False) -> Rates:
    """Measures this machine.

    Args:
        loaded: the spec with its plug-ins.
        counted: its plan.
        seconds: about how long to measure.
        tell: hears which part is measured.
        random_weights: the model's weights are random, so that lengths are decreed and nobody solves anything.

    Raises:
        SoarError: what a run would raise too: no problems, no model, a teacher that writes no questions.
    """
    problems = asking.load(loaded.domain)
    if not problems:
        raise DataError("the domain loaded no problems", at=loaded.at("domain.plugin"))
    began = time.perf_counter()
    engine = loaded.trainer.load(loaded.spec.model, loaded.spec.seed)
    startup = time.perf_counter() - began
    work = _Bench(
        loaded, _decreed(loaded.spec) if random_weights else loaded.spec, counted, engine, problems, random_weights
    )
    work.warm_up()
    deadline = time.perf_counter() + seconds
    spent: dict[str, Spent] = {}
    tell("bench", part="the teacher writes and learns")
    spent["teacher"], questions, pass_rate = work.teacher()
    width, fleet, slowest = 1, engine.fleet([engine.start()], work.spec.student_optimizer), 0.0
    if counted.students:
        tell("bench", part="students practise")
        spent["practice"], width, fleet, slowest = work.practice(questions, deadline - 0.5 * seconds)
    hard, attempts = None, None
    # The filter samples in rounds of more and more attempts, each as long as its longest completion.
    if not random_weights and loaded.spec.filter.reuse is None and 5 * slowest < deadline - time.perf_counter():
        tell("bench", part="the filter")
        spent["filter"], hard, attempts = work.filter()
    tell("bench", part="students are measured")
    spent["reward"] = work.reward(fleet, width, questions)
    return Rates(
        device=str(engine.facts.get("device", "unknown")),
        machine=platform.node(),
        made=datetime.now(UTC).isoformat(timespec="seconds"),
        settings=settings_of(loaded.spec),
        startup=startup,
        sequences=width * loaded.spec.inner.batch_size * loaded.spec.inner.group_size,
        random_weights=random_weights,
        pass_rate=pass_rate,
        hard_rate=hard,
        filter_attempts=attempts,
        spent=spent,
    )


def _decreed(spec: Spec) -> Spec:
    """The spec with completions as long as they are on the mean: random weights end none before its limit."""
    shorter = {
        section: {"max_new_tokens": max(1, round(LENGTH * tokens))}
        for section, tokens in (("teacher", spec.teacher.max_new_tokens), ("inner", spec.inner.max_new_tokens))
    }
    sections = {name: getattr(spec, name).model_copy(update=change) for name, change in shorter.items()}
    return spec.model_copy(update=sections)


@dataclass(frozen=True)
class _Bench:
    """What the measurements share."""

    loaded: LoadedSpec
    spec: Spec
    counted: Plan
    engine: Engine
    problems: Sequence[Problem]
    random_weights: bool

    def warm_up(self) -> None:
        """First calls choose kernels and fill caches."""
        fleet = self._fleet(1)
        prompt = Prompt(
            0, asking.student_prompt(self.loaded.domain, self.problems[0].question), 4, Stream(("bench", "warm"))
        )
        [group] = fleet.sample([prompt], Sampling(8))
        fleet.reinforce([[GradedSample(c, (-1.0) ** i) for i, c in enumerate(group)]])

    def teacher(self) -> tuple[Spent, list[Problem], float | None]:
        """An outer step's questions written and learned from; the questions; and the share that passed."""
        spec, domain = self.spec, self.loaded.domain
        needed = spec.datasets_per_step * spec.teacher.dataset_size
        fleet = Timed(self.engine.fleet([self.engine.start()], spec.teacher_optimizer), must_learn=True)
        began, stream = time.perf_counter(), Stream(("bench", "teacher"))
        if self.random_weights:
            draw = Sampling(spec.teacher.max_new_tokens)
            [completions] = fleet.sample([Prompt(0, asking.teacher_prompt(domain), needed, stream)], draw)
            # Practised instead of what the teacher would have written.
            questions = [self.problems[i % len(self.problems)] for i in range(needed)]
            passed = None
        else:
            writing = write_questions(spec.teacher, needed, domain, fleet, stream)
            questions, completions = list(writing.questions), writing.completions
            passed = sum(writing.rejections.values())
            passed = (writing.drawn - passed) / writing.drawn
        fleet.reinforce([[GradedSample(completion, 1.0) for completion in completions]])
        return fleet.spent(time.perf_counter() - began), questions, passed

    def practice(self, questions: Sequence[Problem], until: float) -> tuple[Spent, int, Fleet, float]:
        """Inner steps of as many students side by side as there is time for; their number, their fleet, and what it
        takes to sample once."""
        full = min(self.engine.width, self.counted.students)
        widths = sorted({max(1, full // 16), max(1, full // 4), full})
        fleet, width, wall = self._practise(widths[0], questions, 1)
        for wider in widths[1:]:
            if time.perf_counter() + wall * wider / width > until:
                break
            fleet, width, wall = self._practise(wider, questions, 1)
        slowest = fleet.sampling
        steps = min(self.spec.inner.steps, 1 + int((until - time.perf_counter()) / wall))
        if steps > 1:
            # Lengths and rewards change while students learn, so from the beginning.
            fleet, width, wall = self._practise(width, questions, steps)
        return fleet.spent(wall), width, fleet, slowest

    def _practise(self, width: int, questions: Sequence[Problem], steps: int) -> tuple[Timed, int, float]:
        inner, n = self.spec.inner, self.spec.teacher.dataset_size
        fleet = self._fleet(width)
        starts_S = [s * n % len(questions) for s in range(width)]
        datasets_S = [questions[at : at + n] for at in starts_S]
        streams_S = [Stream(("bench", "practice", s)) for s in range(width)]
        plans_S = [
            batches(len(d), inner.batch_size, steps, stream) for d, stream in zip(datasets_S, streams_S, strict=True)
        ]
        logs_S = [PracticeLog() for _ in datasets_S]
        began = time.perf_counter()
        for step in range(steps):
            batches_S = [[d[i] for i in plan[step]] for d, plan in zip(datasets_S, plans_S, strict=True)]
            rloo_step(fleet, self.loaded.domain, inner, batches_S, streams_S, step, logs_S, silent)
        return fleet, width, time.perf_counter() - began

    def filter(self) -> tuple[Spent, float, float]:
        """Some candidates filtered; the share of hard ones, and attempts per candidate."""
        order = Stream(("bench", "filter")).order(len(self.problems))[:_CANDIDATES]
        tokens = 0

        def count(event: str, /, **facts: Any) -> None:
            nonlocal tokens
            tokens += facts.get("tokens", 0)

        began = time.perf_counter()
        crew = Alone(Workplace(self.spec, self.loaded.domain, self.engine, count))
        found = fail_at_k(crew, [self.problems[i] for i in order], {}, lambda _: None)
        attempts = sum(f.samples for f in found)
        spent = Spent(attempts, tokens, time.perf_counter() - began)
        hard = sum(is_hard(self.loaded.domain, f, self.spec) for f in found)
        return spent, hard / len(found), attempts / len(found)

    def reward(self, fleet: Fleet, width: int, questions: Sequence[Problem]) -> Spent:
        """Attempts as the reward asks for them: students at hard problems, or the base model at practice questions."""
        spec, counted = self.spec, self.counted
        if counted.students:
            asked = [self.problems[i % len(self.problems)] for i in range(counted.questions)]
            samples = counted.count("reward").per_step
        else:
            asked, samples = list(questions), counted.count("solve rates").per_step
        assert samples is not None
        each = samples[0] // (max(counted.students, 1) * len(asked))
        timed = Timed(fleet, must_learn=False)
        stream = Stream(("bench", "reward"))
        wanted = [(s, p, stream.child(s, i)) for s in range(width) for i, p in enumerate(asked)]
        began = time.perf_counter()
        solve_rates(timed, self.loaded.domain, wanted, each if each > 1 else 0, spec.inner, silent)
        return timed.spent(time.perf_counter() - began)

    def _fleet(self, width: int) -> Timed:
        starts_S = [self.engine.start()] * width
        return Timed(self.engine.fleet(starts_S, self.spec.student_optimizer), must_learn=self.random_weights)
