"""The letters model as vLLM on a CPU takes it, and defects that can be planted."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from soarctl.api import (
    Continuation,
    InferenceEngine,
    Policy,
    Request,
    Sampler,
    Sampling,
    Served,
)

ROOT = Path(__file__).parents[2]
WIDTH = 4


@dataclass(frozen=True)
class Source:
    """A spec's `model` section."""

    base: str
    revision: str | None = None
    chat_template: bool = False
    trust_remote_code: bool = False


@pytest.fixture(scope="session")
def letters(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The letters model with heads of a width that vLLM has kernels for."""
    directory = tmp_path_factory.mktemp("letters")
    script = ROOT / "benchmarks" / "wide_heads.py"
    subprocess.run([sys.executable, script, "package:soarctl_letters/model", directory], check=True)
    return str(directory)


@pytest.fixture(scope="session")
def tied(letters: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The same with its embeddings as its head, and with positions for prompts of several blocks of vLLM's cache."""
    directory = tmp_path_factory.mktemp("tied") / "model"
    shutil.copytree(letters, directory)
    config = json.loads((directory / "config.json").read_text())
    config |= {"tie_word_embeddings": True, "max_position_embeddings": 512}
    (directory / "config.json").write_text(json.dumps(config))
    weights = load_file(directory / "model.safetensors")
    del weights["lm_head.weight"]
    save_file(weights, directory / "model.safetensors", metadata={"format": "pt"})
    return str(directory)


@pytest.fixture(scope="session")
def bases(letters: str, tied: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Models by name: two that know letters, and random ones of other architectures."""
    from transformers import AutoModelForCausalLM, LlamaConfig, Qwen3Config

    sizes = {"vocab_size": 67, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "head_dim": 32}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1, "max_position_embeddings": 128}
    same = sizes | heads | {"initializer_range": 0.3, "pad_token_id": 0, "eos_token_id": 1, "bos_token_id": None}
    configs = {
        "biased": LlamaConfig(attention_bias=True, mlp_bias=True, **same),
        "qwen3": Qwen3Config(tie_word_embeddings=True, **same),
    }
    directories = {"letters": letters, "tied": tied}
    for name, config in configs.items():
        directory = tmp_path_factory.mktemp(name)
        with torch.random.fork_rng():
            torch.manual_seed(0)
            AutoModelForCausalLM.from_config(config).save_pretrained(directory)
        for path in Path(letters).glob("tokenizer*"):
            shutil.copy(path, directory)
        directories[name] = str(directory)
    return directories


class Through(InferenceEngine):
    """vLLM's engine with adapters, with a defect where a test asks for it."""

    def __init__(self, engine: Any, defect: str) -> None:
        self.engine, self._defect = engine, defect
        self._alias = dict[str, str]()

    def update(self, added: Mapping[str, Policy], removed: Sequence[str]) -> None:
        """`one name`: new weights are loaded under the name that the policy's first ones had, and number."""
        self.engine.update({name: p for name, p in added.items() if not self._first(name)}, ())
        for name, policy in added.items():
            if first := self._first(name):
                self.engine._policies._folder.write(first, policy)
                self.engine._llm.llm_engine.add_lora(self.engine._policies._held[first])
                self._alias[name] = first

    def _first(self, name: str) -> str | None:
        first = f"{name.rpartition('.version')[0]}.version0"
        return first if self._defect == "one name" and first in self.engine._policies._held else None

    def generate(self, requests: Sequence[Request], sampling: Sampling) -> list[list[Continuation]]:
        """`bare base`: the first policy of a fleet is asked for without an adapter."""
        policies = self.engine._policies
        held = policies._held
        bare = {r.policy: None for r in requests if self._defect == "bare base" and ".policy0." in r.policy}
        policies._held = held | {name: held[first] for name, first in self._alias.items()} | bare
        try:
            return self.engine.generate(requests, sampling)
        finally:
            policies._held = held


class Behind(InferenceEngine):
    """vLLM's engine with all weights, of which something stays as it was before the last update."""

    def __init__(self, engine: Any, defect: str) -> None:
        self.engine, self._defect = engine, defect

    def update(self, added: Mapping[str, Policy], removed: Sequence[str]) -> None:
        """`old weights`: only their name is a new one. `old cache`: prompts are not read anew."""
        policies, llm = self.engine._policies, self.engine._llm
        if self._defect == "old weights" and policies._held in removed:
            [policies._held] = added
            llm.reset_prefix_cache()
            return
        if self._defect == "old cache":
            llm.reset_prefix_cache = lambda: True
        try:
            self.engine.update(added, removed)
        finally:
            vars(llm).pop("reset_prefix_cache", None)

    def generate(self, requests: Sequence[Request], sampling: Sampling) -> list[list[Continuation]]:
        return self.engine.generate(requests, sampling)


class Planted(Sampler):
    """vLLM, with a defect on request."""

    defect: str = ""

    @property
    def takes_all_weights(self) -> bool:
        return True

    def attach(self, model: Served) -> InferenceEngine:
        from soarctl.trainers.vllm_sampler import VllmSampler

        engine = VllmSampler().attach(model)
        return Behind(engine, self.defect) if model.adapter is None else Through(engine, self.defect)


@pytest.fixture(scope="session")
def load(letters: str) -> Callable[..., Any]:
    """`load(defect)`: an engine with adapters of rank 8 that samples through vLLM; `load(None)` through the decoder."""
    from soarctl.trainers.accelerate import AccelerateTrainer

    def load(defect: str | None = "") -> Any:
        sampler = {} if defect is None else {"sampler": Planted(defect=defect)}
        return AccelerateTrainer(rank=8, width=WIDTH, device="cpu", **sampler).load(Source(letters), seed=0)

    return load


@pytest.fixture(scope="session")
def load_full(bases: dict[str, str]) -> Callable[..., Any]:
    """`load_full("letters", defect)`, or another base: an engine that trains all weights and samples through vLLM, with
    `sampler="decoder"` by itself."""
    from soarctl.api import Trainer
    from soarctl.plugins import load as load_plugin

    def load(base: str = "letters", defect: str = "", sampler: str = "vllm") -> Any:
        if defect:
            from soarctl.trainers.full import FullTrainer

            trainer: Any = FullTrainer(device="cpu", sampler=Planted(defect=defect))
        else:
            trainer = load_plugin(Trainer, "full", {"device": "cpu", "sampler": sampler})
        return trainer.load(Source(bases[base]), seed=0)

    return load


def noisy(policy: Policy, seed: int) -> Policy:
    """Weights that say something else."""
    rng = np.random.default_rng(seed)
    return Policy({k: (v + 0.05 * rng.standard_normal(v.shape)).astype(np.float32) for k, v in policy.tensors.items()})


@pytest.fixture(scope="session")
def starts() -> Callable[[Any], list[Policy]]:
    """The base model and three other policies."""
    return lambda engine: [engine.start(), *(noisy(engine.start(), seed) for seed in range(1, WIDTH))]
