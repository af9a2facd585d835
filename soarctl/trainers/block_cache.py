"""A key-value cache that is written in place and loses rows cheaply."""

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor
from transformers.cache_utils import Cache, CacheLayerMixin

# Positions that are allocated at once, at the least. transformers' own cache copies all it holds at every token.
BLOCK = 16


class BlockLayer(CacheLayerMixin):
    """One layer: keys and values as (B, heads, capacity, width), of which the first `length` positions are filled."""

    is_sliding = False
    is_croppable = False

    def __init__(self, length: int = 0) -> None:
        super().__init__()
        self.length = length

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        # What is read in one go is gathered into a larger layer before anything is added.
        self.keys = _room(key_states, key_states.shape[0], key_states.shape[2])
        self.values = _room(value_states, value_states.shape[0], value_states.shape[2])
        self.is_initialized = True

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        assert self.keys is not None
        assert self.values is not None
        end = self.length + key_states.shape[2]
        if end > self.keys.shape[2]:
            rows_B = torch.arange(self.keys.shape[0], device=self.keys.device)
            self.keys, self.values = self._gathered(rows_B)
        self.keys[:, :, self.length : end] = key_states
        self.values[:, :, self.length : end] = value_states
        self.length = end
        return self.keys[:, :, :end], self.values[:, :, :end]

    def gathered(self, rows_B: Tensor) -> "BlockLayer":
        """A layer of these rows, which may repeat, with room for another block."""
        layer = BlockLayer(self.length)
        layer.keys, layer.values = self._gathered(rows_B)
        layer.is_initialized = True
        return layer

    def move(self, sources_M: Tensor, targets_M: Tensor, size: int) -> None:
        """Writes some rows over others, then drops all after the first `size`."""
        for states in (self.keys, self.values):
            assert states is not None
            filled = states[:, :, : self.length]
            filled.index_copy_(0, targets_M, filled.index_select(0, sources_M))
        assert self.keys is not None
        assert self.values is not None
        self.keys, self.values = self.keys[:size], self.values[:size]

    def _gathered(self, rows_B: Tensor) -> tuple[Tensor, Tensor]:
        assert self.keys is not None
        assert self.values is not None
        return _copied(self.keys[:, :, : self.length], rows_B), _copied(self.values[:, :, : self.length], rows_B)

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
            self.layers[i] = layer.gathered(rows_B)

    def move(self, sources_M: Tensor, targets_M: Tensor, size: int) -> None:
        """Writes some rows over others, then drops all after the first `size`. Nothing is allocated for the rest."""
        for layer in cast(list[BlockLayer], self.layers):
            layer.move(sources_M, targets_M, size)


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


def _room(like: Tensor, rows: int, capacity: int) -> Tensor:
    return like.new_empty(rows, like.shape[1], capacity, like.shape[3])


def _copied(filled: Tensor, rows_B: Tensor) -> Tensor:
    copied = _room(filled, len(rows_B), filled.shape[2] + max(BLOCK, filled.shape[2] // 4))
    torch.index_select(filled, 0, rows_B, out=copied[:, :, : filled.shape[2]])
    return copied
