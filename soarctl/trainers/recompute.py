"""Gradient checkpointing: layers whose insides are worked out again in backward instead of kept."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint
from transformers.modeling_layers import GradientCheckpointingLayer


class Recompute:
    """The layers of a model that transformers says can be recomputed, and whether they are.

    transformers' own switch asks for training mode, which turns on dropout too.
    """

    def __init__(self, model: nn.Module) -> None:
        self.active = False
        """Costs a second forward, and leaves the hidden states between layers to be kept alone. Changes no gradient."""
        layers = [layer for layer in model.modules() if isinstance(layer, GradientCheckpointingLayer)]
        self.possible = bool(layers)
        for layer in layers:
            layer.forward = partial(self._forward, layer.forward)

    def _forward(self, forward: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        if not (self.active and torch.is_grad_enabled()):
            return forward(*arguments, **options)
        return checkpoint(forward, *arguments, use_reentrant=False, preserve_rng_state=False, **options)
