from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from soarctl.trainers.fleet_linear import LowRank, Merged, bound, install
from soarctl.trainers.forward import Forward
from soarctl.trainers.llama_step import LARGEST, llama_step

PROJECTIONS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
SIZES = {
    "vocab_size": 30,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "initializer_range": 0.3,
}
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 10000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}


def random(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


def llama(**changes: Any) -> LlamaForCausalLM:
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(**SIZES | changes)).eval()
    for module in model.modules():
        if type(module).__name__ == "LlamaRMSNorm":
            nn.init.normal_(module.weight, 1, 0.3)  # weights of 1 would hide norms that are left out
    return model


@pytest.mark.parametrize("rope", [None, LLAMA3])
@torch.inference_mode()
def test_a_step_agrees_with_the_model_in_double_precision(rope: dict[str, Any] | None) -> None:
    model = llama(rope_parameters=rope or {"rope_type": "default", "rope_theta": 100.0})
    exact = [deepcopy(model).double() for _ in range(2)]
    layers = install(model, PROJECTIONS)
    served = dict[str, Merged]()
    for name, layer in layers.items():
        changed_S_out_in = layer.weight + 0.1 * random(2, *layer.weight.shape)
        served[name] = Merged(changed_S_out_in.mT.contiguous())
        for s in range(2):
            exact[s].get_submodule(name).weight.copy_(changed_S_out_in[s])

    # Two rows of each policy; the second of each has two tokens of padding before its prompt.
    ids_B_T = torch.arange(4 * 9).reshape(4, 9) * 7 % 29 + 1
    pads_B = torch.tensor([0, 2, 0, 2])
    forward = Forward(model)
    with bound(layers, served):
        _, cache = forward.read(ids_B_T[:, :5], pads_B)
        cache, mask, extend = forward.branch_off(cache, pads_B, torch.arange(4), 4, 2)
        assert extend != forward.extend
        logits_4_B_V = [extend(ids_B_T[:, t], t - pads_B, mask, cache) for t in range(5, 9)]
    for b in range(4):
        expected = exact[b // 2](ids_B_T[b : b + 1, pads_B[b] :]).logits[0, -4:]
        found = torch.stack(logits_4_B_V)[:, b]
        assert (found - expected).abs().max() < 1e-5 * expected.abs().max()


def test_other_models_keep_their_own_forward(models: dict[str, Path]) -> None:
    for kind in models:
        model = AutoModelForCausalLM.from_pretrained(models[kind], dtype=torch.float32)
        assert (llama_step(model, 1, 20) is not None) == (kind in ("llama", "tied")), kind
    assert llama_step(llama(), 1, 20)
    others = [llama(hidden_act="gelu"), llama(attention_bias=True), llama(mlp_bias=True), llama().bfloat16()]
    others.append(llama(rope_parameters=LLAMA3 | {"rope_type": "yarn"}))
    assert [llama_step(model, 1, 20) for model in others] == [None] * 5
    # Matrices of more policies than there is room for.
    numbers = sum(parameter.numel() for parameter in llama().model.layers.parameters())
    assert llama_step(llama(), LARGEST // numbers + 1, 20) is None


def test_a_forward_that_is_hooked_or_replaced_is_not_gone_around() -> None:
    model = llama()
    hook = model.model.layers[0].mlp.register_forward_hook(lambda *_: None)
    assert llama_step(model, 1, 20) is None
    hook.remove()
    assert llama_step(model, 1, 20)
    model.forward = lambda **_: None
    assert llama_step(model, 1, 20) is None


def test_adapters_that_are_not_merged_keep_the_models_own_forward() -> None:
    model = llama()
    layers = install(model, ["q_proj"])
    adapters = {name: LowRank(random(1, 2, 32), random(1, 32, 2)) for name in layers}
    with bound(layers, adapters):
        assert llama_step(model, 1, 20) is None
    assert llama_step(model, 1, 20)


def test_a_step_leaves_the_models_weights_as_they_are() -> None:
    model = llama()
    before = deepcopy(model.state_dict())
    assert llama_step(model, 2, 20)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
