"""Policies as vLLM in this process holds them: adapters beside its model, or the weights of the model itself."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain, count
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from soarctl.api import AdapterShape, Policy, SamplerError
from soarctl.trainers.fleet_weights import Lent
from soarctl.trainers.shipped_adapters import AdapterFolder
from soarctl.trainers.vllm_sampler import largest_rank


class Policies(ABC):
    """What vLLM was sent, by name."""

    @property
    @abstractmethod
    def options(self) -> Mapping[str, Any]:
        """What vLLM is to be started with, to have room for them."""

    @abstractmethod
    def update(self, llm: Any, added: Mapping[str, Policy], removed: Sequence[str]) -> None:
        """As `InferenceEngine.update`."""

    @abstractmethod
    def named(self, names: Sequence[str]) -> Sequence[Any] | None:
        """How vLLM is asked for each of these; None where it has no choice."""


class Adapters(Policies):
    """Every policy is a LoRA adapter, and requests of all of them share vLLM's batches.

    Requests always name an adapter: rows without one are wrong where others of their batch have one (vLLM on CPU), so
    the base model is sent as an adapter too, which is zero.
    """

    def __init__(self, folder: AdapterFolder, shape: AdapterShape, width: int, request: Any) -> None:
        """`request` is vLLM's class."""
        self._folder, self._shape, self._width, self._request = folder, shape, width, request
        self._numbers = count(1)
        self._held = dict[str, Any]()
        """vLLM's request for each adapter, by name."""

    @property
    def options(self) -> Mapping[str, Any]:
        rank = largest_rank(self._shape.rank)
        room = {"max_loras": self._width, "max_cpu_loras": 2 * self._width}
        return {"enable_lora": True, "max_lora_rank": rank, **room}

    def update(self, llm: Any, added: Mapping[str, Policy], removed: Sequence[str]) -> None:
        # No request is under way here, so none can be given an adapter that is only half loaded.
        for name in removed:
            llm.llm_engine.remove_lora(self._held.pop(name).lora_int_id)
            self._folder.forget(name)
        for name, policy in added.items():
            path = self._folder.write(name, policy)
            # Loading under a known number would serve what was loaded first.
            request = self._request(name, next(self._numbers), str(path))
            llm.llm_engine.add_lora(request)
            self._held[name] = request
        # Prompts are cached by adapter, so this frees memory and changes nothing.
        llm.reset_prefix_cache()

    def named(self, names: Sequence[str]) -> Sequence[Any]:
        return [self._held[name] for name in names]


class AllWeights(Policies):
    """One policy at a time, whose weights are written over those of vLLM's own model."""

    def __init__(self, dtype: torch.dtype) -> None:
        self._dtype = dtype
        self._held: str | None = None

    @property
    def options(self) -> Mapping[str, Any]:
        return {}

    def update(self, llm: Any, added: Mapping[str, Policy], removed: Sequence[str]) -> None:
        if self._held in removed:
            self._held = None
        if not added:
            return
        if len(added) > 1:
            raise SamplerError(
                f"vLLM holds all weights of one policy at a time, and was sent {len(added)}", at="trainer.sampler"
            )
        [(name, policy)] = added.items()
        # Weights that are only half written are nobody's.
        self._held = None
        # Writing to vLLM's parameters is not enough: on a CPU its layers compute with packed copies of them. This packs
        # anew, layer by layer, and keeps every address that a captured graph reads from.
        [tied] = llm.apply_model(_tied)
        llm.collective_rpc("reload_weights", kwargs={"weights_iterator": self._tensors(policy, tied)})
        # Cached prompts were read with the weights before.
        if not llm.reset_prefix_cache():
            raise SamplerError("vLLM keeps its cache of prompts, which other weights have read", at="trainer.sampler")
        self._held = name

    def named(self, names: Sequence[str]) -> None:
        for name in names:
            if name != self._held:
                raise SamplerError(
                    f"vLLM holds the weights of {self._held or 'no policy'}, and {name} was asked for",
                    at="trainer.sampler",
                )

    def _tensors(self, policy: Policy, tied: Mapping[str, str]) -> Iterator[tuple[str, Tensor]]:
        """In vLLM's dtype, one after another: a second copy of all of them may find no room."""
        found = policy.tensors
        for name, of in chain(zip(found, found, strict=True), tied.items()):
            # What is on vLLM's device already need not leave it.
            tensor = found.views[of] if isinstance(found, Lent) else torch.from_numpy(np.array(found[of]))
            yield name, tensor.to(self._dtype)


def _tied(model: nn.Module) -> dict[str, str]:
    """Further names of a model's parameters, with the first name of each.

    A policy has such a parameter once, and a layer that is not sent its own does not pack it anew.
    """
    first, further = dict[int, str](), dict[str, str]()
    for name, parameter in model.named_parameters(remove_duplicate=False):
        known = first.setdefault(id(parameter), name)
        if known != name:
            further[name] = known
    return further
