"""SOAR, Algorithm 1: a teacher is paid by how much students improve on hard problems by practising its questions.

One outer step:

    X_1..X_g  <-  questions of the teacher, in the order they were written, n to a dataset
    Q_R       <-  hard train problems, drawn anew
    R_k       <-  mean over r students that practised X_k of  Acc(student, Q_R) - Acc(baseline, Q_R)
    if the mean reward of the last m steps is above tau:
        baseline  <-  the median student of the best dataset;  PQ  <-  PQ + that dataset
    teacher   <-  one RLOO step with advantage A_k on every completion of X_k

Without a promotion the students are thrown away, and the next step starts from the same baseline.

Source: arXiv 2601.18778, Algorithm 1 and section 3. The rewards themselves are plug-ins; the inner loop is practice.py.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import ceil
from typing import TypeVar

from soarctl.api import (
    Completion,
    Domain,
    Fleet,
    GradedSample,
    Problem,
    Prompt,
    Rejection,
    Reward,
    Sampling,
    StepStats,
    Stream,
)
from soarctl.asking import parse, teacher_prompt
from soarctl.errors import TeacherError
from soarctl.practice import Baseline, Practice
from soarctl.promotion import best_dataset, is_due, median_student, settled, step_reward
from soarctl.rloo import leave_one_out
from soarctl.spec import Spec, Teacher

_Item = TypeVar("_Item")


@dataclass
class State:
    """What one outer step leaves to the next."""

    teacher: Fleet
    """A fleet of one."""
    baseline: Baseline
    step: int = 0
    """Outer steps done."""
    window: list[float] = field(default_factory=list[float])
    """Mean rewards of the last m outer steps that count for the next promotion, oldest first."""


@dataclass(frozen=True)
class Writing:
    """The questions of an outer step, in the order in which the teacher wrote them."""

    questions: Sequence[Problem]
    completions: Sequence[Completion]
    """The completion that each question was parsed from."""
    rejections: Mapping[str, int]
    """Completions that the format filter rejected, by rule. They are never trained on."""
    drawn: int
    """Completions sampled in all."""


@dataclass(frozen=True)
class StepRecord:
    """All that happened in one outer step."""

    step: int
    """Counted from 1."""
    stage: int
    """Promotions before this step."""
    writing: Writing
    datasets_G: Sequence[Sequence[Problem]]
    asked: Sequence[Problem]
    """Q_R."""
    rewards_G: Sequence[float]
    advantages_G: Sequence[float]
    reward: float
    """Mean of rewards_G: what enters the promotion window."""
    window: Sequence[float]
    """The promotion window with this step's reward in it: at most m values."""
    promoted: tuple[int, int] | None
    """(dataset, repeat) of the student that became the baseline."""
    teacher: StepStats


def outer_step(spec: Spec, domain: Domain, reward: Reward, state: State, practice: Practice) -> StepRecord:
    """One teacher update and, when the recent rewards are good enough, a promotion."""
    g, n = spec.teacher.group_size, spec.teacher.dataset_size
    writing = write_questions(spec.teacher, spec.datasets_per_step * n, domain, state.teacher, practice.stream)
    datasets_G = partition(writing.questions, n)

    scores = reward.score(datasets_G, practice)
    rewards_G = [settled(reward_k) for reward_k in scores.rewards_G]
    stage = state.baseline.stage
    state.window.append(step_reward(rewards_G))
    del state.window[: -spec.promotion.window]
    window = tuple(state.window)

    promoted = None
    if scores.students_G_R is not None and is_due(window, spec.promotion.tau, spec.promotion.window):
        k = best_dataset(rewards_G)
        students_R = scores.students_G_R[k]
        j = median_student([student.gain for student in students_R])
        promoted = (k, students_R[j].repeat)
        # A student that never moved has no weights of its own: it still is the baseline.
        state.baseline = Baseline(students_R[j].policy or state.baseline.policy, stage + 1)
        if spec.promotion.reset_window:
            state.window.clear()

    # Each group of g datasets is its own leave-one-out comparison.
    advantages_G = [a for group in partition(rewards_G, g) for a in leave_one_out(group)]
    [update] = state.teacher.reinforce(
        [
            [
                GradedSample(completion, advantage * spec.teacher.reward_scale)
                for advantage, written in zip(advantages_G, partition(writing.completions, n), strict=True)
                for completion in written
            ]
        ]
    )
    state.step += 1
    return StepRecord(
        step=practice.step,
        stage=stage,
        writing=writing,
        datasets_G=datasets_G,
        asked=practice.asked,
        rewards_G=rewards_G,
        advantages_G=advantages_G,
        reward=window[-1],
        window=window,
        promoted=promoted,
        teacher=update,
    )


def write_questions(spec: Teacher, needed: int, domain: Domain, teacher: Fleet, stream: Stream) -> Writing:
    """Samples the teacher until `needed` completions pass the format filter (section B.2).

    Rejected completions cost nothing and teach nothing: leave-one-out advantages sum to zero, so the gradient of the
    acceptance probability cancels (Proposition 1).

    Raises:
        TeacherError: `resample_cap` times the needed completions were not enough.
    """
    draw = Sampling(spec.max_new_tokens, spec.temperature, spec.top_p, tuple(domain.teacher_stops()))
    questions: list[Problem] = []
    completions: list[Completion] = []
    rejections: Counter[str] = Counter()
    examples: dict[str, str] = {}
    drawn = turn = 0
    while len(questions) < needed:
        if drawn >= spec.resample_cap * needed:
            raise _too_few(needed, len(questions), drawn, rejections, examples)
        # As many as should yield what is missing, going by the share that passed so far.
        passed = max(len(questions), 1) / drawn if drawn else 1.0
        size = min(ceil((needed - len(questions)) / passed), spec.resample_cap * needed - drawn)
        [written] = teacher.sample([Prompt(0, teacher_prompt(domain), size, stream.child("write", turn))], draw)
        drawn, turn = drawn + size, turn + 1
        for completion in written:
            parsed = parse(domain, completion.text)
            if isinstance(parsed, Rejection):
                rejections[parsed.rule] += 1
                examples.setdefault(parsed.rule, completion.text)
            else:
                questions.append(parsed)
                completions.append(completion)
    return Writing(questions[:needed], completions[:needed], rejections, drawn)


def partition(items: Sequence[_Item], size: int) -> list[Sequence[_Item]]:
    """Consecutive pieces of `size` items: datasets are formed by order of writing and nothing else."""
    return [items[start : start + size] for start in range(0, len(items), size)]


def _too_few(
    needed: int, accepted: int, drawn: int, rejections: Mapping[str, int], examples: Mapping[str, str]
) -> TeacherError:
    rules = "\n".join(
        f"{count:5d} x {rule}, for example: {examples[rule][:120]!r}"
        for rule, count in sorted(rejections.items(), key=lambda item: -item[1])
    )
    return TeacherError(
        f"the teacher wrote {accepted} of {needed} questions in {drawn} completions "
        f"({100 * accepted / drawn:.1f} % pass the format filter)",
        at="teacher",
        hint=f"rejected by rule:\n{rules}\nlook at the teacher prompt and model.chat_template; "
        "`--resume` may raise teacher.resample_cap",
    )
