"""Impact of large orders: the same world with and without an order that is worked over a day.

A day of a copy of the world is run with an outside agent that buys a share of the daily volume in 24 equal parts, and
once with the same agent doing nothing; the impact is how much higher the price ends. The world itself is not touched.
Source: ECONOMY B3; Toth et al. 2011, Physical Review X 1:021006; Maitrier et al. 2025, arXiv 2502.16246.
"""

from __future__ import annotations

from dataclasses import replace
from math import sqrt
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from engine.analysis.figures import Figure, aim, finite, shown
from engine.analysis.goals import IMPACT_GOAL, Impact, power_law
from engine.analysis.recording import Recorder, Recording
from engine.analysis.statistics import NAN
from engine.economy import NO_ACTIONS, Economy
from engine.ladder import UCR
from engine.markets import HOURS, RAW_FIRST, SHARE_FIRST
from engine.messages import ACTION, Kind
from engine.state import ORDER_COUNT, SLOTS_USED

SIZES = (0.01, 0.03, 0.1, 0.3)
"""Shares of the daily volume."""
EXPERIMENTS = 28
"""Start times; each takes another share and another raw market, so that each of the fourteen comes up four times."""
BEFORE_DAYS = 10
"""Days whose volume and volatility an order is measured by."""
NEEDS_DAYS = 60
_FIRST_SEQ = 1 << 60
"""Numbers of our agents and actions: far behind those of any world."""

F64 = NDArray[np.float64]
Start = tuple[int, list[tuple[str, NDArray[Any]]]]


class Metaorder(NamedTuple):
    """One order worked over one day."""

    market: int
    size: float
    """Share of the daily volume asked for."""
    filled: float
    """Share of it that was bought."""
    impact_bp: float
    daily_sd_bp: float
    """Standard deviation of a day's return in the days before: impact is told in units of it."""


