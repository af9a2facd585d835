"""How many numbers a model and its adapters have, from its config.json alone."""

import importlib.util
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Architectures that are Llama's up to biases and norms.
_LLAMA_LIKE = ("llama", "mistral", "qwen2", "qwen3")


@dataclass(frozen=True, slots=True)
class ModelShape:
    """What the size of a Llama-like model follows from."""

    kind: str
    hidden: int
    intermediate: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    vocabulary: int
    tied: bool
    """Input and output embeddings are one matrix."""
    attention_bias: bool
    mlp_bias: bool

    @property
    def parameters(self) -> int:
        """All numbers of the model."""
        linear = sum(n_in * n_out for n_in, n_out in self.projections.values())
        biases = sum(self.projections[name][1] for name in self.biased)
        norms = 2 * self.hidden + (2 * self.head_dim if self.kind == "qwen3" else 0)
        embeddings = self.vocabulary * self.hidden * (1 if self.tied else 2)
        return embeddings + self.layers * (linear + biases + norms) + self.hidden

    def adapter_parameters(self, rank: int, targets: Sequence[str]) -> int | None:
        """Numbers of one LoRA adapter, r (in + out) for each layer it is on; None where a target is not one of ours."""
        projections = self.projections
        if not all(target in projections for target in targets):
            return None
        return self.layers * sum(rank * sum(projections[target]) for target in targets)

    @property
    def cache_bytes(self) -> int:
        """Keys and values that one token leaves in a 16 bit cache."""
        return 2 * 2 * self.layers * self.kv_heads * self.head_dim

    @property
    def biased(self) -> set[str]:
        """Linear layers of a block that have a bias."""
        attention = {"q_proj", "k_proj", "v_proj"} | ({"o_proj"} if self.kind != "qwen2" else set())
        mlp = {"gate_proj", "up_proj", "down_proj"}
        return (attention if self.attention_bias else set()) | (mlp if self.mlp_bias else set())

    @property
    def projections(self) -> dict[str, tuple[int, int]]:
        """(in, out) of each linear layer of a block."""
        queries, values = self.heads * self.head_dim, self.kv_heads * self.head_dim
        return {
            "q_proj": (self.hidden, queries),
            "k_proj": (self.hidden, values),
            "v_proj": (self.hidden, values),
            "o_proj": (queries, self.hidden),
            "gate_proj": (self.hidden, self.intermediate),
            "up_proj": (self.hidden, self.intermediate),
            "down_proj": (self.intermediate, self.hidden),
        }


# The paper's models, so that its runs can be planned where nothing has been fetched yet.
_LLAMA_3_2_3B = ModelShape("llama", 3072, 8192, 28, 24, 8, 128, 128_256, True, False, False)
_LLAMA_3_1_8B = ModelShape("llama", 4096, 14_336, 32, 32, 8, 128, 128_256, False, False, False)
_KNOWN = {
    "meta-llama/Llama-3.2-3B": _LLAMA_3_2_3B,
    "meta-llama/Llama-3.2-3B-Instruct": _LLAMA_3_2_3B,
    "meta-llama/Llama-3.1-8B": _LLAMA_3_1_8B,
    "meta-llama/Llama-3.1-8B-Instruct": _LLAMA_3_1_8B,
}


def read_shape(base: str, revision: str | None) -> ModelShape | None:
    """The shape of a model whose config.json is on this machine: in a package, a directory, or the hub's cache.

    None where it is not here and not one of the paper's, or not Llama-like. Reaches for no network.
    """
    path = _config(base, revision)
    if path is None:
        return _KNOWN.get(base)
    try:
        return shape_of(json.loads(path.read_bytes()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def shape_of(config: Mapping[str, Any]) -> ModelShape | None:
    """The shape that a config.json gives; None where it is not Llama-like."""
    kind = config.get("model_type")
    if kind not in _LLAMA_LIKE:
        return None
    hidden, heads = int(config["hidden_size"]), int(config["num_attention_heads"])
    return ModelShape(
        kind=kind,
        hidden=hidden,
        intermediate=int(config["intermediate_size"]),
        layers=int(config["num_hidden_layers"]),
        heads=heads,
        kv_heads=int(config.get("num_key_value_heads") or heads),
        head_dim=int(config.get("head_dim") or hidden // heads),
        vocabulary=int(config["vocab_size"]),
        tied=bool(config.get("tie_word_embeddings", False)),
        attention_bias=kind == "qwen2" or bool(config.get("attention_bias", False)),
        mlp_bias=bool(config.get("mlp_bias", False)),
    )


def _config(base: str, revision: str | None) -> Path | None:
    if base.startswith("package:"):
        name, _, folder = base.removeprefix("package:").partition("/")
        found = importlib.util.find_spec(name) if name.isidentifier() else None
        places = [Path(place) / folder for place in (found.submodule_search_locations or [])] if found else []
    elif Path(base).is_dir():
        places = [Path(base)]
    else:
        places = _in_cache(base, revision)
    return next((place / "config.json" for place in places if (place / "config.json").is_file()), None)


def _in_cache(base: str, revision: str | None) -> list[Path]:
    try:
        from huggingface_hub import try_to_load_from_cache
        from huggingface_hub.errors import HFValidationError
    except ImportError:
        return []
    try:
        found = try_to_load_from_cache(base, "config.json", revision=revision)
    except HFValidationError:
        return []
    return [Path(found).parent] if isinstance(found, str) else []
