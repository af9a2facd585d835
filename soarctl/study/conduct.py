"""A study from its spec to its last measurement: hard problems, runs, arms. Only what is missing is done."""

import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from soarctl import __version__, asking
from soarctl.api import Problem
from soarctl.errors import RunError, TeacherError, disk_errors
from soarctl.events import Tell
from soarctl.fail_at_k import halve, mark_halves
from soarctl.filter_results import (
    filter_to_file,
    given_samples,
    manifest,
    manifest_path,
    read_results,
    reuse,
    write_results,
)
from soarctl.ledger import FILE, STUDY_FILE, Filtered, Ledger
from soarctl.run import run
from soarctl.run_directory import check_model, lock
from soarctl.spec_reader import LoadedSpec
from soarctl.study.arms import NotComparable, students_of, trains
from soarctl.study.given import LoadRun, check_fits, check_given
from soarctl.study.oracle import not_held_out, real_problems
from soarctl.study.spec import Arm, Kind, StudySpec
from soarctl.study.table import shortfall
from soarctl.study.training import attempts_solved, train
from soarctl.study.world import Student, World


def study(spec: StudySpec, load_run: LoadRun, directory: Path, tell: Tell) -> None:
    """Does what the spec of a study says, in `directory`, from wherever an earlier call stopped.

    Args:
        spec: of the study.
        load_run: the spec of its runs, with the given changes.
        directory: of the study; made if it is not there.
        tell: hears of all progress.

    Raises:
        RunError: the directory is in use, holds another study, or cannot be written; or runs do not fit together.
        DataError: the file of the oracle has no problems.
    """
    with disk_errors(directory):
        directory.mkdir(parents=True, exist_ok=True)
    common = load_run([])
    check_given(spec, load_run)
    real = real_problems(Path(spec.oracle)) if Arm.ORACLE in spec.arms and spec.oracle is not None else None
    with lock(directory), _open_ledger(spec, common, real, directory) as ledger:
        tell("study_started", name=spec.name, directory=str(directory), arms=[str(a) for a in spec.arms])
        hard = _hard_problems(spec, common, directory, ledger, tell)
        found = ledger.filtered()
        train, test, easy = ([f.problem for f in found if f.half == half] for half in ("train", "test", None))
        easier = easy if real is None else not_held_out(real, test, str(spec.oracle))
        runs = {kind: _runs(spec, load_run, kind, hard, directory, ledger, tell) for kind in spec.kinds}
        engine = common.trainer.load(common.spec.model, common.spec.seed)
        check_model(ledger, engine, what="study")
        world = World(
            study=spec,
            run=common.spec,
            domain=common.domain,
            engine=engine,
            train=train,
            test=test,
            easier=easier,
            runs=runs,
            ledger=ledger,
            directory=directory,
            tell=tell,
        )
        for arm in spec.arms:
            _arm(world, arm)
        tell("study_finished", directory=str(directory))


def _open_ledger(spec: StudySpec, common: LoadedSpec, real: Sequence[Problem] | None, directory: Path) -> Ledger:
    facts: dict[str, Any] = {"study": spec.model_dump(mode="json"), "spec": common.spec.model_dump(mode="json")}
    if real is not None:
        text = json.dumps([[problem.question, problem.answer] for problem in real])
        facts["oracle_sha256"] = hashlib.sha256(text.encode()).hexdigest()
    if not (directory / STUDY_FILE).exists():
        known = {"soarctl_version": __version__, "started": datetime.now(UTC).isoformat(timespec="seconds")}
        return Ledger.create(directory, facts | known, STUDY_FILE)
    ledger = Ledger.open(directory, file=STUDY_FILE)
    before = ledger.facts
    # More arms, or other rules of counting, change nothing of what was measured.
    harmless = ("name", "arms", "stop")
    changed = [
        f"{key}: was {before['study'].get(key)!r}, is {now!r}"
        for key, now in facts["study"].items()
        # `run` and `set` are compared as the spec that they make, and `oracle` by its problems.
        if key not in (*harmless, "run", "set", "oracle") and before["study"].get(key) != now
    ]
    oracles = {known["oracle_sha256"] for known in (before, facts) if "oracle_sha256" in known}
    if len(oracles) > 1:
        changed.append("oracle: its problems are others")
    learned = [_learned(known["spec"], split="split" in before) for known in (before, facts)]
    if learned[0] != learned[1]:
        changed.append("run: its spec is another one")
    if changed:
        ledger.close()
        raise RunError(
            "the spec is not the one that this study was started with",
            at=str(directory),
            hint="\n".join(changed) + f"\nonly {', '.join(harmless)} may change; another spec needs another directory",
        )
    ledger.set_facts(facts)
    return ledger


def _learned(spec: dict[str, Any], *, split: bool) -> dict[str, Any]:
    """The part of a run's spec that decides what is learned: with a split at hand, not where its results were."""
    return spec | {"filter": {**spec["filter"], "reuse": None}} if split else spec


