"""Finding the problems of one set in another, where they stand in other words: HARP's in MATH, for one.

The authors of HARP found 790 of its problems in MATH. Spelling, typesetting and a clause or two differ, so questions
are compared by the words and numbers in them.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable

SHARED = 0.8
"""Share of words in common, of all that either question has, from which two questions count as one problem."""
_FEWEST = 8
"""Words that a question needs to be compared by them; shorter ones are compared character by character."""
_COMMON = 400
"""A word that stands in more questions than this does not help to find one."""

_DRAWING = re.compile(r"\[asy\].*?\[/asy\]", re.DOTALL)
_WORD = re.compile(r"[a-z]{3,}|\d+")
_COMMAND = re.compile(r"\\[A-Za-z]+|[^0-9A-Za-z+*/=<>^-]+")


class Known:
    """Questions that are known, and where each of them stands."""

    def __init__(self) -> None:
        self._exactly: dict[str, str] = {}
        self._words: list[frozenset[str]] = []
        self._places: list[str] = []
        self._holding: dict[str, list[int]] = defaultdict(list)

    def add(self, question: str, place: str) -> None:
        self._exactly.setdefault(_characters(question), place)
        words = _words(question)
        if len(words) >= _FEWEST:
            for word in words:
                self._holding[word].append(len(self._words))
            self._words.append(words)
            self._places.append(place)

    def extend(self, questions: Iterable[tuple[str, str]]) -> None:
        for question, place in questions:
            self.add(question, place)

    def find(self, question: str) -> str | None:
        """Where the same problem stands; None where it is new."""
        if place := self._exactly.get(_characters(question)):
            return place
        words = _words(question)
        if len(words) < _FEWEST:
            return None
        shared = Counter(
            at for word in words if len(holding := self._holding.get(word, ())) <= _COMMON for at in holding
        )
        for at, _ in shared.most_common(5):
            if len(words & self._words[at]) >= SHARED * len(words | self._words[at]):
                return self._places[at]
        return None


def _characters(question: str) -> str:
    return _COMMAND.sub("", _DRAWING.sub("", question)).lower()


def _words(question: str) -> frozenset[str]:
    return frozenset(_WORD.findall(_COMMAND.sub(" ", _DRAWING.sub("", question)).lower()))
