"""A Llama whose attention heads are padded with zeros to another width, and which computes the same.

vLLM's attention on a CPU knows a few widths, and the letters model's 24 is none of them.

    python benchmarks/wide_heads.py package:soarctl_letters/model DIRECTORY [WIDTH]
"""

import sys
from pathlib import Path

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from soarctl.spec import ModelSection
from soarctl.trainers import model_source


def widened(model: LlamaForCausalLM, width: int) -> LlamaForCausalLM:
    """The same function with heads of `width`, which is even and at least what it was."""
    old = model.config
    narrow: int = old.head_dim
    # Scores are divided by the square root of the width, and rotations are by theta^(-2 i / width): what the width
    # changes, the query's weights and another theta undo.
    rope = dict(old.rope_parameters) | {"rope_theta": old.rope_parameters["rope_theta"] ** (width / narrow)}
    config = LlamaConfig(**(old.to_dict() | {"head_dim": width, "rope_parameters": rope}))
    wide = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    # Dimension i of a head is rotated together with i + half a width.
    half = torch.arange(narrow // 2)
    kept = torch.cat([half, width // 2 + half])

    def rows(weight: Tensor, scale: float = 1.0) -> Tensor:
        heads = weight.unflatten(0, (-1, narrow))
        padded = heads.new_zeros(heads.shape[0], width, heads.shape[2])
        padded[:, kept] = heads * scale
        return padded.flatten(0, 1)

    weights = dict(model.state_dict())
    for name, weight in weights.items():
        if name.endswith("q_proj.weight"):
            weights[name] = rows(weight, (width / narrow) ** 0.5)
        elif name.endswith(("k_proj.weight", "v_proj.weight")):
            weights[name] = rows(weight)
        elif name.endswith("o_proj.weight"):
            weights[name] = rows(weight.mT).mT.contiguous()
    wide.load_state_dict(weights)
    wide.generation_config = model.generation_config
    return wide.eval()


def save_widened(base: str, directory: Path, width: int) -> float:
    """Writes the wide model and its tokenizer; the largest difference of logits to the narrow one."""
    found = model_source.load(ModelSection(base=base), torch.float32, None)
    assert isinstance(found.model, LlamaForCausalLM), f"{base} is no Llama"
    wide = widened(found.model, width)
    ids = torch.arange(60).reshape(2, 30) % found.model.config.vocab_size
    with torch.inference_mode():
        difference = (wide(ids).logits - found.model(ids).logits).abs().max().item()
    with model_source.quiet():
        wide.save_pretrained(directory)
    found.tokenizer.save_pretrained(directory)
    return difference


def main() -> None:
    base, directory, width = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]) if len(sys.argv) > 3 else 32
    difference = save_widened(base, directory, width)
    print(f"{directory}: heads of {width}, logits differ by at most {difference:.1e}")


if __name__ == "__main__":
    main()
