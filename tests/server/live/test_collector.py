"""The collector: young garbage goes between ticks, what was there at the start is out of its sight."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator

import pytest

from server.live.collector import MIDDLE_EVERY, OLD_EVERY, OLD_OBJECTS_MAX, Collector


class Node:
    """Something that can be part of a cycle."""

    def __init__(self) -> None:
        self.me = self


@pytest.fixture
def collector() -> Iterator[Collector]:
    """A collector that is given back to Python after the test."""
    collector = Collector()
    collector.start()
    yield collector
    collector.stop()
    assert gc.isenabled()
    assert gc.get_freeze_count() == 0


def test_a_dead_cycle_is_gone_after_the_next_tick(collector: Collector) -> None:
    """Automatic collection is off; the step between ticks takes what died since the last."""
    node = Node()
    alive = weakref.ref(node)

    del node
    before = alive()
    del before
    collector.step()

    assert not gc.isenabled()
    assert alive() is None


def steps(collector: Collector, count: int) -> None:
    """Let so many ticks pass."""
    for _ in range(count):
        collector.step()


@pytest.mark.parametrize("every", [MIDDLE_EVERY, OLD_EVERY])
def test_what_lived_longer_is_collected_in_its_turn(collector: Collector, every: int) -> None:
    """A cycle that survived young collections goes with its generation."""
    node = Node()
    alive = weakref.ref(node)
    steps(collector, MIDDLE_EVERY if every == OLD_EVERY else 1)

    del node
    steps(collector, OLD_EVERY)

    assert alive() is None


def test_what_stays_is_set_aside_after_its_turn(collector: Collector) -> None:
    """The old generation stays small however many connections there are."""
    nodes = [Node() for _ in range(1_000)]
    before = gc.get_freeze_count()

    steps(collector, OLD_EVERY)

    assert gc.get_freeze_count() >= before + len(nodes)
    assert len(gc.get_objects(generation=2)) < 100


def test_more_than_may_be_looked_at_is_set_aside_unseen(collector: Collector) -> None:
    """A storm of connections is not paid for with a tick, also in that in which all would be looked at."""
    steps(collector, OLD_EVERY - 2)
    nodes = [Node() for _ in range(500)]
    collector.step()
    alive = weakref.ref(nodes[0])
    nodes += [Node() for _ in range(OLD_OBJECTS_MAX + 1_000)]
    del nodes[0]
    collector.step()

    assert alive() is not None

    assert len(gc.get_objects(generation=2)) < 100
    del nodes
    steps(collector, OLD_EVERY)

    assert alive() is not None


def test_what_was_there_at_the_start_is_set_aside(collector: Collector) -> None:
    """Frozen objects are not looked at again."""
    assert gc.get_freeze_count() > 10_000
