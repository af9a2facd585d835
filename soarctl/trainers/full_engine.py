"""The engine of the full trainer: policies that are all weights of a model, and take turns in it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from soarctl.api import Engine, Fleet, ModelError, ModelSource, Optimizer, Policy
from soarctl.trainers.export import export_model
from soarctl.trainers.fleet import ModelFleet
from soarctl.trainers.full import FullTrainer
from soarctl.trainers.full_weights import FullWeights
from soarctl.trainers.loaded_model import LoadedModel
from soarctl.trainers.turns import Turns, TurnsFleet


class FullEngine(Engine):
    """A model in memory, that the weights of one policy after another are written into."""

    def __init__(self, trainer: FullTrainer, source: ModelSource) -> None:
        self._trainer = trainer
        self._loaded = LoadedModel(trainer, source)
        self._weights = FullWeights(self._loaded.base.model)
        self.machinery = self._loaded.machinery(self._weights, adapter=None, width=1)
        self._turns = Turns(self.machinery.forward.device)

    @property
    def width(self) -> int:
        return self._trainer.width

    @property
    def share(self) -> int:
        return self._trainer.max_sequences

    @property
    def facts(self) -> Mapping[str, Any]:
        sampler = dict(self._trainer.sampler.facts())
        return {**self._loaded.facts, "trained_parameters": self._weights.size, "sampler": sampler}

    @property
    def repeats(self) -> bool:
        return self._loaded.repeats

    def start(self) -> Policy:
        return self._weights.start()

    def fleet(self, starts_S: Sequence[Policy], optimizer: Optimizer) -> Fleet:
        # Made in host memory: the device may be full of the policy whose turn it is.
        host = torch.device("cpu")
        return TurnsFleet([ModelFleet(self.machinery, [start], optimizer, host) for start in starts_S], self._turns)

    def export(self, policy: Policy, directory: Path, *, merge: bool) -> None:
        if not merge:
            raise ModelError(
                "the full trainer's policies are whole models, none is an adapter",
                hint="export it as a full model: --merge",
            )
        export_model(self._loaded.base, self._weights, policy, directory)
