"""What `soarctl run` shows while it works: a live view on a terminal, lines in a pipe, events as JSON on request."""

import json
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, Self

if TYPE_CHECKING:
    from rich.console import RenderableType

_STEPS_SHOWN = 12
_REFRESHES_PER_SECOND = 4
_WIDE = 120  # columns from which rewards and measures are shown, too


class View(Protocol):
    """Shows a run between `__enter__` and `__exit__`."""

    def __enter__(self) -> Self: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...
    def tell(self, event: str, /, **facts: Any) -> None: ...


class JsonLines:
    """Every event as one line of JSON on standard output."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def tell(self, event: str, /, **facts: Any) -> None:
        print(json.dumps({"event": event, **facts}, ensure_ascii=False), flush=True)


class PlainLines:
    """One line for each thing that is finished."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def tell(self, event: str, /, **facts: Any) -> None:
        line = describe(event, facts)
        if line is not None:
            print(line, flush=True)


def describe(event: str, facts: Mapping[str, Any]) -> str | None:
    """An event in one line; None for those that come too often to be read."""
    match event:
        case "started":
            done = f", {facts['steps_done']} done" if facts["steps_done"] else ""
            said = "".join(f", {name.replace('_', ' ')}: {value}" for name, value in facts["domain_facts"].items())
            return f"{facts['name']}: {facts['steps']} outer steps{done} in {facts['directory']}{said}"
        case "filter":
            faulty = f", {facts['faulty']} faulty" if facts.get("faulty") else ""
            return f"filter: {facts['done']} of {facts['of']} problems tried, {facts['hard']} never solved{faulty}"
        case "filtered":
            return f"hard problems: {facts['train']} to learn from, {facts['test']} held out, of {facts['problems']}"
        case "step":
            rewards = " ".join(f"{reward:+.3f}" for reward in facts["rewards"])
            promoted = "  promoted a student" if facts["promoted"] else ""
            return (
                f"step {facts['step']}: rewards {rewards}, mean {facts['reward']:+.4f}, moving average "
                f"{facts['window_mean']:+.4f}, {measured(facts)}{facts['seconds']:.1f} s{promoted}"
            )
        case "evaluated":
            return f"{facts['arm']}: measured on {facts['problems']} held-out problems"
        case "alarm":
            return f"alarm after step {facts['step']}: {facts['name']}: {facts['said']}. Try {facts['advice']}."
        case "warning":
            return f"warning: {facts['text']}"
        case _:
            return None


def measured(facts: Mapping[str, Any]) -> str:
    """The domain's numbers about the questions of a step, each followed by a comma."""
    return "".join(f"{name.replace('_', ' ')} {value:.2f}, " for name, value in facts["measures"].items())


