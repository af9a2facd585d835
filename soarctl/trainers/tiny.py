"""A trainer that makes its own base model: a small Llama trained on texts of the domain, then LoRA fleets over it.

Options only, and no torch; `pretrain` trains and the accelerate trainer does the rest.
"""

from pathlib import Path

from pydantic import Field, PositiveFloat, PositiveInt

from soarctl.api import DataError, Engine, ModelSource, Trainer


class TinyTrainer(Trainer):
    """Trains a small base model on texts, in half a minute on a CPU, where `model.base` names a directory that is not
    there yet; what it samples and learns afterwards is the accelerate trainer's matter."""

    texts: Path
    """JSON lines with `prompt` and `completion`: what the base model is to know, mistakes included."""
    updates: PositiveInt = 600
    """Updates of the base model."""
    batch_size: PositiveInt = 64
    """Texts in each of them."""
    lr: PositiveFloat = 3e-3
    """Peak learning rate of the base model."""
    hidden: int = Field(default=64, ge=8, multiple_of=8)
    """Width of the base model."""
    layers: PositiveInt = 2
    """Blocks of the base model."""
    vocabulary: int = Field(default=320, ge=258)
    """Most tokens: 256 bytes, 2 marks and the most frequent pieces of the texts."""
    rank: int = Field(default=8, ge=1, le=1024)
    """LoRA rank r."""
    alpha: PositiveFloat = 16.0
    """LoRA scale: an adapter adds alpha / rank * B A."""
    width: PositiveInt = 8
    """Students trained side by side."""

    def find(self, model: ModelSource) -> None:
        if not self.texts.is_file():
            raise DataError(f"no such file: {self.texts}", at="trainer.texts")

    def load(self, model: ModelSource, seed: int) -> Engine:
        from soarctl.trainers.accelerate import AccelerateTrainer
        from soarctl.trainers.pretrain import pretrain

        # Not by the run's seed: runs that differ in seed are to start from one model.
        pretrain(self, Path(model.base))
        lora = AccelerateTrainer(rank=self.rank, alpha=self.alpha, width=self.width, device="cpu")
        return lora.load(model, seed)
