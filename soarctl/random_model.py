"""A model with random weights, from its config.json alone: as fast as the real one, and it knows nothing.

For measuring where the weights are not, or must not be. Needs no torch.
"""

import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file

from soarctl.errors import ModelError, disk_errors
from soarctl.model_size import ModelShape, shape_of

_WORDS = 64
_TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")


def write_random_model(config: Mapping[str, Any], directory: Path, tokenizer: Path | None = None) -> ModelShape:
    """Writes config, 16 bit weights and a tokenizer that transformers load.

    Args:
        config: a Llama-like config.json.
        directory: where; made if it is not there.
        tokenizer: a directory whose tokenizer is used. Without one every word is a token, but for Qwen 2, which
            transformers gives a tokenizer of its own kind and which needs its files.

    Returns:
        The model's shape.

    Raises:
        ModelError: the config is of a kind that we do not know.
    """
    shape = shape_of(config)
    if shape is None:
        raise ModelError(
            f"a config of model type {config.get('model_type')!r} says nothing about weights that we know",
            at="config.json",
            hint="llama, mistral, qwen2 and qwen3 can be made up",
        )
    with disk_errors(directory):
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "config.json").write_text(json.dumps(config))
        save_file(dict(_tensors(shape)), directory / "model.safetensors", {"format": "pt"})
        if tokenizer is not None and (tokenizer / _TOKENIZER[0]).is_file():
            for name in _TOKENIZER:
                if (tokenizer / name).is_file():
                    shutil.copy(tokenizer / name, directory / name)
        else:
            _write_tokenizer(directory)
    return shape


def _tensors(shape: ModelShape) -> Iterator[tuple[str, NDArray[np.float16]]]:
    # The same million numbers again and again: what they are matters to nobody, and drawing billions takes minutes.
    block = (0.02 * np.random.default_rng(0).standard_normal(2**20)).astype(np.float16)

    def random(*size: int) -> NDArray[np.float16]:
        return np.resize(block, size)

    def ones(size: int) -> NDArray[np.float16]:
        return np.ones(size, np.float16)

    yield "model.embed_tokens.weight", random(shape.vocabulary, shape.hidden)
    yield "model.norm.weight", ones(shape.hidden)
    if not shape.tied:
        yield "lm_head.weight", random(shape.vocabulary, shape.hidden)
    for i in range(shape.layers):
        for norm in ("input_layernorm", "post_attention_layernorm"):
            yield f"model.layers.{i}.{norm}.weight", ones(shape.hidden)
        for name, (n_in, n_out) in shape.projections.items():
            part = "self_attn" if name in ("q_proj", "k_proj", "v_proj", "o_proj") else "mlp"
            yield f"model.layers.{i}.{part}.{name}.weight", random(n_out, n_in)
            if name in shape.biased:
                yield f"model.layers.{i}.{part}.{name}.bias", random(n_out)
        if shape.kind == "qwen3":
            for norm in ("q_norm", "k_norm"):
                yield f"model.layers.{i}.self_attn.{norm}.weight", ones(shape.head_dim)


def _write_tokenizer(directory: Path) -> None:
    words = {"<unk>": 0, "<eos>": 1} | {f"w{i}": i + 2 for i in range(_WORDS)}
    special = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    tokenizer = {
        "version": "1.0",
        "added_tokens": [{"id": i, "content": word, **special} for word, i in words.items() if word.startswith("<")],
        "pre_tokenizer": {"type": "WhitespaceSplit"},
        "model": {"type": "WordLevel", "vocab": words, "unk_token": "<unk>"},
    }
    (directory / "tokenizer.json").write_text(json.dumps(tokenizer))
    facts = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<eos>", "unk_token": "<unk>"}
    (directory / "tokenizer_config.json").write_text(json.dumps(facts))
