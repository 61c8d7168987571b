"""Analyses of the live world, made when somebody asks and never on the tick's path.

    request -> kept answer, or the one being made -> copy of orders between ticks | rows of the history -> thread

Curves hold for one tick, everything else is reused for cache_expiry; who asks at the same time waits for the same
answer. The arithmetic runs in a thread of its own, one analysis at a time. Nothing is kept but finished answers, within
the bounds of AnswerCache. Source: specification 004, lazy evaluation; engine.analysis has the formulas.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Sequence
from math import isfinite
from typing import Any, NamedTuple

import numpy as np
import orjson
from numpy.typing import NDArray

from engine.analysis import arbitrage, crises, efficiency, forecasts, impact
from engine.analysis.curves import (
    Standing,
    consumer_surplus,
    crossing,
    demanded,
    elasticities,
    marginal_cost,
    polyline,
    producer_surplus,
    recipe,
    standing_orders,
    supplied,
    thinned,
)
from engine.analysis.needs import TooFew
from engine.auction import open_markets
from engine.economy import Economy
from engine.ladder import UCR, prices, window
from engine.markets import CONSOL, HOURS, MARKETS, NAMES, RAW_FIRST, RAW_LAST, SHARE_FIRST
from server.clock import Clock
from server.live.cache import AnswerCache
from server.live.errors import TickLate
from server.live.frames import INFLATION, MARKET_TICK, PSYCHOLOGY, UNITS
from server.live.history import History
from server.live.ticker import Ticker
from server.live.view import Published, View
from server.live.workers import SYSTEM, Workers
from server.metrics import Metrics

ANALYSIS_TICKS = 8_640
"""Ticks an analysis looks back at, as far as the history has them: a simulated year."""
CURVE_WAIT_S = 10.0
"""Longest a reader of curves waits for the tick whose orders they are, beyond the time it is due in."""
FORECASTS = (
    "cpi", "inflation", "unemployment", "policy_rate", "equity_index", "sentiment", "volatility", "consumption_real",
    "wage", "money_supply",
)  # fmt: skip
"""Indicators that are forecast."""
HORIZON_DAYS = (1, 5, 20)
SIGNS = ("fear", "herding", "disagreement", "shock", "volatility_multiplier")
"""Signs of a crisis, higher when things are worse; the mean volatility of the asset markets is the sixth."""
ASSETS = [*range(RAW_FIRST, RAW_LAST + 1), *range(SHARE_FIRST, CONSOL + 1)]

Floats = NDArray[np.float64]


class Answer(NamedTuple):
    """A finished document. version: changes with every new one under the same name."""

    body: bytes
    version: str


class _Legs(NamedTuple):
    """What a market's curves are made from: its own orders, and those of what a lot takes."""

    own: Standing
    inputs: list[tuple[float, Standing]]
    is_open: bool


