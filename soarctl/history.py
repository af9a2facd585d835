"""What happened in a run, read from its ledger as plain values. Needs neither torch, nor the model, nor plug-ins."""

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from statistics import fmean

from soarctl.ledger import Ledger
from soarctl.runs import facts_of, holder


class Progress(StrEnum):
    """How far a run has got."""

    RUNNING = "running"
    FINISHED = "finished"
    INTERRUPTED = "interrupted"


@dataclass(frozen=True, slots=True)
class Overview:
    """A run as a whole."""

    name: str
    directory: str
    model: str
    domain: str
    reward: str
    trainer: str
    seed: int
    spec_sha256: str
    soarctl_version: str
    started: str
    progress: Progress
    holder: str | None
    """Who runs it, as `pid 12 on host`."""
    steps_done: int
    steps: int
    promotions: int
    problems: int
    """Candidates that the fail@k filter has looked at."""
    train: int
    """Hard problems that the run learns from."""
    test: int
    """Hard problems held out."""
    tau: float
    window: int
    """m: outer steps in the moving average that is compared with tau."""


@dataclass(frozen=True, slots=True)
class OuterStep:
    """One finished outer step."""

    step: int
    stage: int
    """Promotions before it."""
    rewards_G: Sequence[float]
    reward: float
    """Mean of rewards_G."""
    window_mean: float
    """Mean of the promotion window, this step included."""
    window_filled: int
    """Steps in the window. It decides nothing before it holds m."""
    promoted: tuple[int, int] | None
    """(dataset, repeat) of the student that became the baseline."""
    drawn: int
    """Teacher completions sampled."""
    accepted: int
    """Those that passed the format filter: kept as questions, or one or a few more than were needed."""
    measures: Mapping[str, float]
    """The domain's numbers, averaged over the step's questions."""


def overview(ledger: Ledger) -> Overview:
    """The run as a whole.

    Raises:
        RunError: the run was killed before it had written its spec.
    """
    facts = facts_of(ledger)
    spec, directory = facts["spec"], ledger.path.parent
    halves = dict(ledger.rows("SELECT COALESCE(half, 'easy'), COUNT(*) FROM problems GROUP BY half"))
    [(promotions,)] = ledger.rows("SELECT COUNT(*) FROM baselines WHERE stage > 0")
    held_by = holder(directory)
    done = ledger.steps_done >= spec["outer"]["steps"] and _measured(ledger, spec, promotions)
    return Overview(
        name=spec["name"],
        directory=str(directory),
        model=spec["model"]["base"],
        domain=spec["domain"]["plugin"],
        reward=spec["reward"]["plugin"],
        trainer=spec["trainer"]["plugin"],
        seed=spec["seed"],
        spec_sha256=facts.get("spec_sha256", ""),
        soarctl_version=facts.get("soarctl_version", ""),
        started=facts.get("started", ""),
        progress=Progress.RUNNING if held_by else Progress.FINISHED if done else Progress.INTERRUPTED,
        holder=held_by,
        steps_done=ledger.steps_done,
        steps=spec["outer"]["steps"],
        promotions=promotions,
        problems=sum(halves.values()),
        train=halves.get("train", 0),
        test=halves.get("test", 0),
        tau=spec["promotion"]["tau"],
        window=spec["promotion"]["window"],
    )


def outer_steps(ledger: Ledger) -> list[OuterStep]:
    """The finished outer steps, in order."""
    m = facts_of(ledger)["spec"]["promotion"]["window"]
    rejected = dict(ledger.rows("SELECT step, SUM(count) FROM rejections GROUP BY step"))
    rewards: defaultdict[int, list[float]] = defaultdict(list)
    for step, reward in ledger.rows("SELECT step, reward FROM datasets ORDER BY step, dataset"):
        rewards[step].append(reward)
    promoted = {
        step: (dataset, repeat)
        for step, dataset, repeat in ledger.rows("SELECT step, dataset, repeat FROM baselines WHERE stage > 0")
    }
    steps: list[OuterStep] = []
    for step, stage, reward, window, drawn, measures in ledger.rows(
        "SELECT step, stage, reward, window, drawn, measures FROM steps ORDER BY step"
    ):
        recent = json.loads(window)[-m:]
        steps.append(
            OuterStep(
                step=step,
                stage=stage,
                rewards_G=rewards[step],
                reward=reward,
                window_mean=fmean(recent),
                window_filled=len(recent),
                promoted=promoted.get(step),
                drawn=drawn,
                accepted=drawn - rejected.get(step, 0),
                measures=json.loads(measures),
            )
        )
    return steps


def best_window(ledger: Ledger) -> OuterStep | None:
    """The outer step with the largest mean over a full promotion window; None where no window was full yet."""
    m = facts_of(ledger)["spec"]["promotion"]["window"]
    full = [step for step in outer_steps(ledger) if step.window_filled == m]
    return max(full, key=lambda step: step.window_mean, default=None)


def _measured(ledger: Ledger, spec: Mapping[str, object], promotions: int) -> bool:
    """Whether the closing measurement is complete, or not asked for."""
    if spec["evaluation"] is None:
        return True
    arms = {arm for (arm,) in ledger.rows("SELECT DISTINCT arm FROM evaluations")}
    return arms >= ({"base", "promoted"} if promotions else {"base"})
