"""The AsyncAPI 3 document of the stream, made from the channels' schema and the ops a subscriber takes."""

from __future__ import annotations

from typing import Any, Final

from arena_client import wire
from pydantic import BaseModel

from engine.markets import MARKETS, NAMES
from server import documents
from server.config import Settings
from server.live.agent_frames import AGENT
from server.live.frames import CHANNELS, EVENT, MARKET_TICK, Channel, WireField
from server.live.narrowing import DEPTH_MAX, EVERY_MAX
from server.live.subscriber import ID_LENGTH_MAX, MISTAKES, OPS

PATH: Final = "/ws"
CONTROL: Final = "control"
_WHOLE = {"type": "integer", "minimum": -wire.INTEGER_MAX, "maximum": wire.INTEGER_MAX}
_COUNT = {"type": "integer", "minimum": 0, "maximum": wire.INTEGER_MAX}
_TEXT = {"type": "string"}
_ID = {"oneOf": [_WHOLE, {"type": "string", "maxLength": ID_LENGTH_MAX}]}
_CHANNEL_NAME = {"type": "string", "enum": [*CHANNELS, AGENT]}
_OP_FIELDS: Final[dict[str, dict[str, Any]]] = {
    "channel": _CHANNEL_NAME,
    "epoch": {"type": "string", "description": "with seq: resume after that frame of that epoch"},
    "seq": _COUNT,
    "api_key": {"type": "string", "description": "from POST /api/agents/register"},
    "markets": {
        "type": "array",
        "items": {"type": "string", "enum": list(NAMES)},
        "minItems": 1,
        "maxItems": MARKETS,
        "uniqueItems": True,
        "description": "market_tick: only these, a list of values each",
    },
    "every": {
        "type": "integer",
        "minimum": 1,
        "maximum": EVERY_MAX,
        "description": "state channels: a frame every so many ticks",
    },
    "depth": {
        "type": "integer",
        "minimum": 1,
        "maximum": DEPTH_MAX,
        "description": "with markets: so many levels a side of what each auction left unfilled",
    },
    "cancel_on_disconnect": {
        "type": "boolean",
        "description": "true: the open orders of all agents of the owner end with its last connection that asked",
    },
    "agent_id": {"type": "string", "description": "one of the owner's agents"},
    "action": {"type": "object", "description": "as POST /api/agents/{id}/action takes it"},
}
_OP_TEXTS: Final = {
    "subscribe": "Begin a channel: an ack, then a snapshot or what follows epoch and seq.",
    "unsubscribe": "End a channel: nothing of it follows the ack.",
    "resync": "Ask for a snapshot of a state channel in place of the next delta.",
    "auth": "Say whose agents this connection speaks for.",
    "action": "Act. Acknowledged with the receipt once it is on disk; counts for the key's rate as over REST.",
    "ping": "Ask for the tick and the server's time.",
}


def document(settings: Settings) -> dict[str, Any]:
    """Return the AsyncAPI 3.0 document of a server with these settings, as plain JSON values."""
    messages = {**_op_messages(), **_server_messages()}
    for channel in CHANNELS.values():
        messages |= _data_messages(channel)
    messages |= _PRIVATE_MESSAGES
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Living Economy Arena: streams",
            "version": f"{wire.VERSION}.0.0",
            "description": f"One WebSocket, {PATH}, with the subprotocols {' and '.join(wire.SUBPROTOCOLS)}: messages"
            " as msgpack in binary frames or as JSON in text frames. They are described here as JSON has them; in"
            " msgpack all are the same but deltas, which are lists without the names of fields (docs/protocol.md,"
            " section 3). A channel is a topic one subscribes to on it. Every number of a state is an integer;"
            " value = integer / x-scale, in x-unit.",
        },
        "defaultContentType": "application/json",
        "servers": {
            "arena": {
                "host": f"{settings.host}:{settings.port}",
                "protocol": "ws",
                "description": "the live world",
            }
        },
        "channels": {
            CONTROL: _control_channel(),
            **{c.name: _data_channel(c) for c in CHANNELS.values()},
            AGENT: _private_channel(),
        },
        "operations": _operations(),
        "components": {"messages": messages},
        "x-close-codes": [
            {"code": row.code, "name": row.name, "text": row.text, "advice": row.advice}
            for row in wire.CLOSE_CODES.values()
        ],
        "x-errors": [{"code": mistake.code, "title": mistake.title} for mistake in MISTAKES],
    }


def _control_channel() -> dict[str, Any]:
    names = [*OPS, *_server_messages()]
    return {
        "address": PATH,
        "title": "control messages",
        "description": "What a client asks and what the server answers; every op gets one ack or one error.",
        "messages": {name: _message_reference(name) for name in names},
        "bindings": {"ws": {"method": "GET"}},
        "x-subprotocols": list(wire.SUBPROTOCOLS),
    }


