"""The verdict on an answer: own exact path first, Math-Verify in worker processes behind it."""

import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache

from soarctl_math import numeric
from soarctl_math.answers import Answer, Choice, Group, Relation, Value, Words, fraction_of, read
from soarctl_math.compare import Comparison
from soarctl_math.exact import Beyond, Undefined
from soarctl_math.extract import boxed
from soarctl_math.symbolic import Workers
from soarctl_math.tidy import compact, tidy, wording
from soarctl_math.tokens import Unreadable, Unsupported

_log = logging.getLogger("soarctl.math")

MAX_LENGTH = 600
"""Characters of an answer. The longest of 7,474 + 5,000 golds of MATH has fewer than 200."""
MAX_GROUPING = 40


class Reason(StrEnum):
    """By which rule a verdict was reached."""

    EXACT = "exact"
    """Same or different characters, or exact arithmetic on what they mean."""
    NORMALISED = "normalised"
    """The same but for spelling."""
    NUMERIC = "numeric"
    """The same or a different value, to 400 digits."""
    SYMBOLIC = "symbolic"
    """Math-Verify says so."""
    TOLERANCE = "tolerance"
    """As close as the data set asks for."""
    NO_ANSWER = "no answer"
    REFUSED = "refused"
    """Too long, too deep or too large to look at."""
    TIMEOUT = "timeout"
    CRASH = "crash"
    PARSE_ERROR = "parse error"
    """Neither we nor Math-Verify can read it."""


@dataclass(frozen=True, slots=True)
class Judgement:
    equal: bool
    reason: Reason


class _Ask(Exception):
    """Only the symbolic workers can tell; carries why we cannot."""


_NOTHING = frozenset({"", "none", "nan", "null", "n/a", "idontknow", "?", "unknown", "undefined"})
_HOSTILE = re.compile(
    r"__|[`\"@#]|'[A-Za-z]|\(\)|\\(?:write|input|def|include|immediate|open|csname|catcode)|\blambda\b"
)
_SYMBOLIC_BOMB = re.compile(
    r"\d{7,}|!|Gamma|\\(?:sum|prod|lim|int|iint|oint|bigcup|bigcap)\b|\^\s*\{?[^{}^]*\^|\\begin\{vmatrix|\^\{?\d{4,}"
)
_SUM = re.compile(r"[+-]*\d{1,15}(?:[+-]+\d{1,15})*")


