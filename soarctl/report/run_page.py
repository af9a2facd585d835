"""What a report says about one run: figures, tables and examples, read from its ledger."""

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest
from statistics import fmean, median
from typing import Any

from markupsafe import Markup

from soarctl.alarms import Alarm, alarms
from soarctl.analysis import Funnel, funnels, promotion_leaks, questions_by_step
from soarctl.api import problem_id
from soarctl.diversity import Diversity, diversity
from soarctl.held_out import held_out_table
from soarctl.history import OuterStep, Overview, outer_steps, overview
from soarctl.ledger import Ledger
from soarctl.near_duplicates import Leaks
from soarctl.ngrams import tokens
from soarctl.report.charts import Series, line_chart
from soarctl.report.figures import Figure
from soarctl.solutions import Solution, Solver, solver_of
from soarctl.stages import questions_of

_LOOKED_AT = 64
"""Questions of each step that diversity and correctness are counted on."""
_EXAMPLES = 16
"""Example questions of each kind."""
_LONG, _SMOOTHED = 60, 9
"""From so many outer steps on, lines are means over so many steps."""


@dataclass(frozen=True)
class Example:
    """A practice question with where it came from and what became of it."""

    question: str
    answer: str
    solution: Solution
    step: int
    dataset: int
    reward: float
    gains_R: Sequence[float]
    stage: int | None
    """The promotion that its dataset led to."""


@dataclass(frozen=True)
class Phase:
    """Where time went."""

    name: str
    seconds: float
    tokens: int


@dataclass(frozen=True)
class RunPage:
    """One run, ready to be laid out."""

    run: Overview
    tiles: Sequence[tuple[str, str]]
    alarms: Sequence[Alarm]
    figures: Sequence[Figure]
    examples: Sequence[Example]
    rejections: Sequence[tuple[str, int, float]]
    """Rule, how many completions, share of all that were drawn."""
    leaks: Mapping[str, Leaks]
    phases: Sequence[Phase]
    seconds: float
    """Of all phases."""
    step_seconds: float
    """The median outer step's; 0 before the first."""
    smoothed_from: int = _LONG
    smoothed: int = _SMOOTHED


def run_page(ledger: Ledger) -> RunPage:
    """A run as far as it has got.

    Raises:
        RunError: it was killed before it had written its spec.
    """
    run, steps, solver = overview(ledger), outer_steps(ledger), solver_of(ledger)
    questions = questions_by_step(ledger)
    found: list[Figure | None] = []
    if steps:
        found = [
            _rewards(run, steps),
            _baseline(ledger),
            _held_out(ledger),
            *_measures(steps),
            _right({step: solver.solve(asked[:_LOOKED_AT]) for step, asked in questions.items()}),
            _length({step: [len(tokens(p.question)) for p in asked[:_LOOKED_AT]] for step, asked in questions.items()}),
            *_varied(_diversities({step: [p.question for p in asked] for step, asked in questions.items()})),
            _funnel(funnels(ledger)),
            _gains(ledger),
            _practice(ledger),
        ]
    return RunPage(
        run=run,
        tiles=_tiles(ledger, run, steps),
        alarms=alarms(ledger),
        figures=[figure for figure in found if figure is not None],
        examples=_examples(ledger, solver),
        rejections=_rejections(ledger),
        leaks=promotion_leaks(ledger) if run.promotions else {},
        phases=_phases(ledger),
        seconds=sum(phase.seconds for phase in _phases(ledger)),
        step_seconds=_median_step(ledger),
    )


