"""A batch of actions as columns: all of them looked at in one go, the good ones made into rows of ACTION.

Good means surely right by the rules of shape; whoever calls looks at the others one by one and says what is wrong.
A price is taken to the ladder so that it is never worse for the sender: a buy never above it, a sell never below it.
Source: DESIGN D2, D24; ECONOMY A13.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from engine.kernels import kernel, short_kernel
from engine.ladder import LAST_LEVEL
from engine.markets import FINAL, GOOD_FIRST, GOOD_LAST, ID, MARKETS
from engine.messages import CANCEL_AFTER_TICKS_MAX, Kind, TimeInForce
from engine.state import Q15_ONE

Ints = NDArray[np.int64]
Bytes = NDArray[np.uint8]

NAME_SIZE = 64
"""Most characters of a client_action_id."""
DIGITS = 20
"""Most decimal digits of a number of 64 bits."""
LOTS_MAX = 1_000_000_000
AMOUNT_MAX = 1_000_000_000_000_000
"""ucr of a loan or repayment."""
NUMBER_MAX = 9_999_999_999_999_999
"""Of an agent or an order: 16 digits."""
TICK_MAX = 1 << 53


class Columns(NamedTuple):
    """One array a field, shape (n,); an action that does not have the field has the value named here.

    unsure: not 0 where a field could not be read and is not in its array.
    """

    agent: Ints
    kind: Bytes
    """Kind; 0."""
    market: NDArray[np.int8]
    """-1."""
    side: NDArray[np.int8]
    """1 buy, -1 sell; 0."""
    time_in_force: Bytes
    """1 + TimeInForce; 0."""
    quantity: Ints
    """0."""
    price_below: Ints
    """ucr, rounded down; 0."""
    price_above: Ints
    """ucr, rounded up; 0."""
    level: NDArray[np.int32]
    """Level of the ladder instead of a price; -1."""
    amount: Ints
    """ucr; 0."""
    order_id: Ints
    """0."""
    expires_tick: Ints
    """-1."""
    valid_until_tick: Ints
    """-1."""
    ticks: Ints
    """Of a dead-man's switch; -1."""
    mood: NDArray[np.float64]
    """Shape (n, 4); NaN."""
    names: Bytes
    """client_action_id in ASCII, shape (n, width), filled up with zeros."""
    unsure: Bytes


_MARKET, _SIDE, _FORCE, _QUANTITY, _PRICE, _AMOUNT, _ORDER, _EXPIRES, _MOOD, _TICKS = (1 << k for k in range(10))
#: The fields each kind must have, and may have.
_FIELDS: dict[int, tuple[int, int]] = {
    Kind.LIMIT: (_MARKET | _SIDE | _QUANTITY | _PRICE, _FORCE | _EXPIRES),
    Kind.MARKET: (_MARKET | _SIDE | _QUANTITY, 0),
    Kind.CANCEL: (_ORDER, 0),
    Kind.REPLACE: (_ORDER | _QUANTITY | _PRICE, _SIDE),
    Kind.BORROW: (_AMOUNT, 0),
    Kind.REPAY: (_AMOUNT, 0),
    Kind.PRODUCE: (_MARKET | _QUANTITY, 0),
    Kind.CONSUME: (_MARKET | _QUANTITY, 0),
    Kind.SET_SENTIMENT: (_MOOD, 0),
    Kind.CANCEL_ALL: (0, _MARKET),
    Kind.CANCEL_AFTER: (_TICKS, 0),
}
_LAST_KIND = max(_FIELDS)
_NEEDED = np.array([_FIELDS.get(kind, (0, 0))[0] for kind in range(_LAST_KIND + 1)])
_ALLOWED = np.array([sum(_FIELDS.get(kind, (0, 0))) for kind in range(_LAST_KIND + 1)])
_IS_FINAL = np.array([m in {ID[name] for name in FINAL} for m in range(MARKETS)])
_IS_NAME = np.array([chr(code).isascii() and (chr(code).isalnum() or chr(code) in "._:-") for code in range(256)])
_PRODUCE, _CONSUME = int(Kind.PRODUCE), int(Kind.CONSUME)
_GTT = 1 + int(TimeInForce.GTT)
_LOG_RATIO = 1.0 / math.log(1.0001)


