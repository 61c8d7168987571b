"""The alarm: what must hold after every tick, checked on the arrays alone (ECONOMY A14).

The first breach raises InvariantBroken, saying which invariant, where and by how much: the world must not tick on.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from engine.config import Config
from engine.errors import InvariantBroken
from engine.kernels import kernel, whole
from engine.ladder import REFERENCE_HIGH, REFERENCE_LOW
from engine.layout import EXTRACTOR, FIRM, HOUSEHOLD
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
from engine.order_book import Accounts, Book, accounts_of, book_of
from engine.state import (
    AGENT_COUNT,
    LOANS,
    MOOD_COUNT,
    NEVER,
    NEXT_DEADLINE,
    ORDER_COUNT,
    SLOTS_USED,
    VOLATILITY_MULTIPLIER,
    WINDOW_DOWN,
    WINDOW_UP,
    State,
)

Ints = NDArray[np.int64]
Ints32 = NDArray[np.int32]
Ints16 = NDArray[np.int16]

NEVER_NEGATIVE_16 = ("sentiment", "fear", "greed", "confidence", "memory")
NEVER_NEGATIVE_32 = ("shares", "out", "in1", "in2", "hours", "day_sales", "sell_qty")
NEVER_NEGATIVE_64 = (
    "cash", "inventory", "debt", "reserves", "estate", "goods_made", "goods_gone", "cleared_volume",
)  # fmt: skip
AGENTS_NEVER_NEGATIVE = ("agent_cash", "agent_escrow", "agent_debt", "agent_advance")
AGENT_HOLDINGS = "agent_holdings"
NEVER_NEGATIVE = (
    *NEVER_NEGATIVE_16, *NEVER_NEGATIVE_32, *NEVER_NEGATIVE_64, *AGENTS_NEVER_NEGATIVE, AGENT_HOLDINGS,
)  # fmt: skip
"""Arrays without negative values, by their type; an agent's orders and reserved lots are what its orders say."""
_INPUTS = np.array([INPUT_1, INPUT_2])
"""By home market of a firm."""
VM_WIDEST = 1.0 + 2.0 + 2.0 + 0.5 + 2.0
"""Volatility multiplier at the largest weights a Config takes; 2.5 at the default ones."""


class Sums(NamedTuple):
    """What the arrays add up to. negative: index in NEVER_NEGATIVE of the first that has a negative value, -1 for none.

    money: ucr in all accounts but treasury, bank and central bank. deadline: the earliest, NEVER when no switch is set.
    """

    negative: int
    money: int
    debts: int
    agents: int
    moods: int
    deadline: int


def check(state: State, config: Config | None = None) -> None:
    """Check every invariant that the state shows after a tick; cheap enough for every tick.

    config: bounds the volatility multiplier by its own weights, without it by the largest possible.
    Raises InvariantBroken on the first breach. Source: ECONOMY A14.1-5, 7, 8, 11.
    """
    held, sums = _added_up(state)
    _check_signs(state, sums)
    _check_money(state, sums)
    _check_goods(state, held)
    _check_orders(state)
    _check_agents(state, sums)
    _check_ranges(state, config)


def check_accounts(state: State) -> None:
    """Check what holds of a world whose money and goods come from nowhere: signs, orders, counts, deadlines."""
    _, sums = _added_up(state)
    _check_signs(state, sums)
    _check_orders(state)
    _check_agents(state, sums)


def holdings(state: State) -> Ints:
    """Return the lots of each market that anybody holds: residents, outside agents, estate; 0 for labour."""
    return _added_up(state)[0]


def _added_up(state: State) -> tuple[Ints, Sums]:
    """Return the lots held of each market, and the sums."""
    layout, used = state.layout, int(state.counters[SLOTS_USED])
    held = np.zeros(MARKETS, np.int64)
    sums = _add_up(
        tuple(getattr(state, name) for name in NEVER_NEGATIVE_16),
        tuple(getattr(state, name) for name in NEVER_NEGATIVE_32),
        tuple(getattr(state, name) for name in NEVER_NEGATIVE_64),
        tuple(getattr(state, name)[:used] for name in AGENTS_NEVER_NEGATIVE),
        accounts_of(state), used, state.cash, state.debt, state.pools, state.shares, state.out, state.in1, state.in2,
        state.inventory, layout.block_start, layout.block_end, layout.block_type, layout.block_home,
        layout.producer_first, layout.trader_first, _INPUTS, state.estate, held,
    )  # fmt: skip
    return held, Sums(*sums)


