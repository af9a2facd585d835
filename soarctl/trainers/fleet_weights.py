"""The adapters of a fleet: S rows of one tensor, seen as matrices by name."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import prod

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from soarctl.api import ModelError, Policy, Stream
from soarctl.trainers.fleet_linear import FleetLinear, LowRank, Merged

# Copies of the base's weights that decoding may make, in numbers (256 MB in fp32): a matter of small models.
MERGED_NUMBERS = 2**26


@dataclass(frozen=True)
class AdapterLayout:
    """Where each adapter matrix of one policy stands in its row of P numbers."""

    layers: Mapping[str, FleetLinear]
    rank: int
    scale: float
    """alpha / rank: what B A is multiplied with."""

    @cached_property
    def shapes(self) -> dict[str, tuple[int, int]]:
        """By tensor name: `<layer>.lora_A` is (rank, in) and `<layer>.lora_B` (out, rank)."""
        shapes = dict[str, tuple[int, int]]()
        for name, layer in self.layers.items():
            shapes[f"{name}.lora_A"] = (self.rank, layer.in_features)
            shapes[f"{name}.lora_B"] = (layer.out_features, self.rank)
        return shapes

    @property
    def size(self) -> int:
        """P: trained numbers per policy."""
        return sum(prod(shape) for shape in self.shapes.values())

    def views(self, rows_S_P: Tensor) -> dict[str, Tensor]:
        """Each matrix, stacked over S, as a view."""
        views, at = dict[str, Tensor](), 0
        for name, shape in self.shapes.items():
            views[name] = rows_S_P[:, at : at + prod(shape)].unflatten(1, shape)
            at += prod(shape)
        return views

    def start(self, seed: int) -> Policy:
        """An adapter that changes nothing yet: A uniform in +-1/sqrt(in) as in PEFT, B zero."""
        tensors = dict[str, NDArray[np.float32]]()
        for name, shape in self.shapes.items():
            if name.endswith(".lora_B"):
                tensors[name] = np.zeros(shape, np.float32)
            else:
                uniforms = Stream(("adapter", seed, name)).uniforms(*shape)
                tensors[name] = ((2 * uniforms - 1) / shape[1] ** 0.5).astype(np.float32)
        return Policy(tensors)

    def rows(self, policies_S: Sequence[Policy]) -> Tensor:
        """rows_S_P, fp32.

        Raises:
            ModelError: a policy is not an adapter of this model, rank and choice of layers.
        """
        rows_S_P = torch.empty(len(policies_S), self.size)
        views = self.views(rows_S_P)
        for s, policy in enumerate(policies_S):
            found = {name: array.shape for name, array in policy.tensors.items()}
            if found != self.shapes:
                raise ModelError(_difference(found, self.shapes), hint="was it made with other trainer options?")
            for name, array in policy.tensors.items():
                views[name][s] = torch.from_numpy(np.array(array))
        return rows_S_P

    def policy(self, row_P: Tensor) -> Policy:
        """A copy of one row, by name."""
        views = self.views(row_P.detach().cpu().unsqueeze(0))
        return Policy({name: view[0].numpy().copy() for name, view in views.items()})

    def low_rank(self, tensors: Mapping[str, Tensor], dtype: torch.dtype) -> dict[str, LowRank]:
        """What to bind to the layers, given matrices stacked over the policies that rows belong to."""
        # The scale is applied and the cast done once here, not at every call of a layer.
        return {
            name: LowRank(tensors[f"{name}.lora_A"].to(dtype), (tensors[f"{name}.lora_B"] * self.scale).to(dtype))
            for name in self.layers
        }

    def for_decoding(self, rows_S_P: Tensor, dtype: torch.dtype) -> dict[str, LowRank | Merged]:
        """What to bind where nothing is trained: merged weights if that loses nothing and they are small."""
        adapters = self.low_rank(self.views(rows_S_P), dtype)
        numbers = rows_S_P.shape[0] * sum(layer.weight.numel() for layer in self.layers.values())
        # Adding an adapter to bf16 weights would round most of it away.
        if dtype != torch.float32 or numbers > MERGED_NUMBERS:
            return dict(adapters)
        return dict(self._merge(adapters))

    def _merge(self, adapters: Mapping[str, LowRank]) -> Iterator[tuple[str, Merged]]:
        for name, adapter in adapters.items():
            weight_S_out_in = torch.baddbmm(self.layers[name].weight, adapter.B_S_out_r, adapter.A_S_r_in)
            yield name, Merged(weight_S_out_in.mT.contiguous())


def _difference(found: Mapping[str, tuple[int, ...]], expected: Mapping[str, tuple[int, ...]]) -> str:
    for name, shape in expected.items():
        if name not in found:
            return f'the policy has no tensor "{name}"'
        if found[name] != shape:
            return f"the policy's tensor \"{name}\" is {found[name]}, the trainer's is {shape}"
    return f'the policy has a tensor "{min(found.keys() - expected.keys())}" that the trainer does not train'
