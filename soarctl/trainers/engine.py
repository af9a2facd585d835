"""The engine of the accelerate trainer: LoRA fleets beside one frozen model."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from soarctl.api import AdapterShape, Engine, Fleet, ModelSource, Optimizer, Policy
from soarctl.trainers.accelerate import AccelerateTrainer
from soarctl.trainers.adapter_weights import AdapterWeights
from soarctl.trainers.export import export_adapter, export_merged
from soarctl.trainers.fleet import ModelFleet
from soarctl.trainers.fleet_linear import install
from soarctl.trainers.loaded_model import LoadedModel


class AccelerateEngine(Engine):
    """A model in memory, with layers that fleets bind their adapters to."""

    def __init__(self, trainer: AccelerateTrainer, source: ModelSource, seed: int) -> None:
        self._trainer, self._source, self._seed = trainer, source, seed
        self._loaded = LoadedModel(trainer, source)
        model = self._loaded.base.model
        self._adapters = AdapterWeights(
            install(model, trainer.targets),
            model.dtype,
            rank=trainer.rank,
            scale=trainer.alpha / trainer.rank,
            seed=seed,
        )
        shape = AdapterShape(trainer.rank, trainer.alpha, tuple(self._adapters.layers))
        self.machinery = self._loaded.machinery(self._adapters, shape, trainer.width)

    @property
    def width(self) -> int:
        return self._trainer.width

    @property
    def share(self) -> int:
        return self._trainer.max_sequences

    @property
    def facts(self) -> Mapping[str, Any]:
        sampler = dict(self._trainer.sampler.facts())
        return {**self._loaded.facts, "adapter_parameters": self._adapters.size, "sampler": sampler}

    @property
    def repeats(self) -> bool:
        return self._loaded.repeats

    def start(self) -> Policy:
        return self._adapters.start()

    def fleet(self, starts_S: Sequence[Policy], optimizer: Optimizer) -> Fleet:
        optimizer = replace(optimizer, lr=optimizer.lr * self._trainer.lr_scale)
        return ModelFleet(self.machinery, starts_S, optimizer, self.machinery.forward.device)

    def export(self, policy: Policy, directory: Path, *, merge: bool) -> None:
        if merge:
            export_merged(self._loaded.base, self._adapters, policy, directory)
        else:
            export_adapter(self._loaded.base, self._source.base, self._adapters, policy, directory)
