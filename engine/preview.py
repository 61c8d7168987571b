"""What the intake of the next tick would say to an action, asked without doing it.

The same kernel decides, over a small copy: the agents of one owner with their orders, and the sums a tick adds to.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine import actions
from engine.agent_index import find, insert, list_slot, table_size
from engine.config import Config
from engine.ladder import UCR, window
from engine.messages import ORDER_UPDATE, OUTCOME
from engine.order_book import Accounts, Book, accounts_of, book_of, rebuild_lists
from engine.state import NEVER, NEW_ORDER, ORDER_COUNT, OWNER_OPEN, SLOTS_USED, State

Ints = NDArray[np.int64]


def preview(state: State, config: Config, action: NDArray[np.void]) -> np.void:
    """Return the outcome (dtype OUTCOME) that an action of a registered agent would have had in the next tick's intake.

    action: dtype ACTION, shape (1,), any kind but registering. An order that would stand is RESTING: the auction was
    not asked. Changes nothing; the state must not be ticking.
    """
    slot = find(state.agent_index, state.agent_id, int(action["agent_id"][0]))
    slots = np.zeros(0, np.int64) if slot < 0 else _slots_of(state, int(state.agent_owner[slot]))
    outcomes = np.zeros(1, OUTCOME)
    asked = action.copy()
    asked["seq"] = NEVER
    counters = state.counters.copy()
    accounts = _copy_accounts(state, slots, counters)
    book = _copy_book(state, slots, counters)
    for number, _ in enumerate(slots):
        insert(accounts.by_number, accounts.id, number)
        list_slot(accounts.by_owner, accounts.slot_owner, accounts.owner_next, number, int(accounts.owner[number]))
    rebuild_lists(book, accounts)
    updates = np.empty(len(book.id) + 1, ORDER_UPDATE)
    actions.apply(
        asked,
        np.empty(actions.LIKELY, np.int64),
        outcomes,
        updates,
        np.zeros(1, np.int64),
        book,
        accounts,
        _world(state, counters),
        _rules(state, config),
    )
    outcome: np.void = outcomes[0]
    return outcome


def _slots_of(state: State, owner: int) -> Ints:
    used = int(state.counters[SLOTS_USED])
    return np.flatnonzero((state.agent_owner[:used] == owner) & (state.agent_id[:used] != 0)).astype(np.int64)


def _copy_accounts(state: State, slots: Ints, counters: Ints) -> Accounts:
    counters[SLOTS_USED] = len(slots)
    columns: dict[str, Any] = accounts_of(state)._asdict()
    size = table_size(len(slots) + 1)
    tables: dict[str, Any] = {name: np.zeros(size, np.int32) for name in ("by_number", "by_owner")}
    tables["open"] = np.zeros(size, OWNER_OPEN)
    # by market, not by slot
    tables["net"] = np.zeros_like(columns["net"])
    picked: dict[str, Any] = tables | {name: column[slots] for name, column in columns.items() if name not in tables}
    picked["slot_owner"][:] = 0
    picked["owner_next"][:] = 0
    return Accounts(**picked)


def _copy_book(state: State, slots: Ints, counters: Ints) -> Book:
    count = int(counters[ORDER_COUNT])
    rows = np.flatnonzero(np.isin(state.order_slot[:count], slots))
    # as much room as the real book has, but no more than one order can take
    room = len(rows) + min(1, len(state.order_id) - count)
    counters[ORDER_COUNT] = len(rows)
    given = book_of(state)
    copies: dict[str, Any] = {}
    for name in ("id", "slot", "market", "side", "level", "quantity", "expires", "since", "next"):
        column = getattr(given, name)
        copies[name] = np.zeros(room, column.dtype)
        copies[name][: len(rows)] = column[rows]
    copies["slot"][: len(rows)] = np.searchsorted(slots, copies["slot"][: len(rows)])
    copies["first"] = np.zeros(len(slots), given.first.dtype)
    copies["new"], copies["new_expires"] = np.zeros(room, NEW_ORDER), np.zeros(room, np.int64)
    return Book(**copies, counters=counters, new_count=np.array([0, state.tick + 1]))


def _world(state: State, counters: Ints) -> actions.World:
    columns = {name: getattr(state, name) for name in actions.World._fields if name != "counters"}
    for name in ("estate", "flows", "goods_flow"):
        columns[name] = columns[name].copy()
    return actions.World(**columns, counters=counters)


def _rules(state: State, config: Config) -> actions.Rules:
    down, up = window(config.max_price_change)
    return actions.Rules(
        tick=state.tick + 1,
        open_hours=config.market_open_hours,
        down=down,
        up=up,
        endowment=config.endowment_credits * UCR,
        actions_per_tick_max=config.actions_per_tick_max,
        open_orders_max=config.open_orders_max,
        agents_per_owner_max=config.agents_per_owner_max,
        idle_ticks_max=config.idle_ticks_max,
        blocked_ticks=config.blocked_ticks,
        loose_orders=False,
    )
