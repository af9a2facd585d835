"""A base model in memory, with everything that samples from and trains on it, through accelerate."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator

from soarctl.api import AdapterShape, Engine, Fleet, ModelError, ModelSource, Optimizer, Policy, Served
from soarctl.trainers import model_source
from soarctl.trainers.accelerate import AccelerateTrainer
from soarctl.trainers.decode import Decoder
from soarctl.trainers.export import export_adapter, export_merged
from soarctl.trainers.fleet import AdapterFleet, Machinery
from soarctl.trainers.fleet_linear import install
from soarctl.trainers.fleet_weights import AdapterLayout
from soarctl.trainers.forward import Forward
from soarctl.trainers.model_source import BaseModel
from soarctl.trainers.policy_gradient import PolicyGradient
from soarctl.trainers.shipped import Shipped


def load(trainer: AccelerateTrainer, model: ModelSource, seed: int) -> "AccelerateEngine":
    """What `Trainer.load` promises, for these options."""
    accelerator = _accelerator(trainer)
    dtype = trainer.dtype
    if dtype == "auto":
        dtype = "float32" if accelerator.device.type == "cpu" else "bfloat16"
    base = model_source.load(model, getattr(torch, dtype), None if trainer.attention == "auto" else trainer.attention)
    base.model.to(accelerator.device)
    return AccelerateEngine(trainer, model, base, accelerator, seed)


def _accelerator(trainer: AccelerateTrainer) -> Accelerator:
    try:
        return Accelerator(mixed_precision=trainer.mixed_precision, cpu=trainer.device == "cpu")
    except ValueError as error:
        # accelerate keeps one state per process.
        raise ModelError(
            f"accelerate refuses device {trainer.device} with mixed_precision {trainer.mixed_precision}: {error}"
        ) from error


class AccelerateEngine(Engine):
    """A model in memory, with layers that fleets bind their adapters to."""

    def __init__(
        self, trainer: AccelerateTrainer, source: ModelSource, base: BaseModel, accelerator: Accelerator, seed: int
    ) -> None:
        self._trainer, self._source, self._base, self._seed = trainer, source, base, seed
        layers = install(base.model, trainer.targets)
        layout = AdapterLayout(layers, trainer.rank, trainer.alpha / trainer.rank)
        forward = Forward(base.model)

        def autocast() -> AbstractContextManager[None]:
            return accelerator.autocast()

        decoder = Decoder(
            forward,
            base.tokenizer,
            base.eos_ids(),
            max_sequences=trainer.max_sequences,
            chat_template=source.chat_template,
        )
        tokens = trainer.micro_batch_tokens or (2048 if accelerator.device.type == "cpu" else 16384)
        gradient = PolicyGradient(
            forward, layout, tokens=tokens, autocast=autocast, importance_cap=trainer.importance_cap
        )
        # Not before it is needed: a policy is exported without an inference engine.
        self.machinery = Machinery(forward, layout, decoder, cache(self._attach), gradient, autocast)

    def _attach(self) -> Shipped | None:
        trainer, base, machinery = self._trainer, self._base, self.machinery
        shape = AdapterShape(trainer.rank, trainer.alpha, tuple(machinery.layout.layers))
        served = Served(
            directory=base.directory,
            trust_remote_code=self._source.trust_remote_code,
            dtype=str(base.model.dtype).removeprefix("torch."),
            device=machinery.forward.device.type,
            max_length=machinery.forward.max_length,
            eos_ids=tuple(base.eos_ids()),
            adapter=shape,
            width=trainer.width,
            seed=self._seed,
        )
        engine = trainer.sampler.attach(served)
        if engine is None:
            return None
        exact = served.dtype == "float32" and trainer.mixed_precision == "no"
        return Shipped(
            engine,
            base.tokenizer,
            served.eos_ids,
            max_length=served.max_length,
            chat_template=self._source.chat_template,
            max_gap=trainer.max_logprob_gap or (0.001 if exact else 0.05),
        )

    @property
    def width(self) -> int:
        return self._trainer.width

    @property
    def facts(self) -> Mapping[str, Any]:
        model, device = self._base.model, self.machinery.forward.device
        return {
            "base": self._source.base,
            "revision": self._source.revision,
            "commit": self._base.commit,
            "weights_sha256": self._base.weight_hashes(),
            "architecture": type(model).__name__,
            "parameters": model.num_parameters(),
            "adapter_parameters": self.machinery.layout.size,
            "dtype": str(model.dtype).removeprefix("torch."),
            "mixed_precision": self._trainer.mixed_precision,
            "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
            "versions": {name: version(name) for name in ("torch", "transformers", "accelerate")},
            "sampler": dict(self._trainer.sampler.facts()),
        }

    def start(self) -> Policy:
        return self.machinery.layout.start(self._seed)

    def fleet(self, starts_S: Sequence[Policy], optimizer: Optimizer) -> Fleet:
        return AdapterFleet(self.machinery, starts_S, optimizer)

    def export(self, policy: Policy, directory: Path, *, merge: bool) -> None:
        if merge:
            export_merged(self._base, self.machinery.layout, policy, directory)
        else:
            export_adapter(self._base, self._source.base, self.machinery.layout, policy, directory)