def _data_channel(channel: Channel) -> dict[str, Any]:
    return {
        "address": PATH,
        "title": channel.name,
        "description": channel.text,
        "messages": {name: _message_reference(name) for name in _data_messages(channel)},
        "x-kind": channel.kind,
        "x-schema": channel.schema_hash,
    }


def _private_channel() -> dict[str, Any]:
    return {
        "address": PATH,
        "title": AGENT,
        "description": _PRIVATE_TEXT,
        "messages": {name: _message_reference(name) for name in _PRIVATE_MESSAGES},
        "x-kind": "private",
    }


def _operations() -> dict[str, Any]:
    """Return what a server does, in AsyncAPI's words: it receives ops and sends everything else."""
    operations: dict[str, Any] = {
        op: {
            "action": "receive",
            "channel": _channel_reference(CONTROL),
            "summary": _OP_TEXTS[op],
            "messages": [_channel_message_reference(CONTROL, op)],
            "reply": {
                "channel": _channel_reference(CONTROL),
                "messages": [_channel_message_reference(CONTROL, name) for name in ("ack", "error")],
            },
        }
        for op in OPS
    }
    operations["tell"] = {
        "action": "send",
        "channel": _channel_reference(CONTROL),
        "summary": "Greet, keep alive, tell a late subscriber how far it was behind, say goodbye.",
        "messages": [
            _channel_message_reference(CONTROL, name) for name in ("hello", "heartbeat", "lagged", "stale", "shutdown")
        ],
    }
    for channel in CHANNELS.values():
        operations[f"stream_{channel.name}"] = {
            "action": "send",
            "channel": _channel_reference(channel.name),
            "summary": channel.text,
            "messages": [_channel_message_reference(channel.name, name) for name in _data_messages(channel)],
        }
    operations[f"stream_{AGENT}"] = {
        "action": "send",
        "channel": _channel_reference(AGENT),
        "summary": _PRIVATE_TEXT,
        "messages": [_channel_message_reference(AGENT, name) for name in _PRIVATE_MESSAGES],
    }
    return operations


def _op_messages() -> dict[str, Any]:
    return {
        op: _message(
            _OP_TEXTS[op],
            {"op": {"const": op}, "id": _ID, **{name: _OP_FIELDS[name] for name in (*required, *optional)}},
            ["op", "id", *required],
        )
        for op, (required, optional) in OPS.items()
    }


def _server_messages() -> dict[str, Any]:
    nullable_count = {"oneOf": [{"type": "null"}, _COUNT]}
    texts = {"type": "array", "items": _TEXT}
    return {
        "hello": _typed(
            "hello",
            "The first message: what one must know to read the others. Again: the world is another, subscribe anew.",
            {
                "version": {"const": wire.VERSION},
                "epoch": _TEXT,
                "tick": nullable_count,
                "tick_rate_ms": _COUNT,
                "heartbeat_s": {"type": "number"},
                "origin_unix_ms": {**_COUNT, "description": "sent_ns counts from it, modulo 2^53"},
                "markets": texts,
                "resources": texts,
                "channels": {"type": "array", "items": _HELLO_CHANNEL},
                "limits": {"type": "object", "additionalProperties": _COUNT},
            },
        ),
        "ack": {
            "summary": "The op with this id was done.",
            "payload": {
                "type": "object",
                "required": ["type", "op", "id"],
                "properties": {"type": {"const": "ack"}, "op": {"enum": list(OPS)}, "id": _ID},
            },
        },
        "error": _typed(
            "error",
            "The op with this id was not done; nothing else changed.",
            {
                "op": {"enum": [*OPS, None]},
                "id": {"oneOf": [{"type": "null"}, *_ID["oneOf"]]},
                "code": {**_COUNT, "description": "x-errors; of an action, that of a problem over REST"},
                "title": _TEXT,
                "detail": _TEXT,
                "allowed": {"oneOf": [_TEXT, texts]},
                "temporary": {"type": "boolean"},
                "status": {**_COUNT, "description": "of an action: the status over REST"},
                "errors": {"type": "array", "items": {"type": "object"}, "description": "of an action: as over REST"},
                "retry_after_s": {**_COUNT, "description": "of an action: when to send it again"},
            },
            ("status", "errors", "retry_after_s"),
        ),
        "heartbeat": _typed(
            "heartbeat", "Nothing else was sent for a while.", {"tick": nullable_count, "sent_ns": _COUNT}
        ),
        "lagged": _typed(
            "lagged",
            "The subscriber was too far behind; a snapshot follows.",
            {"channel": _CHANNEL_NAME, "skipped": _COUNT},
        ),
        "stale": _typed(
            "stale",
            "The gateway has lost its engine: nothing new comes until it is back.",
            {"tick": nullable_count},
        ),
        "shutdown": _typed("shutdown", "The server goes; come back after retry_after_ms.", {"retry_after_ms": _COUNT}),
    }


