"""The journal's bytes: round trips, golden bytes, torn tails that are cut and damage that is refused."""

from __future__ import annotations

import random
import re
import struct
from pathlib import Path
from zlib import crc32

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import JournalDamaged
from engine.journal import (
    BATCH_RECORD_SIZE,
    CHAIN_START,
    FINGERPRINT_SIZE,
    FORMAT_VERSION,
    SEGMENT_HEADER_SIZE,
    Chain,
    Genesis,
    KeyRecord,
    Mark,
    Record,
    RecordKind,
    Scan,
    decode_actions,
    decode_genesis,
    decode_key,
    decode_mark,
    encode,
    encode_action,
    encode_actions,
    encode_batch,
    encode_genesis,
    encode_key,
    encode_mark,
    encode_segment,
    is_input,
    row_bytes,
)
from engine.messages import ACTION
from tests.support.journals import JournalBytes, action_row, some_actions

GENESIS = Genesis(
    1, 2, {"residents": 2_000, "policy_active": True}, "ab" * 32, "0123456789abcdef", 2_999, "cd" * 16, ""
)
SOME_DATA = st.integers(-(2**63), 2**63 - 1)


def some_journal() -> JournalBytes:
    """Return five batches: genesis, a tick, actions, a tick with actions, a tick with a hash."""
    journal = JournalBytes()
    journal.add(RecordKind.GENESIS, encode_genesis(GENESIS))
    journal.batch()
    journal.mark(3_000)
    journal.batch()
    journal.action(client_action_id="a-1")
    journal.action(client_action_id="a-2")
    journal.batch()
    journal.action(client_action_id="a-3")
    journal.mark(3_001, actions=3)
    journal.batch()
    journal.action(client_action_id="ä-4")
    journal.action(client_action_id="a-5")
    journal.mark(3_002, actions=2, hashed=(3_000, b"h" * 16))
    return journal.batch()


def kinds(scan: Scan) -> list[RecordKind]:
    """Return the kinds of all records."""
    return [record.kind for record in scan]


@given(
    quantity=SOME_DATA,
    level=st.integers(-(2**31), 2**31 - 1),
    fingerprint=st.binary(min_size=16, max_size=16),
    client_action_id=st.text(max_size=64).filter(lambda text: text.isprintable()),
)
def test_action_comes_back(quantity: int, level: int, fingerprint: bytes, client_action_id: str) -> None:
    """Whatever an action holds, the record gives it back."""
    row = action_row(7, quantity=quantity, level=level)

    payload = memoryview(encode_action(row.tobytes(), fingerprint, client_action_id))
    back = decode_actions(Record(1, RecordKind.ACTION, payload, 0))

    assert back.rows == row
    assert (back.fingerprints.tobytes(), back.client_action_ids) == (fingerprint, [client_action_id])


@given(st.lists(st.text("abc-.", min_size=1, max_size=64), min_size=1, max_size=20))
def test_many_actions_come_back(names: list[str]) -> None:
    """Rows, fingerprints and names of any length, in their order."""
    rows = np.concatenate([action_row(i, quantity=i) for i in range(len(names))])
    actions = some_actions(rows, *names)
    payload = encode_actions(actions)

    record = Record(9, RecordKind.ACTIONS, memoryview(payload), 0, len(names))
    back = decode_actions(record)

    assert back.rows.tobytes() == rows.tobytes() == bytes(row_bytes(record))
    assert (back.fingerprints == actions.fingerprints).all()
    assert back.client_action_ids == names
    back.rows["seq"] = 1  # may be written


@given(
    tick=SOME_DATA,
    unix_ns=SOME_DATA,
    actions=st.integers(0, 2**32 - 1),
    state_hash=st.binary(min_size=16, max_size=16),
    chain=st.binary(min_size=32, max_size=32),
)
def test_mark_and_key_come_back(tick: int, unix_ns: int, actions: int, state_hash: bytes, chain: bytes) -> None:
    """Marks and keys are given back as they were."""
    mark = Mark(tick, unix_ns, actions, tick, state_hash, chain)
    key = KeyRecord(tick, unix_ns, chain, chain[::-1])

    assert decode_mark(memoryview(encode_mark(mark))) == mark
    assert decode_key(memoryview(encode_key(key))) == key


