"""A key-value cache that is written in place and loses rows cheaply."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, cast

import torch
from torch import Tensor
from transformers.cache_utils import Cache, CacheLayerMixin

# Positions that are allocated at once, at the least. transformers' own cache copies all it holds at every token.
BLOCK = 32


class BlockLayer(CacheLayerMixin):
    """One layer: keys and values as (rows, heads, positions, width), the first `rows` and `length` of them in use."""

    is_sliding = False
    is_croppable = False

    def __init__(self) -> None:
        super().__init__()
        self.rows, self.length = 0, 0

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        # What is read in one go is gathered into a larger layer before anything is added.
        self.rows, _, positions, _ = key_states.shape
        self.keys = key_states.new_empty(self.rows, key_states.shape[1], positions, key_states.shape[3])
        self.values = value_states.new_empty(self.rows, value_states.shape[1], positions, value_states.shape[3])
        self.is_initialized = True

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        end = self.length + key_states.shape[2]
        if end > self._tensors()[0].shape[2]:
            self._reserve(self.rows, end)
        begin, self.length = self.length, end
        keys, values = self.filled()
        keys[:, :, begin:] = key_states
        values[:, :, begin:] = value_states
        return keys, values

    def gathered(self, rows_B: Tensor) -> "BlockLayer":
        """A layer of these rows, which may repeat, with room for another block."""
        layer = BlockLayer()
        layer.rows, layer.length = len(rows_B), self.length
        layer.keys, layer.values = (
            _copied(states[:, :, : self.length], rows_B, len(rows_B), self.length + 1) for states in self._tensors()
        )
        layer.is_initialized = True
        return layer

    def move(self, sources_M: Tensor, targets_M: Tensor, runs: Sequence[tuple[int, int]], size: int) -> None:
        """Copies some rows to places of others, or to new places; then there are `size` rows.

        Args:
            sources_M: which rows.
            targets_M: where to, ascending.
            runs: stretches of M in which the targets are neighbours.
            size: at least the largest target plus 1.
        """
        if size > len(self._tensors()[0]):
            # Memory that is not written to costs a CPU nothing, and elsewhere rows never become more.
            self._reserve(2 * size, self.length)
        for states in self._tensors():
            filled = states[:, :, : self.length]
            moved = filled.index_select(0, sources_M.to(states.device))
            # Rows that go to neighbouring places are copied together; by index each is a copy of its own.
            if len(runs) * 4 < len(targets_M):
                for begin, end in runs:
                    first = int(targets_M[begin])
                    filled[first : first + end - begin] = moved[begin:end]
            else:
                filled.index_copy_(0, targets_M.to(states.device), moved)
        self.rows = size

    def _reserve(self, rows: int, positions: int) -> None:
        kept_B = torch.arange(self.rows, device=self._tensors()[0].device)
        self.keys, self.values = (
            _copied(states[:, :, : self.length], kept_B, rows, positions) for states in self._tensors()
        )

    def filled(self) -> tuple[Tensor, Tensor]:
        """Keys and values of all rows."""
        keys, values = self._tensors()
        return keys[: self.rows, :, : self.length], values[: self.rows, :, : self.length]

    def _tensors(self) -> tuple[Tensor, Tensor]:
        assert self.keys is not None
        assert self.values is not None
        return self.keys, self.values

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.length + query_length, 0

    def get_seq_length(self) -> int:
        return self.length

    def get_max_length(self) -> int:
        return -1


class BlockCache(Cache):
    """A `BlockLayer` for each layer of the model. Layers with a sliding window keep all positions too."""

    def __init__(self) -> None:
        super().__init__(layer_class_to_replicate=BlockLayer)

    @property
    def length(self) -> int:
        """Positions filled."""
        return self.get_seq_length()

    def gather(self, rows_B: Tensor) -> None:
        """Takes these rows, which may repeat, in place of all."""
        # One layer after the other, so that little is held twice.
        for i, layer in enumerate(cast(list[BlockLayer], self.layers)):
            self.layers[i] = layer.gathered(rows_B.to(layer.filled()[0].device))

    def move(self, sources_B: Tensor) -> None:
        """Puts at b what was row sources_B[b], for all rows that there are from now on."""
        targets_M = torch.nonzero(sources_B != torch.arange(len(sources_B)))[:, 0]
        cuts = [0, *(torch.nonzero(targets_M.diff() != 1)[:, 0] + 1).tolist(), len(targets_M)]
        for layer in cast(list[BlockLayer], self.layers):
            layer.move(sources_B[targets_M], targets_M, list(pairwise(cuts)), len(sources_B))


def joined(caches: Sequence[BlockCache]) -> BlockCache:
    """The rows of several caches of one length, one after the other."""
    if len(caches) == 1:
        return caches[0]
    cache = BlockCache()
    for parts in zip(*(cast(list[BlockLayer], part.layers) for part in caches), strict=True):
        layer = BlockLayer()
        keys, values = (
            torch.cat([cast(Tensor, states) for states in stacked])
            for stacked in zip(*((part.keys, part.values) for part in parts), strict=True)
        )
        layer.update(keys, values)
        cache.layers.append(layer)
    return cache


def _copied(filled: Tensor, rows_B: Tensor, rows: int, positions: int) -> Tensor:
    """Some rows of a tensor, in one with room for `rows` rows and at least `positions` positions."""
    _, heads, length, width = filled.shape
    copied = filled.new_empty(rows, heads, positions + max(BLOCK, positions // 4), width)
    torch.index_select(filled, 0, rows_B, out=copied[: len(rows_B), :, :length])
    return copied
