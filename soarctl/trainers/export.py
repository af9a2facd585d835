"""Policies as files that other libraries load."""

import json
from collections.abc import Mapping
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor

from soarctl.api import AdapterShape, Policy
from soarctl.trainers.adapter_weights import AdapterWeights
from soarctl.trainers.full_weights import FullWeights
from soarctl.trainers.model_source import BaseModel, quiet


def export_adapter(base: BaseModel, name: str, adapters: AdapterWeights, policy: Policy, directory: Path) -> None:
    """A PEFT adapter with a tokenizer: `PeftModel.from_pretrained(model, directory)` loads it.

    Args:
        name: the base model, as the adapter should name it.
    """
    shape = AdapterShape(adapters.rank, adapters.scale * adapters.rank, tuple(adapters.layers))
    write_adapter(directory, _tensors(adapters, policy), shape, name, base.commit)
    base.tokenizer.save_pretrained(directory)


def write_adapter(
    directory: Path, tensors: Mapping[str, Tensor], shape: AdapterShape, name: str, revision: str | None
) -> None:
    """The two files of a PEFT adapter, from matrices by the names that policies have for them."""
    directory.mkdir(parents=True, exist_ok=True)
    by_name = {f"base_model.model.{name}.weight": tensor for name, tensor in tensors.items()}
    save_file(by_name, directory / "adapter_model.safetensors", metadata={"format": "pt"})
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": name,
        "revision": revision,
        "r": shape.rank,
        "lora_alpha": shape.alpha,
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "target_modules": list(shape.layers),
    }
    (directory / "adapter_config.json").write_text(json.dumps(config, indent=2) + "\n")


def export_merged(base: BaseModel, adapters: AdapterWeights, policy: Policy, directory: Path) -> None:
    """A full model with its tokenizer: `AutoModelForCausalLM.from_pretrained(directory)` loads it."""
    tensors = _tensors(adapters, policy)
    weights = dict(base.model.state_dict())
    for name, layer in adapters.layers.items():
        update = tensors[f"{name}.lora_B"] @ tensors[f"{name}.lora_A"] * adapters.scale
        merged = layer.weight.float().cpu() + update
        weights[f"{name}.weight"] = merged.to(layer.weight.dtype)
    with quiet():
        base.model.save_pretrained(directory, state_dict=weights)
    base.tokenizer.save_pretrained(directory)


def export_model(base: BaseModel, weights: FullWeights, policy: Policy, directory: Path) -> None:
    """The same from a policy that is all of a model's weights, rounded to the model's dtype."""
    with weights.sampling(weights.rows([policy])), quiet():
        base.model.save_pretrained(directory)
    base.tokenizer.save_pretrained(directory)


def _tensors(adapters: AdapterWeights, policy: Policy) -> dict[str, Tensor]:
    """As contiguous fp32 on the CPU, after a check that they fit."""
    rows_1_P = adapters.rows([policy])
    return {name: view[0].contiguous() for name, view in adapters.views(rows_1_P).items()}