class LiveView:
    """The run as it goes: what it does now, the last outer steps, and questions that the teacher just wrote."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.live import Live

        self._run: dict[str, Any] = {}
        self._doing = "loading the model"
        self._alarms: Sequence[Mapping[str, Any]] = ()
        self._steps = deque[dict[str, Any]](maxlen=_STEPS_SHOWN)
        self._seconds = list[float]()
        self._tokens = deque[tuple[float, int]]([(time.monotonic(), 0)], maxlen=64)
        self._began = time.monotonic()
        self._step_began: float | None = None
        self._students = ""
        self._console = Console()
        self._live = Live(console=self._console, get_renderable=self._draw, refresh_per_second=_REFRESHES_PER_SECOND)

    def __enter__(self) -> Self:
        self._live.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.__exit__(kind, error, trace)

    def tell(self, event: str, /, **facts: Any) -> None:
        if "tokens" in facts:
            self._tokens.append((time.monotonic(), facts["tokens"]))
        match event:
            case "started":
                self._run, self._alarms = facts, facts["alarms"]
            case "filter":
                self._doing = f"filter: {facts['done']}/{facts['of']} problems, {facts['hard']} never solved"
            case "filtered":
                self._run |= {"train": facts["train"], "test": facts["test"], "problems": facts["problems"]}
            case "step_started":
                self._step_began, self._students = time.monotonic(), ""
                self._doing = f"outer step {facts['step']}/{self._run['steps']}: the teacher writes"
                self._run["now"] = facts["step"]
            case "inner_step":
                self._doing = (
                    f"outer step {self._run['now']}/{self._run['steps']}: students practise, "
                    f"inner step {facts['inner_step']}/{facts['inner_steps']}, reward {facts['reward']:.2f}"
                    f"{self._students}"
                )
            case "students":
                self._students = f", {facts['finished']}/{facts['of']} students finished"
                self._doing = f"outer step {self._run['now']}/{self._run['steps']}: students practise{self._students}"
            case "step":
                self._steps.append(facts)
                self._seconds.append(facts["seconds"])
                self._alarms = facts["alarms"]
            case "evaluated":
                self._doing = f"measured {facts['arm']} on {facts['problems']} held-out problems"
            case "finished":
                self._doing = "finished"
            case "warning":
                self._console.print(f"warning: {facts['text']}", markup=False)
            case _:
                pass

    def _draw(self) -> "RenderableType":
        from rich.console import Group
        from rich.text import Text

        parts: list[RenderableType] = [self._header(), Text(f"{self._doing}{self._rate()}", style="bold")]
        parts += [_alarm_line(alarm) for alarm in self._alarms]
        if self._steps:
            parts += [Text(), self._table(), Text(), *self._questions()]
        return Group(*parts)

    def _header(self) -> "RenderableType":
        from rich.text import Text

        run = self._run
        if not run:
            return Text("soarctl")
        hard = f", {run['train']} hard problems + {run['test']} held out" if "train" in run else ""
        said = "".join(f", {name.replace('_', ' ')}: {value}" for name, value in run["domain_facts"].items())
        return Text(f"{run['name']}  domain {run['domain']}{said}, reward {run['reward']}{hard}  -> {run['directory']}")

    def _rate(self) -> str:
        first, last = self._tokens[0][0], time.monotonic()
        rate = sum(tokens for _, tokens in self._tokens) / max(last - first, 1e-9)
        # Who watches a run from outside hears of no tokens.
        said = f"   {rate / 1000:.1f} k tokens/s" if rate else ""
        said += f"   {_clock(last - self._began)}"
        if self._seconds and self._step_began is not None and self._doing != "finished":
            each = sum(self._seconds) / len(self._seconds)
            left = max((self._run["steps"] - self._run["now"] + 1) * each - (last - self._step_began), 0)
            said += f", about {_clock(left)} left"
        return said

    def _table(self) -> "RenderableType":
        from rich import box
        from rich.table import Table

        columns: dict[str, Callable[[Mapping[str, Any]], str]] = {
            "step": lambda facts: str(facts["step"]),
            "stage": lambda facts: str(facts["stage"]),
            "mean": lambda facts: f"{facts['reward']:+.4f}",
            f"average > {self._run['tau']:g}": lambda facts: f"{facts['window_mean']:+.4f}",
        }
        if self._console.width >= _WIDE:
            columns["passed"] = lambda facts: f"{100 * facts['accepted'] / facts['drawn']:.0f} %"
            columns["rewards"] = lambda facts: " ".join(f"{reward:+.3f}" for reward in facts["rewards"])
            columns |= {name: _measure(name) for name in self._steps[-1]["measures"]}
        columns[""] = lambda facts: "promoted" if facts["promoted"] else ""
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
        for name in columns:
            table.add_column(name.replace("_", " "), justify="right", no_wrap=True)
        for facts in self._steps:
            cells = [cell(facts) for cell in columns.values()]
            table.add_row(*cells, style="bold green" if facts["promoted"] else None)
        return table

    def _questions(self) -> "list[RenderableType]":
        from rich.text import Text

        lines: list[RenderableType] = []
        facts = self._steps[-1]
        for asked in facts["questions"]:
            verdict, style = _verdict(asked)
            text = Text(f"  {facts['rewards'][asked['dataset']]:+.3f}  {_short(asked['question'])}")
            text.append(f"  answer {_short(asked['answer'])}")
            text.append(f"  {verdict}", style=style)
            lines.append(text)
        return lines


def _alarm_line(alarm: Mapping[str, Any]) -> "RenderableType":
    from rich.text import Text

    text = Text(f"{alarm['name']}", style="bold red")
    return text.append(f" since step {alarm['step']}: {alarm['said']}. Try {alarm['advice']}.", style="not bold")


def _measure(name: str) -> "Callable[[Mapping[str, Any]], str]":
    return lambda facts: f"{facts['measures'].get(name, 0.0):.2f}"


def _verdict(asked: Mapping[str, Any]) -> tuple[str, str]:
    if asked["solution"] is None:
        return "", ""
    return ("right", "green") if asked["solution"] == asked["answer"] else (f"wrong: {asked['solution']}", "red")


def _short(text: str) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= 60 else f"{flat[:57]}..."


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
