"""Results of the fail@k filter on disk: one JSON line per candidate, and a manifest that says what made them."""

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from soarctl.api import Domain, Engine, Problem
from soarctl.errors import DataError, disk_errors
from soarctl.events import Tell
from soarctl.fail_at_k import fail_at_k, halve
from soarctl.ledger import Filtered
from soarctl.spec import Spec


def filter_to_file(spec: Spec, domain: Domain, engine: Engine, path: Path, tell: Tell) -> dict[str, Any]:
    """Runs the filter and writes its results as they are found; goes on where an earlier call stopped.

    Returns:
        The manifest.

    Raises:
        DataError: the file was begun with another model or other settings.
        RunError: it cannot be written.
    """
    problems = list(domain.load())
    begun = {"complete": False, "seed": spec.seed, "model": _identity(engine.facts), "filter": settings(spec)}
    done = dict[str, Filtered]()
    if path.exists():
        earlier = _read_manifest(path)
        if any(earlier.get(key) != begun[key] for key in ("seed", "model", "filter")):
            raise DataError(
                "the results here were begun with another model or other settings",
                at=str(path),
                hint="name another file with `--out`",
            )
        done = read_results(path)
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        _write(manifest_path(path), json.dumps(begun, indent=1))
        # Without a line that a kill cut off in the middle, which the next one would run into.
        _write(path, "".join(map(result_line, done.values())))
        with path.open("a") as file:

            def save(found: Sequence[Filtered]) -> None:
                file.writelines(map(result_line, found))
                file.flush()
                os.fsync(file.fileno())

            found = fail_at_k(spec, domain, engine, problems, done, save, tell)
        made = manifest(spec, engine.facts, halve(domain, found, spec))
        _write(manifest_path(path), json.dumps(made, indent=1))
    return made


def manifest(spec: Spec, model: Mapping[str, Any], found: Sequence[Filtered]) -> dict[str, Any]:
    """What must be known of a filter's result to use it again: model, settings, counts, hashes of both halves."""
    return {
        "complete": True,
        "model": _identity(model),
        "filter": settings(spec),
        "split": spec.split.model_dump(),
        "seed": spec.seed,
        "problems": len(found),
        "train": {"count": sum(f.half == "train" for f in found), "sha256": _hash_of_half(found, "train")},
        "test": {"count": sum(f.half == "test" for f in found), "sha256": _hash_of_half(found, "test")},
    }


def reuse(spec: Spec, path: Path, problems: Sequence[Problem], model: Mapping[str, Any]) -> list[Filtered]:
    """The results of an earlier filter for these problems, in order.

    Raises:
        DataError: it was made with another model or other settings, or does not cover the problems.
    """
    made = _read_manifest(path)
    if not made.get("complete"):
        raise DataError("the filter has not finished", at=str(path), hint="`soarctl filter` goes on where it stopped")
    differs = [
        f"{key}: the results have {made.get(key)!r}, the run {now!r}"
        for key, now in (("model", _identity(model)), ("filter", settings(spec)))
        if made.get(key) != now
    ]
    if differs:
        raise DataError("these results were made otherwise than the spec says", at=str(path), hint="\n".join(differs))
    found = read_results(path)
    missing = [p for p in problems if p.id not in found]
    if missing:
        raise DataError(
            f"{len(missing)} of {len(problems)} candidates have no result here",
            at=str(path),
            hint=f"the first is {missing[0].question[:80]!r}; `soarctl filter` goes on where it stopped",
        )
    return [replace(found[p.id], problem=p) for p in problems]


def manifest_path(results: Path) -> Path:
    """Where the manifest of a results file stands."""
    return results.with_suffix(".manifest.json")


def read_results(path: Path) -> dict[str, Filtered]:
    """Problem id -> result, of a JSONL file that `soarctl filter` wrote.

    A last line that was cut off in the middle, by a kill, is left out.

    Raises:
        DataError: the file is missing or another line is not what `result_line` writes.
    """
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError as error:
        raise DataError(f"cannot read: {error.strerror or error}", at=str(path)) from error
    found: dict[str, Filtered] = {}
    for number, line in enumerate(lines[:-1], start=1):
        try:
            row = json.loads(line)
            problem = Problem(row["question"], row["answer"], row["meta"])
            found[problem.id] = Filtered(problem, int(row["samples"]), int(row["successes"]), dict(row["verdicts"]))
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(f"not a result of `soarctl filter`: {error!r}", at=f"{path}:{number}") from error
    return found


def result_line(filtered: Filtered) -> str:
    """One line of the JSONL file of `soarctl filter`."""
    problem = filtered.problem
    row = {"id": problem.id, "question": problem.question, "answer": problem.answer, "meta": problem.meta}
    row |= {"samples": filtered.samples, "successes": filtered.successes, "verdicts": filtered.verdicts}
    return json.dumps(row, ensure_ascii=False) + "\n"


def settings(spec: Spec) -> dict[str, Any]:
    """What the result of a filter depends on, beside model, problems and seed."""
    return spec.filter.model_dump(exclude={"reuse"})


def _identity(model: Mapping[str, Any]) -> dict[str, Any]:
    return {key: model.get(key) for key in ("base", "revision", "weights_sha256")}


def _read_manifest(results: Path) -> dict[str, Any]:
    path = manifest_path(results)
    try:
        made: Any = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise DataError(f"the manifest of the filter's results cannot be read: {error}", at=str(path)) from error
    if not isinstance(made, dict):
        raise DataError("this is not the manifest of a filter's results", at=str(path))
    return made


def _write(path: Path, text: str) -> None:
    aside = path.with_name(f".{path.name}.partial")
    with aside.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    aside.replace(path)


def _hash_of_half(found: Sequence[Filtered], half: str) -> str:
    ids = sorted(f.problem.id for f in found if f.half == half)
    return hashlib.sha256("\n".join(ids).encode()).hexdigest()
