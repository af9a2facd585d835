"""`soarctl filter`: which problems the base model never solves, alone and resumable."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any


def filter_problems(path: str, overrides: list[str], out: Path, samples: Path | None = None, *, as_json: bool) -> None:
    """Writes one line per candidate to `out` and the manifest beside it.

    Args:
        samples: completions to judge instead of sampling, so that no model is loaded.

    Raises:
        SoarError: what stands in the way.
    """
    from soarctl.cli.run_view import JsonLines, PlainLines
    from soarctl.filter_results import filter_given_to_file, filter_to_file
    from soarctl.named_files import check_files
    from soarctl.spec_reader import load_spec

    loaded = load_spec(path, overrides)
    view = JsonLines() if as_json else PlainLines()
    if samples is None:
        check_files(loaded)
        engine = loaded.trainer.load(loaded.spec.model, loaded.spec.seed)
        made = filter_to_file(loaded.spec, loaded.domain, engine, out, view.tell)
    else:
        made = filter_given_to_file(loaded.spec, loaded.domain, samples, out, view.tell)
    if as_json:
        view.tell("manifest", **made)
        return
    k = loaded.spec.filter.samples
    train, test = made["train"]["count"], made["test"]["count"]
    print(f"{train + test} of {made['problems']} problems were never solved in {k} attempts")
    if samples is not None:
        _print_given(made["given_samples"], k)
    if train and test:
        accept = "" if samples is None else ", given_samples: true"
        print(f"use them with `filter: {{reuse: {out}{accept}}}` in a spec")
    else:
        print("too few to halve: a run needs some to learn from and some to measure on")


def _print_given(given: Mapping[str, Any], k: int) -> None:
    print(f"{given['completions']:,} completions in {given['rows']:,} rows of {given['file']}")
    if given["rows_of_unknown_problems"]:
        print(f"{given['rows_of_unknown_problems']:,} rows are of problems that the domain does not load")
    if given["completions_beyond_k"]:
        print(
            f"{given['completions_beyond_k']:,} completions are not counted: they come after the first {k} of a problem"
        )
