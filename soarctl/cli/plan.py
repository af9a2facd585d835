"""`soarctl plan`: what a spec will cost, before anything runs."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from soarctl.estimate import Estimate, WhatIf
    from soarctl.plan import Plan, Range
    from soarctl.spec import Spec


def plan(path: str, overrides: Sequence[str], rates: Path | None, price: float | None, *, as_json: bool) -> None:
    """Prints counts, memory, time and price.

    Raises:
        SoarError: the spec asks for something impossible, or the file of rates is none.
    """
    from soarctl.estimate import estimate, estimates, what_if
    from soarctl.plan import plan
    from soarctl.rates import find, read
    from soarctl.spec_reader import load_spec

    loaded = load_spec(path, overrides)
    counted = plan(loaded)
    measured = read(rates) if rates else find(loaded.spec)
    times = [estimate(loaded.spec, counted, measured)] if measured else estimates(loaded.spec, counted)
    smaller = what_if(loaded, counted, measured)
    if as_json:
        print(json.dumps(_values(counted, times, smaller, price), indent=2))
    else:
        _print(loaded.spec, counted, times, smaller, price)


def _values(
    plan: "Plan", times: "Sequence[Estimate]", smaller: "Sequence[WhatIf]", price: float | None
) -> dict[str, object]:
    counts = [asdict(count) | {"tokens": count.tokens} for count in plan.counts]
    estimates = [
        asdict(time)
        | {"costs": [asdict(cost) | {"seconds": cost.seconds} for cost in time.costs]}
        | ({"price": [price * seconds / 3600 for seconds in time.seconds]} if price is not None else {})
        for time in times
    ]
    return {**asdict(plan), "counts": counts, "estimates": estimates, "what_if": [asdict(one) for one in smaller]}


def _print(
    spec: "Spec", plan: "Plan", times: "Sequence[Estimate]", smaller: "Sequence[WhatIf]", price: float | None
) -> None:
    from soarctl.cli.table import print_table

    print(f"{plan.name}: {plan.outer_steps} outer steps, {plan.datasets} datasets and {plan.students} students in each")
    print(f"  student updates       {_range(plan.student_updates)}")
    print(f"  promotions            {_range(plan.promotions)}")
    print(f"  candidate problems    {_number(plan.candidates)}")
    print(f"  base model            {_number(plan.parameters)} parameters")
    print(f"  trained in a policy   {_number(plan.policy_parameters)} parameters")
    print()
    print_table(
        ["COMPLETIONS", "PER OUTER STEP", "WHOLE RUN", "TOKENS AT MOST", ""],
        [
            [count.what, _range(count.per_step), _range(count.total) or "unknown", _number(count.tokens), count.note]
            for count in plan.counts
        ],
    )
    print("prompt tokens are not counted; a range is from no promotion to as many as there can be")
    print()
    print_table(["MEMORY", "BYTES", ""], [[m.role, _bytes(m.bytes), m.what] for m in plan.memory])
    print("what sampling and training need for a moment, caches and activations, comes on top")
    print(f"checkpoints on disk: {_bytes_range(plan.disk)}")
    print()
    _print_time(spec, plan, times, price)
    if smaller:
        print()
        _print_what_if(times[0], smaller)
    if plan.resolution is not None:
        print()
        print(
            f"an outer step's reward moves in steps of 1/{1 / plan.resolution:,.0f} = {plan.resolution:.2g} "
            "(questions x attempts x students); "
            f"a promotion needs a mean above {plan.tau:g} over {plan.window} outer steps"
        )
    for warning in plan.warnings:
        print(f"warning: {warning}")


def _print_time(spec: "Spec", plan: "Plan", times: "Sequence[Estimate]", price: float | None) -> None:
    from soarctl.cli.durations import durations
    from soarctl.cli.table import print_table
    from soarctl.estimate import sequences
    from soarctl.rates import GPUS, LENGTH

    if not times:
        print("time: unknown until `soarctl bench` with this spec measures it")
        return
    first = times[0]
    if len(times) > 1:
        print(f"time and price, {first.source}; `soarctl bench` measures a machine")
        print_table(
            ["GPU", "TOKENS/S SAMPLED", "TRAINED", "HOURS", *(["PRICE"] if price is not None else []), "SEQUENCES"],
            [
                [
                    time.device,
                    f"{time.decode:,.0f}",
                    f"{time.train:,.0f}" if time.train else "",
                    _span([seconds / 3600 for seconds in time.seconds]),
                    *([_price(time, price)] if price is not None else []),
                    _number(sequences(spec, plan, gpu)),
                ]
                for time, gpu in zip(times, GPUS, strict=True)
            ],
        )
        print("SEQUENCES: completions of the longest kind whose caches fit beside what is in memory all the time")
        print(f"completions are taken to be {100 * LENGTH:.0f} % of the longest; on the {first.device}:")
    else:
        print(
            f"time on {first.device}, {first.source}: {first.decode:,.0f} tokens/s sampled"
            + (f", {first.train:,.0f} trained" if first.train else "")
        )
    print_table(
        ["TIME", "COMPLETIONS", "TOKENS EACH", "MS EACH", "COMPLETIONS x MS EACH"],
        [
            [
                cost.what,
                _range((round(cost.completions[0]), round(cost.completions[1]))),
                f"{cost.tokens_each:.1f}",
                f"{1000 * cost.seconds_each:.3g}",
                durations(cost.seconds),
            ]
            for cost in first.costs
        ],
    )
    start = f"{first.startup:.0f} s to load the model and " if first.startup else ""
    total = f"{start}all of these: {durations(first.seconds)}"
    if price is not None:
        hours = _span([seconds / 3600 for seconds in first.seconds], 4)
        total += f"; {hours} h x {price:g} per hour = {_price(first, price)}"
    print(total)
    if first.unknown:
        print(f"left out, as their number is unknown: {', '.join(first.unknown)}")


def _print_what_if(now: "Estimate", smaller: "Sequence[WhatIf]") -> None:
    from soarctl.cli.durations import duration
    from soarctl.cli.table import print_table

    print_table(
        [f"WHAT IF ({now.device})", "TIME WITHOUT PROMOTIONS", "SAVED", "REWARD MOVES BY"],
        [
            [
                one.change,
                f"{duration(now.seconds[0])} -> {duration(one.seconds[0])}",
                f"{100 * (1 - one.seconds[0] / now.seconds[0]):.0f} %",
                f"1/{1 / one.resolution:,.0f}" if one.resolution else "",
            ]
            for one in smaller
        ],
    )


def _price(time: "Estimate", price: float) -> str:
    low, high = (f"{price * seconds / 3600:,.2f}" for seconds in time.seconds)
    return low if low == high else f"{low} to {high}"


def _span(values: Sequence[float], digits: int = 3) -> str:
    low, high = (f"{value:.{digits}g}" for value in values)
    return low if low == high else f"{low} to {high}"


def _bytes_range(span: "Range | None") -> str:
    if span is None:
        return "unknown"
    low, high = map(_bytes, span)
    return low if low == high else f"{low} to {high}"


def _range(counted: "Range | None") -> str:
    if counted is None:
        return ""
    least, most = counted
    return f"{least:,}" if least == most else f"{least:,} to {most:,}"


def _number(value: int | None) -> str:
    return "unknown" if value is None else f"{value:,}"


def _bytes(value: int | None) -> str:
    if value is None:
        return "unknown"
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if value >= size:
            return f"{value / size:.1f} {unit}"
    return f"{value} B"
