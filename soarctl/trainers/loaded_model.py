"""A base model on its device, and what samples from and trains through it, by way of accelerate."""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from functools import cache
from importlib.metadata import version
from typing import Any

import torch
from accelerate import Accelerator

from soarctl.api import AdapterShape, ModelError, ModelSource, Served
from soarctl.trainers import model_source
from soarctl.trainers.decode import Decoder
from soarctl.trainers.fleet import Machinery
from soarctl.trainers.fleet_weights import FleetWeights
from soarctl.trainers.forward import Forward
from soarctl.trainers.options import ModelTrainer
from soarctl.trainers.policy_gradient import PolicyGradient
from soarctl.trainers.shipped import Shipped


class LoadedModel:
    """A base model on its device.

    Raises:
        ModelError: as `Trainer.load`.
    """

    def __init__(self, trainer: ModelTrainer, source: ModelSource) -> None:
        self._trainer, self._source = trainer, source
        self._accelerator = _accelerator(trainer)
        device = self._accelerator.device
        dtype = trainer.dtype
        if dtype == "auto":
            dtype = "float32" if device.type == "cpu" else "bfloat16"
        attention = None if trainer.attention == "auto" else trainer.attention
        self.base = model_source.load(source, getattr(torch, dtype), attention)
        self.base.model.to(device)

    def machinery(self, weights: FleetWeights, adapter: AdapterShape | None, width: int) -> Machinery:
        """What fleets of these weights share.

        Args:
            weights: of the fleets.
            adapter: what their policies are, as in `Served`.
            width: how many of them are sampled from together.
        """
        trainer, base, accelerator = self._trainer, self.base, self._accelerator
        forward = Forward(base.model)

        def autocast() -> AbstractContextManager[None]:
            return accelerator.autocast()

        decoder = Decoder(
            forward,
            base.tokenizer,
            base.eos_ids(),
            max_sequences=trainer.max_sequences,
            chat_template=self._source.chat_template,
        )
        tokens = trainer.micro_batch_tokens or (2048 if accelerator.device.type == "cpu" else 8192)
        gradient = PolicyGradient(
            forward,
            weights,
            tokens=tokens,
            recompute=trainer.gradient_checkpointing,
            autocast=autocast,
            importance_cap=trainer.importance_cap,
        )
        # Not before it is needed: a policy is exported without an inference engine.
        shipped = cache(lambda: self._attach(forward, adapter, width))
        return Machinery(forward, weights, decoder, shipped, gradient, autocast)

    def _attach(self, forward: Forward, adapter: AdapterShape | None, width: int) -> Shipped | None:
        """What samples in place of the decoder, if the spec names it."""
        trainer, base = self._trainer, self.base
        served = Served(
            directory=base.directory,
            trust_remote_code=self._source.trust_remote_code,
            dtype=str(base.model.dtype).removeprefix("torch."),
            device=forward.device.type,
            max_length=forward.max_length,
            eos_ids=tuple(base.eos_ids()),
            adapter=adapter,
            width=width,
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
            max_gap=trainer.max_logprob_gap or (1e-4 if exact else 0.05),
        )

    @property
    def facts(self) -> Mapping[str, Any]:
        """As `Engine.facts`."""
        model, device = self.base.model, self._accelerator.device
        return {
            "base": self._source.base,
            "revision": self._source.revision,
            "commit": self.base.commit,
            "weights_sha256": self.base.weight_hashes(),
            "architecture": type(model).__name__,
            "parameters": model.num_parameters(),
            "dtype": str(model.dtype).removeprefix("torch."),
            "mixed_precision": self._trainer.mixed_precision,
            "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
            "versions": {name: version(name) for name in ("torch", "transformers", "accelerate")},
        }


def _accelerator(trainer: ModelTrainer) -> Accelerator:
    try:
        return Accelerator(mixed_precision=trainer.mixed_precision, cpu=trainer.device == "cpu")
    except ValueError as error:
        # accelerate keeps one state per process.
        raise ModelError(
            f"accelerate refuses device {trainer.device} with mixed_precision {trainer.mixed_precision}: {error}"
        ) from error
