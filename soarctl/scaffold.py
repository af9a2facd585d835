"""New plug-in packages from the templates beside this file."""

import keyword
import re
import shutil
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

from soarctl import plugins
from soarctl.errors import PluginError, RunError

KINDS = ("domain", "reward", "trainer")

_TEMPLATES = Path(__file__).parent / "templates"
_NAME = re.compile(r"[a-z][a-z0-9]*(?:[-_][a-z0-9]+)*")
_LONGEST = 40


def scaffold(kind: str, name: str, directory: Path) -> list[Path]:
    """Writes a package with one plug-in that installs, passes its tests and runs as it is.

    Args:
        kind: "domain", "reward" or "trainer".
        name: of the plug-in, as a spec will name it.
        directory: of the package; must not be there yet.

    Returns:
        The files, in order of their names.

    Raises:
        PluginError: the name is not one, or is taken.
        RunError: the directory is there already or cannot be written.
    """
    module = f"soarctl_{name.replace('-', '_')}"
    _check(kind, name, module)
    if directory.exists():
        raise RunError("there is something here already", at=str(directory), hint="`--out` names another folder")
    values = {
        "name": name,
        "module": module,
        "module_name": name.replace("-", "_"),
        "class_name": "".join(part.capitalize() for part in re.split("[-_]", name)) + kind.capitalize(),
    }
    try:
        directory.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=directory.parent, prefix=f".{name}-") as aside:
            package = Path(aside) / "package"
            _write(_TEMPLATES / kind, package, values)
            # Data is made by the package's own script, so that what is there is what the script writes.
            if (package / "make_data.py").is_file():
                subprocess.run([sys.executable, "-I", "make_data.py"], cwd=package, check=True)
            shutil.move(package, directory)
    except OSError as error:
        raise RunError(f"cannot write: {error.strerror}", at=str(directory)) from error
    return sorted(path for path in directory.rglob("*") if path.is_file())


def _check(kind: str, name: str, module: str) -> None:
    if kind not in KINDS:
        raise PluginError(f'there is no kind of plug-in called "{kind}"', hint=f"one of {', '.join(KINDS)}")
    if not _NAME.fullmatch(name) or len(name) > _LONGEST or keyword.iskeyword(name):
        raise PluginError(
            f'"{name}" is no name for a {kind}',
            hint=f"lower-case letters, digits and single hyphens or underscores between them, at most {_LONGEST}",
        )
    taken = next((p for p in plugins.describe() if (p.kind, p.name) == (kind, name)), None)
    if taken:
        raise PluginError(
            f'a {kind} called "{name}" is installed already',
            hint=f"it is {taken.target} of {taken.package} {taken.version}; choose another name",
        )
    if find_spec(module):
        raise PluginError(f"a package called {module} is installed already", hint="choose another name")


def _write(templates: Path, package: Path, values: dict[str, str]) -> None:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(templates),
        undefined=StrictUndefined,
        keep_trailing_newline=True,
        autoescape=False,  # these are programs and not web pages
    )
    for template in sorted(environment.list_templates(extensions=["jinja"])):
        place = template.removesuffix(".jinja")
        place = place.replace("package/", f"{values['module']}/").replace(
            "test_package.py", f"test_{values['module_name']}.py"
        )
        path = package / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(environment.get_template(template).render(values), encoding="utf-8")
