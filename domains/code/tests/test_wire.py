"""Values cross between processes as plain data with exact types, and hostile ones cost nothing."""

import math
import time
from collections import Counter
from typing import Any

import pytest
from soarctl_code.jail import wire

PLAIN = [
    None, True, 0, -17, 10**50, 1.5, float("inf"), 2 + 3j, "text", "\ud800", b"\x00\xff", [1, [2]], (1, (2,)), {1, 2},
    frozenset("ab"), {"a": 1, (1, 2): None}, range(1, 10, 2), {}, [], (), "",
]  # fmt: skip


@pytest.mark.parametrize("value", PLAIN, ids=repr)
def test_a_plain_value_comes_back_with_its_type(value: Any) -> None:
    tree = wire.loads(wire.dumps(wire.encode(value))[4:])
    back = wire.decode(tree)
    assert back == value
    assert type(back) is type(value)
    assert wire.matches(tree, value)


def test_nan_matches_nan_only() -> None:
    assert wire.matches(wire.encode(math.nan), math.nan)
    assert not wire.matches(wire.encode(math.nan), 1.5)
    assert not wire.matches(wire.encode(1.5), math.nan)


def test_numbers_match_by_value_and_sequences_by_type() -> None:
    assert wire.matches(wire.encode(1), True)
    assert wire.matches(wire.encode(True), 1.0)
    assert not wire.matches(wire.encode((1, 2)), [1, 2])
    assert wire.matches(wire.encode((1, 2)), [1, 2], sequences_alike=True)


class Always(str):
    def __eq__(self, other: object) -> bool:
        return True

    __hash__ = str.__hash__


def test_an_object_with_its_own_equality_matches_nothing() -> None:
    assert not wire.matches(wire.encode(Always("wrong")), "right")
    assert not wire.matches(wire.encode(Always("right")), "right")
    assert wire.decode(wire.encode(Always("wrong"))) == "wrong"


def test_a_subclass_reaches_the_judge_as_its_plain_content() -> None:
    assert wire.decode(wire.encode(Counter("aab"))) == {"a": 2, "b": 1}


def test_what_is_not_plain_is_opaque() -> None:
    value = wire.decode(wire.encode(object()))
    assert isinstance(value, wire.Opaque)
    assert value != object()
    assert bool(value)


def test_a_value_nested_too_deeply_is_opaque_at_its_bottom() -> None:
    value: Any = ()
    for _ in range(200_000):
        value = (value,)
    assert wire.matches(wire.encode(value), value) is False


def test_a_value_with_too_many_elements_is_refused_before_it_is_copied() -> None:
    with pytest.raises(wire.TooLarge):
        wire.encode(list(range(2_000_000)))
    shared = [0] * 1000
    with pytest.raises(wire.TooLarge):
        wire.encode([shared] * 1000)


@pytest.mark.parametrize(
    "body",
    [b"", b"{}x", b"[" * 100_000, b'{"a": 1}', b"12", b"[1.5]", b"NaN", b"\xff", b"1" * 100_000],
    ids=lambda b: repr(b[:8]),
)
def test_a_hostile_frame_is_undecodable_and_no_crash(body: bytes) -> None:
    with pytest.raises(wire.Undecodable):
        wire.decode(wire.loads(body))


@pytest.mark.parametrize(
    "tree",
    [
        ["i"],
        ["i", "zz"],
        ["s", ["l"]],
        ["d", "odd"],
        ["q", "x"],
        [[]],
        ["r", "0x1", "0x2", "0x0"],
        ["c", "1"],
        ["b", "0"],
    ],
    ids=repr,
)
def test_a_malformed_tree_matches_nothing_and_decodes_to_nothing(tree: Any) -> None:
    assert not any(wire.matches(tree, expected) for expected in PLAIN)
    with pytest.raises(wire.Undecodable):
        wire.decode(tree)


def test_colliding_elements_cost_no_more_than_their_number() -> None:
    # Multiples of the hash modulus all hash to zero: a set of 60,000 of them takes minutes to build.
    tree = ["s", *[["i", hex(k * (2**61 - 1))] for k in range(60_000)]]
    started = time.process_time()
    assert not wire.matches(tree, {1, 2})
    assert time.process_time() - started < 0.5
