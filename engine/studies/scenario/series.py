"""What a scenario watches: values of each day, by name, read from the public state of the ticks.

A name is an indicator (`unemployment`), a value of a market or a group of markets (`price.oil`, `volume.shares`), a
value of a resource (`scarcity.oil`), or one of the few below (`outside_part.oil`, `events.panic_began`, `refused`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from engine.errors import ScenarioInvalid
from engine.events import PublicState, TickReport
from engine.markets import ID, RAW_FIRST
from engine.public import INDICATOR_FIELDS, MARKET_FIELDS, MONETARY_FIELDS, PSYCHOLOGY_FIELDS, RESOURCE_FIELDS
from engine.state import State
from engine.studies.scenario.outside import held_part
from engine.studies.scenario.vocabulary import GROUPS

LAST, SUM, HIGHEST = "at the day's end", "sum of the day", "highest of the day"
#: Market values of which a day has the sum of its ticks; of flags it has the highest, of all others the last.
FLOWS = ("volume", "value", "consumer_surplus", "producer_surplus", "return_bp")
#: Market values that groups add up; of all others a group has the mean.
ADDED = (
    "volume", "value", "bid_depth", "ask_depth", "imbalance", "demand", "supply", "consumer_surplus",
    "producer_surplus", "is_halted", "is_panic", "is_euphoria",
)  # fmt: skip
EVENTS = (
    "resource_discovered", "catastrophe_struck", "panic_began", "panic_ended", "euphoria_began", "euphoria_ended",
    "volatility_began", "volatility_ended", "market_halted", "market_resumed", "tightening_began", "tightening_ended",
    "easing_began", "easing_ended", "agent_expired", "agent_defaulted",
)  # fmt: skip

Reader = Callable[[State, TickReport], float]


@dataclass(frozen=True)
class Series:
    """A watched value. unit: as in engine.public. per_day: what a day has of its ticks. read: the value of a tick."""

    name: str
    unit: str
    per_day: str
    read: Reader


def series_of(name: str) -> Series:
    """Return the series of a name; raises ScenarioInvalid for a name that means nothing, saying what there is."""
    head, _, where = name.partition(".")
    if not where:
        return _whole_economy(name)
    if head == "events":
        return Series(name, "count", SUM, partial(_events, _known(where, EVENTS, name)))
    markets = GROUPS.get(where) or ((ID[where],) if where in ID else ())
    if head == "outside_part" and len(markets) == 1:
        return Series(name, "1", LAST, partial(_held, markets[0]))
    if head == "largest_move_bp" and markets:
        return Series(name, "bp", HIGHEST, partial(_largest_move, list(markets)))
    for field in MARKET_FIELDS:
        if field.name == head and markets:
            per_day = SUM if head in FLOWS else HIGHEST if field.unit == "flag" else LAST
            return Series(name, field.unit, per_day, partial(_market, head, list(markets), head in ADDED))
    for field in RESOURCE_FIELDS:
        if field.name == head and markets and set(markets) <= set(GROUPS["raw"]):
            indices = [market - RAW_FIRST for market in markets]
            return Series(name, field.unit, LAST, partial(_resource, head, indices, field.unit == "lots"))
    raise ScenarioInvalid(
        f"series {name!r} means nothing; after the dot stands a market, a group ({', '.join(GROUPS)}) or a resource,"
        f" before it one of {', '.join(known_market_values())}"
    )


def known_market_values() -> tuple[str, ...]:
    """Return what may stand before the dot."""
    names = [field.name for field in (*MARKET_FIELDS, *RESOURCE_FIELDS)]
    return (*names, "largest_move_bp", "outside_part", "events")


def known_indicators() -> tuple[str, ...]:
    """Return the names without a dot."""
    fields = (*INDICATOR_FIELDS, *PSYCHOLOGY_FIELDS, *MONETARY_FIELDS)
    return (*dict.fromkeys(field.name for field in fields), "actions", "refused")


class Recorder:
    """Collects the days of some series from the ticks of one world."""

    def __init__(self, watched: list[Series]) -> None:
        self.days: dict[str, list[float]] = {series.name: [] for series in watched}
        self._each_tick = [series for series in watched if series.per_day != LAST]
        self._each_day = [series for series in watched if series.per_day == LAST]
        self._today: dict[str, float] = {}

    def tick(self, state: State, report: TickReport) -> None:
        """Take a tick into the day's sums and maxima."""
        for series in self._each_tick:
            value = series.read(state, report)
            before = self._today.get(series.name, 0.0)
            self._today[series.name] = before + value if series.per_day == SUM else max(before, value)

    def end_day(self, state: State, report: TickReport) -> None:
        """Close the day after its last tick."""
        for series in self._each_tick:
            self.days[series.name].append(self._today.get(series.name, 0.0))
        for series in self._each_day:
            self.days[series.name].append(series.read(state, report))
        self._today = {}

    def arrays(self) -> dict[str, NDArray[np.float64]]:
        """Return the days of each series."""
        return {name: np.array(values, np.float64) for name, values in self.days.items()}


def _whole_economy(name: str) -> Series:
    if name == "actions":
        return Series(name, "count", SUM, lambda _state, report: float(len(report.outcomes)))
    if name == "refused":
        return Series(name, "count", SUM, lambda _state, report: float(np.count_nonzero(report.outcomes["code"])))
    for part, fields in (
        ("indicators", INDICATOR_FIELDS),
        ("psychology", PSYCHOLOGY_FIELDS),
        ("monetary", MONETARY_FIELDS),
    ):
        for field in fields:
            if field.name == name:
                per_day = HIGHEST if field.unit == "flag" else LAST
                return Series(name, field.unit, per_day, partial(_indicator, part, name))
    raise ScenarioInvalid(
        f"series {name!r} means nothing; without a dot there are {', '.join(known_indicators())}, and markets, groups"
        " and resources with one, like price.oil"
    )


def _known(word: str, known: tuple[str, ...], name: str) -> str:
    if word not in known:
        raise ScenarioInvalid(f"series {name!r} means nothing; events are {', '.join(known)}")
    return word


def _indicator(part: str, name: str, _state: State, report: TickReport) -> float:
    values: dict[str, float] = getattr(report.public, part)
    return float(values[name])


def _market(field: str, markets: list[int], added: bool, _state: State, report: TickReport) -> float:
    public: PublicState = report.public
    values = public.market[field][markets]
    return float(values.sum() if added else values.mean())


def _resource(field: str, indices: list[int], added: bool, _state: State, report: TickReport) -> float:
    values = report.public.resource[field][indices]
    return float(values.sum() if added else values.mean())


def _largest_move(markets: list[int], _state: State, report: TickReport) -> float:
    return float(np.abs(report.public.market["return_bp"][markets]).max())


def _held(market: int, state: State, _report: TickReport) -> float:
    return held_part(state, market)


def _events(name: str, _state: State, report: TickReport) -> float:
    return float(sum(event.name == name for event in report.events))
