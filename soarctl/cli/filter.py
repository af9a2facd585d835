"""`soarctl filter`: which problems the base model never solves, alone and resumable."""

from pathlib import Path


def filter_problems(path: str, overrides: list[str], out: Path, *, as_json: bool) -> None:
    """Writes one line per candidate to `out` and the manifest beside it.

    Raises:
        SoarError: what stands in the way.
    """
    from soarctl.cli.run_view import JsonLines, PlainLines
    from soarctl.filter_results import filter_to_file
    from soarctl.spec_reader import load_spec

    loaded = load_spec(path, overrides)
    view = JsonLines() if as_json else PlainLines()
    engine = loaded.trainer.load(loaded.spec.model, loaded.spec.seed)
    made = filter_to_file(loaded.spec, loaded.domain, engine, out, view.tell)
    if as_json:
        view.tell("manifest", **made)
        return
    hard = made["train"]["count"] + made["test"]["count"]
    print(f"{hard} of {made['problems']} problems were never solved in {loaded.spec.filter.samples} attempts")
    print(f"use them with `filter: {{reuse: {out}}}` in a spec")