class Analytics:
    """Answers about markets and indicators, each made at most once at a time.

    expiry_ms: how long a finished answer is reused; 0: for its tick.
    """

    def __init__(
        self,
        history: History,
        published: Published,
        economy: Economy,
        ticker: Ticker,
        *,
        tick_rate_ms: int,
        expiry_ms: int,
        clock: Clock,
        metrics: Metrics,
        workers: Workers = SYSTEM,
    ) -> None:
        self._history = history
        self._published = published
        self._economy = economy
        self._state = economy.state
        self._ticker = ticker
        self._period_s = tick_rate_ms / 1_000
        self._clock = clock
        self._metrics = metrics
        self._is_reused = expiry_ms > 0
        # an answer of one tick is kept that long as well: the tick is in its key
        self._answers = AnswerCache(max(expiry_ms, 1_000), clock)
        self._executor = workers.executor("analytics")

    @property
    def in_flight(self) -> int:
        """Answers being made."""
        return self._answers.in_flight

    async def close(self) -> None:
        """Give up what is being made; nothing may be asked for afterwards."""
        await self._answers.close()
        self._executor.shutdown(wait=True, cancel_futures=True)

    async def curves(self, m: int, points: int) -> Answer:
        """Return the curves that the next auction of market m met, once it is over.

        points: most points of a curve. They are told after the auction, not before: residents' orders are sealed until
        then, and whoever saw them would know the next price. Raises TickLate, or Frozen when no tick will come.
        """
        tick = self._published.view.tick
        body = await self._shared("curves", (m, points, tick), lambda: self._make_curves(m, points))
        return Answer(body, _version(body))

    async def impact(self, m: int) -> Answer:
        """Return Kyle's lambda and the impact curve of market m from its history."""
        return await self._from_history(f"impact-{m}", "impact", lambda view: self._impact(view, m))

    async def efficiency(self) -> Answer:
        """Return the tests of efficiency of every market."""
        return await self._from_history("efficiency", "efficiency", self._efficiency)

    async def arbitrage(self) -> Answer:
        """Return the gaps between markets that are tied to each other."""
        return await self._from_history("arbitrage", "arbitrage", self._arbitrage)

    async def forecasts(self) -> Answer:
        """Return the forecasts of indicators and the early warning of crises."""
        return await self._from_history("forecasts", "forecasts", self._forecasts)

    async def _from_history(self, name: str, kind: str, make: Callable[[View], dict[str, Any]]) -> Answer:
        view = self._published.view
        key = (name,) if self._is_reused else (name, view.tick)

        async def build() -> bytes:
            return await self._in_thread(kind, lambda: _rendered(make(self._published.view)))

        body = await self._shared(kind, key, build)
        return Answer(body, _version(body))

    async def _shared(self, kind: str, key: tuple[Any, ...], build: Callable[[], Any]) -> bytes:
        """Return the answer under a key, made now unless it is there or on its way."""
        self._metrics.analyses_asked.labels(kind).inc()
        return await self._answers.get_shared((kind, *key), build)

    async def _in_thread(self, kind: str, work: Callable[[], bytes]) -> bytes:
        began = self._clock.monotonic()
        body = await asyncio.get_running_loop().run_in_executor(self._executor, work)
        self._metrics.analysis_seconds.labels(kind).observe(self._clock.monotonic() - began)
        return body

    # --- curves --------------------------------------------------------------------------------------------------
    async def _make_curves(self, m: int, points: int) -> bytes:
        async with self._ticker.settled():
            legs = self._copy(m)
        wait_s = CURVE_WAIT_S + self._period_s
        try:
            async with asyncio.timeout(wait_s):
                await self._ticker.wait_tick(legs.own.tick)
        except TimeoutError:
            raise TickLate(f"tick {legs.own.tick}, whose orders were asked for, is {wait_s:.0f} s late") from None
        view = self._published.view
        return await self._in_thread("curves", lambda: _rendered(_curves(view.epoch, legs, points)))

    def _copy(self, m: int) -> _Legs:
        """Copy the standing orders of a market and of what its lots take; the state must stand still."""
        state = self._state
        # as they are now: an operator may set them
        config = self._economy.config
        reach = window(config.max_price_change)
        inputs = [(lots, standing_orders(state, i, reach)) for i, lots in recipe(state, m)]
        is_open = open_markets(state.halt_until, state.tick + 1, config.market_open_hours)
        return _Legs(standing_orders(state, m, reach), inputs, bool(is_open[m]))

    # --- from the history ----------------------------------------------------------------------------------------
    def _impact(self, view: View, m: int) -> dict[str, Any]:
        ticks, columns = self._history.recent(MARKET_TICK, ("return_bp", "imbalance"), ANALYSIS_TICKS)
        changes, flows = columns["return_bp"][:, m], columns["imbalance"][:, m]
        return _stamp(view, ticks) | {
            "id": m,
            "name": NAMES[m],
            "kyle": _tried(lambda: impact.kyle_lambda(changes, flows)._asdict()),
            "curve": _tried(lambda: _impact_curve(impact.impact_curve(changes, flows))),
        }

    def _efficiency(self, view: View) -> dict[str, Any]:
        ticks, columns = self._history.recent(MARKET_TICK, ("return_bp",), ANALYSIS_TICKS)
        returns = columns["return_bp"]
        return _stamp(view, ticks) | {
            "significance": efficiency.SIGNIFICANCE,
            "markets": [
                {"id": m, "name": NAMES[m], "tests": _tried(lambda m=m: _tests(efficiency.efficiency(returns[:, m])))}  # type: ignore[misc]  # a default binds m
                for m in range(MARKETS)
            ],
        }

    def _arbitrage(self, view: View) -> dict[str, Any]:
        names = ("price", "best_bid", "best_ask", "income_per_lot")
        ticks, columns = self._recent({MARKET_TICK: names, INFLATION: ("policy_rate",)})
        past = arbitrage.Past(*(columns[name] for name in (*names, "policy_rate")))
        recipes = [
            None
            if made is None
            else {
                0: made.hours_per_lot,
                NAMES.index(made.first_input): made.first_per_lot,
                NAMES.index(made.second_input): made.second_per_lot,
            }
            for made in view.production
        ]
        found = _tried(lambda: {"links": [_gap(gap) for gap in arbitrage.gaps(past, recipes)]})
        links = found.pop("links", [])
        return _stamp(view, ticks) | {
            "outside": sum(link["is_outside"] for link in links),
            "width_deviations": arbitrage.WIDTH,
            "links": links,
            "missing": found.get("missing"),
        }

    def _forecasts(self, view: View) -> dict[str, Any]:
        ticks, columns = self._history.recent(INFLATION, FORECASTS, ANALYSIS_TICKS)
        return _stamp(view, ticks) | {
            "coverage": forecasts.COVERAGE,
            "indicators": [
                {
                    "name": name,
                    "unit": UNITS[INFLATION][name],
                    "now": float(columns[name][-1]),
                    "forecasts": [_forecast(columns[name], days) for days in HORIZON_DAYS],
                }
                for name in FORECASTS
            ],
            "early_warning": self._early_warning(),
        }

    def _early_warning(self) -> dict[str, Any]:
        _, columns = self._recent({PSYCHOLOGY: SIGNS, MARKET_TICK: ("is_panic", "volatility")})
        volatility = columns["volatility"][:, ASSETS].mean(axis=1)
        signs = np.stack([*(columns[name] for name in SIGNS), volatility], axis=1)
        in_crisis = np.asarray(columns["is_panic"][:, ASSETS].max(axis=1) > 0)

        def warn() -> dict[str, Any]:
            found = crises.early_warning(signs, in_crisis)
            backtest = found.backtest
            return found._asdict() | {"backtest": None if backtest is None else backtest._asdict()}

        return _tried(warn) | {
            "horizon_days": crises.HORIZON_DAYS,
            "alarm": crises.ALARM,
            "signs": [*SIGNS, "volatility"],
        }

    def _recent(self, wanted: dict[str, Sequence[str]]) -> tuple[NDArray[np.int64], dict[str, Floats]]:
        """Return the last ticks and fields of several channels in them; the history may go on between two of them."""
        read = [self._history.recent(channel, names, ANALYSIS_TICKS) for channel, names in wanted.items()]
        first, last = max(ticks[0] for ticks, _ in read), min(ticks[-1] for ticks, _ in read)
        columns = {
            name: column[(ticks >= first) & (ticks <= last)] for ticks, found in read for name, column in found.items()
        }
        return np.arange(first, last + 1), columns


