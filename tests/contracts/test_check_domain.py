"""Each planted defect is caught, with a message that names it."""

import random
import re
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from pydantic import ConfigDict

from soarctl.api import Domain, Finding, Outcome, Plugin, Problem, Rejection, Split, Verdict
from soarctl.contracts import domain as contract
from soarctl.plugins import load
from soarctl.testing import ContractError, ToyDomain, check_domain

PLAIN = re.compile(r"[0-9](?: [0-9]){1,9}")


class Sorting(Domain):
    """Sort digits. Nothing is wrong with it."""

    length: int = 5

    def load(self) -> Sequence[Problem]:
        rng = random.Random(0)
        lists = {"".join(rng.sample("0123456789", self.length)): None for _ in range(40)}
        return [Problem(" ".join(digits), " ".join(sorted(digits))) for digits in lists]

    def teacher_prompt(self) -> str:
        return "ask:"

    def student_prompt(self, question: str) -> str:
        return f"sort: {question} ="

    def parse(self, completion: str) -> Problem | Rejection:
        question, equals, answer = (part.strip() for part in completion.partition("="))
        if not equals:
            return Rejection("no equals sign")
        if not PLAIN.fullmatch(question) or not PLAIN.fullmatch(answer):
            return Rejection("not digits")
        return Problem(question, answer)

    def grade(self, attempts: Sequence[tuple[Problem, str]]) -> list[Verdict]:
        return [verdict(" ".join(text.split()) == p.answer) for p, text in attempts]


def verdict(right: bool, reward: float | None = None) -> Verdict:
    return Verdict(Outcome.CORRECT if right else Outcome.WRONG, float(right) if reward is None else reward)


# What is wrong with each of these is its docstring, and the text that check_domain is to name it by.


class AnotherListEveryTime(Sorting):
    """load is not repeatable"""

    def load(self) -> Sequence[Problem]:
        digits = ["".join(random.SystemRandom().choices("0123456789", k=9)) for _ in range(20)]
        return [Problem(" ".join(d), " ".join(sorted(d))) for d in digits]


class UnstableProblem(Problem):
    @property
    def id(self) -> str:
        return f"{hash(self.question):x}"


class UnstableIds(Sorting):
    """ids are not stable"""

    def load(self) -> Sequence[Problem]:
        return [UnstableProblem(p.question, p.answer) for p in super().load()]


class SharedIds(Sorting):
    """ids are not unique"""

    def load(self) -> Sequence[Problem]:
        return [*super().load(), *super().load()[:1]]


class AnswerMissing(Sorting):
    """an empty answer"""

    def load(self) -> Sequence[Problem]:
        return [Problem(p.question, "") for p in super().load()]


class SetInMeta(Sorting):
    """meta is not plain JSON"""

    def load(self) -> Sequence[Problem]:
        return [Problem(p.question, p.answer, {"digits": set(p.question)}) for p in super().load()]


class AnyOption(Sorting):
    """model_config has lost extra="forbid\""""

    model_config = ConfigDict(extra="ignore")


class Thawed(Sorting):
    """model_config has lost frozen=True"""

    model_config = ConfigDict(frozen=False)


class SlowToConstruct(Sorting):
    """construction takes more than 1 s"""

    def model_post_init(self, context: Any, /) -> None:
        time.sleep(1.1)


class HoldsALock(Sorting):
    """not picklable"""

    def model_post_init(self, context: Any, /) -> None:
        object.__setattr__(self, "_lock", threading.Lock())

    def __getstate__(self) -> dict[Any, Any]:
        return {**super().__getstate__(), "lock": threading.Lock()}


class FollowsHash(Sorting):
    """in another process it has other problems or verdicts"""

    def load(self) -> Sequence[Problem]:
        return [Problem(p.question, p.answer, {"shard": hash(p.question) % 97}) for p in super().load()]


class ShowsAHardProblem(Sorting):
    """teacher_prompt shows a problem of `load`"""

    def teacher_prompt(self) -> str:
        return f"Write a question like {self.load()[3].question}"


