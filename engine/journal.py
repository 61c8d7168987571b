"""The journal as bytes: records to bytes and back, the chain over them, and what is damage and what a torn tail.

A journal is a row of segments; each begins where the one before ends, with the chain value of all that came before. A
segment is a header and then records. What is written and synced together is a batch: a BATCH record, then the records
it announces. A batch begins only when everything before it is durable, so bytes that are wrong *before* the
last batch were good once: that is damage and refused. Bytes that are wrong inside the last batch may never have
reached the disk, and nobody was told they did: that is a torn tail, to be cut. A segment is only begun when the one
before is durable to its end, so only the last one can be torn.

    segment = magic 8s | version u32 | 0 u32 | first sequence u64 | chain 32s | crc32 u32 of the bytes before
    record  = length u32 | crc32 u32 | sequence u64 | kind u8 | payload

A record's length and crc32 are those of its sequence and what follows. All integers are little-endian. A record takes
one sequence, ACTIONS one for each action in it; the next record has the one behind them. A BATCH has the sequence of
the record behind it and takes none itself. Source: DESIGN D8, D19, R5.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Iterator, Sequence
from enum import IntEnum
from hashlib import blake2b
from typing import Any, NamedTuple
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from engine.errors import JournalDamaged
from engine.messages import ACTION

MAGIC = b"ARENAJ\r\n"
"""The line break is there to be ruined by any transfer that translates text."""
FORMAT_VERSION = 3
FINGERPRINT_SIZE = 16
KEY_HASH_SIZE = 32
CHAIN_START = bytes(32)
"""The chain value before the first record."""
NO_HASH = -1
"""Mark.hashed_tick of a mark that carries no state hash."""
RECORD_SIZE_MAX = 1 << 20
"""No record is longer, so a longer length is a wrong one."""

_SEGMENT = struct.Struct("<8sIIQ32sI")
_VERSION = struct.Struct("<8sI")
_FRAME = struct.Struct("<II")
_HEAD = struct.Struct("<QB")
_RECORD = struct.Struct("<IIQB")
_KEY = struct.Struct("<qq32s32s")
_ACTIONS = struct.Struct("<II")
_MARK = struct.Struct("<qqIq16s32s")
# not valid UTF-8, so that no text in another record can look like the beginning of a batch
_SYNC_MARK = b"\xff\xfeBATCH\xfe"
_BATCH = struct.Struct("<8sQQ")
SEGMENT_HEADER_SIZE = _SEGMENT.size
BATCH_RECORD_SIZE = _RECORD.size + _BATCH.size


class RecordKind(IntEnum):
    """What a record holds."""

    BATCH = 0
    GENESIS = 1
    KEY = 2
    ACTION = 3
    MARK = 4
    CLEAN_STOP = 5
    EPOCH = 6
    COMMAND = 7
    ACTIONS = 8


class Record(NamedTuple):
    """A record as read. payload: a view of the journal's bytes; offset: of the record in them.

    sequences: how many it takes, from `sequence` on.
    """

    sequence: int
    kind: RecordKind
    payload: memoryview
    offset: int
    sequences: int = 1


class Genesis(NamedTuple):
    """What a world begins with. config: by field name; seed: hexadecimal; created: ISO 8601, for people."""

    engine_version: int
    layout_version: int
    config: dict[str, Any]
    seed: str
    epoch: str
    start_tick: int
    start_hash: str
    created: str


class NewEpoch(NamedTuple):
    """From here on the timeline has another name: what followed its parent's tick once was lost or put aside, or is
    computed by another engine.

    epoch: the new one. parent_epoch, parent_tick, parent_chain: what it goes on from, the chain in hexadecimal.
    engine_version: of who computes what follows. reason, created: for people.
    """

    epoch: str
    parent_epoch: str
    parent_tick: int
    parent_chain: str
    engine_version: int
    reason: str
    created: str


class KeyRecord(NamedTuple):
    """An API key was issued for a registration. revoked: hash of the key that ends with it, or zeros."""

    owner: int
    registration: int
    key_hash: bytes
    revoked: bytes


class Actions(NamedTuple):
    """Accepted inputs in their order: one of a record ACTION, or all of a record ACTIONS.

    rows: shape (n,), dtype ACTION. fingerprints: shape (n, 2), words that identify what was asked for. names:
    client_action_ids, shape (n, width), filled up with zero bytes; of a registration the hash of its Idempotency-Key.
    """

    rows: NDArray[np.void]
    fingerprints: NDArray[np.uint64]
    names: NDArray[np.uint8]

    @property
    def client_action_ids(self) -> list[str]:
        """The names as texts."""
        return [bytes(name).rstrip(b"\0").decode() for name in self.names]


class Mark(NamedTuple):
    """The end of a tick's input: every action before it, back to the mark before, belongs to tick.

    unix_ns: wall clock when it was made, for people; it shapes nothing. hashed_tick: an earlier tick whose state hash
    travels here, or NO_HASH. chain: chain value over all records before this one.
    """

    tick: int
    unix_ns: int
    actions: int
    hashed_tick: int
    state_hash: bytes
    chain: bytes


class Torn(NamedTuple):
    """A tail that never became durable: bytes from offset on are to be cut; sequence is the first one lost."""

    offset: int
    sequence: int
    reason: str


def encode_segment(first_sequence: int, chain: bytes = CHAIN_START) -> bytes:
    """Return the header of a segment whose first record has that sequence; chain: value over all records before."""
    head = _SEGMENT.pack(MAGIC, FORMAT_VERSION, 0, first_sequence, chain, 0)[:-4]
    return head + struct.pack("<I", crc32(head))


def encode(sequence: int, kind: RecordKind, payload: bytes) -> bytes:
    """Return the bytes of a record."""
    body = _HEAD.pack(sequence, kind) + payload
    return _FRAME.pack(len(body), crc32(body)) + body


def encode_batch(first: int, last: int, durable: int) -> bytes:
    """Return the BATCH record before records first..last, written when everything up to durable is on disk."""
    return encode(first, RecordKind.BATCH, _BATCH.pack(_SYNC_MARK, durable, last))


def encode_genesis(genesis: Genesis) -> bytes:
    """Return the payload of GENESIS: canonical JSON."""
    return json.dumps(genesis._asdict(), sort_keys=True, separators=(",", ":")).encode()


def decode_genesis(payload: memoryview) -> Genesis:
    """Return what encode_genesis was given. Raises ValueError when it is something else."""
    try:
        return Genesis(**json.loads(bytes(payload)))
    except TypeError as error:
        raise ValueError(f"not a genesis record: {error}") from error


def encode_epoch(epoch: NewEpoch) -> bytes:
    """Return the payload of EPOCH: canonical JSON."""
    return json.dumps(epoch._asdict(), sort_keys=True, separators=(",", ":")).encode()


def decode_epoch(payload: memoryview) -> NewEpoch:
    """Return what encode_epoch was given. Raises ValueError when it is something else."""
    try:
        return NewEpoch(**json.loads(bytes(payload)))
    except TypeError as error:
        raise ValueError(f"not an epoch record: {error}") from error


def encode_key(record: KeyRecord) -> bytes:
    """Return the payload of KEY."""
    return _KEY.pack(*record)


def decode_key(payload: memoryview) -> KeyRecord:
    """Return what encode_key was given."""
    return KeyRecord(*_KEY.unpack(payload))


def encode_action(row: bytes, fingerprint: bytes, client_action_id: str) -> bytes:
    """Return the payload of ACTION. row: bytes of dtype ACTION; fingerprint: 16 bytes."""
    return row + fingerprint + client_action_id.encode()


def encode_actions(actions: Actions) -> bytes:
    """Return the payload of ACTIONS; rows have the sequences of the record, from its own on.

    n u32 | width u32 | n rows | n fingerprints | n names of width bytes
    """
    rows, fingerprints, names = actions
    return b"".join(
        (
            _ACTIONS.pack(len(rows), names.shape[1]),
            rows.tobytes(),
            fingerprints.astype("<u8", copy=False).tobytes(),
            names.tobytes(),
        )
    )


def decode_actions(record: Record) -> Actions:
    """Return the inputs of a record ACTION or ACTIONS, copied: arrays that can be written."""
    if record.kind is RecordKind.ACTION:
        count, width, at = 1, len(record.payload) - ACTION.itemsize - FINGERPRINT_SIZE, 0
    else:
        (count, width), at = _ACTIONS.unpack_from(record.payload), _ACTIONS.size
    rows = np.frombuffer(record.payload, ACTION, count, at).copy()
    at += rows.nbytes
    fingerprints = np.frombuffer(record.payload, "<u8", 2 * count, at).astype(np.uint64).reshape(count, 2)
    at += count * FINGERPRINT_SIZE
    names = np.frombuffer(record.payload, np.uint8, count * width, at).copy().reshape(count, width)
    return Actions(rows, fingerprints, names)


def is_input(record: Record) -> bool:
    """Whether a record holds actions."""
    return record.kind is RecordKind.ACTION or record.kind is RecordKind.ACTIONS


def row_bytes(record: Record) -> memoryview:
    """Return the bytes of the rows of a record ACTION or ACTIONS; no copy."""
    at = 0 if record.kind is RecordKind.ACTION else _ACTIONS.size
    return record.payload[at : at + record.sequences * ACTION.itemsize]


def encode_mark(mark: Mark) -> bytes:
    """Return the payload of MARK."""
    return _MARK.pack(*mark)


def decode_mark(payload: memoryview) -> Mark:
    """Return what encode_mark was given."""
    return Mark(*_MARK.unpack(payload))


class Chain:
    """A hash over all records so far, closed at every mark: value = BLAKE2b-256(value before | records since).

    It can be continued from any mark's value, so archived segments need not be read again.
    """

    def __init__(self, value: bytes = CHAIN_START) -> None:
        self._running = blake2b(value, digest_size=32)

    def add(self, record: bytes | memoryview) -> None:
        """Take in the whole bytes of a record; BATCH records are framing and stay out."""
        self._running.update(record)

    @property
    def value(self) -> bytes:
        """The value over everything added so far."""
        return self._running.digest()

    def close(self) -> bytes:
        """Return the value over everything added so far, and continue from it."""
        value = self.value
        self._running = blake2b(value, digest_size=32)
        return value


def chain_behind(record: Record) -> bytes:
    """Return the chain value behind a mark: over all records up to the mark, and the mark itself."""
    chain = Chain(decode_mark(record.payload).chain)
    chain.add(encode(record.sequence, record.kind, bytes(record.payload)))
    return chain.close()


class Scan:
    """All records of one segment in order, BATCH records left out; may be read any number of times.

    data: the segment's bytes (a memory map will do). path: named in errors. first_chain: value before the first record.
    After a reading that ran to its end: `end` is the offset behind the last good record, `next_sequence` what comes
    next, `torn` the tail to cut or None, `is_clean` whether the last record is a clean stop, `chain` the running
    chain. Reading raises JournalDamaged for bytes that were durable once, and for a mark whose chain value differs.
    """

    def __init__(self, data: bytes | bytearray | memoryview, path: str = "journal") -> None:
        self.data = memoryview(data)
        self.path = path
        self.end = SEGMENT_HEADER_SIZE
        self.first_sequence, self.first_chain = _segment_start(self.data, path)
        self.next_sequence = self.first_sequence
        self.torn: Torn | None = None
        self.is_clean = False
        self.chain = Chain(self.first_chain)

    def __iter__(self) -> Iterator[Record]:
        self.end = SEGMENT_HEADER_SIZE
        self.next_sequence = self.first_sequence
        self.torn = None
        self.is_clean = False
        self.chain = Chain(self.first_chain)
        promised = self.first_sequence - 1
        while self.end < len(self.data):
            record = self._read()
            if isinstance(record, str):
                self._stop(record)
                return
            self.end += _FRAME.size + _HEAD.size + len(record.payload)
            if record.kind is RecordKind.BATCH:
                promised = _BATCH.unpack(record.payload)[2]
                continue
            self._follow(record)
            yield record
        if promised >= self.next_sequence:
            self.torn = Torn(self.end, self.next_sequence, f"the file ends before record {promised}")

    def _read(self) -> Record | str:
        """Return the record at self.end, or what is wrong with it."""
        offset = self.end
        if offset + _RECORD.size > len(self.data):
            return "the file ends inside a record's head"
        length, checksum, sequence, number = _RECORD.unpack_from(self.data, offset)
        if not _HEAD.size <= length <= RECORD_SIZE_MAX:
            return f"a record of {length} bytes"
        body = self.data[offset + _FRAME.size : offset + _FRAME.size + length]
        if len(body) < length:
            return "the file ends inside a record"
        if crc32(body) != checksum:
            return "the checksum of a record is wrong"
        try:
            kind = RecordKind(number)
        except ValueError:
            return f"a record of unknown kind {number}"
        if sequence != self.next_sequence:
            return f"a record numbered {sequence} where {self.next_sequence} comes next"
        payload = body[_HEAD.size :]
        count = _count(payload) if kind is RecordKind.ACTIONS else 1
        if not count:
            return "a record of actions that has not the size it names"
        return Record(sequence, kind, payload, offset, count)

    def _follow(self, record: Record) -> None:
        if record.kind is RecordKind.MARK and decode_mark(record.payload).chain != self.chain.close():
            raise JournalDamaged(self.path, record.offset, "the chain over all records so far is not the mark's")
        self.chain.add(self.data[record.offset : self.end])
        self.next_sequence += record.sequences
        self.is_clean = record.kind is RecordKind.CLEAN_STOP

    def _stop(self, reason: str) -> None:
        """Decide whether bad bytes at self.end are damage or a torn tail."""
        later = _durable_batch(self.data, self.end, self.next_sequence)
        if later is not None:
            raise JournalDamaged(self.path, self.end, f"{reason}, and a good batch begins behind it at byte {later}")
        self.torn = Torn(self.end, self.next_sequence, reason)


class Segments:
    """The records of consecutive segments as one sequence; may be read any number of times.

    openers: give the Scan of each segment, oldest first, at least one. first: records before it are passed over, but
    held to the chain like the others. After a reading that ran to its end: path, end,
    next_sequence, torn, is_clean and chain as of the last Scan. Reading raises JournalDamaged as a Scan does, and for
    a segment that is torn though others follow, or that does not begin where the one before ends.
    """

    def __init__(self, openers: Sequence[Callable[[], Scan]], first: int = 0) -> None:
        self._openers = openers
        self._first = first
        self._last = openers[0]()
        self.is_clean = False

    def __iter__(self) -> Iterator[Record]:
        self.is_clean = False
        before: Scan | None = None
        for opener in self._openers:
            scan = self._last = opener()
            if before is not None:
                _follows(before, scan)
            for record in scan:
                if record.sequence >= self._first:
                    yield record
            if scan.next_sequence > scan.first_sequence:
                self.is_clean = scan.is_clean
            before = scan

    @property
    def path(self) -> str:
        """The segment that was read last."""
        return self._last.path

    @property
    def end(self) -> int:
        """The offset in it behind the last good record."""
        return self._last.end

    @property
    def next_sequence(self) -> int:
        """The sequence of the record that comes next."""
        return self._last.next_sequence

    @property
    def torn(self) -> Torn | None:
        """The tail to cut."""
        return self._last.torn

    @property
    def chain(self) -> Chain:
        """The running chain."""
        return self._last.chain


def _follows(before: Scan, scan: Scan) -> None:
    if before.torn is not None:
        raise JournalDamaged(before.path, before.torn.offset, f"{before.torn.reason}, and {scan.path} follows it")
    if scan.first_sequence != before.next_sequence:
        raise JournalDamaged(
            scan.path, 0, f"begins with record {scan.first_sequence}, {before.path} ends before {before.next_sequence}"
        )
    if scan.first_chain != before.chain.close():
        raise JournalDamaged(scan.path, 0, f"its chain is not that of the records of {before.path}")


def _count(payload: memoryview) -> int:
    """Return how many actions a record ACTIONS holds, 0 when its size is not that of so many."""
    if len(payload) < _ACTIONS.size:
        return 0
    count, width = _ACTIONS.unpack_from(payload)
    return int(count) if len(payload) == _ACTIONS.size + count * (ACTION.itemsize + FINGERPRINT_SIZE + width) else 0


def _segment_start(data: memoryview, path: str) -> tuple[int, bytes]:
    """Return the first sequence of a segment and the chain value before it. Raises JournalDamaged for other bytes."""
    if len(data) < _VERSION.size:
        raise JournalDamaged(path, 0, "shorter than its header")
    magic, version = _VERSION.unpack_from(data)
    if magic != MAGIC:
        raise JournalDamaged(path, 0, "not a journal")
    # asked first: another version's header may have another size
    if version != FORMAT_VERSION:
        raise JournalDamaged(path, 0, f"format version {version}, this release reads {FORMAT_VERSION}")
    if len(data) < _SEGMENT.size:
        raise JournalDamaged(path, 0, "shorter than its header")
    *_, first, chain, checksum = _SEGMENT.unpack_from(data)
    if checksum != crc32(data[: _SEGMENT.size - 4]):
        raise JournalDamaged(path, 0, "the checksum of the header is wrong")
    return int(first), bytes(chain)


def _durable_batch(data: memoryview, start: int, lost: int) -> int | None:
    """Return the offset of a whole BATCH record behind start that proves record `lost` was durable, or None."""
    window = 1 << 20
    position = start
    while position < len(data):
        # windows overlap by a mark's length, so that none hides on a border
        chunk = bytes(data[position : position + window + len(_SYNC_MARK)])
        found = chunk.find(_SYNC_MARK)
        if found < 0:
            position += window
            continue
        offset = position + found - _RECORD.size
        position += found + 1
        if offset < start or offset + BATCH_RECORD_SIZE > len(data):
            continue
        length, checksum, _, kind = _RECORD.unpack_from(data, offset)
        body = data[offset + _FRAME.size : offset + BATCH_RECORD_SIZE]
        if length == len(body) and kind == RecordKind.BATCH and crc32(body) == checksum:
            durable = _BATCH.unpack(body[_HEAD.size :])[1]
            if durable >= lost:
                return offset
    return None
