"""A key-value cache that is written in place and loses rows cheaply."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache, CacheLayerMixin

# Positions that are allocated at once. transformers' own cache copies everything it holds at every token.
BLOCK = 64


class BlockLayer(CacheLayerMixin):
    """One layer: keys and values as (B, heads, capacity, width), of which the first `length` positions are filled."""

    is_sliding = False
    is_croppable = False

    def __init__(self) -> None:
        super().__init__()
        self.length = 0

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        self.keys = _grown(key_states[:, :, :0], key_states.shape[2])
        self.values = _grown(value_states[:, :, :0], key_states.shape[2])
        self.is_initialized = True

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        if self.keys is None or self.values is None:
            self.lazy_initialization(key_states, value_states)
        assert self.keys is not None
        assert self.values is not None
        end = self.length + key_states.shape[2]
        if end > self.keys.shape[2]:
            self.keys = _grown(self.keys[:, :, : self.length], end + BLOCK)
            self.values = _grown(self.values[:, :, : self.length], end + BLOCK)
        self.keys[:, :, self.length : end] = key_states
        self.values[:, :, self.length : end] = value_states
        self.length = end
        return self.keys[:, :, :end], self.values[:, :, :end]

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

    @classmethod
    def joined(cls, parts: Sequence["BlockCache"], rows_B: Tensor) -> "BlockCache":
        """These rows of several caches of one length, counted through all of them; a row may be taken repeatedly."""
        cache = cls()
        for layers in zip(*(part.layers for part in parts), strict=True):
            joined = BlockLayer()
            joined.length = parts[0].length
            joined.is_initialized = True
            joined.keys = torch.cat([layer.keys for layer in layers]).index_select(0, rows_B)
            joined.values = torch.cat([layer.values for layer in layers]).index_select(0, rows_B)
            cache.layers.append(joined)
        return cache

    def keep(self, rows_B: Tensor) -> None:
        """Drops all rows but these."""
        for layer in self.layers:
            layer.keys = layer.keys.index_select(0, rows_B)
            layer.values = layer.values.index_select(0, rows_B)


def _grown(filled: Tensor, capacity: int) -> Tensor:
    grown = filled.new_empty(*filled.shape[:2], capacity, filled.shape[3])
    grown[:, :, : filled.shape[2]] = filled
    return grown
