"""Connections that other processes hold: what gateways report to their engine, so that each limit holds for all.

A report is believed for KEPT_S: the connections of a gateway that is gone count no longer than that. How many there are
comes with every report. Whose they are is told once, and then what has changed; each of these reports bears the number
of those before it, and where the two sides do not agree on it, it is all told anew.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from server.clock import Clock
from server.live.caps import Caps, Holder

REPORT_S: Final = 0.5
"""Seconds between two reports of a gateway: by so much a count may lag behind."""
KEPT_S: Final = 3.0
GATEWAYS_MAX: Final = 1_000
FULL_MAX: Final = 10_000
"""Holders that a gateway is told of in one answer; more would have to have as many connections as they may."""


@dataclass
class _Report:
    """What is known of a process. at: when it reported; serial: of the next report of whose its connections are."""

    at: float
    sockets: int
    serial: int | None = None
    holders: dict[Holder, int] = field(default_factory=dict)


class Elsewhere:
    """Counts of connections, by the process that holds them. caps: told whose they are."""

    def __init__(self, clock: Clock, caps: Caps) -> None:
        self._clock = clock
        self._caps = caps
        self._reports: dict[str, _Report] = {}

    def report(self, instance: str, sockets: int) -> None:
        """Take in how many a process has now."""
        self._forget()
        now = self._clock.monotonic()
        if (known := self._reports.get(instance)) is not None:
            known.at, known.sockets = now, sockets
        elif len(self._reports) < GATEWAYS_MAX:
            self._reports[instance] = _Report(now, sockets)

    def take(self, instance: str, serial: int | None, holders: Mapping[Holder, int]) -> int | None:
        """Take in whose connections a process has, as far as that has changed; return the number of its next report.

        serial: that number, None for a process that begins to tell. None is returned to one that has to begin anew.
        """
        known = self._reports.get(instance)
        if known is None:
            return None
        if serial is None:
            self._clear(known)
            known.serial = 0
        elif serial != known.serial:
            return None
        else:
            known.serial = serial + 1
            for holder, count in holders.items():
                self._set(known, holder, max(0, count))
        return known.serial

    def count(self, but: str | None = None) -> int:
        """Return how many there are in all processes that have reported lately, one of them left out if named."""
        self._forget()
        return sum(known.sockets for instance, known in self._reports.items() if instance != but)

    def full(self, but: str) -> dict[Holder, int]:
        """Return who has as many connections as may be, and how many of them are not with one of the processes."""
        known = self._reports.get(but)
        own = {} if known is None else known.holders
        everybody = list(self._caps.full().items())[:FULL_MAX]
        return {holder: count - own.get(holder, 0) for holder, count in everybody}

    def _set(self, known: _Report, holder: Holder, count: int) -> None:
        before = known.holders.pop(holder, 0)
        if count:
            known.holders[holder] = count
        self._caps.add_elsewhere(holder, count - before)

    def _clear(self, known: _Report) -> None:
        for holder in list(known.holders):
            self._set(known, holder, 0)

    def _forget(self) -> None:
        oldest = self._clock.monotonic() - KEPT_S
        for instance in [name for name, known in self._reports.items() if known.at < oldest]:
            self._clear(self._reports.pop(instance))
