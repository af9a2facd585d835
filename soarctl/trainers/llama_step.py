"""One more token for each row of a small Llama on a CPU.

In the model's own forward of one token a row, most operations take longer to start than to do. This is the same
arithmetic in a third of them: matrices that multiply the same vectors are joined, weights of norms and the scale of
attention are multiplied into matrices beforehand, and a rotary embedding is one complex product.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from transformers import LlamaForCausalLM, PreTrainedModel
from transformers.models.llama.modeling_llama import LlamaDecoderLayer

from soarctl.trainers.block_cache import BlockCache, BlockLayer
from soarctl.trainers.fleet_linear import FleetLinear, Merged

# Numbers that the matrices of all policies may have together (256 MB in fp32): larger products hide what starting them
# costs.
LARGEST = 2**26


@dataclass(frozen=True, slots=True)
class _Layer:
    """What multiplies rows from the right, for each policy."""

    query_key_value_S_in_out: Tensor
    output_S_in_out: Tensor
    gate_up_S_in_out: Tensor
    down_S_in_out: Tensor


class LlamaStep:
    """A Llama with what S policies have made of it: rows come in S equal parts, ordered by policy."""

    def __init__(self, model: LlamaForCausalLM, layers: Sequence[_Layer], positions: int) -> None:
        config = model.config
        self._model, self._layers = model, layers
        self._queries, self._keys = config.num_attention_heads, cast(int, config.num_key_value_heads)
        self._least = config.hidden_size * config.rms_norm_eps
        cos_1_T_D, sin_1_T_D = model.model.rotary_emb(torch.zeros(()), torch.arange(positions)[None])
        turns_T_1_half = torch.complex(cos_1_T_D, sin_1_T_D)[0, :, None, : cos_1_T_D.shape[2] // 2]
        # Queries and keys are turned, and values, one beside each key, are left as they are.
        turned_heads = torch.tensor([True] * self._queries + [True, False] * self._keys)[:, None]
        self._turns_T_heads_half = torch.where(turned_heads, turns_T_1_half, 1)

    def begin(self, cache: BlockCache) -> None:
        """Takes over a cache that the model's own forward has filled."""
        for layer in cast(list[BlockLayer], cache.layers):
            keys, _ = layer.filled()
            keys.copy_(_paired(keys))

    def __call__(self, tokens_B: Tensor, positions_B: Tensor, mask: Tensor | None, cache: BlockCache) -> Tensor:
        """logits_B_V after these tokens. `mask`, (B, 1, 1, positions), is added to the products of attention."""
        mask = None if mask is None else mask[..., : cache.length + 1]
        x_B_H = self._model.model.embed_tokens(tokens_B)
        turns_B_heads_half = self._turns_T_heads_half[positions_B]
        for layer, states in zip(self._layers, cast(list[BlockLayer], cache.layers), strict=True):
            heads = self._times(x_B_H, layer.query_key_value_S_in_out)
            attended = self._attend(heads, turns_B_heads_half, mask, states)
            _add(x_B_H, attended, layer.output_S_in_out)
            gate, up = self._times(x_B_H, layer.gate_up_S_in_out).chunk(2, 1)
            _add(x_B_H, nn.functional.silu(gate).mul_(up), layer.down_S_in_out)
        return self._model.lm_head(self._model.model.norm(x_B_H))

    def _times(self, x_B_H: Tensor, matrix_S_in_out: Tensor) -> Tensor:
        """The normed rows, times a matrix that has the norm's weight in it."""
        squares_B_1 = torch.linalg.vector_norm(x_B_H, dim=1, keepdim=True).square_()
        return _product(x_B_H * squares_B_1.add_(self._least).rsqrt_(), matrix_S_in_out)

    def _attend(self, heads: Tensor, turns_B_heads_half: Tensor, mask: Tensor | None, states: BlockLayer) -> Tensor:
        """What the query heads find; `heads` are these, and then a key and a value for each key head."""
        pairs = torch.view_as_complex(heads.view(*turns_B_heads_half.shape, 2))
        turned = torch.view_as_real(pairs * turns_B_heads_half).flatten(2)
        query, key_value = turned.split([self._queries, 2 * self._keys], 1)
        keys, values = states.append(key_value.unflatten(1, (self._keys, 2)).flatten(2))
        # Query heads that share a key head are rows of one product.
        weights = torch.matmul(query.unflatten(1, (self._keys, -1)), keys.mT)
        if mask is not None:
            weights += mask
        return torch.matmul(weights.softmax(-1), values).flatten(1)


