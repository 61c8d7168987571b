"""The alarm: what must hold after every tick, checked on the arrays alone (ECONOMY A14).

The first breach raises InvariantBroken, saying which invariant, where and by how much: the world must not tick on.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.config import Config
from engine.errors import InvariantBroken
from engine.ladder import REFERENCE_HIGH, REFERENCE_LOW
from engine.layout import EXTRACTOR, FIRM, HOUSEHOLD, TRADER
from engine.markets import (
    CONSOL,
    HOURS,
    INPUT_1,
    INPUT_2,
    LABOUR,
    MARKETS,
    NAMES,
    RAW_FIRST,
    RAW_LAST,
    SHARE_FIRST,
)
from engine.state import (
    AGENT_COUNT,
    LOANS,
    MOOD_COUNT,
    NEXT_DEADLINE,
    ORDER_COUNT,
    SLOTS_USED,
    VOLATILITY_MULTIPLIER,
    WINDOW_DOWN,
    WINDOW_UP,
    State,
)

Ints = NDArray[np.int64]

NEVER_NEGATIVE = (
    "cash", "shares", "inventory", "debt", "out", "in1", "in2", "hours", "day_sales", "sell_qty", "sentiment", "fear",
    "greed", "confidence", "memory", "reserves", "estate", "goods_made", "goods_gone", "cleared_volume",
)  # fmt: skip
AGENTS_NEVER_NEGATIVE = (
    "agent_cash", "agent_escrow", "agent_debt", "agent_advance", "agent_holdings", "agent_reserved", "agent_orders",
)  # fmt: skip
VM_WIDEST = 1.0 + 2.0 + 2.0 + 0.5 + 2.0
"""Volatility multiplier at the largest weights a Config takes; 2.5 at the default ones."""


def check(state: State, config: Config | None = None) -> None:
    """Check every invariant that the state shows after a tick; cheap enough for every tick of a test.

    config: bounds the volatility multiplier by its own weights, without it by the largest possible.
    Raises InvariantBroken on the first breach. Source: ECONOMY A14.1-5, 7, 8, 11.
    """
    _check_signs(state)
    _check_money(state)
    _check_goods(state)
    _check_orders(state)
    _check_switches(state)
    _check_ranges(state, config)


def holdings(state: State) -> Ints:
    """Return the lots of each market that anybody holds: residents, outside agents, estate; 0 for labour."""
    layout = state.layout
    total = np.zeros(MARKETS, np.int64)
    first = layout.producer_first
    for kinds, array, start in (
        ((HOUSEHOLD,), state.shares, 0),
        ((FIRM, EXTRACTOR), state.out, first),
        ((TRADER,), state.inventory, layout.trader_first),
    ):
        blocks = np.flatnonzero(np.isin(layout.block_type, kinds))
        np.add.at(total, layout.block_home[blocks], _sums(array, layout.block_start[blocks] - start))
    is_firm = layout.block_type == FIRM
    homes = layout.block_home[is_firm]
    for array, inputs in ((state.in1, INPUT_1), (state.in2, INPUT_2)):
        lots = _sums(array[: layout.firms], layout.block_start[is_firm] - first)
        np.add.at(total, np.array(inputs)[homes], lots)
    total += state.agent_holdings[: state.counters[SLOTS_USED]].sum(axis=0) + state.estate
    total[LABOUR] = 0
    return total


def _sums(array: NDArray[Any], starts: Ints) -> Ints:
    """Return the sums of the pieces of an array that begin at starts."""
    sums: Ints = np.add.reduceat(array, starts, dtype=np.int64)
    return sums


def _check_signs(state: State) -> None:
    used = int(state.counters[SLOTS_USED])
    for names, end in ((NEVER_NEGATIVE, None), (AGENTS_NEVER_NEGATIVE, used)):
        for name in names:
            array = getattr(state, name)[:end]
            if array.size and array.min() < 0:
                where = np.unravel_index(int(array.argmin()), array.shape)
                _broken(f"{name}{[int(i) for i in where]} is negative: {array.min()}")


def _check_money(state: State) -> None:
    """Every unit of cash is owed by treasury, bank or central bank; loans are the sum of debts (A14.1, 2, 4)."""
    used = int(state.counters[SLOTS_USED])
    agents = int(state.agent_cash[:used].sum() + state.agent_escrow[:used].sum())
    money = int(state.cash.sum()) + agents + int(state.pools.sum())
    owed = -int(state.ledger[:LOANS].sum())
    if money != owed:
        _broken(f"sum of all cash accounts is {money - owed} ucr, not 0: {money} held, {owed} owed")
    debts = int(state.debt.sum()) + int(state.agent_debt[:used].sum())
    if debts != state.ledger[LOANS]:
        _broken(f"loans outstanding are {state.ledger[LOANS]} ucr, debts {debts}: {debts - state.ledger[LOANS]} apart")


def _check_goods(state: State) -> None:
    """Goods come from production and go by use; shares and consols stay; reserves account for each lot (A14.3)."""
    held = holdings(state)
    expected = state.goods_initial + state.goods_made - state.goods_gone
    expected[LABOUR] = 0
    _check_equal("lots held", held, expected)
    assets = slice(SHARE_FIRST, CONSOL + 1)
    _check_equal("lots outstanding", held[assets], state.shares_out[assets], SHARE_FIRST)
    raw = slice(RAW_FIRST, RAW_LAST + 1)
    reserves = state.reserves_initial + state.reserves_added - state.reserves_lost - state.goods_made[raw]
    _check_equal("reserves", state.reserves, reserves, RAW_FIRST)


def _check_orders(state: State) -> None:
    """Escrow, reserved lots and order counts are those of the standing orders."""
    used, count = int(state.counters[SLOTS_USED]), int(state.counters[ORDER_COUNT])
    slot, market, lots = state.order_slot[:count], state.order_market[:count], state.order_qty[:count]
    if count and (lots.min() < 1 or np.diff(state.order_id[:count]).min(initial=1) < 1):
        _broken("the order table holds an order without lots, or is not sorted by id")
    is_buy = state.order_side[:count] > 0
    escrow = np.zeros(used, np.int64)
    np.add.at(escrow, slot[is_buy], state.ladder[state.order_level[:count][is_buy]] * lots[is_buy])
    _check_slots("escrow", state.agent_escrow[:used], escrow)
    reserved = np.zeros(used * MARKETS, np.int64)
    np.add.at(reserved, (slot * MARKETS + market)[~is_buy], lots[~is_buy])
    actual = state.agent_reserved[:used].reshape(-1)
    _check_slots("reserved lots", actual, reserved, MARKETS)
    if (actual > state.agent_holdings[:used].reshape(-1)).any():
        _broken("an agent has promised more lots than it holds")
    _check_slots("open orders", state.agent_orders[:used], np.bincount(slot, minlength=used))
    if np.count_nonzero(state.agent_id[:used]) != state.counters[AGENT_COUNT]:
        _broken(f"{np.count_nonzero(state.agent_id[:used])} agents, counted {state.counters[AGENT_COUNT]}")
    if state.agent_has_mood[:used].sum() != state.counters[MOOD_COUNT]:
        _broken(f"{state.agent_has_mood[:used].sum()} agents have set a mood, counted {state.counters[MOOD_COUNT]}")


def _check_switches(state: State) -> None:
    """No dead-man's switch is overdue or behind the deadline that is noted as the next."""
    armed = state.agent_deadline[: state.counters[SLOTS_USED]]
    armed = armed[armed != 0]
    noted = int(state.counters[NEXT_DEADLINE])
    if armed.size and not state.tick < noted <= armed.min():
        _broken(f"an agent's deadline is tick {armed.min()}, the next one noted {noted}, after tick {state.tick}")


