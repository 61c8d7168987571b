"""The common actions checked by hand: from the bytes of a body, or its plain value, to a row in a few microseconds.

It says yes or nothing. What it takes is what schemas.parse_action and admission.to_row take, with the same row and the
same validity; what it leaves, wrong or merely unusual, is for them to decide and to explain. Against pydantic and
exact decimals: 2.5 us for 19 (bench: tests/server/live/test_quick_check.py holds the two together).
Source: DESIGN D2, S5.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from decimal import Decimal
from struct import Struct
from typing import Any, NamedTuple, TypeGuard

import orjson

from engine.ladder import UCR, level_above, level_below, prices
from engine.markets import FINAL, ID
from engine.messages import Kind, TimeInForce
from engine.state import Q15_ONE
from server.bodies import INTEGER_MAX
from server.live.receipts import VALIDITY_TICKS, VALIDITY_TICKS_MAX
from server.live.recorder import Input
from server.schemas import GOODS, PRICE_HIGHEST, PRICE_LOWEST, QUANTITY_MAX

PACKED = Struct("<8q5iBbbB")
"""engine.messages.ACTION as one call, which is 40 times as fast as filling its fields one by one."""
NOT_ASKED = -1
"""Stands for valid_until_tick of an action that leaves it out."""

_CLIENT_ACTION_ID = re.compile(r"[A-Za-z0-9._:-]{1,64}")
_ORDER_ID = re.compile(r"[1-9][0-9]{0,15}")
_MONEY = re.compile(r"(0|[1-9][0-9]{0,6})(?:\.([0-9]{1,18}))?")
_PRICE_NUMBER = re.compile(rb'"price"[ \t\r\n]*:[ \t\r\n]*([0-9.]{1,24})[ \t\r\n]*[,}]')
"""A price written as a number: its digits, which a float would not keep."""
_MOOD_NUMBERS = re.compile(rb'"(sentiment|fear|greed|confidence)"[ \t\r\n]*:[ \t\r\n]*([0-9.]{1,24})(?=[ \t\r\n]*[,}])')
"""Moods and their digits: the float nearest to what is just above 1 is 1."""
_NUMBERS = (int, Decimal)
"""Kinds of numbers a price or a mood may be; a bool is an int to isinstance."""
_LOWEST_UCR, _HIGHEST_UCR = int(PRICE_LOWEST * UCR), int(PRICE_HIGHEST * UCR)
NO_MARKET = -1
_GOODS = {name: ID[name] for name in GOODS}
_FINAL = {name: ID[name] for name in FINAL}
_SIDES = {"buy": 1, "sell": -1}
_TIMES = {time.name.lower(): time for time in TimeInForce}
_NO_MOODS = (0, 0, 0, 0)


_Content = tuple[Kind, int, int, int, int, tuple[int, int, int, int], int, int, int]
"""What an action says beside its name and its validity: kind, quantity, order_id, order_until, level, moods (Q15),
market, side, time_in_force. A tuple without names: making one with them took a tenth of a check."""


def quick_check(body: bytes, agent: int, now: int) -> Input | None:
    """Return the action a JSON body stands for, None for one that bodies.decode and schemas.parse_action look at.

    now: the last published tick, from which its validity counts.
    """
    value = _flat(body)
    return None if value is None else check(value, agent, now)


def check(value: dict[str, Any], agent: int, now: int) -> Input | None:
    """Return the action that a decoded object stands for, None for one that schemas.parse_action looks at.

    value: plain, as the decoders of server.bodies leave it: numbers with a fraction are Decimals.
    """
    kind = value.get("type")
    known = _KINDS.get(kind) if type(kind) is str else None
    if known is None or not value.keys() <= known.fields:
        return None
    client_action_id, asked = value.get("client_action_id"), value.get("valid_until_tick")
    if type(client_action_id) is not str or not _CLIENT_ACTION_ID.fullmatch(client_action_id):
        return None
    if asked is None:
        asked, valid_until = NOT_ASKED, now + VALIDITY_TICKS
    elif type(asked) is int and 0 <= asked <= now + VALIDITY_TICKS_MAX:
        valid_until = asked
    else:
        return None
    content = known.read(value)
    if content is None:
        return None
    # the kind is the first of the content
    return Input(content[0], client_action_id, asked, valid_until, _packed(agent, valid_until, content))


def _flat(body: bytes) -> dict[str, Any] | None:
    """Return the object bodies.decode_json would return, None for what may be something else to it.

    Without a backslash every quote begins or ends a text, so keys that are there twice show in the number of quotes; so
    do objects and lists, which no field takes. orjson refuses NaN, Infinity and broken UTF-8 as the strict decoder
    does; what it makes of numbers is looked at by whoever takes them.
    """
    if b"\\" in body:
        return None
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
    if type(value) is not dict or body.count(b'"') != 2 * (len(value) + [*map(type, value.values())].count(str)):
        return None
    if type(value.get("price")) is float:
        written = _PRICE_NUMBER.search(body)
        value["price"] = None if written is None else written[1].decode()
    if "sentiment" in value:
        # one that is written in another way stays what orjson made of it
        value |= {name.decode(): Decimal(digits.decode()) for name, digits in _MOOD_NUMBERS.findall(body)}
    return value


def _packed(agent: int, valid_until: int, content: _Content) -> bytes:
    """Return a row of dtype ACTION: seq, agent, owner, quantity, amount, order, until, valid, level, moods, rest."""
    kind, quantity, order_id, order_until, level, moods, market, side, time_in_force = content
    return PACKED.pack(
        0, agent, 0, quantity, 0, order_id, order_until, valid_until, level, *moods, kind, market, side, time_in_force
    )


def _limit(value: dict[str, Any]) -> _Content | None:
    quantity, side = value.get("quantity"), _named(_SIDES, value.get("side"))
    market, time = _named(ID, value.get("market")), _named(_TIMES, value.get("time_in_force", "gtc"))
    if market is None or side is None or time is None or not _is_quantity(quantity):
        return None
    until = value.get("expires_tick")
    if time == TimeInForce.GTT:
        if type(until) is not int or not 0 <= until <= INTEGER_MAX:
            return None
    elif until is not None:
        return None
    level = _level(value.get("price"), side)
    if level is None:
        return None
    return Kind.LIMIT, quantity, 0, until or 0, level, _NO_MOODS, market, side, time


def _market(value: dict[str, Any]) -> _Content | None:
    quantity, side = value.get("quantity"), _named(_SIDES, value.get("side"))
    market = _named(ID, value.get("market"))
    if market is None or side is None or not _is_quantity(quantity):
        return None
    return Kind.MARKET, quantity, 0, 0, 0, _NO_MOODS, market, side, 0


def _cancel(value: dict[str, Any]) -> _Content | None:
    order_id = _order_id(value.get("order_id"))
    return None if order_id is None else (Kind.CANCEL, 0, order_id, 0, 0, _NO_MOODS, NO_MARKET, 0, 0)


def _replace(value: dict[str, Any]) -> _Content | None:
    quantity, order_id, given = value.get("quantity"), _order_id(value.get("order_id")), value.get("side")
    side = 0 if given is None else _named(_SIDES, given)
    if order_id is None or side is None or not _is_quantity(quantity):
        return None
    level = _level(value.get("price"), side)
    return None if level is None else (Kind.REPLACE, quantity, order_id, 0, level, _NO_MOODS, NO_MARKET, side, 0)


def _produce(value: dict[str, Any]) -> _Content | None:
    quantity, market = value.get("quantity"), _named(_GOODS, value.get("market"))
    if market is None or not _is_quantity(quantity):
        return None
    return Kind.PRODUCE, quantity, 0, 0, 0, _NO_MOODS, market, 0, 0


def _consume(value: dict[str, Any]) -> _Content | None:
    quantity, market = value.get("quantity"), _named(_FINAL, value.get("market"))
    if market is None or not _is_quantity(quantity):
        return None
    return Kind.CONSUME, quantity, 0, 0, 0, _NO_MOODS, market, 0, 0


def _set_sentiment(value: dict[str, Any]) -> _Content | None:
    sentiment, fear = _mood(value.get("sentiment")), _mood(value.get("fear"))
    greed, confidence = _mood(value.get("greed")), _mood(value.get("confidence"))
    if sentiment is None or fear is None or greed is None or confidence is None:
        return None
    return Kind.SET_SENTIMENT, 0, 0, 0, 0, (sentiment, fear, greed, confidence), NO_MARKET, 0, 0


class _Known(NamedTuple):
    """fields: that an action of the kind may have. read: returns its content, None for one that is left to others."""

    fields: frozenset[str]
    read: Callable[[dict[str, Any]], _Content | None]


def _known(read: Callable[[dict[str, Any]], _Content | None], *fields: str) -> _Known:
    return _Known(frozenset({"type", "client_action_id", "valid_until_tick", *fields}), read)


#: Orders, moods, and what is done with goods: what comes often. Loans come seldom.
_KINDS = {
    "limit": _known(_limit, "market", "side", "quantity", "price", "time_in_force", "expires_tick"),
    "market": _known(_market, "market", "side", "quantity"),
    "cancel": _known(_cancel, "order_id"),
    "replace": _known(_replace, "order_id", "quantity", "price", "side"),
    "produce": _known(_produce, "market", "quantity"),
    "consume": _known(_consume, "market", "quantity"),
    "set_sentiment": _known(_set_sentiment, "sentiment", "fear", "greed", "confidence"),
}


def _named(table: Mapping[str, int], name: Any) -> int | None:
    return table.get(name) if type(name) is str else None


def _is_quantity(value: Any) -> TypeGuard[int]:
    return type(value) is int and 1 <= value <= QUANTITY_MAX


def _mood(value: Any) -> int | None:
    """Return a mood in Q15, exactly as admission.to_row; None for one it has to look at."""
    return round(float(value) * Q15_ONE) if type(value) in _NUMBERS and 0 <= value <= 1 else None


def _order_id(value: Any) -> int | None:
    return int(value) if type(value) is str and _ORDER_ID.fullmatch(value) else None


def _level(price: Any, side: int) -> int | None:
    """Return the ladder level of a price, exactly as admission.to_level; None for a price it has to look at."""
    text = price if type(price) is str else str(price) if type(price) in _NUMBERS else ""
    written = _MONEY.fullmatch(text)
    if written is None:
        return None
    whole, fraction = written[1], written[2] or ""
    low = int(whole) * UCR + int(fraction[:6].ljust(6, "0"))
    high = low + 1 if fraction[6:].strip("0") else low
    if low < _LOWEST_UCR or high > _HIGHEST_UCR:
        return None
    if side > 0:
        return int(level_below(prices(), low))
    level = int(level_above(prices(), high))
    return None if side == 0 and level != level_below(prices(), low) else level
