"""The frame codec of the stream protocol, version 1: bytes <-> messages, states <-> deltas, and their checksum.

No input or output happens here. The server, this package and every other client are held to the same rules by
`docs/protocol.md` and the golden vectors in `tests/vectors`.

A *message* is a map with string keys. A *state* maps field names to an integer or to a list of integers; field
names and list lengths stay the same within an epoch. Everything numeric in a state is an integer below 2**53 in
magnitude, so that every language and JSON hold it exactly; units and scales are in the channel's schema.
"""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal, NamedTuple, TypeAlias

import msgpack

from arena_client.errors import WireError

__all__ = [
    "CLIENT_FRAME_MAX",
    "CLOSE_CODES",
    "CRC_EVERY",
    "DEPTH_MAX",
    "EVENT_CHANNELS",
    "INTEGER_MAX",
    "SERVER_FRAME_MAX",
    "STATE_CHANNELS",
    "SUBPROTOCOLS",
    "SUBPROTOCOL_JSON",
    "SUBPROTOCOL_MSGPACK",
    "VERSION",
    "CloseCode",
    "State",
    "Value",
    "WireError",
    "apply",
    "canonical",
    "checksum",
    "close_code",
    "decode",
    "diff",
    "encode",
    "pack",
    "pack_pairs",
]

VERSION: Final = 1
SUBPROTOCOL_MSGPACK: Final = "arena.v1.msgpack"
SUBPROTOCOL_JSON: Final = "arena.v1.json"
#: In order of preference. The server picks the first of the client's that it knows, msgpack when none is offered.
SUBPROTOCOLS: Final = (SUBPROTOCOL_MSGPACK, SUBPROTOCOL_JSON)

STATE_CHANNELS: Final = ("market_tick", "psychology_update", "inflation_update", "scarcity_update")
EVENT_CHANNELS: Final = ("discovery_event", "catastrophic_event")
#: The channel of an owner's own agents.
AGENT_CHANNEL: Final = "agent"
CLIENT_OPS: Final = ("subscribe", "unsubscribe", "resync", "auth", "action", "ping")

#: Largest magnitude of an integer on the wire: what a double holds exactly.
INTEGER_MAX: Final = 2**53 - 1
#: Maps and lists inside each other, the message itself counted.
DEPTH_MAX: Final = 8
#: Bytes of one message from a client, and the most a client takes from a server.
CLIENT_FRAME_MAX: Final = 4 * 1024
SERVER_FRAME_MAX: Final = 1024 * 1024
#: State frames whose seq is a multiple of this carry the checksum; every snapshot does.
CRC_EVERY: Final = 10

Value: TypeAlias = int | list[int]
State: TypeAlias = dict[str, Value]
Advice: TypeAlias = Literal["stop", "reconnect", "give_up"]


class CloseCode(NamedTuple):
    """A row of the close-code table.

    advice: stop = the work is done; reconnect = come back with back-off and resume; give_up = the client is at
    fault or not welcome, coming back changes nothing.
    """

    code: int
    name: str
    text: str
    advice: Advice


#: Every close code of the protocol. 1005 and 1006 are never sent: they stand for a close without a code and for none.
CLOSE_CODES: Final[Mapping[int, CloseCode]] = {
    row.code: row
    for row in (
        CloseCode(1000, "normal", "closed on request", "stop"),
        CloseCode(1001, "going_away", "the server or a proxy before it goes away", "reconnect"),
        CloseCode(1005, "no_code", "closed without a code", "reconnect"),
        CloseCode(1006, "lost", "the connection was lost", "reconnect"),
        CloseCode(1009, "too_big", f"a client message was over {CLIENT_FRAME_MAX} bytes", "give_up"),
        CloseCode(1011, "internal", "the server failed on this connection", "reconnect"),
        CloseCode(1012, "restart", "the server restarts; wait retry_after_ms of the shutdown message", "reconnect"),
        CloseCode(1013, "try_later", "the server has no room now", "reconnect"),
        CloseCode(4000, "protocol_error", "not a message of the chosen subprotocol", "give_up"),
        CloseCode(4001, "too_slow", "the client did not read fast enough", "reconnect"),
        CloseCode(4002, "idle", "no subscription within 5 s of the handshake", "reconnect"),
        CloseCode(4003, "too_many_messages", "more control messages than allowed", "reconnect"),
        CloseCode(4500, "key_revoked", "the API key of this connection was revoked", "give_up"),
    )
}


