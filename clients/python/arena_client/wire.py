"""The frame codec of the stream protocol, version 2: bytes <-> messages, states <-> deltas, and their checksum.

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
    "LINKED",
    "NO_BLOCK",
    "SERVER_FRAME_MAX",
    "STATE_CHANNELS",
    "SUBPROTOCOLS",
    "SUBPROTOCOL_JSON",
    "SUBPROTOCOL_MSGPACK",
    "UNCHANGED",
    "VERSION",
    "WIDTH_MAX",
    "CloseCode",
    "State",
    "Value",
    "WireError",
    "apply",
    "canonical",
    "changes",
    "checksum",
    "close_code",
    "decode",
    "diff",
    "encode",
    "pack",
    "pack_pairs",
]

VERSION: Final = 2
SUBPROTOCOL_MSGPACK: Final = "arena.v2.msgpack"
SUBPROTOCOL_JSON: Final = "arena.v2.json"
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
#: First byte of a block of packed differences when nothing in it changed, and when it refers to two other blocks.
UNCHANGED: Final = 255
LINKED: Final = 254
#: Stands for no block where a linked one refers to another.
NO_BLOCK: Final = 255
#: Bits of a packed difference, at most: it is below 2**53 in magnitude.
WIDTH_MAX: Final = 54
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
    """Return what turns `base` into `new`: {"diff": {field: difference}} of the fields that changed, as JSON has it.

    Raises WireError when the two have different fields or list lengths, or are 2**53 or more apart: then only a
    snapshot will do.
    """
    if base.keys() != new.keys():
        raise WireError(f"a delta needs the same fields on both sides, differing: {sorted(base.keys() ^ new.keys())}")
    return {"diff": {field: _difference(field, base[field], new[field]) for field in new if base[field] != new[field]}}


def _difference(field: str, old: Value, new: Value) -> Value:
    if isinstance(old, int) and isinstance(new, int):
        difference: Value = new - old
        entries = [new - old]
    elif isinstance(old, int) or isinstance(new, int):
        raise WireError(f"{field} cannot change between an integer and a list")
    elif len(old) != len(new):
        raise WireError(f"{field} cannot change its length from {len(old)} to {len(new)}")
    else:
        difference = entries = [b - a for a, b in zip(old, new, strict=True)]
    if max(entries) > INTEGER_MAX or min(entries) < -INTEGER_MAX:
        raise WireError(f"{field} changed by 2**53 or more")
    return difference


def apply(state: Mapping[str, Value], delta: Mapping[str, Any]) -> State:
    """Return `state` changed by the `diff` of `delta`, a map or packed; other keys of `delta` are not looked at.

    Pure: `state` and its lists stay as they are, unchanged lists are shared with the result.
    Raises WireError for what does not fit the state: an unknown field, a wrong length, anything that is no integer,
    packed bytes that are cut, too many or of unknown form, and a result of 2**53 or more in magnitude.
    """
    body = delta.get("diff")
    if isinstance(body, bytes):
        return _apply_packed(state, body)
    if not isinstance(body, Mapping):
        raise WireError(f"diff must be a map of fields, got {type(body).__name__}")
    result: State = dict(state)
    for field, difference in body.items():
        if field not in state:
            raise WireError(f"diff names the unknown field {field!r}")
        result[field] = _changed(field, state[field], difference)
    return result


def changes(state: Mapping[str, Value], packed: bytes) -> dict[str, Value]:
    """Return packed differences as the map that JSON has, of the fields that changed.

    state: any of the same fields and list lengths; its values do not matter. Raises WireError as `apply` does.
    """
    none: State = {field: [0] * len(value) if isinstance(value, list) else 0 for field, value in state.items()}
    return {field: value for field, value in _apply_packed(none, packed).items() if value != none[field]}


def _changed(field: str, old: Value, body: Any) -> Value:
    if isinstance(old, int):
        if type(body) is not int:
            raise WireError(f"{field} is one integer: it can only change by an integer")
        return _checked(field, [old + body])[0]
    # bool is a subclass of int, but true is no number on the wire
    if not isinstance(body, list) or not set(map(type, body)) <= {int}:
        raise WireError(f"diff.{field} must be a list of integers")
    if len(body) != len(old):
        raise WireError(f"diff.{field} must have {len(old)} entries, got {len(body)}")
    return _checked(field, [a + b for a, b in zip(old, body, strict=True)])


def _checked(field: str, new: list[int]) -> list[int]:
    if new and (max(new) > INTEGER_MAX or min(new) < -INTEGER_MAX):
        raise WireError(f"diff.{field} leads to a value of 2**53 or more")
    return new


def _apply_packed(state: Mapping[str, Value], packed: bytes) -> State:
    """Read the blocks of docs/protocol.md: the single values together, then each list, in canonical order."""
    singles: dict[str, int] = {}
    lists: dict[str, list[int]] = {}
    for field in sorted(state):
        value = state[field]
        if isinstance(value, list):
            lists[field] = value
        else:
            singles[field] = value
    before = [list(singles.values()), *lists.values()] if singles else list(lists.values())
    after = _blocks_after(before, packed)
    result: State = dict(state)
    if singles:
        result.update(zip(singles, after.pop(0), strict=True))
    result.update(zip(lists, after, strict=True))
    return result


def _blocks_after(before: list[list[int]], packed: bytes) -> list[list[int]]:
    after: list[list[int]] = []
    links: list[tuple[int, int, int]] = []
    at = 0
    try:
        for old in before:
            narrow = packed[at]
            if narrow == LINKED:
                links.append((len(after), packed[at + 1], packed[at + 2]))
                at += 3
                narrow = packed[at]
            at += 1
            if narrow == UNCHANGED:
                after.append(old)
                continue
            new, at = _block_after(old, narrow, packed, at)
            after.append(new)
    except IndexError:
        raise WireError(f"packed differences of {len(before)} blocks end in block {len(after)}") from None
    if at != len(packed):
        raise WireError(f"{len(packed) - at} bytes follow the packed differences")
    if links:
        _follow_links(before, after, links)
    changed = [new for old, new in zip(before, after, strict=True) if new is not old and new]
    if changed and (max(map(max, changed)) > INTEGER_MAX or min(map(min, changed)) < -INTEGER_MAX):
        raise WireError("a packed difference leads to a value of 2**53 or more")
    return after


def _block_after(old: list[int], narrow: int, packed: bytes, at: int) -> tuple[list[int], int]:
    """Return a block's new values, and where the next one begins. at: of its second byte."""
    wide, count = packed[at], len(old)
    if narrow > WIDTH_MAX or wide > WIDTH_MAX:
        raise WireError(f"a packed difference has at most {WIDTH_MAX} bits, got {max(narrow, wide)}")
    values_at = at + 1 + (count + 7 >> 3)
    flags = int.from_bytes(packed[at + 1 : values_at], "little")
    wides = flags.bit_count()
    end = values_at + (narrow * (count - wides) + wide * wides + 7 >> 3)
    if end > len(packed):
        raise IndexError
    bits = int.from_bytes(packed[values_at:end], "little")
    # a character a flag, that of entry 0 first: a third less time than shifting them out one by one
    is_wide = bin(flags | 1 << count)[:2:-1]
    mask, half, _ = far = _WIDTHS[wide]
    if narrow:
        new = []
        widths = {"0": _WIDTHS[narrow], "1": far}
        for value, flag in zip(old, is_wide, strict=False):
            mask, half, width = widths[flag]
            new.append(value + (bits & mask) - half)
            bits >>= width
    else:
        # most entries stay as they are
        new = old.copy()
        i = is_wide.find("1")
        while 0 <= i < count:
            new[i] += (bits & mask) - half
            bits >>= wide
            i = is_wide.find("1", i + 1)
    if bits or flags >> count:
        raise WireError("the last byte of flags and of values must be filled with zeros")
    return new, end


