"""Anomalies of the live world: found after a tick is published, numbered, logged, counted, kept as room allows.

A tick hands its view over and goes on: the detector runs in the next step of the event loop. Replayed ticks are shown
to it as well, after those that the history has from before them: so much of the past it then knows. Numbers follow
from tick and series alone, so a cursor stays good.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict

import numpy as np
import structlog

from engine.analysis.anomalies import INDICATORS, MARKET_FIELDS, Anomaly, Detector
from engine.events import PublicState
from server.live.frames import CHANNELS, INFLATION, MARKET_TICK
from server.live.history import History
from server.live.view import View
from server.metrics import Metrics

ANOMALIES_MAX = 10_000
"""Anomalies kept; the oldest leave first and are counted. Some 250 bytes each."""

log = structlog.get_logger("arena.anomalies")


class AnomalyLog:
    """The anomalies since the world began to be watched, oldest first; one that lasts changes until it ends."""

    def __init__(self, metrics: Metrics, kept_max: int = ANOMALIES_MAX) -> None:
        self._detector = Detector()
        self._metrics = metrics
        self._kept_max = kept_max
        self._kept: OrderedDict[int, Anomaly] = OrderedDict()
        self._forgotten = 0

    @property
    def oldest(self) -> int:
        """The first number that is kept, 0 when there is none."""
        return next(iter(self._kept), 0)

    @property
    def newest(self) -> int:
        """The last number given, 0 before there is one."""
        return next(reversed(self._kept), 0)

    @property
    def open_count(self) -> int:
        """Anomalies that last."""
        return len(self._detector.open)

    def follow(self, view: View) -> None:
        """Take a published tick in as soon as the tick itself is done with."""
        asyncio.get_running_loop().call_soon(self._follow, view)

    def replay(self, public: PublicState) -> None:
        """Take a replayed tick in; what it holds was logged and counted when it was live."""
        self._keep(self._detector.take(public))

    def recall(self, history: History, first: int) -> None:
        """Take the hot ticks of a history in, from one on; it has indicators rounded, what is of markets as it was."""
        ticks, market = history.recent(MARKET_TICK, MARKET_FIELDS, history.limit)
        _, macro = history.recent(INFLATION, INDICATORS, history.limit)
        # shown in credits, watched in ucr
        divisors = {field.name: field.divisor for field in CHANNELS[INFLATION].fields}
        for i in np.flatnonzero(ticks >= first).tolist():
            values = {name: column[i] for name, column in market.items()}
            indicators = {name: float(column[i]) * divisors[name] for name, column in macro.items()}
            self.replay(PublicState(int(ticks[i]), values, {}, {}, {}, indicators))

    def page(
        self, after: int | None, limit: int, *, descending: bool, is_open: bool | None, kind: str | None
    ) -> tuple[list[Anomaly], int | None]:
        """Return at most limit anomalies and the number to continue after, None at the end.

        after: the number the last page ended with. is_open: only those that last, or only those that ended.
        """
        found: list[Anomaly] = []
        for number in reversed(self._kept) if descending else iter(self._kept):
            item = self._kept[number]
            if after is not None and (number >= after if descending else number <= after):
                continue
            if (kind is not None and item.kind != kind) or (is_open is not None and (item.end is None) != is_open):
                continue
            if len(found) == limit:
                return found, found[-1].number
            found.append(item)
        return found, None

    def _follow(self, view: View) -> None:
        before = self.newest
        changed = self._detector.take(view.report.public)
        self._keep(changed)
        for item in changed:
            if item.number > before:
                self._metrics.anomalies.labels(item.kind).inc()
                log.warning(
                    "anomaly_began",
                    tick=item.begin,
                    number=item.number,
                    kind=item.kind,
                    subject=item.subject,
                    score=round(item.score, 2),
                    value=round(item.value, 6),
                    usual=round(item.usual, 6),
                )
            elif item.end is not None:
                log.info("anomaly_ended", tick=view.tick, number=item.number, last=item.end, score=round(item.score, 2))
        self._metrics.anomalies_open.set(self.open_count)

    def _keep(self, changed: list[Anomaly]) -> None:
        for item in changed:
            if item.number > self._forgotten:
                self._kept[item.number] = item
        while len(self._kept) > self._kept_max:
            self._forgotten, _ = self._kept.popitem(last=False)
            self._metrics.anomalies_forgotten.inc()
