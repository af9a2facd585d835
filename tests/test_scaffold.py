"""New packages: what they hold, what names they take, and that they work untouched."""

import os
import subprocess
import sys
import tomllib
import venv
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from soarctl.errors import PluginError, RunError
from soarctl.scaffold import KINDS, scaffold
from soarctl.spec_reader import load_spec

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("kind", KINDS)
def test_a_new_package_has_six_to_eight_files(kind: str, tmp_path: Path) -> None:
    files = [
        path.relative_to(tmp_path / "blue-sky").as_posix() for path in scaffold(kind, "blue-sky", tmp_path / "blue-sky")
    ]
    data = ["make_data.py", "texts.jsonl", "soarctl_blue_sky/problems.jsonl"] if kind == "domain" else []
    package = ["README.md", "pyproject.toml", "spec.yaml", "soarctl_blue_sky/__init__.py", "tests/test_blue_sky.py"]
    assert sorted(files) == sorted(package + data)


@pytest.mark.parametrize("kind", KINDS)
def test_its_entry_point_names_its_class(kind: str, tmp_path: Path) -> None:
    scaffold(kind, "blue-sky", tmp_path / "sky")
    project = tomllib.loads((tmp_path / "sky/pyproject.toml").read_text())["project"]
    target = f"soarctl_blue_sky:BlueSky{kind.capitalize()}"
    assert project["entry-points"] == {f"soarctl.{kind}s": {"blue-sky": target}}
    assert f"class BlueSky{kind.capitalize()}(" in (tmp_path / "sky/soarctl_blue_sky/__init__.py").read_text()


@pytest.mark.parametrize(
    "name", ["", "Foo", "1foo", "foo.bar", "foo bar", "foo/bar", "-foo", "foo--bar", "a" * 41, "été", "class"]
)
def test_a_bad_name_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(PluginError) as error:
        scaffold("domain", name, tmp_path / "new")
    assert str(error.value) == (
        f'"{name}" is no name for a domain\n'
        "  lower-case letters, digits and single hyphens or underscores between them, at most 40"
    )
    assert not any(tmp_path.iterdir())


def test_a_name_that_is_installed_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PluginError, match='a domain called "letters" is installed already\n  it is soarctl_letters'):
        scaffold("domain", "letters", tmp_path / "new")


def test_a_package_that_is_installed_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PluginError, match="a package called soarctl_letters is installed already"):
        scaffold("reward", "letters", tmp_path / "new")


def test_a_folder_that_is_there_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    with pytest.raises(RunError) as error:
        scaffold("domain", "mine", tmp_path / "mine")
    assert str(error.value) == f"{tmp_path / 'mine'}: there is something here already\n  `--out` names another folder"
    assert list(tmp_path.rglob("*")) == [tmp_path / "mine"]


def test_an_unknown_kind_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PluginError, match="one of domain, reward, trainer"):
        scaffold("sampler", "mine", tmp_path / "mine")


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str, str], Path]]:
    """Makes a package, and installs it as far as entry points and imports go."""

    def make(kind: str, name: str) -> Path:
        place = tmp_path / name
        scaffold(kind, name, place)
        metadata = place / f"soarctl_{name}-0.1.0.dist-info"
        metadata.mkdir()
        (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: soarctl-{name}\nVersion: 0.1.0\n")
        target = f"soarctl_{name}:{name.capitalize()}{kind.capitalize()}"
        (metadata / "entry_points.txt").write_text(f"[soarctl.{kind}s]\n{name} = {target}\n")
        monkeypatch.syspath_prepend(str(place))
        monkeypatch.chdir(place)
        return place

    yield make
    for module in [name for name in sys.modules if name.startswith("soarctl_fresh")]:
        del sys.modules[module]


@pytest.mark.parametrize("kind", KINDS)
def test_its_spec_is_valid(kind: str, installed: Callable[[str, str], Path]) -> None:
    installed(kind, f"fresh{kind}")
    assert load_spec("spec.yaml", []).spec.name == f"fresh{kind}"


@pytest.mark.parametrize("kind", KINDS)
def test_its_own_tests_pass(kind: str, installed: Callable[[str, str], Path]) -> None:
    place = installed(kind, f"fresh{kind}")
    namespace: dict[str, Any] = {}
    exec((place / f"tests/test_fresh{kind}.py").read_text(), namespace)
    tests = [test for name, test in namespace.items() if name.startswith("test_")]
    assert len(tests) >= 2
    for test in tests:
        test()


def test_a_new_trainer_runs_its_spec(installed: Callable[[str, str], Path], tmp_path: Path) -> None:
    from soarctl.events import silent
    from soarctl.ledger import Ledger
    from soarctl.run import run

    installed("trainer", "freshmenu")
    run(load_spec("spec.yaml", []), tmp_path / "run", silent)
    with Ledger.open(tmp_path / "run", read_only=True) as ledger:
        assert ledger.steps_done == 8


def call(*command: str | Path, cwd: Path) -> str:
    # Without what our own environment adds: this is a stranger's machine.
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")} | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        list(map(str, command)), cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with nothing but soarctl."""
    place = tmp_path_factory.mktemp("environment")
    venv.create(place, with_pip=True)
    call(place / "bin" / "pip", "install", "-q", ROOT, cwd=place)
    return place / "bin"


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_new_package_installs_tests_lints_and_runs_untouched_in_an_empty_environment(
    kind: str, environment: Path, tmp_path: Path
) -> None:
    name = f"fresh{kind}"
    call(environment / "soarctl", "new", kind, name, cwd=tmp_path)
    package = tmp_path / name
    call(environment / "pip", "install", "-q", "-e", ".", cwd=package)
    assert "passed" in call(environment / "pytest", cwd=package)
    call(environment / "soarctl", "run", "spec.yaml", cwd=package)
    assert "outer steps" in call(environment / "soarctl", "show", cwd=package)
    for command in (("ruff", "check", "."), ("ruff", "format", "--check", ".")):
        call(sys.executable, "-m", *command, cwd=package)
    call(sys.executable, "-m", "pyright", "--pythonpath", environment / "python", cwd=package)