#: By width: which bits a difference has, what is taken off them, and the width.
_WIDTHS = [((1 << width) - 1, 1 << width >> 1, width) for width in range(WIDTH_MAX + 1)]


def _follow_links(before: list[list[int]], after: list[list[int]], links: list[tuple[int, int, int]]) -> None:
    """Add the differences of the first block that a linked one refers to, subtract those of the second."""
    linked = {i for i, _, _ in links}
    for i, *others in links:
        for sign, other in zip((1, -1), others, strict=True):
            if other == NO_BLOCK:
                continue
            if other in linked or other >= len(after) or len(after[other]) != len(after[i]):
                raise WireError(f"block {i} cannot be linked to block {other}")
            changes_there = zip(after[i], after[other], before[other], strict=True)
            after[i] = [value + sign * (new - old) for value, new, old in changes_there]


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

    In msgpack a delta with packed differences becomes a list without names, without type, epoch and tick.
    Raises WireError for what the encoding cannot hold. Range and depth are the sender's duty: `decode` refuses them.
    """
    try:
        if _check_subprotocol(subprotocol) == SUBPROTOCOL_MSGPACK:
            return _pack(_listed(message) if isinstance(message.get("diff"), bytes) else message)
        return json.dumps(message, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise WireError(f"not encodable: {error}") from error


def decode(
    data: bytes | bytearray | memoryview | str, subprotocol: str, max_size: int = SERVER_FRAME_MAX
) -> dict[str, Any]:
    """Return the message in one WebSocket payload, checked; `max_size` is in bytes.

    A delta that came as a list is a map here, with its differences packed and without `epoch`.
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
    if is_msgpack and isinstance(message, list):
        return _named(message)
    if not isinstance(message, dict):
        raise WireError(f"a message must be a map, got {type(message).__name__}")
    _check(message, 1)
    return message


def _listed(delta: Mapping[str, Any]) -> list[Any]:
    seq = delta["seq"]
    head = [STATE_CHANNELS.index(delta["channel"]), seq, seq - delta["base"], delta["sent_ns"], delta["diff"]]
    return [*head, delta["crc"]] if "crc" in delta else head


def _named(listed: list[Any]) -> dict[str, Any]:
    if len(listed) not in (5, 6) or not isinstance(listed[4], bytes):
        raise WireError("a list must be a delta: channel, seq, ticks since its base, sent_ns, differences, checksum")
    channel, seq, ticks, sent_ns, packed, *crc = listed
    for number in (channel, seq, ticks, sent_ns, *crc):
        if type(number) is not int or not 0 <= number <= INTEGER_MAX:
            raise WireError("the numbers of a delta must be integers from 0 up, below 2**53")
    if channel >= len(STATE_CHANNELS):
        raise WireError(f"a delta must be of channel 0 to {len(STATE_CHANNELS) - 1}, got {channel}")
    delta = {"type": "delta", "channel": STATE_CHANNELS[channel], "seq": seq, "base": seq - ticks, "tick": seq}
    return delta | {"sent_ns": sent_ns, "diff": packed} | ({"crc": crc[0]} if crc else {})


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
