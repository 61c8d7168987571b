"""Bodies that are no action, each once: what is sent, and what the answer says is allowed."""

from __future__ import annotations

import json
from typing import Any

import msgpack

from engine.markets import NAMES

LIMIT: dict[str, Any] = {
    "client_action_id": "a-1", "type": "limit", "market": "food", "side": "buy", "quantity": 5, "price": "1.25",
}  # fmt: skip


def text(**changes: Any) -> bytes:
    """Return the plain limit order as JSON with changes."""
    return json.dumps({**LIMIT, **changes}).encode()


def raw(name: str, value: str) -> bytes:
    """Return the plain limit order as JSON with one value as it is written."""
    rest = json.dumps({key: item for key, item in LIMIT.items() if key != name})
    return f'{rest[:-1]}, "{name}": {value}}}'.encode()


def packed(value: Any) -> bytes:
    """Return a value as msgpack."""
    body: bytes = msgpack.packb(value)
    return body


BAD_JSON: dict[str, tuple[bytes, int, str]] = {
    "unknown market": (text(market="gold"), 400, ", ".join(NAMES[:3])),
    "unknown field": (text(colour="red"), 400, "client_action_id"),
    "quantity zero": (text(quantity=0), 400, "[1, 1000000000]"),
    "quantity negative": (text(quantity=-5), 400, "[1, 1000000000]"),
    "quantity fractional": (raw("quantity", "1.5"), 400, "[1, 1000000000]"),
    "quantity NaN": (raw("quantity", "NaN"), 400, "finite"),
    "price Infinity": (raw("price", "Infinity"), 400, "finite"),
    "price -Infinity": (raw("price", "-Infinity"), 400, "finite"),
    "price 1e400": (raw("price", "1e400"), 400, "2^53"),
    "quantity 2^53+1": (raw("quantity", "9007199254740993"), 400, "2^53"),
    "quantity 2^64": (raw("quantity", "18446744073709551616"), 400, "2^53"),
    "quantity true": (text(quantity=True), 400, "[1, 1000000000]"),
    "price true": (text(price=True), 400, "0.01"),
    "empty body": (b"", 400, "application/json"),
    "truncated": (text()[:-7], 400, "not JSON"),
    "duplicate keys": (text()[:-1] + b', "quantity": 6}', 400, "twice"),
    "nesting 10,000 deep": (b"[" * 10_000, 400, "8 levels"),
    "objects 2,500 deep": (b'{"a":' * 2_500 + b"1" + b"}" * 2_500, 400, "8 levels"),
    "5 MB": (text(colour="x" * 5_000_000), 413, "16384 bytes"),
    "just above the limit": (text() + b" " * 16_384, 413, "16384 bytes"),
    "client_action_id missing": (
        json.dumps({key: value for key, value in LIMIT.items() if key != "client_action_id"}).encode(), 400, "1 to 64",
    ),
    "client_action_id malformed": (text(client_action_id="a b"), 400, "1 to 64"),
    "price below the ladder": (text(price="0.009"), 400, "0.01"),
    "price above the ladder": (text(price=2_000_000), 400, "1018465.744168"),
    "valid_until_tick too far": (text(valid_until_tick=1_000_000), 400, "36000 ticks"),
    "an array": (b"[1]", 400, "object"),
    "a number": (b"7", 400, "object"),
    "half a surrogate": (text().replace(b"a-1", b"\\ud800"), 400, "surrogate"),
    "replace between two prices": (
        b'{"client_action_id": "r", "type": "replace", "order_id": "1", "quantity": 1, "price": "1.23"}', 400, "side",
    ),
}  # fmt: skip

BAD_MSGPACK: dict[str, tuple[bytes, str]] = {
    "truncated": (packed(LIMIT)[:-3], "not one msgpack value"),
    "trailing bytes": (packed(LIMIT) + b"\x01", "not one msgpack value"),
    "extension type": (packed({**LIMIT, "price": msgpack.ExtType(5, b"x")}), "ExtType"),
    "timestamp": (packed({**LIMIT, "price": msgpack.Timestamp(1)}), "Timestamp"),
    "duplicate keys": (b"\x82\xa1a\x01\xa1a\x02", "twice"),
    "integer key": (packed({1: 2}), "keys are strings"),
    "bytes": (packed({**LIMIT, "market": b"food"}), "bytes"),
    "NaN": (packed({**LIMIT, "price": float("nan")}), "finite"),
    "2^64-1": (packed({**LIMIT, "quantity": (1 << 64) - 1}), "2^53"),
    "2^53+1": (packed({**LIMIT, "quantity": (1 << 53) + 1}), "2^53"),
    "depth": (b"\x91" * 9 + b"\x01", "8 levels"),
    "empty": (b"", "application/msgpack"),
}
