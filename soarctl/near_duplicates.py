"""Leaks: practice questions that say what a hard problem says, by the n-grams that they share."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from soarctl.ngrams import ngrams

N = 5
"""Tokens that must stand in a row to count as shared."""
THRESHOLD = 0.5
"""Share of a text's n-grams from which on it is called a near-duplicate."""


@dataclass(frozen=True, slots=True)
class NearDuplicate:
    """A text with the one that contains most of it."""

    text: str
    other: str
    share: float
    """Of the n-grams of `text` that `other` has, too."""


@dataclass(frozen=True, slots=True)
class Leaks:
    """Near-duplicates between practice questions and hard problems, both ways."""

    questions: int
    problems: int
    questions_in_problems: Sequence[NearDuplicate]
    """Practice questions that a hard problem contains, those with the largest share first."""
    problems_in_questions: Sequence[NearDuplicate]
    """Hard problems that a practice question contains."""


def leaks(questions: Sequence[str], problems: Sequence[str], n: int = N, threshold: float = THRESHOLD) -> Leaks:
    """Near-duplicates in both directions: a question may be a part of a problem, or have one as a part."""
    asked = list(dict.fromkeys(questions))
    return Leaks(
        questions=len(asked),
        problems=len(problems),
        questions_in_problems=contained(asked, problems, n, threshold),
        problems_in_questions=contained(problems, asked, n, threshold),
    )


def contained(texts: Sequence[str], others: Sequence[str], n: int, threshold: float) -> list[NearDuplicate]:
    """The texts of which one of the others has at least `threshold` of the n-grams, the largest shares first.

    A text shorter than n tokens is one n-gram of its own length, and is looked for at that length.
    """
    wanted = [ngrams(text, n) for text in texts]
    found: list[NearDuplicate] = []
    holders: dict[int, dict[tuple[str, ...], list[int]]] = {}
    for text, grams in zip(texts, wanted, strict=True):
        if not grams:
            continue
        length = len(next(iter(grams)))
        if length not in holders:
            holders[length] = _holders(others, length)
        hits: Counter[int] = Counter()
        for gram in grams:
            hits.update(holders[length].get(gram, ()))
        if hits:
            place, count = max(hits.items(), key=lambda hit: (hit[1], -hit[0]))
            if count / len(grams) >= threshold:
                found.append(NearDuplicate(text, others[place], count / len(grams)))
    return sorted(found, key=lambda near: -near.share)


def _holders(texts: Sequence[str], n: int) -> dict[tuple[str, ...], list[int]]:
    """n-gram -> which texts have it."""
    holders: defaultdict[tuple[str, ...], list[int]] = defaultdict(list)
    for place, text in enumerate(texts):
        for gram in ngrams(text, n):
            holders[gram].append(place)
    return holders
