"""What the reserves of a resource say: its scarcity and the price multiplier that follows."""

from __future__ import annotations

from numba import njit

from engine.markets import IMPORTANCE, RESOURCES
from engine.state import State

PRICE_SLOPE = 3.0
"""Weight of scarcity x importance in the price multiplier."""
HOURS_SCARCITY = 0.5
"""Hours a lot of a resource grow by this times its scarcity."""


@njit(cache=True, nogil=True, error_model="numpy")
def scarcity_level(reserves: int, base: int) -> float:
    """Return max(0, 1 - reserves / base), in [0, 1]; base > 0, reserves >= 0, lots.

    Source: specification 004, Resource Scarcity System, scarcity level; ECONOMY A10.
    """
    return max(0.0, 1.0 - reserves / base)


@njit(cache=True, nogil=True, error_model="numpy")
def price_multiplier(scarcity: float, importance: float) -> float:
    """Return 1 + scarcity x 3 x importance, both in [0, 1]: what scarcity does to a resource's unit cost.

    Source: specification 004, Resource Scarcity System, price multiplier; ECONOMY A10.
    """
    return 1.0 + scarcity * PRICE_SLOPE * importance


def measure_resources(state: State) -> None:
    """Write scarcity and multiplier of all resources from their reserves."""
    for r in range(RESOURCES):
        measure_resource(state, r)


def measure_resource(state: State, resource: int) -> None:
    """Write scarcity and multiplier of one resource, 0..6, from its reserves."""
    level = scarcity_level(state.reserves[resource], state.reserves_base[resource])
    state.scarcity[resource] = level
    state.multiplier[resource] = price_multiplier(level, IMPORTANCE[resource])