@kernel
def _add_up(
    narrow: tuple[Ints16, ...], middle: tuple[Ints32, ...], wide: tuple[Ints, ...], of_agents: tuple[Ints, ...],
    accounts: Accounts, used: int, cash: Ints, debt: Ints, pools: Ints, shares: Ints32, out: Ints32, in1: Ints32,
    in2: Ints32, inventory: Ints, block_start: Ints, block_end: Ints, block_type: Ints, block_home: Ints,
    producer_first: int, trader_first: int, inputs: Ints, estate: Ints, held: Ints,
) -> tuple[int, int, int, int, int, int]:  # fmt: skip
    """Add to held, shape (markets,), the lots held of each; return the fields of Sums.

    All in one call: numpy gives the interpreter up in each of some thirty steps, and whoever computes a tick beside a
    busy event loop waited a millisecond each time to have it back (100,000 outside agents: 9.8 ms alone, 48 beside
    one; now 3.6 and 6.7).
    """
    for b in range(len(block_start)):
        home, kind, start, end = block_home[b], block_type[b], block_start[b], block_end[b]
        if kind == HOUSEHOLD:
            held[home] += _sum(shares[start:end])
        elif kind in (FIRM, EXTRACTOR):
            start, end = start - producer_first, end - producer_first
            held[home] += _sum(out[start:end])
            if kind == FIRM:
                held[inputs[0, home]] += _sum(in1[start:end])
                held[inputs[1, home]] += _sum(in2[start:end])
        else:
            held[home] += _sum(inventory[start - trader_first : end - trader_first])
    signs = 0
    for slot in range(used):
        for m in range(MARKETS):
            lots = accounts.holdings[slot, m]
            held[m] += lots
            signs |= lots
    agents, moods, deadline = 0, 0, NEVER
    for slot in range(used):
        agents += accounts.id[slot] != 0
        moods += accounts.has_mood[slot]
        if accounts.deadline[slot] != 0:
            deadline = min(deadline, accounts.deadline[slot])
    for m in range(MARKETS):
        held[m] += estate[m]
    held[LABOUR] = 0
    money = _sum(cash) + _sum(accounts.cash[:used]) + _sum(accounts.escrow[:used]) + _sum(pools)
    negative, at = -1, 0
    for i in range(len(narrow)):
        if negative < 0 and _all_bits(narrow[i]) < 0:
            negative = i
    at += len(narrow)
    for i in range(len(middle)):
        if negative < 0 and _all_bits(middle[i]) < 0:
            negative = at + i
    at += len(middle)
    for i in range(len(wide)):
        if negative < 0 and _all_bits(wide[i]) < 0:
            negative = at + i
    at += len(wide)
    for i in range(len(of_agents)):
        if negative < 0 and _all_bits(of_agents[i]) < 0:
            negative = at + i
    if negative < 0 and signs < 0:
        negative = at + len(of_agents)
    return negative, money, _sum(debt) + _sum(accounts.debt[:used]), agents, moods, deadline


@kernel
def _sum(values: Any) -> int:
    """Return the sum of integers of any width."""
    total = 0
    for i in range(len(values)):
        total += whole(values[i])
    return total


@kernel
def _all_bits(values: Any) -> int:
    """Return integers of any width or-ed together: negative when one of them is."""
    bits = 0
    for i in range(len(values)):
        bits |= whole(values[i])
    return bits


def _check_signs(state: State, sums: Sums) -> None:
    if sums.negative >= 0:
        name = NEVER_NEGATIVE[sums.negative]
        array = getattr(state, name)
        where = np.unravel_index(int(array.argmin()), array.shape)
        _broken(f"{name}{[int(i) for i in where]} is negative: {array.min()}")


def _check_money(state: State, sums: Sums) -> None:
    """Every unit of cash is owed by treasury, bank or central bank; loans are the sum of debts (A14.1, 2, 4)."""
    owed = -int(state.ledger[:LOANS].sum())
    if sums.money != owed:
        _broken(f"sum of all cash accounts is {sums.money - owed} ucr, not 0: {sums.money} held, {owed} owed")
    loans = int(state.ledger[LOANS])
    if sums.debts != loans:
        _broken(f"loans outstanding are {loans} ucr, debts {sums.debts}: {sums.debts - loans} apart")


