"""Phase 7: chance strikes (discoveries, catastrophes), and what turned in this tick is reported as events.

A find or disaster changes the reserves left by phase 5 and the news that the next phase 3 puts into values; minds
feel the shock through the targets set there. Whether a catastrophe is natural or political changes nothing but its
name.
"""

from __future__ import annotations

from math import sqrt
from typing import Any

import numpy as np
from numba import njit

from engine.config import Config
from engine.events import CATASTROPHE, DISCOVERY, Event
from engine.markets import (
    CONSOL,
    INTELLECTUAL_PROPERTY,
    LITHIUM,
    MARKETS,
    NAMES,
    OIL,
    RARE_EARTHS,
    RAW_FIRST,
    RESOURCES,
    SHARE_FIRST,
)
from engine.resources import measure_resource
from engine.rng import STREAM_EVENTS, STREAMS, mix32
from engine.state import (
    CATASTROPHES,
    DISCOVERIES,
    F64,
    I64,
    INFLATION_TREND,
    POLICY_RATE,
    SHOCK,
    TURN_EASING,
    TURN_EUPHORIA,
    TURN_PANIC,
    TURN_TIGHTENING,
    TURN_VOLATILITY,
    State,
    announce,
)

WRITES = (
    "reserves",
    "reserves_added",
    "reserves_lost",
    "scarcity",
    "multiplier",
    "news",
    "is_volatile",
    "turns",
    "macro",
    "counters",
)

RESOURCE_DISCOVERED, CATASTROPHE_STRUCK = "resource_discovered", "catastrophe_struck"
NATURAL, POLITICAL = "natural_disaster", "political_instability"
FOUND = (OIL, LITHIUM, RARE_EARTHS, INTELLECTUAL_PROPERTY)
"""Resources that are discovered."""
FIND_SIZE, FIND_MAX = 0.008, 0.15
"""Pareto of alpha 2: exploration answers to scarcity, so reserves settle near 75 % instead of running out."""
RESERVES_MAX = 1.2
DISASTER_SIZE, DISASTER_MAX = 0.05, 0.4
FIND_NEWS_BP, DISASTER_NEWS_BP, DISASTER_ASSETS_BP = -600.0, 3_000.0, -800.0
SHOCK_SLOPE, SHOCK_MAX = 3.0, 0.3
VOLATILE_ABOVE, VOLATILE_BELOW = 10.0, 8.0
"""Times volatilityThreshold: where a volatility event begins and ends."""

_KEY_EVENTS = STREAMS.index(STREAM_EVENTS)
_TURN_NAMES = {
    TURN_PANIC: "panic",
    TURN_EUPHORIA: "euphoria",
    TURN_VOLATILITY: "volatility",
    TURN_TIGHTENING: "tightening",
    TURN_EASING: "easing",
}


def step(state: State, config: Config) -> None:
    """Draw discovery and catastrophe of the tick, switch volatility flags, append all events to state.events.

    Source: specification 004, events; ECONOMY A12, A17 phase 7.
    """
    seed = int(state.keys[_KEY_EVENTS, 0])
    if discovery_happens(seed, config.discovery_probability):
        resource, size = discovery(seed, state.scarcity)
        inject_event(state, config, RESOURCE_DISCOVERED, resource, size)
    if catastrophe_happens(seed, config.catastrophe_probability):
        resource, size, kind = catastrophe(seed)
        inject_event(state, config, CATASTROPHE_STRUCK, resource, size, kind)
    if _turn_volatility(state.realised_day, config.volatility_threshold, state.is_volatile, state.turns):
        _report_turns(state)


def inject_event(
    state: State, config: Config, name: str, resource: int, size: float, kind: str = NATURAL
) -> Event | None:
    """Let a resource_discovered or catastrophe_struck happen now and return its event.

    resource: market id 1..7. size: fraction of the base reserves found, or of the reserves lost, in (0, 1].
    kind: natural_disaster or political_instability. A find that would lift reserves above 1.2 x base is dropped
    whole, without news; then None is returned. Raises ValueError for an unknown name, resource, size or kind.
    Source: ECONOMY A12.
    """
    if not RAW_FIRST <= resource < RAW_FIRST + RESOURCES:
        raise ValueError(f"a resource is a market from 1 to 7, got {resource}")
    if not 0.0 < size <= 1.0:
        raise ValueError(f"size is in (0, 1], got {size}")
    if name == RESOURCE_DISCOVERED:
        return _discover(state, resource, size)
    if name == CATASTROPHE_STRUCK and kind in (NATURAL, POLITICAL):
        return _strike(state, resource, size, kind)
    raise ValueError(f"unknown event: {name} {kind}")


