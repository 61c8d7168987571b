"""The quick check against the models it is a short way past: what it takes, they take, and it is the same row."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from engine.markets import FINAL, NAMES
from engine.messages import ACTION, Kind
from server import bodies
from server.errors import Problem
from server.live.admission import to_row, valid_until
from server.live.quick_check import NOT_ASKED, PACKED, check, quick_check
from server.live.recorder import Input
from server.schemas import GOODS, parse_action

AGENT, NOW = 17, 1_000
LIMIT: dict[str, Any] = {
    "client_action_id": "a-1", "type": "limit", "market": "food", "side": "buy", "quantity": 5, "price": "1.25",
}  # fmt: skip
MOODS: dict[str, Any] = {
    "client_action_id": "m-1", "type": "set_sentiment", "sentiment": 0.5, "fear": 0.1, "greed": 0.25, "confidence": 1.0,
}  # fmt: skip
QUICK_KINDS = ("limit", "market", "cancel", "replace", "produce", "consume", "set_sentiment")


def slowly(value: Any) -> Input | None:
    """Return what the models make of a decoded body, None for what they refuse."""
    try:
        action = parse_action(value)
        row = to_row(AGENT, action)
        row["valid_until"] = valid_until(action.valid_until_tick, NOW)
    except (ValidationError, Problem):
        return None
    asked = NOT_ASKED if action.valid_until_tick is None else action.valid_until_tick
    kind, until = Kind(int(row["kind"][0])), int(row["valid_until"][0])
    return Input(kind, action.client_action_id, asked, until, row.tobytes())


def slowly_read(body: bytes) -> Input | None:
    """Return what the strict decoder and the models make of a body, None for what they refuse."""
    try:
        return slowly(bodies.decode(body, bodies.JSON))
    except Problem:
        return None


# --- actions as clients write them, and as they had better not -----------------------------------------------------
_ids = st.from_regex(r"[A-Za-z0-9._:-]{1,64}", fullmatch=True)
_ticks = st.integers(0, NOW + 40_000) | st.just(bodies.INTEGER_MAX)
_quantities = st.integers(1, 1_000_000_000)
_order_ids = st.integers(1, 10**16 - 1).map(str)
_prices = st.one_of(
    st.decimals("0.01", "1018465.744168", places=6).map(str),
    st.decimals("0.009", "1018465.75", places=9).map(str),
    st.decimals("0.5", "2000", places=2),
    st.integers(1, 1_018_465),
    st.integers(0, 1_018_466).map(str),
)
_moods = st.decimals("0.00001", "1", places=5) | st.decimals(0, 1, places=2) | st.integers(0, 1)


def _action(kind: str, optional: dict[str, Any] | None = None, /, **fields: Any) -> st.SearchStrategy[dict[str, Any]]:
    more = {"valid_until_tick": _ticks | st.none(), **(optional or {})}
    return st.fixed_dictionaries({"type": st.just(kind), "client_action_id": _ids, **fields}, optional=more)


def _limits() -> st.SearchStrategy[dict[str, Any]]:
    order = {"market": st.sampled_from(NAMES), "side": st.sampled_from(["buy", "sell"]), "quantity": _quantities}
    plain = _action("limit", {"time_in_force": st.sampled_from(["gtc", "ioc"])}, **order, price=_prices)
    timed = _action("limit", **order, price=_prices, time_in_force=st.just("gtt"), expires_tick=_ticks)
    return plain | timed


_good_actions = st.one_of(
    _limits(),
    _action("market", market=st.sampled_from(NAMES), side=st.sampled_from(["buy", "sell"]), quantity=_quantities),
    _action("cancel", order_id=_order_ids),
    _action(
        "replace",
        {"side": st.sampled_from(["buy", "sell", None])},
        order_id=_order_ids,
        quantity=_quantities,
        price=_prices,
    ),
    _action("produce", market=st.sampled_from(GOODS), quantity=_quantities),
    _action("consume", market=st.sampled_from(FINAL), quantity=_quantities),
    _action("set_sentiment", sentiment=_moods, fear=_moods, greed=_moods, confidence=_moods),
)
_odd_values = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**70), 2**70), st.floats(), st.text(max_size=8), st.just([]), st.just({}),
    st.decimals(allow_nan=False, allow_infinity=False),
    st.sampled_from(["food", "buy", "gtt", "limit", "1", "01", "1."]),
)  # fmt: skip
_field_names = st.sampled_from(
    ["type", "client_action_id", "valid_until_tick", "market", "side", "quantity", "price", "order_id", "amount"]
) | st.sampled_from(["time_in_force", "expires_tick", "sentiment", "fear", "confidence", "colour", ""])
_scraps = st.sampled_from([b"", b"0", b"-", b'"', b"\\", b"e5", b"\x00", b"\xff", b"{", b"]", b",", b".0", b"1"])


@st.composite
def actions(draw: st.DrawFn) -> dict[str, Any]:
    """Return an action, often with a field changed, added or left out."""
    action = dict(draw(_good_actions))
    for _ in range(draw(st.integers(0, 2))):
        name = draw(_field_names)
        if draw(st.booleans()):
            action[name] = draw(_odd_values)
        else:
            action.pop(name, None)
    return action


def written(value: Any) -> str:
    """Return a value as JSON, Decimals with the digits they have."""
    if isinstance(value, Decimal):
        return str(value)
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(key)}: {written(item)}" for key, item in value.items()) + "}"
    return json.dumps(value)


@st.composite
def texts(draw: st.DrawFn) -> bytes:
    """Return an action as JSON text, sometimes with a key twice, bytes lost or bytes too many."""
    action = draw(actions())
    items = [f"{json.dumps(name)}:{written(value)}" for name, value in action.items()]
    if draw(st.integers(0, 4)) == 0:
        items.append(draw(st.sampled_from(items)))
    gaps = st.sampled_from(["", " ", "\n", "\t "])
    text = "{" + "".join(draw(gaps) + item + draw(gaps) + "," for item in items)[:-1] + "}"
    body = text.encode("utf-8", "surrogatepass")
    if draw(st.integers(0, 4)) == 0:
        at = draw(st.integers(0, len(body)))
        lost = draw(st.integers(0, 2))
        put = draw(
            st.sampled_from([b"", b"0", b"-", b'"', b"\\", b"e5", b"\x00", b"\xff", b"{", b"]", b",", b".0", b"1"])
        )
        body = body[:at] + put + body[at + lost :]
    return body


@given(texts())
def test_whatever_it_takes_the_models_take_as_the_same_row(body: bytes) -> None:
    """Same row, same validity, same name, or it says nothing."""
    quick = quick_check(body, AGENT, NOW)

    assert quick is None or quick == slowly_read(body)


@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_nonsense_is_left_to_the_models(body: bytes) -> None:
    """Any bytes at all, without an exception."""
    quick = quick_check(body, AGENT, NOW)

    assert quick is None or quick == slowly_read(body)


@given(_good_actions)
def test_it_takes_every_usual_action_that_is_right(action: dict[str, Any]) -> None:
    """The short way is the way of orders: none that the models take goes the long one."""
    assert quick_check(written(action).encode(), AGENT, NOW) == slowly(action)
    assert check(action, AGENT, NOW) == slowly(action)


@given(actions())
def test_decoded_actions_are_taken_as_the_models_take_them(action: dict[str, Any]) -> None:
    """What another decoder made, msgpack's for one: the same row or nothing."""
    quick = check(action, AGENT, NOW)

    assert quick is None or quick == slowly(action)


