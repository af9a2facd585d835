"""What a run will cost, counted before anything runs: completions, tokens, updates, memory; and what tau resolves."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from math import ceil, sqrt
from pathlib import Path

from soarctl import asking
from soarctl.api import Problem, Student, train_size
from soarctl.errors import DataError, PluginError, SoarError
from soarctl.filter_results import manifest_path
from soarctl.model_size import ModelShape, read_shape
from soarctl.promotion import inner_steps
from soarctl.spec import Spec
from soarctl.spec_reader import LoadedSpec

PASS_RATE = 0.5
"""Share of teacher completions that is assumed to pass the format filter, where a number of them is expected."""

Range = tuple[int, int]
"""The least and the most."""


@dataclass(frozen=True, slots=True)
class Count:
    """Completions of one purpose."""

    what: str
    per_step: Range | None
    """In one outer step; None for what does not belong to one."""
    total: Range | None
    """In the whole run; None where it is not known."""
    max_new_tokens: int
    """Of one completion."""
    note: str = ""

    @property
    def tokens(self) -> int | None:
        """Most tokens sampled, prompts not counted."""
        return None if self.total is None else self.total[1] * self.max_new_tokens


@dataclass(frozen=True, slots=True)
class Memory:
    """What one role keeps all the time, on the device if nothing else is said."""

    role: str
    what: str
    bytes: int | None
    """None where the model's config is not on this machine or not of a known kind."""
    host: bool = False
    """It is kept in host memory."""


@dataclass(frozen=True, slots=True)
class Plan:
    """A run in numbers."""

    name: str
    outer_steps: int
    datasets: int
    """G: datasets of an outer step."""
    students: int
    """G r: students of an outer step."""
    student_updates: Range
    """Optimizer steps of students in the whole run."""
    promotions: Range
    questions: int
    """M = |Q_R|."""
    candidates: int | None
    counts: Sequence[Count]
    parameters: int | None
    policy_parameters: int | None
    """Of an adapter, or all."""
    memory: Sequence[Memory]
    cache_bytes: int | None
    """Of a token's keys and values while completions are sampled."""
    disk: Range | None
    """Bytes of the checkpoints that a run keeps, and of students while a step is unfinished."""
    tau: float
    window: int
    resolution: float | None
    """The smallest step of an outer step's mean reward, 1/(M G r); None where no student is measured."""
    standard_error: float | None
    """Of the mean over the window, if practice changes nothing and the baseline solves `assumed_accuracy` of Q_R."""
    assumed_accuracy: float
    warnings: Sequence[str]

    def count(self, what: str) -> Count:
        return next(count for count in self.counts if count.what == what)


def plan(loaded: LoadedSpec, candidates: int | None = None) -> Plan:
    """Counts what a spec asks for. Loads the domain's problems, and neither model nor torch.

    Args:
        loaded: the spec with its plug-ins.
        candidates: problems of the domain, where the caller has counted them.

    Raises:
        PluginError: the reward cannot be asked what it needs.
    """
    spec = loaded.spec
    demand = _ask_reward(loaded)
    candidates, warning = (candidates, None) if candidates is not None else _candidates(loaded)
    hard = _hard(spec, candidates)
    stages_T = [most_promotions(spec, step) if demand.students else 0 for step in range(spec.outer.steps + 1)]
    assumed = 1 / (spec.filter.samples + 2)
    error = _standard_error(spec, demand, assumed)
    shape = read_shape(spec.model.base, spec.model.revision)
    whole = loaded.trainer.trains_all_weights
    policy = shape.parameters if shape and whole else _adapter(spec, shape)
    return Plan(
        name=spec.name,
        outer_steps=spec.outer.steps,
        datasets=spec.datasets_per_step,
        students=demand.students,
        student_updates=_updates(spec, demand, stages_T),
        promotions=(0, stages_T[-1]),
        questions=demand.questions,
        candidates=candidates,
        counts=_counts(spec, demand, candidates, hard, stages_T),
        parameters=shape.parameters if shape else None,
        policy_parameters=policy,
        memory=_memory_of_all_weights(spec, demand, policy) if whole else _memory(spec, demand, shape, policy),
        cache_bytes=shape.cache_bytes if shape else None,
        disk=_disk(spec, demand, policy, stages_T[-1]),
        tau=spec.promotion.tau,
        window=spec.promotion.window,
        resolution=1 / demand.outcomes if demand.outcomes else None,
        standard_error=error,
        assumed_accuracy=assumed,
        warnings=[*([warning] if warning else []), *_warnings(spec, demand, hard, error, assumed)],
    )


