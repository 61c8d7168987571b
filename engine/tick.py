"""One tick: the intake of outside actions, then seven phases in the order of specification 004.

Start reading here. A phase is a function step(state, config) that reads and writes named arrays of the state;
what one phase tells another is an array. Source: ECONOMY A5, A17.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from engine import actions as intake
from engine.config import Config
from engine.phases import behaviour, emission, indicators, monetary, prices, psychology, scarcity
from engine.rng import tick_keys
from engine.state import State

Step = Callable[[State, Config], None]

PHASES: tuple[tuple[str, Step], ...] = (
    ("prices", prices.step),
    ("behaviour", behaviour.step),
    ("psychology", psychology.step),
    ("monetary", monetary.step),
    ("scarcity", scarcity.step),
    ("indicators", indicators.step),
    ("emission", emission.step),
)


class Strike(NamedTuple):
    """An event that somebody lets happen. See emission.inject_event."""

    name: str
    resource: int
    size: float
    kind: str


def advance(
    state: State,
    config: Config,
    seed: bytes,
    actions: NDArray[np.void],
    observe: Callable[[str], None],
    strikes: Sequence[Strike] = (),
) -> None:
    """Advance the state by one tick under the given actions (dtype ACTION, in arrival order).

    strikes: happen before anything else in the tick.
    observe is called with "intake" and each phase's name when it is over; the engine itself has no clock.
    Leaves outcomes, updates and events of the tick in the state.
    """
    state.tick += 1
    state.events = []
    state.actions = actions
    tick_keys(seed, state.tick, state.keys)
    state.flows[:] = 0
    state.goods_flow[:] = 0
    state.dividends[:] = 0
    for strike in strikes:
        emission.inject_event(state, config, *strike)
    intake.step(state, config)
    observe("intake")
    for name, step in PHASES:
        step(state, config)
        observe(name)