def close_code(code: int) -> CloseCode:
    """Return the table's row for `code`, or for an unknown one a row made by the range rule.

    Unknown codes: 4500 to 4999 and 1002 to 1010 mean give up, everything else reconnect.
    """
    known = CLOSE_CODES.get(code)
    if known is not None:
        return known
    hopeless = 4500 <= code <= 4999 or 1002 <= code <= 1010
    return CloseCode(code, "unknown", "not in the table of this version", "give_up" if hopeless else "reconnect")


def diff(base: Mapping[str, Value], new: Mapping[str, Value]) -> dict[str, dict[str, Any]]:
    """Return what turns `base` into `new`: a map with any of `set`, `add` and `vec`, empty when they are equal.

    set: field -> new value. add: field -> [index, difference, index, difference, ...]. vec: field -> [difference of
    every entry]. Scalars are always set; of a list the shortest form in msgpack is taken (ties: add, vec, set).
    Raises WireError when the two have different fields or list lengths: then only a snapshot will do.
    """
    if base.keys() != new.keys():
        raise WireError(f"a delta needs the same fields on both sides, differing: {sorted(base.keys() ^ new.keys())}")
    parts: dict[str, dict[str, Any]] = {"set": {}, "add": {}, "vec": {}}
    for field, value in new.items():
        old = base[field]
        if old == value:
            continue
        if isinstance(value, list) and isinstance(old, list):
            form, body = _list_difference(field, old, value)
            parts[form][field] = body
        elif isinstance(value, list) or isinstance(old, list):
            raise WireError(f"{field} cannot change between an integer and a list")
        else:
            parts["set"][field] = value
    return {form: fields for form, fields in parts.items() if fields}


def _list_difference(field: str, old: list[int], new: list[int]) -> tuple[str, list[int]]:
    if len(old) != len(new):
        raise WireError(f"{field} cannot change its length from {len(old)} to {len(new)}")
    dense = [b - a for a, b in zip(old, new, strict=True)]
    # Two values of opposite sign may be further apart than an integer on the wire can say.
    if max(dense) > INTEGER_MAX or min(dense) < -INTEGER_MAX:
        return "set", list(new)
    sparse = [number for i, change in enumerate(dense) if change for number in (i, change)]
    size, form, body = len(_pack(sparse)), "add", sparse
    for other_form, other in (("vec", dense), ("set", new)):
        other_size = len(_pack(other))
        if other_size < size:
            size, form, body = other_size, other_form, list(other)
    return form, body


def apply(state: Mapping[str, Value], delta: Mapping[str, Any]) -> State:
    """Return `state` changed by the `set`, `add` and `vec` of `delta`; other keys of `delta` are not looked at.

    Pure: `state` and its lists stay as they are, unchanged lists are shared with the result.
    Raises WireError on an unknown field, an index outside its list, a wrong length, a field named twice, anything
    that is no integer, and a result of 2**53 or more in magnitude.
    """
    result: State = dict(state)
    seen: set[str] = set()
    for form in ("set", "add", "vec"):
        fields = delta.get(form)
        if fields is None:
            continue
        if not isinstance(fields, Mapping):
            raise WireError(f"{form} must be a map of fields, got {type(fields).__name__}")
        for field, body in fields.items():
            if field not in state:
                raise WireError(f"{form} names the unknown field {field!r}")
            if field in seen:
                raise WireError(f"{field} is named twice in one delta")
            seen.add(field)
            result[field] = _changed(form, field, state[field], body)
    return result