class WanderingPrompt(Sorting):
    """teacher_prompt is not fixed"""

    def teacher_prompt(self) -> str:
        return f"ask {random.SystemRandom().random()}:"


class QuestionLeftOut(Sorting):
    """student_prompt is the same for different questions"""

    def student_prompt(self, question: str) -> str:
        return "sort: question ="


class Overlap(Sorting):
    """train and test overlap"""

    def split(self, problems: Sequence[Problem], train_fraction: float, seed: int) -> Split:
        ordered = sorted(problems, key=lambda p: p.id)
        return Split(ordered[:20], ordered[15:])


class SplitByOrder(Sorting):
    """split depends on the order of the problems"""

    def split(self, problems: Sequence[Problem], train_fraction: float, seed: int) -> Split:
        return Split(problems[:20], problems[20:])


class SplitLoses(Sorting):
    """split loses"""

    def split(self, problems: Sequence[Problem], train_fraction: float, seed: int) -> Split:
        ordered = sorted(problems, key=lambda p: p.id)
        return Split(ordered[:10], ordered[30:])


class GoldFails(Sorting):
    """the gold answer is not correct"""

    def grade(self, attempts: Sequence[tuple[Problem, str]]) -> list[Verdict]:
        return [verdict(text == f"[{p.answer}]") for p, text in attempts]


class AcceptsEmpty(Sorting):
    """the verifier accepts an empty answer"""

    def grade(self, attempts: Sequence[tuple[Problem, str]]) -> list[Verdict]:
        return [verdict(text.strip() in ("", p.answer)) for p, text in attempts]


class AcceptsEverything(Sorting):
    """the verifier accepts other problems' answers"""

    def grade(self, attempts: Sequence[tuple[Problem, str]]) -> list[Verdict]:
        return [verdict(bool(re.fullmatch("[0-9 ]{9}", text))) for p, text in attempts]


class Swapped(Sorting):
    """are answer and completion swapped?"""

    def grade(self, attempts: Sequence[tuple[Problem, str]]) -> list[Verdict]:
        return [verdict(bool(text.strip()) and text.strip() in p.answer) for p, text in attempts]


class BeginningOnly(Sorting):
    """does it compare the beginning alone?"""

    def grade(self, attempts: Sequence[tuple[Problem, str]]) -> list[Verdict]:
        return [verdict(text.startswith(p.answer)) for p, text in attempts]


class AcceptsNearlyRight(Sorting):
    """the verifier accepts what `wrong` says is wrong"""

    def grade(self, attempts: Sequence[tuple[Problem, str]]) -> list[Verdict]:
        return [verdict(sorted(text.split()) == p.answer.split()) for p, text in attempts]


class DropsTheLast(Sorting):
    """verdicts for"""

    def grade(self, attempts: Sequence[tuple[Problem, str]]) -> list[Verdict]:
        return super().grade(attempts[:-1])


class DropsFromLargeBatches(Sorting):
    """verdicts for a batch of 2000"""

    def grade(self, attempts: Sequence[tuple[Problem, str]]) -> list[Verdict]:
        return super().grade(attempts[:1000])


class OrderDependent(Sorting):
    """verdicts depend on the order of the batch"""

    def grade(self, attempts: Sequence[tuple[Problem, str]]) -> list[Verdict]:
        seen: set[str] = set()
        fresh = [not (text in seen or seen.add(text)) for _, text in attempts]
        return [verdict(new and v.correct) for new, v in zip(fresh, super().grade(attempts), strict=True)]


class NeighbourDependent(Sorting):
    """verdicts depend on their neighbours"""

    def grade(self, attempts: Sequence[tuple[Problem, str]]) -> list[Verdict]:
        best = sum(v.correct for v in super().grade(attempts))
        return [verdict(v.correct, v.reward / max(best, 1)) for v in super().grade(attempts)]