def test_genesis_comes_back_from_canonical_json() -> None:
    """The genesis record is sorted JSON without spaces, and comes back."""
    payload = encode_genesis(GENESIS)

    assert payload.startswith(b'{"config":{"policy_active":true,"residents":2000},"created":"",')
    assert decode_genesis(memoryview(payload)) == GENESIS


@pytest.mark.parametrize("payload", [b"{}", b"[]", b"no", b'{"epoch": 1, "more": 2}'])
def test_other_json_is_no_genesis(payload: bytes) -> None:
    """Anything but a genesis is a ValueError."""
    with pytest.raises(ValueError, match=r"genesis|Expecting"):
        decode_genesis(memoryview(payload))


def test_the_bytes_on_disk_do_not_change() -> None:
    """Golden bytes: a released format is for ever, so changing one of these is a decision."""
    mark = Mark(3_000, 1_700_000_000_000_000_000, 2, 2_990, bytes(range(16)), bytes(range(32)))

    assert encode_segment(1).hex() == (
        "4152454e414a0d0a03000000000000000100000000000000" + CHAIN_START.hex() + "6900110c"
    )
    assert encode_batch(7, 9, 6).hex() == (
        "21000000b0226097070000000000000000fffe4241544348fe06000000000000000900000000000000"
    )
    assert encode(9, RecordKind.MARK, encode_mark(mark)).hex() == (
        "55000000ab72c513090000000000000004b80b00000000000000002a36fe9c971702000000ae0b000000000000"
        "000102030405060708090a0b0c0d0e0f000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"
    )
    assert len(encode_action(action_row().tobytes(), bytes(16), "")) == 88 + 16
    actions = some_actions(np.concatenate([action_row(7), action_row(8)]), "a", "bcd")
    assert encode_actions(actions) == b"".join(
        (
            bytes.fromhex("0200000003000000"),
            actions.rows.tobytes(),
            actions.fingerprints.astype("<u8").tobytes(),
            b"a\0\0bcd",
        )
    )


def test_the_page_describes_every_kind_of_record() -> None:
    """docs/durability.md, for whoever reads a journal without this server."""
    page = (Path(__file__).resolve().parents[2] / "docs" / "durability.md").read_text(encoding="utf-8")

    rows = re.findall(r"^\| (\d+) \| ([A-Z_]+) \|", page, re.MULTILINE)

    assert [(int(number), name) for number, name in rows] == [(kind.value, kind.name) for kind in RecordKind]
    assert f"(format {FORMAT_VERSION};" in page
    assert f"a row of {ACTION.itemsize} bytes, a fingerprint of {FINGERPRINT_SIZE} bytes" in page


def test_scan_gives_every_record_in_order_and_where_to_go_on() -> None:
    """A whole journal is read to its end, and the chain can be continued."""
    journal = some_journal()

    scan = Scan(journal.data)
    records = list(scan)

    assert [record.sequence for record in records] == list(range(1, 10))
    assert [record.kind.name for record in records] == (
        ["GENESIS", "MARK", "ACTION", "ACTION", "ACTION", "MARK", "ACTION", "ACTION", "MARK"]
    )
    assert (scan.end, scan.next_sequence, scan.torn, scan.is_clean) == (len(journal.data), 10, None, False)
    assert scan.chain.close() == journal.chain.close()
    assert len(list(scan)) == 9, "a second reading gives the same"


def test_clean_stop_is_seen_only_at_the_end() -> None:
    """A journal that goes on after a clean stop is not a cleanly stopped one."""
    journal = some_journal()
    journal.add(RecordKind.CLEAN_STOP, b"")
    journal.batch()
    stopped = Scan(bytes(journal.data))
    journal.mark(3_003)
    resumed = Scan(journal.batch().data)

    kinds(stopped), kinds(resumed)

    assert stopped.is_clean
    assert not resumed.is_clean


