"""What a tick costs: worlds of many sizes, many numbers of markets in the clearing kernel, many outside orders.

One thread, CPU time, medians; every size also in two threads by the clock on the wall, where that is another number.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.auction import CHUNKS, INDICATIVE_LIMIT, Auction, auction_of, clear_markets
from engine.config import Config
from engine.economy import Economy
from engine.ladder import window
from engine.markets import MARKETS
from engine.messages import Status
from engine.state import SLOTS, persistent
from loadtest.headless.memory import of_world
from server.bench_ticks import Crowd
from server.live.world import parallel_in
from server.provenance import revision, this_machine

RESIDENTS = (10_000, 30_000, 100_000, 300_000, 1_000_000, 3_000_000, 10_000_000)
QUICK_RESIDENTS = RESIDENTS[:5]
ORDERS = (0, 1_000, 3_000, 10_000, 30_000, 100_000)
MARKET_COUNTS = (8, 16, 32, 64, 128, 256)
SMALL = 100_000
"""Residents of the world whose outside orders and markets are varied."""
SEED = 1
THREADS = 2

Document = dict[str, Any]


def measure(quick: bool, residents: Sequence[int] | None = None, agents: int = ORDERS[-1]) -> Document:
    """Return all three curves with the formulas fitted to them. residents: sizes; agents: most outside orders."""
    sizes = residents or (QUICK_RESIDENTS if quick else RESIDENTS)
    began = time.perf_counter()
    curves = {
        "markets": markets_curve(quick, min(SMALL, sizes[-1])),
        "orders": orders_curve(quick, min(SMALL, sizes[-1]), agents),
        "residents": residents_curve(quick, sizes),
    }
    return {
        "name": "cost_curves",
        **curves,
        "fits": {
            "tick_ms_of_residents": fitted(curves["residents"], "residents", "tick_ms"),
            "memory_mb_of_residents": fitted(curves["residents"], "residents", "rss_mb", relative=False),
            "clearing_ms_of_markets": fitted(curves["markets"], "markets", "clearing_ms"),
            "extra_ms_of_orders": fitted(curves["orders"][1:], "orders", "extra_ms"),
        },
        "seconds": round(time.perf_counter() - began, 1),
        "revision": revision(),
        "machine": this_machine(),
    }


def residents_curve(quick: bool, sizes: Sequence[int]) -> list[Document]:
    """Return cost, share per phase and memory of worlds of these sizes, smallest first."""
    rows: list[Document] = []
    for residents in sizes:
        _say(f"{residents:,} residents")
        ticks = max(24, min(400, 40_000_000 // residents) // (4 if quick else 1))
        economy = Economy(Config(residents=residents), SEED)
        _advance(economy, ticks)
        phases = _phases(economy, ticks)
        tick = np.sum(list(phases.values()), axis=0)
        row: Document = {
            "residents": residents,
            "ticks": ticks,
            "tick_ms": _median(tick),
            "p10_ms": _percentile(tick, 10),
            "p90_ms": _percentile(tick, 90),
            "phases_ms": {name: _median(values) for name, values in phases.items()},
            "state_mb": round(sum(array.nbytes for _, array in persistent(economy.state)) / 1e6, 3),
            **of_world(residents),
        }
        del economy
        row["two_threads_ms"] = _two_threads_ms(residents, ticks)
        row["ns_per_resident"] = round(row["tick_ms"] * 1e6 / residents, 2)
        rows.append(row)
    return rows


def _two_threads_ms(residents: int, ticks: int) -> float:
    economy = Economy(Config(residents=residents), SEED, threads=THREADS, parallel=parallel_in(THREADS))
    _advance(economy, max(24, ticks // 4))
    return _median(_timed(economy.advance, ticks, time.perf_counter_ns))


def orders_curve(quick: bool, residents: int, agents: int) -> list[Document]:
    """Return what so many outside orders in a tick add to it; ticks without orders stand between those with some."""
    config = Config(residents=residents, max_agents=max(64, agents), endowment_credits=100_000)
    crowd = Crowd(Economy(config, SEED), agents)
    for _ in range(20):
        crowd.economy.advance(crowd.orders())
    rows = []
    for count in (number for number in ORDERS if number <= agents):
        _say(f"{count:,} outside orders")
        plain: list[float] = []
        busy: list[float] = []
        filled = rejected = 0
        for _ in range(30 if quick else 100):
            orders = crowd.orders(count, ahead=3)
            crowd.economy.advance()
            plain.append(_timed(crowd.economy.advance, 1)[0])
            started = time.thread_time_ns()
            report = crowd.economy.advance(orders)
            busy.append((time.thread_time_ns() - started) / 1e6)
            filled += int(np.count_nonzero(report.outcomes["filled"]))
            rejected += int(np.count_nonzero(report.outcomes["status"] == int(Status.REJECTED)))
        total = max(1, count * len(busy))
        rows.append(
            {
                "orders": count,
                "plain_ms": _median(plain),
                "tick_ms": _median(busy),
                "extra_ms": round(_median(busy) - _median(plain), 4),
                "filled_share": round(filled / total, 4),
                "rejected_share": round(rejected / total, 4),
            }
        )
    return rows


def markets_curve(quick: bool, residents: int) -> list[Document]:
    """Return what the clearing kernel takes for so many markets.

    Each synthetic market holds the orders of one of the 32 of a real world of so many residents, taken in turn, and
    is filled anew before every clearing; filling is not timed. The rest of a tick always has its 32 markets.
    """
    economy = Economy(Config(residents=residents), SEED)
    _advance(economy, 200)
    rows = []
    for count in MARKET_COUNTS:
        _say(f"{count} markets")
        clear = _clearing(economy, count)
        rows.append({"markets": count, "clearing_ms": _median([clear() for _ in range(60 if quick else 400)])})
    return rows


def _clearing(economy: Economy, count: int) -> Callable[[], float]:
    """Return a function that fills so many markets, clears them and returns the milliseconds of the clearing."""
    real = auction_of(economy.state)
    source = np.arange(count) % MARKETS
    arrays = {name: _of_markets(name, array, source) for name, array in real._asdict().items()}
    kept = {name: array.copy() for name, array in arrays.items()}
    synthetic = Auction(**arrays)
    is_open = np.ones(count, np.bool_)
    sums, reach = np.zeros((count, 2, CHUNKS), np.int64), np.full((count, 2), (SLOTS, -1), np.int64)
    down, up = window(economy.config.max_price_change)
    limit = min(INDICATIVE_LIMIT, economy.config.max_price_change)

    def clear() -> float:
        for name, array in arrays.items():
            if name != "ladder":
                array[...] = kept[name]
        started = time.thread_time_ns()
        clear_markets(synthetic, is_open, sums, reach, down, up, limit)
        return (time.thread_time_ns() - started) / 1e6

    clear()
    return clear


def _of_markets(name: str, array: NDArray[Any], source: NDArray[np.int64]) -> NDArray[Any]:
    """Return an array of the auction with its axis of markets taken from the source markets."""
    if name == "ladder":
        return array
    axis = next(k for k, length in enumerate(array.shape) if length == MARKETS)
    return np.ascontiguousarray(np.take(array, source, axis=axis))


def fitted(rows: Sequence[Document], x: str, y: str, *, relative: bool = True) -> Document:
    """Return fixed + slope x n fitted to rows by least squares, with R^2 and the largest relative error.

    relative: weigh rows by their relative error, or the largest size alone would decide.
    """
    at = np.array([row[x] for row in rows], dtype=float)
    seen = np.array([row[y] for row in rows], dtype=float)
    weight = 1.0 / np.maximum(seen, 1e-9) if relative else np.ones_like(seen)
    columns = np.stack([np.ones_like(at), at], axis=1)
    (fixed, slope), *_ = np.linalg.lstsq(columns * weight[:, None], seen * weight, rcond=None)
    error = seen - (fixed + slope * at)
    spread = float(((seen - seen.mean()) ** 2).sum())
    return {
        "of": x,
        "fixed": float(f"{fixed:.6g}"),
        "slope": float(f"{slope:.6g}"),
        # what is the same for all, as the memory of two small worlds may be, is met by the fixed part
        "r_squared": round(1.0 - float((error**2).sum()) / spread, 6) if spread > 0 else 1.0,
        "largest_relative_error": round(float(np.max(np.abs(error) / np.maximum(np.abs(seen), 1e-9))), 4),
    }


def _phases(economy: Economy, ticks: int) -> dict[str, list[float]]:
    """Return the milliseconds of each phase in each tick; `report` is what comes after the last one."""
    times: dict[str, list[float]] = {}
    last = 0

    def observe(name: str) -> None:
        nonlocal last
        now = time.thread_time_ns()
        times.setdefault(name, []).append((now - last) / 1e6)
        last = now

    for _ in range(ticks):
        last = time.thread_time_ns()
        economy.advance(observe=observe)
        observe("report")
    return times


def _timed(work: Callable[[], object], count: int, clock: Callable[[], int] = time.thread_time_ns) -> list[float]:
    times = []
    for _ in range(count):
        started = clock()
        work()
        times.append((clock() - started) / 1e6)
    return times


def _advance(economy: Economy, ticks: int) -> None:
    for _ in range(ticks):
        economy.advance()


def _median(values: Sequence[float]) -> float:
    return _percentile(values, 50)


def _percentile(values: Sequence[float], at: float) -> float:
    return round(float(np.percentile(values, at)), 4)


def _say(text: str) -> None:
    sys.stderr.write(f"measuring {text} ...\n")
    sys.stderr.flush()
