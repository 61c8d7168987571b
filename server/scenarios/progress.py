"""How far a run is, told on the terminal and kept out of results."""

from __future__ import annotations

import sys
from collections.abc import Callable

from server.clock import Clock

PROGRESS_S = 1.0


class Progress:
    """Says once a second, on a terminal in one line, how far a run is."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._next = clock.monotonic() + PROGRESS_S
        self._is_terminal = sys.stderr.isatty()

    def over(self, label: str, ticks: int) -> Callable[[int], None]:
        """Return what a run of so many ticks tells its progress to."""
        done = 0

        def told(more: int) -> None:
            nonlocal done
            done += more
            if self._clock.monotonic() >= self._next:
                self._next = self._clock.monotonic() + PROGRESS_S
                self._say(f"{label}: {min(99, 100 * done // ticks)} %")

        if not self._is_terminal:
            sys.stderr.write(f"{label} ...\n")
        return told

    def clear(self) -> None:
        """Make room for a result."""
        if self._is_terminal:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()

    def _say(self, text: str) -> None:
        if self._is_terminal:
            sys.stderr.write(f"\r\x1b[K{text}")
            sys.stderr.flush()