def _check_ranges(state: State, config: Config | None) -> None:
    """Levels, moves, scarcity and the volatility multiplier stay in their ranges (A14.8, 11)."""
    widest = VM_WIDEST
    if config is not None:
        widest = 1.0 + config.fear_weight + config.greed_weight + 0.5 + config.sentiment_weight
    last = state.returns[state.tick % HOURS]
    for name, values, low, high in (
        ("reference level", state.level, REFERENCE_LOW, REFERENCE_HIGH),
        ("return", last, -WINDOW_DOWN, WINDOW_UP),
        ("scarcity", state.scarcity, 0.0, 1.0),
        ("market volatility multiplier", state.market_vm[1:], 1.0, widest),
        ("volatility multiplier", state.macro[[VOLATILITY_MULTIPLIER]], 1.0, widest),
    ):
        # a comparison with NaN is false, so that it counts as outside
        outside = ~((values >= low) & (values <= high))
        if outside.any():
            where = int(np.flatnonzero(outside)[0])
            _broken(f"{name}[{where}] is {values[where]}, allowed {low}..{high}")
    if not np.array_equal(state.price, state.ladder[state.level]):
        where = int(np.flatnonzero(state.price != state.ladder[state.level])[0])
        _broken(f"price of {NAMES[where]} is {state.price[where]}, its level's is {state.ladder[state.level[where]]}")


def _check_equal(what: str, actual: Ints, expected: Ints, first_market: int = 0) -> None:
    different = np.flatnonzero(actual != expected)
    if len(different):
        m = int(different[0])
        _broken(
            f"{what} of {NAMES[first_market + m]}: {actual[m]}, expected {expected[m]}: {actual[m] - expected[m]} apart"
        )


def _check_slots(what: str, actual: Ints, expected: Ints, columns: int = 1) -> None:
    different = np.flatnonzero(actual != expected)
    if len(different):
        at = int(different[0])
        _broken(f"{what} of slot {at // columns}: {actual[at]}, its orders say {expected[at]}")


def _broken(what: str) -> None:
    raise InvariantBroken(what)
