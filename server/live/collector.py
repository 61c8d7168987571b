"""When Python's cyclic collector runs: between ticks, a little at a time, never on its own.

A full collection held everything up for 76 to 373 ms with the defaults (DESIGN D5): numba alone brings hundreds of
thousands of objects that live as long as the process. So what is there when the world is ready is frozen, out of the
collector's sight for good; garbage of requests is young and collected between any two ticks; the old generation,
which then holds little but receipts and connections, is looked at once in ten minutes.
"""

from __future__ import annotations

import gc

MIDDLE_EVERY = 10
"""Ticks between two collections of the middle generation."""
OLD_EVERY = 6_000
"""Ticks between two collections of the old generation: only what lived for minutes and died in a cycle waits for it."""


class Collector:
    """Takes over the collector from start() to stop()."""

    def start(self) -> None:
        """Clean up once, set aside what is left, and switch automatic collection off."""
        gc.collect()
        gc.freeze()
        gc.disable()

    def step(self, tick: int) -> None:
        """Collect what is due after a tick."""
        if tick % OLD_EVERY == 0:
            gc.collect(2)
        else:
            gc.collect(1 if tick % MIDDLE_EVERY == 0 else 0)

    def stop(self) -> None:
        """Give the collector back to Python."""
        gc.enable()
        gc.unfreeze()