def _changed(form: str, field: str, old: Value, body: Any) -> Value:
    if isinstance(old, int):
        if form != "set" or not _is_integer(body):
            raise WireError(f"{field} is one integer: it can only be set to an integer below 2**53")
        return int(body)
    # bool is a subclass of int, but true is no number on the wire
    if not isinstance(body, list) or not set(map(type, body)) <= {int}:
        raise WireError(f"{form}.{field} must be a list of integers")
    if form == "add":
        new = _added(field, old, body)
    elif len(body) != len(old):
        raise WireError(f"{form}.{field} must have {len(old)} entries, got {len(body)}")
    elif form == "vec":
        new = [a + b for a, b in zip(old, body, strict=True)]
    else:
        new = list(body)
    if new and (max(new) > INTEGER_MAX or min(new) < -INTEGER_MAX):
        raise WireError(f"{form}.{field} leads to a value of 2**53 or more")
    return new


def _added(field: str, old: list[int], pairs: list[int]) -> list[int]:
    if len(pairs) % 2:
        raise WireError(f"add.{field} must be pairs of index and difference, got {len(pairs)} numbers")
    new = list(old)
    last = -1
    for i in range(0, len(pairs), 2):
        index = pairs[i]
        if not last < index < len(old):
            raise WireError(f"add.{field} must name indices below {len(old)} in rising order, got {index}")
        new[index] += pairs[i + 1]
        last = index
    return new


def canonical(state: Mapping[str, Value]) -> bytes:
    """Return the one msgpack form of a state: keys sorted by their UTF-8 bytes, every number in its shortest form."""
    # Code point order, in which Python compares strings, is the order of their UTF-8 bytes.
    return _pack({field: state[field] for field in sorted(state)})


def checksum(state: Mapping[str, Value]) -> int:
    """Return the CRC-32 (as of zlib, gzip and Ethernet; 0 to 2**32 - 1) of the state's canonical bytes."""
    return zlib.crc32(canonical(state))


def pack(value: Any) -> bytes:
    """Return a value as msgpack, every number in its shortest form: what states and messages are made of."""
    return _pack(value)


def pack_pairs(pairs: Sequence[bytes]) -> bytes:
    """Return the map of pairs that are packed already, each a key and its value: `pack` of the whole, joined."""
    header: bytes = msgpack.Packer().pack_map_header(len(pairs))
    return header + b"".join(pairs)