def _tried(make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Return what make returns with missing null, or what is missing for it."""
    try:
        return {**make(), "missing": None}
    except TooFew as error:
        return {"missing": {"reason": str(error), "have": error.have, "need": error.need}}
    except ValueError as error:
        return {"missing": {"reason": str(error), "have": None, "need": None}}


def _stamp(view: View, ticks: Sequence[int] | NDArray[np.int64]) -> dict[str, Any]:
    """Return what every analysis of the past begins with; tick is the last one it looked at."""
    return {
        "tick": int(ticks[-1]),
        "epoch": view.epoch,
        "window": {"first_tick": int(ticks[0]), "last_tick": int(ticks[-1]), "ticks": len(ticks)},
    }


def _rendered(document: dict[str, Any]) -> bytes:
    return orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY)


def _version(body: bytes) -> str:
    return hashlib.blake2b(body, digest_size=8).hexdigest()


def _curves(epoch: str, legs: _Legs, points: int) -> dict[str, Any]:
    own, table = legs.own, prices()
    met = crossing(own)
    price = int(table[met.level])
    surplus = (
        consumer_surplus(*polyline(own.bids, table, falling=True), met.volume, price),
        producer_surplus(*polyline(own.asks, table, falling=False), met.volume, price),
    )
    demand, supply = elasticities(own)
    bids, asks = (side.levels[thinned(len(side.levels), points)] for side in (own.bids, own.asks))
    steps, costs = marginal_cost(
        [(lots, np.cumsum(leg.asks.lots).astype(np.float64), table[leg.asks.levels] / UCR) for lots, leg in legs.inputs]
    )
    shown = thinned(len(steps), points)
    return {
        "tick": own.tick,
        "epoch": epoch,
        "id": own.market,
        "name": NAMES[own.market],
        "is_open": legs.is_open,
        "reference_price": int(table[own.reference]) / UCR,
        "demand": {"prices": (table[bids] / UCR).tolist(), "lots": demanded(own.bids, bids).tolist()},
        "supply": {"prices": (table[asks] / UCR).tolist(), "lots": supplied(own.asks, asks).tolist()},
        "outside_lots": {"bids": own.outside_bids, "asks": own.outside_asks},
        "crossing": None
        if met.volume == 0
        else {
            "price": price / UCR,
            "volume": met.volume,
            "demand": met.demand,
            "supply": met.supply,
            "consumer_surplus": surplus[0] / UCR,
            "producer_surplus": surplus[1] / UCR,
        },
        "elasticity": {"demand": demand, "supply": supply},
        "marginal_cost": {
            "inputs": [{"market": NAMES[leg.market], "per_lot": lots} for lots, leg in legs.inputs],
            "lots": steps[shown].tolist(),
            "costs": costs[shown].tolist(),
        }
        if legs.inputs
        else None,
    }


def _impact_curve(curve: impact.ImpactCurve) -> dict[str, Any]:
    columns = (curve.flow, curve.impact, curve.standard_error, curve.counts)
    names = ("flow_lots", "impact_bp", "standard_error", "count")
    return {
        "bins": [dict(zip(names, row, strict=True)) for row in zip(*(c.tolist() for c in columns), strict=True)],
        "exponent": curve.exponent,
        "exponent_error": curve.exponent_error,
    }


def _tests(found: efficiency.Efficiency) -> dict[str, Any]:
    return found._asdict() | {
        "autocorrelations": found.autocorrelations.tolist(),
        "ratios": [ratio._asdict() for ratio in found.ratios],
        "ljung_box": found.ljung_box._asdict(),
        "robust": found.robust._asdict(),
        "verdict": found.verdict.value,
    }


def _gap(gap: arbitrage.Gap) -> dict[str, Any]:
    link = {"kind": gap.link.kind, "market": NAMES[gap.link.market], "others": [NAMES[m] for m in gap.link.others]}
    return link | {name: value for name, value in gap._asdict().items() if name != "link"}


def _forecast(values: Floats, days: int) -> dict[str, Any]:
    def make() -> dict[str, Any]:
        found = forecasts.forecast(values, days * HOURS)._asdict()
        del found["horizon"]
        assert all(isfinite(value) for value in found.values() if isinstance(value, float)), found
        return found

    return {"days": days, **_tried(make)}
