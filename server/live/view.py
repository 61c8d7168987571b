"""The one published, immutable state: what everybody who asks now is answered from.

A view is made when a tick is both computed and durable, and never changes; documents are rendered when first asked
for and kept as bytes, so a thousand readers of a tick cost one rendering.
Source: DESIGN D19, section 3.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import cached_property
from typing import Any, NamedTuple

import orjson
from arena_client.wire import State as WireState

from engine.events import TickReport
from engine.markets import INPUTS, MARKETS, NAMES, RAW_FIRST, RESOURCES
from engine.public import INDICATOR_FIELDS, MONETARY_FIELDS
from engine.state import State
from server.live.frames import INFLATION, MARKET_TICK, PSYCHOLOGY, SCARCITY, UNITS, channel_values, quantise
from server.live.history import Day

Q16 = 65_536.0
_INDICATORS = tuple(field.name for field in INDICATOR_FIELDS)
_MONETARY = tuple(field.name for field in MONETARY_FIELDS)
_KINDS = (("labour", 0, 1), ("resource", 1, 8), ("good", 8, 24), ("share", 24, 31), ("bond", 31, 32))
KIND = tuple(name for name, first, end in _KINDS for _ in range(first, end))
"""Kind of each market: labour, resource, good, share or bond."""


class Production(NamedTuple):
    """What making one lot of a good takes: hours of labour and lots of two inputs. The world rounds a total up."""

    hours_per_lot: float
    first_input: str
    first_per_lot: float
    second_input: str
    second_per_lot: float


Days = Callable[[], Sequence[Day | None]]


def _no_days() -> Sequence[Day | None]:
    return (None,) * MARKETS


class StateView:
    """The public state of one tick as documents, each rendered when first asked for.

    tick: the one it is the state after. marked_unix_ns: when that began. states: gives the integers of every channel.
    days: gives what the last day was in each market.
    """

    def __init__(
        self,
        tick: int,
        epoch: str,
        marked_unix_ns: int,
        states: Callable[[], Mapping[str, WireState]],
        days: Days = _no_days,
    ) -> None:
        self.tick = tick
        self.epoch = epoch
        self.marked_unix_ns = marked_unix_ns
        self.days = days
        self._states = states
        self._rendered: dict[str, bytes] = {}

    @cached_property
    def time(self) -> str:
        """When the tick began: ISO 8601, UTC, milliseconds."""
        return iso_time(self.marked_unix_ns)

    @cached_property
    def states(self) -> Mapping[str, WireState]:
        """The integers of every state channel, as the streams carry them."""
        return self._states()

    @cached_property
    def numbers(self) -> dict[str, dict[str, Any]]:
        """The numbers of every state channel, exactly what a mirror of this tick shows."""
        return {channel: channel_values(channel, state) for channel, state in self.states.items()}

    def indicators(self) -> bytes:
        """Return the document of GET /api/indicators."""
        return self._once("indicators", lambda: self._values(INFLATION, _INDICATORS))

    def psychology(self) -> bytes:
        """Return the document of GET /api/psychology."""
        return self._once("psychology", lambda: self._values(PSYCHOLOGY, tuple(self.numbers[PSYCHOLOGY])))

    def monetary(self) -> bytes:
        """Return the document of GET /api/monetary."""
        return self._once("monetary", lambda: self._values(INFLATION, _MONETARY))

    def scarcity(self) -> bytes:
        """Return the document of GET /api/scarcity."""
        return self._once(
            "scarcity",
            lambda: (
                self._stamp(SCARCITY)
                | {
                    "resources": [
                        {"id": RAW_FIRST + i, "name": NAMES[RAW_FIRST + i]} | self._column(SCARCITY, i)
                        for i in range(RESOURCES)
                    ]
                }
            ),
        )

    def markets(self, first: int = 0, limit: int = MARKETS) -> bytes:
        """Return the document of GET /api/markets: at most limit markets from the given id on."""
        end = min(first + limit, MARKETS)
        return self._once(
            f"markets {first} {end}",
            lambda: (
                self._stamp(MARKET_TICK)
                | {
                    "markets": [
                        {"id": m, "name": NAMES[m]} | self._column(MARKET_TICK, m) | {"day": self._day(m)}
                        for m in range(first, end)
                    ],
                    "next_cursor": str(end) if end < MARKETS else None,
                }
            ),
        )

    def _values(self, channel: str, names: tuple[str, ...]) -> dict[str, Any]:
        numbers, units = self.numbers[channel], UNITS[channel]
        return self._stamp(channel) | {
            "values": {name: numbers[name] for name in names},
            "units": {name: units[name] for name in names},
        }

    def _day(self, m: int) -> dict[str, Any] | None:
        day = self._all_days[m]
        return None if day is None else day._asdict()

    @cached_property
    def _all_days(self) -> Sequence[Day | None]:
        return self.days()

    def _column(self, channel: str, index: int) -> dict[str, Any]:
        return {name: column[index] for name, column in self.numbers[channel].items()}

    def _stamp(self, channel: str) -> dict[str, Any]:
        return {"tick": self.tick, "time": self.time, "epoch": self.epoch, "units": UNITS[channel]}

    def _once(self, name: str, build: Callable[[], dict[str, Any]]) -> bytes:
        if name not in self._rendered:
            self._rendered[name] = orjson.dumps(build())
        return self._rendered[name]


class View(StateView):
    """One tick as everybody may see it.

    report: of the tick. epoch: the world's timeline. published_unix_ns: when it was complete and durable.
    marked_unix_ns: when it began, as the journal keeps it, so that the tick has the same time after a restart.
    states: the integers of every state channel where they are known; otherwise they are made from the report when
    first asked for.
    """

    def __init__(
        self,
        report: TickReport,
        epoch: str,
        published_unix_ns: int,
        marked_unix_ns: int | None = None,
        states: Mapping[str, WireState] | None = None,
    ) -> None:
        marked_unix_ns = published_unix_ns if marked_unix_ns is None else marked_unix_ns
        known = states
        super().__init__(
            report.tick, epoch, marked_unix_ns, lambda: quantise(report.public) if known is None else known
        )
        self.report = report
        self.published_unix_ns = published_unix_ns
        self.production: tuple[Production | None, ...] = (None,) * MARKETS
        """What making a lot takes, by market; filled in by whoever publishes, before anybody sees the view."""

    def market(self, m: int) -> bytes:
        """Return the document of GET /api/markets/{id}."""
        return self._once(f"market {m}", lambda: self._market(m))

    def _market(self, m: int) -> dict[str, Any]:
        values = self._column(MARKET_TICK, m)
        book = {
            "best_bid": values["best_bid"] or None,
            "best_ask": values["best_ask"] or None,
            "spread_bp": values["spread_bp"] if values["best_bid"] and values["best_ask"] else None,
            "bid_depth": values["bid_depth"],
            "ask_depth": values["ask_depth"],
        }
        return self._stamp(MARKET_TICK) | {
            "id": m,
            "name": NAMES[m],
            "kind": KIND[m],
            "inputs": list(INPUTS.get(NAMES[m], ())),
            "production": None if (making := self.production[m]) is None else making._asdict(),
            "values": values,
            "book": book,
            "day": self._day(m),
        }


class Published:
    """The place where the current view hangs: replaced as a whole, read by whoever answers.

    state: of the world, read while it stands still: when a view is published. days: returns the last day of each
    market, asked when a view is first rendered.
    """

    def __init__(self, view: View, state: State, days: Days = _no_days) -> None:
        self._state = state
        self._days = days
        self.publish(view)

    def publish(self, view: View) -> None:
        """Hang up the view of the next tick, completed by what making goods takes in it."""
        view.production = production(self._state)
        view.days = self._days
        self.view = view


def production(state: State) -> tuple[Production | None, ...]:
    """Return what making a lot takes in each market now, exact; None where agents cannot produce."""
    hours, first, second = ((column / Q16).tolist() for column in (state.hours_q16, state.input1_q16, state.input2_q16))
    return tuple(
        Production(hours[m], INPUTS[name][0], first[m], INPUTS[name][1], second[m]) if name in INPUTS else None
        for m, name in enumerate(NAMES)
    )


def iso_time(unix_ns: int) -> str:
    """Return a time as ISO 8601 in UTC with milliseconds: 2026-01-31T12:00:00.000Z."""
    moment = datetime.fromtimestamp(unix_ns // 1_000_000 / 1_000, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
