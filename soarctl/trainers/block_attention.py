"""Attention within blocks: many trees side by side in one row of tokens, none of which sees another.

All that a layer does token by token needs no padding then. Attention alone takes the blocks apart, pads those of
similar length to one, and puts what it found back in its place.
"""

from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from soarctl.trainers import token_attention

PREFIX = "soarctl_blocks_"

# Blocks that are padded to one length are no shorter than this share of it. A batch of its own for each length would
# save little and cost a call.
ALIKE = 0.7

Attention = Callable[..., tuple[Tensor, Tensor | None]]


@dataclass(frozen=True, slots=True, eq=False)
class Block:
    """One tree's place among the tokens of a batch, all rows in one line."""

    start: int
    depths_N: NDArray[np.int64]
    ends_N: NDArray[np.int64]
    """As in `Tree`."""


@dataclass(slots=True, eq=False)
class Group:
    """Blocks padded on the right to one length."""

    depths_B_L: Tensor
    ends_B_L: Tensor
    """0 for padding, which nobody sees."""
    chains: bool
    """Whether each token sees all before it."""
    dtype: torch.dtype
    _masks: dict[int | None, Tensor] = field(default_factory=dict[int | None, Tensor])

    def mask(self, window: int | None) -> Tensor | None:
        """What to add to the products, (B, 1, L, L), where tokens see those less than `window` above them; None where
        causal attention says the same."""
        length = self.ends_B_L.shape[1]
        if window is not None and window >= length:
            window = None
        if self.chains and window is None:
            return None
        if window not in self._masks:
            at_L = torch.arange(length, device=self.ends_B_L.device)
            sees_B_L_L = (at_L <= at_L[:, None]) & (at_L[:, None] < self.ends_B_L[:, None])
            if window is not None:
                sees_B_L_L &= self.depths_B_L[:, :, None] - self.depths_B_L[:, None] < window
            mask_B_L_L = torch.zeros(sees_B_L_L.shape, dtype=self.dtype, device=at_L.device)
            self._masks[window] = mask_B_L_L.masked_fill_(~sees_B_L_L, torch.finfo(self.dtype).min)[:, None]
        return self._masks[window]


class Blocks:
    """How the tokens of a batch fall into blocks."""

    def __init__(self, blocks: Sequence[Block], tokens: int, dtype: torch.dtype, device: torch.device) -> None:
        """`tokens`: of the whole batch. Those of no block are padding."""
        slots = list[NDArray[np.int64]]()
        self.groups = list[Group]()
        for group in _alike(sorted(blocks, key=lambda block: -len(block.ends_N))):
            shape = len(group), len(group[0].ends_N)
            token_B_L, depths_B_L, ends_B_L = np.full(shape, -1), np.zeros(shape, np.int64), np.zeros(shape, np.int64)
            for b, block in enumerate(group):
                length = len(block.ends_N)
                token_B_L[b, :length] = np.arange(block.start, block.start + length)
                depths_B_L[b, :length], ends_B_L[b, :length] = block.depths_N, block.ends_N
            slots.append(token_B_L.ravel())
            chains = all((block.ends_N == len(block.ends_N)).all() for block in group)
            depths, ends = torch.from_numpy(depths_B_L).to(device), torch.from_numpy(ends_B_L).to(device)
            self.groups.append(Group(depths, ends, chains, dtype))
        token_of_slot = np.concatenate(slots)
        slot_of_token = np.full(tokens, -1)
        filled = np.flatnonzero(token_of_slot >= 0)
        slot_of_token[token_of_slot[filled]] = filled
        self._into = _places(token_of_slot, device)
        self._back = _places(slot_of_token, device)

    def apart(self, states: Tensor) -> list[Tensor]:
        """(rows, heads, T, width) of the batch as (B, heads, L, width) of each group."""
        tokens = states.transpose(1, 2).flatten(0, 1)
        slots = _moved(tokens, self._into, self._back)
        parts = slots.split([group.ends_B_L.numel() for group in self.groups])
        return [
            part.unflatten(0, tuple(group.ends_B_L.shape)).transpose(1, 2)
            for part, group in zip(parts, self.groups, strict=True)
        ]

    def together(self, parts: Sequence[Tensor], rows: int) -> Tensor:
        """(B, L, heads, width) of each group as (rows, T, heads, width) of the batch."""
        slots = torch.cat([part.flatten(0, 1) for part in parts]) if len(parts) > 1 else parts[0].flatten(0, 1)
        return _moved(slots, self._back, self._into).unflatten(0, (rows, -1))