def _hard_problems(spec: StudySpec, common: LoadedSpec, directory: Path, ledger: Ledger, tell: Tell) -> Path:
    """Finds the hard problems, or takes those of given runs; all runs of a study share them and their halves.

    Returns:
        The study's own copy of the filter's results, for the runs that are still to be made. Nothing is ever written
        to `filter.reuse`, which may be other studies' as well.
    """
    path = directory / "hard.jsonl"
    given = [Path(name) for kind in spec.kinds for name in spec.teachers(kind).directories]
    if "split" not in ledger.facts:
        began = time.monotonic()
        if given:
            with Ledger.open(given[0], read_only=True) as other:
                found, made, model = other.filtered(), other.facts["split"], other.facts["model"]
            _check_halves(spec, common, given[0], found)
        elif common.spec.filter.reuse is not None:
            engine = common.trainer.load(common.spec.model, common.spec.seed)
            reused = reuse(
                common.spec, common.domain, Path(common.spec.filter.reuse), asking.load(common.domain), engine.facts
            )
            found = halve(common.domain, reused, common.spec)
            model = dict(engine.facts)
            made = manifest(common.spec, common.domain, model, found, given_samples(common.spec))
        else:
            engine = common.trainer.load(common.spec.model, common.spec.seed)
            filter_to_file(common.spec, common.domain, engine, path, tell)
            results = read_results(path)
            found = halve(common.domain, [results[p.id] for p in asking.load(common.domain)], common.spec)
            model = dict(engine.facts)
            made = manifest(common.spec, common.domain, model, found)
        with ledger.transaction():
            ledger.put_problems(found)
            ledger.set_facts({"split": made, "model": model})
            ledger.put_timing(0, "filter", time.monotonic() - began, 0)
    if not manifest_path(path).exists():
        write_results(path, ledger.filtered(), ledger.facts["split"])
    return path


def _check_halves(spec: StudySpec, common: LoadedSpec, given: Path, found: Sequence[Filtered]) -> None:
    if all(spec.teachers(kind).directories for kind in spec.kinds):
        return
    known = {f.problem.id: f for f in found}
    results = [known[problem.id] for problem in asking.load(common.domain) if problem.id in known]
    if any(f.half != known[f.problem.id].half for f in mark_halves(common.domain, results, common.spec)):
        raise RunError(
            "the run halves the hard problems otherwise than the runs that are still to be made will",
            at=str(given),
            hint=f"its `split` must be that of the study's runs: {common.spec.split.model_dump()}",
        )


def _runs(
    spec: StudySpec, load_run: LoadRun, kind: Kind, hard: Path, directory: Path, ledger: Ledger, tell: Tell
) -> list[Path]:
    """The finished runs of a kind; those that are missing are run first."""
    teachers = spec.teachers(kind)
    places = [Path(name) for name in teachers.directories] or _made(spec, load_run, kind, hard, directory, ledger, tell)
    for place in places:
        with Ledger.open(place, read_only=True) as finished:
            check_fits(finished, ledger.facts)
    return places


def _made(
    spec: StudySpec, load_run: LoadRun, kind: Kind, hard: Path, directory: Path, ledger: Ledger, tell: Tell
) -> list[Path]:
    teachers = spec.teachers(kind)
    places: list[Path] = []
    for number in range(teachers.count):
        place = directory / "runs" / f"{kind}-{number}"
        places.append(place)
        changes = [
            *teachers.set,
            f"name={place.name}",
            f"seed={spec.seed + number}",
            f"filter.reuse={json.dumps(str(hard))}",
            # The test half is the study's to read.
            "evaluation=null",
        ]
        changed = load_run(changes)
        there = (place / FILE).exists()
        if there and _steps_done(place) >= changed.spec.outer.steps:
            continue
        began = time.monotonic()
        tell("study_run", run=place.name)
        run(changed, place, tell, resume=there)
        ledger.put_timing(0, f"run {place.name}", time.monotonic() - began, 0)
    return places


def _steps_done(place: Path) -> int:
    with Ledger.open(place, read_only=True) as ledger:
        return ledger.steps_done


def _arm(world: World, arm: Arm) -> None:
    """All of an arm that is not done: its students, their training, their measurements."""
    steps = world.study.training.steps if trains(arm) else 0
    [(done,)] = world.ledger.rows("SELECT COUNT(*) FROM study_evaluations WHERE arm = ? AND step = ?", arm.value, steps)
    if done == world.study.seeds or world.ledger.rows("SELECT 1 FROM study_skipped WHERE arm = ?", arm.value):
        return
    began = time.monotonic()
    try:
        students = students_of(world, arm)
    except (NotComparable, TeacherError) as error:
        reason = error.message if isinstance(error, TeacherError) else str(error)
        world.ledger.put_study_skipped(arm, reason)
        world.tell("warning", text=f"{arm} is left out: {reason}")
        return
    asked = world.study.training.questions
    short = shortfall(min(len({p.question for p in student.questions}) for student in students), asked)
    if short is not None:
        world.tell("warning", text=f"{arm}: {short}")
    world.ledger.put_study_students(arm, {i: (s.source, s.questions) for i, s in enumerate(students)})
    width = world.engine.width
    for index, first in enumerate(range(0, len(students), width)):
        together = students[first : first + width]
        if trains(arm):
            train(world, arm, index, together, first)
        else:
            _measure(world, arm, dict(enumerate(together, first)))
    world.ledger.put_timing(steps, f"arm {arm}", time.monotonic() - began, 0)
    world.tell("study_arm", arm=arm.value)


def _measure(world: World, arm: Arm, students: Mapping[int, Student]) -> None:
    """Measures students as they are, by their number in the arm, unless an earlier call did."""
    measured = {s for (s,) in world.ledger.rows("SELECT student FROM study_evaluations WHERE arm = ?", arm.value)}
    waiting = {number: student for number, student in students.items() if number not in measured}
    if not waiting:
        return
    fleet = world.engine.fleet([student.start for student in waiting.values()], world.run.student_optimizer)
    correct_S_P = attempts_solved(world, arm, fleet, list(waiting), 0)
    with world.ledger.transaction():
        for number, correct_P in zip(waiting, correct_S_P, strict=True):
            world.ledger.put_study_evaluation(arm, number, 0, world.study.measure.samples, correct_P)
