"""Who is compared: the students of each arm, with where they start and what they practise beside the hard problems."""

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

from soarctl.api import Fleet, Policy, Problem
from soarctl.inner_loop import solve_rates
from soarctl.ledger import Ledger
from soarctl.run_directory import load_baseline, restore_teacher
from soarctl.soar import write_questions
from soarctl.solutions import Solver
from soarctl.stages import questions_of
from soarctl.study.spec import NEEDS, PQ_ARMS, Arm, Kind
from soarctl.study.world import Student, World


class NotComparable(Exception):
    """An arm that cannot be compared, and why. No error: a run without promotions has no promotion questions."""


def students_of(world: World, arm: Arm) -> list[Student]:
    """The students of an arm.

    Raises:
        NotComparable: nothing is there to train or measure.
        TeacherError: a teacher does not write enough questions.
    """
    start, seeds = world.engine.start(), range(world.study.seeds)
    match arm:
        case Arm.BASE | Arm.HARD_ONLY | Arm.HARD_ONLY_4X:
            return [Student(None, (), start) for _ in seeds]
        case Arm.ORACLE:
            if not world.easier:
                raise NotComparable("all candidates are hard, and no `oracle` file is given")
            size = min(world.study.training.questions, len(world.easier))
            draws = [world.stream(arm, i).child("questions").choose(len(world.easier), size) for i in seeds]
            return [Student(None, [world.easier[place] for place in drawn], start) for drawn in draws]
        case Arm.BASE_T:
            teacher = world.engine.fleet([start], world.run.teacher_optimizer)
            return [Student(None, _written(world, arm, i, teacher), start) for i in seeds]
        case Arm.INTRINSIC_T | Arm.GROUNDED_T | Arm.NO_PROMOTION_T:
            runs = world.runs[NEEDS[arm]]
            return [
                Student(run.name, _written(world, arm, i, _teacher(world, run)), start)
                for i, run in _dealt(world, runs)
            ]
        case Arm.PQ | Arm.PQ_WELL_POSED | Arm.PQ_CORRECT:
            asked = {run: promotion_questions(run) for run in world.runs[Kind.GROUNDED]}
            chosen = {run: _kept(world, arm, questions) for run, questions in asked.items() if questions}
            usable = [run for run, questions in chosen.items() if questions]
            if not usable:
                raise NotComparable("no run made a promotion" if not chosen else "no promotion question is left")
            return [Student(run.name, chosen[run], start) for _, run in _dealt(world, usable)]
        case Arm.PS:
            run, stage, policy = best_promoted(world)
            return [Student(f"{run.name}, promotion {stage}", (), policy) for _ in seeds]


def promotion_questions(run: Path) -> list[Problem]:
    """D_best of a run: all questions of the datasets whose students were promoted, in order."""
    with Ledger.open(run, read_only=True) as ledger:
        promoted = ledger.rows("SELECT step, dataset FROM baselines WHERE stage > 0 ORDER BY stage")
        return [problem for step, dataset in promoted for _, problem, _ in questions_of(ledger, step, dataset)]


def best_promoted(world: World) -> tuple[Path, int, Policy]:
    """The promoted student that solves most of D_train, of all runs: run, stage, weights (row 44).

    Accuracy is measured as the runs measured it: greedy, or by as many samples.

    Raises:
        NotComparable: no run made a promotion.
    """
    found: list[tuple[float, Path, int, Policy]] = []
    for run in world.runs[Kind.GROUNDED]:
        with Ledger.open(run, read_only=True) as ledger:
            samples = max((s for (s,) in ledger.rows("SELECT DISTINCT samples FROM baseline_rates")), default=0)
            for (stage,) in ledger.rows("SELECT stage FROM baselines WHERE stage > 0 ORDER BY stage"):
                policy = load_baseline(run, ledger, stage)
                found.append((_accuracy(world, policy, run, stage, samples), run, stage, policy))
    if not found:
        raise NotComparable("no run made a promotion")
    _, run, stage, policy = max(found, key=lambda student: student[0])
    return run, stage, policy


def _accuracy(world: World, policy: Policy, run: Path, stage: int, samples: int) -> float:
    stream = world.stream(Arm.PS, 0).child("train", run.name, stage)
    fleet = world.engine.fleet([policy], world.run.student_optimizer)
    asked = [(0, p, stream.child(p.id)) for p in world.train]
    return fmean(solve_rates(fleet, world.domain, asked, samples, world.run.inner, world.tell))


def _dealt(world: World, runs: Sequence[Path]) -> list[tuple[int, Path]]:
    """Every student with its run: as even as can be, the first runs first."""
    return [(i, runs[i % len(runs)]) for i in range(world.study.seeds)]


def _teacher(world: World, run: Path) -> Fleet:
    """The teacher of a finished run, after its last outer step."""
    teacher = world.engine.fleet([world.engine.start()], world.run.teacher_optimizer)
    with Ledger.open(run, read_only=True) as ledger:
        restore_teacher(run, ledger, teacher)
    return teacher


def _written(world: World, arm: Arm, student: int, teacher: Fleet) -> Sequence[Problem]:
    stream = world.stream(arm, student).child("questions")
    return write_questions(world.run.teacher, world.study.training.questions, world.domain, teacher, stream).questions


def _kept(world: World, arm: Arm, questions: Sequence[Problem]) -> list[Problem]:
    if arm is Arm.PQ:
        return list(questions)
    solutions = Solver(world.domain).solve(questions)
    if all(solution.answer is None for solution in solutions):
        raise NotComparable("the domain cannot tell which questions have an answer")
    return [
        question
        for question, solution in zip(questions, solutions, strict=True)
        if solution.answer is not None and (solution.correct or arm is Arm.PQ_WELL_POSED)
    ]


def trains(arm: Arm) -> bool:
    """Whether the arm's students are trained, or measured as they are."""
    return arm not in (Arm.BASE, Arm.PS)


def begins_warm(arm: Arm, mix: str) -> bool:
    """Whether an arm trains without warm-up steps (Table 3)."""
    return arm in PQ_ARMS and mix == "curriculum"
