"""`soarctl promote`: look at the promotions of a run, or take a promoted student out of it."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from soarctl.errors import SoarError

if TYPE_CHECKING:
    from soarctl.ledger import Ledger
    from soarctl.stages import PromotedQuestion, Stage


def promote(
    directory: Path | None, *, inspect: bool, out: Path | None, stage: int | None, merge: bool, as_json: bool
) -> None:
    """Does what the options ask for.

    Raises:
        SoarError: they ask for nothing, or for what the run does not have.
    """
    if not inspect and out is None:
        raise SoarError(
            "nothing to do", at="soarctl promote", hint="--inspect shows promotions; --export-student DIR writes one"
        )
    if inspect:
        _inspect(directory, stage=stage, as_json=as_json)
    if out is not None:
        _export(directory, out, stage=stage, merge=merge)


def _inspect(directory: Path | None, *, stage: int | None, as_json: bool) -> None:
    from soarctl.runs import open_run
    from soarctl.solutions import solver_of
    from soarctl.stages import stages

    with open_run(directory) as ledger:
        solver = solver_of(ledger)
        found = stages(ledger, solver, stage)
        if as_json:
            from dataclasses import asdict

            print(json.dumps([asdict(each) for each in found], indent=2, ensure_ascii=False))
            return
        if not found:
            print(_no_promotion(ledger))
            return
    for each in found:
        _print_stage(each)
    if solver.missing:
        print(f"whether answers are right is not known: {solver.missing}")


def _export(directory: Path | None, out: Path, *, stage: int | None, merge: bool) -> None:
    from soarctl.export_student import export_student
    from soarctl.runs import open_run

    with open_run(directory) as ledger:
        exported = export_student(ledger, out, stage=stage, merge=merge)
    print(f"the student of promotion {exported} is in {out}, as {'a full model' if merge else 'a PEFT adapter'}")


def _no_promotion(ledger: "Ledger") -> str:
    from soarctl.history import best_window, overview

    run, best = overview(ledger), best_window(ledger)
    said = f"{run.name}: no promotion in {run.steps_done} of {run.steps} outer steps"
    if best is None:
        return f"{said}; a promotion needs {run.window} of them"
    return (
        f"{said}\n  the best mean over {run.window} steps was {best.window_mean:+.4f}, "
        f"at step {best.step}; a promotion needs more than {run.tau:g}"
    )


def _print_stage(stage: "Stage") -> None:
    mean = sum(stage.window) / len(stage.window)
    print(f"promotion {stage.stage}, at outer step {stage.step}")
    print(f"  window      {_list(enumerate(stage.window))}: mean {mean:+.4f} > tau {stage.tau:g}")
    print(f"  datasets    {_list(enumerate(stage.rewards_G), stage.dataset)}: dataset {stage.dataset} is the best")
    print(f"  its gains   {_list(stage.gains_R.items(), stage.repeat)}: student {stage.repeat} is the median")
    print(f"  on Q_R      {stage.accuracy_before:.4f} before practice, {stage.accuracy_after:.4f} after")
    for samples, before in stage.train_before.items():
        after = stage.train_after.get(samples)
        how = f"{samples} attempts" if samples else "greedy"
        said = "not measured before the run ended" if after is None else f"{after:.4f} after"
        print(f"  all train   {before:.4f} before, {said} ({how})")
    known = [q.solution.correct for q in stage.questions if q.solution.correct is not None]
    right = f", {sum(known)} of {len(known)} answers right" if known else ""
    print(f"  {len(stage.questions)} questions{right}")
    _print_questions(stage.questions)
    print()


def _print_questions(questions: Sequence["PromotedQuestion"]) -> None:
    marks = {True: "right", False: "wrong", None: "-"}
    for item in questions:
        asked, answer, right = _line(item.question), _line(item.answer), item.solution.correct
        truth = f"   (is {_line(item.solution.answer or '')})" if right is False else ""
        print(f"    {item.position:4d}  {marks[right]:5}  {asked}  ->  {answer}{truth}")


def _list(numbered: Iterable[tuple[int, float]], marked: int | None = None) -> str:
    return "  ".join(f"{value:+.4f}{'*' if number == marked else ''}" for number, value in numbered)


def _line(text: str) -> str:
    return " ".join(text.split())
