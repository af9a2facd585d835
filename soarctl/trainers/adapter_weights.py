"""LoRA adapters of a fleet, bound to the layers of a frozen model."""

from collections.abc import Generator, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from soarctl.api import Policy, Stream
from soarctl.trainers.fleet_linear import FleetLinear, LowRank, Merged, bound
from soarctl.trainers.fleet_weights import FleetWeights

# Copies of the base's weights that decoding may make, in numbers (256 MB in fp32): a matter of small models.
MERGED_NUMBERS = 2**26


class AdapterWeights(FleetWeights):
    """Two matrices for each layer: `<layer>.lora_A` is (rank, in) and `<layer>.lora_B` (out, rank)."""

    def __init__(
        self, layers: Mapping[str, FleetLinear], dtype: torch.dtype, *, rank: int, scale: float, seed: int
    ) -> None:
        """
        Args:
            layers: of the model, by name.
            dtype: that the model computes in.
            rank: r.
            scale: alpha / rank, what B A is multiplied with.
            seed: decides the start.
        """
        shapes = dict[str, tuple[int, int]]()
        for name, layer in layers.items():
            shapes[f"{name}.lora_A"] = (rank, layer.in_features)
            shapes[f"{name}.lora_B"] = (layer.out_features, rank)
        super().__init__(shapes)
        self.layers, self.rank, self.scale = layers, rank, scale
        self._dtype, self._seed = dtype, seed

    def start(self) -> Policy:
        """An adapter that changes nothing yet: A uniform in +-1/sqrt(in) as in PEFT, B zero."""
        tensors = dict[str, NDArray[np.float32]]()
        for name, shape in self.shapes.items():
            if name.endswith(".lora_B"):
                tensors[name] = np.zeros(shape, np.float32)
            else:
                uniforms = Stream(("adapter", self._seed, name)).uniforms(*shape)
                tensors[name] = ((2 * uniforms - 1) / shape[1] ** 0.5).astype(np.float32)
        return Policy(tensors)

    def sampling(self, rows_S_P: Tensor) -> AbstractContextManager[None]:
        adapters = self._low_rank(self.views(rows_S_P))
        numbers = rows_S_P.shape[0] * sum(layer.weight.numel() for layer in self.layers.values())
        # Merged weights are quicker where they are small and lose nothing: adding an adapter to bf16 weights would
        # round most of it away.
        if self._dtype != torch.float32 or numbers > MERGED_NUMBERS:
            return bound(self.layers, adapters)
        return bound(self.layers, dict(self._merge(adapters)))

    @contextmanager
    def learning(self, rows_S_P: Tensor) -> Generator[Mapping[str, Tensor]]:
        leaves = {name: view.detach().requires_grad_() for name, view in self.views(rows_S_P).items()}
        with bound(self.layers, self._low_rank(leaves)):
            yield leaves

    def base(self) -> AbstractContextManager[None]:
        return bound(self.layers, {})

    def _low_rank(self, tensors: Mapping[str, Tensor]) -> dict[str, LowRank]:
        """What to bind to the layers, given matrices stacked over the policies that rows belong to."""
        # The scale is applied and the cast done once here, not at every call of a layer.
        return {
            name: LowRank(
                tensors[f"{name}.lora_A"].to(self._dtype), (tensors[f"{name}.lora_B"] * self.scale).to(self._dtype)
            )
            for name in self.layers
        }

    def _merge(self, adapters: Mapping[str, LowRank]) -> Iterator[tuple[str, Merged]]:
        for name, adapter in adapters.items():
            weight_S_out_in = torch.baddbmm(self.layers[name].weight, adapter.B_S_out_r, adapter.A_S_r_in)
            yield name, Merged(weight_S_out_in.mT.contiguous())
