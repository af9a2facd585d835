"""Attention for decoding on a CPU."""

from typing import Any

import torch
from torch import Tensor, nn
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
    # On a CPU sdpa goes through its blocks for every row and head; two batched products take half the time.
    # Query heads that share a key head are rows of one product.
    grouped = query.reshape(query.shape[0], key.shape[1], -1, query.shape[3])
    weights = torch.matmul(grouped, key.mT).mul_(scaling or query.shape[3] ** -0.5)
    if attention_mask is not None:
        weights += attention_mask
    found = torch.matmul(weights.softmax(-1), value)
    return found.reshape(query.shape[0], 1, query.shape[1], value.shape[3]), None


def install(model: PreTrainedModel) -> None:
    """Makes a model decode this way, if it is on a CPU and would use sdpa."""
    if model.device.type == "cpu" and getattr(model.config.get_text_config(), "_attn_implementation", None) == "sdpa":
        AttentionInterface.register(NAME, token_attention)
        AttentionMaskInterface.register(NAME, sdpa_mask)
        model.set_attn_implementation(NAME)
