"""A key-value cache that is written in place and loses rows cheaply."""

import sys
from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from math import prod
from typing import Any, cast

import torch
from torch import Tensor
from transformers.cache_utils import Cache, CacheLayerMixin

# Positions that are allocated at once, at the least. transformers' own cache copies all it holds at every token.
BLOCK = 32
# Bytes that are kept for the next cache.
SPARE = 2**28


class Spare:
    """Memory of caches that are done, for the next ones.

    What a CPU gets from its kernel are pages that are cleared one by one, which costs several times what is then
    written into them. Elsewhere torch keeps memory by itself.
    """

    def __init__(self) -> None:
        self._blocks = list[Tensor]()

    def take(self, like: Tensor, shape: tuple[int, ...]) -> Tensor:
        """A tensor with anything in it, of the dtype and on the device of another."""
        numbers = prod(shape)
        # Of few sizes, so that what one batch leaves fits the next, and soon no more is needed.
        size = 1 << (numbers - 1).bit_length()
        for i, block in enumerate(self._blocks):
            if len(block) == size and block.dtype == like.dtype:
                return self._blocks.pop(i)[:numbers].view(shape)
        return like.new_empty(size if like.device.type == "cpu" else numbers)[:numbers].view(shape)

    def give(self, states: Tensor) -> None:
        """Takes back what nobody looks at any more, if it is from here and there is room."""
        block = states.new_empty(0).set_(states.untyped_storage())
        kept = sum(each.nbytes for each in self._blocks)
        if block.device.type == "cpu" and len(block).bit_count() == 1 and kept + block.nbytes <= SPARE:
            self._blocks.append(block)