TAKEN = {
    "compact": b'{"client_action_id":"a-1","type":"limit","market":"food","side":"buy","quantity":5,"price":"1.25"}',
    "as requests writes it": json.dumps(LIMIT).encode(),
    "indented": json.dumps(LIMIT, indent=2).encode(),
    "price as a number": json.dumps({**LIMIT, "price": 1.25}).encode(),
    "price as a whole number": json.dumps({**LIMIT, "price": 2}).encode(),
    "price with six decimals": json.dumps({**LIMIT, "price": "1.234567"}).encode(),
    "price with seven": json.dumps({**LIMIT, "price": "1.2345678"}).encode(),
    "lowest price": json.dumps({**LIMIT, "price": "0.01"}).encode(),
    "highest price": json.dumps({**LIMIT, "price": "1018465.744168"}).encode(),
    "defaults said aloud": json.dumps(
        {**LIMIT, "time_in_force": "gtc", "expires_tick": None, "valid_until_tick": None}
    ).encode(),
    "moods": json.dumps(MOODS).encode(),
    "moods, indented": json.dumps(MOODS, indent=2).encode(),
    "moods, compact": json.dumps(MOODS, separators=(",", ":")).encode(),
    "whole moods": json.dumps({**MOODS, "sentiment": 1, "fear": 0}).encode(),
    "moods between two steps of Q15": json.dumps({**MOODS, "sentiment": 0.33333, "greed": 0.9999847409}).encode(),
}


@pytest.mark.parametrize("name", TAKEN)
def test_usual_ways_of_writing_are_quick(name: str) -> None:
    """Clients do not write alike."""
    quick = quick_check(TAKEN[name], AGENT, NOW)

    assert quick is not None
    assert quick == slowly_read(TAKEN[name])


