"""Log-probs of targets from a model's last hidden states, without the logits of all of them in memory at once."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

# Logits that are in memory at once: 128 MB in fp32, a few times as much with what their gradient takes.
LOGITS = 2**25


@dataclass(frozen=True, slots=True, eq=False)
class Targets:
    """Which tokens are predicted after which hidden states: M predictions from U states of each of P policies."""

    policy_M: Tensor
    column_M: NDArray[np.int64]
    """Among the U, ascending."""
    target_M: Tensor


class Head:
    """What a model's forward makes of its decoder's hidden states."""

    def __init__(self, linear: nn.Linear | None, then: Callable[[Tensor], Tensor]) -> None:
        self.linear = linear
        """None where the forward does what is not known here: then the states that are given are logits already."""
        self._then = then

    def __call__(self, hidden: Tensor) -> Tensor:
        """logits (..., V) of hidden states (..., H)."""
        return hidden if self.linear is None else self._then(self.linear(hidden))

    def log_probs(self, hidden_P_U_H: Tensor, targets: Targets, temperature: float) -> Tensor:
        """logprobs_M of the targets, fp32, at the temperature they were sampled with.

        Where the logits are many, they are worked out a few states at a time, and once more in backward: what stays
        in memory is the hidden states.
        """
        policies, states, _ = hidden_P_U_H.shape
        columns = states if self.linear is None else max(1, LOGITS // (policies * self.linear.out_features))

        def part(hidden_P_C_H: Tensor, here: slice, first: int) -> Tensor:
            column_M = torch.from_numpy(targets.column_M[here] - first).to(hidden_P_C_H.device)
            logits_P_C_V = self(hidden_P_C_H)
            return chosen(logits_P_C_V, targets.policy_M[here], column_M, targets.target_M[here], temperature)

        if states <= columns:
            return part(hidden_P_U_H, slice(None), 0)
        found = list[Tensor]()
        for i, hidden_P_C_H in enumerate(hidden_P_U_H.split(columns, 1)):
            here = slice(*np.searchsorted(targets.column_M, (i * columns, (i + 1) * columns)).tolist())
            found.append(
                checkpoint(part, hidden_P_C_H, here, i * columns, use_reentrant=False, preserve_rng_state=False)
            )
        return torch.cat(found)


def chosen(logits_P_U_V: Tensor, policy_M: Tensor, column_M: Tensor, target_M: Tensor, temperature: float) -> Tensor:
    """logprobs_M, fp32."""
    logits_P_U_V = logits_P_U_V.float()
    if temperature not in (0, 1):
        logits_P_U_V = logits_P_U_V / temperature
    # Several targets may follow one state, and what they are normalised with is the same.
    total_P_U = logits_P_U_V.logsumexp(2)
    return logits_P_U_V[policy_M, column_M, target_M] - total_P_U[policy_M, column_M]


def find_head(model: PreTrainedModel) -> Head:
    """A model's head, tried on a few tokens against the model's own forward."""
    linear, decoder = model.get_output_embeddings(), model.base_model
    unknown = Head(None, lambda logits: logits)
    if not isinstance(linear, nn.Linear) or decoder is model:
        return unknown
    head = Head(linear, _after(model))
    ids_B_T = torch.arange(2, 10, device=model.device)[None] % linear.out_features
    with torch.no_grad():
        expected = model(input_ids=ids_B_T, use_cache=False).logits
        found = head(decoder(input_ids=ids_B_T, use_cache=False).last_hidden_state)
    tolerance = 4 * torch.finfo(expected.dtype).eps
    alike = torch.allclose(found, expected, rtol=tolerance, atol=tolerance * expected.abs().max().item())
    return head if alike else unknown


def _after(model: PreTrainedModel) -> Callable[[Tensor], Tensor]:
    """What follows the linear layer in some architectures, by the names their configurations have for it."""
    config = model.config.get_text_config()
    cap: float | None = getattr(config, "final_logit_softcapping", None)
    scale: float | None = getattr(config, "logit_scale", None)
    divisor: float | None = getattr(config, "logits_scaling", None)
    if cap:
        return lambda logits: torch.tanh(logits / cap) * cap
    if scale:
        return lambda logits: logits * scale
    if divisor:
        return lambda logits: logits / divisor
    return lambda logits: logits