class Metaorders:
    """Runs the experiments beside a world that is being recorded: call it after every tick.

    ticks: of the whole run; the experiments are spread over its second half.
    """

    def __init__(self, recorder: Recorder, ticks: int, first_tick: int) -> None:
        self.done: list[Metaorder] = []
        self._recorder = recorder
        days = ticks // HOURS
        count = EXPERIMENTS if days >= NEEDS_DAYS else 0
        chosen = np.linspace(days // 2, days - 1, count).astype(np.int64)
        # a day begins after a tick with tick mod 24 = 23
        offset = (HOURS - 1 - first_tick) % HOURS
        self._starts = {int(first_tick + offset + HOURS * day): i for i, day in enumerate(chosen)}

    def __call__(self, economy: Economy) -> None:
        """Run an experiment when one begins after this tick."""
        turn = self._starts.get(economy.tick)
        if turn is None:
            return
        volume = self._recorder.volume[-BEFORE_DAYS * HOURS :].mean(axis=0) * HOURS
        moves = np.diff(self._recorder.level[-BEFORE_DAYS * HOURS :], axis=0)
        deviation = moves.std(axis=0) * sqrt(HOURS)
        for market in (RAW_FIRST + turn % 7, SHARE_FIRST + turn % 7):
            self.done += experiment(economy, market, float(volume[market]), float(deviation[market]))


def experiment(economy: Economy, market: int, daily_volume: float, daily_sd_bp: float) -> list[Metaorder]:
    """Return what orders of SIZES do to the price of a market within the next 24 ticks.

    daily_volume: lots, daily_sd_bp: of returns, both of the days before. A size is left out when it is less than a lot
    in a tick.
    """
    start = economy.copy_arrays()
    largest = int(max(SIZES) * daily_volume)
    # three times today's price: the escrow of a market order counts the edge of the window
    credits = 1 + 3 * largest * int(economy.state.price[market]) // UCR
    quiet, _ = _work(economy, start, market, 0, credits)
    done = []
    for size in SIZES:
        lots = round(size * daily_volume / HOURS)
        if lots >= 1:
            level, filled = _work(economy, start, market, lots, credits)
            bought, wanted = filled / (HOURS * lots), HOURS * lots / daily_volume
            done.append(Metaorder(market, wanted, bought, float(level - quiet), daily_sd_bp))
    return done


def by_size(done: list[Metaorder]) -> Impact:
    """Return impact by size, pooled over markets: size in shares of a day's volume, impact in daily sds of returns."""
    if not done:
        return Impact(np.zeros(0), np.zeros(0), NAN)
    sizes = np.array([order.size for order in done])
    impacts = np.array([order.impact_bp / max(order.daily_sd_bp, 1.0) for order in done])
    nearest = np.abs(np.log(sizes[:, None] / np.array(SIZES))).argmin(axis=1)
    groups = [nearest == i for i in range(len(SIZES)) if (nearest == i).any()]
    x, y = np.array([sizes[g].mean() for g in groups]), np.array([impacts[g].mean() for g in groups])
    return Impact(x, y, power_law(x, y))


def metaorder_figure(done: list[Metaorder], recording: Recording) -> Figure:
    """Return the figure of the impact of large orders over a day."""
    impact = by_size(done)
    raw, shares = (
        by_size([order for order in done if (order.market >= SHARE_FIRST) is is_share]).exponent
        for is_share in (False, True)
    )
    text = shown(impact.exponent, needs=NEEDS_DAYS * HOURS, ticks=recording.ticks)
    if len(impact.size):
        points = ", ".join(f"{y:.2f} sd at {x:.0%}" for x, y in zip(impact.size, impact.impact, strict=True))
        text += f" (resources {shown(raw)}, shares {shown(shares)}; {points} of a day's volume)"
    return Figure(
        id="impact_metaorder",
        title="impact of an order worked over a day, with and without: exponent",
        value=text,
        band=f"{IMPACT_GOAL[0]} .. {IMPACT_GOAL[1]}",
        reference=".5, the square-root law (Toth et al. 2011, PRX 1:021006; Maitrier et al. 2025, arXiv 2502.16246)",
        verdict=aim(IMPACT_GOAL[0] <= impact.exponent <= IMPACT_GOAL[1], recording.ticks),
        numbers=finite(exponent=impact.exponent, resources=raw, shares=shares, orders=len(done))
        | {f"impact_sd_{x:.0%}": float(y) for x, y in zip(impact.size, impact.impact, strict=True)},
    )


def _work(economy: Economy, start: Start, market: int, lots: int, credits: int) -> tuple[int, int]:
    """Run a day of a copy with an agent that buys lots every tick; return the last price level and lots bought."""
    config = replace(
        economy.config,
        endowment_credits=credits,
        max_agents=int(economy.state.counters[SLOTS_USED]) + 1,
        order_book_max=max(1_024, int(economy.state.counters[ORDER_COUNT]) + 1),
    )
    world = Economy(config, economy.seed, checks=0, start=start)
    for part in range(HOURS):
        actions = [_action(_FIRST_SEQ, Kind.REGISTER, owner=_FIRST_SEQ)] if part == 0 else []
        if lots:
            actions.append(_action(_FIRST_SEQ + 1 + part, Kind.MARKET, market=market, side=1, quantity=lots))
        world.advance(np.concatenate(actions) if actions else NO_ACTIONS)
    slot = int(np.flatnonzero(world.state.agent_id == _FIRST_SEQ)[0])
    return int(world.state.level[market]), int(world.state.agent_holdings[slot, market])


def _action(seq: int, kind: Kind, **fields: int) -> NDArray[np.void]:
    row = np.zeros(1, ACTION)
    row["seq"], row["agent_id"], row["kind"], row["market"], row["valid_until"] = seq, _FIRST_SEQ, kind, -1, 1 << 60
    for name, value in fields.items():
        row[name] = value
    return row
