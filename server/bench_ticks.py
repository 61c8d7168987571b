"""Rows of `arena bench` measured in this process: ticks of worlds of several sizes, outside orders, bytes.

One thread is timed by its CPU time, which neighbours disturb least; several by the clock on the wall. Between groups
of ticks a buffer far larger than any cache is copied: the floor that ticks are compared with, under the same
conditions as the ticks. Source: DESIGN section 5.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from engine.config import Config
from engine.economy import NO_ACTIONS, WARM_UP_TICKS, Economy
from engine.markets import HOURS, MARKETS
from engine.messages import ACTION, Kind, Status, TimeInForce
from engine.state import State, array_fields, persistent
from server.bench_row import Row
from server.live.world import parallel_in

RESIDENTS = 100_000
SEED = 1
THREADS = 2
"""Threads of the rows of a million residents and more."""
LARGE = {"tick_1m": 1_000_000, "tick_10m": 10_000_000}
RESIDENTS_LARGE = 1_000_000
LARGE_BARS = {"tick_1m": 2.5, "tick_10m": 2.0}
STALL = 1.5
"""A tick over so many medians was held up: both threads on one core, or the whole machine."""
COPY_BYTES = 640_000_000
"""Half of the buffer that the copy bandwidth is taken on: far above any cache, 1.28 GB in all."""
COLD_TICKS = 3
"""Ticks after each copy that are not counted."""
CROWD = 10_000
"""Outside agents of the row outside_orders, with one order each and tick."""
CROWD_REACH = 30
"""Levels from the reference price, 0.3 %, within which they order: two in five are filled at once."""
CROWD_WARM_UP = 60
ROUNDS_A_DAY = HOURS // 3
#: Lengths that grow with the population; arrays with another first length are the same size in every world.
RESIDENT_SIZES = frozenset({"residents", "households", "producers", "traders", "blocks", "segments"})

Actions = NDArray[np.void]


@dataclass(frozen=True)
class World:
    """A world that has ticked for a while, and how long that took."""

    economy: Economy
    ticks: int
    built_s: float

    @classmethod
    def warm(cls, residents: int, ticks: int, threads: int = 1) -> World:
        """Build a world and let it tick so often."""
        began = time.perf_counter()
        economy = Economy(Config(residents=residents), SEED, threads=threads, parallel=parallel_in(threads))
        for _ in range(ticks):
            economy.advance()
        return cls(economy, ticks, time.perf_counter() - began)


@dataclass(frozen=True)
class Ticks:
    """Measured ticks of a world, milliseconds, and the copies of a large buffer taken between groups of them."""

    state_bytes: int
    tick_ms: list[float] = field(default_factory=list)
    prices_ms: list[float] = field(default_factory=list)
    copy_gb_s: list[float] = field(default_factory=list)

    @property
    def floor_ms(self) -> list[float]:
        """The time to copy the state's bytes, once for each copy."""
        return [self.state_bytes / (rate * 1e6) for rate in self.copy_gb_s]


