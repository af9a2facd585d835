"""The fail@k filter: which problems the base model never solves (section 4.1)."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from soarctl.api import Domain, Outcome, Problem, Prompt, Stream
from soarctl.asking import student_prompt
from soarctl.crew import Crew, Job, Workplace
from soarctl.errors import DataError
from soarctl.grading import count_verdicts, grade
from soarctl.ledger import Filtered
from soarctl.spec import Spec, sampling

_FIRST_CHUNK = 8
_PROBLEMS_AT_ONCE = 128


def fail_at_k(
    crew: Crew,
    problems: Sequence[Problem],
    done: Mapping[str, Filtered],
    save: Callable[[Sequence[Filtered]], None],
) -> list[Filtered]:
    """Attempts each problem up to k times with the base model and counts successes.

    A problem is not attempted further once no outcome of the remaining attempts could make it hard: by default, after
    its first success. That changes no result.

    Args:
        crew: who samples.
        problems: the candidates.
        done: what an interrupted filter found already, by problem id.
        save: called with each finished block.

    Returns:
        One entry per problem, in order.
    """
    spec, domain = crew.place.spec, crew.place.domain
    found = dict(done)
    # Cut before what is done is left out, so that blocks are the same however often the filter was interrupted.
    blocks = [problems[start : start + _PROBLEMS_AT_ONCE] for start in range(0, len(problems), _PROBLEMS_AT_ONCE)]
    waiting = [[p for p in block if p.id not in found] for block in blocks]
    for _, block in crew.each([FilterJob(block) for block in waiting if block]):
        save(block)
        found.update((f.problem.id, f) for f in block)
        hard = sum(is_hard(domain, f, spec) for f in found.values())
        faulty = sum(map(is_faulty, found.values()))
        crew.place.tell("filter", done=len(found), of=len(problems), hard=hard, faulty=faulty)
    return [found[p.id] for p in problems]


@dataclass(frozen=True)
class FilterJob(Job[list[Filtered]]):
    """A block of problems, attempted together."""

    problems: Sequence[Problem]

    def run(self, place: Workplace, *, last: bool) -> list[Filtered]:
        spec, domain = place.spec, place.domain
        draw = sampling(spec.filter, spec.filter.max_new_tokens, tuple(domain.student_stops()))
        fleet = place.engine.fleet([place.engine.start()], spec.student_optimizer)
        block = [Filtered(p, 0, 0, {}) for p in self.problems]
        for drawn, size in _chunks(spec.filter.samples):
            open_ = [i for i, f in enumerate(block) if undecided(domain, f, spec.filter.samples)]
            if not open_:
                break
            prompts = [
                Prompt(
                    policy=0,
                    text=student_prompt(domain, block[i].problem.question),
                    samples=size,
                    stream=Stream((spec.seed, "filter", block[i].problem.id, drawn)),
                )
                for i in open_
            ]
            groups = fleet.sample(prompts, draw)
            attempts = [(block[i].problem, c.text) for i, group in zip(open_, groups, strict=True) for c in group]
            verdicts = grade(domain, attempts, place.tell)
            for at, i in enumerate(open_):
                judged = verdicts[at * size : (at + 1) * size]
                block[i] = Filtered(
                    block[i].problem,
                    drawn + size,
                    block[i].successes + sum(v.correct for v in judged),
                    Counter(block[i].verdicts) + count_verdicts(judged),
                )
            place.tell("filter_sampled", tokens=sum(len(c.token_ids) for group in groups for c in group))
        return block


def is_hard(domain: Domain, filtered: Filtered, spec: Spec) -> bool:
    """Whether a problem passes the filter. What was not sampled to the end was decided: it is not hard."""
    whole = filtered.samples == spec.filter.samples
    return whole and not is_faulty(filtered) and domain.is_hard(filtered.successes, filtered.samples)


def is_faulty(filtered: Filtered) -> bool:
    """Whether an attempt found the problem itself at fault: nobody can solve it, and that does not make it hard."""
    return any(verdict.partition("/")[0] == Outcome.INVALID for verdict in filtered.verdicts)


def halve(domain: Domain, found: Sequence[Filtered], spec: Spec) -> list[Filtered]:
    """The same entries, hard ones marked as `train` or `test`.

    Raises:
        DataError: too few problems are hard to learn from some and measure on others.
    """
    marked = mark_halves(domain, found, spec)
    halves = Counter(f.half for f in marked if f.half)
    if len(halves) < 2:
        raise DataError(
            f"{halves.total()} of {len(found)} problems are hard for {spec.model.base}: too few to halve",
            at="filter",
            hint="load more or harder problems; `soarctl filter` shows how often each one was solved",
        )
    return marked


def mark_halves(domain: Domain, found: Sequence[Filtered], spec: Spec) -> list[Filtered]:
    """As `halve`, with halves that may be empty."""
    split = domain.split(
        [f.problem for f in found if is_hard(domain, f, spec)], spec.split.train_fraction, spec.split.seed
    )
    half = {p.id: "train" for p in split.train} | {p.id: "test" for p in split.test}
    return [Filtered(f.problem, f.samples, f.successes, f.verdicts, half.get(f.problem.id)) for f in found]


def _chunks(samples: int) -> Iterator[tuple[int, int]]:
    """(already drawn, how many to draw next): as many again as there are, at least `_FIRST_CHUNK`."""
    drawn = 0
    while drawn < samples:
        size = min(max(drawn, _FIRST_CHUNK), samples - drawn)
        yield drawn, size
        drawn += size


def undecided(domain: Domain, filtered: Filtered, samples: int) -> bool:
    """Whether some outcome of the attempts that are missing to `samples` would make the problem hard."""
    if is_faulty(filtered):
        return False
    missing = samples - filtered.samples
    return any(domain.is_hard(filtered.successes + more, samples) for more in range(missing + 1))
