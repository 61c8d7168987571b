"""The golden vectors bind every implementation: ours, plain msgpack, and a naive one written from the protocol page."""

from __future__ import annotations

import json
import re
import struct
import zlib
from pathlib import Path
from typing import Any

import msgpack
import pytest
from arena_client import wire
from arena_client.mirror import Mirror
from arena_client.subscription import EntriesReceived, OutOfStep, Session

from server.live import changes
from tests.support.make_vectors import FOLDER, vectors
from tests.support.naive_delta import blocks_of, naive_apply, naive_pack


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
    packed = bytes.fromhex(vector["packed"])

    assert changes.pack(vector["before"], vector["after"]) == naive_pack(vector["before"], vector["after"]) == packed
    assert wire.changes(vector["before"], packed) == vector["delta"]["diff"]
    assert wire.apply(vector["before"], {"diff": packed}) == vector["after"]
    assert naive_apply(vector["before"], {"diff": packed}) == vector["after"]

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


@pytest.mark.parametrize("name", DELTAS["decoded_packed"])
def test_the_decoder_takes_every_packed_form(name: str) -> None:
    """Widths of none, the wider one first, links in both directions."""
    vector = DELTAS["decoded_packed"][name]
    packed = bytes.fromhex(vector["packed"])

    assert wire.apply(vector["before"], {"diff": packed}) == vector["after"]
    assert naive_apply(vector["before"], {"diff": packed}) == vector["after"]


def test_the_decoder_of_the_protocol_page_decodes() -> None:
    """What a reader copies from docs/protocol.md reads every packed vector."""
    page = (FOLDER.parents[1] / "docs" / "protocol.md").read_text()
    [source] = re.findall(r"```python\n(def differences.*?)```", page, re.DOTALL)
    namespace: dict[str, Any] = {}
    exec(source, namespace)

    vectors = [*DELTAS["encoded"].values(), *DELTAS["decoded_packed"].values()]
    for vector in vectors:
        before, after = blocks_of(vector["before"])[1], blocks_of(vector["after"])[1]
        found = namespace["differences"](bytes.fromhex(vector["packed"]), before)
        assert found == [[b - a for a, b in zip(*both, strict=True)] for both in zip(before, after, strict=True)]


@pytest.mark.parametrize("name", DELTAS["refused_packed"])
def test_the_decoder_refuses_packed_differences_that_do_not_fit(name: str) -> None:
    """Cut, too long, filled up with something, linked to what cannot be: refused whole."""
    vector = DELTAS["refused_packed"][name]
    before = json.dumps(vector["before"])

    with pytest.raises(wire.WireError):
        wire.apply(vector["before"], {"diff": bytes.fromhex(vector["packed"])})

    assert json.dumps(vector["before"]) == before


@pytest.mark.parametrize("name", FRAMES["messages"])
def test_a_frame_is_the_same_message_in_both_subprotocols(name: str) -> None:
    """The .msgpack file, plain msgpack, our codec and the JSON twin are one message."""
    message = FRAMES["messages"][name]
    packed = (FOLDER / "frames" / f"{name}.msgpack").read_bytes()
    text = json.dumps(message)

    if message.get("type") == "delta":
        binary = wire.decode(packed, wire.SUBPROTOCOL_MSGPACK)
        state = FRAMES["final_state"]
        assert message == {**binary, "epoch": message["epoch"], "diff": wire.changes(state, binary["diff"])}
        assert msgpack.unpackb(packed)[1:4] == [message["seq"], 1, message["sent_ns"]]
        assert msgpack.packb(msgpack.unpackb(packed)) == wire.encode(binary, wire.SUBPROTOCOL_MSGPACK) == packed
    else:
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
        frame = wire.decode(bytes.fromhex(row["msgpack"]), wire.SUBPROTOCOL_MSGPACK)
        if frame["type"] == "snapshot":
            assert frame == row["frame"]
            naive = frame["state"]
        else:
            named = {**frame, "epoch": row["frame"]["epoch"], "diff": wire.changes(naive, frame["diff"])}
            assert named == row["frame"]
            assert naive_apply(naive, row["frame"]) == naive_apply(naive, frame)
            naive = naive_apply(naive, frame)

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
