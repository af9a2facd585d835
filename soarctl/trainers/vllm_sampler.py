"""The vLLM sampler: an engine in this process, or a server elsewhere.

Options only, and no vllm; `vllm_engine` and `vllm_server` do the work.
"""

from collections.abc import Mapping
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

from pydantic import Field, PositiveFloat, PositiveInt

from soarctl.api import InferenceEngine, Sampler, SamplerError, Served

# What vLLM allows as the largest rank of adapters, which its buffers are made for.
RANKS = (8, 16, 32, 64, 128, 256, 320, 512)


def largest_rank(rank: int) -> int:
    """What vLLM is told of adapters of this rank."""
    return next((allowed for allowed in RANKS if allowed >= rank), rank)


class VllmSampler(Sampler):
    """Samples with vLLM, which is sent every version of every policy: as an adapter of its own, never merged, or as all
    weights, which take the place of its own."""

    url: str | None = Field(default=None, pattern=r"^https?://")
    """A vLLM server that holds the same base model, such as http://gpu-7:8000, for adapters only; by default an engine
    in this process."""
    adapters: Path | None = None
    """Where adapters are put for vLLM to load: a folder that a server sees under the same name. By default shared
    memory or, where there is none, the temporary folder."""
    gpu_memory_utilization: float = Field(default=0.45, gt=0, le=1)
    """Share of the GPU that vLLM takes for weights and cache; the trainer works in the rest."""
    cpu_cache_gib: PositiveInt = 1
    """Memory for vLLM's cache where it runs on a CPU."""
    max_sequences: PositiveInt = 1024
    """Most sequences that vLLM works on at once."""
    max_length: PositiveInt | None = None
    """Most tokens of a prompt with its completion; by default what the model has positions for."""
    cuda_graphs: bool = True
    """Capture CUDA graphs at the start, which takes a minute and speeds up decoding. There are none on a CPU."""
    timeout: PositiveFloat = 600.0
    """Seconds that a server has for one answer."""

    @property
    def takes_all_weights(self) -> bool:
        return self.url is None

    def attach(self, model: Served) -> InferenceEngine | None:
        if self.url is None:
            from soarctl.trainers.vllm_engine import vllm_engine

            return vllm_engine(self, model)
        if model.adapter is None:
            raise SamplerError(
                "a vLLM server takes adapters only, and the trainer's policies are all weights of the model",
                at="trainer.sampler.url",
                hint="leave it out: vLLM in this process takes all weights",
            )
        from soarctl.trainers.vllm_server import VllmServer

        return VllmServer(self, self.url, model, model.adapter)

    def facts(self) -> Mapping[str, Any]:
        if self.url is not None:
            return {"vllm": self.url}
        # Builds for other devices are packages of other names.
        found = {each.name: each.version for each in distributions() if each.name.lower().startswith("vllm")}
        return {"vllm": ", ".join(f"{name} {version}" for name, version in sorted(found.items())) or "not installed"}
