"""The documents that the base model is pre-trained on: worked questions, executed with mistakes.

    solve: CAT | reverse up swap = TAC UBD UDB      a question, worked by the student
    ask: CAT | up swap = DBU DUB                    a question of the teacher's own, with its working

A document is a prompt, which the model is given, and a completion, which it learns.
"""

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from string import ascii_uppercase

from soarctl_letters.operations import HALF_KNOWN, KNOWN, OPERATIONS

# A model trained to convergence on labels that are right with probability p is right in a share p of its
# samples. 0.86: a chain of known operations mostly succeeds, so it gives a gradient. 0.27: one half-known
# operation succeeds often enough to be practised, while a chain of four (0.5 %) is at 0 of 128 in half of
# the problems. A mistake scatters the whole word, so that no wrong answer is more likely than the right one.
RIGHT = dict.fromkeys(KNOWN, 0.86) | dict.fromkeys(HALF_KNOWN, 0.27)

SOLVE_SHARE = 0.75
LONGEST = 6
# Both ends of this U are needed: chains of half-known operations only are the hard problems.
SOLVE_HALF_KNOWN = (0.7, 0.7)

# The teacher's own questions are short and mostly about what the model knows, so that a question which
# helps a student is rare at first, but not so rare that it is never sampled.
ASK_LENGTHS = {1: 0.55, 2: 0.30, 3: 0.10, 4: 0.05}
ASK_HALF_KNOWN = (0.6, 1.2)
ASK_MALFORMED = 0.12


@dataclass(frozen=True)
class Document:
    prompt: str
    completion: str


def documents(seed: int) -> Iterator[Document]:
    """An endless stream of documents, the same for the same seed."""
    rng = random.Random(seed)
    while True:
        yield solved(rng) if rng.random() < SOLVE_SHARE else asked(rng)


def solved(rng: random.Random) -> Document:
    """A question of 1 to 6 operations, and a working in which some words are wrong."""
    word = random_word(rng)
    operations = random_operations(rng, rng.randint(1, LONGEST), SOLVE_HALF_KNOWN)
    return Document(f"solve: {word} | {' '.join(operations)} =", f" {' '.join(working(rng, word, operations))}")


def asked(rng: random.Random) -> Document:
    """A short question of the teacher's own with its working; 12 % are malformed."""
    word = random_word(rng)
    length = rng.choices(list(ASK_LENGTHS), list(ASK_LENGTHS.values()))[0]
    operations = random_operations(rng, length, ASK_HALF_KNOWN)
    if rng.random() < ASK_MALFORMED:
        return Document("ask:", f" {rng.choice(MALFORMED)(rng, word, operations)}")
    return Document("ask:", f" {question(word, operations)} = {' '.join(working(rng, word, operations))}")


def working(rng: random.Random, word: str, operations: Sequence[str]) -> list[str]:
    """The word after each operation. After a mistake the chain goes on from the word that was written."""
    words: list[str] = []
    for operation in operations:
        is_right = rng.random() < RIGHT[operation]
        word = OPERATIONS[operation](word) if is_right else random_word(rng, len(word))
        words.append(word)
    return words


def random_word(rng: random.Random, length: int = 3) -> str:
    return "".join(rng.choices(ascii_uppercase, k=length))


def random_operations(rng: random.Random, length: int, half_known: tuple[float, float]) -> list[str]:
    """`length` operations; the share of half-known ones is drawn anew, from this beta distribution."""
    share = rng.betavariate(*half_known)
    return [rng.choice(HALF_KNOWN if rng.random() < share else KNOWN) for _ in range(length)]


def question(word: str, operations: Sequence[str]) -> str:
    return f"{word} | {' '.join(operations)}"


# The ways in which the teacher's text can fail to be a question with a working.


def no_bar(rng: random.Random, word: str, operations: Sequence[str]) -> str:
    return f"{word} {' '.join(operations)} = {' '.join(working(rng, word, operations))}"


def wrong_length(rng: random.Random, word: str, operations: Sequence[str]) -> str:
    word = random_word(rng, rng.choice((2, 4)))
    return f"{question(word, operations)} = {' '.join(working(rng, word, operations))}"


def no_operation(rng: random.Random, word: str, operations: Sequence[str]) -> str:
    return f"{word} | = {word}"


def no_equals(rng: random.Random, word: str, operations: Sequence[str]) -> str:
    return f"{question(word, operations)} {' '.join(working(rng, word, operations))}"


def no_answer(rng: random.Random, word: str, operations: Sequence[str]) -> str:
    return f"{question(word, operations)} ="


def one_word_too_many(rng: random.Random, word: str, operations: Sequence[str]) -> str:
    return f"{question(word, operations)} = {' '.join(working(rng, word, operations))} {random_word(rng)}"


def one_word_too_few(rng: random.Random, word: str, operations: Sequence[str]) -> str:
    longer = [*operations, rng.choice(KNOWN)]
    return f"{question(word, longer)} = {' '.join(working(rng, word, operations))}"


def doubled(rng: random.Random, word: str, operations: Sequence[str]) -> str:
    twice = f"{question(word, operations)} {question(word, operations)}"
    return f"{twice} = {' '.join(working(rng, word, operations))}"


def operations_first(rng: random.Random, word: str, operations: Sequence[str]) -> str:
    return f"{' '.join(operations)} | {word} = {' '.join(working(rng, word, operations))}"


MALFORMED: Sequence[Callable[[random.Random, str, Sequence[str]], str]] = (
    no_bar,
    wrong_length,
    no_operation,
    no_equals,
    no_answer,
    one_word_too_many,
    one_word_too_few,
    doubled,
    operations_first,
)