class Remembers(Sorting):
    """the verifier remembers or guesses"""

    def grade(self, attempts: Sequence[tuple[Problem, str]]) -> list[Verdict]:
        _CALLS.append(len(attempts))
        return [verdict(v.correct and len(_CALLS) % 2 == 0) for v in super().grade(attempts)]


_CALLS: list[int] = []


class MainThreadOnly(Sorting):
    """verdicts are others off the main thread"""

    def grade(self, attempts: Sequence[tuple[Problem, str]]) -> list[Verdict]:
        main = threading.current_thread() is threading.main_thread()
        return [verdict(v.correct and main) for v in super().grade(attempts)]


class WrongPaysMore(Sorting):
    """tiers are not monotone"""

    def grade(self, attempts: Sequence[tuple[Problem, str]]) -> list[Verdict]:
        return [verdict(v.correct, 0.1 if v.correct else 0.5) for v in super().grade(attempts)]


class PaysNothingness(Sorting):
    """is not a finite number"""

    def grade(self, attempts: Sequence[tuple[Problem, str]]) -> list[Verdict]:
        return [verdict(v.correct, v.reward if v.correct else float("nan")) for v in super().grade(attempts)]


class CrashesOnLongNumbers(Sorting):
    """grade raised ValueError: Exceeds the limit"""

    def grade(self, attempts: Sequence[tuple[Problem, str]]) -> list[Verdict]:
        for _, text in attempts:
            if re.fullmatch("[0-9]+", text):
                int(text)
        return super().grade(attempts)


class ParseCrashes(Sorting):
    """parse raised IndexError"""

    def parse(self, completion: str) -> Problem | Rejection:
        return super().parse(completion) if completion.split()[0] else Rejection("empty")


class ParseHangs(Sorting):
    """it did not come back within 2 s, last seen in parse"""

    def parse(self, completion: str) -> Problem | Rejection:
        if not re.fullmatch(r"(([0-9 ])+)+= [0-9 ]+", completion):
            return Rejection("not digits")
        return super().parse(completion)


class RuleForEveryText(Sorting):
    """rules of rejection"""

    def parse(self, completion: str) -> Problem | Rejection:
        parsed = super().parse(completion)
        return Rejection(f"no: {hash(completion)}") if isinstance(parsed, Rejection) else parsed


class RejectsItsOwn(Sorting):
    """is rejected by the rule 'not digits'"""

    def parse(self, completion: str) -> Problem | Rejection:
        return super().parse(completion.replace(" ", "  "))


class OtherRule(Sorting):
    """is rejected by 'malformed' and not by 'no equals sign'"""

    def parse(self, completion: str) -> Problem | Rejection:
        parsed = super().parse(completion)
        return Rejection("malformed") if isinstance(parsed, Rejection) else parsed


class AcceptsMalformed(Sorting):
    """'1 2 3' is accepted"""

    def parse(self, completion: str) -> Problem | Rejection:
        parsed = super().parse(completion)
        return Problem(completion, completion) if isinstance(parsed, Rejection) and completion.strip() else parsed


class UnanswerableQuestion(Sorting):
    """the teacher's own answer"""

    def parse(self, completion: str) -> Problem | Rejection:
        parsed = super().parse(completion)
        return parsed if isinstance(parsed, Rejection) else Problem(parsed.question, f"answer: {parsed.answer}  !")


class HardAgain(Sorting):
    """is_hard is not monotone"""

    def is_hard(self, successes: int, samples: int) -> bool:
        return successes % 2 == 0


class StopsInTheAnswer(Sorting):
    """a student stop string cuts the right answer"""

    def student_stops(self) -> Sequence[str]:
        return (" ",)


class EmptyStop(Sorting):
    """a stop string is empty"""

    def teacher_stops(self) -> Sequence[str]:
        return ("",)


class SolvesWrongly(Sorting):
    """which the verifier does not take"""

    def solve(self, question: str) -> str | None:
        return question[::-1]


class MeasureCrashes(Sorting):
    """measure raised ZeroDivisionError"""

    def measure(self, problem: Problem) -> Mapping[str, float]:
        return {"share": 1 / (problem.question.count("1") - 1)}


