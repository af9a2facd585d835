"""A base model on its device, and what samples from and trains through it, by way of accelerate."""

import os
import re
from collections.abc import Mapping
from contextlib import AbstractContextManager
from functools import cache, cached_property
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
        attend_without_cudnn(device)
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
    def repeats(self) -> bool:
        """As `Engine.repeats`.

        A GPU, and any 16 bit number, rounds by how many rows a batch has, and that depends on what the process did
        before: where memory ran out the rest went by halves.
        """
        exact = self.base.model.dtype == torch.float32 and self._trainer.mixed_precision == "no"
        return self._trainer.sampler.repeats and exact and self._accelerator.device.type == "cpu"

    @cached_property
    def facts(self) -> Mapping[str, Any]:
        """As `Engine.facts`. Found once: hashing the weights of a large model takes many seconds."""
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


def attend_without_cudnn(device: torch.device) -> None:
    """Keeps sdpa on a GPU from cuDNN's kernels, in the whole process."""
    # From torch 2.11 on sdpa prefers them on an H100 or H200. cuDNN makes a plan for each exact shape and keeps it, and
    # here nearly every call has a new one: each token sampled makes keys longer, rows leave the batch, blocks of
    # training are as long as what was sampled (pytorch#190388, #190321, huggingface/transformers#48163).
    if device.type == "cuda":
        torch.backends.cuda.enable_cudnn_sdp(False)


def _accelerator(trainer: ModelTrainer) -> Accelerator:
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    # Other values, "-1" or Slurm's "NoDevFiles", ask for none.
    if trainer.device == "auto" and re.match(r"\d|GPU-|MIG-", visible) and not torch.cuda.is_available():
        raise ModelError(
            f"CUDA_VISIBLE_DEVICES is {visible!r}, but torch finds no such GPU",
            hint="name a GPU that `nvidia-smi -L` lists, and install a torch that was built for its driver;\n"
            "or compute on the CPU: `--set trainer.device=cpu`",
        )
    try:
        return Accelerator(mixed_precision=trainer.mixed_precision, cpu=trainer.device == "cpu")
    except ValueError as error:
        # accelerate keeps one state per process.
        raise ModelError(
            f"accelerate refuses device {trainer.device} with mixed_precision {trainer.mixed_precision}: {error}"
        ) from error
