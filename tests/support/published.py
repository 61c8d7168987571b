"""A stand-in for the ticking world: random public values that walk from tick to tick, as typical ones do."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.events import Event, PublicState, TickReport
from engine.markets import MARKETS, RESOURCES
from engine.messages import ORDER_UPDATE, OUTCOME
from engine.public import INDICATOR_FIELDS, MARKET_FIELDS, MONETARY_FIELDS, PSYCHOLOGY_FIELDS, RESOURCE_FIELDS, Field
from server.live.view import View

EPOCH = "0123456789abcdef"
PUBLISHED_UNIX_NS = 1_900_000_000_000_000_000
NO_OUTCOMES = np.zeros(0, OUTCOME)
NO_UPDATES = np.zeros(0, ORDER_UPDATE)
#: Typical size of a value by unit; one tick moves it by a fifth of a percent.
SIZES = {"ucr": 5e6, "share": 0.3, "1": 1.0, "bp/lot": 1e-4, "flag": 1.0}
WHOLE_UNITS = ("ucr", "lots", "level", "bp", "count", "flag", "hours", "tick")


class World:
    """The world at `tick`; a seed makes it repeatable."""

    def __init__(self, seed: int = 1, tick: int = 100) -> None:
        self.random = np.random.default_rng(seed)
        self.tick = tick
        self.events = {"discovery_event": 0, "catastrophic_event": 0}
        self._values: dict[str, NDArray[Any]] = {}

    def view(self, *channels: str) -> View:
        """Return the next tick, with one event of each of the channels."""
        self.tick += 1
        events = tuple(self.event(channel) for channel in channels)
        return View(self.report(events), EPOCH, PUBLISHED_UNIX_NS)

    def event(self, channel: str) -> Event:
        """Return the next event of a channel."""
        self.events[channel] += 1
        data: dict[str, Any] = {"resource": "oil", "size": 0.0123456, "lots": 7_000}
        if channel == "catastrophic_event":
            data |= {"kind": "natural_disaster", "shock": 0.037}
        name = "resource_discovered" if channel == "discovery_event" else "catastrophe_struck"
        return Event(channel, self.events[channel], self.tick, name, data)

    def report(self, events: tuple[Event, ...] = ()) -> TickReport:
        """Return the report of the tick that is."""
        return TickReport(self.tick, NO_OUTCOMES, NO_UPDATES, events, self.public())

    def public(self) -> PublicState:
        """Return the public values of the tick that is."""
        return PublicState(
            self.tick,
            {field.name: self._next("market", field, MARKETS) for field in MARKET_FIELDS},
            {field.name: self._next("resource", field, RESOURCES) for field in RESOURCE_FIELDS},
            {field.name: float(self._next("psychology", field, 1)[0]) for field in PSYCHOLOGY_FIELDS},
            {field.name: float(self._next("monetary", field, 1)[0]) for field in MONETARY_FIELDS},
            {field.name: float(self._next("indicators", field, 1)[0]) for field in INDICATOR_FIELDS},
        )

    def _next(self, group: str, field: Field, length: int) -> NDArray[Any]:
        size = SIZES.get(field.unit, 1_000.0)
        before = self._values.get(group + field.name)
        step = self.random.normal(0.0, 1.0, length)
        values = size * (1.0 + 0.1 * step) if before is None else before + 0.002 * size * step
        if field.unit == "flag":
            values = (self.random.random(length) < 0.05).astype(float)
        self._values[group + field.name] = values
        return np.rint(values).astype(np.int64) if field.unit in WHOLE_UNITS else values
