"""All weights of a model as those of its policies, which take turns in it."""

from collections.abc import Generator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from soarctl.api import Policy
from soarctl.trainers.fleet_weights import FleetWeights


class FullWeights(FleetWeights):
    """Every parameter of the model, tied ones once; buffers stay as they are.

    A row holds fp32 master weights; the model's own parameters, of whatever dtype, are the working copy that the
    row is written into, anew for every batch: that costs a thousandth of the batch, and so no copy is ever stale. Rows
    are served one at a time.
    """

    def __init__(self, model: nn.Module) -> None:
        self._parameters = dict(model.requires_grad_(True).named_parameters())
        super().__init__({name: tuple(parameter.shape) for name, parameter in self._parameters.items()})
        # Resident, in the model's dtype: what every policy started from and the KL term looks back to.
        self._base = {name: parameter.detach().clone() for name, parameter in self._parameters.items()}

    def start(self) -> Policy:
        arrays = {name: tensor.float().cpu().numpy() for name, tensor in self._base.items()}
        for array in arrays.values():
            array.flags.writeable = False  # it may be the resident copy itself
        return Policy(arrays)

    @contextmanager
    def sampling(self, rows_S_P: Tensor) -> Generator[None]:
        with self.learning(rows_S_P):
            yield

    @contextmanager
    def learning(self, rows_S_P: Tensor) -> Generator[Mapping[str, Tensor]]:
        [row_P] = rows_S_P
        self._write({name: view[0] for name, view in self.views(row_P[None]).items()})
        yield self._parameters

    @contextmanager
    def base(self) -> Generator[None]:
        self._write(self._base)
        yield

    @torch.no_grad()
    def _write(self, tensors: Mapping[str, Tensor]) -> None:
        for name, parameter in self._parameters.items():
            parameter.copy_(tensors[name])
