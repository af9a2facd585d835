"""Runs that a study is given in place of those that it would make: are they what it takes them for?"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from soarctl.errors import RunError
from soarctl.history import Progress, overview
from soarctl.ledger import Ledger
from soarctl.runs import facts_of
from soarctl.spec_reader import LoadedSpec
from soarctl.study.spec import Kind, StudySpec

LoadRun: TypeAlias = Callable[[Sequence[str]], LoadedSpec]
"""The spec of a study's runs, with the given changes."""


def check_given(spec: StudySpec, load_run: LoadRun) -> None:
    """Looks at all given runs of a study.

    Raises:
        RunError: one is not there, not finished, of another kind, or does not go together with the first.
    """
    first: Mapping[str, Any] | None = None
    for kind in spec.kinds:
        teachers = spec.teachers(kind)
        for place in teachers.directories:
            with Ledger.open(Path(place), read_only=True) as run:
                _check_kind(run, kind, load_run(teachers.set).spec.reward.plugin)
                first = first or run.facts
                check_fits(run, first)


def check_fits(run: Ledger, known: Mapping[str, Any]) -> None:
    """Whether a run has the base model, and the halves of the hard problems, of a study.

    Args:
        run: its ledger.
        known: facts of the study, or of another of its runs.

    Raises:
        RunError: it has not.
    """
    facts, place = facts_of(run), str(run.path.parent)
    split, model = facts.get("split", {}), facts.get("model", {})
    if any(split.get(half) != known["split"][half] for half in ("train", "test")):
        raise RunError(
            "the run has other hard problems, or other halves, than the study",
            at=place,
            hint="what it learned from may be held out here; make the runs with one `filter.reuse`",
        )
    ours = known.get("model")
    if ours is not None and model.get("weights_sha256") != ours.get("weights_sha256"):
        raise RunError(
            f"the run's base model {model.get('base')} is not that of the study, {ours.get('base')}",
            at=place,
            hint=f"its weights have the hash {model.get('weights_sha256')}, the study's {ours.get('weights_sha256')}",
        )


def _check_kind(run: Ledger, kind: Kind, reward: str) -> None:
    seen, place = overview(run), str(run.path.parent)
    if seen.progress is Progress.RUNNING:
        raise RunError(f"the run is at work: {seen.holder}", at=place, hint="a study takes finished runs")
    if seen.steps_done < seen.steps:
        raise RunError(f"the run has finished {seen.steps_done} of {seen.steps} outer steps", at=place)
    if seen.reward != reward:
        raise RunError(
            f"the run's reward is {seen.reward}, and {kind} runs have {reward}",
            at=place,
            hint=f"is it under the right kind? If it is: runs.{kind}.set: [reward.plugin={seen.reward}]",
        )
    if kind is Kind.NO_PROMOTION and seen.promotions:
        raise RunError(f"the run made promotions ({seen.promotions}), and {kind} runs make none", at=place)