def tick_rows(ids: list[str], quick: bool) -> list[Row]:
    """Measure a tick of 100,000 residents, one thread, and in it the clearing of the 32 markets."""
    world = World.warm(RESIDENTS, WARM_UP_TICKS)
    ticks = measure_ticks(world, groups=5 if quick else 20, each=60 if quick else 100)
    floor_ms = ticks.floor_ms
    median, p99 = np.percentile(ticks.tick_ms, [50, 99])
    ratio = median / float(np.median(floor_ms))
    slowest, fastest = median / max(floor_ms), median / min(floor_ms)
    p50_prices, p99_prices = np.percentile(ticks.prices_ms, [50, 99])
    includes = (
        f"{len(ticks.tick_ms)} ticks after a warm-up of {world.ticks}: intake, seven phases, the report with all"
        " public values, the daily check of the invariants; CPU time of the thread"
    )
    excludes = f"outside orders, state hash, server; {COLD_TICKS} ticks after each copy; warm-up {world.built_s:.1f} s"
    rows = [
        Row(
            id="tick_100k",
            value=round(ratio, 2),
            unit="x the time to copy the state's bytes",
            bar=4.2,
            spread=f"{slowest:.2f} to {fastest:.2f} over {len(floor_ms)} copies, interleaved",
            includes=f"median tick {median:.3f} ms (p99 {p99:.3f}); {_floor_text(ticks)}; {includes}",
            excludes=excludes,
        ),
        Row(
            id="tick_100k_p99",
            value=round(p99 / median, 3),
            unit="x the median",
            bar=2.0,
            spread=f"p50 {median:.3f} ms, p99 {p99:.3f} ms, most {max(ticks.tick_ms):.3f} ms",
            includes=includes,
            excludes=excludes,
        ),
        Row(
            id="pricing_100k",
            value=round(float(p99_prices), 4),
            unit="ms",
            bar=0.25,
            spread=f"p50 {p50_prices:.4f} ms, most {max(ticks.prices_ms):.4f} ms of {len(ticks.prices_ms)}",
            includes="p99 of the prices phase: merging, clearing all 32 markets, margins, what is measured of them",
            excludes=excludes,
        ),
    ]
    wanted = {*ids, *(["tick_100k_p99"] if "tick_100k" in ids else [])}
    return [row for row in rows if row.id in wanted]


def large_rows(ids: list[str], quick: bool) -> list[Row]:
    """Measure ticks of one and ten million residents in two threads, with the memory that ten million take."""
    return [row for name in ids for row in _large_rows(name, quick)]


