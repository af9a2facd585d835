"""The weights of a fleet: S rows of one tensor, seen as tensors by name, and a model that answers with them."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import cached_property
from math import prod
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from soarctl.api import ModelError, Policy

Shapes = Mapping[str, tuple[int, ...]]


class Lent(Mapping[str, NDArray[Any]]):
    """A policy's tensors where they are, on whatever device: an array is copied when it is asked for, and not kept.

    So that all weights of a model need no second room, and need not leave the device for an engine that shares it.
    """

    def __init__(self, views: Mapping[str, Tensor]) -> None:
        self.views = views

    def __getitem__(self, name: str) -> NDArray[Any]:
        return self.views[name].to("cpu", copy=True).numpy()

    def __iter__(self) -> Iterator[str]:
        return iter(self.views)

    def __len__(self) -> int:
        return len(self.views)


class FleetWeights(ABC):
    """Where each tensor of a policy stands in its row of P numbers, and how a model answers with rows of them.

    A model is shared by all fleets of an engine. Nobody may count on what it answered as before: whoever calls it
    says within which of the three contexts.
    """

    def __init__(self, shapes: Shapes) -> None:
        self.shapes = shapes
        """Of one policy's tensors, by name."""

    @abstractmethod
    def start(self) -> Policy:
        """The base model as a policy."""

    @abstractmethod
    def sampling(self, rows_S_P: Tensor) -> AbstractContextManager[None]:
        """Within it the model answers as these policies, each for an equal part of a batch's rows."""

    @abstractmethod
    def learning(self, rows_S_P: Tensor) -> AbstractContextManager[Mapping[str, Tensor]]:
        """The same with gradients: gives the leaves to take them of, by name, shaped like `views` of the rows."""

    @abstractmethod
    def base(self) -> AbstractContextManager[None]:
        """Within it the model answers as the base model."""

    @cached_property
    def size(self) -> int:
        """P: trained numbers per policy."""
        return sum(prod(shape) for shape in self.shapes.values())

    def views(self, rows_S_P: Tensor) -> dict[str, Tensor]:
        """Each tensor, stacked over S, as a view."""
        views, at = dict[str, Tensor](), 0
        for name, shape in self.shapes.items():
            views[name] = rows_S_P[:, at : at + prod(shape)].view(-1, *shape)
            at += prod(shape)
        return views

    def rows(self, policies_S: Sequence[Policy]) -> Tensor:
        """rows_S_P, fp32, in host memory.

        Raises:
            ModelError: a policy has other tensors.
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

    def lent(self, row_P: Tensor) -> Policy:
        """One row by name, which changes with the row."""
        views = self.views(row_P.detach().unsqueeze(0))
        return Policy(Lent({name: view[0] for name, view in views.items()}))

    def policy(self, row_P: Tensor) -> Policy:
        """A copy of one row, by name."""
        return Policy(dict(self.lent(row_P).tensors))


def _difference(found: Shapes, expected: Shapes) -> str:
    for name, shape in expected.items():
        if name not in found:
            return f'the policy has no tensor "{name}"'
        if found[name] != shape:
            return f"the policy's tensor \"{name}\" is {found[name]}, the trainer's is {shape}"
    return f'the policy has a tensor "{min(found.keys() - expected.keys())}" that the trainer does not train'
