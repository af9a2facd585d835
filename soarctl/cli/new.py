"""`soarctl new`: a package with a plug-in of one's own."""

import json
from pathlib import Path


def new(kind: str, name: str, out: Path | None, *, as_json: bool) -> None:
    """Writes the package and prints what to type next.

    Raises:
        SoarError: the name or the place will not do.
    """
    from soarctl.scaffold import scaffold

    directory = out or Path(name)
    files = scaffold(kind, name, directory)
    if as_json:
        print(json.dumps({"kind": kind, "name": name, "files": [str(path) for path in files]}, indent=2))
        return
    for path in files:
        print(path)
    print(f"\nnext: cd {directory} && pip install -e . && pytest && soarctl run spec.yaml")
