"""Attention for decoding: of one new token per row."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

NAME = "soarctl_token"


def token_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    **options: Any,
) -> tuple[Tensor, Tensor | None]:
    """What sdpa computes, by another way for a single new token per row.

    Args:
        module: the layer; only sdpa looks at it.
        query: (B, heads, T, width).
        key: (B, key heads, all tokens, width), as `value`.
        attention_mask: to be added, or boolean.
        scaling: of the products; 1 / sqrt(width) by default.
        options: what else transformers hands to an attention implementation.

    Returns:
        (B, T, heads, width), and no weights.
    """
    plain = all(options.get(name) is None for name in ("position_bias", "softcap", "cache", "s_aux"))
    if query.shape[2] > 1 or not plain or (attention_mask is not None and attention_mask.dtype == torch.bool):
        return sdpa_attention_forward(module, query, key, value, attention_mask, scaling=scaling, **options)
    # Query heads that share a key head are rows of one product.
    grouped = query.reshape(query.shape[0], key.shape[1], -1, query.shape[3])
    attend = by_products if query.device.type == "cpu" else by_sdpa
    found = attend(grouped, key, value, attention_mask, scaling or query.shape[3] ** -0.5)
    return found.reshape(query.shape[0], 1, query.shape[1], value.shape[3]), None


def by_products(grouped: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scale: float) -> Tensor:
    """(B, key heads, group, width): on a CPU, where sdpa goes through its blocks for every row and head, two batched
    products take half the time."""
    weights = torch.matmul(grouped, key.mT).mul_(scale)
    if mask is not None:
        weights += mask
    return torch.matmul(weights.softmax(-1), value)


def by_sdpa(grouped: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scale: float) -> Tensor:
    """The same elsewhere. Given all query heads and a mask, transformers would copy keys and values for each of them,
    at every layer and token."""
    return scaled_dot_product_attention(grouped, key, value, attn_mask=mask, scale=scale)


def install(model: PreTrainedModel) -> None:
    """Makes a model decode this way, if it would use sdpa."""
    if getattr(model.config.get_text_config(), "_attn_implementation", None) == "sdpa":
        AttentionInterface.register(NAME, token_attention)
        AttentionMaskInterface.register(NAME, sdpa_mask)
        model.set_attn_implementation(NAME)
