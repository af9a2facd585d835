"""`soarctl analyze`: how good a run's questions are."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from soarctl.analysis import Analysis, Quality, StepAnalysis
    from soarctl.near_duplicates import NearDuplicate

_SHOWN = 5


def analyze(directory: Path | None, *, limit: int, embeddings: str | None, as_json: bool) -> None:
    """Prints the analysis of a run; by default of the newest one.

    Raises:
        SoarError: the run cannot be read, or the judge cannot be asked.
    """
    from dataclasses import asdict

    from soarctl.analysis import analyze
    from soarctl.diversity import embedding_kernel, ngram_kernel
    from soarctl.judge import judge_from_environment
    from soarctl.runs import open_run
    from soarctl.solutions import solver_of

    kernel = ngram_kernel if embeddings is None else embedding_kernel(embeddings)
    with open_run(directory) as ledger:
        found = analyze(ledger, solver_of(ledger), judge_from_environment(ledger.path.parent), limit, kernel)
    if as_json:
        print(json.dumps(asdict(found), indent=1, ensure_ascii=False))
    else:
        _print(found)


def _print(analysis: "Analysis") -> None:
    from soarctl.cli.table import print_table
    from soarctl.judge import URL

    rules = sorted({rule for step in analysis.steps for rule in step.funnel.rejections})
    judged = analysis.judged_by != "nobody"
    header = ["STEP", "DRAWN", "PASSED", *rules, *(["WELL-POSED", "RIGHT"] if judged else [])]
    print_table([*header, "VENDI", "REPEATED", "KNOWN"], [_row(step, rules, judged) for step in analysis.steps])
    print("vendi: effective number of different questions among 64; repeated: within the step; known: of earlier steps")
    print()
    if judged:
        print(f"promotion questions, by {analysis.judged_by}: {_said(analysis.promoted)}")
    else:
        print(f"the domain cannot compute answers, and {URL} names no judge: nobody says what is right")
    for half, found in analysis.leaks.items():
        print(
            f"near-duplicates of the hard problems of the {half} half: "
            f"{len(found.questions_in_problems)} of {found.questions} promotion questions are in one of them, "
            f"{len(found.problems_in_questions)} of the {found.problems} are in a promotion question"
        )
        _examples(found.questions_in_problems)


def _row(step: "StepAnalysis", rules: list[str], judged: bool) -> list[str]:
    funnel, quality, varied = step.funnel, step.quality, step.diversity
    shares = [_share(quality.well_posed, quality.judged), _share(quality.correct, quality.judged)] if judged else []
    return [
        str(funnel.step),
        str(funnel.drawn),
        _share(funnel.accepted, funnel.drawn),
        *(str(funnel.rejections.get(rule, 0)) for rule in rules),
        *shares,
        f"{varied.vendi:.1f}",
        f"{100 * varied.repeated:.0f} %",
        f"{100 * varied.known:.0f} %",
    ]


def _said(quality: "Quality") -> str:
    if not quality.judged:
        return "none were judged"
    errors = ", ".join(f"{count} {error}" for error, count in sorted(quality.errors.items()) if error != "none")
    return (
        f"{quality.judged} judged, {_share(quality.well_posed, quality.judged)} well-posed, "
        f"{_share(quality.correct, quality.judged)} answered right" + (f"; {errors}" if errors else "")
    )


def _examples(found: "Sequence[NearDuplicate]") -> None:
    for near in found[:_SHOWN]:
        print(f"  {100 * near.share:.0f} % of {_short(near.text)!r} is in {_short(near.other)!r}")
    if len(found) > _SHOWN:
        print(f"  and {len(found) - _SHOWN} more; --json lists all")


def _short(text: str) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= 70 else f"{flat[:67]}..."


def _share(part: int, whole: int) -> str:
    return f"{100 * part / whole:.0f} %" if whole else ""
