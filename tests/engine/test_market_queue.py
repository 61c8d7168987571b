"""The market queue keeps arrival order, is bounded, and hands rows over without losing any."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import QueueFull
from engine.market_queue import MarketQueue
from engine.messages import ACTION


def row(seq: int) -> np.ndarray:
    """Return an action with that sequence number."""
    action = np.zeros(1, ACTION)
    action["seq"] = seq
    return action


def test_drain_returns_arrival_order_and_empties_the_queue() -> None:
    """What was put in first comes first; afterwards nothing waits."""
    queue = MarketQueue(4)
    for seq in (3, 1, 2):
        queue.extend(row(seq))
    assert len(queue) == 3

    drained = queue.drain()

    assert drained["seq"].tolist() == [3, 1, 2]
    assert drained.dtype == ACTION
    assert len(queue) == 0
    assert len(queue.drain()) == 0


def test_drained_rows_stay_until_the_next_drain() -> None:
    """What comes after a drain does not touch the rows a tick is working on."""
    queue = MarketQueue(2)
    queue.extend(row(1))
    drained = queue.drain()

    queue.extend(row(8))
    queue.extend(row(9))

    assert drained["seq"].tolist() == [1]
    assert queue.drain()["seq"].tolist() == [8, 9]


def test_a_full_queue_refuses_and_keeps_what_it_has() -> None:
    """Beyond the capacity extend raises QueueFull; a drain makes room again."""
    queue = MarketQueue(2)
    queue.extend(row(1))
    queue.extend(row(2))

    with pytest.raises(QueueFull, match="2 actions"):
        queue.extend(row(3))
    with pytest.raises(QueueFull, match="2 actions"):
        queue.add(row(3).tobytes())

    assert queue.drain()["seq"].tolist() == [1, 2]
    queue.extend(row(3))
    assert queue.drain()["seq"].tolist() == [3]


def test_rows_are_copied() -> None:
    """Changing one later does not reach the queue."""
    queue = MarketQueue(1)
    action = row(5)

    queue.extend(action)
    action["seq"] = 6

    assert queue.drain()["seq"].tolist() == [5]


def test_many_are_taken_all_or_none() -> None:
    """A tick sees a batch whole; the room there is is told."""
    queue = MarketQueue(3)
    three = np.concatenate([row(1), row(2), row(3)])

    queue.extend(row(9))
    with pytest.raises(QueueFull):
        queue.extend(three)
    assert queue.room == 2
    queue.drain()
    queue.extend(three)

    assert queue.room == 0
    assert queue.drain()["seq"].tolist() == [1, 2, 3]


def test_it_says_how_often_it_was_handed_over_and_how_much_the_last_time() -> None:
    """Whoever fills it can tell that a tick has begun, and whether the one before was full."""
    queue = MarketQueue(3)
    before = (queue.drains, queue.drained)

    queue.add(row(1).tobytes())
    queue.add(row(2).tobytes())
    queue.drain()
    after = (queue.drains, queue.drained)
    queue.drain()

    assert (before, after, (queue.drains, queue.drained)) == ((0, 0), (1, 2), (2, 0))


def test_a_queue_without_room_is_a_wrong_setting() -> None:
    """capacity must be at least 1."""
    with pytest.raises(ValueError, match="capacity"):
        MarketQueue(0)


@given(st.lists(st.one_of(st.none(), st.tuples(st.integers(0, 10**18), st.booleans())), max_size=60))
def test_nothing_is_lost_doubled_or_reordered(steps: list[tuple[int, bool] | None]) -> None:
    """Whatever the mix of rows, as arrays or as bytes, and drains (None), the rows come out as they went in."""
    queue = MarketQueue(7)
    taken, out = [], []
    for step in steps:
        if step is None:
            out += queue.drain()["seq"].tolist()
        elif len(queue) < 7:
            seq, is_bytes = step
            if is_bytes:
                queue.add(row(seq).tobytes())
            else:
                queue.extend(row(seq))
            taken.append(seq)

    assert out + queue.drain()["seq"].tolist() == taken
