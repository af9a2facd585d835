"""The inner loop: students practise questions by RLOO, all students of a fleet in lockstep.

Source: SOAR sections 3.3 and B.3.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import fmean

from soarctl.api import Domain, Fleet, GradedSample, Problem, Prompt, Sampling, StepStats, Stream, Verdict
from soarctl.asking import student_prompt
from soarctl.events import Tell
from soarctl.grading import count_verdicts, grade
from soarctl.rloo import leave_one_out
from soarctl.savings import is_flat
from soarctl.solving import count_solved
from soarctl.spec import Inner


@dataclass(frozen=True, slots=True)
class Attempt:
    """One student completion, kept for people to read."""

    inner_step: int
    question: str
    completion: str
    verdict: Verdict


@dataclass
class PracticeLog:
    """How one student's practice went. For the ledger."""

    rewards: list[float] = field(default_factory=list[float])
    """Mean training reward of each inner step."""
    updates: int = 0
    """Inner steps that moved the weights."""
    tokens: int = 0
    """Completion tokens sampled in practice."""
    verdicts: Counter[str] = field(default_factory=Counter[str])
    grad_norms: list[float] = field(default_factory=list[float])
    logprob_gap: float = 0.0
    """Largest mean difference between sampler and trainer log-probs of a step."""
    attempts: list[Attempt] = field(default_factory=list[Attempt])
    """The first attempt of each inner step."""


def inner_loop(
    fleet: Fleet,
    domain: Domain,
    inner: Inner,
    datasets_S: Sequence[Sequence[Problem]],
    streams_S: Sequence[Stream],
    steps: int,
    tell: Tell,
    flat_window: int | None = None,
) -> list[PracticeLog]:
    """Trains policy s of the fleet on datasets_S[s] for `steps` RLOO steps, all policies in lockstep.

    Each step: `batch_size` questions, `group_size` completions each, graded against the teacher's answer,
    leave-one-out within each question's group, one optimizer step. With a `flat_window` a policy whose rewards have
    stopped rising takes no further part.

    Returns:
        logs_S

    Source: SOAR section 3.3 and B.3.
    """
    logs_S = [PracticeLog() for _ in datasets_S]
    plans_S = [
        batches(len(dataset), inner.batch_size, steps, stream)
        for dataset, stream in zip(datasets_S, streams_S, strict=True)
    ]
    for step in range(steps):
        flat_S = [flat_window is not None and is_flat(log.rewards, flat_window) for log in logs_S]
        if all(flat_S):
            break
        batches_S = [
            [] if flat else [dataset[index] for index in plan[step]]
            for dataset, plan, flat in zip(datasets_S, plans_S, flat_S, strict=True)
        ]
        rloo_step(fleet, domain, inner, batches_S, streams_S, step, logs_S, tell)
        tell("inner_step", inner_step=step + 1, inner_steps=steps, reward=fmean(log.rewards[-1] for log in logs_S))
    return logs_S


def rloo_step(
    fleet: Fleet,
    domain: Domain,
    inner: Inner,
    batches_S: Sequence[Sequence[Problem]],
    streams_S: Sequence[Stream],
    step: int,
    logs_S: Sequence[PracticeLog],
    tell: Tell,
) -> None:
    """One RLOO step: policy s attempts each question of batches_S[s] `group_size` times and learns from the rewards.

    Args:
        batches_S: a policy without questions is left as it is.
        step: counted from 0; with the stream it decides the samples.
        logs_S: what happened is added to these.
    """
    draw = Sampling(inner.max_new_tokens, inner.temperature, inner.top_p, tuple(domain.student_stops()))
    asked = [(s, position, problem) for s, batch in enumerate(batches_S) for position, problem in enumerate(batch)]
    groups = fleet.sample(
        [
            Prompt(
                policy=s,
                text=student_prompt(domain, problem.question),
                samples=inner.group_size,
                stream=streams_S[s].child("sample", step, position),
            )
            for s, position, problem in asked
        ],
        draw,
    )
    tell("sampled", tokens=sum(len(c.token_ids) for group in groups for c in group))
    attempts = [(problem, c.text) for (_, _, problem), group in zip(asked, groups, strict=True) for c in group]
    verdicts = iter(grade(domain, attempts, tell))
    samples_S: list[list[GradedSample]] = [[] for _ in batches_S]
    rewards_S: list[list[float]] = [[] for _ in batches_S]
    for (s, position, problem), group in zip(asked, groups, strict=True):
        judged = [next(verdicts) for _ in group]
        rewards = [verdict.reward for verdict in judged]
        samples_S[s] += map(GradedSample, group, leave_one_out(rewards))
        rewards_S[s] += rewards
        logs_S[s].verdicts += count_verdicts(judged)
        logs_S[s].tokens += sum(len(c.token_ids) for c in group)
        if position == 0:
            logs_S[s].attempts.append(Attempt(step, problem.question, group[0].text, judged[0]))
    for log, rewards, stats in zip(logs_S, rewards_S, fleet.reinforce(samples_S), strict=True):
        if rewards:
            _note(log, fmean(rewards), stats)


def _note(log: PracticeLog, reward: float, stats: StepStats) -> None:
    log.rewards.append(reward)
    log.updates += stats.stepped
    log.grad_norms.append(stats.grad_norm)
    log.logprob_gap = max(log.logprob_gap, stats.logprob_gap)


def batches(count: int, size: int, steps: int, stream: Stream) -> list[list[int]]:
    """Indices of the questions of each inner step: shuffled epochs, one after the other, cut into batches.

    With 64 questions and 10 steps of 8 the second epoch fills steps 9 and 10 (row 16).
    """
    drawn: list[int] = []
    while len(drawn) < size * steps:
        drawn += stream.child("epoch", len(drawn) // count).order(count)
    return [drawn[step * size : (step + 1) * size] for step in range(steps)]


def solve_rates(
    fleet: Fleet,
    domain: Domain,
    questions: Sequence[tuple[int, Problem, Stream]],
    samples: int,
    inner: Inner,
    tell: Tell,
) -> list[float]:
    """Share of attempts that solve each (policy, problem, stream), in order.

    Args:
        samples: attempts per problem at temperature 1; 0 for one greedy attempt.
    """
    each = max(samples, 1)
    solved = count_solved(fleet, domain, questions, each, attempting(inner, domain, samples), tell)
    return [count / each for count in solved]


def attempting(inner: Inner, domain: Domain, samples: int) -> Sampling:
    """How a question is attempted `samples` times, or greedily."""
    return Sampling(inner.max_new_tokens, temperature=1.0 if samples else 0.0, stop=tuple(domain.student_stops()))
