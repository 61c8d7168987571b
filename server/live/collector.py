"""When Python's cyclic collector runs: between ticks, a little at a time, never on its own; at a gateway as often.

A full collection held everything up for 76 to 373 ms with the defaults (DESIGN D5): numba alone brings hundreds of
thousands of objects that live as long as the process. So what is there when the world is ready is frozen, out of the
collector's sight for good; garbage of requests is young and collected between any two ticks.

What stays is set aside as well, two seconds after it came at the latest. Connections do: 5,000 subscribers are
280,000 objects, and a collection that looked at them all took 115 to 150 ms. They need none, for one that ends leaves
no cycle behind (tests/system/test_garbage.py), and what is in no cycle is freed at once, set aside or not. Longer than
that it must not take: every answer to a ping leaves three objects that stay until the next, with 5,000 subscribers
10,000 in ten seconds, and to look at those took 8 ms, the longest pause of the event loop (loop_pause).
"""

from __future__ import annotations

import gc

MIDDLE_EVERY = 10
"""Steps between two collections of the middle generation."""
OLD_EVERY = 20
"""Steps between two collections of the old generation, which then holds what came in that time and stayed."""
OLD_OBJECTS_MAX = 20_000
"""That wait for it; more come in a storm of connections, and are set aside unseen: to look took up to 107 ms."""


class Collector:
    """Takes over the collector from start() to stop()."""

    def __init__(self) -> None:
        self._steps = 0
        self._come = 0
        """Objects that came and did not go since the last were set aside, about."""

    def start(self) -> None:
        """Clean up once, set aside what is left, and switch automatic collection off."""
        gc.collect()
        gc.freeze()
        gc.disable()

    def step(self) -> None:
        """Collect what is due; to be called after every tick, and as often while there is none."""
        self._steps += 1
        # Python counts them anyway; to list the generations and count took 2 ms
        self._come += gc.get_count()[0]
        is_storm = self._come > OLD_OBJECTS_MAX
        generation = 0 if is_storm or self._steps % MIDDLE_EVERY else 1 if self._steps % OLD_EVERY else 2
        gc.collect(generation)
        if generation == 2 or is_storm:
            gc.freeze()
            self._come = 0

    def stop(self) -> None:
        """Give the collector back to Python."""
        gc.enable()
        gc.unfreeze()
