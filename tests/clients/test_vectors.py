"""The golden vectors bind every implementation: ours, plain msgpack, and a naive one written from the protocol page."""

from __future__ import annotations

import json
import struct
import zlib
from pathlib import Path
from typing import Any

import msgpack
import pytest
from arena_client import wire
from arena_client.mirror import Mirror
from arena_client.subscription import EntriesReceived, OutOfStep, Session

from tests.support.make_vectors import FOLDER, vectors


def load(name: str) -> Any:
    return json.loads((FOLDER / name).read_text())


STATES = load("states.json")
DELTAS = load("deltas.json")
FRAMES = load("frames.json")
MALFORMED = load("malformed.json")
NARROWED = load("narrowed.json")
PRIVATE = load("private.json")


# -- a naive implementation, written from docs/protocol.md with nothing but struct and zlib --------------------------


def naive_integer(value: int) -> bytes:
    if value >= 0:
        if value < 128:
            return bytes([value])
        for limit, head, form in ((2**8, 0xCC, ">B"), (2**16, 0xCD, ">H"), (2**32, 0xCE, ">I"), (2**64, 0xCF, ">Q")):
            if value < limit:
                return bytes([head]) + struct.pack(form, value)
    if value >= -32:
        return bytes([256 + value])
    for limit, head, form in ((2**7, 0xD0, ">b"), (2**15, 0xD1, ">h"), (2**31, 0xD2, ">i"), (2**63, 0xD3, ">q")):
        if value >= -limit:
            return bytes([head]) + struct.pack(form, value)
    raise AssertionError(value)


def naive_canonical(state: dict[str, Any]) -> bytes:
    """Pack a state: keys sorted by UTF-8 bytes, the shortest form of everything."""

    def header(count: int, fix: int, wide: int) -> bytes:
        return bytes([fix | count]) if count < 16 else bytes([wide]) + struct.pack(">H", count)

    packed = header(len(state), 0x80, 0xDE)
    for field in sorted(state, key=lambda name: name.encode()):
        name = field.encode()
        packed += (bytes([0xA0 | len(name)]) if len(name) < 32 else bytes([0xD9, len(name)])) + name
        value = state[field]
        if isinstance(value, list):
            packed += header(len(value), 0x90, 0xDC) + b"".join(naive_integer(entry) for entry in value)
        else:
            packed += naive_integer(value)
    return packed


def naive_apply(state: dict[str, Any], delta: dict[str, Any]) -> dict[str, Any]:
    new: dict[str, Any] = json.loads(json.dumps(state))
    new.update(delta.get("set", {}))
    for field, pairs in delta.get("add", {}).items():
        for i in range(0, len(pairs), 2):
            new[field][pairs[i]] += pairs[i + 1]
    for field, differences in delta.get("vec", {}).items():
        for i, difference in enumerate(differences):
            new[field][i] += difference
    return new


# -- the vectors themselves -------------------------------------------------------------------------------------------


def test_committed_files_are_what_the_script_makes() -> None:
    """No vector changes by accident: a changed one needs the script run and the file committed."""
    made = vectors()

    committed = {name: (FOLDER / name).read_bytes() for name in made}
    folder = {f"frames/{path.name}" for path in Path(FOLDER, "frames").iterdir()}

    assert committed == made
    assert folder == {name for name in made if name.startswith("frames/")}


@pytest.mark.parametrize("name", STATES)
def test_canonical_bytes_and_checksum_of_a_state(name: str) -> None:
    """Three implementations agree on the bytes and on their CRC-32."""
    vector = STATES[name]

    canonical = bytes.fromhex(vector["canonical"])

    assert wire.canonical(vector["state"]) == canonical
    assert naive_canonical(vector["state"]) == canonical
    assert msgpack.unpackb(canonical) == vector["state"]
    assert wire.checksum(vector["state"]) == zlib.crc32(canonical) == vector["crc"]


@pytest.mark.parametrize("name", DELTAS["encoded"])
def test_the_encoder_makes_the_delta_of_the_vector(name: str) -> None:
    """The form of a delta is settled, and every decoder gets the new state from it."""
    vector = DELTAS["encoded"][name]

    assert wire.diff(vector["before"], vector["after"]) == vector["delta"]
    assert wire.apply(vector["before"], vector["delta"]) == vector["after"]
    assert naive_apply(vector["before"], vector["delta"]) == vector["after"]


@pytest.mark.parametrize("name", DELTAS["decoded"])
def test_the_decoder_takes_every_form(name: str) -> None:
    """A decoder takes forms that our encoder would not choose."""
    vector = DELTAS["decoded"][name]

    assert wire.apply(vector["before"], vector["delta"]) == vector["after"]
    assert naive_apply(vector["before"], vector["delta"]) == vector["after"]


@pytest.mark.parametrize("name", DELTAS["refused"])
def test_the_decoder_refuses_and_changes_nothing(name: str) -> None:
    """A delta that does not fit its state is refused whole."""
    vector = DELTAS["refused"][name]
    before = json.dumps(vector["before"])

    with pytest.raises(wire.WireError):
        wire.apply(vector["before"], vector["delta"])

    assert json.dumps(vector["before"]) == before


