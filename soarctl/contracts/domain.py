"""What every domain promises, one check for each promise."""

import json
import os
import pickle
import random
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from itertools import cycle, islice
from pathlib import Path
from typing import Any

from soarctl.api import Domain, Finding, Outcome, Problem, Rejection, Verdict, problem_id
from soarctl.contracts.findings import Broken, Check, is_a, is_number, is_plain_json, run_checks, shown, strict_options

_CONSTRUCTION_SECONDS = 1.0
_PARSE_SECONDS = 2.0
_RULE_LENGTH = 60
_RULES = 50
_JUNK = ("", " \n", "no answer at all", "\0")


@dataclass
class DomainWorld:
    """A domain with the texts that its checks need."""

    domain: Domain
    gold: Callable[[Problem], str]
    wrong: Callable[[Problem], str] | None
    accepted: Sequence[str]
    rejected: Mapping[str, str]
    sample_size: int
    batch_size: int
    examples: int

    @cached_property
    def problems(self) -> list[Problem]:
        return list(self.domain.load())

    @cached_property
    def sample(self) -> list[Problem]:
        """Some problems from all over the list."""
        step = max(1, len(self.problems) // self.sample_size)
        return self.problems[::step][: self.sample_size]

    @cached_property
    def pairs(self) -> list[tuple[Problem, str]]:
        """Right, wrong and meaningless attempts, next to each other."""
        answers = [self.gold(p) for p in self.sample]
        others = answers[1:] + answers[:1]
        return [
            (p, text)
            for p, right, other in zip(self.sample, answers, others, strict=True)
            for text in (right, other, "no answer at all")
        ]

    @cached_property
    def verdicts(self) -> list[Verdict]:
        return self.domain.grade(self.pairs)

    def correct(self, pairs: Sequence[tuple[Problem, str]]) -> list[bool]:
        return [verdict.correct for verdict in self.domain.grade(pairs)]


def check_domain(
    domain: Domain,
    *,
    accepted: Sequence[str] = (),
    rejected: Mapping[str, str] | None = None,
    gold: Callable[[Problem], str] | None = None,
    wrong: Callable[[Problem], str] | None = None,
    sample: int = 24,
    batch: int = 2000,
    examples: int = 40,
    seconds: float = 60.0,
) -> None:
    """Holds a domain to what api.py promises; the checks are listed in docs/reference/contracts.md.

    Args:
        domain: to be checked. Its data must be there.
        accepted: teacher completions that `parse` makes practice questions of.
        rejected: teacher completions that it rejects, each with the name of the rule.
        gold: a completion that solves a problem. By default the problem's answer itself.
        wrong: a completion that does not, chosen to be nearly right, for domains that know one.
        sample: problems that are graded in the slower checks.
        batch: attempts in the large batch.
        examples: batches of generated texts for each method that reads text.
        seconds: after which a check counts as hanging.

    Raises:
        ContractError: promises are broken. All of them are in the message.
    """
    world = DomainWorld(domain, gold or (lambda p: p.answer), wrong, accepted, rejected or {}, sample, batch, examples)
    run_checks("check_domain", domain, world, CHECKS, seconds)


def options(world: DomainWorld) -> Iterator[str]:
    """Its fields are its options: unknown ones are errors, and a loaded domain never changes."""
    yield from strict_options(world.domain)
    before = world.domain.model_dump()
    began = time.perf_counter()
    type(world.domain).model_validate(before)
    if time.perf_counter() - began > _CONSTRUCTION_SECONDS:
        yield f"construction takes more than {_CONSTRUCTION_SECONDS:g} s: leave the work to `load`"
    world.domain.load()
    world.domain.grade(world.pairs[:3])
    if world.domain.model_dump() != before:
        yield f"its options were {shown(before)} and are {shown(world.domain.model_dump())} after it worked"


def loads(world: DomainWorld) -> Iterator[str]:
    """`load` gives the same problems at every call, at least two of them."""
    if not all(is_a(p, Problem) for p in world.problems):
        yield "load returned something that is not a soarctl.api.Problem"
        return
    if len(world.problems) < 2:
        yield f"load returned {len(world.problems)} problems: too few to halve"
    fresh = type(world.domain).model_validate(world.domain.model_dump())
    for name, again in (("a second call", world.domain.load()), ("a new instance", fresh.load())):
        if list(again) != world.problems:
            first = next((pair for pair in zip(world.problems, again, strict=False) if pair[0] != pair[1]), None)
            what = f"{shown(first[0].question)} became {shown(first[1].question)}" if first else "the number differs"
            yield f"load is not repeatable: in {name} {what}"


def ids(world: DomainWorld) -> Iterator[str]:
    """Problem ids are unique, and those of their questions."""
    seen: dict[str, Problem] = {}
    for problem in world.problems:
        if problem.id in seen:
            yield f"ids are not unique: {shown(seen[problem.id].question)} and {shown(problem.question)} share one"
            return
        seen[problem.id] = problem
        if problem.id != problem_id(problem.question):
            yield f"ids are not stable: that of {shown(problem.question)} is not the hash of its question"
            return


def values(world: DomainWorld) -> Iterator[str]:
    """Question and answer are texts that are not empty, and meta holds plain JSON values."""
    for p in world.problems:
        if not (is_a(p.question, str) and p.question.strip()):
            yield f"an empty question: {shown(p)}"
            return
        if not (is_a(p.answer, str) and p.answer.strip()):
            yield f"an empty answer: {shown(p)}"
            return
        if not is_plain_json(dict(p.meta)):
            yield f"meta is not plain JSON: {shown(p.meta)}"
            return


def pickles(world: DomainWorld) -> Iterator[str]:
    """It can be pickled."""
    try:
        copy = pickle.loads(pickle.dumps(world.domain))
    except Exception as error:  # whatever pickle says is the finding
        yield f"not picklable: {type(error).__name__}: {error}"
        return
    if copy != world.domain:
        yield "not picklable: the copy is another domain"


def travels(world: DomainWorld) -> Iterator[str]:
    """In another process it has the same problems and gives the same verdicts."""
    try:
        pickled = pickle.dumps((world.domain, world.pairs[:6]))
    except Exception:  # told above
        return
    environment = {**os.environ, "PYTHONHASHSEED": "1", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run(
        [sys.executable, "-c", _ELSEWHERE], input=pickled, env=environment, capture_output=True, check=False
    )
    if done.returncode == _NOT_IMPORTABLE:  # a class written in a test file
        return
    if done.returncode:
        yield f"another process failed: {done.stderr.decode(errors='replace').strip().splitlines()[-1]}"
    elif json.loads(done.stdout) != described(world.domain, world.pairs[:6]):
        yield "in another process it has other problems or verdicts: does an order depend on hash() or a set?"


_NOT_IMPORTABLE = 86
_ELSEWHERE = f"""
import json, pickle, sys
try:
    domain, pairs = pickle.load(sys.stdin.buffer)
except (ImportError, AttributeError):
    sys.exit({_NOT_IMPORTABLE})
from soarctl.contracts.domain import described
if __name__ == "__main__":
    print(json.dumps(described(domain, pairs)))
"""


def described(domain: Domain, pairs: Sequence[tuple[Problem, str]]) -> list[Any]:
    """What must be the same everywhere, as plain JSON values."""
    problems = sorted([p.id, p.question, p.answer, json.dumps(dict(p.meta), sort_keys=True)] for p in domain.load())
    return [problems, [[str(v.outcome), v.reward] for v in domain.grade(pairs)]]


def prompts(world: DomainWorld) -> Iterator[str]:
    """The teacher's prompt is fixed and shows no hard problem; a student's prompt depends on its question alone."""
    prompt = world.domain.teacher_prompt()
    if not (is_a(prompt, str) and prompt):
        yield f"teacher_prompt gave {shown(prompt)}"
        return
    if world.domain.teacher_prompt() != prompt:
        yield "teacher_prompt is not fixed: two calls gave two prompts"
    leaked = next((p for p in world.problems if len(p.question) > 3 and p.question in prompt), None)
    if leaked:
        yield f"teacher_prompt shows a problem of `load`: {shown(leaked.question)}"
    rendered = [world.domain.student_prompt(p.question) for p in world.sample]
    if not all(is_a(text, str) and text for text in rendered):
        yield "student_prompt gave something that is not a text"
    if rendered != [world.domain.student_prompt(p.question) for p in world.sample]:
        yield "student_prompt is not fixed: the same question gave two prompts"
    if len(set(rendered)) < len({p.question for p in world.sample}):
        yield "student_prompt is the same for different questions: does it leave the question out?"


def split(world: DomainWorld) -> Iterator[str]:
    """`split` gives two disjoint halves with every problem in one of them, whatever the order."""
    halves = world.domain.split(world.problems, 0.5, 0)
    train, test = ({p.id for p in half} for half in (halves.train, halves.test))
    both = train & test
    if both:
        yield f"train and test overlap: {len(both)} problems are in both halves"
    lost = {p.id for p in world.problems} - train - test
    if lost:
        yield f"split loses {len(lost)} of {len(world.problems)} problems"
    if (train | test) - {p.id for p in world.problems}:
        yield "split adds problems that it was not given"
    if not train or not test:
        yield f"a half is empty: {len(train)} to train on, {len(test)} to test with"
    shuffled = random.Random(0).sample(world.problems, len(world.problems))
    if {p.id for p in world.domain.split(shuffled, 0.5, 0).train} != train:
        yield "split depends on the order of the problems"


def gold_verifies(world: DomainWorld) -> Iterator[str]:
    """A right answer is correct."""
    right = [(p, world.gold(p)) for p in world.problems[:: max(1, len(world.problems) // 200)]]
    verdicts = world.domain.grade(right)
    wrong = [(pair, v) for pair, v in zip(right, verdicts, strict=True) if not v.correct]
    if wrong:
        (problem, text), verdict = wrong[0]
        yield (
            f"the gold answer is not correct for {len(wrong)} of {len(right)} problems: {shown(problem.question)} with "
            f"{shown(text)} is {verdict.outcome} {verdict.reason}".rstrip()
        )


def wrong_does_not(world: DomainWorld) -> Iterator[str]:
    """An empty, a meaningless and a wrong answer is not correct."""
    for junk in _JUNK:
        passed = sum(world.correct([(p, junk) for p in world.sample]))
        if passed:
            name = "an empty" if not junk.strip() else "a meaningless"
            yield f"the verifier accepts {name} answer {junk!r} in {passed} of {len(world.sample)} problems"
    if world.wrong:
        near = [(p, world.wrong(p)) for p in world.sample]
        accepted = [pair for pair, ok in zip(near, world.correct(near), strict=True) if ok]
        if accepted:
            yield f"the verifier accepts what `wrong` says is wrong: {shown(accepted[0][1])}"
    # Of a witness there may be several, so that one that passes proves nothing; most of them passing does.
    answers = {p.id: world.gold(p) for p in world.sample}
    others = [(p, a) for p in world.sample for a in dict.fromkeys(answers.values()) if a != answers[p.id]][:200]
    if others and 2 * sum(world.correct(others)) > len(others):
        yield "the verifier accepts other problems' answers: does it read the answer at all?"
    parts = [(p, a[: len(a) // 2]) for p in world.sample if len(a := answers[p.id]) > 1]
    if parts and 2 * sum(world.correct(parts)) > len(parts):
        yield "the verifier accepts half an answer: are answer and completion swapped?"
    # Of a text with an answer in it the same cannot be said: it may go on.
    padded = [(p, f"{a}{a}x") for p in world.sample if (a := answers[p.id]) == p.answer]
    if padded and 2 * sum(world.correct(padded)) > len(padded):
        yield "the verifier accepts an answer that runs on into another: does it compare the beginning alone?"


def batches(world: DomainWorld) -> Iterator[str]:
    """A verdict depends on its own pair only: not on the batch, its order, or what was graded before."""
    if world.domain.grade([]) != []:
        yield "an empty batch gave verdicts"
    if len(world.verdicts) != len(world.pairs):
        yield f"{len(world.verdicts)} verdicts for {len(world.pairs)} attempts"
        return
    if world.domain.grade(world.pairs) != world.verdicts:
        yield "the same batch graded twice gave other verdicts: the verifier remembers or guesses"
    alone = [verdict for pair in world.pairs for verdict in world.domain.grade([pair])]
    differ = [i for i, v in enumerate(alone) if _judged(v) != _judged(world.verdicts[i])]
    if differ:
        pair, i = world.pairs[differ[0]], differ[0]
        yield (
            f"graded alone {shown(pair[1])} is {alone[i].outcome}, in a batch it is {world.verdicts[i].outcome}: "
            "verdicts depend on their neighbours"
        )
    order = random.Random(0).sample(range(len(world.pairs)), len(world.pairs))
    shuffled = world.domain.grade([world.pairs[i] for i in order])
    if [_judged(v) for v in shuffled] != [_judged(world.verdicts[i]) for i in order]:
        yield "verdicts depend on the order of the batch"


def thousands(world: DomainWorld) -> Iterator[str]:
    """Thousands of attempts in one batch get a verdict each, as in a small batch."""
    many = list(islice(cycle(world.pairs), world.batch_size))
    verdicts = world.domain.grade(many)
    if len(verdicts) != len(many):
        yield f"{len(verdicts)} verdicts for a batch of {len(many)}"
    elif [_judged(v) for v in verdicts] != list(islice(cycle(map(_judged, world.verdicts)), len(many))):
        yield f"verdicts in a batch of {len(many)} are not those in a batch of {len(world.pairs)}"


def threads(world: DomainWorld) -> Iterator[str]:
    """`grade` gives the same verdicts when a thread asks that is not the main one."""
    with ThreadPoolExecutor(1) as pool:
        verdicts = pool.submit(world.domain.grade, world.pairs).result()
    if [_judged(v) for v in verdicts] != [_judged(v) for v in world.verdicts]:
        yield "verdicts are others off the main thread: does the verifier wait for a signal?"


def tiers(world: DomainWorld) -> Iterator[str]:
    """A verdict has an outcome and a finite reward; a correct answer earns more than any other, and a wrong one no
    less than an unparsed one."""
    for v in world.verdicts:
        if not is_a(v.outcome, Outcome):
            yield f"the outcome {shown(v.outcome)} is not a soarctl.api.Outcome"
            return
        if not is_number(v.reward):
            yield f"the reward {shown(v.reward)} is not a finite number"
            return
        if not is_a(v.reason, str) or len(v.reason) > _RULE_LENGTH or "\n" in v.reason:
            yield f"the reason {shown(v.reason)} is not a short fixed text: the ledger counts by it"
            return
    judged = [*world.verdicts, *world.domain.grade([(p, "") for p in world.sample])]
    right = [v.reward for v in judged if v.correct]
    other = [v.reward for v in judged if not v.correct]
    if right and other and min(right) <= max(other):
        yield f"tiers are not monotone: a correct answer earns {min(right):g}, another one {max(other):g}"
    wrong = [v.reward for v in judged if v.outcome is Outcome.WRONG]
    unparsed = [v.reward for v in judged if v.outcome is Outcome.UNPARSED]
    if wrong and unparsed and min(wrong) < max(unparsed):
        yield f"tiers are not monotone: a wrong answer earns {min(wrong):g}, an unparsed one {max(unparsed):g}"


def hostile_answers(world: DomainWorld) -> Iterator[str]:
    """Whatever the texts on both sides are, `grade` returns a verdict: it neither raises nor hangs."""
    from soarctl.contracts.hostile import NASTY, search, stretched, texts

    golds = [world.gold(p) for p in world.sample[:3]]
    some = world.sample[0]

    def look(batch: list[str]) -> None:
        attempts = [(some, text) for text in batch]
        attempts += [(Problem(some.question, text, some.meta), text) for text in batch]
        attempts += [(Problem(text, text), golds[0]) for text in batch]
        try:
            verdicts = world.domain.grade(attempts)
        except Exception as error:
            raise Broken(f"grade raised {type(error).__name__}: {error} on one of {shown(batch)}") from error
        if len(verdicts) != len(attempts):
            raise Broken(f"{len(verdicts)} verdicts for {len(attempts)} attempts on {shown(batch)}")
        odd = next((v for v in verdicts if not is_a(v.outcome, Outcome) or not is_number(v.reward)), None)
        if odd:
            raise Broken(f"the verdict {shown(odd)} on one of {shown(batch)}")

    for text in (*NASTY, *stretched(golds[:1])):
        look([text])
    search(texts(golds), look, world.examples)
    yield from ()


def hostile_questions(world: DomainWorld) -> Iterator[str]:
    """Whatever the teacher wrote, `parse` returns a Problem or a Rejection, quickly and the same every time; and
    prompts, `measure` and `solve` work for what it accepts."""
    from soarctl.contracts.hostile import NASTY, search, stretched, texts

    rules = set[str]()

    def look(batch: list[str]) -> None:
        for text in batch:
            began = time.perf_counter()
            try:
                parsed = world.domain.parse(text)
            except Exception as error:
                raise Broken(f"parse raised {type(error).__name__}: {error} on {shown(text)}") from error
            if time.perf_counter() - began > _PARSE_SECONDS:
                raise Broken(f"parse takes more than {_PARSE_SECONDS:g} s for {shown(text)}")
            problem = _parse_problem(parsed)
            if problem:
                raise Broken(f"{problem} on {shown(text)}")
            if world.domain.parse(text) != parsed:
                raise Broken(f"parse gives something else the second time for {shown(text)}")
            if isinstance(parsed, Rejection):
                rules.add(parsed.rule)
            else:
                for problem in _used(world.domain, parsed):
                    raise Broken(f"{problem}, after parsing {shown(text)}")

    for text in (*NASTY, *stretched(world.accepted[:3])):
        look([text])
    search(texts([*world.accepted, *world.rejected]), look, world.examples)
    if len(rules) > _RULES:
        yield f"more than {_RULES} rules of rejection, such as {shown(sorted(rules)[:3])}: the text belongs in `detail`"


def accepts(world: DomainWorld) -> Iterator[str]:
    """`parse` accepts its own format, and the question it makes can be put and solved."""
    for text in world.accepted:
        parsed = world.domain.parse(text)
        if isinstance(parsed, Rejection):
            yield f"{shown(text)} is rejected by the rule {parsed.rule!r}"
            continue
        yield from _used(world.domain, parsed)
        if not world.correct([(parsed, world.gold(parsed))])[0]:
            yield f"the teacher's own answer in {shown(text)} is not correct for its own question"


def rejects(world: DomainWorld) -> Iterator[str]:
    """`parse` names the rule by which it rejects."""
    for text, rule in world.rejected.items():
        parsed = world.domain.parse(text)
        if not isinstance(parsed, Rejection):
            yield f"{shown(text)} is accepted"
        elif parsed.rule != rule:
            yield f"{shown(text)} is rejected by {shown(parsed.rule)} and not by {shown(rule)}"


def hard(world: DomainWorld) -> Iterator[str]:
    """A problem that is solved more often is not harder, and one that is never solved is hard."""
    verdicts = [world.domain.is_hard(successes, 8) for successes in range(9)]
    if not all(is_a(v, bool) for v in verdicts):
        yield "is_hard gives something else than true or false"
    if not verdicts[0]:
        yield "a problem with 0 of 8 correct samples is not hard"
    if verdicts != sorted(verdicts, reverse=True):
        yield "is_hard is not monotone: with more successes a problem becomes hard again"


def stops(world: DomainWorld) -> Iterator[str]:
    """Stop strings are not empty and do not cut a right answer or a good question."""
    student, teacher = world.domain.student_stops(), world.domain.teacher_stops()
    if isinstance(student, str) or isinstance(teacher, str):
        yield "stops are a single text: give a tuple of texts"
        return
    if not all(is_a(s, str) and s for s in (*student, *teacher)):
        yield "a stop string is empty: it would end every completion before it begins"
        return
    for problem in world.sample:
        text = world.gold(problem)
        if not world.correct([(problem, _cut(text, student))])[0] and world.correct([(problem, text)])[0]:
            yield f"a student stop string cuts the right answer {shown(text)}"
            break
    for text in world.accepted:
        if is_a(world.domain.parse(_cut(text, teacher)), Rejection):
            yield f"a teacher stop string cuts the good question {shown(text)}"


def people(world: DomainWorld) -> Iterator[str]:
    """`solve` gives the true answer or None, and `measure` finite numbers by name."""
    for p in world.sample:
        yield from _used(world.domain, p)
        solved = world.domain.solve(p.question)
        if isinstance(solved, str) and not world.correct([(p, world.gold(Problem(p.question, solved, p.meta)))])[0]:
            yield f"solve({shown(p.question)}) gives {shown(solved)}, which the verifier does not take"
            return


def recorded(world: DomainWorld) -> Iterator[str]:
    """`facts` gives plain JSON values by name, the same at every call."""
    facts = world.domain.facts()
    if not is_a(facts, Mapping) or not is_plain_json(dict(facts)):
        yield f"facts are not plain JSON: {shown(facts)}"
    elif world.domain.facts() != facts:
        yield f"facts were {shown(facts)}, then {shown(world.domain.facts())}"


def looked_at(world: DomainWorld) -> Iterator[str]:
    """`checks` gives findings in words, and nothing is wrong where the domain works."""
    for finding in world.domain.checks():
        if not is_a(finding, Finding):
            yield f"checks gave {shown(finding)}, which is not a soarctl.api.Finding"
        elif not (is_a(finding.what, str) and finding.what.strip() and is_a(finding.found, str)):
            yield f"checks gave a finding without words: {shown(finding)}"
        elif finding.problem is not None:  # it has just loaded problems and graded attempts
            yield f"checks calls {shown(finding.what)} a problem, and the domain works: {shown(finding.problem)}"


def named(world: DomainWorld) -> Iterator[str]:
    """`files` names local files by options of the domain, and they are there where `load` reads them."""
    for option, path in world.domain.files().items():
        if re.split(r"[.\[]", option)[0] not in type(world.domain).model_fields:
            yield f"files has the key {shown(option)}, which is no option"
        elif not is_a(path, str) or not Path(path).expanduser().exists():
            yield f"files names {shown(path)} for {option}, which is not there, and the domain loads"


CHECKS: tuple[Check[DomainWorld], ...] = (
    loads,
    ids,
    values,
    options,
    pickles,
    travels,
    prompts,
    split,
    gold_verifies,
    wrong_does_not,
    batches,
    thousands,
    threads,
    tiers,
    hostile_answers,
    hostile_questions,
    accepts,
    rejects,
    hard,
    stops,
    people,
    recorded,
    looked_at,
    named,
)


def _judged(verdict: Verdict) -> tuple[Outcome, float]:
    return verdict.outcome, verdict.reward


def _cut(text: str, stops: Sequence[str]) -> str:
    return text[: min((at for stop in stops if (at := text.find(stop)) >= 0), default=len(text))]


def _parse_problem(parsed: object) -> str | None:
    """What is wrong with a result of `parse`."""
    match parsed:
        case Rejection(rule=rule):
            if not rule.strip() or len(rule) > _RULE_LENGTH or "\n" in rule:
                return f"the rule {shown(rule)} is not a short fixed name"
        case Problem(question=question, answer=answer, meta=meta):
            if not question.strip() or not answer.strip():
                return f"parse accepts an empty question or answer: {shown(parsed)}"
            if not is_plain_json(dict(meta)):
                return f"meta is not plain JSON: {shown(meta)}"
        case _:
            return f"parse returned {shown(parsed)}"
    return None


def _used(domain: Domain, problem: Problem) -> Iterator[str]:
    """What goes wrong when a run uses a question."""
    for name, call in (
        ("student_prompt", lambda: domain.student_prompt(problem.question)),
        ("solve", lambda: domain.solve(problem.question)),
        ("measure", lambda: domain.measure(problem)),
    ):
        try:
            value = call()
        except Exception as error:  # the boundary around a plug-in
            yield f"{name} raised {type(error).__name__}: {error}"
            continue
        if name == "student_prompt" and not is_a(value, str):
            yield f"student_prompt gave {shown(value)}"
        if name == "solve" and not is_a(value, str | None):
            yield f"solve gave {shown(value)}"
        if name == "measure" and not (isinstance(value, Mapping) and all(map(is_number, value.values()))):
            yield f"measure gave {shown(value)}"