@short_kernel
def to_rows(columns: Columns, ladder: Ints, now: int, validity: int, validity_max: int, rows: NDArray[np.void],
            is_good: Bytes) -> None:  # fmt: skip
    """Write each action as a row (dtype ACTION, seq and owner 0) and whether it is surely right.

    ladder: engine.ladder.prices(). now: the last published tick; validity: how long an action is valid from there
    unless it says so, validity_max: at most. A row that is not good means nothing.
    """
    for i in range(len(rows)):
        row = rows[i]
        kind, market, side = int(columns.kind[i]), int(columns.market[i]), int(columns.side[i])
        force, expires = int(columns.time_in_force[i]), columns.expires_tick[i]
        row["seq"] = row["owner"] = 0
        row["agent_id"], row["kind"], row["market"], row["side"] = columns.agent[i], kind, market, side
        ticks = columns.ticks[i]
        # a row has no field of its own for them
        row["quantity"] = ticks if ticks >= 0 else columns.quantity[i]
        row["amount"] = columns.amount[i]
        row["order_id"] = columns.order_id[i]
        row["time_in_force"] = force - 1 if force > 0 else 0
        row["order_until"] = expires if expires >= 0 else 0
        until = columns.valid_until_tick[i]
        row["valid_until"] = until if until >= 0 else now + validity
        given = _given(columns, i)
        level = 0
        if given & _PRICE:
            level = _level(columns, i, side, ladder)
        row["level"] = level
        good = (
            columns.unsure[i] == 0
            and 0 < columns.agent[i] <= NUMBER_MAX
            and 0 < kind <= _LAST_KIND
            and _is_name(columns.names, i)
        )
        good = good and (given & _NEEDED[kind]) == _NEEDED[kind] and (given & ~_ALLOWED[kind]) == 0
        good = good and level >= 0 and -1 <= until <= min(now + validity_max, TICK_MAX)
        good = good and 0 <= columns.quantity[i] <= LOTS_MAX and 0 <= columns.amount[i] <= AMOUNT_MAX
        good = good and 0 <= columns.order_id[i] <= NUMBER_MAX and -1 <= expires <= TICK_MAX
        good = good and -1 <= market < MARKETS and -1 <= side <= 1 and force <= _GTT
        good = good and (force == _GTT) == (expires >= 0) and -1 <= ticks <= CANCEL_AFTER_TICKS_MAX
        if kind in (_PRODUCE, _CONSUME):
            good = good and GOOD_FIRST <= market <= GOOD_LAST and (kind == _PRODUCE or _IS_FINAL[market])
        for k in range(4):
            row["mood"][k] = 0
            if given & _MOOD:
                value = columns.mood[i, k]
                good = good and 0.0 <= value <= 1.0
                row["mood"][k] = int(np.rint(value * Q15_ONE)) if good else 0
        is_good[i] = good


@short_kernel
def write_digits(numbers: NDArray[np.uint64], names: Bytes) -> None:
    """Write numbers as decimal text. names: shape (n, DIGITS), zeros; what is behind a number stays zero."""
    ten = np.uint64(10)
    for i in range(len(numbers)):
        left, length = numbers[i] // ten, 1
        while left > 0:
            left //= ten
            length += 1
        left = numbers[i]
        for k in range(length - 1, -1, -1):
            names[i, k] = 48 + left % ten
            left //= ten


@kernel
def _given(columns: Columns, i: int) -> int:
    """Return which fields an action has."""
    given = 0
    if columns.market[i] != -1:
        given |= _MARKET
    if columns.side[i] != 0:
        given |= _SIDE
    if columns.time_in_force[i] != 0:
        given |= _FORCE
    if columns.quantity[i] != 0:
        given |= _QUANTITY
    if columns.price_above[i] != 0 or columns.level[i] != -1:
        given |= _PRICE
    if columns.amount[i] != 0:
        given |= _AMOUNT
    if columns.order_id[i] != 0:
        given |= _ORDER
    if columns.expires_tick[i] != -1:
        given |= _EXPIRES
    if columns.ticks[i] != -1:
        given |= _TICKS
    mood = columns.mood[i]
    if not (np.isnan(mood[0]) and np.isnan(mood[1]) and np.isnan(mood[2]) and np.isnan(mood[3])):
        given |= _MOOD
    return given


@kernel
def _is_name(names: Bytes, i: int) -> bool:
    """Whether there is a name, of characters a name may have, with nothing behind it."""
    width = names.shape[1]
    length = 0
    while length < width and names[i, length] != 0:
        if not _IS_NAME[names[i, length]]:
            return False
        length += 1
    for k in range(length, width):
        if names[i, k] != 0:
            return False
    return 0 < length <= NAME_SIZE


@kernel
def _level(columns: Columns, i: int, side: int, ladder: Ints) -> int:
    """Return the level of a price for a side, or of a price of the ladder without one; -1 when there is none."""
    if columns.level[i] != -1:
        return int(columns.level[i]) if 0 <= columns.level[i] <= LAST_LEVEL else -1
    if columns.price_below[i] < ladder[0] or columns.price_above[i] > ladder[LAST_LEVEL]:
        return -1
    below = _level_below(ladder, columns.price_below[i])
    if side > 0:
        return below
    above = below if ladder[below] >= columns.price_above[i] else below + 1
    return above if side < 0 or above == below else -1


@kernel
def _level_below(ladder: Ints, price: int) -> int:
    """Return the largest level whose price is <= price, which is on the ladder.

    The logarithm says where to begin, the ladder decides: a search by halves took 105 ns, this takes 16.
    """
    level = min(LAST_LEVEL, max(0, int(math.log(price / 10_000.0) * _LOG_RATIO)))
    while ladder[level] > price:
        level -= 1
    while level < LAST_LEVEL and ladder[level + 1] <= price:
        level += 1
    return level
