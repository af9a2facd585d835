"""Models of random weights, loaded by transformers."""

from pathlib import Path
from typing import Any

import pytest

from soarctl.errors import ModelError
from soarctl.random_model import write_random_model

CONFIG: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 100,
    "eos_token_id": 1,
    "pad_token_id": None,
}


@pytest.mark.parametrize(
    "kind",
    [
        {"model_type": "llama", "tie_word_embeddings": True},
        {"model_type": "llama", "attention_bias": True, "mlp_bias": True},
        {"model_type": "qwen2"},
        {"model_type": "qwen3", "head_dim": 16},
    ],
    ids=["llama", "llama with biases", "qwen2", "qwen3"],
)
def test_transformers_finds_every_weight_that_the_config_asks_for(kind: dict[str, Any], tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    shape = write_random_model({**CONFIG, **kind}, tmp_path)
    loaded: Any
    loaded, found = AutoModelForCausalLM.from_pretrained(tmp_path, output_loading_info=True)
    assert not found["missing_keys"]
    assert not found["unexpected_keys"]
    assert loaded.num_parameters() == shape.parameters
    if kind["model_type"] == "qwen2":  # has a tokenizer of its own kind
        return
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    assert len(tokenizer.encode("one two  three")) == 3
    assert tokenizer.eos_token_id == 1


def test_a_kind_that_we_do_not_know_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="a config of model type 'mamba' says nothing about weights that we know"):
        write_random_model({"model_type": "mamba"}, tmp_path)
