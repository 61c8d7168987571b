"""What a world did, in columns: everything a report or a study looks at, kept tick by tick and day by day.

recording = record(Economy(config, seed), ticks)        headless
recorder.take() after every tick, then finish()    while something else drives the world, a replay for one
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.calibration import UNEMPLOYED, hours_per_consumed_lot
from engine.config import ENGINE_VERSION
from engine.economy import Economy
from engine.ladder import UCR
from engine.layout import HOUSEHOLD, TRADER
from engine.markets import CONSOL, HOURS, INPUT_1, INPUT_2, MARKETS, RAW_FIRST, RAW_LAST, RESOURCES, SHARE_FIRST
from engine.state import (
    CONSUMPTION_NOMINAL,
    CONSUMPTION_REAL,
    CPI,
    EQUITY_INDEX,
    EXPECTED_INFLATION,
    FEAR,
    GAP,
    GREED,
    INFLATION_QUARTERLY,
    INFLATION_TREND,
    INFLATION_YEARLY,
    LOANS,
    MONEY_GROWTH,
    PANIC_MARKETS,
    POLICY_RATE,
    PPI,
    SENTIMENT,
    TOTAL_SKILL,
    TREASURY,
    UNEMPLOYMENT,
    VACANCY,
    VELOCITY,
    VOLATILITY_MULTIPLIER,
    WAGE,
    State,
)

FORMAT = 1
"""Of the columns below; raised when a name or a meaning changes."""
ASSETS = (*range(RAW_FIRST, RAW_LAST + 1), *range(SHARE_FIRST, CONSOL + 1))
"""The 15 asset markets: seven raw, seven shares, the consol."""
WEALTH_MAX = 200_000
"""Residents whose wealth is kept one by one; of more, every k-th by rank, which leaves the distribution as it is."""

_DAY_MACRO = {
    "cpi": CPI,
    "ppi": PPI,
    "unemployment": UNEMPLOYMENT,
    "vacancy_rate": VACANCY,
    "consumption_nominal": CONSUMPTION_NOMINAL,
    "consumption_real": CONSUMPTION_REAL,
    "gap": GAP,
    "policy_rate": POLICY_RATE,
    "inflation_quarterly": INFLATION_QUARTERLY,
    "inflation_yearly": INFLATION_YEARLY,
    "inflation_trend": INFLATION_TREND,
    "expected_inflation": EXPECTED_INFLATION,
    "money_growth": MONEY_GROWTH,
    "velocity": VELOCITY,
    "equity_index": EQUITY_INDEX,
    "volatility_multiplier": VOLATILITY_MULTIPLIER,
    "sentiment": SENTIMENT,
    "fear": FEAR,
    "greed": GREED,
}
DAY_FIELDS = (*_DAY_MACRO, "wage", "money_supply", "credit", "treasury")
"""Columns of Recording.days: rates as fractions, amounts in credits, the wage in credits an hour."""

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]
Each = Callable[[Economy], None]
"""Called after every tick, when it has been recorded."""


@dataclass(frozen=True, kw_only=True)
class Recording:
    """A recorded history of T ticks and D day ends (tick mod 24 = 23) in 32 markets.

    Raises ValueError when the columns do not fit each other.
    """

    first_tick: int
    """The first recorded tick."""
    level_before: I64
    """Shape (32,): reference level before the first tick."""
    level: NDArray[np.int32]
    """Shape (T, 32): reference level after a tick; a level is a basis point."""
    volume: I64
    """Shape (T, 32): lots traded."""
    imbalance: I64
    """Shape (T, 32): lots bid minus lots asked at the old reference level."""
    fundamental: NDArray[np.int32]
    """Shape (T, 32): level of the fundamental value."""
    volatility_multiplier: F64
    """Shape (T,): of the whole economy, >= 1."""
    panic_markets: NDArray[np.int16]
    """Shape (T,): markets in panic."""
    day_tick: I64
    """Shape (D,): the ticks at which a day ended."""
    days: F64
    """Shape (D, len(DAY_FIELDS)): see DAY_FIELDS; day(name) gives one column."""
    reserves: I64
    """Shape (D, 7): lots left of each resource."""
    reserves_base: I64
    """Shape (7,): lots at no scarcity."""
    real_base: float
    """Real consumption a day in the calibrated start, credits: what real output is compared with."""
    household_wealth: F64
    """Sorted: wealth of households at the end, credits; a sample when there are more than WEALTH_MAX."""
    resident_wealth: F64
    """Sorted: the same of all residents."""
    config: dict[str, Any] = field(default_factory=dict)
    """Config.as_dict() of the world."""
    origin: str = ""
    """Where it comes from, for people: seed or epoch, and the control if it is one."""
    engine_version: int = ENGINE_VERSION
    format: int = FORMAT

    def __post_init__(self) -> None:
        ticks, days = len(self.level), len(self.day_tick)
        for name, shape in (
            ("level", (ticks, MARKETS)),
            ("level_before", (MARKETS,)),
            ("volume", (ticks, MARKETS)),
            ("imbalance", (ticks, MARKETS)),
            ("fundamental", (ticks, MARKETS)),
            ("volatility_multiplier", (ticks,)),
            ("panic_markets", (ticks,)),
            ("days", (days, len(DAY_FIELDS))),
            ("reserves", (days, RESOURCES)),
            ("reserves_base", (RESOURCES,)),
        ):
            if getattr(self, name).shape != shape:
                raise ValueError(f"{name} must have the shape {shape}, got {getattr(self, name).shape}")
        if self.format != FORMAT:
            raise ValueError(f"this release reads recordings of format {FORMAT}, got {self.format}")

    @property
    def ticks(self) -> int:
        """How many ticks were recorded: T."""
        return len(self.level)

    @property
    def residents(self) -> int:
        """The population."""
        return int(self.config.get("residents", 0))

    @cached_property
    def returns(self) -> I64:
        """Shape (T, 32): log return of each tick in bp, the difference of levels."""
        levels = np.concatenate([self.level_before[None, :], self.level.astype(np.int64)])
        steps: I64 = levels[1:] - levels[:-1]
        return steps

    def day(self, name: str) -> F64:
        """Return a column of DAY_FIELDS, shape (D,). Raises ValueError for a name that is none."""
        if name not in DAY_FIELDS:
            raise ValueError(f"there is no day column {name!r}; there are {', '.join(DAY_FIELDS)}")
        return self.days[:, DAY_FIELDS.index(name)]

    def columns(self) -> dict[str, NDArray[Any]]:
        """Return the arrays by name: with about() everything there is, for writing to a file."""
        return {item.name: getattr(self, item.name) for item in fields(self) if _is_array(getattr(self, item.name))}

    def about(self) -> dict[str, Any]:
        """Return what is not an array, by name: plain int, float, str and dict values."""
        return {item.name: getattr(self, item.name) for item in fields(self) if not _is_array(getattr(self, item.name))}


def record(economy: Economy, ticks: int, *, origin: str = "", each: Each | None = None) -> Recording:
    """Advance a world by so many ticks without outside actions and return what it did.

    each: called after every tick; it may look (progress) or interfere (a control). Raises InvariantBroken as
    Economy.advance does.
    """
    recorder = Recorder(economy)
    for _ in range(ticks):
        economy.advance()
        recorder.take()
        if each is not None:
            each(economy)
    return recorder.finish(origin)


class Recorder:
    """Takes down a world that something else drives: take() after every tick, finish() at the end."""

    def __init__(self, economy: Economy) -> None:
        state = economy.state
        self._economy = economy
        self._first = economy.tick + 1
        self._before = state.level.copy()
        self._level = _Column(np.int32, MARKETS)
        self._volume = _Column(np.int64, MARKETS)
        self._imbalance = _Column(np.int64, MARKETS)
        self._fundamental = _Column(np.int32, MARKETS)
        self._multiplier = _Column(np.float64)
        self._panic = _Column(np.int16)
        self._day_tick = _Column(np.int64)
        self._days = _Column(np.float64, len(DAY_FIELDS))
        self._reserves = _Column(np.int64, RESOURCES)

    @property
    def volume(self) -> I64:
        """Shape (ticks so far, 32): lots traded; valid until the next take()."""
        volume: I64 = self._volume.rows
        return volume

    @property
    def level(self) -> NDArray[np.int32]:
        """Shape (ticks so far, 32): reference levels; valid until the next take()."""
        level: NDArray[np.int32] = self._level.rows
        return level

    def take(self) -> None:
        """Keep the tick that has just been completed."""
        state = self._economy.state
        self._level.add(state.level)
        self._volume.add(state.cleared_volume)
        self._imbalance.add(state.imbalance)
        self._fundamental.add(state.fundamental)
        self._multiplier.add(state.macro[VOLATILITY_MULTIPLIER])
        self._panic.add(state.counters[PANIC_MARKETS])
        if state.tick % HOURS == HOURS - 1:
            self._day_tick.add(state.tick)
            self._days.add(_day(state))
            self._reserves.add(state.reserves)

    def finish(self, origin: str = "") -> Recording:
        """Return the recording; residents' wealth is that of now. origin: for people."""
        economy, state = self._economy, self._economy.state
        households, residents = wealth(state)
        return Recording(
            first_tick=self._first,
            level_before=self._before,
            level=self._level.rows,
            volume=self._volume.rows,
            imbalance=self._imbalance.rows,
            fundamental=self._fundamental.rows,
            volatility_multiplier=self._multiplier.rows,
            panic_markets=self._panic.rows,
            day_tick=self._day_tick.rows,
            days=self._days.rows,
            reserves=self._reserves.rows,
            reserves_base=state.reserves_base.copy(),
            real_base=_real_base(state),
            household_wealth=_sample(households),
            resident_wealth=_sample(residents),
            config=economy.config.as_dict(),
            origin=origin,
        )


