"""The fail@k filter: which problems the base model never solves (section 4.1)."""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from soarctl.api import Domain, Engine, Problem, Prompt, Sampling, Stream
from soarctl.errors import DataError
from soarctl.events import Tell
from soarctl.grading import count_verdicts, grade
from soarctl.ledger import Filtered
from soarctl.spec import Spec

_FIRST_CHUNK = 8
_PROBLEMS_AT_ONCE = 128


def fail_at_k(
    spec: Spec,
    domain: Domain,
    engine: Engine,
    problems: Sequence[Problem],
    done: Mapping[str, Filtered],
    save: Callable[[Sequence[Filtered]], None],
    tell: Tell,
) -> list[Filtered]:
    """Attempts each problem up to k times with the base model and counts successes.

    A problem is not attempted further once no outcome of the remaining attempts could make it hard: by default, after
    its first success. That changes no result.

    Args:
        problems: the candidates.
        done: what an interrupted filter found already, by problem id.
        save: called with each finished block.

    Returns:
        One entry per problem, in order.
    """
    fleet = engine.fleet([engine.start()], spec.student_optimizer)
    found = dict(done)
    waiting = [p for p in problems if p.id not in found]
    for start in range(0, len(waiting), _PROBLEMS_AT_ONCE):
        block = [Filtered(p, 0, 0, {}) for p in waiting[start : start + _PROBLEMS_AT_ONCE]]
        for drawn, size in _chunks(spec.filter.samples):
            open_ = [i for i, f in enumerate(block) if _undecided(domain, f, spec.filter.samples)]
            if not open_:
                break
            draw = Sampling(
                spec.filter.max_new_tokens, spec.filter.temperature, spec.filter.top_p, tuple(domain.student_stops())
            )
            prompts = [
                Prompt(
                    policy=0,
                    text=domain.student_prompt(block[i].problem.question),
                    samples=size,
                    stream=Stream((spec.seed, "filter", block[i].problem.id, drawn)),
                )
                for i in open_
            ]
            groups = fleet.sample(prompts, draw)
            attempts = [(block[i].problem, c.text) for i, group in zip(open_, groups, strict=True) for c in group]
            verdicts = grade(domain, attempts, tell)
            for place, i in enumerate(open_):
                judged = verdicts[place * size : (place + 1) * size]
                block[i] = Filtered(
                    block[i].problem,
                    drawn + size,
                    block[i].successes + sum(v.correct for v in judged),
                    Counter(block[i].verdicts) + count_verdicts(judged),
                )
            tell("filter_sampled", tokens=sum(len(c.token_ids) for group in groups for c in group))
        save(block)
        found.update((f.problem.id, f) for f in block)
        tell("filter", done=len(found), of=len(problems), hard=sum(is_hard(domain, f, spec) for f in found.values()))
    return [found[p.id] for p in problems]


def is_hard(domain: Domain, filtered: Filtered, spec: Spec) -> bool:
    """Whether a problem passes the filter. What was not sampled to the end was decided: it is not hard."""
    return filtered.samples == spec.filter.samples and domain.is_hard(filtered.successes, filtered.samples)


def halve(domain: Domain, found: Sequence[Filtered], spec: Spec) -> list[Filtered]:
    """The same entries, hard ones marked as `train` or `test`.

    Raises:
        DataError: too few problems are hard to learn from some and measure on others.
    """
    hard = [f.problem for f in found if is_hard(domain, f, spec)]
    split = domain.split(hard, spec.split.train_fraction, spec.split.seed)
    half = {p.id: "train" for p in split.train} | {p.id: "test" for p in split.test}
    if not split.train or not split.test:
        raise DataError(
            f"{len(hard)} of {len(found)} problems are hard for {spec.model.base}: too few to halve",
            at="filter",
            hint="load more or harder problems; `soarctl filter` shows how often each one was solved",
        )
    return [Filtered(f.problem, f.samples, f.successes, f.verdicts, half.get(f.problem.id)) for f in found]


def manifest(spec: Spec, model: Mapping[str, Any], found: Sequence[Filtered]) -> dict[str, Any]:
    """What must be known of a filter's result to use it again: model, settings, counts, hashes of both halves."""
    return {
        "model": {key: model.get(key) for key in ("base", "revision", "weights_sha256")},
        "filter": _settings(spec),
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
    described = manifest_path(path)
    try:
        made = json.loads(described.read_text())
        differs = [
            f"{name}: the results have {made[section].get(key)!r}, the run {now!r}"
            for name, section, key, now in (
                ("model weights", "model", "weights_sha256", model.get("weights_sha256")),
                *((f"filter.{key}", "filter", key, value) for key, value in _settings(spec).items()),
            )
            if made[section].get(key) != now
        ]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"the manifest of the filter's results cannot be used: {error!r}", at=str(described)) from error
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


def _chunks(samples: int) -> Iterator[tuple[int, int]]:
    """(already drawn, how many to draw next): as many again as there are, at least `_FIRST_CHUNK`."""
    drawn = 0
    while drawn < samples:
        size = min(max(drawn, _FIRST_CHUNK), samples - drawn)
        yield drawn, size
        drawn += size


def _undecided(domain: Domain, filtered: Filtered, samples: int) -> bool:
    missing = samples - filtered.samples
    return any(domain.is_hard(filtered.successes + more, samples) for more in range(missing + 1))


def _settings(spec: Spec) -> dict[str, Any]:
    return spec.filter.model_dump(exclude={"reuse"})


def _hash_of_half(found: Sequence[Filtered], half: str) -> str:
    ids = sorted(f.problem.id for f in found if f.half == half)
    return hashlib.sha256("\n".join(ids).encode()).hexdigest()
