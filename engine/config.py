"""Every number of the world that someone may tune, with its unit and bound.

A Config is part of a world's identity: it goes into the hash of a run. Numbers that belong to one equation only
(a slope, a speed) stand as named constants on top of the phase that owns the equation.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from math import isfinite
from typing import Any

from engine.errors import SettingError

#: Goes into the identity of a world: raise it whenever a release changes results (DESIGN D21).
ENGINE_VERSION = 3


def _whole(low: int, high: int, text: str) -> Any:
    return {"kind": int, "low": low, "high": high, "text": text}


def _real(low: float, high: float, text: str) -> Any:
    return {"kind": float, "low": low, "high": high, "text": text}


@dataclass(frozen=True, kw_only=True)
class Config:
    """The tunable numbers of a world; defaults are the product's.

    Raises SettingError for a value of the wrong kind or out of its bounds (both ends included).
    Source: specification 004, configuration options; ECONOMY A15.
    """

    residents: int = field(
        default=100_000, metadata=_whole(2_000, 20_000_000, "population inside: households, firms, extractors, traders")
    )
    max_agents: int = field(default=100_000, metadata=_whole(1, 1_000_000, "outside agents registered at a time"))
    market_open_hours: int = field(
        default=24, metadata=_whole(1, 24, "hours of a day (of 24 ticks) in which the 15 asset markets are open")
    )
    base_inflation_rate: float = field(
        default=0.02, metadata=_real(0.0, 0.5, "base term, inflation target and money growth of the transfer, a year")
    )
    volatility_threshold: float = field(
        default=0.1, metadata=_real(0.001, 10.0, "a volatility event begins above 10 x this daily volatility a year")
    )
    max_price_change: float = field(
        default=0.5, metadata=_real(0.01, 0.5, "largest move of a price in one tick, fraction of the price")
    )
    sentiment_weight: float = field(
        default=0.4, metadata=_real(0.0, 2.0, "weight of extremity in the volatility multiplier")
    )
    fear_weight: float = field(default=0.3, metadata=_real(0.0, 2.0, "weight of fear in the volatility multiplier"))
    greed_weight: float = field(default=0.3, metadata=_real(0.0, 2.0, "weight of greed in the volatility multiplier"))
    herding_threshold: float = field(
        default=0.7, metadata=_real(0.0, 2.0, "panic begins above 0.7 x this herding factor")
    )
    depletion_rate: float = field(
        default=0.001, metadata=_real(0.0, 0.1, "share of reserves, sets the extraction quota")
    )
    discovery_probability: float = field(default=0.005, metadata=_real(0.0, 1.0, "chance of a discovery, per tick"))
    catastrophe_probability: float = field(
        default=0.0001, metadata=_real(0.0, 1.0, "chance of a catastrophe, per tick")
    )
    policy_active: bool = field(
        default=True, metadata={"kind": bool, "text": "the central bank acts (scenario switch)"}
    )
    endowment_credits: int = field(
        default=1_000, metadata=_whole(0, 1_000_000_000, "interest-free advance of a new outside agent, credits")
    )
    actions_per_tick_max: int = field(default=16, metadata=_whole(1, 1_000, "actions of one agent in one tick"))
    open_orders_max: int = field(default=64, metadata=_whole(1, 1_000, "open orders of one agent"))
    order_book_max: int = field(
        default=1_048_576, metadata=_whole(1_024, 16_777_216, "open orders of all outside agents together")
    )
    agents_per_owner_max: int = field(default=10, metadata=_whole(1, 100_000, "agents of one owner at a time"))
    idle_ticks_max: int = field(
        default=864_000, metadata=_whole(24, 1 << 40, "ticks without an action until an agent expires (864,000: a day)")
    )
    blocked_ticks: int = field(
        default=864_000, metadata=_whole(0, 1 << 40, "ticks a slot freed with a write-off counts for its old owner")
    )

    def __post_init__(self) -> None:
        for item in fields(self):
            object.__setattr__(self, item.name, checked(item.name, getattr(self, item.name), item.metadata))

    def as_dict(self) -> dict[str, int | float | bool]:
        """Return the settings by name, in declared order."""
        return asdict(self)


def checked(name: str, value: Any, bound: Any) -> Any:
    """Return value as its kind; raise SettingError when it is of another kind or out of bounds."""
    kind = bound["kind"]
    if kind is bool:
        if not isinstance(value, bool):
            raise SettingError(name, value, "true or false")
        return value
    allowed = f"{'a whole number' if kind is int else 'a number'} in [{bound['low']}, {bound['high']}]"
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not isfinite(value):
        raise SettingError(name, value, allowed)
    if kind is int and not isinstance(value, int):
        raise SettingError(name, value, allowed)
    if not bound["low"] <= value <= bound["high"]:
        raise SettingError(name, value, allowed)
    return kind(value)
