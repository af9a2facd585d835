import pytest
import torch

from soarctl.trainers import block_cache
from soarctl.trainers.block_cache import BlockCache, Spare


def test_what_is_given_back_is_taken_again_by_what_is_about_as_large() -> None:
    spare, like = Spare(), torch.empty(0)
    first = spare.take(like, (3, 30))
    spare.give(first)
    assert spare.take(like, (5, 20)).data_ptr() == first.data_ptr()
    assert spare.take(like, (5, 20)).data_ptr() != first.data_ptr()  # it is in use
    spare.give(first)
    assert spare.take(like, (5, 30)).data_ptr() != first.data_ptr()
    assert spare.take(like.half(), (5, 20)).data_ptr() != first.data_ptr()


def test_no_more_is_kept_than_there_is_room_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(block_cache, "SPARE", 4 * 128)
    spare, like = Spare(), torch.empty(0)
    taken = [spare.take(like, (128,)) for _ in range(2)]
    for block in taken:
        spare.give(block)
    again = [spare.take(like, (128,)).data_ptr() for _ in range(2)]
    assert again[0] == taken[0].data_ptr()
    assert again[1] != taken[1].data_ptr()


@pytest.mark.parametrize("sources", [[0, 1, 2, 2, 0, 1], [0, 2, 1, 1], [2], [0, 1, 2], [1, 1, 2, 0, 0]])
def test_rows_move_with_their_keys_and_values(sources: list[int]) -> None:
    cache = BlockCache(Spare())
    keys, values = torch.randn(3, 2, 4, 5), torch.randn(3, 2, 4, 7)
    cache.update(keys, values, 0)
    cache.gather(torch.arange(3), 8)
    added = torch.randn(3, 2, 12)
    cache.layers[0].append(added)
    cache.move(torch.tensor(sources))
    found_keys, found_values = cache.layers[0].filled()
    assert torch.equal(found_keys, torch.cat([keys, added[:, :, None, :5]], 2)[sources])
    assert torch.equal(found_values, torch.cat([values, added[:, :, None, 5:]], 2)[sources])


def test_positions_are_reserved_by_the_block_and_none_beyond_the_last() -> None:
    cache = BlockCache(Spare())
    cache.update(torch.randn(3, 2, 100, 5), torch.randn(3, 2, 100, 7), 0)
    cache.gather(torch.arange(3), most=140)
    reserved = list[int]()
    for _ in range(40):
        cache.layers[0].append(torch.randn(3, 2, 12))
        reserved.append(cache.layers[0]._states.shape[2])
    assert reserved == [101 + 32] * 33 + [140] * 7
