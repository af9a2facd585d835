"""Full fine-tuning, as in the paper: every weight of the model is trained.

Options only, and no torch; `full_engine` does the work.
"""

from typing import ClassVar

from pydantic import PositiveInt, field_validator

from soarctl.api import Engine, ModelSource, Sampler
from soarctl.trainers.options import ModelTrainer, before_torch


class FullTrainer(ModelTrainer):
    """Trains all weights of the model, in fp32, with policies that take turns in one copy of it."""

    trains_all_weights: ClassVar[bool] = True

    width: PositiveInt = 1
    """Students in memory at the same time. They train one after another all the same: each has four times the model's
    size in fp32 numbers, so more of them cost memory and save nothing."""

    @field_validator("sampler")
    @classmethod
    def _takes_all_weights(cls, sampler: Sampler) -> Sampler:
        if not sampler.takes_all_weights:
            raise ValueError(
                "with these options the sampler takes adapters only, and this trainer's policies are all weights of "
                "the model: let vllm run in this process, without a url, or train adapters with plugin: accelerate"
            )
        return sampler

    def load(self, model: ModelSource, seed: int) -> Engine:
        before_torch()
        from soarctl.trainers.full_engine import FullEngine

        return FullEngine(self, model)
