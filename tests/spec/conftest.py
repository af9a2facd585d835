"""Packages with plug-ins, installed for the duration of a test."""

import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
from hypothesis import settings

# The same examples every time, however busy the machine is.
settings.register_profile("spec", derandomize=True, deadline=None)
settings.load_profile("spec")

Install = Callable[..., None]

TOYS = '''
from pydantic import Field, field_validator
from soarctl.api import Domain, Outcome, Problem, Reward, Scores, Trainer, Verdict


class Toy(Domain):
    def load(self): return [Problem("2 1", "1 2")]
    def teacher_prompt(self): return "ask:"
    def student_prompt(self, question): return question
    def parse(self, completion): return Problem(completion, completion)
    def grade(self, attempts): return [Verdict(Outcome.WRONG, 0.0) for _ in attempts]


class Sorting(Toy):
    length: int = Field(default=8, ge=1)
    """Digits to sort."""
    path: str = "data"
    note: str | None = None

    @field_validator("note")
    @classmethod
    def _fail(cls, note):
        if note == "crash":
            raise KeyError("the validator itself is broken")
        return note


class Reversing(Toy):
    step: int = 1


class Flat(Reward):
    scale: float = 1.0
    def score(self, datasets_G, context): return Scores([0.0 for _ in datasets_G])


class Still(Trainer):
    device: str = "cpu"
    def load(self, model, seed): raise NotImplementedError
'''


@pytest.fixture
def install(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Installs a package of one module into a folder of its own, for the duration of a test."""

    def install(package: str, module: str, source: str, entry_points: Mapping[str, Mapping[str, str]]) -> None:
        folder = tmp_path_factory.mktemp(package)
        metadata = folder / f"{package.replace('-', '_')}-1.0.dist-info"
        metadata.mkdir()
        (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
        groups = (
            f"[{group}]\n" + "".join(f"{name} = {target}\n" for name, target in names.items())
            for group, names in entry_points.items()
        )
        (metadata / "entry_points.txt").write_text("\n".join(groups))
        (folder / f"{module}.py").write_text(source)
        monkeypatch.syspath_prepend(str(folder))
        installed.append(module)

    installed: list[str] = []
    yield install
    for module in installed:
        sys.modules.pop(module, None)


@pytest.fixture
def toys(install: Install) -> None:
    """Plug-ins that need nothing: domains `sorting` and `reversing`, reward `flat`, trainer `still`."""
    install(
        "soarctl-toys",
        "soarctl_toys",
        TOYS,
        {
            "soarctl.domains": {"sorting": "soarctl_toys:Sorting", "reversing": "soarctl_toys:Reversing"},
            "soarctl.rewards": {"flat": "soarctl_toys:Flat"},
            "soarctl.trainers": {"still": "soarctl_toys:Still"},
        },
    )


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory, so that errors name files as a user would."""
    monkeypatch.chdir(tmp_path)
    return tmp_path
