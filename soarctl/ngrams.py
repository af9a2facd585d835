"""Texts as bags of n-grams: what diversity and near-duplicates are counted on."""

import re
from collections import Counter

_TOKEN = re.compile(r"\w+|[^\w\s]")


def tokens(text: str) -> list[str]:
    """Words and signs of a text, in small letters."""
    return _TOKEN.findall(text.lower())


def ngrams(text: str, n: int) -> Counter[tuple[str, ...]]:
    """How often each run of `n` tokens occurs; a text with fewer tokens is one run of all it has."""
    found = tokens(text)
    size = min(n, len(found))
    return Counter(tuple(found[i : i + size]) for i in range(len(found) - size + 1)) if found else Counter()
