"""The eight operations on words, and the text form of a question about them."""

import re
from collections.abc import Callable, Mapping, Sequence
from string import ascii_uppercase
from types import MappingProxyType


def shift(letters: str, by: int) -> str:
    """Each letter `by` places further in the alphabet, cyclically: `shift("AZ", 1)` is `"BA"`."""
    return "".join(ascii_uppercase[(ord(letter) - ord("A") + by) % 26] for letter in letters)


def reverse(word: str) -> str:
    """`CAT` becomes `TAC`."""
    return word[::-1]


def left(word: str) -> str:
    """The first letter moves to the end: `CAT` becomes `ATC`."""
    return word[1:] + word[:1]


def right(word: str) -> str:
    """The last letter moves to the front: `CAT` becomes `TCA`."""
    return word[-1:] + word[:-1]


def swap(word: str) -> str:
    """The last two letters change places: `CAT` becomes `CTA`."""
    return word[:-2] + word[-2:][::-1]


def up(word: str) -> str:
    """Every letter moves up by one: `CAZ` becomes `DBA`."""
    return shift(word, 1)


def down(word: str) -> str:
    """Every letter moves down by one: `CAT` becomes `BZS`."""
    return shift(word, -1)


def flip(word: str) -> str:
    """The first two letters change places: `CAT` becomes `ACT`."""
    return word[:2][::-1] + word[2:]


def bump(word: str) -> str:
    """The first letter moves up by one: `CAT` becomes `DAT`."""
    return shift(word[:1], 1) + word[1:]


OPERATIONS: Mapping[str, Callable[[str], str]] = MappingProxyType(
    {operation.__name__: operation for operation in (reverse, left, right, swap, up, down, flip, bump)}
)
KNOWN: tuple[str, ...] = ("reverse", "left", "right", "swap")
"""What the base model executes right most of the time."""
HALF_KNOWN: tuple[str, ...] = ("up", "down", "flip", "bump")
"""What the base model executes right about one time in four."""

_NAME = rf"(?:{'|'.join(OPERATIONS)})"
_QUESTION = re.compile(rf"([A-Z]{{3}}) \| ({_NAME}(?: {_NAME})*)")


def apply(word: str, operations: Sequence[str]) -> list[str]:
    """The word after each operation, the last one being the answer.

    `apply("CAT", ["reverse", "up"])` is `["TAC", "UBD"]`.

    Raises:
        KeyError: an operation is not one of the eight.
    """
    words: list[str] = []
    for operation in operations:
        word = OPERATIONS[operation](word)
        words.append(word)
    return words


def parse_question(text: str) -> tuple[str, tuple[str, ...]] | None:
    """Word and operations of a question in exactly the form `CAT | up swap`, or None.

    Space around the text is ignored; anything else that differs is not a question: a word of another
    length, lower-case letters, an unknown operation, none at all, two spaces.
    """
    match = _QUESTION.fullmatch(text.strip())
    return (match[1], tuple(match[2].split())) if match else None