def test_truncated_at_every_byte_of_the_last_batch_it_keeps_every_whole_record() -> None:
    """A power cut may leave any part of the last batch; what is whole stays, the first lost sequence is named."""
    journal = some_journal()
    whole = list(Scan(journal.data))
    ends = [record.offset for record in whole[1:]] + [len(journal.data)]

    for length in range(journal.batches[-1], len(journal.data)):
        scan = Scan(journal.data[:length])
        kept = list(scan)

        # a batch's head lies between the last record before it and the first one in it
        assert len(kept) == max(6, sum(end <= length for end in ends)), length
        assert scan.next_sequence == len(kept) + 1
        if length == journal.batches[-1]:
            assert scan.torn is None, "nothing of the batch is there"
        else:
            assert scan.torn is not None
            assert (scan.torn.offset, scan.torn.sequence) == (scan.end, len(kept) + 1)


def test_a_hole_in_the_last_batch_is_a_torn_tail() -> None:
    """Pages of an unsynced batch reach the disk in any order: good records behind a hole in it prove nothing."""
    journal = some_journal()
    hole = journal.batches[-1] + BATCH_RECORD_SIZE + 20
    journal.data[hole : hole + 30] = bytes(30)

    scan = Scan(journal.data)

    assert len(list(scan)) == 6
    assert scan.torn is not None
    assert scan.torn.sequence == 7


@pytest.mark.parametrize("tail", [bytes(5), bytes(4_096), b"\xff" * 100, b"garbage"])
def test_what_is_no_record_behind_the_last_batch_is_a_torn_tail(tail: bytes) -> None:
    """A file that grew without its data having arrived is cut back."""
    journal = some_journal()

    scan = Scan(bytes(journal.data) + tail)

    assert len(list(scan)) == 9
    assert scan.torn is not None
    assert (scan.torn.offset, scan.torn.sequence) == (len(journal.data), 10)


def test_a_journal_goes_on_behind_a_cut() -> None:
    """After a torn tail was cut inside a batch, the next batch begins with the first sequence that was lost."""
    journal = some_journal()
    scan = Scan(journal.data[:-10])
    list(scan)
    resumed = bytearray(journal.data[: scan.end])
    resumed += encode_batch(9, 9, 8) + encode(9, RecordKind.CLEAN_STOP, b"")

    again = Scan(resumed)

    assert kinds(again)[-2:] == [RecordKind.ACTION, RecordKind.CLEAN_STOP]
    assert again.torn is None


def test_every_flipped_bit_before_the_last_batch_is_found() -> None:
    """Bytes that were durable once and are wrong now are damage, wherever they are; the offset is before or at them."""
    journal = some_journal()

    for position in range(journal.batches[-1]):
        data = bytearray(journal.data)
        data[position] ^= 1 << random.Random(position).randrange(8)

        with pytest.raises(JournalDamaged) as raised:
            list(Scan(data))
        assert raised.value.offset <= position


def test_a_removed_record_is_found() -> None:
    """Cutting a whole record or a whole batch out of the middle does not go unnoticed."""
    journal = some_journal()
    records = list(Scan(journal.data))
    without_record = journal.data[: records[2].offset] + journal.data[records[3].offset :]
    without_batch = journal.data[: journal.batches[2]] + journal.data[journal.batches[3] :]

    for data in (without_record, without_batch):
        with pytest.raises(JournalDamaged, match="numbered"):
            list(Scan(data))


