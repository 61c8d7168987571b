"""The logs of outside agents as arrays, for a snapshot: who was reading may go on after a restart where it stood."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from engine.messages import ORDER_UPDATE, OUTCOME
from server.live.agent_log import LogCopy
from server.live.agent_records import LEFT_REASONS, Record

LOGS, RECORDS, NUMBERS = "agents.logs", "agents.records", "agents.numbers"
OUTCOMES, UPDATES, NAMES, LENGTHS = "agents.outcomes", "agents.updates", "agents.names", "agents.lengths"
NO_NAME: Final = -1


def to_arrays(logs: Sequence[LogCopy]) -> dict[str, NDArray[Any]]:
    """Return logs as arrays. Records: log, seq, base, counts of fired, outcomes, updates, left."""
    records = [(i, record) for i, log in enumerate(logs) for record in log.records]
    names = [name for _, record in records for name in record.names]
    numbers: list[int] = []
    for _, record in records:
        numbers += record.fired
        numbers += (number for agent, reason in record.left for number in (agent, LEFT_REASONS.index(reason)))
    return {
        LOGS: np.array([log[:3] for log in logs], np.int64).reshape(-1, 3),
        RECORDS: np.array(
            [
                (
                    i, record.seq, record.base, len(record.fired), len(record.names),
                    len(record.updates) // ORDER_UPDATE.itemsize, len(record.left),
                )
                for i, record in records
            ],
            np.int64,
        ).reshape(-1, 7),
        NUMBERS: np.array(numbers, np.int64),
        OUTCOMES: _bytes(b"".join(record.outcomes for _, record in records)),
        UPDATES: _bytes(b"".join(record.updates for _, record in records)),
        NAMES: _bytes("".join(name or "" for name in names).encode()),
        LENGTHS: np.array([NO_NAME if name is None else len(name.encode()) for name in names], np.int16),
    }  # fmt: skip


def from_arrays(arrays: Mapping[str, NDArray[Any]]) -> list[LogCopy]:
    """Return what to_arrays was given; none when a snapshot has none."""
    if LOGS not in arrays:
        return []
    logs = [LogCopy(owner, floor, newest, []) for owner, floor, newest in arrays[LOGS].tolist()]
    numbers, lengths = arrays[NUMBERS].tolist(), arrays[LENGTHS].tolist()
    outcomes, updates, names = (arrays[name].tobytes() for name in (OUTCOMES, UPDATES, NAMES))
    at = name_at = length_at = outcome_at = update_at = 0
    for i, seq, base, fired, decided, changed, left in arrays[RECORDS].tolist():
        taken: list[str | None] = []
        for length in lengths[length_at : length_at + decided]:
            taken.append(None if length == NO_NAME else names[name_at : name_at + length].decode())
            name_at += max(0, length)
        length_at += decided
        outcome_end = outcome_at + decided * OUTCOME.itemsize
        update_end = update_at + changed * ORDER_UPDATE.itemsize
        pairs = numbers[at + fired : at + fired + 2 * left]
        records = logs[i].records
        assert isinstance(records, list)
        records.append(
            Record(
                seq,
                base,
                0,
                tuple(numbers[at : at + fired]),
                outcomes[outcome_at:outcome_end],
                tuple(taken),
                updates[update_at:update_end],
                tuple((agent, LEFT_REASONS[reason]) for agent, reason in zip(pairs[::2], pairs[1::2], strict=True)),
            )
        )
        at, outcome_at, update_at = at + fired + 2 * left, outcome_end, update_end
    return logs


def _bytes(data: bytes) -> NDArray[np.uint8]:
    return np.frombuffer(data, np.uint8)
