"""Phase 0, the intake: what outside agents may do, checked and applied in arrival order.

Shape and size were checked at the door; here is everything that needs the world. The first check that fails is the
outcome, and a refused action changes nothing but the agent's last sign of life. Orders are only placed here: the
auction of the same tick fills them, and completes their outcomes.
Decided where the rules are silent: registering and leaving know neither valid_until nor the limit of actions, taking
all orders back and setting the dead-man's switch know no limit, for they must get through; a switch fires before the
first action of its tick; a replace names the lots that shall stay open, keeps the order's time in force, and its id too
unless it loses priority; a default ends the agent as if it had unregistered; who leaves takes its hours of labour
along, for hours are no estate; a slot freed with a write-off is taken by nobody while it counts for its old owner (but
by whoever held it in the world a fork follows).
Source: ECONOMY A13, DESIGN D22, D24.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from engine.agent_index import find, guess, home, insert, list_slot, remove, unlist_slot
from engine.arithmetic import muldiv
from engine.auction import ASSETS
from engine.config import Config
from engine.kernels import Straight, kernel, prefetch, whole
from engine.ladder import LAST_LEVEL, UCR, window
from engine.markets import FINAL, GOOD_FIRST, GOOD_LAST, HOURS, ID, INPUT_1, INPUT_2, LABOUR, MARKETS, SHARE_FIRST
from engine.messages import CANCEL_AFTER_TICKS_MAX, ORDER_UPDATE, OUTCOME, Kind, Reject, Status, TimeInForce
from engine.order_book import (
    COUNT,
    LAPSES,
    TICK,
    Accounts,
    Book,
    Order,
    accounts_of,
    add_new,
    book_of,
    crosses_own_order,
    find_order,
    last_id,
    newest_order,
    of_side,
    order_at,
    prefetch_place,
    rebuild_lists,
    release,
    report,
    secure,
    set_aside,
    set_lots,
)
from engine.state import (
    AGENT_COUNT,
    FLOW_ADVANCE_BACK,
    FLOW_ADVANCE_PAID,
    FLOW_OUTSIDE_INTEREST,
    FLOW_OUTSIDE_LOANS_NEW,
    FLOW_OUTSIDE_REPAID,
    FLOW_OUTSIDE_WRITTEN_OFF,
    GOODS_CONSUMED,
    GOODS_PRODUCED,
    GOODS_USED,
    LANES,
    LOAN_RATE_Q32,
    MOOD_COUNT,
    NEVER,
    NEXT_DEADLINE,
    ORDER_COUNT,
    Q15_ONE,
    SLOTS_USED,
    State,
    announce,
)

Ints = NDArray[np.int64]
Rows = NDArray[np.void]

WRITES = (
    "agent_id", "agent_owner", "agent_cash", "agent_escrow", "agent_debt", "agent_advance", "agent_holdings",
    "agent_reserved", "agent_orders", "agent_last_tick", "agent_mood", "agent_has_mood", "agent_mood_tick",
    "agent_deadline", "blocked_owner", "blocked_until", "estate", "counters", "flows", "goods_flow",
    "order_id", "order_slot", "order_market", "order_side", "order_level", "order_qty", "order_expires",
    "order_since", "agent_index", "owner_index", "slot_owner", "owner_next", "owner_open", "agent_actions",
    "agent_assets", "new_order", "new_order_count", "new_expires",
)  # fmt: skip

LOTS_MAX = 1_000_000_000
"""Lots of one action, at most."""
MONEY_MAX = 1 << 61
"""Sums of money stop here instead of running over the end of int64; the world holds far less."""
NO_OVERFLOW = (1 << 62) // LOTS_MAX
"""Prices up to this one times LOTS_MAX stay in int64."""
NOBODY = np.zeros(0, np.int64)
NO_UPDATES = np.zeros(0, ORDER_UPDATE)
LOTS_SAFE = 1 << 22
"""So many lots times any price stay in int64."""
AHEAD = 12
"""So many actions before its own turn what an action needs is brought into the cache, step by step (_look_ahead).

8 and 16 are as good.
"""
LIKELY = 32
"""Slots that are looked up ahead at a time, a power of two above 2 x AHEAD."""
TICK_UNIT = 1 << 20
"""Of agent_actions, where the tick stands above the number of actions."""
INTEREST_HOUR = 22
EXPIRY_HOUR = 0
MOOD_START = (16_384, 1_500, 1_500, 24_000)
"""Sentiment, fear, greed and confidence of a new agent, Q15: those of a resident at the start."""
CONSUMPTION_JOY = 64
"""Consuming moves the agent's own sentiment by one of so many parts of its distance to 1."""

_LIMIT, _MARKET, _CANCEL, _REPLACE = int(Kind.LIMIT), int(Kind.MARKET), int(Kind.CANCEL), int(Kind.REPLACE)
_BORROW, _REPAY, _PRODUCE, _CONSUME = int(Kind.BORROW), int(Kind.REPAY), int(Kind.PRODUCE), int(Kind.CONSUME)
_SET_SENTIMENT, _REGISTER, _UNREGISTER = int(Kind.SET_SENTIMENT), int(Kind.REGISTER), int(Kind.UNREGISTER)
_CANCEL_ALL, _CANCEL_AFTER = int(Kind.CANCEL_ALL), int(Kind.CANCEL_AFTER)
_GTC, _IOC, _GTT = int(TimeInForce.GTC), int(TimeInForce.IOC), int(TimeInForce.GTT)
_RESTING, _PARTIAL, _REJECTED = int(Status.RESTING), int(Status.PARTIAL), int(Status.REJECTED)
_CANCELLED, _DONE = int(Status.CANCELLED), int(Status.DONE)