@pytest.mark.parametrize("name", FRAMES["messages"])
def test_a_frame_is_the_same_message_in_both_subprotocols(name: str) -> None:
    """The .msgpack file, plain msgpack, our codec and the JSON twin are one message."""
    message = FRAMES["messages"][name]
    packed = (FOLDER / "frames" / f"{name}.msgpack").read_bytes()
    text = json.dumps(message)

    assert msgpack.unpackb(packed) == message
    assert msgpack.packb(message) == packed
    assert wire.decode(packed, wire.SUBPROTOCOL_MSGPACK) == message
    assert wire.encode(message, wire.SUBPROTOCOL_MSGPACK) == packed
    assert wire.decode(text, wire.SUBPROTOCOL_JSON) == message
    twin = wire.encode(message, wire.SUBPROTOCOL_JSON)
    assert isinstance(twin, str)
    assert json.loads(twin) == message


def test_the_conversation_leads_to_the_final_state() -> None:
    """Snapshot and deltas of the vectors, checksums included, end in the state they say."""
    mirror = Mirror("inflation_update")

    data = [message for message in FRAMES["messages"].values() if message.get("type") in ("snapshot", "delta")]
    verdicts = [mirror.feed(message) for message in data]

    assert [verdict.applied for verdict in verdicts] == [True] * 4
    assert mirror.state == FRAMES["final_state"]
    assert (mirror.seq, mirror.verified_seq) == (21, 20)


def test_a_narrowed_conversation_is_one_like_any_other() -> None:
    """A mirror, the naive implementation and plain msgpack agree at every frame; the ack says how to read the lists."""
    mirror, naive = Mirror("market_tick"), dict[str, Any]()
    mirror.scales = {"price": 1_000_000, "level": 1, "volume": 1}
    mirror.narrow(NARROWED["ack"]["markets"], NARROWED["ack"]["fields"])
    for row in NARROWED["frames"]:
        frame = msgpack.unpackb(bytes.fromhex(row["msgpack"]))
        assert frame == row["frame"]
        naive = frame["state"] if frame["type"] == "snapshot" else naive_apply(naive, frame)

        assert mirror.feed(frame).applied
        assert mirror.state == naive == row["state"]
        assert naive_canonical(naive).hex() == row["canonical"]
        assert wire.checksum(naive) == zlib.crc32(bytes.fromhex(row["canonical"])) == row["crc"]
    assert (mirror.verified_seq, mirror.series("price"), mirror.series("volume")) == (50, [20.002, 1.0001], [5, 0])
    assert mirror.book("oil") == ([(20.01, 3)], [(19.998, 1)])
    assert mirror.book("food") == ([], [])


def test_the_rule_of_the_private_channel() -> None:
    """Taken, passed over, or a gap: by base and seq alone; our session says the same."""
    session = Session("ak_any")
    session.receive(FRAMES["messages"]["01_hello"])
    session.subscribe("agent")
    request = session.take_outgoing()[-1]
    session.receive(
        {"type": "ack", **request, "epoch": FRAMES["messages"]["01_hello"]["epoch"], "seq": PRIVATE["start"]}
    )
    stands_at = PRIVATE["start"]
    for row in PRIVATE["frames"]:
        frame = msgpack.unpackb(bytes.fromhex(row["msgpack"]))
        assert frame == row["frame"]
        is_new, fits = frame["seq"] > stands_at, frame["base"] <= stands_at
        verdict = ("taken" if fits else "gap") if is_new else "passed over"
        stands_at = frame["seq"] if verdict == "taken" else stands_at
        assert (verdict, stands_at) == (row["verdict"], row["stands_at"])

        reports = session.receive(frame)

        kinds = {"taken": [EntriesReceived], "passed over": [], "gap": [OutOfStep]}
        assert [type(report) for report in reports] == kinds[verdict]
    asked = session.take_outgoing()[-1]
    assert (asked["op"], asked["seq"]) == ("subscribe", stands_at)
    assert session.accounts["a17"]["cash"] == "993.750050"


@pytest.mark.parametrize("name", MALFORMED[wire.SUBPROTOCOL_MSGPACK])
def test_malformed_msgpack_is_refused(name: str) -> None:
    """Every malformed payload is refused with an error of ours that says something."""
    payload = bytes.fromhex(MALFORMED[wire.SUBPROTOCOL_MSGPACK][name])

    with pytest.raises(wire.WireError, match=r"\w+ \w+"):
        wire.decode(payload, wire.SUBPROTOCOL_MSGPACK)


@pytest.mark.parametrize("name", MALFORMED[wire.SUBPROTOCOL_JSON])
def test_malformed_json_is_refused(name: str) -> None:
    """As for msgpack."""
    with pytest.raises(wire.WireError, match=r"\w+ \w+"):
        wire.decode(MALFORMED[wire.SUBPROTOCOL_JSON][name], wire.SUBPROTOCOL_JSON)
