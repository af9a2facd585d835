"""How long a run will take and what it will cost, from its counts and from what a completion takes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from soarctl.errors import DataError
from soarctl.plan import PASS_RATE, Count, Plan, most_promotions, plan
from soarctl.rates import GPUS, LEAST_PARAMETERS, PROMPT, Gpu, Rates, Spent, estimated, find
from soarctl.spec import Spec
from soarctl.spec_reader import LoadedSpec

Span = tuple[float, float]
"""The least and the most."""


@dataclass(frozen=True, slots=True)
class Cost:
    """The time of one purpose."""

    what: str
    completions: Span
    tokens_each: float
    seconds_each: float

    @property
    def seconds(self) -> Span:
        return self.completions[0] * self.seconds_each, self.completions[1] * self.seconds_each


@dataclass(frozen=True, slots=True)
class Estimate:
    """The time of a whole run on one device."""

    device: str
    source: str
    """Where the rates come from."""
    decode: float
    """Tokens sampled per second, in practice where students practise."""
    train: float | None
    """Tokens trained on per second; None where no students are trained."""
    startup: float
    costs: Sequence[Cost]
    unknown: Sequence[str]
    """Purposes whose completions could not be counted, and which are left out."""
    seconds: Span = field(init=False)

    def __post_init__(self) -> None:
        sums = [self.startup + sum(cost.seconds[i] for cost in self.costs) for i in (0, 1)]
        object.__setattr__(self, "seconds", (sums[0], sums[1]))


def estimate(spec: Spec, counted: Plan, rates: Rates) -> Estimate:
    """From rates that `soarctl bench` measured."""
    said = ", with random weights" if rates.random_weights else ""
    return _sum(spec, counted, rates.device, f"measured by soarctl bench on {rates.made}{said}", rates.spent, rates)


def forecast(loaded: LoadedSpec, candidates: int) -> Estimate | None:
    """From rates that were measured on this machine; None where there are none."""
    try:
        rates = find(loaded.spec)
    except DataError:
        return None  # a run does not fail for want of a forecast; `soarctl plan` says what is wrong with the file
    return estimate(loaded.spec, plan(loaded, candidates), rates) if rates else None


def estimates(spec: Spec, counted: Plan) -> list[Estimate]:
    """For each kind of GPU that we know; none where the model is not known or too small to reckon with."""
    if counted.parameters is None or counted.parameters < LEAST_PARAMETERS:
        return []
    source = "estimated from data sheets, not measured"
    frozen = counted.policy_parameters != counted.parameters
    return [
        _sum(
            spec,
            counted,
            gpu.name,
            source,
            estimated(spec, gpu, counted.parameters, frozen=frozen, fit=sequences(spec, counted, gpu)),
            None,
        )
        for gpu in GPUS
    ]


def sequences(spec: Spec, counted: Plan, gpu: Gpu) -> int | None:
    """Completions of the longest kind whose caches, prompts included, fit on a GPU beside what is there all the time.

    A tenth of the memory is left for activations and logits. Negative: the rest does not fit either. None where the
    model is not known.
    """
    resident = [memory.bytes for memory in counted.memory if not memory.host]
    if counted.cache_bytes is None or None in resident:
        return None
    left = 0.9 * gpu.memory - sum(bytes_ or 0 for bytes_ in resident)
    return int(left // (counted.cache_bytes * (PROMPT + spec.inner.max_new_tokens)))


def _sum(
    spec: Spec, counted: Plan, device: str, source: str, spent: Mapping[str, Spent], rates: Rates | None
) -> Estimate:
    costs: list[Cost] = []
    unknown: list[str] = []
    for count in counted.counts:
        completions = _expected(spec, counted, count, rates)
        # All others are attempts at hard problems, as those of the reward are.
        each = spent.get(count.what) or spent["reward"]
        if completions is None:
            unknown.append(count.what)
        else:
            costs.append(Cost(count.what, completions, each.tokens_each, each.seconds_each))
    practice = spent.get("practice") or spent["reward"]
    return Estimate(
        device=device,
        source=source,
        decode=practice.tokens / practice.sampling,
        train=practice.tokens / practice.training if practice.training else None,
        startup=rates.startup if rates else 0.0,
        costs=costs,
        unknown=unknown,
    )


def _expected(spec: Spec, counted: Plan, count: Count, rates: Rates | None) -> Span | None:
    """Completions of a purpose: as counted, and closer where rates of passing and solving were measured."""
    if count.what == "teacher":
        kept = counted.datasets * spec.teacher.dataset_size * counted.outer_steps
        passed = (rates.pass_rate if rates else None) or PASS_RATE
        return kept / passed, kept / passed
    if count.total is None:
        return None
    if count.what == "filter" and rates and rates.filter_attempts and counted.candidates:
        attempts = counted.candidates * rates.filter_attempts
        return attempts, attempts
    if count.what in ("baseline", "held-out"):
        # Of each baseline that starts an outer step; of the base model and the last baseline. At least of the first.
        hard = (rates.hard_rate if rates else None) or 1.0
        hard = hard if spec.filter.reuse is None else 1.0
        if count.what == "baseline":
            times = 1 + (most_promotions(spec, spec.outer.steps - 1) if counted.promotions[1] else 0)
        else:
            times = 2 if counted.promotions[1] else 1
        return count.total[1] * hard / times, count.total[1] * hard
    return count.total


@dataclass(frozen=True, slots=True)
class WhatIf:
    """A smaller spec, and what it would cost."""

    change: str
    seconds: Span
    resolution: float | None


def what_if(loaded: LoadedSpec, counted: Plan, rates: Rates | None) -> list[WhatIf]:
    """What fewer repeats and shorter budgets would cost, one at a time; empty where the time is not known.

    Without rates on the first GPU of our table. Half the longest completion counts as half the tokens.
    """
    if rates is None and not estimates(loaded.spec, counted):
        return []
    found: list[WhatIf] = []
    for key, now in _budgets(loaded.spec, counted):
        smaller = _with(loaded, key, now // 2)
        replanned = plan(smaller, candidates=counted.candidates)
        if rates is None:
            cost = estimates(smaller.spec, replanned)[0]
        else:
            spent = _shorter(rates.spent) if key == "inner.max_new_tokens" else rates.spent
            cost = estimate(smaller.spec, replanned, replace(rates, spent=spent))
        found.append(WhatIf(f"{key} {now // 2} in place of {now}", cost.seconds, replanned.resolution))
    return found


def _budgets(spec: Spec, counted: Plan) -> list[tuple[str, int]]:
    """Keys of whole numbers that cost grows with."""
    repeats = spec.reward.options.get("repeats")
    keys = [("reward.repeats", repeats)] if isinstance(repeats, int) else []
    if counted.students:
        keys += [("inner.steps", spec.inner.steps)]
    keys += [("inner.max_new_tokens", spec.inner.max_new_tokens), ("outer.steps", spec.outer.steps)]
    return [(key, now) for key, now in keys if now > 1]


def _with(loaded: LoadedSpec, key: str, value: int) -> LoadedSpec:
    section, name = key.split(".")
    values: dict[str, Any] = loaded.spec.model_dump()
    values[section][name] = value
    reward = loaded.reward.model_copy(update={name: value}) if section == "reward" else loaded.reward
    return replace(loaded, spec=Spec.model_validate(values), reward=reward)


def _shorter(spent: Mapping[str, Spent]) -> dict[str, Spent]:
    """Completions of students half as long."""
    halves = {
        what: replace(each, tokens=each.tokens // 2, sampling=each.sampling / 2, training=each.training / 2)
        for what, each in spent.items()
        if what in ("practice", "reward")
    }
    return {**spent, **halves}