@dataclass
class Demand:
    """What a reward asks for in one outer step, found by letting it ask: a `RewardContext` that trains nothing."""

    questions: int = 0
    """M."""
    students: int = 0
    student_attempts: int = 0
    """Attempts of trained students at Q_R."""
    solve_attempts: int = 0
    """Attempts of the base model at practice questions."""
    outcomes: int = 0
    """Attempts that one mean reward is the mean of: M G r."""
    baseline_samples: set[int] = field(default_factory=set[int])
    """Attempts per hard train problem of each baseline; 0 is one greedy attempt."""

    def draw_hard(self, count: int) -> Sequence[Problem]:
        self.questions = count
        return [Problem(f"hard problem {i}", "") for i in range(count)]

    def practise(
        self, datasets_G: Sequence[Sequence[Problem]], repeats: int, questions: Sequence[Problem], samples: int
    ) -> list[list[Student]]:
        self.questions = len(questions)
        self.students += len(datasets_G) * repeats
        self.student_attempts += len(datasets_G) * repeats * len(questions) * max(samples, 1)
        self.outcomes = self.student_attempts
        self.baseline_samples.add(samples)
        return [[Student(None, 0.0, 0.0, j) for j in range(repeats)] for _ in datasets_G]

    def solve_rates(self, problems: Sequence[Problem], samples: int) -> list[float]:
        self.solve_attempts += len(problems) * samples
        return [0.0 for _ in problems]


def _ask_reward(loaded: LoadedSpec) -> Demand:
    spec, demand = loaded.spec, Demand()
    datasets_G = [
        [Problem(f"question {k}.{i}", "") for i in range(spec.teacher.dataset_size)]
        for k in range(spec.datasets_per_step)
    ]
    try:
        loaded.reward.score(datasets_G, demand)
    except SoarError:
        raise
    except Exception as error:  # the boundary around a plug-in
        raise PluginError(
            f'the reward "{spec.reward.plugin}" cannot be planned: {type(error).__name__}: {error}',
            at=loaded.at("reward.plugin"),
        ) from error
    return demand


def _candidates(loaded: LoadedSpec) -> tuple[int | None, str | None]:
    try:
        return len(asking.load(loaded.domain)), None
    except (DataError, PluginError) as error:  # a laptop may have neither the data nor all that grades it
        where = f"{error.at}: " if error.at else ""
        return (
            None,
            f"the domain's problems cannot be counted, and what depends on them is unknown: {where}{error.message}",
        )


def _hard(spec: Spec, candidates: int | None) -> int | None:
    """Hard problems: as many as an earlier filter found, or at most all candidates."""
    if spec.filter.reuse is None:
        return candidates
    try:
        made = json.loads(manifest_path(Path(spec.filter.reuse)).read_bytes())
        return int(made["train"]["count"]) + int(made["test"]["count"])
    except (OSError, ValueError, KeyError, TypeError):
        return candidates


def most_promotions(spec: Spec, steps: int) -> int:
    """Promotions after `steps` outer steps if they come as early as they can."""
    m = spec.promotion.window
    return steps // m if spec.promotion.reset_window else max(0, steps - m + 1)


def _updates(spec: Spec, demand: Demand, stages_T: Sequence[int]) -> Range:
    steps = spec.outer.steps
    least = demand.students * _inner_steps(spec, 0) * steps
    return least, demand.students * sum(_inner_steps(spec, stage) for stage in stages_T[:steps])