def _tiles(ledger: Ledger, run: Overview, steps: Sequence[OuterStep]) -> list[tuple[str, str]]:
    tiles = [
        ("outer steps", f"{run.steps_done} of {run.steps}"),
        ("promotions", str(run.promotions)),
        ("hard + held out", f"{run.train} + {run.test}"),
    ]
    for arm in held_out_table(ledger):
        k, estimate = next(iter(arm.pass_at.items()))
        tiles.append((f"pass@{k}, {arm.name}", f"{100 * estimate.value:.1f} %"))
    if steps:
        drawn, accepted = sum(s.drawn for s in steps), sum(s.accepted for s in steps)
        tiles.append(("questions that pass", f"{100 * accepted / drawn:.0f} %"))
    seconds, sampled = ledger.rows("SELECT COALESCE(SUM(seconds), 0), COALESCE(SUM(tokens), 0) FROM timings")[0]
    return [*tiles, ("time", clock(seconds)), ("tokens sampled", f"{sampled / 1e6:,.1f} M")]


def _rewards(run: Overview, steps: Sequence[OuterStep]) -> Figure:
    promoted = [step.step for step in steps if step.promoted]
    series = [
        Series("reward of each dataset", [(s.step, r) for s in steps for r in s.rewards_G], 5, "dots"),
        Series(f"moving average of {run.window} steps", [(s.step, s.window_mean) for s in steps], 0),
    ]
    said = " An upright line is a promotion." if promoted else " No student was promoted."
    return Figure(
        "What the teacher earned",
        "A dataset's reward is the mean gain of its students on hard problems. A moving average above τ, "
        f"the broken line at {run.tau:g}, promotes.{said}",
        line_chart(
            series,
            label=f"Rewards over {len(steps)} outer steps, with {len(promoted)} promotions",
            x_label="outer step",
            y_label="reward",
            marks=promoted,
            level=run.tau,
            wide=True,
        ),
        series,
        wide=True,
    )


def _baseline(ledger: Ledger) -> Figure | None:
    by_kind: defaultdict[int, list[tuple[float, float]]] = defaultdict(list)
    for stage, samples, rate in ledger.rows(
        "SELECT stage, samples, AVG(rate) FROM baseline_rates GROUP BY stage, samples ORDER BY stage"
    ):
        by_kind[samples].append((stage, rate))
    if all(len(points) < 2 for points in by_kind.values()):
        return None
    series = [
        Series(f"{samples} attempts" if samples else "greedy", points, color)
        for color, (samples, points) in enumerate(sorted(by_kind.items()))
    ]
    stages = sorted({stage for points in by_kind.values() for stage, _ in points})
    return Figure(
        "The baseline after each promotion",
        "Share of the hard train problems that the student which all others start from solves.",
        line_chart(
            series,
            label="Accuracy of the baseline on hard train problems by promotions",
            x_label="promotions",
            y_label="accuracy",
            percent=True,
            x_ticks=[(stage, f"{stage:g}") for stage in stages],
            from_zero=True,
        ),
        series,
    )


def _held_out(ledger: Ledger) -> Figure | None:
    arms = held_out_table(ledger)
    if not arms:
        return None
    series = [
        Series(
            arm.name,
            [(place, e.value) for place, e in enumerate(arm.pass_at.values())],
            color,
            band=[(place, e.low, e.high) for place, e in enumerate(arm.pass_at.values())],
        )
        for color, arm in enumerate(arms)
    ]
    return Figure(
        "On held-out hard problems",
        f"{arms[0].problems} problems that nothing before this measurement asked about, {arms[0].samples} attempts "
        "each. Bands are 95 % bootstrap intervals over problems.",
        line_chart(
            series,
            label="pass@k of the base model and the promoted student",
            x_label="k",
            y_label="pass@k",
            percent=True,
            x_ticks=[(place, str(k)) for place, k in enumerate(arms[0].pass_at)],
            from_zero=True,
        ),
        series,
    )


def _measures(steps: Sequence[OuterStep]) -> list[Figure]:
    names = sorted({name for step in steps for name in step.measures})
    figures: list[Figure] = []
    for name in names:
        points = [(float(s.step), s.measures[name]) for s in steps if name in s.measures]
        series = [Series(name.replace("_", " "), points, 0)]
        title = f"What the teacher asks for: {name.replace('_', ' ')}"
        said = "The domain's own measure, the mean over the questions of each outer step."
        figures.append(Figure(title, said, _over_steps(series, title, name.replace("_", " ")), series))
    return figures