_ACCEPTED = int(Reject.NONE)
_MALFORMED, _UNKNOWN_AGENT, _UNKNOWN_ORDER = (
    int(Reject.MALFORMED), int(Reject.UNKNOWN_AGENT), int(Reject.UNKNOWN_ORDER)
)  # fmt: skip
_NO_FUNDS, _NO_HOLDINGS, _NO_INPUTS = int(Reject.NO_FUNDS), int(Reject.NO_HOLDINGS), int(Reject.NO_INPUTS)
_CREDIT_LIMIT, _REPAY_OVER_DEBT = int(Reject.CREDIT_LIMIT), int(Reject.REPAY_OVER_DEBT)
_MARKET_HALTED, _MARKET_CLOSED = int(Reject.MARKET_HALTED), int(Reject.MARKET_CLOSED)
_SELF_TRADE, _ACTION_EXPIRED = int(Reject.SELF_TRADE), int(Reject.ACTION_EXPIRED)
_ACTIONS_PER_TICK, _OPEN_ORDERS = int(Reject.ACTIONS_PER_TICK), int(Reject.OPEN_ORDERS)
_BOOK_FULL, _MOOD_PER_TICK = int(Reject.BOOK_FULL), int(Reject.MOOD_PER_TICK)
_AGENTS_FULL, _AGENTS_PER_OWNER = int(Reject.AGENTS_FULL), int(Reject.AGENTS_PER_OWNER)

_IS_ASSET = np.array([m in ASSETS for m in range(MARKETS)])
_IS_FINAL = np.array([m in {ID[name] for name in FINAL} for m in range(MARKETS)])
_FIRST_INPUT = np.array(INPUT_1, dtype=np.int64)
_SECOND_INPUT = np.array(INPUT_2, dtype=np.int64)


class World(NamedTuple):
    """What the intake reads of the markets, and the sums it adds to."""

    ladder: Ints
    level: Ints
    price: Ints
    halt_until: Ints
    hours_q16: Ints
    input1_q16: Ints
    input2_q16: Ints
    counters: Ints
    estate: Ints
    flows: Ints
    goods_flow: Ints


class Rules(NamedTuple):
    """The numbers of the config that the intake needs, and the tick."""

    tick: int
    open_hours: int
    down: int
    up: int
    endowment: int
    actions_per_tick_max: int
    open_orders_max: int
    agents_per_owner_max: int
    idle_ticks_max: int
    blocked_ticks: int
    loose_orders: bool


def step(state: State, config: Config) -> None:
    """Apply this tick's actions in order; charge interest at hour 22 and let idle agents expire at hour 0.

    Dead-man's switches of this tick fire before the first action. Leaves one outcome per action in state.outcomes,
    those of orders to be completed, or written, by the auction, the changes to older orders in state.updates, and whose
    switch fired in state.fired. Source: ECONOMY A5.0, A13.
    """
    actions = state.actions
    state.outcomes = np.empty(len(actions), OUTCOME)
    state.fired = NOBODY
    hour = state.tick % HOURS
    is_due = 0 < state.counters[NEXT_DEADLINE] <= state.tick
    if not (len(actions) or is_due or hour in (INTEREST_HOUR, EXPIRY_HOUR)):
        # nobody acts and nothing is due: naming a hundred arrays takes 4 us
        state.updates = NO_UPDATES
        return
    state.new_order_count[TICK] = state.tick
    # an order changes at most once for good here, and once per replace that keeps its place
    updates = np.empty(int(state.counters[ORDER_COUNT]) + len(actions), ORDER_UPDATE)
    tally = np.zeros(1, np.int64)
    into = (state.outcomes, updates, tally, book_of(state), accounts_of(state), _world_of(state), _rules(state, config))
    if is_due:
        who = np.zeros(int(state.counters[SLOTS_USED]), np.int64)
        state.fired = who[: fire_switches(*into, who)]
    if len(actions):
        _apply(np.ascontiguousarray(actions), np.empty(LIKELY, np.int64), *into)
    if hour in (INTEREST_HOUR, EXPIRY_HOUR):
        who = np.zeros(int(state.counters[SLOTS_USED]), np.int64)
        name, kernel = ("agent_defaulted", charge_interest) if hour == INTEREST_HOUR else ("agent_expired", expire_idle)
        for number in who[: kernel(*into, who)]:
            announce(state, name, agent=int(number))
    state.updates = updates[: tally[0]].copy()


def rebuild_index(state: State) -> None:
    """Rebuild what follows from agents and orders: the tables, the lists and the sums of shares held."""
    state.agent_index[:] = 0
    state.owner_index[:] = 0
    state.slot_owner[:] = 0
    state.owner_next[:] = 0
    # of another time, which may come again
    state.agent_actions[:] = 0
    used = int(state.counters[SLOTS_USED])
    state.agent_assets[:] = 0
    state.agent_assets[:used] = state.agent_holdings[:used, SHARE_FIRST:].sum(axis=1)
    _index_slots(accounts_of(state), used)
    rebuild_lists(book_of(state), accounts_of(state))


def _world_of(state: State) -> World:
    return World(
        state.ladder, state.level, state.price, state.halt_until, state.hours_q16, state.input1_q16,
        state.input2_q16, state.counters, state.estate, state.flows, state.goods_flow,
    )  # fmt: skip


def _rules(state: State, config: Config) -> Rules:
    down, up = window(config.max_price_change)
    # interest is taken out of what cash is free: at that hour all orders have theirs set aside
    loose_orders = state.tick % HOURS != INTEREST_HOUR
    return Rules(
        state.tick, config.market_open_hours, down, up, config.endowment_credits * UCR, config.actions_per_tick_max,
        config.open_orders_max, config.agents_per_owner_max, config.idle_ticks_max, config.blocked_ticks, loose_orders,
    )  # fmt: skip