def _inner_steps(spec: Spec, promotions: int) -> int:
    return inner_steps(spec.inner.steps, spec.inner.per_promotion, spec.inner.cap, promotions)


def _counts(
    spec: Spec, demand: Demand, candidates: int | None, hard: int | None, stages_T: Sequence[int]
) -> list[Count]:
    steps, inner = spec.outer.steps, spec.inner.max_new_tokens
    batch = spec.inner.batch_size * spec.inner.group_size
    updates = _updates(spec, demand, stages_T)
    train = None if hard is None else train_size(hard, spec.split.train_fraction)
    attempts = sum(max(samples, 1) for samples in demand.baseline_samples)
    needed = spec.datasets_per_step * spec.teacher.dataset_size
    bound = "" if spec.filter.reuse else "if every candidate is hard"
    found = [
        Count(
            "filter", None, _filter(spec, candidates), spec.filter.max_new_tokens, "at most; ends at a first success"
        ),
        Count(
            "teacher",
            (needed, needed * spec.teacher.resample_cap),
            (needed * steps, needed * spec.teacher.resample_cap * steps),
            spec.teacher.max_new_tokens,
            f"{needed:,} are kept; {ceil(needed / PASS_RATE):,} if {100 * PASS_RATE:.0f} % pass the format filter",
        ),
        Count(
            "practice",
            (
                demand.students * _inner_steps(spec, 0) * batch,
                demand.students * _inner_steps(spec, stages_T[steps - 1]) * batch,
            ),
            (updates[0] * batch, updates[1] * batch),
            inner,
            f"{demand.students} students; more after promotions",
        ),
        Count(
            "reward",
            (demand.student_attempts, demand.student_attempts),
            (demand.student_attempts * steps, demand.student_attempts * steps),
            inner,
            f"each student on {demand.questions} hard problems",
        ),
        Count(
            "solve rates",
            (demand.solve_attempts, demand.solve_attempts),
            (demand.solve_attempts * steps, demand.solve_attempts * steps),
            inner,
            "the base model on practice questions",
        ),
        Count(
            "baseline",
            None,
            None if train is None else (0, train * attempts * (1 + stages_T[steps - 1])),
            inner,
            f"each baseline once on all hard train problems; {bound or 'hard problems are known'}",
        ),
        Count("held-out", None, _held_out(spec, hard, train, stages_T[-1]), inner, bound),
    ]
    return [count for count in found if count.total != (0, 0)]


def _filter(spec: Spec, candidates: int | None) -> Range | None:
    if spec.filter.reuse is not None:
        return 0, 0
    return None if candidates is None else (candidates, candidates * spec.filter.samples)


def _held_out(spec: Spec, hard: int | None, train: int | None, promotions: int) -> Range | None:
    if spec.evaluation is None:
        return 0, 0
    if hard is None or train is None:
        return None
    most = (hard - train) * spec.evaluation.samples
    return 0, most * (2 if promotions else 1)


def _adapter(spec: Spec, shape: ModelShape | None) -> int | None:
    """Numbers of one adapter, for trainers that say in their options which ones they make."""
    options = spec.trainer.options
    rank, targets = options.get("rank"), options.get("targets")
    if shape is None or not isinstance(rank, int) or not isinstance(targets, list | tuple):
        return None
    return shape.adapter_parameters(rank, [str(target) for target in targets])


# In fp32: a number, and with it AdamW's two moments, and with them its gradient.
_WEIGHT, _RESTING, _LEARNING = 4, 12, 16


def _memory(spec: Spec, demand: Demand, shape: ModelShape | None, adapter: int | None) -> list[Memory]:
    size, precision = _dtype(spec)
    at_once = _at_once(spec, demand)
    roles = [
        Memory("all roles", f"one frozen base model, {precision}", _times(size, shape.parameters if shape else None)),
        Memory("teacher", "1 adapter with gradient and AdamW moments, fp32", _times(_LEARNING, adapter)),
    ]
    if not demand.students:
        return roles
    finished = f"{demand.students} adapters until the step ends, fp32"
    return [
        *roles,
        Memory("students", f"{at_once} at a time, the same", _times(at_once * _LEARNING, adapter)),
        Memory("baseline", "1 adapter, fp32", _times(_WEIGHT, adapter)),
        Memory("finished students", finished, _times(demand.students * _WEIGHT, adapter)),
    ]


