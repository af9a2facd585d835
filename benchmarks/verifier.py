"""The math verifier against Math-Verify's defaults: verdicts and time, pair by pair, in one run on one machine.

    python benchmarks/verifier.py [DATA] [--golds N] [--json]

DATA is the folder with `verifier_pairs.jsonl` and the rest, by default ../shared/data beside the checkout. Both judge
every pair one after the other, so that whatever else the machine does slows both. Math-Verify gets the gold in dollars
and the answer in a box, its best known use, and its own time limits. Needs `pip install 'soarctl[math]'`.
"""

import argparse
import gzip
import itertools
import json
import logging
import random
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from soarctl_math.domain import MathDomain
from soarctl_math.extract import boxed
from soarctl_math.verifier import forget

from soarctl.api import Problem
from soarctl.cli.grade import completion

REAL = ("self", "variant", "mutant", "cross", "model_bare", "model_text")
HEADLINE = (*REAL, "suite", "hard")
Pair = tuple[str, str]
_NUMBERS = itertools.count()


def math_verify_default(gold: str, text: str) -> bool:
    from math_verify import parse, verify

    return verify(parse(f"${gold.replace('$', '')}$"), parse(text))


def interleaved(
    pairs: Sequence[Pair], graders: dict[str, Callable[[str, str], bool]]
) -> dict[str, list[tuple[bool, float]]]:
    """Verdict and seconds of each grader on each pair."""
    judged: dict[str, list[tuple[bool, float]]] = {name: [] for name in graders}
    for gold, text in pairs:
        for name, grader in graders.items():
            start = time.perf_counter()
            verdict = grader(gold, text)
            judged[name].append((verdict, time.perf_counter() - start))
    return judged


def fresh() -> dict[str, Callable[[str, str], bool]]:
    """Our grader, which remembers no verdict yet and whose workers have started."""
    domain = MathDomain(require_box=False, workers=1, timeout=1.5 + next(_NUMBERS) * 1e-6)
    domain.check()
    forget()
    return {"soarctl": lambda gold, text: domain.grade([(Problem("", gold), text)])[0].correct}


def rows(path: Path) -> list[dict[str, Any]]:
    content = path.read_bytes()
    text = (gzip.decompress(content) if path.suffix == ".gz" else content).decode()
    return json.loads(text) if text.startswith("[") else [json.loads(line) for line in text.splitlines()]


def labelled(data: Path) -> tuple[list[dict[str, Any]], list[Pair]]:
    found = rows(data / "verifier_pairs.jsonl")
    return found, [(row["gold"], completion(row["answer"], row["kind"])) for row in found]


def completions(data: Path) -> list[Pair]:
    """Whole texts of models, with the golds they are to reach."""
    graded = rows(data / "graded" / "math_8samples_dev.jsonl.gz")
    raw = rows(data / "graded" / "olympiad_qwen2_0.5b_raw_dev.jsonl.gz")
    pairs = [(boxed(row["solution"], alone=True) or "", text) for row in graded for text in row["response"]]
    return pairs + [(row["final_answer"][0], row["response"]) for row in raw]


def golds(data: Path, count: int) -> list[Pair]:
    """Golds of MATH as they come, half against themselves and half against another problem's."""
    answers = [row["answer"] for row in rows(data / "math" / "math_train_answers.jsonl.gz") if row["answer"]]
    drawn = random.Random(0).sample(answers, count)
    others = [drawn[k] if k % 2 else drawn[k - 1] for k in range(count)]
    return [(gold, f"\\boxed{{{other}}}") for gold, other in zip(drawn, others, strict=True)]


def quality(
    found: Sequence[dict[str, Any]], judged: Iterable[tuple[bool, float]], strata: Sequence[str]
) -> dict[str, Any]:
    counts = Counter(
        (row["equivalent"], verdict)
        for row, (verdict, _) in zip(found, judged, strict=True)
        if row["kind"].partition("/")[0] in strata
    )
    right = counts[True, True] + counts[True, False]
    return {
        "recall": round(counts[True, True] / right, 4),
        "right rejected": counts[True, False],
        "wrong accepted": counts[False, True],
    }


def speed(judged: Sequence[tuple[bool, float]]) -> dict[str, float]:
    times = sorted(seconds for _, seconds in judged)
    return {
        "per second": round(len(times) / sum(times), 1),
        "p50 ms": round(1e3 * times[len(times) // 2], 3),
        "p99 ms": round(1e3 * times[int(0.99 * len(times))], 2),
        "worst s": round(times[-1], 2),
        "all s": round(sum(times), 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("data", nargs="?", type=Path, default=Path(__file__).parents[2] / "shared" / "data")
    parser.add_argument("--golds", type=int, default=1000, help="golds drawn as they come")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    logging.getLogger("math_verify").setLevel(logging.CRITICAL)

    graders = fresh() | {"Math-Verify": math_verify_default}
    math_verify_default("1", "\\boxed{1}")
    found, pairs = labelled(options.data)
    judged = interleaved(pairs, graders)
    results: dict[str, dict[str, dict[str, Any]]] = {}
    for name, strata in (("headline", HEADLINE), ("real", REAL), ("adversarial", ("adversarial",))):
        results[name] = {grader: quality(found, each, strata) for grader, each in judged.items()}
    for name, strata in (("adversarial", ("adversarial",)), ("real", REAL)):
        chosen = [k for k, row in enumerate(found) if row["kind"].partition("/")[0] in strata]
        for grader, each in judged.items():
            results[name][grader] |= speed([each[k] for k in chosen])
    # Math-Verify leaves cold caches behind: the latency of one that is alone is measured alone.
    alone = interleaved([pairs[k] for k, row in enumerate(found) if row["kind"].partition("/")[0] in REAL], fresh())
    results["real"]["alone"] = speed(alone["soarctl"])
    for name, chosen_pairs in (
        ("completions", completions(options.data)),
        ("bare golds", golds(options.data, options.golds)),
    ):
        judged = interleaved(chosen_pairs, fresh() | {"Math-Verify": math_verify_default})
        results[name] = {grader: speed(each) for grader, each in judged.items()}
    if options.json:
        print(json.dumps(results, indent=2))
        return
    for name, by_grader in results.items():
        print(name)
        for grader, values in by_grader.items():
            print(f"  {grader:12}", "  ".join(f"{key} {value}" for key, value in values.items()))
        if "per second" in by_grader["soarctl"]:
            ratio = by_grader["soarctl"]["per second"] / by_grader["Math-Verify"]["per second"]
            print(f"  {'':12} {ratio:.1f} x the throughput")


if __name__ == "__main__":
    main()
