"""A study of the toy world: all arms, in a few seconds."""

from collections.abc import Callable, Sequence
from contextlib import chdir
from pathlib import Path
from typing import Any

import pytest

from soarctl.events import Tell, silent
from soarctl.located import parse
from soarctl.spec_reader import LoadedSpec
from soarctl.study.conduct import study
from soarctl.study.spec import StudySpec
from soarctl.testing import toy_run

TOY: dict[str, Any] = {
    "name": "toy_study",
    "run": "toy.yaml",
    "runs": {"grounded": {"count": 2}, "intrinsic": {"count": 2}, "no_promotion": {"count": 1}},
    "seeds": 3,
    "training": {"steps": 8, "synthetic_steps": 3, "questions": 8, "warmup_steps": 0},
    "measure": {"every": 3, "samples": 8, "k": [1, 4]},
    "stop": {"window": 3, "average": 6},
}


def load_toy_run(changes: Sequence[str]) -> LoadedSpec:
    """The toy run with changes as a command line has them."""
    sections: dict[str, Any] = {
        "outer": {"steps": 3},
        "domain": {"lengths": [2, 4], "each": 10},
        "reward": {"questions": 6, "repeats": 2, "samples": 4},
    }
    for change in changes:
        name, _, written = change.partition("=")
        tree = parse(written, "a change")
        value = None if tree is None else tree.plain()
        *section, key = name.split(".")
        place = sections.setdefault(section[0], {}) if section else sections
        if key == "plugin":
            place.clear()
        place[key] = value
    return toy_run(**sections)


@pytest.fixture(scope="session")
def toy_study() -> Callable[..., Path]:
    """Conducts a toy study and returns its directory: `toy_study(directory, tell, seeds=2)`."""

    def conduct(directory: Path, tell: Tell = silent, /, **changes: Any) -> Path:
        directory.parent.mkdir(exist_ok=True)
        spec = StudySpec.model_validate({**TOY, **changes})
        # By a relative name, as on a command line: it is in the specs of the runs.
        with chdir(directory.parent):
            study(spec, lambda more: load_toy_run([*spec.set, *more]), Path(directory.name), tell)
        return directory

    return conduct


@pytest.fixture(scope="session")
def whole_study(toy_study: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study of all arms that nothing interrupted."""
    return toy_study(tmp_path_factory.mktemp("study") / "whole")
