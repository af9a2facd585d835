"""Both ways to attend from one new token, against the definition."""

from collections.abc import Callable

import pytest
import torch

from soarctl.trainers.token_attention import by_products, by_sdpa

Attend = Callable[..., torch.Tensor]


def slowly(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
    """softmax(q k / 4 + mask) v, head by head; query head h looks at key head h // 3."""
    found = torch.empty(*query.shape[:2], value.shape[3])
    for b in range(query.shape[0]):
        for h in range(query.shape[1]):
            products = key[b, h // 3].double() @ query[b, h].double() / 4
            if mask is not None:
                products += mask[b, 0, 0]
            found[b, h] = products.softmax(0) @ value[b, h // 3].double()
    return found


@pytest.mark.parametrize("attend", [by_products, by_sdpa])
@pytest.mark.parametrize("masked", [False, True])
def test_query_heads_that_share_a_key_head_find_what_each_would_find_with_a_copy_of_it(
    attend: Attend, masked: bool
) -> None:
    generator = torch.Generator().manual_seed(0)
    query = torch.randn(5, 6, 16, generator=generator)
    # As in the cache: keys and values side by side, with room behind the last position.
    states = torch.randn(5, 2, 40, 28, generator=generator)[:, :, :33]
    key, value = states[..., :16], states[..., 16:]
    mask = None
    if masked:
        mask = torch.zeros(5, 1, 1, 33)
        mask[1, ..., :7] = mask[4, ..., :20] = torch.finfo(mask.dtype).min
    found = attend(query.unflatten(1, (2, 3)), key, value, mask, 0.25).flatten(1, 2)
    assert torch.allclose(found, slowly(query, key, value, mask), atol=1e-5)