class Verifier:
    """Judges answers; keeps verdicts it has given.

    Args:
        workers: processes for what only Math-Verify can tell; None to do without.
        cache: verdicts to remember.
    """

    def __init__(self, workers: Workers | None, cache: int = 100_000) -> None:
        self.workers = workers
        self._size = cache
        self._known: dict[tuple[str, str], Judgement] = {}

    def judge(self, gold: str, answer: str) -> Judgement:
        """The verdict on one answer. See `judge_all`."""
        return self.judge_all([(gold, answer)])[0]

    def judge_all(self, pairs: Sequence[tuple[str, str]]) -> list[Judgement]:
        """One verdict for each (gold, answer), in order; the answer is what stood in the box.

        Neither is trusted. Equal characters come first, so that what nothing could evaluate still equals itself.
        """
        verdicts: dict[tuple[str, str], Judgement] = {}
        asked: dict[tuple[str, str], str] = {}
        for pair in pairs:
            if pair in verdicts or pair in asked:
                continue
            known = self._known.get(pair)
            if known is None:
                try:
                    known = self._remember(pair, judge_alone(*pair))
                except _Ask as ask:
                    asked[pair] = str(ask)
                    continue
                except Exception:  # the boundary to hostile text: a bug of ours must not end a run
                    _log.exception("our own path failed on gold %r and answer %r", *pair)
                    known = Judgement(False, Reason.CRASH)
            verdicts[pair] = known
        if asked:
            verdicts |= self._ask(asked)
        return [verdicts[pair] for pair in pairs]

    def _ask(self, asked: dict[tuple[str, str], str]) -> dict[tuple[str, str], Judgement]:
        if self.workers is None:
            return {pair: Judgement(False, Reason(why)) for pair, why in asked.items()}
        requests = [{"gold": tidy(gold), "answer": tidy(answer)} for gold, answer in asked]
        found: dict[tuple[str, str], Judgement] = {}
        for pair, reply in zip(asked, self.workers.ask(requests), strict=True):
            judgement = Judgement(reply.equal, Reason(reply.reason))
            # A worker that died may have died of something else: such a verdict is not kept.
            lasting = reply.reason not in (Reason.TIMEOUT, Reason.CRASH)
            found[pair] = self._remember(pair, judgement) if lasting else judgement
        return found

    def _remember(self, pair: tuple[str, str], judgement: Judgement) -> Judgement:
        if len(pair[0]) + len(pair[1]) <= 2 * MAX_LENGTH:
            if len(self._known) >= self._size:
                self._known.clear()
            self._known[pair] = judgement
        return judgement

    def readable(self, answers: Sequence[str]) -> list[bool]:
        """Whether each answer is mathematics: what a gold answer has to be, and more than words."""
        results = [False] * len(answers)
        unsure: list[int] = []
        for k, answer in enumerate(answers):
            if len(answer) > MAX_LENGTH or not answer.strip() or _HOSTILE.search(answer):
                continue
            try:
                results[k] = is_mathematics(_reading(tidy(answer)))
            except Unreadable:
                if not _SYMBOLIC_BOMB.search(answer):
                    unsure.append(k)
        if unsure and self.workers is not None:
            for k, reply in zip(unsure, self.workers.ask([{"gold": tidy(answers[k])} for k in unsure]), strict=True):
                results[k] = reply.equal
        return results


def is_mathematics(answer: Answer) -> bool:
    if isinstance(answer, Group):
        return bool(answer.items) and all(is_mathematics(item) for item in answer.items)
    return not isinstance(answer, (Words, Choice))


def within(gold: str, answer: str, tolerance: float) -> bool:
    """Whether two answers are real numbers that differ by no more than this, as a few rows of OlympiadBench allow."""
    try:
        readings = [_reading(tidy(text)) for text in (gold, answer) if len(text) <= MAX_LENGTH]
        values = [numeric.value(reading.node) for reading in readings if isinstance(reading, Value)]
    except (Unreadable, Beyond, Undefined, ArithmeticError):
        return False
    return len(values) == 2 and bool(abs(values[0] - values[1]) <= tolerance)


@lru_cache(maxsize=8192)
def _reading(tidied: str, thousands: bool = True) -> Answer:
    return read(tidied, thousands=thousands)


@lru_cache(maxsize=8192)
def _tidied(text: str) -> str:
    return tidy(text)


def forget() -> None:
    """Drops what was read so far, so that a measurement starts cold."""
    _reading.cache_clear()
    _tidied.cache_clear()


def judge_alone(gold: str, answer: str) -> Judgement:
    """The verdict of our own path.

    Raises:
        _Ask: it cannot tell.
    """
    if "\\boxed" in gold:
        gold = boxed(gold) or gold
    if not gold.strip() or not answer.strip():
        return Judgement(False, Reason.NO_ANSWER)
    if gold == answer:
        return Judgement(True, Reason.EXACT)
    if gold.strip(" $") == answer.strip(" $") != "":
        return Judgement(True, Reason.NORMALISED)
    one, other = fraction_of(gold), fraction_of(answer)
    if one is not None and other is not None and (one == other or "," not in gold + answer):
        return Judgement(one == other, Reason.EXACT)
    if len(answer) > MAX_LENGTH or len(gold) > MAX_LENGTH:
        gold, answer = _peeled(gold), _peeled(answer)
        if len(answer) > MAX_LENGTH or len(gold) > MAX_LENGTH:
            return _long(gold, answer)
    gold, answer = _tidied(gold), tidy(answer)
    if not answer or compact(answer).lower() in _NOTHING:
        same = compact(gold).lower() == compact(answer).lower() != "" or wording(gold) == wording(answer) != ""
        return Judgement(same, Reason.NORMALISED if same else Reason.NO_ANSWER)
    if compact(gold) == compact(answer) or wording(gold) == wording(answer) != "":
        return Judgement(True, Reason.NORMALISED)
    return _meant(gold, answer)


