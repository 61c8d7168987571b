"""The AsyncAPI document: references resolve, it describes what is really sent and taken, all channels are in it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import jsonschema_rs
import pytest
from arena_client import wire

from server.asyncapi import CONTROL, document
from server.clock import ManualClock
from server.config import Settings
from server.live import frames
from server.live.frames import CHANNELS
from server.live.hub import Hub
from server.live.subscriber import OPS
from server.metrics import Metrics
from tests.support.published import EPOCH, World


@pytest.fixture(scope="module")
def api() -> dict[str, Any]:
    """Give the document as a client reads it."""
    read: dict[str, Any] = json.loads(json.dumps(document(Settings(port=9000))))
    return read


def references(node: Any) -> Iterator[str]:
    """Yield every reference in a document."""
    if isinstance(node, dict):
        if "$ref" in node:
            yield node["$ref"]
        for value in node.values():
            yield from references(value)
    elif isinstance(node, list):
        for value in node:
            yield from references(value)


def resolve(api: dict[str, Any], reference: str) -> Any:
    """Follow a reference into the document."""
    node: Any = api
    for part in reference.removeprefix("#/").split("/"):
        node = node[part]
    return resolve(api, node["$ref"]) if "$ref" in node else node


def valid(api: dict[str, Any], name: str, message: dict[str, Any]) -> bool:
    """Say whether a message is what the document says of its name."""
    return jsonschema_rs.is_valid(api["components"]["messages"][name]["payload"], message)


def test_says_what_it_is(api: dict[str, Any]) -> None:
    """AsyncAPI 3, the address of the server, one WebSocket path."""
    assert api["asyncapi"] == "3.0.0"
    assert api["servers"]["arena"]["host"] == "127.0.0.1:9000"
    assert {channel["address"] for channel in api["channels"].values()} == {"/ws"}


def test_every_reference_resolves(api: dict[str, Any]) -> None:
    """Channels, operations and messages fit together."""
    found = list(references(api))

    assert len(found) > 40
    for reference in found:
        resolve(api, reference)


def test_all_channels_and_ops_are_in_it(api: dict[str, Any]) -> None:
    """What can be subscribed to is described, and what can be asked."""
    assert set(api["channels"]) == {CONTROL, *CHANNELS, wire.AGENT_CHANNEL}
    assert {name for name, operation in api["operations"].items() if operation["action"] == "receive"} == set(OPS)
    assert {row["code"] for row in api["x-close-codes"]} == set(wire.CLOSE_CODES)


def test_fields_carry_unit_and_scale(api: dict[str, Any]) -> None:
    """A client can turn integers into numbers with nothing else at hand."""
    state = api["components"]["messages"]["market_tick.snapshot"]["payload"]["properties"]["state"]["oneOf"][0]

    assert (state["properties"]["price"]["x-scale"], state["properties"]["price"]["x-unit"]) == (1_000_000, "credits")
    assert set(state["properties"]) == {field.name for field in CHANNELS["market_tick"].fields}


def test_what_is_sent_fits_it(api: dict[str, Any]) -> None:
    """Every kind of frame of every channel, hello, acknowledgements, errors and heartbeats validate."""
    world, clock = World(), ManualClock()
    hub = Hub(EPOCH, Settings(), Metrics(), clock, lambda key: ["a1"])
    hub.publish(world.view())
    subscriber = hub.open(wire.SUBPROTOCOL_JSON)
    subscriber.check(clock.monotonic(), 0.0)
    messages: list[dict[str, Any]] = [
        *({"op": "subscribe", "id": name, "channel": name} for name in CHANNELS if name != frames.MARKET_TICK),
        {"op": "subscribe", "id": 0, "channel": frames.MARKET_TICK, "markets": ["food", "oil"], "every": 1, "depth": 2},
        {"op": "auth", "id": 1, "api_key": "ak_any"},
        {"op": "ping", "id": 2},
    ]
    for message in messages:
        assert valid(api, message["op"], message)
        subscriber.receive(wire.encode(message, wire.SUBPROTOCOL_JSON))
    subscriber.receive(b"not text")
    sent = [wire.decode(m.payload, wire.SUBPROTOCOL_JSON) for m in subscriber.drain()]
    hub.publish(world.view(*frames.EVENT_CHANNELS))
    sent += [wire.decode(m.payload, wire.SUBPROTOCOL_JSON) for m in subscriber.drain()]

    for message in sent:
        is_data = message["type"] in ("snapshot", "delta", "event")
        name = f"{message['channel']}.{message['type']}" if is_data else message["type"]
        assert valid(api, name, message), (name, message)
    kinds = {message["type"] for message in sent}
    assert kinds == {"hello", "heartbeat", "ack", "error", "snapshot", "delta", "event"}


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("subscribe", {"op": "subscribe", "id": 1}),
        ("subscribe", {"op": "subscribe", "id": 1, "channel": "weather"}),
        ("subscribe", {"op": "subscribe", "id": 1, "channel": "market_tick", "markets": []}),
        ("subscribe", {"op": "subscribe", "id": 1, "channel": "market_tick", "markets": ["gold"]}),
        ("subscribe", {"op": "subscribe", "id": 1, "channel": "market_tick", "every": 0}),
        ("subscribe", {"op": "subscribe", "id": 1, "channel": "market_tick", "markets": ["oil"], "depth": 21}),
        ("action", {"op": "action", "id": 1, "agent_id": "a1"}),
        ("auth", {"op": "auth", "id": 1, "api_key": "ak", "cancel_on_disconnect": 1}),
        ("ping", {"op": "ping", "id": 1, "extra": 1}),
        ("ping", {"op": "ping", "id": 2**53}),
    ],
)
def test_what_is_refused_does_not_fit_it(api: dict[str, Any], name: str, message: dict[str, Any]) -> None:
    """The document is no laxer than the server."""
    assert not valid(api, name, message)