def test_an_edited_record_with_a_new_checksum_breaks_the_chain() -> None:
    """Checksums find accidents; the chain finds whoever edits a record and fixes its checksum."""
    journal = some_journal()
    record = list(Scan(journal.data))[2]
    body_at, body_end = record.offset + 8, record.offset + 17 + len(record.payload)
    journal.data[body_end - 1] ^= 1
    journal.data[record.offset + 4 : body_at] = struct.pack("<I", crc32(journal.data[body_at:body_end]))

    with pytest.raises(JournalDamaged, match="chain"):
        list(Scan(journal.data))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "shorter"),
        (b"PK\x03\x04" + bytes(40), "not a journal"),
        (encode_segment(1)[:-1] + b"?", "checksum"),
        (encode_segment(1)[:-5], "shorter"),
    ],
)
def test_what_does_not_begin_as_a_segment_is_refused(data: bytes, reason: str) -> None:
    """A file that is no journal is not taken for an empty one."""
    with pytest.raises(JournalDamaged, match=reason) as raised:
        Scan(data, "some/path")

    assert raised.value.offset == 0


def test_another_format_version_is_refused_by_number() -> None:
    """A segment of a later release is refused with both versions."""
    head = struct.pack("<8sIIQ", b"ARENAJ\r\n", 9, 0, 1)

    with pytest.raises(JournalDamaged, match="format version 9, this release reads 3"):
        Scan(head + struct.pack("<I", crc32(head)))


def test_a_record_of_many_actions_takes_a_sequence_for_each() -> None:
    """The next record has the one behind them; a mark counts them; they are lost or kept together."""
    journal = JournalBytes()
    journal.mark(0)
    journal.batch()
    first = journal.actions(np.concatenate([action_row()] * 3), "a", "bb", "ccc")
    journal.mark(1, actions=3)
    journal.batch()

    scan = Scan(journal.data)
    records = list(scan)

    assert [(record.sequence, record.sequences, is_input(record)) for record in records] == [
        (1, 1, False), (first, 3, True), (5, 1, False),
    ]  # fmt: skip
    assert scan.next_sequence == 6
    for length in range(journal.batches[-1] + 1, records[2].offset):
        torn = Scan(journal.data[:length])
        assert len(list(torn)) == 1
        assert torn.torn is not None
        assert torn.torn.sequence == first


@pytest.mark.parametrize("payload", [b"", b"\0" * 8, struct.pack("<II", 2, 4) + bytes(300), struct.pack("<II", 1, 4)])
def test_a_record_of_actions_of_another_size_is_no_record(payload: bytes) -> None:
    """Its count must be that of what is in it, and at least one: sequences hang on it."""
    journal = JournalBytes()
    journal.mark(0)
    journal.batch()
    journal.add(RecordKind.ACTIONS, payload)
    journal.batch()

    scan = Scan(journal.data)

    assert len(list(scan)) == 1
    assert scan.torn is not None
    assert "has not the size it names" in scan.torn.reason


def test_an_empty_segment_has_no_records() -> None:
    """A header alone is a journal with nothing in it."""
    scan = Scan(encode_segment(5))

    assert list(scan) == []
    assert (scan.next_sequence, scan.end) == (5, SEGMENT_HEADER_SIZE)


def test_the_chain_can_be_continued_from_any_mark() -> None:
    """The value at a mark is all one needs of what came before it."""
    first, second = Chain(), Chain()
    first.add(b"one")
    middle = first.close()
    second.add(b"one")
    second.close()
    second.add(b"two")

    continued = Chain(middle)
    continued.add(b"two")

    assert continued.close() == second.close()
    assert middle != Chain().close()


def test_random_journals_come_back_record_by_record() -> None:
    """Batches of any size, any kinds: what was appended is what is read."""
    draw = random.Random(1)
    journal = JournalBytes()
    expected = []
    for tick in range(50):
        for _ in range(draw.randrange(5)):
            expected.append((journal.action(draw.randrange(9), str(draw.random())), RecordKind.ACTION))
        expected.append((journal.mark(tick), RecordKind.MARK))
        journal.batch()

    found = [(record.sequence, record.kind) for record in Scan(np.frombuffer(journal.data, np.uint8).data)]

    assert found == expected
