"""Finding where the text of a token sequence first contains a stop string."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase


class StopFinder:
    """Looks for stop strings in growing sequences without decoding them at every token."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, stops: Sequence[str]) -> None:
        self._tokenizer = tokenizer
        self._stops = tuple(stops)
        self._can_end = dict[int, bool]()

    def text(self, token_ids: Sequence[int]) -> str:
        """The text of a sequence up to its first stop string."""
        text = self._decode(token_ids)
        return text[: min((at for stop in self._stops if (at := text.find(stop)) >= 0), default=None)]

    def suspects(self, tokens_B_T: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Which tokens may be the last one of a stop string."""
        if not self._stops:
            return np.zeros(tokens_B_T.shape, np.bool_)
        tokens, inverse = np.unique(tokens_B_T, return_inverse=True)
        return np.array([self._may_end(token) for token in tokens.tolist()])[inverse].reshape(tokens_B_T.shape)

    def contains(self, token_ids: Sequence[int]) -> bool:
        """Whether the text of a sequence contains a stop string."""
        text = self._decode(token_ids)
        return any(stop in text for stop in self._stops)

    def _may_end(self, token: int) -> bool:
        if token not in self._can_end:
            alone = self._decode([token])
            # A token that is part of a character shows as the replacement character, and a tokenizer may drop white
            # space at the ends of what it decodes.
            self._can_end[token] = "\ufffd" in alone or any(
                stop[-1] in alone or stop[-1].isspace() for stop in self._stops
            )
        return self._can_end[token]

    def _decode(self, token_ids: Sequence[int]) -> str:
        return str(self._tokenizer.decode(list(token_ids), skip_special_tokens=True))