_HELLO_CHANNEL: Final = {
    "type": "object",
    "required": ["name", "kind", "schema", "fields"],
    "properties": {
        "name": _CHANNEL_NAME,
        "kind": {"enum": ["state", "event", "private"]},
        "schema": _TEXT,
        "fields": {
            "type": "object",
            "additionalProperties": {"type": "array", "description": "[scale, length, unit]"},
        },
    },
}


def _data_messages(channel: Channel) -> dict[str, Any]:
    stamp = {
        "channel": {"const": channel.name},
        "epoch": _TEXT,
        "seq": _COUNT,
        "base": {**_WHOLE, "description": "the seq this frame applies to"},
        "tick": _COUNT,
        "sent_ns": _COUNT,
    }
    if channel.kind == EVENT:
        fields = {field.name: _field_schema(field) for field in channel.fields}
        event = {"type": "object", "required": list(fields), "properties": fields}
        return {f"{channel.name}.event": _typed("event", channel.text, {**stamp, "event": event})}
    checksum = {**_COUNT, "maximum": (1 << 32) - 1}
    differences = {
        "type": "object",
        "additionalProperties": False,
        "properties": {field.name: _field_schema(field) for field in channel.fields},
        "description": "what is added to the state, by field; in msgpack packed, see docs/protocol.md",
    }
    state: dict[str, Any] = {
        "type": "object",
        "required": [field.name for field in channel.fields],
        "additionalProperties": False,
        "properties": {field.name: _field_schema(field) for field in channel.fields},
    }
    if channel.name == MARKET_TICK:
        narrowed = _by_market()
        state = {"oneOf": [state, narrowed]}
        differences = {"anyOf": [differences, narrowed]}
    return {
        f"{channel.name}.snapshot": _typed(
            "snapshot",
            f"All of {channel.name}.",
            {**stamp, "base": {"type": "null"}, "reason": _TEXT, "state": state, "crc": checksum},
        ),
        f"{channel.name}.delta": _typed(
            "delta", f"What changed in {channel.name}.", {**stamp, "diff": differences, "crc": checksum}, {"crc"}
        ),
    }


def _by_market() -> dict[str, Any]:
    """Return the schema of what a narrowed market_tick has instead: a list a market, two more with depth."""
    names = "|".join(NAMES)
    return {
        "type": "object",
        "additionalProperties": False,
        "patternProperties": {f"^({names})(\\.asks|\\.bids)?$": {"type": "array", "items": _WHOLE}},
        "description": "narrowed to markets: the values in the order of the ack's `fields`; .asks and .bids: price "
        "(millionths of a credit) and lots by turns, best first, zeros behind the last",
    }


def _field_schema(field: WireField) -> dict[str, Any]:
    about: dict[str, Any] = {"description": field.text, "x-unit": field.unit}
    if not field.scale:
        return {**_TEXT, **about}
    about["x-scale"] = field.scale
    if not field.length:
        return {**_WHOLE, **about}
    return {"type": "array", "items": _WHOLE, "minItems": field.length, "maxItems": field.length, **about}


def _inlined(model: type[BaseModel]) -> dict[str, Any]:
    """Return a model's schema without references."""
    schema = model.model_json_schema()
    definitions = schema.pop("$defs", {})

    def resolved(node: Any) -> Any:
        if isinstance(node, dict):
            if "$ref" in node:
                return resolved(definitions[node["$ref"].rpartition("/")[2]])
            return {key: resolved(value) for key, value in node.items()}
        return [resolved(value) for value in node] if isinstance(node, list) else node

    inlined: dict[str, Any] = resolved(schema)
    return inlined


def _typed(kind: str, summary: str, properties: dict[str, Any], optional: Any = ()) -> dict[str, Any]:
    required = ["type", *(name for name in properties if name not in optional)]
    return _message(summary, {"type": {"const": kind}, **properties}, required)


def _message(summary: str, properties: dict[str, Any], required: list[str]) -> dict[str, Any]:
    payload = {"type": "object", "required": required, "additionalProperties": False, "properties": properties}
    return {"summary": summary, "payload": payload}


def _message_reference(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/messages/{name}"}


_PRIVATE_TEXT: Final = "The owner's own agents: what became of their actions and orders, and what they have."
_PRIVATE_MESSAGES: Final = {
    f"{AGENT}.{name}": {"summary": model.__doc__, "payload": _inlined(model)}
    for name, model in (("entries", documents.Entries), ("accounts", documents.Accounts))
}


def _channel_reference(channel: str) -> dict[str, str]:
    return {"$ref": f"#/channels/{channel}"}


def _channel_message_reference(channel: str, name: str) -> dict[str, str]:
    return {"$ref": f"#/channels/{channel}/messages/{name}"}