def _right(solutions: Mapping[int, Sequence[Solution]]) -> Figure | None:
    if all(s.answer is None for of_step in solutions.values() for s in of_step):
        return None
    series = [
        Series("has an answer", [(t, fmean(s.answer is not None for s in of)) for t, of in solutions.items()], 0),
        Series("answered right", [(t, fmean(bool(s.correct) for s in of)) for t, of in solutions.items()], 1),
    ]
    title = "Well-posed questions, and right answers"
    said = f"By the domain's own solver, of the first {_LOOKED_AT} questions of each step. Nothing in the run asks it."
    return Figure(title, said, _over_steps(series, title, "share", percent=True), series)


def _length(lengths: Mapping[int, Sequence[int]]) -> Figure:
    series = [Series("tokens", [(step, fmean(of)) for step, of in lengths.items()], 0)]
    title = "Length of questions"
    return Figure(title, "Words and signs, the mean of each outer step.", _over_steps(series, title, "words"), series)


def _diversities(texts: Mapping[int, Sequence[str]]) -> dict[int, Diversity]:
    archive: set[str] = set()
    found: dict[int, Diversity] = {}
    for step, asked in texts.items():
        found[step] = diversity(asked, archive, _LOOKED_AT)
        archive |= {problem_id(text) for text in asked}
    return found


def _varied(by_step: Mapping[int, Diversity]) -> list[Figure]:
    vendi = [Series("Vendi score", [(step, d.vendi) for step, d in by_step.items()], 0)]
    repeats = [
        Series("repeated within the step", [(step, d.repeated) for step, d in by_step.items()], 0),
        Series("known from earlier steps", [(step, d.known) for step, d in by_step.items()], 1),
    ]
    said = f"Effective number of different questions among {_LOOKED_AT}, by shared n-grams. A fall is a collapse."
    title = "Diversity"
    return [
        Figure(title, said, _over_steps(vendi, title, "questions", from_zero=True), vendi),
        Figure(
            "Questions that were asked before",
            "Share of the questions of each step, word for word.",
            _over_steps(repeats, "Repeated questions", "share", percent=True),
            repeats,
        ),
    ]


def _funnel(rows: Sequence[Funnel]) -> Figure:
    totals: defaultdict[str, int] = defaultdict(int)
    for row in rows:
        for rule, count in row.rejections.items():
            totals[rule] += count
    worst = sorted(totals, key=lambda rule: -totals[rule])[:4]
    passed = [(float(r.step), 1 - sum(r.rejections.values()) / r.drawn) for r in rows]
    series = [Series("passed", passed, 2)] + [
        Series(rule, [(r.step, r.rejections.get(rule, 0) / r.drawn) for r in rows], color)
        for color, rule in zip((1, 3, 4, 5), worst, strict=False)
    ]
    title = "What the format filter lets through"
    said = "Share of the teacher's completions by outcome. Rejected ones cost nothing and teach nothing."
    return Figure(title, said, _over_steps(series, title, "share", percent=True), series)


def _gains(ledger: Ledger) -> Figure | None:
    rows = ledger.rows("SELECT step, MIN(gain), AVG(gain), MAX(gain) FROM students GROUP BY step ORDER BY step")
    if not rows:
        return None
    series = [
        Series(
            "mean, and from least to most",
            [(step, mean) for step, _, mean, _ in rows],
            0,
            band=[(step, low, high) for step, low, _, high in rows],
        )
    ]
    title = "What students gained"
    said = "Accuracy on hard problems after practice, less the baseline's, over all students of a step."
    return Figure(title, said, _over_steps(series, title, "gain"), series)


