"""AdamW for S policies at once, each with its own clipping, schedule and step counts."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from soarctl.api import ModelError, Optimizer
from soarctl.trainers.draw import wide_float

# A sum of squares is taken of this many numbers in fp32 and of the sums in fp64: on a CPU, a running fp32 sum over all
# weights of a model stops growing.
SUMMED = 2**17
# Of the tables of (S, P) that a step works on at once: what it needs for a moment is a few times 8 MB in fp32.
NUMBERS = 2**21


def learning_rate(options: Optimizer, call: int) -> float:
    """The rate of the update with this index, counted from 0 over all calls, signal or not.

    Warm-up is min(1, (call + 1) / warmup_steps), so that the first update moves. It is multiplied with a cosine that
    goes from 1 at call 0 to 0 at call `horizon` and stays there.
    """
    warmup = min(1.0, (call + 1) / options.warmup_steps) if options.warmup_steps else 1.0
    if options.horizon == 0:
        return options.lr * warmup
    return options.lr * warmup * 0.5 * (1 + math.cos(math.pi * min(1.0, call / options.horizon)))


class FleetAdamW:
    """Every policy takes the steps that torch.optim.AdamW after clip_grad_norm_ would take with it alone.

    All state is per policy: a policy that has no signal keeps weights, moments and Adam count, bit for bit. Only
    its place in the learning rate schedule moves on, since that counts calls: a teacher's cosine ends on time.
    """

    def __init__(self, weights_S_P: Tensor, options: Optimizer) -> None:
        self.weights_S_P = weights_S_P
        self.options = options
        self._mean_S_P = torch.zeros_like(weights_S_P)
        self._square_S_P = torch.zeros_like(weights_S_P)
        self._updates_S = np.zeros(weights_S_P.shape[0], np.int64)
        self._calls = 0

    @torch.no_grad()
    def step(self, gradients_S_P: Tensor, signal_S: NDArray[np.bool_]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """Updates the policies that have a signal.

        Returns:
            norms_S, of the gradients before clipping, and which policies moved: a policy whose gradient is not finite
            does not.
        """
        lr = learning_rate(self.options, self._calls)
        self._calls += 1
        norms_S = _norms(gradients_S_P)
        norms = norms_S.double().cpu().numpy()
        moved_S = signal_S & np.isfinite(norms)
        if moved_S.any():
            rows = slice(None) if moved_S.all() else torch.from_numpy(np.flatnonzero(moved_S))
            clip_S = (self.options.max_grad_norm / (norms_S + 1e-6)).clamp(max=1.0)
            self._updates_S[moved_S] += 1
            size = max(1, NUMBERS // len(moved_S))
            for at in range(0, gradients_S_P.shape[1], size):
                columns = slice(at, at + size)
                gradients = gradients_S_P[:, columns] * clip_S[:, None]
                self._adamw((rows, columns), gradients[rows], self._updates_S[moved_S], lr)
        return norms, moved_S

    def _adamw(
        self, part: tuple[slice | Tensor, slice], gradients: Tensor, updates: NDArray[np.int64], lr: float
    ) -> None:
        beta1, beta2 = self.options.betas
        weights, mean, square = self.weights_S_P[part], self._mean_S_P[part], self._square_S_P[part]
        weights.mul_(1 - lr * self.options.weight_decay)
        mean.lerp_(gradients, 1 - beta1)
        square.mul_(beta2).addcmul_(gradients, gradients, value=1 - beta2)
        step_size = self._column(lr / (1 - beta1**updates))
        spread = square.sqrt().div_(self._column((1 - beta2**updates) ** 0.5)).add_(self.options.eps)
        weights.sub_(step_size * mean / spread)
        if not isinstance(part[0], slice):
            # Rows picked by index are copies. Slices are updated in place.
            self.weights_S_P[part], self._mean_S_P[part], self._square_S_P[part] = weights, mean, square

    def _column(self, values_S: NDArray[np.floating[Any]]) -> Tensor:
        return torch.tensor(values_S, dtype=torch.float32, device=self.weights_S_P.device)[:, None]

    def move(self, device: torch.device) -> None:
        """Takes all numbers to another device, or none where there is no room."""
        moved = [tensor.to(device) for tensor in (self.weights_S_P, self._mean_S_P, self._square_S_P)]
        self.weights_S_P, self._mean_S_P, self._square_S_P = moved

    def state(self) -> dict[str, NDArray[np.float32] | NDArray[np.int64]]:
        """Weights, moments and counts, as copies."""
        return {
            "weights": self.weights_S_P.cpu().numpy().copy(),
            "mean": self._mean_S_P.cpu().numpy().copy(),
            "square": self._square_S_P.cpu().numpy().copy(),
            "updates": self._updates_S.copy(),
            "calls": np.array(self._calls, np.int64),
        }

    def restore(self, state: Mapping[str, NDArray[np.float32] | NDArray[np.int64]]) -> None:
        """Takes up a `state`.

        Raises:
            ModelError: it belongs to a fleet of another shape.
        """
        for name, own in self.state().items():
            found = state[name].shape if name in state else None
            if found != own.shape:
                raise ModelError(
                    f'the fleet\'s "{name}" is {own.shape}, the stored one {found or "missing"}',
                    hint="was it stored with another number of policies or other trainer options?",
                )
        for tensor, name in ((self.weights_S_P, "weights"), (self._mean_S_P, "mean"), (self._square_S_P, "square")):
            tensor.copy_(torch.from_numpy(np.array(state[name])))
        self._updates_S = np.array(state["updates"], np.int64)
        self._calls = int(state["calls"])


def _norms(gradients_S_P: Tensor) -> Tensor:
    parts = [part_S_P.norm(dim=1).to(wide_float(part_S_P.device)) for part_S_P in gradients_S_P.split(SUMMED, 1)]
    return torch.stack(parts).norm(dim=0).float()
