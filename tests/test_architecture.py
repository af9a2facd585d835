"""Who may import whom, read from the source; and what the commands that must be quick really import."""

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
HEAVY = {
    "torch",
    "transformers",
    "accelerate",
    "peft",
    "vllm",
    "safetensors",
    "datasets",
    "wandb",
    "trackio",
    "tensorboard",
    "mlflow",
}
# safetensors.numpy needs no torch, and checkpoints are written with it.
LIGHT_PARTS = {"safetensors"}


@dataclass(frozen=True)
class Import:
    file: Path
    line: int
    module: str
    """Dotted, with the imported name where it may be a module itself: `soarctl.plugins`."""
    at_import: bool
    """Whether importing the file does it; False in functions and for type checkers alone."""

    def __str__(self) -> str:
        return f"{self.file.relative_to(ROOT)}:{self.line} imports {self.module}"


def module_name(file: Path, root: Path) -> str:
    parts = file.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(file: Path) -> Iterator[Import]:
    def walk(node: ast.AST, at_import: bool) -> Iterator[Import]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Import):
                for name in child.names:
                    yield Import(file, child.lineno, name.name, at_import)
            elif isinstance(child, ast.ImportFrom):
                assert child.level == 0, f"{file}:{child.lineno}: imports here are absolute"
                for name in child.names:
                    yield Import(file, child.lineno, f"{child.module}.{name.name}", at_import)
            else:
                in_function = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
                for_types = isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test)
                yield from walk(child, at_import and not in_function and not for_types)

    yield from walk(ast.parse(file.read_text()), True)


def package(folder: Path) -> list[Import]:
    return [found for file in sorted(folder.rglob("*.py")) for found in imports(file)]


def inside(found: Import, *packages: str) -> bool:
    return any(found.module == name or found.module.startswith(f"{name}.") for name in packages)


def listed(wrong: list[Import]) -> list[str]:
    return [str(found) for found in wrong]


CORE = [found for found in package(ROOT / "soarctl") if "trainers" not in found.file.parts]
CLI = [found for found in CORE if "cli" in found.file.parts]
TRAINERS = package(ROOT / "soarctl" / "trainers")
PLUGIN_PACKAGES = sorted(folder for folder in (*ROOT.glob("domains/*/soarctl_*"), *ROOT.glob("rewards/soarctl_*")))


def test_soarctl_imports_no_plug_in() -> None:
    assert listed([f for f in CORE if f.module.startswith("soarctl_") or inside(f, "soarctl.trainers")]) == []


def test_outside_the_trainers_soarctl_imports_no_torch_and_what_needs_it() -> None:
    heavy = HEAVY - LIGHT_PARTS
    assert listed([f for f in CORE if f.at_import and inside(f, *heavy)]) == []


def test_only_the_command_line_imports_the_command_line() -> None:
    assert listed([f for f in CORE if inside(f, "soarctl.cli") and f not in CLI and f.file.name != "__main__.py"]) == []


def test_commands_import_the_rest_of_soarctl_in_their_bodies() -> None:
    ours = [f for f in CLI if f.at_import and inside(f, "soarctl")]
    assert listed([f for f in ours if not inside(f, "soarctl.cli", "soarctl.errors")]) == []


def test_the_list_of_commands_imports_typer_and_nothing_else() -> None:
    app = [f for f in CLI if f.file.name == "app.py" and f.at_import]
    assert {f.module.split(".")[0] for f in app} - set(sys.stdlib_module_names) == {"typer"}


def test_trainers_import_of_ours_the_interface_and_the_arithmetic() -> None:
    ours = [f for f in TRAINERS if inside(f, "soarctl") or f.module.startswith("soarctl_")]
    allowed = ("soarctl.api", "soarctl.rloo", "soarctl.trainers")
    assert listed([f for f in ours if not inside(f, *allowed)]) == []