@kernel
def apply(
    actions: Rows, ahead: Ints, outcomes: Rows, updates: Rows, tally: Ints, book: Book, accounts: Accounts,
    world: World, rules: Rules,
) -> None:  # fmt: skip
    """Apply all actions in order.

    ahead: scratch of LIKELY. tally: one element, how many rows of updates are written.
    """
    free_from = 0
    for i in range(min(2 * AHEAD, len(actions))):
        _look_up(actions, i, ahead, accounts)
    following = 0
    while following < len(actions):
        i = _place_many(actions, following, ahead, outcomes, book, accounts, world, rules)
        if i == len(actions):
            break
        following = i + 1
        action, outcome = actions[np.uintp(i)], outcomes[np.uintp(i)]
        kind, slot = whole(action["kind"]), _slot_of(action, _likely(ahead, i), accounts)
        _begin(action, outcome)
        if kind == _REGISTER:
            free_from = _register(action, outcome, free_from, accounts, world, rules)
            continue
        if slot < 0:
            _refuse(outcome, _UNKNOWN_AGENT, 0, 0)
            continue
        if _has_loose_order(accounts, slot, rules.tick):
            secure(book, accounts, world.ladder, outcomes, slot)
        if kind == _UNREGISTER:
            _unregister(outcome, slot, outcomes, updates, tally, book, accounts, world, rules)
            free_from = min(free_from, slot)
        elif _may_act(action, outcome, slot, accounts, rules):
            if kind == _LIMIT:
                _limit(action, outcome, i, slot, book, accounts, world, rules)
            elif kind == _MARKET:
                _market(action, outcome, i, slot, book, accounts, world, rules)
            elif kind == _CANCEL:
                _cancel(action, outcome, slot, outcomes, updates, tally, book, accounts, world)
            elif kind == _REPLACE:
                _replace(action, outcome, i, slot, outcomes, updates, tally, book, accounts, world, rules)
            elif kind == _BORROW:
                _borrow(action, outcome, slot, accounts, world)
            elif kind == _REPAY:
                _repay(action, outcome, slot, accounts, world)
            elif kind == _PRODUCE:
                _produce(action, outcome, slot, accounts, world)
            elif kind == _CONSUME:
                _consume(action, outcome, slot, accounts, world)
            elif kind == _CANCEL_ALL:
                _cancel_orders(slot, whole(action["market"]), outcomes, updates, tally, book, accounts, world)
                outcome["status"] = _DONE
            elif kind == _CANCEL_AFTER:
                _cancel_after(action, outcome, slot, accounts, world, rules)
            else:
                _set_sentiment(action, outcome, slot, accounts, world, rules)


_apply = Straight(apply)


@kernel
def _look_ahead(actions: Rows, i: int, ahead: Ints, accounts: Accounts) -> None:
    """Bring what the actions after this one need into the cache, and write the likely slot of one of them.

    Agents are anywhere in the tables, and one waits for each read as long as for hundreds of instructions. So nothing
    is compared here, and what a step reads was named AHEAD actions before: the entry of the table, then what that
    leads to, then what the agent's owner leads to. Sixteen actions named in one go right before their turn left the
    processor waiting, first to name so much, then for the first of them (the intake of an order: 50 -> 40 ns).
    """
    ends = len(actions) - 1
    farthest = actions[np.uintp(min(i + 3 * AHEAD, ends))]
    prefetch(accounts.by_number, home(accounts.by_number, farthest["agent_id"]))
    _look_up(actions, min(i + 2 * AHEAD, ends), ahead, accounts)
    prefetch_place(accounts, np.uintp(max(_likely(ahead, min(i + AHEAD, ends)), 0)))


@kernel
def _look_up(actions: Rows, i: int, ahead: Ints, accounts: Accounts) -> None:
    """Write the likely slot of an action's agent, -1 for none, and bring what is kept by slot into the cache."""
    action = actions[np.uintp(i)]
    found = guess(accounts.by_number, action["agent_id"])
    ahead[np.uintp(i & (LIKELY - 1))] = found
    slot = np.uintp(max(found, 0))
    prefetch(accounts.id, slot)
    prefetch(accounts.last_tick, slot)
    prefetch(accounts.orders, slot)
    prefetch(accounts.cash, slot)
    prefetch(accounts.owner, slot)
    # of buys the first agent's, which is there already: a branch would cost more
    is_sell, market = np.uintp(action["side"] < 0), np.uintp(whole(action["market"]) & (MARKETS - 1))
    prefetch(accounts.holdings, (slot * np.uintp(MARKETS) + market) * is_sell)


@kernel
def _likely(ahead: Ints, i: int) -> int:
    """Return what _look_up wrote of an action."""
    return int(ahead[np.uintp(i & (LIKELY - 1))])


@kernel
def _slot_of(action: np.void, likely: int, accounts: Accounts) -> int:
    """Return the slot of an action's agent, -1 when there is none. likely: what was found ahead.

    Mostly it is that; not when it is further on in the table, or joined or left since the look ahead.
    """
    if likely >= 0 and accounts.id[np.uintp(likely)] == action["agent_id"] and action["agent_id"] != 0:
        return int(likely)
    return int(find(accounts.by_number, accounts.id, action["agent_id"]))


@kernel
def _place_many(
    actions: Rows, begin: int, ahead: Ints, outcomes: Rows, book: Book, accounts: Accounts, world: World, rules: Rules
) -> int:
    """Place limit orders as long as _place_loose does; return the row of the first action that it does not, or the end.

    A loop of its own, so that orders of a crowd share no registers with what other actions need.
    """
    for i in range(begin, len(actions)):
        _look_ahead(actions, i, ahead, accounts)
        if not rules.loose_orders:
            return i
        action = actions[np.uintp(i)]
        slot = _slot_of(action, _likely(ahead, i), accounts)
        if not _place_loose(action, outcomes[np.uintp(i)], i, slot, book, accounts, world, rules):
            return i
    return len(actions)


