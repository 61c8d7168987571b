"""Phase 5: resources are used up, grow back and are rationed, and their scarcity sets what extraction costs.

Also the totals of goods since the start. Extraction comes out of the reserves in the tick it is produced; renewal at
tick mod 24 = 0 follows. The unit cost of a resource (its rent) is set here, where the reserves are known; phase 3 of
the next tick puts it into the fundamental value.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from engine.arithmetic import half_even
from engine.config import Config
from engine.ladder import level_below
from engine.markets import (
    ARTIFICIAL,
    HOURS,
    IMPORTANCE,
    MARKETS,
    RAW_FIRST,
    RENEWABLE,
    RESOURCES,
)
from engine.resources import HOURS_SCARCITY, price_multiplier, scarcity_level
from engine.state import (
    F64,
    GOODS_CONSUMED,
    GOODS_PRODUCED,
    GOODS_USED,
    I64,
    WAGE,
    State,
)

WRITES = (
    "reserves",
    "reserves_added",
    "extracted_day",
    "quota",
    "scarcity",
    "multiplier",
    "hours_q16",
    "unit_cost",
    "cost_level",
    "goods_made",
    "goods_gone",
)

RENEWAL, ISSUANCE = 0.00286, 0.0006
"""Daily logistic growth of water and land; daily issue of carbon credits and intellectual property at 70 % reserves."""
ISSUANCE_SCARCITY = 0.3
QUOTA_DAYS = 3.0
"""A factor of 1.6 made the quota bind at 40 % reserves and starved the economy (ECONOMY A10)."""

_GROWS, _ISSUED = 1, 2
_KIND = np.array([_GROWS if r in RENEWABLE else _ISSUED if r in ARTIFICIAL else 0 for r in range(1, RESOURCES + 1)])
_IMPORTANCE = np.array(IMPORTANCE)


def step(state: State, config: Config) -> None:
    """Deplete and renew reserves, set quotas, scarcity, price multipliers and unit costs of the resources.

    Source: specification 004, Resource Scarcity System; ECONOMY A10, A17 phase 5.
    """
    _use_up(
        state.tick % HOURS == 0,
        state.layout.extractors // RESOURCES,
        config.depletion_rate,
        state.goods_flow,
        state.reserves_base,
        state.base_hours,
        state.ladder,
        state.counters,
        state.goods_made,
        state.goods_gone,
        state.reserves,
        state.reserves_added,
        state.extracted_day,
        state.quota,
        state.scarcity,
        state.multiplier,
        state.hours_q16,
        state.unit_cost,
        state.cost_level,
    )


@njit(cache=True, nogil=True, error_model="numpy")
def renewal(kind: int, reserves: int, base: int) -> int:
    """Return lots that grow back (kind 1: water, land) or are issued (kind 2: carbon, IP) in a day, never negative."""
    room = 1.0 - reserves / base
    if kind == _GROWS:
        return max(0, int(RENEWAL * reserves * room))
    if kind == _ISSUED:
        return max(0, int(ISSUANCE * base * room / ISSUANCE_SCARCITY))
    return 0


@njit(cache=True, nogil=True, error_model="numpy")
def extraction_quota(depletion_rate: float, reserves: int, extractors: int) -> int:
    """Return lots an extractor may produce in a day: int(3 x depletionRate x reserves / extractors of the resource).

    Source: specification 004, Resource Scarcity System, depletionRate; ECONOMY A10.
    """
    return int(QUOTA_DAYS * depletion_rate * reserves / extractors)


@njit(cache=True, nogil=True, error_model="numpy")
def _use_up(
    day_begins: bool,
    extractors: int,
    depletion_rate: float,
    goods_flow: I64,
    base: I64,
    base_hours: F64,
    ladder: I64,
    counters: I64,
    made: I64,
    gone: I64,
    reserves: I64,
    added: I64,
    extracted_day: I64,
    quota: I64,
    scarcity: F64,
    multiplier: F64,
    hours_q16: I64,
    unit_cost: I64,
    cost_level: I64,
) -> None:
    for m in range(1, MARKETS):
        made[m] += goods_flow[GOODS_PRODUCED, m]
        gone[m] += goods_flow[GOODS_USED, m] + goods_flow[GOODS_CONSUMED, m]
    for r in range(RESOURCES):
        m = RAW_FIRST + r
        extracted = goods_flow[GOODS_PRODUCED, m]
        reserves[r] -= extracted
        if day_begins:
            grown = renewal(_KIND[r], reserves[r], base[r])
            reserves[r] += grown
            added[r] += grown
            extracted_day[r] = 0
        extracted_day[r] += extracted
        quota[r] = extraction_quota(depletion_rate, reserves[r], extractors)
        scarcity[r] = scarcity_level(reserves[r], base[r])
        multiplier[r] = price_multiplier(scarcity[r], _IMPORTANCE[r])
        hours = base_hours[m] * (1.0 + HOURS_SCARCITY * scarcity[r])
        hours_q16[m] = half_even(hours * 65536.0)
        unit_cost[m] = int(counters[WAGE] * hours * multiplier[r])
        cost_level[m] = max(0, level_below(ladder, unit_cost[m]))
