"""What every part of a study works with."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from soarctl.api import Domain, Engine, Policy, Problem, Stream
from soarctl.events import Tell
from soarctl.ledger import Ledger
from soarctl.spec import Spec
from soarctl.study.spec import Arm, Kind, StudySpec


@dataclass(frozen=True)
class World:
    """A study at work, its runs finished."""

    study: StudySpec
    run: Spec
    """What all runs have in common: model, domain, how students learn."""
    domain: Domain
    engine: Engine
    train: Sequence[Problem]
    test: Sequence[Problem]
    """Hard problems held out, in order of id."""
    easier: Sequence[Problem]
    """Real problems for the oracle: those of its file, or candidates that the base model solves now and then."""
    runs: Mapping[Kind, Sequence[Path]]
    """Finished runs."""
    ledger: Ledger
    directory: Path
    tell: Tell

    def stream(self, arm: Arm, student: int) -> Stream:
        return Stream((self.study.seed, "study", arm.value, student))


@dataclass(frozen=True)
class Student:
    """One student of an arm, before its training."""

    source: str | None
    """The run whose teacher it learns from, by name."""
    questions: Sequence[Problem]
    """Practice questions, beside the hard problems."""
    start: Policy
