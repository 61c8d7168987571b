"""Worlds that must fail: what a report says of a world whose mechanism is taken away, and which fact has to break.

A report that every world passes proves nothing. Each control removes one thing that the facts are said to come from
and names the figure that fails without it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.analysis.recording import ASSETS, Each, Recording
from engine.config import Config
from engine.economy import Economy
from engine.errors import SettingError
from engine.layout import EXTRACTOR, FIRM, HOUSEHOLD
from engine.phases.behaviour import rebuild_histogram
from engine.state import SHOCK

ACTIVE = 0.25
"""Share of residents that order in a tick when their orders are independent."""
DISTANCE_BP = 40.0
"""Standard deviation of such an order's limit around the reference level."""
SMALLEST, LARGEST = 8, 39
"""Their sizes, in 512ths of cash or holding: those of traders at a volatility multiplier of 1."""

MINDS = (
    "sentiment", "fear", "greed", "confidence", "memory",
    "target_sentiment", "target_fear", "target_greed", "target_confidence",
    "vm_q8", "sigma_q4", "panic_bias", "fundamentalists", "chartists_q16",
)  # fmt: skip
"""What psychology is made of: moods, their targets, and what traders read of them."""


def _same_config(config: Config) -> Config:
    return config


def _nothing(economy: Economy, seed: int) -> Each:
    return lambda world: None


def _same_recording(recording: Recording, seed: int) -> Recording:
    return recording


@dataclass(frozen=True, kw_only=True)
class Control:
    """A world without something. fails: id of the figure that must fail. The hooks act before, during, after a run."""

    name: str
    text: str
    fails: str
    config: Callable[[Config], Config] = _same_config
    each: Callable[[Economy, int], Each] = _nothing
    """each(economy, seed) is called before the first tick; what it returns, after every tick."""
    recording: Callable[[Recording, int], Recording] = _same_recording


def control(name: str) -> Control:
    """Return a control by its name. Raises SettingError listing the names for one that does not exist."""
    for item in CONTROLS:
        if item.name == name:
            return item
    raise SettingError("control", name, f"one of {', '.join(item.name for item in CONTROLS)}")


def independent_orders(economy: Economy, seed: int) -> Each:
    """Return what replaces the orders of residents in the asset markets by independent ones after every tick.

    Side, limit and size of households and traders are drawn anew each tick, whatever they feel, know or saw, within
    what they own. Source: zero-intelligence traders, Gode & Sunder 1993, Journal of Political Economy 101:119.
    """
    random = np.random.default_rng(seed)
    layout = economy.state.layout
    lengths = layout.block_end - layout.block_start
    holds_assets = ~np.isin(layout.block_type, (FIRM, EXTRACTOR))
    kinds = np.repeat(layout.block_type, lengths)

    def each(world: Economy) -> None:
        state = world.state
        markets = layout.markets_at(state.tick + 1)
        chosen = np.repeat(holds_assets & np.isin(markets, ASSETS), lengths)
        who = np.flatnonzero(chosen)
        market = np.repeat(markets, lengths)[who]
        held = np.where(
            kinds[who] == HOUSEHOLD,
            state.shares[np.minimum(who, layout.households - 1)],
            state.inventory[np.maximum(who - layout.trader_first, 0)],
        )
        level = state.level[market] + np.rint(random.normal(0.0, DISTANCE_BP, len(who))).astype(np.int64)
        size = random.integers(SMALLEST, LARGEST + 1, len(who))
        bought = np.minimum((state.cash[who] >> 9) * size // state.price[market], 1_000_000)
        sold = (held * size) >> 9
        lots = np.where(random.random(len(who)) < 0.5, bought, -sold) * (random.random(len(who)) < ACTIVE)
        state.ord_level[who], state.ord_qty[who] = level, lots
        rebuild_histogram(state, world.config)

    return each


def frozen_minds(economy: Economy, seed: int) -> Each:
    """Return what puts moods, targets and the traders' strategies back to where they were, after every tick."""
    kept: dict[str, NDArray[Any]] = {name: getattr(economy.state, name).copy() for name in MINDS}

    def each(world: Economy) -> None:
        for name, array in kept.items():
            getattr(world.state, name)[:] = array
        world.state.macro[SHOCK] = 0.0

    return each


def shuffled(recording: Recording, seed: int) -> Recording:
    """Return a recording with each market's returns in random order: the same distribution, no memory, no news.

    Levels and imbalances follow the returns; volumes stay where they were.
    """
    random = np.random.default_rng(seed)
    returns, imbalance = recording.returns.copy(), recording.imbalance.copy()
    for m in ASSETS:
        order = random.permutation(len(returns))
        returns[:, m], imbalance[:, m] = returns[order, m], imbalance[order, m]
    level = recording.level_before[None, :] + np.cumsum(returns, axis=0)
    return replace(recording, level=level.astype(np.int32), imbalance=imbalance)


def _without_policy(config: Config) -> Config:
    return replace(config, policy_active=False)


CONTROLS = (
    Control(
        name="iid_orders",
        text="residents order at random in the asset markets, independently of each other and of the past",
        fails="clustering",
        each=independent_orders,
    ),
    Control(
        name="shuffled",
        text="the same returns in random order",
        fails="clustering",
        recording=shuffled,
    ),
    Control(
        name="frozen_psychology",
        text="moods and strategies stay as they were at the first tick",
        fails="clustering",
        each=frozen_minds,
    ),
    Control(
        name="policy_off",
        text="the central bank does nothing",
        fails="policy",
        config=_without_policy,
    ),
)
"""In the order of the help text."""
