import sys
from collections.abc import Sequence
from types import ModuleType

import numpy as np
import pytest
from numpy.typing import NDArray

from soarctl.api import problem_id
from soarctl.diversity import diversity, embedding_kernel, ngram_kernel, vendi_score
from soarctl.errors import DataError


def test_items_with_nothing_in_common_count_each() -> None:
    assert vendi_score(np.eye(7)) == pytest.approx(7)


def test_equal_items_count_as_one() -> None:
    assert vendi_score(np.ones((7, 7))) == pytest.approx(1)


def test_two_pairs_of_equal_items_count_as_two() -> None:
    assert vendi_score(np.kron(np.eye(2), np.ones((3, 3)))) == pytest.approx(2)


def test_two_items_half_alike() -> None:
    # Eigenvalues of [[1, s], [s, 1]] / 2 are (1 ± s) / 2; for s = 0.5 the entropy of 3/4, 1/4.
    expected = np.exp(-(0.75 * np.log(0.75) + 0.25 * np.log(0.25)))
    assert vendi_score(np.array([[1, 0.5], [0.5, 1]])) == pytest.approx(expected)


def test_the_kernel_is_the_mean_cosine_of_the_ngram_counts() -> None:
    # "a b c" and "a b d" share 2 of 3 words, 1 of 2 pairs, 0 of 1 triples.
    assert ngram_kernel(["a b c", "A  b d"])[0, 1] == pytest.approx((2 / 3 + 1 / 2 + 0) / 3)


def test_texts_without_a_word_are_no_error() -> None:
    assert vendi_score(ngram_kernel(["", "", "a"])) == pytest.approx(3)


def test_repetitions_are_counted_within_the_step_and_against_the_archive() -> None:
    found = diversity(["a b", "a  b", "c", "d"], {problem_id("c"), problem_id("e")})
    assert (found.questions, found.repeated, found.known) == (4, 0.25, 0.25)


def test_the_vendi_score_is_of_a_sample_of_fixed_size() -> None:
    texts = [f"word{i}" for i in range(100)]
    assert diversity(texts, set(), sample=10).vendi == pytest.approx(10)


class Letters:
    """An embedding by first letter."""

    def __init__(self, model: str) -> None:
        if model != "letters":
            raise OSError("no such model")

    def encode(self, texts: Sequence[str], normalize_embeddings: bool) -> NDArray[np.float64]:
        assert normalize_embeddings
        return np.eye(26)[[ord(text[0]) - ord("a") for text in texts]]


def test_embeddings_may_say_what_is_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    library = ModuleType("sentence_transformers")
    library.SentenceTransformer = Letters  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "sentence_transformers", library)
    found = diversity(["a b", "a c", "b d"], set(), kernel=embedding_kernel("letters"))
    # Two of three are equal: exp of the entropy of 2/3, 1/3.
    assert found.vendi == pytest.approx(np.exp(-(2 / 3 * np.log(2 / 3) + 1 / 3 * np.log(1 / 3))))
    with pytest.raises(DataError, match="no such model"):
        embedding_kernel("others")


def test_without_the_library_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(DataError, match="which is not installed"):
        embedding_kernel("letters")
