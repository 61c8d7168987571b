"""Recordings made by hand, so that what a figure must say is known."""

from __future__ import annotations

from typing import Any

import numpy as np

from engine.analysis.figures import BAND_TICKS
from engine.analysis.recording import DAY_FIELDS, Recording
from engine.config import Config
from engine.markets import HOURS, MARKETS, RESOURCES

START_LEVEL = 60_000


def made(ticks: int, *, first_tick: int = 3_000, **changes: Any) -> Recording:
    """Return a calm recording: no price moves, every market trades 100 lots a tick, all macro series stand still.

    changes: columns to put instead; day columns by their own names, returns as an array of bp, shape (ticks, 32).
    """
    day_tick = np.array([t for t in range(first_tick, first_tick + ticks) if t % HOURS == HOURS - 1], np.int64)
    days = np.ones((len(day_tick), len(DAY_FIELDS)))
    for name in [name for name in changes if name in DAY_FIELDS]:
        days[:, DAY_FIELDS.index(name)] = changes.pop(name)
    returns = changes.pop("returns", np.zeros((ticks, MARKETS), np.int64))
    columns: dict[str, Any] = {
        "first_tick": first_tick,
        "level_before": np.full(MARKETS, START_LEVEL, np.int64),
        "level": (START_LEVEL + np.cumsum(returns, axis=0)).astype(np.int32),
        "volume": np.full((ticks, MARKETS), 100, np.int64),
        "imbalance": np.zeros((ticks, MARKETS), np.int64),
        "fundamental": np.full((ticks, MARKETS), START_LEVEL, np.int32),
        "volatility_multiplier": np.ones(ticks),
        "panic_markets": np.zeros(ticks, np.int16),
        "day_tick": day_tick,
        "days": days,
        "reserves": np.full((len(day_tick), RESOURCES), 80, np.int64),
        "reserves_base": np.full(RESOURCES, 100, np.int64),
        "real_base": 1.0,
        "household_wealth": np.arange(1.0, 1_001.0),
        "resident_wealth": np.arange(1.0, 1_001.0),
        "config": Config().as_dict(),
    }
    return Recording(**{**columns, **changes})


def healthy(ticks: int = BAND_TICKS, **changes: object) -> Recording:
    """Return a recording in which unemployment moves in waves and everything answers to it as it should."""
    day = np.arange(made(ticks).day_tick.size)
    u = 0.05 + 0.01 * np.sin(2 * np.pi * day / 180)
    lagged = 0.05 + 0.01 * np.sin(2 * np.pi * (day - 20) / 180)
    inflation = 0.02 - 0.5 * (lagged - 0.05)
    cpi = np.cumprod((1.0 + inflation) ** (1.0 / 360.0))
    columns = {
        "unemployment": u,
        "cpi": cpi,
        "inflation_quarterly": inflation,
        "policy_rate": 0.03 + 1.2 * (inflation - 0.02) - 0.3 * (u - 0.05),
        "consumption_real": np.exp(-0.4 * (u - 0.05)),
        "wage": 20.0 * cpi,
    }
    return made(ticks, **{**columns, **changes})
