"""Tiny random models with a character tokenizer, saved as any model is."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, decoders, pre_tokenizers
from tokenizers.models import WordLevel
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    GPTNeoXConfig,
    LlamaConfig,
    MistralConfig,
    PreTrainedTokenizerFast,
    Qwen2Config,
)

from soarctl.api import Engine
from soarctl.trainers.accelerate import AccelerateTrainer
from soarctl.trainers.engine import AccelerateEngine
from soarctl.trainers.full import FullTrainer
from soarctl.trainers.full_engine import FullEngine

LETTERS = "abcdefghijklmnopqrstuvwxyz .:"
SIZES = {
    "vocab_size": len(LETTERS) + 2,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
    # Large enough for distributions that differ from token to token.
    "initializer_range": 0.3,
    "pad_token_id": 0,
    "eos_token_id": 1,
    "bos_token_id": None,
}
CONFIGS = {
    "llama": LlamaConfig(num_key_value_heads=2, **SIZES),
    "tied": LlamaConfig(num_key_value_heads=2, tie_word_embeddings=True, **SIZES),
    "qwen2": Qwen2Config(num_key_value_heads=4, **SIZES),
    "gpt_neox": GPTNeoXConfig(**SIZES),
    # Sees the last 8 tokens only.
    "mistral": MistralConfig(num_key_value_heads=2, sliding_window=8, **SIZES),
    # The same in every other layer; attends without sdpa, and caps its logits.
    "gemma2": Gemma2Config(num_key_value_heads=2, head_dim=8, sliding_window=8, attn_logit_softcapping=None, **SIZES),
}


@dataclass(frozen=True)
class Source:
    """A spec's `model` section."""

    base: str
    revision: str | None = None
    chat_template: bool = False
    trust_remote_code: bool = False


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Matrices this small gain nothing from a second thread, and on a busy machine they wait for it."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Directories of random models, by architecture."""
    vocabulary = {token: i for i, token in enumerate(["<pad>", "<eos>", *LETTERS])}
    tokenizer = Tokenizer(WordLevel(vocabulary, unk_token="<pad>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", behavior="isolated")
    tokenizer.decoder = decoders.Fuse()
    wrapped = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<eos>")
    wrapped.chat_template = "{% for m in messages %}u:{{ m.content }}.{% endfor %}"
    directories = {name: tmp_path_factory.mktemp(name) for name in CONFIGS}
    for name, config in CONFIGS.items():
        with torch.random.fork_rng():
            torch.manual_seed(0)
            model = AutoModelForCausalLM.from_config(config)
        model.save_pretrained(directories[name])
        wrapped.save_pretrained(directories[name])
    return directories


@pytest.fixture(scope="session")
def load(models: dict[str, Path]) -> Callable[..., AccelerateEngine]:
    """`load("llama", **options of the trainer)`; other bases by their own name."""

    def load(base: str = "llama", *, chat_template: bool = False, **options: object) -> AccelerateEngine:
        source = Source(str(models.get(base, base)), chat_template=chat_template)
        if base == "gpt_neox":
            options["targets"] = ("query_key_value", "dense")
        engine = AccelerateTrainer(device="cpu", **options).load(source, seed=0)
        assert isinstance(engine, AccelerateEngine)
        return engine

    return load


@pytest.fixture(scope="session")
def load_full(models: dict[str, Path]) -> Callable[..., FullEngine]:
    """The same with the full trainer."""

    def load(base: str = "llama", **options: object) -> FullEngine:
        engine = FullTrainer(device="cpu", **options).load(Source(str(models.get(base, base))), seed=0)
        assert isinstance(engine, FullEngine)
        return engine

    return load


@pytest.fixture(scope="session")
def adapters(load: Callable[..., AccelerateEngine]) -> AccelerateEngine:
    """A Llama with adapters of rank 4, for tests that do not change it."""
    return load(rank=4, alpha=8)


@pytest.fixture(scope="session")
def full(load_full: Callable[..., FullEngine]) -> FullEngine:
    """A Llama whose weights are all trained, for tests that do not change it."""
    return load_full()


@pytest.fixture(params=["adapters", "full"])
def engine(request: pytest.FixtureRequest) -> Engine:
    """Both, one after the other."""
    return request.getfixturevalue(request.param)