@kernel
def _place_loose(
    action: np.void, outcome: np.void, row: int, slot: int, book: Book, accounts: Accounts, world: World, rules: Rules
) -> bool:
    """Place a limit order that is its agent's first action of the tick and passes every check; return whether it was.

    One look at everything, hardly a branch, and the agent is left alone but for its last tick (order_book). Whatever
    is not as usual is for the checks one after another in apply, which end alike. So is every refusal but the last in
    order, of an order that would cross one of its owner.
    """
    market, side, level = whole(action["market"]), whole(action["side"]), whole(action["level"])
    quantity, time_in_force = action["quantity"], whole(action["time_in_force"])
    expires = action["order_until"] if time_in_force == _GTT else NEVER
    if not (
        (slot >= 0)
        & (whole(action["kind"]) == _LIMIT)
        & (market >= 0)
        & (market < MARKETS)
        & (abs(side) == 1)
        & (level >= 0)
        & (level <= LAST_LEVEL)
        & (quantity >= 1)
        & (quantity <= LOTS_MAX)
        & ((time_in_force == _GTC) | (time_in_force == _GTT))
        & (rules.tick <= expires)
        & (expires <= NEVER)
        & (rules.tick <= action["valid_until"])
    ):
        return False
    at, m, is_sell = np.uintp(slot), np.uintp(market), np.uintp(side < 0)
    price, orders = world.ladder[np.uintp(level)], accounts.orders[at]
    # both are read, so that one can be picked without a branch; for a buy the first agent's holdings, which are there
    cash, held = accounts.cash[at], accounts.holdings[at * is_sell, m * is_sell]
    has_reserved = is_sell & np.uintp(orders > 0)
    held -= accounts.reserved[at * has_reserved, m * has_reserved] * whole(has_reserved)
    is_safe = (price <= NO_OVERFLOW) | (quantity <= LOTS_SAFE)
    if not (
        (accounts.last_tick[at] != rules.tick)
        & (orders < rules.open_orders_max)
        & is_safe
        & (of_side(side, price * (quantity * is_safe), quantity) <= of_side(side, cash, held))
        & (book.counters[ORDER_COUNT] + book.new_count[COUNT] < len(book.id))
        & (last_id(book) < action["seq"])
    ):
        return False
    accounts.last_tick[at] = rules.tick
    if crosses_own_order(book, accounts, slot, market, side, level, -1):
        accounts.actions[at] = rules.tick * TICK_UNIT + 1
        _begin(action, outcome)
        _refuse(outcome, _SELF_TRADE, 0, 0)
        return True
    add_new(book, accounts, Order(action["seq"], slot, market, side, level, quantity, expires, row), 1)
    return True


@kernel
def _begin(action: np.void, outcome: np.void) -> None:
    """Write an outcome that says nothing yet."""
    outcome["seq"], outcome["agent_id"], outcome["kind"] = action["seq"], action["agent_id"], action["kind"]
    outcome["order_id"] = outcome["filled"] = outcome["value"] = outcome["open"] = 0
    outcome["needed"] = outcome["available"] = outcome["price"] = 0
    outcome["code"] = outcome["status"] = 0


