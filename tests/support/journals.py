"""Journals in memory for tests: batches of records as the writer would lay them down."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from engine.journal import (
    NO_HASH,
    Actions,
    Chain,
    Mark,
    RecordKind,
    encode,
    encode_action,
    encode_actions,
    encode_batch,
    encode_mark,
    encode_segment,
)
from engine.messages import ACTION, Kind


class JournalBytes:
    """A growing journal; every call of batch() ends one."""

    def __init__(self) -> None:
        self.data = bytearray(encode_segment(1))
        self.next_sequence = 1
        self.durable = 0
        self.chain = Chain()
        self.batches: list[int] = []
        """Offset of each batch."""
        self._open: list[bytes] = []

    def add(self, kind: RecordKind, payload: bytes, count: int = 1) -> int:
        """Append a record to the open batch and return its sequence."""
        record = encode(self.next_sequence, kind, payload)
        self.chain.add(record)
        self._open.append(record)
        self.next_sequence += count
        return self.next_sequence - count

    def mark(self, tick: int, actions: int = 0, hashed: tuple[int, bytes] = (NO_HASH, bytes(16))) -> int:
        """Append a mark."""
        mark = Mark(tick, 1_700_000_000_000_000_000, actions, *hashed, self.chain.close())
        return self.add(RecordKind.MARK, encode_mark(mark))

    def action(self, agent: int = 1, client_action_id: str = "a", row: NDArray[np.void] | None = None) -> int:
        """Append an action."""
        row = action_row(agent) if row is None else row
        row["seq"] = self.next_sequence
        return self.add(RecordKind.ACTION, encode_action(row.tobytes(), bytes(16), client_action_id))

    def actions(self, rows: NDArray[np.void], *client_action_ids: str) -> int:
        """Append one record of several actions and return the sequence of the first."""
        rows["seq"] = self.next_sequence + np.arange(len(rows))
        return self.add(RecordKind.ACTIONS, encode_actions(some_actions(rows, *client_action_ids)), len(rows))

    def batch(self) -> JournalBytes:
        """Lay the open batch down."""
        last = self.next_sequence - 1
        self.batches.append(len(self.data))
        self.data += encode_batch(self.durable + 1, last, self.durable) + b"".join(self._open)
        self.durable = last
        self._open = []
        return self


def some_actions(rows: NDArray[np.void], *client_action_ids: str) -> Actions:
    """Return actions under these ids; their fingerprints are their numbers."""
    names = np.array([name.encode() for name in client_action_ids])
    prints = np.arange(2 * len(rows), dtype=np.uint64).reshape(-1, 2)
    return Actions(rows, prints, names.view(np.uint8).reshape(len(rows), -1))


def action_row(agent: int = 1, kind: Kind = Kind.LIMIT, **fields: object) -> NDArray[np.void]:
    """Return an action as the door makes it: shape (1,), no sequence yet."""
    row = np.zeros(1, ACTION)
    row["agent_id"], row["kind"], row["market"], row["valid_until"] = agent, kind, -1, 600
    for name, value in fields.items():
        row[name] = value
    return row
