"""The frame codec: round trips, strictness, and what its tables promise."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
from arena_client import wire
from arena_client.wire import SUBPROTOCOL_JSON, SUBPROTOCOL_MSGPACK, SUBPROTOCOLS, WireError
from hypothesis import given
from hypothesis import strategies as st

from tests.support.deadlines import seconds
from tests.support.make_vectors import ROOT
from tests.support.naive_delta import naive_apply, naive_pack

integers = st.integers(-wire.INTEGER_MAX, wire.INTEGER_MAX)
half = wire.INTEGER_MAX // 2
halves = st.integers(-half, half)
names = st.text(st.characters(codec="utf-8"), max_size=12)
scalars = st.none() | st.booleans() | integers | st.floats(allow_nan=False, allow_infinity=False) | names
# a leaf list inside two maps inside the message: well below eight levels
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(names, inner, max_size=4), max_leaves=20
)
messages = st.dictionaries(names, values, max_size=6)


@st.composite
def two_states(draw: st.DrawFn) -> tuple[wire.State, wire.State]:
    """Two states with the same fields, some of which are equal, near or far, less than 2**53 apart."""
    before: wire.State = {}
    after: wire.State = {}
    for name in draw(st.sets(names, max_size=6)):
        if draw(st.booleans()):
            before[name] = draw(halves)
            after[name] = draw(halves | st.just(before[name]))
        else:
            old = draw(st.lists(halves, max_size=33))
            nudges = draw(st.lists(st.sampled_from([0, 0, 0, 1, -1, 300]), min_size=len(old), max_size=len(old)))
            nudged = [max(-half, min(half, a + b)) for a, b in zip(old, nudges, strict=True)]
            far = draw(st.lists(halves, min_size=len(old), max_size=len(old)))
            before[name], after[name] = old, draw(st.sampled_from([old, nudged, far]))
    return before, after


def levels(value: Any) -> int:
    if isinstance(value, dict):
        return 1 + max((levels(item) for item in value.values()), default=0)
    if isinstance(value, list):
        return 1 + max((levels(item) for item in value), default=0)
    return 0


@given(messages, st.sampled_from(SUBPROTOCOLS))
def test_decode_undoes_encode(message: dict[str, Any], subprotocol: str) -> None:
    """What is encoded comes back, in both subprotocols; what is too deep is refused instead."""
    data = wire.encode(message, subprotocol)

    if levels(message) > wire.DEPTH_MAX:
        with pytest.raises(WireError, match="8 levels"):
            wire.decode(data, subprotocol)
    else:
        assert wire.decode(data, subprotocol) == message


@given(two_states())
def test_a_delta_leads_from_one_state_to_the_other(states: tuple[wire.State, wire.State]) -> None:
    """apply(a, diff(a, b)) == b, also after the delta has travelled; a stays as it was."""
    before, after = states
    kept = wire.canonical(before)

    delta = wire.diff(before, after)
    travelled = wire.decode(wire.encode(delta, SUBPROTOCOL_JSON), SUBPROTOCOL_JSON)

    assert wire.apply(before, delta) == wire.apply(before, travelled) == after
    assert wire.canonical(before) == kept


@given(two_states())
def test_packed_differences_lead_from_one_state_to_the_other(states: tuple[wire.State, wire.State]) -> None:
    """As by name, which they can be turned into without knowing the values; they travel as a list."""
    before, after = states
    kept = wire.canonical(before)
    packed = naive_pack(before, after)
    delta = {"type": "delta", "channel": "market_tick", "seq": 9, "base": 7, "tick": 9, "sent_ns": 5, "diff": packed}

    data = wire.encode({**delta, "epoch": "any"}, SUBPROTOCOL_MSGPACK)
    travelled = wire.decode(data, SUBPROTOCOL_MSGPACK)

    assert travelled == delta
    assert wire.apply(before, travelled) == after
    assert wire.changes(before, packed) == wire.diff(before, after)["diff"]
    assert wire.canonical(before) == kept
    unchanged = [field for field, value in before.items() if value == after[field] and isinstance(value, list)]
    assert all(wire.apply(before, travelled)[field] is before[field] for field in unchanged)


@given(two_states(), st.data())
def test_no_packed_bytes_make_apply_raise_anything_else(
    states: tuple[wire.State, wire.State], data: st.DataObject
) -> None:
    """Random bytes, and good ones with a byte changed, are applied or a WireError."""
    before, after = states
    packed = bytearray(data.draw(st.sampled_from([naive_pack(before, after)]) | st.binary(max_size=60)))
    if packed and data.draw(st.booleans()):
        packed[data.draw(st.integers(0, len(packed) - 1))] = data.draw(st.integers(0, 255))
    try:
        new = wire.apply(before, {"diff": bytes(packed)})
    except WireError:
        return
    assert new.keys() == before.keys()
    assert naive_apply(before, {"diff": bytes(packed)}) == new


@given(two_states())
def test_equal_states_have_equal_checksums_whatever_the_order(states: tuple[wire.State, wire.State]) -> None:
    """The order in which fields were put in does not matter; a changed value does."""
    before, after = states
    reversed_order = dict(reversed(list(before.items())))

    assert wire.checksum(before) == wire.checksum(reversed_order)
    if before != after:
        assert wire.canonical(before) != wire.canonical(after)


@given(st.binary(max_size=60))
def test_no_bytes_make_the_decoder_raise_anything_else(data: bytes) -> None:
    """Random bytes are a message or a WireError, never another exception."""
    try:
        message = wire.decode(data, SUBPROTOCOL_MSGPACK)
    except WireError:
        return
    assert isinstance(message, dict)


@given(st.text(st.characters(), max_size=60))
def test_no_text_makes_the_decoder_raise_anything_else(data: str) -> None:
    """As for bytes; lone surrogates included."""
    try:
        message = wire.decode(data, SUBPROTOCOL_JSON)
    except WireError:
        return
    assert isinstance(message, dict)


def test_the_eighth_level_is_still_allowed() -> None:
    """Depth 8 passes and depth 9 does not, the message itself counted."""
    deep: Any = 1
    for _ in range(wire.DEPTH_MAX - 1):
        deep = [deep]

    for subprotocol in SUBPROTOCOLS:
        assert wire.decode(wire.encode({"a": deep}, subprotocol), subprotocol) == {"a": deep}
        with pytest.raises(WireError, match="8 levels"):
            wire.decode(wire.encode({"a": [deep]}, subprotocol), subprotocol)


@pytest.mark.parametrize("value", [2**53 - 1, 1 - 2**53])
def test_the_largest_integers_are_allowed(value: int) -> None:
    """2**53 - 1 passes in both directions, alone and in lists."""
    for subprotocol in SUBPROTOCOLS:
        message = {"a": value, "b": [value]}
        assert wire.decode(wire.encode(message, subprotocol), subprotocol) == message


def test_size_is_counted_in_bytes() -> None:
    """A text of few characters and many bytes is too large."""
    message = {"a": "€" * 10}

    for subprotocol in SUBPROTOCOLS:
        data = wire.encode(message, subprotocol)
        size = len(data.encode() if isinstance(data, str) else data)
        assert wire.decode(data, subprotocol, max_size=size) == message
        with pytest.raises(WireError, match=f"{size - 1} bytes, got {size}"):
            wire.decode(data, subprotocol, max_size=size - 1)


def test_each_subprotocol_has_its_own_kind_of_frame() -> None:
    """Text on msgpack and bytes on JSON are refused, whatever they hold."""
    with pytest.raises(WireError, match="takes binary frames"):
        wire.decode("{}", SUBPROTOCOL_MSGPACK)
    with pytest.raises(WireError, match="takes text frames"):
        wire.decode(b"{}", SUBPROTOCOL_JSON)


def test_an_unknown_subprotocol_names_those_that_exist() -> None:
    """The error tells what is allowed."""
    with pytest.raises(WireError, match=r"arena\.v2\.msgpack, arena\.v2\.json"):
        wire.decode(b"\x80", "arena.v9")


@pytest.mark.parametrize("value", [object(), 2**70, {1, 2}])
def test_what_cannot_be_encoded_is_a_wire_error(value: object) -> None:
    """The caller of encode gets one kind of error."""
    with pytest.raises(WireError, match="not encodable"):
        wire.encode({"a": value}, SUBPROTOCOL_MSGPACK)


def test_json_has_no_nan_to_encode() -> None:
    """NaN would make a text that is no JSON."""
    with pytest.raises(WireError, match="not encodable"):
        wire.encode({"a": float("nan")}, SUBPROTOCOL_JSON)


@pytest.mark.parametrize(
    ("before", "after", "why"),
    [
        ({"a": 1}, {"b": 1}, r"differing: \['a', 'b'\]"),
        ({"a": 1}, {}, r"differing: \['a'\]"),
        ({"a": [1]}, {"a": [1, 2]}, "a cannot change its length from 1 to 2"),
        ({"a": [1]}, {"a": 1}, "a cannot change between"),
        ({"a": [-1]}, {"a": [wire.INTEGER_MAX]}, r"a changed by 2\*\*53 or more"),
    ],
)
def test_states_of_different_shape_have_no_delta(before: wire.State, after: wire.State, why: str) -> None:
    """Only a snapshot helps, and the error says where they differ."""
    with pytest.raises(WireError, match=why):
        wire.diff(before, after)


def test_unchanged_lists_are_shared() -> None:
    """A delta copies what it changes and nothing else."""
    state: wire.State = {"a": [1, 2], "b": [3, 4]}

    new = wire.apply(state, {"diff": {"a": [1, 0]}})

    assert new["b"] is state["b"]
    assert state["a"] == [1, 2]


def test_every_close_code_has_advice() -> None:
    """The table is keyed by code, and unknown codes follow the range rule."""
    assert all(row.code == code and row.text for code, row in wire.CLOSE_CODES.items())
    assert {row.advice for row in wire.CLOSE_CODES.values()} == {"stop", "reconnect", "give_up"}
    assert wire.close_code(1012).advice == "reconnect"
    assert wire.close_code(4000).advice == "give_up"
    assert [wire.close_code(code).advice for code in (1003, 3000, 4099, 4499, 4500, 4999)] == [
        "give_up", "reconnect", "reconnect", "reconnect", "give_up", "give_up",
    ]  # fmt: skip


def test_the_codec_loads_neither_network_library() -> None:
    """The server imports the codec without having the client's other dependencies."""
    script = (
        "import arena_client.wire, sys; print([m for m in ('httpx2', 'websockets', 'asyncio') if m in sys.modules])"
    )

    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=ROOT / "clients" / "python",
        capture_output=True,
        text=True,
        timeout=seconds(30),
        check=True,
    )

    assert done.stdout.strip() == "[]"


def test_public_names_are_all_there() -> None:
    """Every name of the package's __all__ can be imported, and a wrong one is an AttributeError."""
    import arena_client

    assert all(getattr(arena_client, name) is not None for name in arena_client.__all__)
    with pytest.raises(AttributeError, match="no_such_thing"):
        _ = arena_client.no_such_thing