def changed(old: bytes, new: bytes, action: dict[str, Any] = LIMIT) -> bytes:
    """Return an action, the plain order unless given, with some of its bytes changed."""
    body = json.dumps(action).encode()
    assert old in body
    return body.replace(old, new, 1)


LEFT = {
    "a key twice": changed(b"}", b', "quantity": 6}'),
    "the same key twice, the same value": changed(b"}", b', "quantity": 5}'),
    "a type twice": changed(b"}", b', "type": "limit"}'),
    "an escape": changed(b"a-1", b"a\\u002d1"),
    "NaN": changed(b'"1.25"', b"NaN"),
    "Infinity": changed(b'"1.25"', b"Infinity"),
    "1e400": changed(b'"1.25"', b"1e400"),
    "a price with an exponent": changed(b'"1.25"', b"125e-2"),
    "a price a float would round to the ladder": changed(b'"1.25"', b"1018465.7441680000000001"),
    "2^53 + 1": changed(b" 5", b" 9007199254740993"),
    "2^64": changed(b" 5", b" 18446744073709551616"),
    "true": changed(b" 5", b" true"),
    "5.0": changed(b" 5", b" 5.0"),
    "a price that is true": changed(b'"1.25"', b"true"),
    "a nested object": changed(b'"1.25"', b'{"a": 1}'),
    "a list": changed(b'"1.25"', b"[1]"),
    "a type that is a list": changed(b'"limit"', b"[]"),
    "trailing bytes": changed(b"}", b"}x"),
    "not UTF-8": changed(b"food", b"fo\xffd"),
    "a surrogate": changed(b"food", b"\xed\xa0\x80"),
    "a byte order mark": b"\xef\xbb\xbf" + json.dumps(LIMIT).encode(),
    "an unknown field": changed(b"}", b', "colour": "red"}'),
    "an id with a line break": changed(b"a-1", b"a-1\\n"),
    "a price below the ladder": changed(b"1.25", b"0.0099999"),
    "a price above the ladder": changed(b"1.25", b"1018465.7441680001"),
    "a mood a float would round to 1": changed(b"1.0", b"1.0000000000000000001", MOODS),
    "a mood with more digits than are read": changed(b"0.5", b"0.5" + b"0" * 64, MOODS),
    "a mood with an exponent": changed(b"0.5", b"5e-1", MOODS),
    "a mood of 1e-400": changed(b"0.5", b"1e-400", MOODS),
    "a mood above 1": changed(b"0.5", b"1.01", MOODS),
    "a mood below 0": changed(b"0.5", b"-0.01", MOODS),
    "a mood that is text": changed(b"0.5", b'"0.5"', MOODS),
    "a mood that is true": changed(b"0.5", b"true", MOODS),
    "a mood that is NaN": changed(b"0.5", b"NaN", MOODS),
    "a mood left out": changed(b'"fear": 0.1, ', b"", MOODS),
    "a mood twice": changed(b"}", b', "fear": 0.2}', MOODS),
    "a mood of an order": changed(b"}", b', "sentiment": 0.5}'),
    "another kind": json.dumps({"type": "borrow", "client_action_id": "b", "amount": 1}).encode(),
    "no object": b"7",
    "nothing": b"",
}


@pytest.mark.parametrize("name", LEFT)
def test_what_is_odd_or_wrong_is_left_to_the_models(name: str) -> None:
    """Each of them once, whether they take it or not."""
    assert quick_check(LEFT[name], AGENT, NOW) is None


def test_a_row_is_packed_as_the_world_reads_it() -> None:
    """The struct is the dtype: the same size, every field at its place."""
    assert PACKED.size == ACTION.itemsize
    assert len(PACKED.unpack(bytes(PACKED.size))) == len(ACTION.names or ()) + 3


def test_quick_kinds_are_all_that_are_claimed() -> None:
    """Each of them is taken once, so that none falls out of the table unnoticed."""
    found = {
        action["type"]
        for action in (
            LIMIT,
            {"type": "market", "client_action_id": "a", "market": "oil", "side": "sell", "quantity": 1},
            {"type": "cancel", "client_action_id": "a", "order_id": "7"},
            {"type": "replace", "client_action_id": "a", "order_id": "7", "quantity": 1, "price": "2", "side": "buy"},
            {"type": "produce", "client_action_id": "a", "market": "food", "quantity": 1},
            {"type": "consume", "client_action_id": "a", "market": "food", "quantity": 1},
            bodies.decode_json(json.dumps(MOODS).encode()),
        )
        if check(action, AGENT, NOW) is not None
    }
    assert found == set(QUICK_KINDS)
