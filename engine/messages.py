"""The fixed-size records that enter and leave a tick: actions, outcomes, order updates.

Little-endian and packed, so that a row is also the bytes the journal keeps. Source: ECONOMY A13, DESIGN D23, D24.
"""

from __future__ import annotations

from enum import IntEnum

import numpy as np


class Kind(IntEnum):
    """What an action asks for."""

    LIMIT = 1
    MARKET = 2
    CANCEL = 3
    REPLACE = 4
    BORROW = 5
    REPAY = 6
    PRODUCE = 7
    CONSUME = 8
    SET_SENTIMENT = 9
    REGISTER = 10
    UNREGISTER = 11
    CANCEL_ALL = 12
    CANCEL_AFTER = 13


CANCEL_AFTER_TICKS_MAX = 36_000
"""Ticks ahead for which a dead-man's switch may be set, at most: as far as an action may be valid."""


class TimeInForce(IntEnum):
    """How long an order stays. GTT names its last tick in Action.order_until."""

    GTC = 0
    IOC = 1
    GTT = 2


class Status(IntEnum):
    """What became of an action or an order."""

    FILLED = 1
    RESTING = 2
    PARTIAL = 3
    REJECTED = 4
    CANCELLED = 5
    EXPIRED = 6
    DONE = 7


class Reject(IntEnum):
    """Why the world refused an action: 1xx shape, 2xx funds, 3xx market, 4xx limits. 0 = not refused."""

    NONE = 0
    MALFORMED = 101
    UNKNOWN_AGENT = 110
    UNKNOWN_ORDER = 120
    NO_FUNDS = 201
    NO_HOLDINGS = 202
    CREDIT_LIMIT = 203
    REPAY_OVER_DEBT = 204
    NO_INPUTS = 205
    MARKET_HALTED = 301
    MARKET_CLOSED = 302
    SELF_TRADE = 303
    ACTION_EXPIRED = 310
    ACTIONS_PER_TICK = 401
    OPEN_ORDERS = 402
    BOOK_FULL = 403
    MOOD_PER_TICK = 404
    AGENTS_FULL = 405
    AGENTS_PER_OWNER = 406


#: One sentence per code, for people; numbers are added where the outcome is published.
REJECT_TEXT = {
    Reject.MALFORMED: "a field of the action is out of its range",
    Reject.UNKNOWN_AGENT: "the agent is not registered (any more)",
    Reject.UNKNOWN_ORDER: "no open order of this agent has that id",
    Reject.NO_FUNDS: "not enough free cash",
    Reject.NO_HOLDINGS: "not enough unreserved holdings",
    Reject.CREDIT_LIMIT: "debt after the loan would pass half of cash, escrow and half the holdings' value",
    Reject.REPAY_OVER_DEBT: "the amount is above the debt",
    Reject.NO_INPUTS: "not enough unreserved hours or inputs to produce that much",
    Reject.MARKET_HALTED: "the market is halted: only limit orders good till cancelled or till a tick may rest",
    Reject.MARKET_CLOSED: "the market is closed now: only limit orders good till cancelled or till a tick may rest",
    Reject.SELF_TRADE: "the order would cross an open order of the same owner",
    Reject.ACTION_EXPIRED: "valid_until_tick, or the last tick of the order, has passed",
    Reject.ACTIONS_PER_TICK: "more actions of one agent in a tick than allowed",
    Reject.OPEN_ORDERS: "the agent has as many open orders as it may",
    Reject.BOOK_FULL: "the book of all outside orders is full",
    Reject.MOOD_PER_TICK: "set_sentiment was already used in this tick",
    Reject.AGENTS_FULL: "as many agents are registered as the world takes",
    Reject.AGENTS_PER_OWNER: "the owner has as many agents as it may",
}

#: An accepted input, as the journal keeps it and the intake reads it. Unused fields are 0 (market -1).
ACTION = np.dtype(
    [
        ("seq", "<i8"),  # journal sequence number; the id of the order it places
        ("agent_id", "<i8"),
        ("owner", "<i8"),  # REGISTER only
        ("quantity", "<i8"),  # lots, 1..10^9; CANCEL_AFTER: ticks, 0 = never; REGISTER in a fork: the slot to take + 1
        ("amount", "<i8"),  # ucr: borrow, repay
        ("order_id", "<i8"),  # cancel, replace
        ("order_until", "<i8"),  # GTT: last tick the order takes part in
        ("valid_until", "<i8"),  # last tick the action may be applied in
        ("level", "<i4"),  # ladder level of a limit
        ("mood", "<i4", (4,)),  # Q15: sentiment, fear, greed, confidence
        ("kind", "u1"),
        ("market", "i1"),
        ("side", "i1"),  # +1 buy, -1 sell
        ("time_in_force", "u1"),
    ]
)

#: What became of each action of a tick, in the order of the actions; read when the tick is over.
OUTCOME = np.dtype(
    [
        ("seq", "<i8"),
        ("agent_id", "<i8"),
        ("order_id", "<i8"),  # the order placed, cancelled or replaced; 0 = none
        ("filled", "<i8"),  # lots traded in this tick; lots made or consumed
        ("value", "<i8"),  # ucr paid (< 0) or received (> 0) in this tick
        ("open", "<i8"),  # lots left resting
        ("needed", "<i8"),  # when refused: what was needed (ucr, lots or tick to retry)
        ("available", "<i8"),  # when refused: what was there; of a registration the slot it got
        ("price", "<i8"),  # ucr a lot of the fill, 0 = none
        ("code", "<i4"),  # Reject
        ("kind", "u1"),
        ("status", "u1"),
    ]
)

#: What happened in this tick to an order placed in an earlier one.
ORDER_UPDATE = np.dtype(
    [
        ("order_id", "<i8"),
        ("agent_id", "<i8"),
        ("filled", "<i8"),  # lots traded in this tick
        ("value", "<i8"),  # ucr, signed as above
        ("open", "<i8"),  # lots left
        ("price", "<i8"),  # ucr a lot
        ("market", "i1"),
        ("side", "i1"),
        ("status", "u1"),  # FILLED, PARTIAL, CANCELLED or EXPIRED
    ]
)