def llama_step(model: PreTrainedModel, policies: int, positions: int) -> LlamaStep | None:
    """A quicker way to extend rows of this model with what its layers serve now, if there is one.

    Args:
        model: any.
        policies: S, that rows belong to.
        positions: more than any row will come to.
    """
    if not _plain(model):
        return None
    llama = cast(LlamaForCausalLM, model)
    if policies * sum(parameter.numel() for parameter in llama.model.layers.parameters()) > LARGEST:
        return None
    layers = [_joined(layer, policies) for layer in cast(Sequence[LlamaDecoderLayer], llama.model.layers)]
    found = [layer for layer in layers if layer]
    return LlamaStep(llama, found, positions) if len(found) == len(layers) else None


def _plain(model: PreTrainedModel) -> bool:
    """Whether it is a Llama of the usual kind, in fp32 on a CPU, and nobody looks on or has put another forward in."""
    config = model.config
    return (
        type(model) is LlamaForCausalLM
        and model.device.type == "cpu"
        and model.dtype == torch.float32
        and config.hidden_act == "silu"
        and not (config.attention_bias or config.mlp_bias)
        and config.rope_parameters["rope_type"] in ("default", "linear", "llama3")
        and not torch.is_autocast_enabled("cpu")
        and "forward" not in vars(model)
        and not any(_hooked(module) for module in model.modules())
    )


def _hooked(module: nn.Module) -> bool:
    return bool(module._forward_hooks or module._forward_pre_hooks)  # pyright: ignore[reportPrivateUsage]


def _joined(layer: LlamaDecoderLayer, policies: int) -> _Layer | None:
    """A layer's matrices as it serves them now; None if they are not all ready to be multiplied with."""
    attention, mlp = layer.self_attn, layer.mlp
    parts = [
        _matrix(module, policies)
        for module in (
            *(attention.q_proj, attention.k_proj, attention.v_proj, attention.o_proj),
            *(mlp.gate_proj, mlp.up_proj, mlp.down_proj),
        )
    ]
    found = [part for part in parts if part is not None]
    if len(found) < len(parts):
        return None
    q, k, v, output, gate, up, down = found
    heads = (-1, attention.head_dim)
    q, k = _paired((q * attention.scaling).unflatten(2, heads)), _paired(k.unflatten(2, heads))
    key_value = torch.stack([k, v.unflatten(2, heads)], 3)
    root = attention.q_proj.in_features**0.5
    return _Layer(
        torch.cat([q.flatten(2), key_value.flatten(2)], 2) * (layer.input_layernorm.weight * root)[:, None],
        output,
        torch.cat([gate, up], 2) * (layer.post_attention_layernorm.weight * root)[:, None],
        down,
    )


def _matrix(module: nn.Linear, policies: int) -> Tensor | None:
    """matrix_S_in_out of what the layer serves now."""
    if not isinstance(module, FleetLinear) or module.bound is None:
        return module.weight.detach().mT.expand(policies, -1, -1)
    return module.bound.weight_S_in_out if isinstance(module.bound, Merged) else None


def _paired(states: Tensor) -> Tensor:
    """The last axis in another order: each number beside the one that a rotary embedding turns it with."""
    return states.unflatten(-1, (2, -1)).mT.flatten(-2)


def _product(x_B_in: Tensor, matrix_S_in_out: Tensor) -> Tensor:
    return torch.bmm(x_B_in.unflatten(0, (len(matrix_S_in_out), -1)), matrix_S_in_out).flatten(0, 1)


def _add(x_B_out: Tensor, y_B_in: Tensor, matrix_S_in_out: Tensor) -> None:
    """Adds y times a matrix to x."""
    parts = (len(matrix_S_in_out), -1)
    x_B_out.unflatten(0, parts).baddbmm_(y_B_in.unflatten(0, parts), matrix_S_in_out)