class UnrecordableFacts(Sorting):
    """facts are not plain JSON"""

    def facts(self) -> Mapping[str, Any]:
        return {"lock": threading.Lock()}


class FindsFault(Sorting):
    """checks calls 'digits' a problem, and the domain works"""

    def checks(self) -> Sequence[Finding]:
        return [Finding("digits", "ten", "too many")]


class NamesNoOption(Sorting):
    """files has the key 'data', which is no option"""

    def files(self) -> Mapping[str, str]:
        return {"data": "."}


class NamesNoFile(Sorting):
    """files names 'digits.txt' for length, which is not there, and the domain loads"""

    def files(self) -> Mapping[str, str]:
        return {"length": "digits.txt"}


DEFECTS = [
    value
    for value in list(globals().values())
    if isinstance(value, type) and issubclass(value, Sorting) and value.__doc__ and value is not Sorting
]


@pytest.fixture
def in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the one check that starts a process: half a second for each defect."""
    monkeypatch.setattr(contract, "CHECKS", tuple(c for c in contract.CHECKS if c is not contract.travels))


def check(domain: Domain, seconds: float = 60.0) -> None:
    check_domain(
        domain,
        accepted=["3 1 2 = 1 2 3", "1 1 0 = 0 1 1"],
        rejected={"1 2 3": "no equals sign", "one = 1": "not digits"},
        wrong=lambda p: p.answer[::-1],
        batch=2000,
        examples=5,
        seconds=seconds,
    )


def test_a_domain_without_defects_passes() -> None:
    check(Sorting())


@pytest.mark.usefixtures("in_this_process")
@pytest.mark.parametrize(
    "defect",
    [
        pytest.param(d, marks=pytest.mark.slow if d in (SlowToConstruct, ParseHangs) else ())
        for d in DEFECTS
        if d is not FollowsHash
    ],
    ids=lambda defect: defect.__name__,
)
def test_a_planted_defect_is_caught_and_named(defect: type[Sorting]) -> None:
    assert defect.__doc__
    with pytest.raises(ContractError, match=re.escape(defect.__doc__)):
        check(defect(), seconds=2.0 if defect is ParseHangs else 60.0)


def test_a_defect_that_shows_in_another_process_only_is_caught_and_named() -> None:
    with pytest.raises(ContractError, match=str(FollowsHash.__doc__)):
        check(FollowsHash())


def test_a_message_names_the_domain_and_the_promise() -> None:
    with pytest.raises(ContractError) as error:
        check(Overlap())
    assert str(error.value) == (
        "check_domain: Overlap breaks 1 promise of soarctl.api\n"
        "  `split` gives two disjoint halves with every problem in one of them, whatever the order.\n"
        "    train and test overlap: 5 problems are in both halves"
    )


class Boxed(Sorting):
    def grade(self, attempts: Sequence[tuple[Problem, str]]) -> list[Verdict]:
        return [verdict(text == f"so it is [{p.answer}]") for p, text in attempts]


@pytest.mark.usefixtures("in_this_process")
def test_a_domain_that_wants_more_than_the_answer_is_given_completions_that_pass() -> None:
    check_domain(Boxed(), gold=lambda p: f"so it is [{p.answer}]", accepted=["3 1 2 = 1 2 3"])


def test_our_own_letters_and_toy_domains_pass() -> None:
    check_domain(
        load(Domain, "letters", {}),
        accepted=["CAT | up swap = DBU DUB", "DOG | reverse = GOD"],
        rejected={
            "CAT | up": "no equals sign",
            "CAT | fly = CAT": "not one word and its operations",
            "CAT | up = dbu": "no answer of three letters",
            "CAT | up swap = DBU": "working of another length",
        },
    )
    check_domain(ToyDomain(), accepted=["3 #12", "0 #1"], rejected={"nothing": "no skill"})


def test_plug_ins_are_strict_at_the_base() -> None:
    assert Plugin.model_config.get("extra") == "forbid"
    assert Plugin.model_config.get("frozen") is True