@pytest.mark.parametrize("folder", PLUGIN_PACKAGES, ids=lambda folder: folder.name)
def test_a_plug_in_package_imports_of_ours_the_interface_alone(folder: Path) -> None:
    ours = [f for f in package(folder) if f.module.split(".")[0].startswith("soarctl")]
    assert listed([f for f in ours if not inside(f, "soarctl.api", folder.name)]) == []


@pytest.mark.parametrize(
    ("name", "allowed"),
    [
        ("errors", set()),
        ("rloo", set()),
        ("passk", {"numpy", "soarctl.streams"}),
        ("promotion", set()),
        ("streams", {"numpy"}),
        ("api", {"numpy", "pydantic", "soarctl.errors", "soarctl.streams"}),
        ("spec", {"pydantic", "soarctl.api"}),
        ("located", {"yaml", "soarctl.errors"}),
        ("validation", {"pydantic", "soarctl.errors", "soarctl.located"}),
        ("plugins", {"pydantic", "stevedore", "soarctl.api", "soarctl.errors", "soarctl.validation"}),
    ],
)
def test_a_module_at_the_bottom_stays_there(name: str, allowed: set[str]) -> None:
    foreign = [
        f
        for f in imports(ROOT / "soarctl" / f"{name}.py")
        if f.module.split(".")[0] not in sys.stdlib_module_names and not inside(f, *allowed)
    ]
    assert listed(foreign) == []


def test_no_two_modules_import_each_other() -> None:
    modules = {module_name(file, ROOT): file for file in (ROOT / "soarctl").rglob("*.py")}
    graph: dict[str, set[str]] = {}
    for name, file in modules.items():
        wanted = {f.module for f in imports(file) if f.at_import}
        graph[name] = {
            other for other in modules if any(w == other or w.rpartition(".")[0] == other for w in wanted)
        } - {name, "soarctl"}
    TopologicalSorter(graph).prepare()  # raises CycleError, which names the circle


SPEC = """\
name: small
model: {base: "package:soarctl_letters/model"}
domain: {plugin: letters}
"""


def imported(tmp_path: Path, *arguments: str) -> set[str]:
    """The modules that are there when `soarctl` with these arguments has done its work."""
    (tmp_path / "spec.yaml").write_text(SPEC)
    script = (
        "import sys, atexit\n"
        "atexit.register(lambda: print('\\n' + ' '.join(sys.modules), file=sys.stderr))\n"
        "from soarctl.cli.app import main\n"
        f"sys.argv = ['soarctl', *{list(arguments)!r}]\n"
        "main()\n"
    )
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return set(done.stderr.splitlines()[-1].split())


LIBRARIES = {*HEAVY, "yaml", "rich", "numpy", "jinja2", "stevedore"}


@pytest.mark.parametrize("option", ["--help", "--version"])
def test_help_imports_typer_alone(option: str, tmp_path: Path) -> None:
    modules = imported(tmp_path, option)
    assert modules & {*LIBRARIES, "pydantic"} == set()
    ours = {"soarctl", "soarctl.cli", "soarctl.cli.app", "soarctl.errors"}
    assert {m for m in modules if m.startswith("soarctl")} <= ours


def test_the_help_of_a_command_imports_nothing_of_the_framework(tmp_path: Path) -> None:
    # Newer typers read options with pydantic, which is theirs to do.
    assert imported(tmp_path, "validate", "--help") & LIBRARIES == set()


@pytest.mark.parametrize(
    "command",
    ["validate spec.yaml", "plugins", "plugins --check", "schema", "schema --plugin trainer:accelerate"],
)
def test_a_spec_is_checked_without_torch(command: str, tmp_path: Path) -> None:
    assert imported(tmp_path, *command.split()) & {*HEAVY, "rich"} == set()


def test_plugins_lists_without_importing_them(tmp_path: Path) -> None:
    modules = imported(tmp_path, "plugins")
    assert {m for m in modules if m.startswith(("soarctl_", "soarctl.trainers"))} == set()
