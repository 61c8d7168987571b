"""What a tick reports: facts in the past tense, and the one bundle that leaves a tick."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

#: Event kinds by channel. The first two have streams of their own; all of them are in the event log.
DISCOVERY = "discovery_event"
CATASTROPHE = "catastrophic_event"
OTHER = "world_event"


@dataclass(frozen=True, slots=True)
class Event:
    """A fact. number counts the events of its channel from 1; data holds plain int, float, str and bool values.

    names: resource_discovered, catastrophe_struck; panic_began, panic_ended, euphoria_began, euphoria_ended,
    volatility_began, volatility_ended, market_halted, market_resumed, tightening_began, tightening_ended,
    easing_began, easing_ended, agent_expired, agent_defaulted.
    """

    channel: str
    number: int
    tick: int
    name: str
    data: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class PublicState:
    """Everything public of one tick, copied: later ticks do not change it. Field names: engine.public."""

    tick: int
    market: dict[str, NDArray[Any]]
    """Arrays of shape (32,)."""
    resource: dict[str, NDArray[Any]]
    """Arrays of shape (7,)."""
    psychology: dict[str, float]
    monetary: dict[str, float]
    indicators: dict[str, float]


@dataclass(frozen=True, slots=True)
class TickReport:
    """What leaves a tick."""

    tick: int
    outcomes: NDArray[np.void]
    """ACTION outcomes, dtype OUTCOME, in the order of the actions."""
    updates: NDArray[np.void]
    """Changes to older orders, dtype ORDER_UPDATE."""
    events: tuple[Event, ...]
    public: PublicState
    fired: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    """Numbers of the agents whose dead-man's switch cancelled their orders."""