def _large_rows(name: str, quick: bool) -> list[Row]:
    residents = LARGE[name]
    # a tick costs the same from the first day on; a longer warm-up only settles prices
    shortest = max(2, 200 * RESIDENTS_LARGE // residents)
    _forget_peak()
    world = World.warm(residents, shortest if quick else min(WARM_UP_TICKS, 10 * shortest), THREADS)
    now_mb, peak_mb = memory_mb()
    each = max(2, 30 * RESIDENTS_LARGE // residents)
    ticks = measure_ticks(world, groups=6 if quick else 20, each=each, clock=time.perf_counter_ns)
    floor_ms = float(np.median(ticks.floor_ms))
    p10, median, p90 = np.percentile(ticks.tick_ms, [10, 50, 90])
    stalls = sum(tick > STALL * median for tick in ticks.tick_ms)
    spread = (
        f"{median / max(ticks.floor_ms):.2f} to {median / min(ticks.floor_ms):.2f} over {len(ticks.copy_gb_s)} copies;"
        f" p10 {p10:.2f} ms ({p10 / floor_ms:.2f} x), p50 {median:.2f} ms, p90 {p90:.2f} ms; {stalls} of"
        f" {len(ticks.tick_ms)} ticks above {STALL} medians, held up by the machine"
    )
    includes = (
        f"{len(ticks.tick_ms)} ticks after a warm-up of {world.ticks}, {THREADS} threads, time on the wall;"
        f" median tick {median:.2f} ms; {_floor_text(ticks)}, by one thread; intake, seven phases, report, daily check"
    )
    excludes = f"outside orders, state hash, server; {COLD_TICKS} ticks after each copy; warm-up {world.built_s:.1f} s"
    ratio = Row(
        id=name,
        value=round(median / floor_ms, 2),
        unit="x the time to copy the state's bytes",
        bar=LARGE_BARS[name],
        spread=spread,
        includes=includes,
        excludes=excludes,
    )
    rows = [ratio]
    if name == "tick_10m":
        rows.append(replace(ratio, id="tick_10m_ms", value=round(float(median), 2), unit="ms", bar=100.0))
        if peak_mb:
            rows.append(
                Row(
                    id="memory_10m",
                    value=round(peak_mb, 1),
                    unit="MB",
                    bar=1_500.0,
                    spread=f"{now_mb:.0f} MB while it ticks, {peak_mb:.0f} MB at most since its building began",
                    includes="resident memory of the whole process (1 MB = 1e6 B): interpreter, kernels, the world",
                    excludes="the buffer of the copy, made afterwards",
                )
            )
    return rows


def outside_rows(ids: list[str], quick: bool) -> list[Row]:
    """Measure what 10,000 orders of 10,000 outside agents add to a tick of 100,000 residents."""
    crowd = Crowd(Economy(Config(residents=RESIDENTS, endowment_credits=100_000), SEED), CROWD)
    for _ in range(CROWD_WARM_UP):
        crowd.economy.advance(crowd.orders())
    plain_ms: list[float] = []
    busy_ms: list[float] = []
    accepted = filled = 0
    with _collected():
        for number in range(100 if quick else 500):
            if number % ROUNDS_A_DAY == 0:
                # a round is three ticks long: an hour later every day, either kind of tick falls on every hour
                crowd.economy.advance()
            orders = crowd.orders(ahead=3)
            # making orders and a busy tick leave colder caches behind: the plain tick that counts is the second one
            crowd.economy.advance()
            plain_ms.append(_tick_ms(crowd.economy))
            busy_ms.append(_tick_ms(crowd.economy, orders))
            outcomes = crowd.economy.state.outcomes
            accepted += int(np.count_nonzero(outcomes["status"] != int(Status.REJECTED)))
            filled += int(np.count_nonzero(outcomes["filled"]))
    plain, busy = float(np.median(plain_ms)), float(np.median(busy_ms))
    low, high = np.percentile(np.array(busy_ms) / np.array(plain_ms) - 1.0, [10, 90])
    count = len(busy_ms) * CROWD
    return [
        Row(
            id="outside_orders",
            value=round(busy / plain - 1.0, 3),
            unit="x the plain tick",
            bar=0.5,
            spread=f"{low:.3f} to {high:.3f} (p10, p90 of {len(busy_ms)} pairs of ticks)",
            includes=f"plain tick {plain:.3f} ms, busy tick {busy:.3f} ms, {(busy - plain) / CROWD * 1e6:.0f} ns each;"
            f" {CROWD} limit orders of {CROWD} agents of {crowd.owners} owners, arriving in random order, over all"
            f" {MARKETS} markets, within {CROWD_REACH} levels of the reference, good for one tick:"
            f" {accepted / count:.1%} accepted, {filled / count:.1%} filled; intake, auction, settlement, outcomes;"
            " each busy tick between plain ones of the same world; CPU time of the thread",
            excludes="the server's part: admission, journal, receipts",
        )
    ]


class Crowd:
    """Outside agents of a world that all place one order a tick, good for that tick, in a market of their own choice.

    An agent that holds lots of its market sells, any other buys: so holdings stay around a lot of each market.
    """

    def __init__(self, economy: Economy, agents: int, seed: int = SEED) -> None:
        self.economy = economy
        self.random = np.random.default_rng(seed)
        self.sequence = agents
        rows = np.zeros(agents, ACTION)
        rows["seq"] = np.arange(1, agents + 1)
        rows["owner"] = 1 + np.arange(agents) // economy.config.agents_per_owner_max
        rows["kind"], rows["market"], rows["valid_until"] = int(Kind.REGISTER), -1, economy.tick + 1
        self.owners = int(rows["owner"].max())
        self.numbers = economy.advance(rows).outcomes["agent_id"].copy()

    def orders(self, count: int | None = None, ahead: int = 1) -> Actions:
        """Return actions, dtype ACTION, for the tick that is so many ahead: one order each of so many agents.

        count: of all agents when None. Orders are good for that tick only.
        """
        state = self.economy.state
        who = self.random.permutation(len(self.numbers))[:count]
        rows = np.zeros(len(who), ACTION)
        rows["seq"] = self.sequence + 1 + np.arange(len(who))
        self.sequence += len(who)
        market = self.random.permutation(len(who)) % MARKETS
        rows["agent_id"], rows["kind"], rows["market"] = self.numbers[who], int(Kind.LIMIT), market
        rows["side"] = np.where(state.agent_holdings[who, market] > 0, -1, 1)
        rows["quantity"] = 1
        rows["level"] = state.level[market] + self.random.integers(-CROWD_REACH, CROWD_REACH + 1, len(who))
        rows["time_in_force"] = int(TimeInForce.GTT)
        rows["order_until"] = rows["valid_until"] = self.economy.tick + ahead
        return rows


def bytes_rows(ids: list[str], quick: bool) -> list[Row]:
    """Measure the memory of the arrays that grow with the population, a resident."""
    state = Economy(Config(residents=RESIDENTS), SEED).state
    kept = _resident_bytes(state, {name for name, _ in persistent(state)})
    scratch = _resident_bytes(state, {item.name for item in array_fields()}) - kept
    return [
        Row(
            id="bytes_per_resident",
            value=round(kept / RESIDENTS, 2),
            unit="bytes",
            bar=48.0,
            spread=f"exact; scratch that grows with the population adds {scratch / RESIDENTS:.2f}",
            includes="every array of the world that grows with the population, mean over all kinds of residents",
            excludes="arrays of fixed size (markets, histograms, history), outside agents and their orders",
        )
    ]


def measure_ticks(world: World, *, groups: int, each: int, clock: Callable[[], int] = time.thread_time_ns) -> Ticks:
    """Advance a warm world in groups of ticks, with a copy of a large buffer after each group. clock: nanoseconds."""
    economy = world.economy
    buffer = np.ones(2 * COPY_BYTES // 8)
    half = len(buffer) // 2
    ticks = Ticks(sum(array.nbytes for _, array in persistent(economy.state)))
    marks: dict[str, int] = {}

    def observe(name: str) -> None:
        marks[name] = clock()

    with _collected():
        for _ in range(groups):
            # the copy has emptied the caches, which is no part of a tick
            for _ in range(COLD_TICKS):
                economy.advance()
            for _ in range(each):
                started = clock()
                economy.advance(observe=observe)
                ticks.tick_ms.append((clock() - started) / 1e6)
                ticks.prices_ms.append((marks["prices"] - marks["intake"]) / 1e6)
                gc.collect(0)
            started = clock()
            buffer[half:] = buffer[:half]
            ticks.copy_gb_s.append(COPY_BYTES / (clock() - started))
    return ticks


def memory_mb() -> tuple[float, float]:
    """Return this process's resident memory now and at most since _forget_peak, MB; zeros where no one says."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    except OSError:
        return 0.0, 0.0
    kib = {name: float(rest.split()[0]) for name, _, rest in (line.partition(":") for line in lines) if "Vm" in name}
    return kib["VmRSS"] * 1_024 / 1e6, kib["VmHWM"] * 1_024 / 1e6


def _forget_peak() -> None:
    """Let the kernel measure the highest memory anew; earlier rows may have needed more."""
    with suppress(OSError):  # not Linux: memory_mb then says zeros
        Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")


@contextmanager
def _collected() -> Iterator[None]:
    """As in the server: what lives is out of the collector's sight, and it runs between ticks only."""
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        gc.unfreeze()


def _tick_ms(economy: Economy, actions: Actions = NO_ACTIONS) -> float:
    started = time.thread_time_ns()
    economy.advance(actions)
    return (time.thread_time_ns() - started) / 1e6


def _floor_text(ticks: Ticks) -> str:
    return (
        f"state {ticks.state_bytes / 1e6:.2f} MB; copy of {2 * COPY_BYTES / 1e9:.2f} GB at"
        f" {float(np.median(ticks.copy_gb_s)):.1f} GB/s copied"
    )


def _resident_bytes(state: State, names: set[str]) -> int:
    return sum(
        getattr(state, item.name).nbytes
        for item in array_fields()
        if item.name in names and RESIDENT_SIZES & {size for size in item.metadata["shape"] if isinstance(size, str)}
    )
