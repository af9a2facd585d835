"""The trainer that ships with soarctl: LoRA fleets over a frozen model, on CPU or one GPU.

Options only, and no torch, so that specs are checked in an instant; `engine` does the work.
"""

from pydantic import Field, PositiveFloat, PositiveInt, SerializeAsAny

from soarctl.api import Engine, ModelSource, Sampler
from soarctl.trainers.decoder import DecoderSampler
from soarctl.trainers.options import ModelTrainer, before_torch


class AccelerateTrainer(ModelTrainer):
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
    lr_scale: PositiveFloat = 1.0
    """Adapters learn at this many times the spec's learning rates, which may then be those of all weights: adapters
    want about ten times as much (Schulman et al. 2025, thinkingmachines.ai/blog/lora)."""
    width: PositiveInt = 16
    """Students trained side by side. More need more memory and change no result beyond rounding."""
    sampler: SerializeAsAny[Sampler] = DecoderSampler()
    """Where completions come from: a plug-in with its options. `decoder`: this trainer's own model."""
    max_logprob_gap: PositiveFloat | None = None
    """The run stops where an inference engine's log-probs are further than this from the trainer's, on average over
    the tokens of a policy's canary. By default 1e-4 where the frozen weights are float32, and else 0.05."""
    importance_cap: PositiveFloat | None = None
    """Weigh each token of the policy gradient by min(cap, trainer's probability / sampler's): truncated importance
    sampling, for a sampler that rounds otherwise than the trainer. By default all tokens count alike."""

    def load(self, model: ModelSource, seed: int) -> Engine:
        before_torch()
        from soarctl.trainers.engine import AccelerateEngine

        return AccelerateEngine(self, model, seed)