def wealth(state: State) -> tuple[F64, F64]:
    """Return the wealth of each household and of each resident, credits, shapes (households,) and (residents,).

    Cash and holdings at reference prices net of debt; who owes more than he has counts with 0, as in the published
    indicator. Source: ECONOMY A11.
    """
    layout = state.layout
    kind = np.repeat(layout.block_type, layout.block_end - layout.block_start)
    home = np.repeat(layout.block_home, layout.block_end - layout.block_start)
    value = state.cash.astype(np.float64)
    is_household, is_trader = kind == HOUSEHOLD, kind == TRADER
    is_producer = ~is_household & ~is_trader
    price = state.price.astype(np.float64)
    value[is_household] += state.shares * price[home[is_household]]
    value[is_trader] += state.inventory * price[home[is_trader]]
    made = home[is_producer]
    first, second = np.array(INPUT_1)[made], np.array(INPUT_2)[made]
    stock = state.out * price[made]
    stock += state.in1 * price[first] * (first >= 0) + state.in2 * price[second] * (second >= 0)
    value[is_producer] += stock - state.debt
    value = np.maximum(value, 0.0) / UCR
    return value[is_household], value


def _day(state: State) -> list[float]:
    row = [float(state.macro[index]) / (UCR if "consumption" in name else 1) for name, index in _DAY_MACRO.items()]
    money = -int(state.ledger[:LOANS].sum())
    amounts = (int(state.counters[WAGE]), money, int(state.ledger[LOANS]), int(state.ledger[TREASURY]))
    return row + [amount / UCR for amount in amounts]


def _real_base(state: State) -> float:
    """Return the calibrated real consumption a day, credits, from what never changes: skills and technology."""
    hours = (1.0 - UNEMPLOYED) * int(state.counters[TOTAL_SKILL])
    return hours / hours_per_consumed_lot(state.base_hours)


def _sample(amounts: F64) -> F64:
    ranked = np.sort(amounts)
    if len(ranked) <= WEALTH_MAX:
        return ranked
    return ranked[np.linspace(0, len(ranked) - 1, WEALTH_MAX).round().astype(np.int64)]


def _is_array(value: Any) -> bool:
    return isinstance(value, np.ndarray)


class _Column:
    """An array that grows: doubled when full, so that a million ticks need twenty copies."""

    def __init__(self, dtype: Any, *width: int) -> None:
        self._data: NDArray[Any] = np.zeros((1_024, *width), dtype)
        self._used = 0

    def add(self, row: Any) -> None:
        if self._used == len(self._data):
            self._data = np.concatenate([self._data, np.zeros_like(self._data)])
        self._data[self._used] = row
        self._used += 1

    @property
    def rows(self) -> NDArray[Any]:
        return self._data[: self._used]
