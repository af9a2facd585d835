"""Evaluation training: the students of an arm learn side by side, are measured on the way, and resume exactly.

Every measurement is a checkpoint: weights and moments first, then one transaction with the steps since the last one,
what was measured, and the hash of the weights.
"""

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from soarctl import checkpoints
from soarctl.api import Fleet, Optimizer, Problem, Prompt, Sampling, Stream
from soarctl.asking import student_prompt
from soarctl.grading import grade
from soarctl.inner_loop import PracticeLog, batches, rloo_step
from soarctl.spec import Inner
from soarctl.study.arms import begins_warm
from soarctl.study.spec import Arm, Training
from soarctl.study.world import Student, World


def train(world: World, arm: Arm, fleet_index: int, students: Sequence[Student], first: int) -> None:
    """Trains and measures students side by side, from where an earlier call stopped.

    Args:
        arm: of the study.
        fleet_index: which fleet of the arm they are.
        students: not more than the trainer's width.
        first: number of the first of them in the arm.
    """
    training, every = world.study.training, world.study.measure.every
    inner = inner_of(world.run.inner, arm)
    streams_S = [world.stream(arm, first + s).child("training") for s in range(len(students))]
    plans_S = [
        data_plan(training, inner.batch_size, student.questions, world.train, stream)
        for student, stream in zip(students, streams_S, strict=True)
    ]
    fleet = world.engine.fleet([s.start for s in students], optimizer_of(world.run.student_optimizer, training, arm))
    done = _restore(world, arm, fleet_index, fleet)
    while done < training.steps:
        until = min(done - done % every + every, training.steps)
        logs_S = [PracticeLog() for _ in students]
        for step in range(done, until):
            batches_S = [plan[step] for plan in plans_S]
            rloo_step(fleet, world.domain, inner, batches_S, streams_S, step, logs_S, world.tell)
            reward = sum(log.rewards[-1] for log in logs_S) / len(logs_S)
            world.tell("study_step", arm=arm.value, step=step + 1, steps=training.steps, reward=reward)
        correct_S_P = attempts_solved(world, arm, fleet, range(first, first + len(students)), until)
        weights = checkpoints.write(_place(world, arm, fleet_index, until), {"fleet": fleet.state()}, {"step": until})
        with world.ledger.transaction():
            for s, (log, correct_P) in enumerate(zip(logs_S, correct_S_P, strict=True)):
                world.ledger.put_study_training(arm, first + s, done + 1, log)
                world.ledger.put_study_evaluation(arm, first + s, until, world.study.measure.samples, correct_P)
            world.ledger.put_study_checkpoint(arm, fleet_index, until, weights)
        if done:
            shutil.rmtree(_place(world, arm, fleet_index, done), ignore_errors=True)
        done = until


def attempts_solved(world: World, arm: Arm, fleet: Fleet, students: Sequence[int], step: int) -> list[list[int]]:
    """How many attempts at each held-out problem each policy solves: correct_S_P. This reads the test half."""
    measure = world.study.measure
    draw = Sampling(world.run.inner.max_new_tokens, measure.temperature, stop=tuple(world.domain.student_stops()))
    prompts = [
        Prompt(
            policy=s,
            text=student_prompt(world.domain, problem.question),
            samples=measure.samples,
            stream=world.stream(arm, student).child("evaluation", step, problem.id),
        )
        for s, student in enumerate(students)
        for problem in world.test
    ]
    groups = fleet.sample(prompts, draw)
    problems = [problem for _ in students for problem in world.test]
    attempts = [(problem, c.text) for problem, group in zip(problems, groups, strict=True) for c in group]
    verdicts = iter(grade(world.domain, attempts, world.tell))
    solved = [sum(next(verdicts).correct for _ in group) for group in groups]
    world.tell(
        "study_measured",
        arm=arm.value,
        step=step,
        pass_1=sum(solved) / max(len(attempts), 1),
        tokens=sum(len(c.token_ids) for group in groups for c in group),
    )
    size = len(world.test)
    return [solved[start : start + size] for start in range(0, len(solved), size)]


def data_plan(
    training: Training, size: int, synthetic: Sequence[Problem], hard: Sequence[Problem], stream: Stream
) -> list[list[Problem]]:
    """The questions of every training step.

    With a curriculum the first `synthetic_steps` steps draw from `synthetic` alone and the later ones from `hard`
    alone; mixed, all draw from both, each item as likely as any other (row 36). Shuffled epochs in either case.
    """
    if not synthetic:
        parts = [(hard, training.steps)]
    elif training.mix == "mixed":
        parts = [([*synthetic, *hard], training.steps)]
    else:
        switch = min(training.synthetic_steps, training.steps)
        parts = [(synthetic, switch), (hard, training.steps - switch)]
    return [
        [items[index] for index in batch]
        for part, (items, steps) in enumerate(parts)
        for batch in batches(len(items), size, steps, stream.child("plan", part))
    ]


def inner_of(inner: Inner, arm: Arm) -> Inner:
    """How an arm's students practise: as in the run, but for the arm with four times the completions."""
    return inner.model_copy(update={"group_size": 4 * inner.group_size}) if arm is Arm.HARD_ONLY_4X else inner


def optimizer_of(optimizer: Optimizer, training: Training, arm: Arm) -> Optimizer:
    """The run's student optimizer with the warm-up of evaluation training (Table 3)."""
    return replace(optimizer, warmup_steps=0 if begins_warm(arm, training.mix) else training.warmup_steps)


def _restore(world: World, arm: Arm, fleet_index: int, fleet: Fleet) -> int:
    """Puts the fleet where its newest checkpoint left it; returns the training steps done."""
    rows = world.ledger.rows(
        "SELECT step, weights FROM study_checkpoints WHERE arm = ? AND fleet = ?", arm.value, fleet_index
    )
    for step, weights in rows:
        fleet.restore(checkpoints.read(_place(world, arm, fleet_index, step), weights)["fleet"])
        return step
    return 0


def _place(world: World, arm: Arm, fleet_index: int, step: int) -> Path:
    return world.directory / "students" / f"{arm}-fleet-{fleet_index}-step-{step:06d}"
