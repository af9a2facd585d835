"""Drawing a token from logits with a random number that was fixed beforehand."""

import torch
from torch import Tensor

from soarctl.api import Sampling

# Numbers of a table of (rows, vocabulary) that are worked on at once: 256 MB in fp32.
TABLE = 2**26


def wide_float(device: torch.device) -> torch.dtype:
    """The widest float that a device has."""
    return torch.float32 if device.type == "mps" else torch.float64


def draw(logits_B_V: Tensor, branch_A: Tensor | None, uniforms_A: Tensor, sampling: Sampling) -> tuple[Tensor, Tensor]:
    """The token of each of A rows, and its log-prob under the distribution that it was drawn from.

    A token is the inverse of the cumulative distribution at the row's uniform number, in the order of the
    vocabulary. So one number decides it, and nothing else in the batch.

    Args:
        logits_B_V: of any float type.
        branch_A: which of the B distributions a row draws from; None where each has its own.
        uniforms_A: in [0, 1), as wide floats; not looked at when greedy.
        sampling: temperature and top_p; log-probs of greedy tokens are those at temperature 1.

    Returns:
        tokens_A and logprobs_A, fp32.
    """
    if branch_A is not None and logits_B_V.numel() > TABLE:
        size = max(1, TABLE // logits_B_V.shape[1])
        parts = zip(branch_A.split(size), uniforms_A.split(size), strict=True)
        drawn = [draw(logits_B_V[branches], None, uniforms, sampling) for branches, uniforms in parts]
        return torch.cat([tokens for tokens, _ in drawn]), torch.cat([logprobs for _, logprobs in drawn])
    logprobs_B_V = _logprobs(logits_B_V.float(), sampling)
    if sampling.temperature == 0:
        tokens_A = logprobs_B_V.argmax(1)
        tokens_A = tokens_A if branch_A is None else tokens_A[branch_A]
    else:
        # In fp32 the running sum over a large vocabulary would be off by more than its rarest tokens are likely.
        cumulative_B_V = logprobs_B_V.exp().cumsum(1, dtype=uniforms_A.dtype)
        tokens_A = _inverse(cumulative_B_V if branch_A is None else cumulative_B_V[branch_A], uniforms_A)
    rows_A = torch.arange(len(tokens_A), device=tokens_A.device) if branch_A is None else branch_A
    return tokens_A, logprobs_B_V[rows_A, tokens_A]


def _logprobs(logits_B_V: Tensor, sampling: Sampling) -> Tensor:
    if sampling.temperature not in (0, 1):
        logits_B_V = logits_B_V / sampling.temperature
    logprobs_B_V = logits_B_V.log_softmax(1)
    return nucleus(logprobs_B_V, sampling.top_p) if sampling.temperature and sampling.top_p < 1 else logprobs_B_V


def _inverse(cumulative_A_V: Tensor, uniforms_A: Tensor) -> Tensor:
    # The first entry that exceeds the number: a token of probability 0 is never it.
    targets_A_1 = (uniforms_A * cumulative_A_V[:, -1])[:, None]
    tokens_A = torch.searchsorted(cumulative_A_V, targets_A_1, right=True)[:, 0]
    return tokens_A.clamp(max=cumulative_A_V.shape[1] - 1)


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
