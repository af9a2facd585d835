"""Calling any causal language model of transformers, with as little around its forward as it allows."""

import inspect
import sys

import torch
from torch import Tensor
from transformers import PreTrainedModel

from soarctl.trainers import token_attention
from soarctl.trainers.block_cache import BlockCache


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

    def read(self, ids_B_T: Tensor, pads_B: Tensor) -> tuple[Tensor, BlockCache]:
        """logits_B_V after the last token of prompts with `pads_B` tokens of padding on their left, and the cache."""
        at_T = torch.arange(ids_B_T.shape[1], device=self.device)
        mask_B_T = at_T >= pads_B[:, None] if pads_B.any() else None
        positions_B_T = (at_T - pads_B[:, None]).clamp(min=0)
        cache = BlockCache()
        return self._call(ids_B_T, positions_B_T, mask_B_T, cache), cache

    def branch_off(
        self, read: BlockCache, pads_M: Tensor, prompt_B: Tensor, room: int
    ) -> tuple[BlockCache, Tensor | None]:
        """A cache and a mask for B rows that each continue one of M prompts by up to `room` tokens."""
        read.gather(prompt_B)
        return read, self._padding_mask(pads_M[prompt_B], read.length + room)

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
    def takes_trees(self) -> bool:
        """Whether tokens can be told one by one which others they see."""
        return self._adds_mask

    def train(
        self, ids_B_T: Tensor, keep: int, positions_B_T: Tensor | None = None, sees_B_T_T: Tensor | None = None
    ) -> Tensor:
        """logits_B_keep_V at the last `keep` columns.

        Without `sees_B_T_T` no mask is needed: padding is on the right, where causal attention does not see it.
        """
        options: dict[str, object] = {}
        if sees_B_T_T is not None:
            mask_B_T_T = torch.zeros(sees_B_T_T.shape, dtype=self.dtype, device=self.device)
            mask_B_T_T.masked_fill_(~sees_B_T_T, torch.finfo(self.dtype).min)
            options |= {"attention_mask": mask_B_T_T[:, None], "position_ids": positions_B_T}
        if self._takes_logits_to_keep:
            options["logits_to_keep"] = keep
        return self.model(input_ids=ids_B_T, use_cache=False, **options).logits[:, -keep:]
