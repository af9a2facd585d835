"""Results of the fail@k filter on disk: one JSON line per candidate, and a manifest that says what made them."""

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from soarctl import asking
from soarctl.api import Domain, Engine, Problem
from soarctl.crew import Alone, Workplace
from soarctl.errors import DataError, disk_errors
from soarctl.events import Tell
from soarctl.fail_at_k import fail_at_k, mark_halves
from soarctl.given_samples import fail_at_k_given
from soarctl.ledger import Filtered
from soarctl.spec import Spec

_ASKED = "What is 1 + 1?"


def filter_to_file(spec: Spec, domain: Domain, engine: Engine, path: Path, tell: Tell) -> dict[str, Any]:
    """Runs the filter and writes its results as they are found; goes on where an earlier call stopped.

    Returns:
        The manifest.

    Raises:
        DataError: the file was begun with another model or other settings.
        RunError: it cannot be written.
    """
    problems = asking.load(domain)
    begun = {"complete": False, "seed": spec.seed, "model": _identity(engine.facts)}
    begun |= {"filter": settings(spec, domain)}
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

            found = fail_at_k(Alone(Workplace(spec, domain, engine, tell)), problems, done, save)
        made = manifest(spec, domain, engine.facts, mark_halves(domain, found, spec))
        _write(manifest_path(path), json.dumps(made, indent=1))
    return made


def filter_given_to_file(spec: Spec, domain: Domain, samples: Path, path: Path, tell: Tell) -> dict[str, Any]:
    """Filters by completions that exist already, and writes what `filter_to_file` writes. Loads no model.

    Args:
        samples: the completions, as `fail_at_k_given` reads them.

    Returns:
        The manifest. It says where the completions are from, and that their model is not known.

    Raises:
        DataError: the completions are no such file or too few; `path` holds results of something else.
        RunError: it cannot be written.
    """
    given = fail_at_k_given(spec, domain, asking.load(domain), samples, tell)
    if path.exists() and _read_manifest(path).get("given_samples", {}).get("sha256") != given.facts["sha256"]:
        raise DataError(
            "the results here are not of these samples", at=str(path), hint="name another file with `--out`"
        )
    made = manifest(spec, domain, {}, mark_halves(domain, given.found, spec), given.facts)
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        _write(manifest_path(path), json.dumps(made | {"complete": False}, indent=1))
    write_results(path, given.found, made)
    return made


def write_results(path: Path, found: Sequence[Filtered], made: Mapping[str, Any]) -> None:
    """Writes results, and then their manifest: where there is one, the results are whole.

    Raises:
        RunError: they cannot be written.
    """
    with disk_errors(path):
        _write(path, "".join(map(result_line, found)))
        _write(manifest_path(path), json.dumps(made, indent=1))


def manifest(
    spec: Spec,
    domain: Domain,
    model: Mapping[str, Any],
    found: Sequence[Filtered],
    given: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """What must be known of a filter's result to use it again: model, settings, counts, hashes of both halves.

    Args:
        model: facts of the model that was sampled.
        given: where completions came from that nobody sampled here; their model and settings are not known.
    """
    origin = {"model": _identity(model), "filter": settings(spec, domain)}
    if given is not None:
        origin = {"model": None, "filter": {"samples": spec.filter.samples}, "given_samples": dict(given)}
    return {
        "complete": True,
        **origin,
        "split": spec.split.model_dump(),
        "seed": spec.seed,
        "problems": len(found),
        "train": {"count": sum(f.half == "train" for f in found), "sha256": _hash_of_half(found, "train")},
        "test": {"count": sum(f.half == "test" for f in found), "sha256": _hash_of_half(found, "test")},
    }


def reuse(
    spec: Spec, domain: Domain, path: Path, problems: Sequence[Problem], model: Mapping[str, Any] | None
) -> list[Filtered]:
    """The results of an earlier filter for these problems, in order.

    Args:
        model: facts of the run's model; None while it is not loaded, to look at all the rest.

    Raises:
        DataError: it was made with another model or other settings, or does not cover the problems.
    """
    made = _read_manifest(path)
    if not made.get("complete"):
        raise DataError("the filter has not finished", at=str(path), hint="`soarctl filter` goes on where it stopped")
    wanted = {"filter": settings(spec, domain)} | ({} if model is None else {"model": _identity(model)})
    if (given := made.get("given_samples")) is not None:
        if not spec.filter.given_samples:
            raise DataError(
                f"these results come from samples of an unknown model, {given['file']}",
                at=str(path),
                hint="to say that they are of this one: filter: {given_samples: true}",
            )
        wanted = {"filter": {"samples": spec.filter.samples}}
    differs = [
        f"{key}: the results have {made.get(key)!r}, the run {now!r}"
        for key, now in wanted.items()
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


def given_samples(spec: Spec) -> dict[str, Any] | None:
    """Where the completions came from that the results in `filter.reuse` judge; None where a model was sampled."""
    return None if spec.filter.reuse is None else _read_manifest(Path(spec.filter.reuse)).get("given_samples")


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


def settings(spec: Spec, domain: Domain) -> dict[str, Any]:
    """What the result of a filter depends on, beside model, problems and seed.

    The prompt for one fixed question stands for whatever shapes prompts. Options of the verifier are not in it.
    """
    asked = {"chat_template": spec.model.chat_template, "prompt": asking.student_prompt(domain, _ASKED)}
    return spec.filter.model_dump(exclude={"reuse", "given_samples"}) | asked


def _identity(model: Mapping[str, Any]) -> dict[str, Any]:
    return {key: model.get(key) for key in ("base", "revision", "weights_sha256")}


def _read_manifest(results: Path) -> dict[str, Any]:
    path = manifest_path(results)
    try:
        made: Any = json.loads(path.read_text())
    except FileNotFoundError:
        raise DataError(
            f"the manifest of {results} is missing",
            at=str(path),
            hint="`soarctl filter` writes it beside its results; they go together",
        ) from None
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