def _memory_of_all_weights(spec: Spec, demand: Demand, parameters: int | None) -> list[Memory]:
    """Where policies take turns on the device."""
    size, precision = _dtype(spec)
    learning = "1 policy with gradient and AdamW moments, fp32"
    roles = [
        Memory("all roles", f"a working copy and the base model, {precision}", _times(2 * size, parameters)),
        Memory("whose turn it is", learning, _times(_LEARNING, parameters)),
    ]
    if not demand.students:
        return roles
    # The teacher, and all but one of the students that are begun together.
    waiting = _at_once(spec, demand)
    finished = f"{demand.students} policies in host memory until the step ends, fp32"
    return [
        *roles,
        Memory("waiting", f"{waiting} in host memory, with moments", _times(waiting * _RESTING, parameters), host=True),
        Memory("baseline", "1 policy in host memory, fp32", _times(_WEIGHT, parameters), host=True),
        Memory("finished students", finished, _times(demand.students * _WEIGHT, parameters), host=True),
    ]


def _dtype(spec: Spec) -> tuple[int, str]:
    """Bytes of a number that computes, and what to call it."""
    wide = spec.trainer.options.get("dtype") == "float32"
    return (4, "fp32") if wide else (2, "16 bit; twice that in fp32")


def _at_once(spec: Spec, demand: Demand) -> int:
    """Students that are trained side by side."""
    width = spec.trainer.options.get("width")
    return min(width, demand.students) if isinstance(width, int) else demand.students


def _times(each: int, numbers: int | None) -> int | None:
    """Bytes of so many numbers; None where that is not known."""
    return None if numbers is None else each * numbers


def _disk(spec: Spec, demand: Demand, policy: int | None, promotions: int) -> Range | None:
    if policy is None:
        return None
    keep = spec.checkpoints
    kept = min(spec.outer.steps, keep.keep_last + spec.outer.steps // keep.every)
    # Of a teacher the weights and AdamW's two moments, of a student the weights.
    always = 12 * policy * kept + 4 * policy * demand.students
    return always, always + (12 + 4) * policy * promotions


def _standard_error(spec: Spec, demand: Demand, accuracy: float) -> float | None:
    """Of the mean over the window, were students no better than their baseline and all answers independent.

    The baseline's own answers are part of every reward of a step: hence 1 + 1/(G r).
    """
    if not demand.outcomes:
        return None
    of_baseline = demand.outcomes / demand.students
    return sqrt(accuracy * (1 - accuracy) / of_baseline * (1 + 1 / demand.students) / spec.promotion.window)


def _warnings(spec: Spec, demand: Demand, hard: int | None, error: float | None, accuracy: float) -> list[str]:
    said: list[str] = []
    tau, m = spec.promotion.tau, spec.promotion.window
    if error is None:
        said.append("this reward trains no students, so nothing is ever promoted and there are no promotion questions")
    elif tau < 3 * error:
        remedies = [f"tau {ceil(30_000 * error) / 10_000:g}"]
        if tau > 0:
            remedies.insert(0, f"{ceil(demand.questions * (3 * error / tau) ** 2):,} hard problems per step")
        said.append(
            f"tau {tau:g} is below 3 standard errors of the mean over {m} steps ({3 * error:.4f}, if the baseline "
            f"solves {100 * accuracy:.2g} % of hard problems): some promotions may be luck; "
            f"{' or '.join(remedies)} would do"
        )
    if demand.outcomes and tau * m < Fraction(1, demand.outcomes):
        said.append(f"tau {tau:g} is so low that one solved problem in {m} steps is a promotion")
    train = None if hard is None else train_size(hard, spec.split.train_fraction)
    if train is not None and demand.questions > train:
        said.append(f"the reward asks for {demand.questions} hard train problems; there are {train} at most")
    return said