def _practice(ledger: Ledger) -> Figure | None:
    by_stage: defaultdict[int, list[list[float]]] = defaultdict(list)
    for stage, rewards in ledger.rows("SELECT stage, rewards FROM students JOIN steps USING (step) ORDER BY stage"):
        by_stage[stage].append(json.loads(rewards))
    if not by_stage:
        return None
    shown = sorted(by_stage)[-6:]
    series = [
        Series(
            f"after {stage} promotions" if stage != 1 else "after 1 promotion",
            # Students whose practice ended early are missing in the last columns.
            [
                (i + 1, fmean(reward for reward in column if reward is not None))
                for i, column in enumerate(zip_longest(*by_stage[stage]))
            ],
            color,
        )
        for color, stage in enumerate(shown)
    ]
    title = "Students at practice"
    return Figure(
        title,
        "Training reward against the teacher's own answers, by inner step, the mean over all students.",
        line_chart(series, label=title, x_label="inner step", y_label="reward"),
        series,
    )


def _over_steps(
    series: Sequence[Series], label: str, y_label: str, *, percent: bool = False, from_zero: bool = False
) -> Markup:
    return line_chart(
        [_smoothed(s) for s in series],
        label=f"{label}, by outer step",
        x_label="outer step",
        y_label=y_label,
        percent=percent,
        from_zero=from_zero,
    )


def _smoothed(series: Series) -> Series:
    """Of a long run: means over a few steps, with the single steps faint behind them."""
    points = series.points
    if len(points) < _LONG or series.kind != "line":
        return series
    half = _SMOOTHED // 2
    means = [(x, fmean(y for _, y in points[max(i - half, 0) : i + half + 1])) for i, (x, _) in enumerate(points)]
    return replace(series, points=means, faint=[points])


def _examples(ledger: Ledger, solver: Solver) -> list[Example]:
    """Questions of promoted datasets, of the best datasets and of the worst, in this order."""
    datasets: list[Any] = ledger.rows(
        "SELECT step, dataset, datasets.reward, stage FROM datasets LEFT JOIN baselines USING (step, dataset)"
    )
    promoted = [row for row in datasets if row[3] is not None]
    others = sorted((row for row in datasets if row[3] is None), key=lambda row: -row[2])
    chosen = dict.fromkeys([*promoted[-8:], *others[:4], *others[-4:]])
    each = max(2 * _EXAMPLES // max(len(promoted), 1), 2)
    found: list[Example] = []
    for step, dataset, reward, stage in chosen:
        gains = [g for (g,) in ledger.rows("SELECT gain FROM students WHERE step = ? AND dataset = ?", step, dataset)]
        problems = [p for _, p, _ in questions_of(ledger, step, dataset)][: min(each, 6) if stage is not None else 2]
        found += [
            Example(p.question, p.answer, solution, step, dataset, reward, gains, stage)
            for p, solution in zip(problems, solver.solve(problems), strict=True)
        ]
    return found


def _rejections(ledger: Ledger) -> list[tuple[str, int, float]]:
    [(drawn,)] = ledger.rows("SELECT COALESCE(SUM(drawn), 0) FROM steps")
    rows = ledger.rows("SELECT rule, SUM(count) FROM rejections GROUP BY rule ORDER BY 2 DESC")
    return [(rule, count, count / drawn) for rule, count in rows if drawn]


def _phases(ledger: Ledger) -> list[Phase]:
    rows = ledger.rows("SELECT phase, SUM(seconds), SUM(tokens) FROM timings GROUP BY phase ORDER BY 2 DESC")
    return [Phase(*row) for row in rows]


def _median_step(ledger: Ledger) -> float:
    rows = ledger.rows("SELECT SUM(seconds) FROM timings WHERE phase = 'outer_step' GROUP BY step")
    return median(seconds for (seconds,) in rows) if rows else 0.0


def clock(seconds: float) -> str:
    """Seconds as people say them: 1:02:03 or 2:03."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def signed(gain: float) -> str:
    """A gain with its sign."""
    return f"{gain:+.3f}".replace("-", "\N{MINUS SIGN}")
