"""`soarctl tiny`: a model small enough for a laptop that knows the texts of a domain."""

import json
from dataclasses import asdict
from pathlib import Path


def tiny(texts: Path, out: Path, *, updates: int | None, as_json: bool) -> None:
    """Makes the model and prints what it says.

    Raises:
        SoarError: the texts cannot be read or the model not be written.
    """
    from soarctl.tiny import make_tiny

    made = make_tiny(texts, out, {} if updates is None else {"updates": updates})
    if as_json:
        print(json.dumps(asdict(made), indent=2, ensure_ascii=False))
        return
    print(f"{made.directory}: {made.parameters:,} parameters")
    for prompt, samples in made.samples.items():
        for text in samples:
            print(f"  {prompt}{text}")
    print(f"\nuse it with `model: {{base: {out}}}` in a spec")
