"""The trainer that ships with soarctl: LoRA fleets over a frozen model, on CPU or one GPU.

Options only, and no torch, so that specs are checked in an instant; `engine` does the work.
"""

import os
from typing import Literal

from pydantic import Field, PositiveFloat, PositiveInt, SerializeAsAny

from soarctl.api import Engine, ModelSource, Sampler, Trainer
from soarctl.trainers.decoder import DecoderSampler


class AccelerateTrainer(Trainer):
    """Trains LoRA adapters side by side over one frozen copy of the model."""

    rank: int = Field(default=16, ge=1, le=1024)
    """LoRA rank r."""
    alpha: PositiveFloat = 32.0
    """LoRA scale: an adapter adds alpha / rank * B A."""
    targets: tuple[str, ...] = Field(
        default=("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"), min_length=1
    )
    """Linear layers that get adapters, by the last parts of their names. The defaults are those of Llama, Qwen and
    Gemma."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Of the frozen weights; adapters and optimizer are fp32 always. `auto`: float32 on CPU, bfloat16 on a GPU."""
    mixed_precision: Literal["no", "bf16"] = "no"
    """`bf16` computes in bfloat16 over weights of another dtype, through accelerate's autocast."""
    device: Literal["auto", "cpu"] = "auto"
    """`auto`: what accelerate finds."""
    width: PositiveInt = 16
    """Students trained side by side. More need more memory and change no result beyond rounding."""
    micro_batch_tokens: PositiveInt | None = None
    """Most tokens in one forward and backward, padding included; halved when memory runs out. By default 2048 on a CPU,
    whose caches hold that much, and 16384 on a GPU."""
    max_sequences: PositiveInt = 4096
    """Most sequences sampled at once; halved when memory runs out."""
    attention: Literal["auto", "sdpa", "eager"] = "auto"
    """Implementation of attention in transformers. `auto`: sdpa where the architecture has it."""
    sampler: SerializeAsAny[Sampler] = DecoderSampler()
    """Where completions come from: a plug-in with its options. `decoder`: this trainer's own model."""
    max_logprob_gap: PositiveFloat | None = None
    """The run stops where an inference engine's log-probs are further than this from the trainer's, on average over
    the tokens of a policy's canary. By default 0.001 where the frozen weights are float32, and else 0.05."""
    importance_cap: PositiveFloat | None = None
    """Weigh each token of the policy gradient by min(cap, trainer's probability / sampler's): truncated importance
    sampling, for a sampler that rounds otherwise than the trainer. By default all tokens count alike."""

    def load(self, model: ModelSource, seed: int) -> Engine:
        # Threads that wait for each other by spinning cost a busy machine twenty times the time, and a quiet one saves
        # next to nothing. The runtime reads this once, when torch is imported.
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
        from soarctl.trainers.engine import load

        return load(self, model, seed)
