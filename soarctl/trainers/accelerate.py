"""The trainer that ships with soarctl: LoRA fleets over a frozen model, on CPU or one GPU.

Options only, and no torch, so that specs are checked in an instant; `engine` does the work.
"""

from pydantic import Field, PositiveFloat, PositiveInt

from soarctl.api import Engine, ModelSource
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

    def load(self, model: ModelSource, seed: int) -> Engine:
        before_torch()
        from soarctl.trainers.engine import AccelerateEngine

        return AccelerateEngine(self, model, seed)