def _check_goods(state: State, held: Ints) -> None:
    """Goods come from production and go by use; shares and consols stay; reserves account for each lot (A14.3)."""
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
    breach, at, difference = _find_off(book_of(state), accounts_of(state), state.ladder)
    if breach == _TABLE:
        _broken("the order table holds an order without lots or of nobody, or is not sorted by id")
    elif breach == _TOO_MANY:
        _broken("an agent has promised more lots than it holds")
    elif breach != _SOUND:
        what, actual, columns = (
            ("escrow", state.agent_escrow, 1),
            ("reserved lots", state.agent_reserved, MARKETS),
            ("open orders", state.agent_orders, 1),
        )[breach - _ESCROW]
        is_value = int(actual.reshape(-1)[at])
        _broken(f"{what} of slot {at // columns}: {is_value}, its orders say {is_value - difference}")


_SOUND, _TABLE, _TOO_MANY, _ESCROW, _RESERVED, _ORDERS = range(6)
"""What _find_off has found."""


@kernel
def _find_off(book: Book, accounts: Accounts, ladder: Ints) -> tuple[int, int, int]:
    """Return the first breach, where, and by how much: the flat index of an account, what it has beyond its orders."""
    used, count = book.counters[SLOTS_USED], book.counters[ORDER_COUNT]
    for i in range(count):
        is_known = 0 <= book.slot[i] < used and 0 <= book.market[i] < MARKETS and 0 <= book.level[i] < len(ladder)
        if not is_known or book.quantity[i] < 1 or (i and book.id[i] <= book.id[i - 1]):
            return _TABLE, i, 0
    # what is left when all orders are taken out must be nothing: without an account of what they should add up to,
    # which for 100,000 agents is 26 MB to be cleared and read
    _put(book, accounts, ladder, count, -1)
    breach, at, difference = _find_left(accounts, used)
    _put(book, accounts, ladder, count, 1)
    if breach == _SOUND:
        for i in range(count):
            slot, m = book.slot[i], book.market[i]
            if accounts.reserved[slot, m] > accounts.holdings[slot, m]:
                return _TOO_MANY, slot, 0
    return breach, at, difference


@kernel
def _put(book: Book, accounts: Accounts, ladder: Ints, count: int, sign: int) -> None:
    """Add what the standing orders set aside to the accounts of their agents, or take it off for sign -1."""
    for i in range(count):
        slot, lots = book.slot[i], sign * book.quantity[i]
        accounts.orders[slot] += sign
        if book.side[i] > 0:
            accounts.escrow[slot] += ladder[book.level[i]] * lots
        else:
            accounts.reserved[slot, book.market[i]] += lots


@kernel
def _find_left(accounts: Accounts, used: int) -> tuple[int, int, int]:
    """Return the first account that is not empty, as _find_off does."""
    for slot in range(used):
        bits = 0
        for m in range(MARKETS):
            bits |= accounts.reserved[slot, m]
        if bits | accounts.escrow[slot] | accounts.orders[slot] == 0:
            continue
        if accounts.escrow[slot] != 0:
            return _ESCROW, slot, accounts.escrow[slot]
        if accounts.orders[slot] != 0:
            return _ORDERS, slot, accounts.orders[slot]
        for m in range(MARKETS):
            if accounts.reserved[slot, m] != 0:
                return _RESERVED, slot * MARKETS + m, accounts.reserved[slot, m]
    return _SOUND, 0, 0


def _check_agents(state: State, sums: Sums) -> None:
    """Agents are counted; no dead-man's switch is overdue or behind the deadline that is noted as the next."""
    if sums.agents != state.counters[AGENT_COUNT]:
        _broken(f"{sums.agents} agents, counted {state.counters[AGENT_COUNT]}")
    if sums.moods != state.counters[MOOD_COUNT]:
        _broken(f"{sums.moods} agents have set a mood, counted {state.counters[MOOD_COUNT]}")
    noted = int(state.counters[NEXT_DEADLINE])
    if sums.deadline != NEVER and not state.tick < noted <= sums.deadline:
        _broken(f"an agent's deadline is tick {sums.deadline}, the next one noted {noted}, after tick {state.tick}")


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


def _broken(what: str) -> None:
    raise InvariantBroken(what)
