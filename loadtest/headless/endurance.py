"""A world that lives for long: bots come and go, every invariant is checked after every tick, memory is watched."""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.config import Config
from engine.economy import Economy
from engine.errors import InvariantBroken
from engine.ladder import LAST_LEVEL
from engine.markets import GOOD_FIRST, GOOD_LAST, HOURS, MARKETS, NAMES
from engine.messages import ACTION, Kind, Reject, Status, TimeInForce
from server.provenance import revision, this_machine

MEMORY_BAR_MB = 1.0
"""Most that resident memory may grow, MB in 10,000 ticks."""
SAMPLE_TICKS = 100
"""Ticks between two looks at the memory, at most a hundredth of the run."""
SETTLED = 0.1
"""Share of the run after which memory is looked at: before it arrays of history and the pools of Python fill."""
SPELL = 240
"""Ticks a spell of trading, or of silence, lasts."""

Actions = NDArray[np.void]


def run(residents: int, ticks: int, bots: int, seed: int) -> dict[str, Any]:
    """Run a world for so many ticks and return what was seen, with a verdict for each check."""
    config = Config(residents=residents, max_agents=max(64, 2 * bots), order_book_max=65_536)
    economy = Economy(config, seed, checks=1)
    crowd = Bots(economy, bots, seed)
    statuses: Counter[int] = Counter()
    codes: Counter[int] = Counter()
    volumes = np.zeros((HOURS, MARKETS), np.int64)
    memory: list[tuple[int, float]] = []
    broken = ""
    began = time.perf_counter()
    every = max(1, min(SAMPLE_TICKS, ticks // 100))
    for number in range(ticks):
        try:
            report = economy.advance(crowd.actions())
        except InvariantBroken as error:
            broken = f"tick {economy.tick}: {error}"
            break
        if len(report.outcomes):
            statuses.update(report.outcomes["status"].tolist())
            codes.update(report.outcomes["code"].tolist())
        volumes[number % HOURS] = economy.state.cleared_volume
        if number % every == 0 and number >= SETTLED * ticks:
            memory.append((number, resident_mb()))
    silent = [NAMES[m] for m in np.flatnonzero(volumes.sum(axis=0) == 0)]
    slope = slope_of(memory) * 10_000
    done = economy.tick + 1
    checks = {
        "invariants": {"value": broken or f"held after each of {done} ticks", "pass": not broken and done == ticks},
        "markets": {
            "value": f"{MARKETS - len(silent)} of {MARKETS} traded in the last {HOURS} ticks"
            + (f", not {', '.join(silent)}" if silent else ""),
            "pass": not silent,
        },
        "memory": {
            "value": round(slope, 4),
            "unit": "MB in 10,000 ticks",
            "bar": MEMORY_BAR_MB,
            "pass": bool(slope < MEMORY_BAR_MB),
        },
    }
    codes.pop(int(Reject.NONE), None)
    return {
        "name": "endurance",
        "pass": all(check["pass"] for check in checks.values()),
        "checks": checks,
        "ticks": done,
        "residents": residents,
        "bots": bots,
        "seed": seed,
        "actions": {Status(status).name: count for status, count in sorted(statuses.items())},
        "refused": {Reject(code).name: count for code, count in codes.most_common()},
        "agents_at_the_end": int((economy.state.agent_id != 0).sum()),
        "memory_mb": {"first": round(memory[0][1], 1), "last": round(memory[-1][1], 1), "samples": len(memory)},
        "state_hash": economy.state_hash().hex(),
        "seconds": round(time.perf_counter() - began, 1),
        "revision": revision(),
        "machine": this_machine(),
    }


class Bots:
    """Outside agents in spells of trading and of silence; some leave, new ones come, all do anything at all."""

    def __init__(self, economy: Economy, count: int, seed: int) -> None:
        self._economy = economy
        self._count = count
        self._random = np.random.default_rng(seed)
        self._sequence = 0
        self._numbers: list[int] = []

    def actions(self) -> Actions:
        """Return the next tick's actions, dtype ACTION."""
        tick = self._economy.tick + 1
        if (tick // SPELL) % 2:
            return np.zeros(0, ACTION)
        missing = self._count - len(self._numbers)
        rows = self._rows(missing + int(self._random.integers(1, 40)))
        random, n = self._random, len(rows)
        rows["kind"] = random.choice(_KINDS, n)
        market = random.integers(0, MARKETS, n)
        is_good = np.isin(rows["kind"], (int(Kind.PRODUCE), int(Kind.CONSUME)))
        market[is_good] = random.integers(GOOD_FIRST, GOOD_LAST + 1, int(is_good.sum()))
        rows["market"] = market
        rows["side"] = random.choice((-1, 1), n)
        rows["quantity"] = 1 + (random.pareto(1.0, n) * 3.0).clip(max=10**6).astype(np.int64)
        is_sweep, is_switch = rows["kind"] == int(Kind.CANCEL_ALL), rows["kind"] == int(Kind.CANCEL_AFTER)
        rows["market"][is_sweep] = random.integers(-1, MARKETS, int(is_sweep.sum()))
        # some switches fire while the bots trade, some in the silence after, some are taken back (0)
        rows["quantity"][is_switch] = random.integers(0, 2 * SPELL, int(is_switch.sum()))
        level = self._economy.state.level[market] + (random.standard_t(2.0, n) * 60.0).astype(np.int64)
        rows["level"] = level.clip(0, LAST_LEVEL)
        rows["amount"] = (10.0 ** random.uniform(3.0, 10.0, n)).astype(np.int64)
        rows["time_in_force"] = random.choice((int(TimeInForce.GTC), int(TimeInForce.IOC), int(TimeInForce.GTT)), n)
        rows["order_until"] = tick + random.integers(0, 48, n)
        # any of the last thousand ids: some are open orders, some are not, some are somebody else's
        rows["order_id"] = (self._sequence - random.integers(0, 1_000, n)).clip(1)
        rows["mood"] = random.integers(0, 32_768, (n, 4))
        rows["kind"][:missing] = int(Kind.REGISTER)
        rows["agent_id"][:missing] = rows["seq"][:missing]
        self._numbers += rows["agent_id"][:missing].tolist()
        rows["agent_id"][missing:] = random.choice(self._numbers, n - missing)
        left = set(rows["agent_id"][rows["kind"] == int(Kind.UNREGISTER)].tolist())
        self._numbers = [number for number in self._numbers if number not in left]
        return rows

    def _rows(self, count: int) -> Actions:
        rows = np.zeros(count, ACTION)
        rows["seq"] = self._sequence + 1 + np.arange(count)
        rows["owner"] = 1 + rows["seq"] // 5
        rows["valid_until"] = self._economy.tick + 600
        self._sequence += count
        return rows


#: How often each kind is asked for; one in two hundred leaves.
_KINDS = np.array(
    [int(Kind.LIMIT)] * 100
    + [int(Kind.MARKET)] * 30
    + [int(Kind.CANCEL)] * 20
    + [int(Kind.REPLACE)] * 16
    + [int(kind) for kind in (Kind.BORROW, Kind.REPAY, Kind.PRODUCE, Kind.CONSUME, Kind.SET_SENTIMENT)] * 6
    + [int(Kind.CANCEL_ALL), int(Kind.CANCEL_AFTER)] * 4
    + [int(Kind.UNREGISTER)],
    np.uint8,
)


def resident_mb() -> float:
    """Return this process's resident memory, MB (1e6 B)."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * 4_096 / 1e6


def slope_of(points: list[tuple[int, float]]) -> float:
    """Return the slope of the least-squares line through (x, y); 0 for fewer than two points."""
    if len(points) < 2:
        return 0.0
    x, y = (np.array(column, dtype=float) for column in zip(*points, strict=True))
    away = x - x.mean()
    return float((away * (y - y.mean())).sum() / (away * away).sum())