def _alike(longest_first: Sequence[Block]) -> list[list[Block]]:
    groups = list[list[Block]]()
    for block in longest_first:
        if groups and len(block.ends_N) >= ALIKE * len(groups[-1][0].ends_N):
            groups[-1].append(block)
        else:
            groups.append([block])
    return groups


@dataclass(frozen=True, slots=True, eq=False)
class _Places:
    """Where each row of a result comes from."""

    source: Tensor
    """0 where it comes from nowhere."""
    nowhere: Tensor
    """The indices of those."""


def _places(source: NDArray[np.int64], device: torch.device) -> _Places:
    nowhere = torch.from_numpy(np.flatnonzero(source < 0)).to(device)
    return _Places(torch.from_numpy(source.clip(min=0)).to(device), nowhere)


def _moved(rows: Tensor, places: _Places, inverse: _Places) -> Tensor:
    """Rows at their places. Those from nowhere hold anything finite, and give no gradient."""
    return _Moved.apply(rows, places, inverse)  # pyright: ignore[reportReturnType]


class _Moved(torch.autograd.Function):
    """Index_select, whose gradient is read row by row too: adding into rows takes a CPU many times as long."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, places: _Places, inverse: _Places) -> Tensor:
        ctx.inverse = inverse
        return rows.index_select(0, places.source)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None, None]:
        inverse: _Places = ctx.inverse
        return grad_outputs[0].index_select(0, inverse.source).index_fill_(0, inverse.nowhere, 0), None, None


@dataclass(slots=True)
class _Current:
    """What the attention functions look at. Not bound to a thread: on a GPU the layers that are recomputed in backward
    run in another one."""

    blocks: Blocks | None = None


_current = _Current()


@contextmanager
def within(blocks: Blocks | None) -> Generator[None]:
    """Within it installed models attend within these blocks, in forward and in what backward recomputes."""
    before, _current.blocks = _current.blocks, blocks
    try:
        yield
    finally:
        _current.blocks = before


def _attention(otherwise: Attention) -> Attention:
    def block_attention(
        module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **options: Any
    ) -> tuple[Tensor, Tensor | None]:
        blocks = _current.blocks
        if blocks is None:
            return otherwise(module, query, key, value, attention_mask, **options)
        parts = zip(blocks.groups, blocks.apart(query), blocks.apart(key), blocks.apart(value), strict=True)
        found = [
            sdpa_attention_forward(module, q, k, v, group.mask(options.get("sliding_window")), **options)[0]
            for group, q, k, v in parts
        ]
        return blocks.together(found, query.shape[0]), None

    return block_attention


def install(model: PreTrainedModel) -> bool:
    """Makes a model attend within blocks where there are some, and otherwise as it did.

    Returns:
        Whether it can: it attends by sdpa, or what was installed in its place, and to all tokens above or to a window
        of them.
    """
    config = model.config.get_text_config()
    name: str | None = getattr(config, "_attn_implementation", None)
    kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
    if name not in ("sdpa", token_attention.NAME) or not kinds <= {"full_attention", "sliding_attention"}:
        return False
    if getattr(config, "alibi", False) or getattr(config, "attention_chunk_size", None):
        return False
    otherwise = sdpa_attention_forward if name == "sdpa" else token_attention.token_attention
    AttentionInterface.register(f"{PREFIX}{name}", _attention(otherwise))
    AttentionMaskInterface.register(f"{PREFIX}{name}", sdpa_mask)
    model.set_attn_implementation(f"{PREFIX}{name}")
    return True
