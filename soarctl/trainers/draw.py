"""Drawing a token from logits with a random number that was fixed beforehand."""

import torch
from torch import Tensor

from soarctl.api import Sampling

# Numbers of a table of (rows, vocabulary) that are worked on at once: 256 MB in fp32.
TABLE = 2**26


def wide_float(device: torch.device) -> torch.dtype:
    """The widest float that a device has."""
    return torch.float32 if device.type == "mps" else torch.float64


def draw(logits_B_V: Tensor, uniforms_B: Tensor, sampling: Sampling) -> tuple[Tensor, Tensor]:
    """The token of each row, and its log-prob under the distribution that it was drawn from.

    A token is the inverse of the cumulative distribution at the row's uniform number, in the order of the
    vocabulary. So one number decides it, and nothing else in the batch.

    Args:
        logits_B_V: of any float type.
        uniforms_B: in [0, 1), as wide floats; not looked at when greedy.
        sampling: temperature and top_p; log-probs of greedy tokens are those at temperature 1.

    Returns:
        tokens_B and logprobs_B, fp32.
    """
    size = max(1, TABLE // logits_B_V.shape[1])
    parts = [
        _draw(logits, uniforms, sampling)
        for logits, uniforms in zip(logits_B_V.split(size), uniforms_B.split(size), strict=True)
    ]
    return parts[0] if len(parts) == 1 else (torch.cat([p[0] for p in parts]), torch.cat([p[1] for p in parts]))


def _draw(logits_B_V: Tensor, uniforms_B: Tensor, sampling: Sampling) -> tuple[Tensor, Tensor]:
    logits_B_V = logits_B_V.float()
    if sampling.temperature == 0:
        tokens_B = logits_B_V.argmax(1)
        logprobs_B_V = logits_B_V.log_softmax(1)
    else:
        logprobs_B_V = (logits_B_V / sampling.temperature).log_softmax(1)
        if sampling.top_p < 1:
            logprobs_B_V = nucleus(logprobs_B_V, sampling.top_p)
        tokens_B = _inverse(logprobs_B_V.exp(), uniforms_B)
    return tokens_B, logprobs_B_V.gather(1, tokens_B[:, None])[:, 0]


def _inverse(probs_B_V: Tensor, uniforms_B: Tensor) -> Tensor:
    # In fp32 the running sum over a large vocabulary would be off by more than its rarest tokens are likely.
    cumulative_B_V = probs_B_V.cumsum(1, dtype=uniforms_B.dtype)
    # The first entry that exceeds the number: a token of probability 0 is never it.
    targets_B_1 = (uniforms_B * cumulative_B_V[:, -1])[:, None]
    tokens_B = torch.searchsorted(cumulative_B_V, targets_B_1, right=True)[:, 0]
    return tokens_B.clamp(max=probs_B_V.shape[1] - 1)


def nucleus(logprobs_B_V: Tensor, top_p: float) -> Tensor:
    """The distribution cut to the fewest tokens that hold `top_p` of it, renormalised; others get -inf.

    Source: Holtzman et al. 2020, arXiv 1904.09751.
    """
    sorted_B_V, order_B_V = torch.sort(logprobs_B_V, dim=1, descending=True, stable=True)
    probs_B_V = sorted_B_V.exp()
    # A token stays if those before it do not reach top_p by themselves; so the first one always stays.
    out_B_V = probs_B_V.cumsum(1) - probs_B_V >= top_p
    out_B_V[:, 0] = False
    cut_B_V = logprobs_B_V.masked_fill(torch.zeros_like(out_B_V).scatter(1, order_B_V, out_B_V), -torch.inf)
    return cut_B_V.log_softmax(1)