def _peeled(text: str) -> str:
    """The text without brackets around all of it and without sign after sign; however many there are."""
    text = text.strip()
    opened = re.match(r"[({]*", text)
    closed = re.search(r"[)}]*$", text[-(len(text) // 2 + 1) :])
    depth = min(len(opened[0]) if opened else 0, len(closed[0]) if closed else 0)
    inside = text[depth : len(text) - depth]
    if depth and not any(bracket in inside for bracket in "(){}"):
        text = inside
    run = re.match(r"[+-]{8,}", text)
    if run:
        text = ("-" if run[0].count("-") % 2 else "") + text[run.end() :]
    return text


def _long(gold: str, answer: str) -> Judgement:
    """Answers that are too long to look into: sums of integers are added up, anything else is refused."""
    total = [_total(text) for text in (gold, answer)]
    if None in total:
        return Judgement(False, Reason.REFUSED)
    return Judgement(total[0] == total[1], Reason.EXACT)


def _total(text: str) -> int | None:
    if len(text) > 50_000 or not _SUM.fullmatch(text):
        return None
    return sum((-1) ** signs.count("-") * int(digits) for signs, digits in re.findall(r"([+-]*)(\d{1,15})", text))


def _meant(gold: str, answer: str) -> Judgement:
    """The verdict by what the two mean."""
    if _HOSTILE.search(answer):
        return Judgement(False, Reason.REFUSED)
    comparison = Comparison()
    unreadable = unsupported = undecided = False
    for thousands in _readings(gold, answer):
        try:
            verdict = comparison.answers(_reading(gold, thousands[0]), _reading(answer, thousands[1]))
        except Unsupported:
            unsupported = True
        except (Unreadable, RecursionError):
            unreadable = True
        else:
            if verdict:
                return Judgement(True, Reason.NUMERIC if comparison.used_numeric else Reason.EXACT)
            undecided |= verdict is None
    if not (unreadable or unsupported or undecided):
        return Judgement(False, Reason.NUMERIC if comparison.used_numeric else Reason.EXACT)
    if comparison.refused or _SYMBOLIC_BOMB.search(answer) or _SYMBOLIC_BOMB.search(gold):
        return Judgement(False, Reason.REFUSED)
    # What is not even well formed Math-Verify would read up to the first mistake, and accept for what it has read.
    if unreadable or _veto(gold, answer):
        return Judgement(False, Reason.PARSE_ERROR)
    raise _Ask(Reason.PARSE_ERROR)


_COMMA = re.compile(r"\d,\d{3}(?!\d)")


def _readings(gold: str, answer: str) -> list[tuple[bool, bool]]:
    """1,000 is a thousand, or else the two numbers 1 and 0: as what it is meant is seen from the other side."""
    golds = (True, False) if _COMMA.search(gold) else (True,)
    answers = (True, False) if _COMMA.search(answer) else (True,)
    return [(one, other) for one in golds for other in answers]


def _veto(gold: str, answer: str) -> bool:
    """Whether Math-Verify is not to be asked, since it is known to accept too much here."""
    if answer.count("=") > 1 and answer.count("=") > gold.count("="):
        return True  # it takes the last right-hand side of a chain
    if ("_" in gold) != ("_" in answer):
        return True  # it drops base subscripts
    if (r"\{" in gold) != (r"\{" in answer) and ("(" in gold) != ("(" in answer):
        return True
    try:
        reading = _reading(answer)
    except Unreadable:
        return False
    return isinstance(reading, Relation)
