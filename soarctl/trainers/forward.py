"""Calling any causal language model of transformers, with as little around its forward as it allows."""

import inspect
import sys
from collections.abc import Callable
from typing import cast

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from soarctl.trainers import block_attention, token_attention
from soarctl.trainers.block_attention import Block, Blocks, within
from soarctl.trainers.block_cache import BlockCache, Spare
from soarctl.trainers.head import find_head
from soarctl.trainers.llama_step import llama_step
from soarctl.trainers.recompute import Recompute

Extend = Callable[[Tensor, Tensor, Tensor | None, BlockCache], Tensor]
"""logits_B_V after one more token of each row: tokens_B, positions_B, mask, cache."""


class Forward:
    """A model's forward, in the three ways that it is needed: reading prompts, one more token, training."""

    def __init__(self, model: PreTrainedModel) -> None:
        token_attention.install(model)
        self.model = model
        self.device = model.device
        self.dtype = model.dtype
        config = model.config.get_text_config()
        self.max_length: int = getattr(config, "max_position_embeddings", None) or sys.maxsize
        """Positions that the model has."""
        accepted = inspect.signature(model.forward).parameters
        self._takes_positions = "position_ids" in accepted
        self._takes_logits_to_keep = "logits_to_keep" in accepted
        # A mask that is ready to be added serves every token if all layers see all that came before. Models with
        # windows, or with biases that they derive from the mask, are given the plain one and build theirs from it.
        windows = getattr(config, "sliding_window", None) or getattr(config, "attention_chunk_size", None)
        patterns = set(getattr(config, "layer_types", None) or ["windows" if windows else "full_attention"])
        self._adds_mask = (
            patterns == {"full_attention"} and self._takes_positions and not getattr(config, "alibi", False)
        )
        self._spare = Spare()
        self.head = find_head(model)
        self.recompute = Recompute(model)
        self.packs = self._attends_within_blocks()
        """Whether trees can stand in one row, one after the other, within `blocks`."""

    def read(self, ids_B_T: Tensor, pads_B: Tensor) -> tuple[Tensor, BlockCache]:
        """logits_B_V after the last token of prompts with `pads_B` tokens of padding on their left, and the cache."""
        at_T = torch.arange(ids_B_T.shape[1], device=self.device)
        mask_B_T = at_T >= pads_B[:, None] if pads_B.any() else None
        positions_B_T = (at_T - pads_B[:, None]).clamp(min=0)
        cache = BlockCache(self._spare)
        return self._call(ids_B_T, positions_B_T, mask_B_T, cache), cache

    def branch_off(
        self, read: BlockCache, pads_M: Tensor, prompt_B: Tensor, room: int, policies: int
    ) -> tuple[BlockCache, Tensor | None, Extend]:
        """A cache, a mask, and what extends B rows that each continue one of M prompts by up to `room` tokens, with
        what the model's layers serve now to that many policies."""
        last = read.length + room
        # The last token that is sampled is not read.
        read.gather(prompt_B, last - 1)
        step = llama_step(self.model, policies, last)
        if step is None:
            extend = self.extend
        else:
            step.begin(read)
            extend = step
        return read, self._padding_mask(pads_M[prompt_B], last), extend

    def _padding_mask(self, pads_B: Tensor, capacity: int) -> Tensor | None:
        if not pads_B.any():
            return None
        seen_B_T = torch.arange(capacity, device=self.device) >= pads_B[:, None]
        if not self._adds_mask:
            return seen_B_T
        mask_B_T = torch.zeros(seen_B_T.shape, dtype=self.dtype, device=self.device)
        return mask_B_T.masked_fill_(~seen_B_T, torch.finfo(self.dtype).min)[:, None, None]

    def extend(self, tokens_B: Tensor, positions_B: Tensor, mask: Tensor | None, cache: BlockCache) -> Tensor:
        """logits_B_V after one more token."""
        if mask is not None:
            mask = mask[..., : cache.length + 1]
        return self._call(tokens_B[:, None], positions_B[:, None], mask, cache)

    def _call(self, ids_B_T: Tensor, positions_B_T: Tensor, mask: Tensor | None, cache: BlockCache) -> Tensor:
        options: dict[str, object] = {"position_ids": positions_B_T} if self._takes_positions else {}
        if self._takes_logits_to_keep:
            options["logits_to_keep"] = 1
        logits_B_T_V = self.model(
            input_ids=ids_B_T, attention_mask=mask, past_key_values=cache, use_cache=True, **options
        ).logits
        return logits_B_T_V[:, -1]

    @property
    def tree_tokens(self) -> int:
        """Most tokens of a tree; 0 where the model takes chains alone.

        Attention within a tree is worked out for all pairs of its tokens. Of a layer's arithmetic that is one part in
        18 at a third of the model's width; in narrow models, too, sharing beginnings is worth more up to 256 tokens.
        """
        return max(256, self._embeddings.shape[1] // 3) if self.packs else 0

    @property
    def _embeddings(self) -> Tensor:
        return cast(Tensor, self.model.get_input_embeddings().weight)

    def states(self, ids_B_T: Tensor, positions_B_T: Tensor | None) -> Tensor:
        """What `head` makes logits of, for training: (B, T, H).

        Args:
            ids_B_T: tokens.
            positions_B_T: within blocks, of each token in its own. None outside of blocks: then no mask is needed
                either, since padding is on the right, where causal attention does not see it.
        """
        options: dict[str, object] = {}
        if positions_B_T is not None:
            # The blocks say who sees whom. A mask of this shape is not looked into, and none is built in its place.
            nothing = torch.zeros(1, dtype=self.dtype, device=self.device)
            mask = nothing.expand(len(ids_B_T), 1, ids_B_T.shape[1], ids_B_T.shape[1])
            options = {"attention_mask": mask, "position_ids": positions_B_T}
        if self.head.linear is None:
            return self.model(input_ids=ids_B_T, use_cache=False, **options).logits
        return self.model.base_model(input_ids=ids_B_T, use_cache=False, **options).last_hidden_state

    @torch.no_grad()
    def _attends_within_blocks(self) -> bool:
        """Whether two trees in one row come out as their branches do one by one."""
        if not self._takes_positions or not block_attention.install(self.model):
            return False
        last = len(self._embeddings) - 1
        ids_N = np.array([2, 3, 4, 5, 6, 7, 8, 4, 3, 2, 0]).clip(max=last)
        branching = Block(0, np.array([0, 1, 2, 3, 4, 3, 4]), np.array([7, 7, 7, 5, 5, 7, 7]))
        blocks = Blocks([branching, Block(7, np.arange(3), np.full(3, 3))], len(ids_N), self.dtype, self.device)
        positions_N = np.array([*branching.depths_N, 0, 1, 2, 0])
        with within(blocks):
            found = self.states(*(torch.from_numpy(each).to(self.device)[None] for each in (ids_N, positions_N)))[0]
        tolerance = torch.finfo(self.dtype).eps ** 0.5
        for path in ([0, 1, 2, 3, 4], [0, 1, 2, 5, 6], [7, 8, 9]):
            expected = self.states(torch.from_numpy(ids_N[path]).to(self.device)[None], None)[0]
            if (found[path] - expected).abs().max() > tolerance * expected.abs().max():
                return False
        return True