def discovery_happens(seed: int, probability: float) -> bool:
    """Return whether a find happens; seed: the first key word of the tick's event stream."""
    return seed / 4294967296.0 < probability


def discovery(seed: int, scarcity: F64) -> tuple[int, float]:
    """Return the resource (market id) of a find and its size, at most .15 of base."""
    h = _mix(seed + 1)
    resource = FOUND[h % 4]
    return resource, find_size(_uniform(_mix(h)), float(scarcity[resource - RAW_FIRST]))


def find_size(u: float, scarcity: float) -> float:
    """Return min(.15, .008 / sqrt(U) x (.5 + 3 scarcity)), U uniform in (0, 1]."""
    return min(FIND_MAX, FIND_SIZE / sqrt(u) * (0.5 + 3.0 * scarcity))


def catastrophe_happens(seed: int, probability: float) -> bool:
    """Return whether disaster strikes; seed as in discovery_happens."""
    return _mix(seed + 777) / 4294967296.0 < probability


def catastrophe(seed: int) -> tuple[int, float, str]:
    """Return the resource (market id), size (at most .4 of its reserves) and kind of a disaster."""
    e = _mix(seed + 777)
    size = min(DISASTER_MAX, DISASTER_SIZE / sqrt(_uniform(_mix(e + 5))))
    kind = POLITICAL if _mix(e + 6) >> 31 else NATURAL
    return RAW_FIRST + _mix(e + 3) % RESOURCES, size, kind


def _mix(h: int) -> int:
    return int(mix32(h))


def _uniform(h: int) -> float:
    return (h + 1) / 4294967297.0


def _discover(state: State, resource: int, size: float) -> Event | None:
    r = resource - RAW_FIRST
    found = int(size * int(state.reserves_base[r]))
    if int(state.reserves[r]) + found > RESERVES_MAX * int(state.reserves_base[r]):
        return None
    state.reserves[r] += found
    state.reserves_added[r] += found
    state.news[resource] += FIND_NEWS_BP * size
    measure_resource(state, r)
    data = {"resource": NAMES[resource], "size": size, "lots": found}
    return _report(state, DISCOVERY, DISCOVERIES, RESOURCE_DISCOVERED, data)


def _strike(state: State, resource: int, size: float, kind: str) -> Event:
    r = resource - RAW_FIRST
    lost = int(size * int(state.reserves[r]))
    shock = min(SHOCK_MAX, SHOCK_SLOPE * size)
    state.reserves[r] -= lost
    state.reserves_lost[r] += lost
    state.news[resource] += DISASTER_NEWS_BP * size
    state.news[SHARE_FIRST : CONSOL + 1] += DISASTER_ASSETS_BP * size
    state.macro[SHOCK] += shock
    measure_resource(state, r)
    data = {
        "resource": NAMES[resource],
        "kind": kind,
        "size": size,
        "lots": lost,
        "shock": shock,
    }
    return _report(state, CATASTROPHE, CATASTROPHES, CATASTROPHE_STRUCK, data)


@njit(cache=True, nogil=True, error_model="numpy")
def _turn_volatility(realised_day: F64, threshold: float, is_volatile: I64, turns: I64) -> bool:
    """Switch the volatility flags of all markets but labour; return whether any flag of this tick turned."""
    any_turn = False
    for m in range(MARKETS):
        turns[TURN_VOLATILITY, m] = 0
        if m > 0:
            bound = VOLATILE_BELOW if is_volatile[m] == 1 else VOLATILE_ABOVE
            volatile = int(realised_day[m] > bound * threshold)
            turns[TURN_VOLATILITY, m] = volatile - is_volatile[m]
            is_volatile[m] = volatile
        for k in range(len(turns)):
            any_turn |= turns[k, m] != 0
    return any_turn


def _report_turns(state: State) -> None:
    """Report flags that turned, by kind, then market."""
    for turn, name in _TURN_NAMES.items():
        for m in np.flatnonzero(state.turns[turn]).tolist():
            suffix = "began" if state.turns[turn, m] > 0 else "ended"
            announce(state, f"{name}_{suffix}", **_turn_data(state, turn, m))


def _turn_data(state: State, turn: int, market: int) -> dict[str, Any]:
    if turn in (TURN_TIGHTENING, TURN_EASING):
        macro = state.macro
        return {"policy_rate": float(macro[POLICY_RATE]), "inflation_trend": float(macro[INFLATION_TREND])}
    data: dict[str, Any] = {"market": NAMES[market]}
    if turn == TURN_VOLATILITY:
        data["volatility"] = float(state.realised_day[market])
    return data


def _report(state: State, channel: str, counter: int, name: str, data: dict[str, Any]) -> Event:
    state.counters[counter] += 1
    event = Event(channel, int(state.counters[counter]), state.tick, name, data)
    state.events.append(event)
    return event
