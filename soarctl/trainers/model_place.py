"""Where a base model is, going by its name alone. No torch, so that a spec is checked in an instant."""

import importlib.util
from pathlib import Path, PurePosixPath

from soarctl.api import ModelError

PACKAGE = "package:"


def local_place(base: str) -> Path | None:
    """The directory that `model.base` names; None where it names a model on the hub.

    Raises:
        ModelError: there is no such directory, package or folder in it.
    """
    if base.startswith(PACKAGE):
        return _in_package(base)
    if Path(base).is_dir():
        return Path(base)
    if base.startswith((".", "/", "~")) or base.count("/") > 1:
        raise ModelError(f'there is no directory "{base}"', at="model.base")
    return None


def _in_package(base: str) -> Path:
    """`package:<import name>/<folder>`, found without importing the package."""
    name, _, folder = base.removeprefix(PACKAGE).partition("/")
    if not folder or ".." in PurePosixPath(folder).parts or PurePosixPath(folder).is_absolute():
        raise ModelError(
            f'"{base}" does not name a folder of a package',
            at="model.base",
            hint="write package:<import name>/<folder>, without ..",
        )
    # A dotted name would import its parents.
    found = importlib.util.find_spec(name) if name.isidentifier() else None
    for place in (found.submodule_search_locations or []) if found else []:
        if (Path(place) / folder).is_dir():
            return Path(place) / folder
    missing = f'has no folder "{folder}"' if found else "is not installed"
    raise ModelError(f'the package "{name}" {missing}', at="model.base")
