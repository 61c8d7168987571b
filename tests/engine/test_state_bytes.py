"""The bytes of a state: their hash is the state's own, at every tick, while agents and orders come and go."""

import numpy as np

from engine.economy import Economy, hash_copy
from engine.state_bytes import StateBytes, hash_bytes
from tests.support.worlds import RandomBots, run, small_config


def test_their_hash_is_that_of_the_arrays() -> None:
    """At every tick, from one block: hash_arrays, which goes through the arrays one by one, says the same."""
    economy = Economy(small_config(), 5)
    copied = StateBytes(economy.state)
    orders = set()

    for expected in run(economy, 40, RandomBots(12, 4)):
        orders.add(len(copied.take()))
        assert hash_bytes(copied.take()) == expected
    assert len(orders) > 5


def test_they_lie_where_they_lay_before() -> None:
    """Orders come and go with every tick, and new memory costs its pages."""
    economy = Economy(small_config(), 5)
    copied = StateBytes(economy.state)
    places, lengths = set(), set()

    for _ in run(economy, 40, RandomBots(12, 4)):
        taken = copied.take()
        places.add(np.frombuffer(taken, np.uint8).ctypes.data)
        lengths.add(len(taken))
    assert len(places) < len(lengths) / 3


def test_their_arrays_are_the_worlds() -> None:
    """By name, with the values of the tick they were taken at: what a snapshot is written from."""
    economy = Economy(small_config(), 5)
    list(run(economy, 10, RandomBots(12, 4)))
    copied = StateBytes(economy.state)
    tick, expected = economy.copy_arrays()

    copied.take()
    economy.advance()

    taken = copied.arrays()
    assert [name for name, _ in taken] == [name for name, _ in expected]
    for (_, array), (_, other) in zip(taken, expected, strict=True):
        assert array.dtype == other.dtype
        assert np.array_equal(array, other)
    assert hash_copy(tick, taken) == hash_copy(tick, expected)


def test_later_ticks_do_not_change_them() -> None:
    """What was taken stays as it was until it is taken again."""
    economy = Economy(small_config(), 5)
    copied = StateBytes(economy.state)
    before, taken = economy.state_hash(), copied.take()

    economy.advance()

    assert hash_bytes(taken) == before
    assert hash_bytes(copied.take()) == economy.state_hash() != before
