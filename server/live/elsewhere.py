"""Connections that other processes hold: what gateways report to their engine, so that one limit holds for all.

A report is believed for KEPT_S: the connections of a gateway that is gone count no longer than that.
"""

from __future__ import annotations

from typing import Final

from server.clock import Clock

REPORT_S: Final = 0.5
"""Seconds between two reports of a gateway: by so much a count may lag behind."""
KEPT_S: Final = 3.0
GATEWAYS_MAX: Final = 1_000


class Elsewhere:
    """Counts of connections, by the process that holds them."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._reports: dict[str, tuple[float, int]] = {}

    def report(self, instance: str, sockets: int) -> None:
        """Take in how many a process has now."""
        self._forget()
        if instance in self._reports or len(self._reports) < GATEWAYS_MAX:
            self._reports[instance] = (self._clock.monotonic(), sockets)

    def count(self, but: str | None = None) -> int:
        """Return how many there are in all processes that have reported lately, one of them left out if named."""
        self._forget()
        return sum(sockets for instance, (_, sockets) in self._reports.items() if instance != but)

    def _forget(self) -> None:
        oldest = self._clock.monotonic() - KEPT_S
        for instance in [name for name, (at, _) in self._reports.items() if at < oldest]:
            del self._reports[instance]