class BlockLayer(CacheLayerMixin):
    """One layer: (rows, heads, positions, width of key + width of value), the first `rows` and `length` of them in use.

    Keys and values lie side by side, so that both are moved, and can be written, at once.
    """

    is_sliding = False
    is_croppable = False

    def __init__(self, spare: Spare) -> None:
        super().__init__()
        self._spare = spare
        self.rows, self.length = 0, 0
        self._most = sys.maxsize

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        # What is read in one go is gathered into a larger layer before anything is added.
        self.rows, heads, positions, self._key = key_states.shape
        shape = (self.rows, heads, positions, self._key + value_states.shape[3])
        self._states = self._spare.take(key_states, shape)
        self.is_initialized = True

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        added = self._lengthened(key_states.shape[2])
        added[..., : self._key] = key_states
        added[..., self._key :] = value_states
        return self.filled()

    def append(self, states: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values with those of one more position, which lie side by side: (rows, heads, width of both)."""
        self._lengthened(1)[:, :, 0] = states
        return self.filled()

    def _lengthened(self, count: int) -> Tensor:
        """The next `count` positions of all rows, to be written."""
        begin, self.length = self.length, self.length + count
        if self.length > self._states.shape[2]:
            self._reserve(begin, self.rows, self.length)
        return self._states[: self.rows, :, begin : self.length]

    def gathered(self, rows_B: Tensor, most: int) -> "BlockLayer":
        """A layer of these rows, which may repeat, with room for another block, that gets `most` positions at most."""
        rows_B, self._most = rows_B.to(self._states.device), most
        return self._like(self._copied(rows_B, self.length, len(rows_B), self.length + 1), len(rows_B))

    def move(
        self, sources_M: Tensor, targets_M: Tensor, runs: Sequence[tuple[int, int]], behind: bool, size: int
    ) -> None:
        """Copies some rows to places of others, or to new places; then there are `size` rows.

        Args:
            sources_M: which rows.
            targets_M: where to, ascending.
            runs: stretches of M in which the targets are neighbours.
            behind: whether the targets are one run, and behind all sources.
            size: at least the largest target plus 1.
        """
        if size > len(self._states):
            # Memory that is not written to costs a CPU nothing, and elsewhere rows never become more.
            self._reserve(self.length, 2 * size, self.length)
        filled = self._states[:, :, : self.length]
        sources_M = sources_M.to(filled.device)
        if behind:
            first = int(targets_M[0])
            torch.index_select(filled[:first], 0, sources_M, out=filled[first : first + len(targets_M)])
        elif len(runs) * 4 < len(targets_M):
            # Rows that go to neighbouring places are copied together; by index each is a copy of its own.
            moved = filled.index_select(0, sources_M)
            for begin, end in runs:
                first = int(targets_M[begin])
                filled[first : first + end - begin] = moved[begin:end]
        else:
            filled.index_copy_(0, targets_M.to(filled.device), filled.index_select(0, sources_M))
        self.rows = size

    @staticmethod
    def joined(layers: "Sequence[BlockLayer]") -> "BlockLayer":
        """The rows of several layers of one length, one after the other."""
        return layers[0]._like(torch.cat([each._filled() for each in layers]), sum(each.rows for each in layers))

    def _like(self, states: Tensor, rows: int) -> "BlockLayer":
        layer = BlockLayer(self._spare)
        layer._states, layer.rows, layer._key, layer.length = states, rows, self._key, self.length
        layer._most = self._most
        layer.is_initialized = True
        return layer

    def _reserve(self, length: int, rows: int, positions: int) -> None:
        """Moves what there is, of this length, to where there is room for so much."""
        before = self._states
        self._states = self._copied(torch.arange(self.rows, device=before.device), length, rows, positions)
        self._spare.give(before)

    def _copied(self, rows_B: Tensor, length: int, rows: int, positions: int) -> Tensor:
        """The first `length` positions of some rows, with room for `rows` rows and a block above `positions`."""
        _, heads, _, width = self._states.shape
        # Never for more than there will be: of a batch that goes to its end, the last reserve would be a quarter more.
        reserved = max(positions, min(positions + max(BLOCK, positions // 4), self._most))
        copied = self._spare.take(self._states, (rows, heads, reserved, width))
        torch.index_select(self._states[:, :, :length], 0, rows_B, out=copied[: len(rows_B), :, :length])
        return copied

    def release(self) -> None:
        """As `BlockCache.release`."""
        self._spare.give(self._states)

    def _filled(self) -> Tensor:
        return self._states[: self.rows, :, : self.length]

    def filled(self) -> tuple[Tensor, Tensor]:
        """Keys and values of all rows."""
        filled = self._filled()
        return filled[..., : self._key], filled[..., self._key :]

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.length + query_length, 0

    def get_seq_length(self) -> int:
        return self.length

    def get_max_length(self) -> int:
        return -1


class BlockCache(Cache):
    """A `BlockLayer` for each layer of the model. Layers with a sliding window keep all positions too."""

    def __init__(self, spare: Spare) -> None:
        # It is only ever called.
        super().__init__(layer_class_to_replicate=cast(type[BlockLayer], partial(BlockLayer, spare)))
        self.spare = spare

    @property
    def length(self) -> int:
        """Positions filled."""
        return self.get_seq_length()

    def gather(self, rows_B: Tensor, most: int) -> None:
        """Takes these rows, which may repeat, in place of all; they get `most` positions at most."""
        # One layer after the other, so that little is held twice.
        for i, layer in enumerate(cast(list[BlockLayer], self.layers)):
            self.layers[i] = layer.gathered(rows_B, most)
            layer.release()

    def release(self) -> None:
        """Gives its memory to the next cache. Nobody may look at this one any more."""
        for layer in cast(list[BlockLayer], self.layers):
            layer.release()

    def move(self, sources_B: Tensor) -> None:
        """Puts at b what was row sources_B[b], for all rows that there are from now on."""
        targets_M = torch.nonzero(sources_B != torch.arange(len(sources_B)))[:, 0]
        cuts = [0, *(torch.nonzero(targets_M.diff() != 1)[:, 0] + 1).tolist(), len(targets_M)]
        sources_M = sources_B[targets_M]
        behind = len(cuts) == 2 and bool((sources_M < targets_M[:1]).all()) and len(targets_M) > 0
        for layer in cast(list[BlockLayer], self.layers):
            layer.move(sources_M, targets_M, list(pairwise(cuts)), behind, len(sources_B))


def joined(caches: Sequence[BlockCache]) -> BlockCache:
    """The rows of several caches of one length, one after the other."""
    if len(caches) == 1:
        return caches[0]
    cache = BlockCache(caches[0].spare)
    cache.layers.extend(
        BlockLayer.joined(layers)
        for layers in zip(*(cast(list[BlockLayer], part.layers) for part in caches), strict=True)
    )
    return cache