@kernel
def _has_loose_order(accounts: Accounts, slot: int, tick: int) -> bool:
    """Return whether all an agent did in this tick so far is to place a loose order, which is not counted."""
    return bool(accounts.last_tick[slot] == tick and accounts.actions[slot] // TICK_UNIT != tick)


@kernel
def _may_act(action: np.void, outcome: np.void, slot: int, accounts: Accounts, rules: Rules) -> bool:
    """Count the action and return whether it comes in time, is not one too many, and is well formed."""
    is_counted = action["kind"] < _CANCEL_ALL
    taken = int(is_counted)
    if accounts.last_tick[slot] == rules.tick:
        taken += 1 if _has_loose_order(accounts, slot, rules.tick) else accounts.actions[slot] % TICK_UNIT
    accounts.last_tick[slot] = rules.tick
    accounts.actions[slot] = rules.tick * TICK_UNIT + taken
    if is_counted and taken > rules.actions_per_tick_max:
        return _refuse(outcome, _ACTIONS_PER_TICK, rules.tick + 1, rules.tick)
    if action["valid_until"] < rules.tick:
        return _refuse(outcome, _ACTION_EXPIRED, action["valid_until"], rules.tick)
    if not _is_well_formed(action):
        return _refuse(outcome, _MALFORMED, 0, 0)
    return True


@kernel
def _is_well_formed(action: np.void) -> bool:
    """Return whether the fields its kind uses are in their ranges: nothing else keeps a kernel inside its arrays."""
    kind, market = whole(action["kind"]), whole(action["market"])
    has_lots = 1 <= whole(action["quantity"]) <= LOTS_MAX
    has_level = 0 <= whole(action["level"]) <= LAST_LEVEL
    has_side = 0 <= market < MARKETS and abs(whole(action["side"])) == 1
    if kind == _LIMIT:
        return has_lots and has_level and has_side and whole(action["time_in_force"]) <= _GTT
    if kind == _MARKET:
        return has_lots and has_side
    if kind == _REPLACE:
        return has_lots and has_level
    if kind in (_BORROW, _REPAY):
        return 1 <= whole(action["amount"]) <= MONEY_MAX
    if kind == _PRODUCE:
        return has_lots and GOOD_FIRST <= market <= GOOD_LAST
    if kind == _CONSUME:
        return has_lots and GOOD_FIRST <= market <= GOOD_LAST and bool(_IS_FINAL[market])
    if kind == _SET_SENTIMENT:
        lowest, highest = 0, 0
        for k in range(4):
            lowest = min(lowest, whole(action["mood"][k]))
            highest = max(highest, whole(action["mood"][k]))
        return lowest == 0 and highest <= Q15_ONE
    if kind == _CANCEL_ALL:
        return -1 <= market < MARKETS
    if kind == _CANCEL_AFTER:
        return 0 <= whole(action["quantity"]) <= CANCEL_AFTER_TICKS_MAX
    return kind == _CANCEL


@kernel
def _refuse(outcome: np.void, code: int, needed: int, available: int) -> bool:
    """Write a refusal and return False."""
    outcome["status"], outcome["code"] = _REJECTED, code
    outcome["needed"], outcome["available"] = needed, available
    return False


@kernel
def _limit(
    action: np.void, outcome: np.void, row: int, slot: int, book: Book, accounts: Accounts, world: World, rules: Rules
) -> None:
    time_in_force = whole(action["time_in_force"])
    expires = NEVER
    if time_in_force == _IOC:
        expires = LAPSES
    elif time_in_force == _GTT:
        expires = min(NEVER, action["order_until"])
        if expires < rules.tick:
            _refuse(outcome, _ACTION_EXPIRED, expires, rules.tick)
            return
    _place(
        outcome, row, slot, whole(action["market"]), whole(action["side"]), whole(action["level"]),
        action["quantity"], expires, -1, book, accounts, world, rules,
    )  # fmt: skip


@kernel
def _market(
    action: np.void, outcome: np.void, row: int, slot: int, book: Book, accounts: Accounts, world: World, rules: Rules
) -> None:
    """Place an immediate-or-cancel limit at the window's edge."""
    market, side = whole(action["market"]), whole(action["side"])
    level = world.level[market] + (rules.up if side > 0 else -rules.down)
    _place(outcome, row, slot, market, side, level, action["quantity"], LAPSES, -1, book, accounts, world, rules)


@kernel
def _place(
    outcome: np.void, row: int, slot: int, market: int, side: int, level: int, quantity: int, expires: int,
    leaving: int, book: Book, accounts: Accounts, world: World, rules: Rules,
) -> bool:  # fmt: skip
    """Check an order against the world and place it; return whether it stands. leaving: index of a replaced one."""
    if expires == LAPSES:
        if world.halt_until[market] > rules.tick:
            return _refuse(outcome, _MARKET_HALTED, world.halt_until[market], rules.tick)
        if _IS_ASSET[market] and rules.tick % HOURS >= rules.open_hours:
            return _refuse(outcome, _MARKET_CLOSED, rules.tick - rules.tick % HOURS + HOURS, rules.tick)
    # indices that cannot be negative need no check for that
    at, m = np.uintp(slot), np.uintp(market)
    if leaving < 0 and accounts.orders[at] >= rules.open_orders_max:
        return _refuse(outcome, _OPEN_ORDERS, accounts.orders[at] + 1, rules.open_orders_max)
    count = book.counters[ORDER_COUNT] + book.new_count[COUNT]
    if count >= len(book.id):
        return _refuse(outcome, _BOOK_FULL, count + 1, len(book.id))
    if count > 0 and outcome["seq"] <= last_id(book):
        return _refuse(outcome, _MALFORMED, 0, 0)  # the book is searched by id
    price = world.ladder[np.uintp(level)]
    if side > 0:
        free = accounts.cash[at]
        if leaving >= 0:
            free += world.ladder[order_at(book, leaving).level] * order_at(book, leaving).quantity
        if _costs_more(price, quantity, free):
            return _refuse(outcome, _NO_FUNDS, _money(price, quantity), free)
    else:
        free = accounts.holdings[at, m] - accounts.reserved[at, m]
        if leaving >= 0:
            free += order_at(book, leaving).quantity
        if quantity > free:
            return _refuse(outcome, _NO_HOLDINGS, quantity, free)
    if crosses_own_order(book, accounts, slot, market, side, level, leaving):
        return _refuse(outcome, _SELF_TRADE, 0, 0)
    if leaving >= 0:
        release(accounts, world.ladder, order_at(book, leaving), order_at(book, leaving).quantity)
    order = Order(outcome["seq"], slot, market, side, level, quantity, expires, row)
    set_aside(accounts, world.ladder, order, quantity)
    accounts.orders[at] += 1
    add_new(book, accounts, order, 0)
    outcome["status"], outcome["order_id"], outcome["open"] = _RESTING, outcome["seq"], quantity
    return True


@kernel
def _cancel(
    action: np.void, outcome: np.void, slot: int, outcomes: Rows, updates: Rows, tally: Ints, book: Book,
    accounts: Accounts, world: World,
) -> None:  # fmt: skip
    i = find_order(book, action["order_id"])
    if i < 0 or order_at(book, i).slot != slot:
        _refuse(outcome, _UNKNOWN_ORDER, 0, 0)
        return
    order = order_at(book, i)
    release(accounts, world.ladder, order, order.quantity)
    _close(i, outcomes, updates, tally, book, accounts)
    outcome["status"], outcome["order_id"] = _DONE, action["order_id"]


@kernel
def _cancel_orders(
    slot: int, market: int, outcomes: Rows, updates: Rows, tally: Ints, book: Book, accounts: Accounts, world: World
) -> None:
    """Cancel all open orders of an agent. market: only those there; -1 = everywhere."""
    i = whole(book.first[slot]) - 1
    while i >= 0:
        _cancel_open(i, market, outcomes, updates, tally, book, accounts, world)
        i = whole(book.next[i]) - 1
    for lane in range(LANES):
        k = newest_order(book, accounts, slot, lane)
        while k >= 0:
            if book.new[k]["slot"] == slot:
                i = book.counters[ORDER_COUNT] + k
                _cancel_open(i, market, outcomes, updates, tally, book, accounts, world)
            k = whole(book.new[k]["next"]) - 1


@kernel
def _cancel_open(
    i: int, market: int, outcomes: Rows, updates: Rows, tally: Ints, book: Book, accounts: Accounts, world: World
) -> None:
    """Cancel an order unless it is over, or in another market than the one named."""
    order = order_at(book, i)
    if order.quantity > 0 and (market < 0 or order.market == market):
        release(accounts, world.ladder, order, order.quantity)
        _close(i, outcomes, updates, tally, book, accounts)


@kernel
def _cancel_after(action: np.void, outcome: np.void, slot: int, accounts: Accounts, world: World, rules: Rules) -> None:
    """Set the agent's dead-man's switch so many ticks ahead, or take it back."""
    ticks, next_deadline = whole(action["quantity"]), world.counters[NEXT_DEADLINE]
    accounts.deadline[slot] = rules.tick + ticks if ticks > 0 else 0
    # only ever brought forward here: a deadline that is put off costs one look around in vain
    if ticks > 0 and (next_deadline == 0 or rules.tick + ticks < next_deadline):
        world.counters[NEXT_DEADLINE] = rules.tick + ticks
    outcome["status"] = _DONE


@kernel
def fire_switches(
    outcomes: Rows, updates: Rows, tally: Ints, book: Book, accounts: Accounts, world: World, rules: Rules, who: Ints
) -> int:
    """Cancel the orders of the agents whose deadline is this tick, and note the next one.

    who: takes the numbers of those agents; their number is returned.
    """
    count, next_deadline = 0, 0
    for slot in range(world.counters[SLOTS_USED]):
        deadline = accounts.deadline[slot]
        if 0 < deadline <= rules.tick:
            accounts.deadline[slot] = 0
            _cancel_orders(slot, -1, outcomes, updates, tally, book, accounts, world)
            who[count] = accounts.id[slot]
            count += 1
        elif deadline > 0 and (next_deadline == 0 or deadline < next_deadline):
            next_deadline = deadline
    world.counters[NEXT_DEADLINE] = next_deadline
    return count


@kernel
def _replace(
    action: np.void, outcome: np.void, row: int, slot: int, outcomes: Rows, updates: Rows, tally: Ints, book: Book,
    accounts: Accounts, world: World, rules: Rules,
) -> None:  # fmt: skip
    i = find_order(book, action["order_id"])
    if i < 0 or order_at(book, i).slot != slot:
        _refuse(outcome, _UNKNOWN_ORDER, 0, 0)
        return
    order = order_at(book, i)
    level, quantity = whole(action["level"]), action["quantity"]
    if level != order.level or quantity > order.quantity:
        if _place(
            outcome, row, slot, order.market, order.side, level, quantity, order.expires, i, book, accounts, world,
            rules,
        ):  # fmt: skip
            _close(i, outcomes, updates, tally, book, accounts)
        return
    release(accounts, world.ladder, order, order.quantity - quantity)
    set_lots(book, i, quantity)
    if order.row >= 0:
        outcomes[order.row]["open"] = quantity
    else:
        report(updates[tally[0]], order.id, accounts.id[slot], 0, 0, quantity, 0, order.market, order.side, _PARTIAL)
        tally[0] += 1
    outcome["status"], outcome["order_id"], outcome["open"] = _DONE, order.id, quantity


@kernel
def _close(i: int, outcomes: Rows, updates: Rows, tally: Ints, book: Book, accounts: Accounts) -> None:
    """Take an order whose escrow is released out of the book, cancelled."""
    order = order_at(book, i)
    if order.row >= 0:
        placed = outcomes[order.row]
        placed["status"], placed["open"] = _CANCELLED, 0
    else:
        report(updates[tally[0]], order.id, accounts.id[order.slot], 0, 0, 0, 0, order.market, order.side, _CANCELLED)
        tally[0] += 1
    set_lots(book, i, 0)
    accounts.orders[order.slot] -= 1


@kernel
def _borrow(action: np.void, outcome: np.void, slot: int, accounts: Accounts, world: World) -> None:
    """Lend when the debt stays within half of cash and escrow and a quarter of the holdings' value."""
    amount = action["amount"]
    money = accounts.cash[slot] + accounts.escrow[slot]
    limit = (2 * money + _holdings_value(accounts, world, slot)) // 4
    if accounts.debt[slot] + amount > limit:
        _refuse(outcome, _CREDIT_LIMIT, accounts.debt[slot] + amount, limit)
        return
    accounts.debt[slot] += amount
    accounts.cash[slot] += amount
    world.flows[FLOW_OUTSIDE_LOANS_NEW] += amount
    outcome["status"], outcome["value"] = _DONE, amount


@kernel
def _repay(action: np.void, outcome: np.void, slot: int, accounts: Accounts, world: World) -> None:
    amount = action["amount"]
    if amount > accounts.debt[slot]:
        _refuse(outcome, _REPAY_OVER_DEBT, amount, accounts.debt[slot])
    elif amount > accounts.cash[slot]:
        _refuse(outcome, _NO_FUNDS, amount, accounts.cash[slot])
    else:
        accounts.debt[slot] -= amount
        accounts.cash[slot] -= amount
        world.flows[FLOW_OUTSIDE_REPAID] += amount
        outcome["status"], outcome["value"] = _DONE, -amount


@kernel
def _produce(action: np.void, outcome: np.void, slot: int, accounts: Accounts, world: World) -> None:
    """Turn hours and inputs into goods at the market's current public coefficients."""
    good, lots = whole(action["market"]), action["quantity"]
    first, second = _FIRST_INPUT[good], _SECOND_INPUT[good]
    hours = (lots * world.hours_q16[good] + 65_535) >> 16
    need_1 = (lots * world.input1_q16[good] + 65_535) >> 16
    need_2 = (lots * world.input2_q16[good] + 65_535) >> 16
    if not (
        _has(outcome, slot, LABOUR, hours, _NO_INPUTS, accounts)
        and _has(outcome, slot, first, need_1, _NO_INPUTS, accounts)
        and _has(outcome, slot, second, need_2, _NO_INPUTS, accounts)
    ):
        return
    accounts.holdings[slot, LABOUR] -= hours
    accounts.holdings[slot, first] -= need_1
    accounts.holdings[slot, second] -= need_2
    accounts.holdings[slot, good] += lots
    world.goods_flow[GOODS_USED, first] += need_1
    world.goods_flow[GOODS_USED, second] += need_2
    world.goods_flow[GOODS_PRODUCED, good] += lots
    outcome["status"], outcome["filled"] = _DONE, lots


@kernel
def _has(outcome: np.void, slot: int, market: int, lots: int, code: int, accounts: Accounts) -> bool:
    """Return whether so many lots are there and not promised to anybody; refuse otherwise."""
    free = accounts.holdings[slot, market] - accounts.reserved[slot, market]
    if lots > free:
        return _refuse(outcome, code, lots, free)
    return True


@kernel
def _consume(action: np.void, outcome: np.void, slot: int, accounts: Accounts, world: World) -> None:
    good, lots = whole(action["market"]), action["quantity"]
    if not _has(outcome, slot, good, lots, _NO_HOLDINGS, accounts):
        return
    accounts.holdings[slot, good] -= lots
    world.goods_flow[GOODS_CONSUMED, good] += lots
    accounts.mood[slot, 0] += (Q15_ONE - accounts.mood[slot, 0]) // CONSUMPTION_JOY
    outcome["status"], outcome["filled"] = _DONE, lots


@kernel
def _set_sentiment(
    action: np.void, outcome: np.void, slot: int, accounts: Accounts, world: World, rules: Rules
) -> None:
    if accounts.mood_tick[slot] == rules.tick:
        _refuse(outcome, _MOOD_PER_TICK, rules.tick + 1, rules.tick)
        return
    for k in range(4):
        accounts.mood[slot, k] = action["mood"][k]
    accounts.mood_tick[slot] = rules.tick
    if accounts.has_mood[slot] == 0:
        accounts.has_mood[slot] = 1
        world.counters[MOOD_COUNT] += 1
    outcome["status"] = _DONE


@kernel
def _register(action: np.void, outcome: np.void, free_from: int, accounts: Accounts, world: World, rules: Rules) -> int:
    """Give the agent the lowest free slot and its endowment; return the lowest slot that may be free after it.

    A row may name the slot, as quantity - 1: its agent was let in already, in the world a fork follows. It gets that
    slot if it is free, and its owner's agents are not counted again. Rows of the door name none.
    """
    number = action["agent_id"] if action["agent_id"] > 0 else action["seq"]
    owner = action["owner"] if action["owner"] > 0 else number
    if number <= 0 or find(accounts.by_number, accounts.id, number) >= 0:
        _refuse(outcome, _MALFORMED, 0, 0)
        return free_from
    named = whole(action["quantity"]) - 1
    if 0 <= named < len(accounts.id) and accounts.id[named] == 0:
        slot = named
    else:
        while free_from < len(accounts.id) and (
            accounts.id[free_from] != 0 or accounts.blocked_until[free_from] > rules.tick
        ):
            free_from += 1
        if free_from == len(accounts.id):
            _refuse(outcome, _AGENTS_FULL, free_from + 1, free_from)
            return free_from
        slot = free_from
    owned = 0 if named >= 0 else _owned(accounts, owner, rules.tick)
    if owned >= rules.agents_per_owner_max:
        _refuse(outcome, _AGENTS_PER_OWNER, owned + 1, rules.agents_per_owner_max)
        return free_from
    unlist_slot(accounts.by_owner, accounts.slot_owner, accounts.owner_next, slot)
    accounts.blocked_owner[slot] = accounts.blocked_until[slot] = 0
    accounts.id[slot], accounts.owner[slot] = number, owner
    insert(accounts.by_number, accounts.id, slot)
    list_slot(accounts.by_owner, accounts.slot_owner, accounts.owner_next, slot, owner)
    accounts.cash[slot] = accounts.advance[slot] = rules.endowment
    world.flows[FLOW_ADVANCE_PAID] += rules.endowment
    accounts.last_tick[slot], accounts.mood_tick[slot] = rules.tick, -1
    accounts.actions[slot] = rules.tick * TICK_UNIT
    for k in range(4):
        accounts.mood[slot, k] = MOOD_START[k]
    for m in range(MARKETS):
        # they are zero; written now, their memory is there before a crowd's first orders need all of it in one tick
        # (100,000 agents: 130 ms)
        accounts.holdings[slot, m] = accounts.reserved[slot, m] = 0
    world.counters[SLOTS_USED] = max(world.counters[SLOTS_USED], slot + 1)
    world.counters[AGENT_COUNT] += 1
    outcome["agent_id"], outcome["status"], outcome["value"] = number, _DONE, rules.endowment
    outcome["available"] = slot
    return free_from


@kernel
def _owned(accounts: Accounts, owner: int, tick: int) -> int:
    """Return how many agents count for an owner: its own and the slots blocked for it."""
    count = 0
    first = find(accounts.by_owner, accounts.slot_owner, owner)
    slot = first
    while slot >= 0:
        if accounts.id[slot] != 0 or accounts.blocked_until[slot] > tick:
            count += 1
        slot = whole(accounts.owner_next[slot]) - 1
        if slot == first:
            break
    return count


@kernel
def _unregister(
    outcome: np.void, slot: int, outcomes: Rows, updates: Rows, tally: Ints, book: Book, accounts: Accounts,
    world: World, rules: Rules,
) -> None:  # fmt: skip
    given_back = _leave(slot, outcomes, updates, tally, book, accounts, world, rules)
    outcome["status"], outcome["value"] = _DONE, -given_back


@kernel
def _leave(
    slot: int, outcomes: Rows, updates: Rows, tally: Ints, book: Book, accounts: Accounts, world: World, rules: Rules
) -> int:
    """Settle an agent and free its slot; return the cash the treasury got."""
    lost = _liquidate(slot, outcomes, updates, tally, book, accounts, world)
    back = accounts.cash[slot]
    world.flows[FLOW_ADVANCE_BACK] += back
    lost += max(0, accounts.advance[slot] - back)
    number, owner = accounts.id[slot], accounts.owner[slot]
    remove(accounts.by_number, accounts.id, number)
    world.counters[AGENT_COUNT] -= 1
    world.counters[MOOD_COUNT] -= accounts.has_mood[slot]
    accounts.cash[slot] = accounts.advance[slot] = 0
    accounts.id[slot] = accounts.owner[slot] = accounts.last_tick[slot] = accounts.actions[slot] = 0
    accounts.mood[slot, :] = 0
    accounts.has_mood[slot] = accounts.mood_tick[slot] = accounts.deadline[slot] = 0
    if lost > 0 and rules.blocked_ticks > 0:
        accounts.blocked_owner[slot], accounts.blocked_until[slot] = owner, rules.tick + rules.blocked_ticks
    else:
        unlist_slot(accounts.by_owner, accounts.slot_owner, accounts.owner_next, slot)
    return int(back)


@kernel
def _liquidate(
    slot: int, outcomes: Rows, updates: Rows, tally: Ints, book: Book, accounts: Accounts, world: World
) -> int:
    """Cancel all orders, repay what cash allows, write off the rest, leave holdings to the estate; return the loss."""
    _cancel_orders(slot, -1, outcomes, updates, tally, book, accounts, world)
    repaid = min(accounts.cash[slot], accounts.debt[slot])
    lost = accounts.debt[slot] - repaid
    accounts.cash[slot] -= repaid
    accounts.debt[slot] = 0
    world.flows[FLOW_OUTSIDE_REPAID] += repaid
    world.flows[FLOW_OUTSIDE_WRITTEN_OFF] += lost
    for m in range(MARKETS):
        if m != LABOUR:
            world.estate[m] += accounts.holdings[slot, m]
        accounts.holdings[slot, m] = 0
    accounts.assets[slot] = 0
    return int(lost)


@kernel
def charge_interest(
    outcomes: Rows, updates: Rows, tally: Ints, book: Book, accounts: Accounts, world: World, rules: Rules, who: Ints
) -> int:
    """Charge a day's interest on all debts; an agent whose debt is above its assets defaults and leaves.

    What cash does not cover is added to the debt as a new loan. who: takes the numbers of the agents that default;
    their number is returned.
    """
    count = 0
    for slot in range(world.counters[SLOTS_USED]):
        debt = accounts.debt[slot]
        if debt > 0:
            interest = muldiv(debt, world.counters[LOAN_RATE_Q32], 1 << 32)
            paid = min(interest, accounts.cash[slot])
            accounts.cash[slot] -= paid
            accounts.debt[slot] += interest - paid
            world.flows[FLOW_OUTSIDE_INTEREST] += interest
            world.flows[FLOW_OUTSIDE_LOANS_NEW] += interest - paid
            assets = accounts.cash[slot] + accounts.escrow[slot] + _holdings_value(accounts, world, slot)
            if accounts.debt[slot] > assets:
                who[count] = accounts.id[slot]
                count += 1
                _leave(slot, outcomes, updates, tally, book, accounts, world, rules)
    return count


@kernel
def expire_idle(
    outcomes: Rows, updates: Rows, tally: Ints, book: Book, accounts: Accounts, world: World, rules: Rules, who: Ints
) -> int:
    """Let agents leave that have not acted for longer than allowed. who: takes their numbers; returns how many."""
    count = 0
    for slot in range(world.counters[SLOTS_USED]):
        if accounts.id[slot] != 0 and rules.tick - accounts.last_tick[slot] > rules.idle_ticks_max:
            who[count] = accounts.id[slot]
            count += 1
            _leave(slot, outcomes, updates, tally, book, accounts, world, rules)
    return count


@kernel
def _holdings_value(accounts: Accounts, world: World, slot: int) -> int:
    """Return the value of all holdings at reference prices, ucr, at most MONEY_MAX."""
    total = 0
    for m in range(MARKETS):
        total = min(MONEY_MAX, total + _money(world.price[m], accounts.holdings[slot, m]))
    return total


@kernel
def _costs_more(price: int, lots: int, money: int) -> bool:
    """Return whether price x lots > money; price and lots above zero, lots at most LOTS_MAX."""
    if price <= NO_OVERFLOW or lots <= LOTS_SAFE:
        return bool(price * lots > money)
    return bool(lots > money // price)  # three times as slow


@kernel
def _money(price: int, lots: int) -> int:
    """Return price x lots, at most MONEY_MAX. price: above zero."""
    return MONEY_MAX if lots > MONEY_MAX // price else int(price * lots)


@kernel
def _index_slots(accounts: Accounts, used: int) -> None:
    for slot in range(used):
        if accounts.id[slot] != 0:
            insert(accounts.by_number, accounts.id, slot)
            list_slot(accounts.by_owner, accounts.slot_owner, accounts.owner_next, slot, accounts.owner[slot])
        elif accounts.blocked_owner[slot] != 0:
            list_slot(accounts.by_owner, accounts.slot_owner, accounts.owner_next, slot, accounts.blocked_owner[slot])