def encode(message: Mapping[str, Any], subprotocol: str) -> bytes | str:
    """Return a message as one WebSocket payload: bytes (binary frame) for msgpack, str (text frame) for JSON.

    Raises WireError for what the encoding cannot hold. Range and depth are the sender's duty: `decode` refuses them.
    """
    try:
        if _check_subprotocol(subprotocol) == SUBPROTOCOL_MSGPACK:
            return _pack(message)
        return json.dumps(message, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise WireError(f"not encodable: {error}") from error


def decode(
    data: bytes | bytearray | memoryview | str, subprotocol: str, max_size: int = SERVER_FRAME_MAX
) -> dict[str, Any]:
    """Return the message in one WebSocket payload, checked; `max_size` is in bytes.

    Raises WireError, saying what is allowed, for: the wrong kind of payload, too many bytes, malformed or trailing
    bytes, anything but a map, keys that are no strings or come twice, extension types, binary values, text that is
    no valid UTF-8, NaN and infinities, integers of 2**53 or more in magnitude, nesting deeper than 8.
    """
    is_msgpack = _check_subprotocol(subprotocol) == SUBPROTOCOL_MSGPACK
    if is_msgpack and isinstance(data, str):
        raise WireError(f"{SUBPROTOCOL_MSGPACK} takes binary frames, got a text frame")
    if not is_msgpack and not isinstance(data, str):
        raise WireError(f"{SUBPROTOCOL_JSON} takes text frames, got a binary frame")
    size = _byte_size(data)
    if size > max_size:
        raise WireError(f"a message may have {max_size} bytes, got {size}")
    message = _parse_text(data) if isinstance(data, str) else _parse_msgpack(data)
    if not isinstance(message, dict):
        raise WireError(f"a message must be a map, got {type(message).__name__}")
    _check(message, 1)
    return message


def _check_subprotocol(subprotocol: str) -> str:
    if subprotocol not in SUBPROTOCOLS:
        raise WireError(f"unknown subprotocol {subprotocol!r}, allowed: {', '.join(SUBPROTOCOLS)}")
    return subprotocol


def _byte_size(data: bytes | bytearray | memoryview | str) -> int:
    if isinstance(data, memoryview):
        return data.nbytes
    if isinstance(data, str) and not data.isascii():
        return len(data.encode("utf-8", "surrogatepass"))
    return len(data)


def _parse_msgpack(data: bytes | bytearray | memoryview) -> Any:
    try:
        return msgpack.unpackb(data, object_pairs_hook=_unique, ext_hook=_no_extension, raw=False, strict_map_key=True)
    except WireError:
        raise
    except msgpack.ExtraData as error:
        raise WireError(f"one message a frame, but {len(error.extra)} bytes follow it") from error
    except UnicodeDecodeError as error:
        raise WireError("strings must be valid UTF-8") from error
    except (msgpack.StackError, RecursionError) as error:
        raise WireError(f"nested too deep, allowed: {DEPTH_MAX} levels") from error
    except (ValueError, TypeError, OverflowError, MemoryError) as error:
        raise WireError(f"malformed or cut msgpack: {str(error) or 'no such type byte'}") from error


def _parse_text(data: str) -> Any:
    try:
        return json.loads(data, object_pairs_hook=_unique, parse_constant=_no_constant)
    except WireError:
        raise
    except RecursionError as error:
        raise WireError(f"nested too deep, allowed: {DEPTH_MAX} levels") from error
    except ValueError as error:
        raise WireError(f"malformed JSON: {error}") from error


def _unique(pairs: Sequence[tuple[Any, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise WireError("a key may appear once in a map")
    return result


def _no_extension(code: int, data: bytes) -> Any:
    raise WireError(f"msgpack extension type {code} is not allowed, only nil, bool, int, float, str, array and map")


def _no_constant(name: str) -> Any:
    raise WireError(f"{name} is not allowed, numbers must be finite")


def _check(value: Any, depth: int) -> None:
    """Refuse what the grammar of the encoding lets through but the protocol does not."""
    kind = type(value)
    if kind is int:
        if not -INTEGER_MAX <= value <= INTEGER_MAX:
            raise WireError("integers must be below 2**53 in magnitude")
    elif kind is str:
        if not value.isascii():
            _check_text(value)
    elif kind is list:
        _check_depth(depth)
        # Lists of numbers are the bulk of a frame: one pass of C code instead of a call per entry.
        if set(map(type, value)) <= {int}:
            if value and (max(value) > INTEGER_MAX or min(value) < -INTEGER_MAX):
                raise WireError("integers must be below 2**53 in magnitude")
        else:
            for item in value:
                _check(item, depth + 1)
    elif kind is dict:
        _check_depth(depth)
        for key, item in value.items():
            if type(key) is not str:
                raise WireError(f"keys must be strings, got {type(key).__name__}")
            _check(key, depth)
            _check(item, depth + 1)
    elif kind is float:
        if not math.isfinite(value):
            raise WireError("numbers must be finite")
    elif value is not None and kind is not bool:
        raise WireError(f"{kind.__name__} values are not allowed, only nil, bool, int, float, str, array and map")


def _check_depth(depth: int) -> None:
    if depth > DEPTH_MAX:
        raise WireError(f"nested too deep, allowed: {DEPTH_MAX} levels")


def _check_text(value: str) -> None:
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise WireError("strings must be valid UTF-8") from error


def _is_integer(value: Any) -> bool:
    return type(value) is int and -INTEGER_MAX <= value <= INTEGER_MAX


def _pack(value: Any) -> bytes:
    packed: bytes = msgpack.packb(value)
    return packed
