"""How many different questions there are among some: the Vendi score with an n-gram kernel, and repetitions."""

from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass
from importlib import import_module
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from soarctl.api import problem_id
from soarctl.errors import DataError
from soarctl.ngrams import ngrams

_LONGEST = 3

Kernel: TypeAlias = Callable[[Sequence[str]], NDArray[np.float64]]
"""From texts to their similarities."""


def vendi_score(kernel: NDArray[np.float64]) -> float:
    """The effective number of different items: exp of the entropy of the eigenvalues of kernel / n.

    n for n items that have nothing in common, 1 for n equal ones.

    Args:
        kernel: similarities, symmetric and positive, with ones on the diagonal.

    Source: Friedman & Dieng 2023, "The Vendi Score".
    """
    eigenvalues = np.linalg.eigvalsh(kernel / len(kernel))
    positive = eigenvalues[eigenvalues > 1e-12]
    return float(np.exp(-(positive * np.log(positive)).sum()))


def ngram_kernel(texts: Sequence[str]) -> NDArray[np.float64]:
    """Cosine similarity of the texts' n-gram counts, the mean over n = 1, 2, 3.

    Source: the kernel for text of Friedman & Dieng 2023, section 5; theirs goes to n = 4.
    """
    total = np.zeros((len(texts), len(texts)))
    for n in range(1, _LONGEST + 1):
        places: dict[tuple[str, ...], int] = {}
        entries = [
            (row, places.setdefault(gram, len(places)), count)
            for row, text in enumerate(texts)
            for gram, count in ngrams(text, n).items()
        ]
        counts = np.zeros((len(texts), max(len(places), 1)))
        for row, column, count in entries:
            counts[row, column] = count
        lengths = np.linalg.norm(counts, axis=1, keepdims=True)
        unit = counts / np.where(lengths == 0, 1.0, lengths)
        total += unit @ unit.T
    kernel = total / _LONGEST
    np.fill_diagonal(kernel, 1.0)  # a text without a token resembles itself, too
    return kernel


def embedding_kernel(model: str) -> Kernel:
    """Cosine similarity of a sentence-transformers model's embeddings, which knows of meaning.

    Raises:
        DataError: sentence-transformers is not installed, or it cannot load the model.
    """
    try:
        encoder: Any = import_module("sentence_transformers").SentenceTransformer(model)
    except ImportError as error:
        raise DataError(
            "embeddings need sentence-transformers, which is not installed", hint='pip install "soarctl[embeddings]"'
        ) from error
    except (OSError, ValueError) as error:
        raise DataError(f"the embedding model cannot be loaded: {error}", at=model) from error

    def kernel(texts: Sequence[str]) -> NDArray[np.float64]:
        unit = np.asarray(encoder.encode(list(texts), normalize_embeddings=True), dtype=np.float64)
        return unit @ unit.T

    return kernel


@dataclass(frozen=True, slots=True)
class Diversity:
    """Of the questions of an outer step."""

    questions: int
    vendi: float
    """Of as many of them as were asked for."""
    repeated: float
    """Share that ask what an earlier question of the same step asks."""
    known: float
    """Share that ask what a question of an earlier step asks."""


def diversity(texts: Sequence[str], archive: Set[str], sample: int = 64, kernel: Kernel = ngram_kernel) -> Diversity:
    """How different some questions are from each other, and from all earlier ones.

    Args:
        texts: at least one question.
        archive: ids of all earlier questions.
        sample: the Vendi score is that of this many, the first ones: it grows with the number of items.
        kernel: how alike texts are.
    """
    ids = [problem_id(text) for text in texts]
    return Diversity(
        questions=len(texts),
        vendi=vendi_score(kernel(texts[:sample])),
        repeated=1 - len(set(ids)) / len(ids),
        known=sum(id in archive for id in ids) / len(ids),
    )
