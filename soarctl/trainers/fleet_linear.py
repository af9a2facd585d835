"""A linear layer that serves the S policies of a fleet in one call."""

from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from soarctl.api import ModelError


@dataclass(frozen=True, slots=True)
class LowRank:
    """What S policies add to a layer: y_s = W x + B_s A_s x. `B` carries the scale alpha / rank already."""

    A_S_r_in: Tensor
    B_S_out_r: Tensor

    def __call__(self, layer: nn.Linear, x: Tensor) -> Tensor:
        rows_S_N_in = x.reshape(self.A_S_r_in.shape[0], -1, x.shape[-1])
        if layer.weight.requires_grad or torch.is_autocast_enabled(x.device.type):
            base_S_N_out = functional.linear(rows_S_N_in, layer.weight, layer.bias)
            small_S_N_r = torch.bmm(rows_S_N_in, self.A_S_r_in.mT)
            y_S_N_out = base_S_N_out + torch.bmm(small_S_N_r, self.B_S_out_r.mT)
        else:
            y_S_N_out = cast(
                Tensor, _AddLowRank.apply(rows_S_N_in, layer.weight, layer.bias, self.A_S_r_in, self.B_S_out_r)
            )
        return y_S_N_out.view(*x.shape[:-1], -1)


class _AddLowRank(torch.autograd.Function):
    """W x + B A x over a frozen W. Both parts of the result, and of its gradient, are added up where they stand: of
    narrow layers on a CPU the sums would cost as much as the products."""

    @staticmethod
    def forward(ctx: Any, x_S_N_in: Tensor, weight: Tensor, bias: Tensor | None, A: Tensor, B: Tensor) -> Tensor:
        small_S_N_r = torch.bmm(x_S_N_in, A.mT)
        ctx.save_for_backward(x_S_N_in, small_S_N_r, weight, A, B)
        return functional.linear(x_S_N_in, weight, bias).baddbmm_(small_S_N_r, B.mT)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, None, None, Tensor, Tensor]:
        x_S_N_in, small_S_N_r, weight, A, B = ctx.saved_tensors
        (grad_S_N_out,) = grad_outputs
        grad_small_S_N_r = torch.bmm(grad_S_N_out, B)
        grad_x_S_N_in = None
        if ctx.needs_input_grad[0]:
            grad_x_S_N_in = (grad_S_N_out @ weight).baddbmm_(grad_small_S_N_r, A)
        grad_A = torch.bmm(grad_small_S_N_r.mT, x_S_N_in)
        return grad_x_S_N_in, None, None, grad_A, torch.bmm(grad_S_N_out.mT, small_S_N_r)


@dataclass(frozen=True, slots=True)
class Merged:
    """The same with W + B_s A_s worked out beforehand: one product instead of three, for S copies of W."""

    weight_S_in_out: Tensor

    def __call__(self, layer: nn.Linear, x: Tensor) -> Tensor:
        rows_S_N_in = x.reshape(self.weight_S_in_out.shape[0], -1, x.shape[-1])
        bias = cast(Tensor | None, layer.bias)
        if bias is None:
            y_S_N_out = torch.bmm(rows_S_N_in, self.weight_S_in_out)
        else:
            y_S_N_out = torch.baddbmm(bias, rows_S_N_in, self.weight_S_in_out)
        return y_S_N_out.view(*x.shape[:-1], -1)


class FleetLinear(nn.Linear):
    """A frozen linear layer that S adapters can be bound to.

    Rows of a batch come in S equal parts, ordered by policy. With nothing bound it is the base layer. Its parameters
    are those of the layer it replaces and have the same names, so that the model's state dict stays as it was.
    """

    def __init__(self, base: nn.Linear) -> None:
        nn.Module.__init__(self)
        self.in_features, self.out_features = base.in_features, base.out_features
        self.weight, self.bias = base.weight, base.bias
        self.bound: LowRank | Merged | None = None

    def forward(self, input: Tensor) -> Tensor:
        if self.bound is None:
            return functional.linear(input, self.weight, self.bias)
        return self.bound(self, input)


def install(model: nn.Module, targets: Sequence[str]) -> dict[str, FleetLinear]:
    """Replaces the linear layers that `targets` name, in place.

    Args:
        model: any transformers model.
        targets: a layer is meant by its full name or by the last parts of it, as in PEFT.

    Returns:
        The new layers by name, in the model's order.

    Raises:
        ModelError: a target names no linear layer.
    """
    linears = {name: module for name, module in model.named_modules() if type(module) is nn.Linear}
    for target in targets:
        if not any(_names(target, name) for name in linears):
            found = sorted({name.rsplit(".", 1)[-1] for name in linears})
            raise ModelError(
                f'no linear layer of the model is called "{target}"',
                hint=f"trainer targets may be: {', '.join(found)}" if found else "it has no nn.Linear at all",
            )
    layers = dict[str, FleetLinear]()
    for name, linear in linears.items():
        if any(_names(target, name) for target in targets):
            layers[name] = FleetLinear(linear)
            model.set_submodule(name, layers[name])
    return layers


def _names(target: str, name: str) -> bool:
    return name == target or name.endswith(f".{target}")


@contextmanager
def bound(layers: Mapping[str, FleetLinear], adapters: Mapping[str, LowRank | Merged]) -> Generator[None]:
    """Within it the layers serve these adapters; afterwards those they served before."""
    before = {name: layer.bound for name, layer in layers.items()}
    try:
        for name, layer in layers.items():
            layer.bound = adapters.get(name)
        yield
    finally:
        for name, layer in layers.items():
            layer.bound = before[name]
