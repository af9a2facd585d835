"""Options that all trainers share which hold a transformers model in memory. No torch, as in every entry point."""

import os
from abc import ABC
from typing import Literal

from pydantic import PositiveFloat, PositiveInt, SerializeAsAny

from soarctl.api import ModelSource, Sampler, Trainer
from soarctl.trainers.decoder import DecoderSampler
from soarctl.trainers.model_place import local_place


class ModelTrainer(Trainer, ABC):
    """A trainer with one model in memory, through accelerate, on a CPU or one GPU."""

    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Of the weights that compute; what is trained is fp32 always, and so is its optimizer. `auto`: float32 on CPU,
    bfloat16 on a GPU."""
    mixed_precision: Literal["no", "bf16"] = "no"
    """`bf16` computes in bfloat16 over weights of another dtype, through accelerate's autocast."""
    device: Literal["auto", "cpu"] = "auto"
    """`auto`: what accelerate finds."""
    micro_batch_tokens: PositiveInt | None = None
    """Most tokens in one forward and backward, padding included; halved when memory runs out. By default 2048 on a CPU,
    whose caches hold that much, and 8192 on a GPU."""
    gradient_checkpointing: bool | Literal["auto"] = "auto"
    """Whether layers are worked out again in backward instead of kept: the same gradients, for a third of the memory or
    less and a forward more. `auto`: once memory has run out."""
    max_sequences: PositiveInt = 4096
    """Most sequences sampled at once; halved for what is being sampled when memory runs out."""
    attention: Literal["auto", "sdpa", "eager"] = "auto"
    """Implementation of attention in transformers. `auto`: sdpa where the architecture has it."""
    sampler: SerializeAsAny[Sampler] = DecoderSampler()
    """Where completions come from: a plug-in with its options. `decoder`: this trainer's own model."""
    max_logprob_gap: PositiveFloat | None = None
    """The run stops where an inference engine's log-probs are further than this from the trainer's, on average over
    the tokens of a policy's canary. By default 1e-4 where the weights that compute are float32, and else 0.05."""
    importance_cap: PositiveFloat | None = None
    """Weigh each token of the policy gradient by min(cap, trainer's probability / sampler's): truncated importance
    sampling, for a sampler that rounds otherwise than the trainer. By default all tokens count alike."""

    def find(self, model: ModelSource) -> None:
        local_place(model.base)


def before_torch() -> None:
    """What is to be set before torch is imported for the first time."""
    # Threads that wait for each other by spinning for long cost a busy machine twenty times the time; putting them to
    # sleep at once costs a quiet one 1.8 times. A few microseconds of spinning cost neither more than a fifth.
    # The runtime reads this once, when torch is imported.
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "5000")
