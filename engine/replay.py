"""Start state + records -> state: the world again, tick by tick, held to every state hash the journal carries."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from engine.commands import SHAPING, Command, Pause, Resume, decode_command
from engine.economy import NO_ACTIONS, Economy
from engine.errors import EngineError
from engine.events import TickReport
from engine.journal import NO_HASH, Actions, Mark, Record, RecordKind, decode_actions, decode_mark, is_input
from engine.state_bytes import StateBytes, hash_bytes

Hasher = Callable[[memoryview], Callable[[], bytes]]
"""hasher(data) starts to take a state hash over bytes; what it returns gives the hash when called. They stay
as they are until then."""


class HashDiffers(EngineError):
    """The replayed world is not the recorded one from this tick on, or since the last hash before it."""

    def __init__(self, tick: int, expected: bytes, actual: bytes) -> None:
        super().__init__(
            f"the state after tick {tick} has the hash {actual.hex()}, the journal says {expected.hex()}:"
            " the replayed world is not the recorded one"
        )
        self.tick = tick
        self.expected = expected
        self.actual = actual


class Watch:
    """What a replay tells while it runs; every method may be overridden, none needs to be."""

    def record(self, record: Record) -> None:
        """Take a record that is neither an action nor a mark."""

    def actions(self, actions: Actions) -> None:
        """Take the actions of a record, before the tick they belong to."""

    def wants(self, mark: Mark) -> bool:
        """Return whether to be told of the tick that a mark began: whoever is not saves its report."""
        return True

    def tick(self, report: TickReport, mark: Mark) -> None:
        """Take the report of a tick and the mark that began it."""


@dataclass
class Replayed:
    """What a replay did. pending: actions behind the last mark (dtype ACTION): they belong to the next tick.

    commands: those behind the last mark that will shape the world, likewise. is_paused: by the last command about it,
    None when there was none.
    """

    marks: int = 0
    actions: int = 0
    hashes_checked: int = 0
    pending: NDArray[np.void] = field(default_factory=lambda: NO_ACTIONS)
    commands: list[Command] = field(default_factory=list)
    is_paused: bool | None = None


def replay(
    economy: Economy,
    records: Iterable[Record],
    watch: Watch | None = None,
    *,
    hasher: Hasher | None = None,
    check: bool = True,
) -> Replayed:
    """Run an economy at the journal's start state through all records; it ends where the recorded world stood.

    records: read twice, so not a generator (a Scan will do). hasher: for hashing beside the next ticks. check: whether
    the stored hashes are compared; without, the end may differ from the recorded one unnoticed.
    Raises HashDiffers at the first stored hash that is not met, ValueError when the ticks are not consecutive.
    """
    watch = watch or _Nobody()
    hasher = hasher or _hash_now
    wanted = _hashes(records) if check else {}
    running: list[tuple[int, Callable[[], bytes]]] = []
    copied = StateBytes(economy.state)
    done = Replayed()
    rows: list[NDArray[np.void]] = []
    if economy.tick in wanted:
        running.append((economy.tick, hasher(copied.take())))
    for record in records:
        if is_input(record):
            actions = decode_actions(record)
            rows.append(actions.rows)
            watch.actions(actions)
        elif record.kind is RecordKind.MARK:
            mark = decode_mark(record.payload)
            pending, rows = _joined(rows), []
            if mark.tick != economy.tick + 1 or mark.actions != len(pending):
                raise ValueError(
                    f"mark {mark.tick} of {mark.actions} actions, behind tick {economy.tick} and {len(pending)} actions"
                )
            economy.run(pending, commands=done.commands)
            done.marks += 1
            done.actions += len(pending)
            done.commands = []
            if mark.tick in wanted:
                # one at a time: there is one copy
                _settle(running, wanted, done)
                running.append((mark.tick, hasher(copied.take())))
            if watch.wants(mark):
                watch.tick(economy.report(), mark)
        else:
            if record.kind is RecordKind.COMMAND:
                _take(done, decode_command(record.payload))
            watch.record(record)
    _settle(running, wanted, done)
    done.pending = _joined(rows)
    return done


class _Nobody(Watch):
    """Wants to be told nothing."""

    def wants(self, mark: Mark) -> bool:
        """Return that it does not."""
        return False


def _take(done: Replayed, command: Command) -> None:
    if isinstance(command, SHAPING):
        done.commands.append(command)
    elif isinstance(command, (Pause, Resume)):
        done.is_paused = isinstance(command, Pause)


def _hashes(records: Iterable[Record]) -> dict[int, bytes]:
    """Return the stored hashes by tick; a first reading, because a hash stands behind the tick it is about."""
    marks = (decode_mark(record.payload) for record in records if record.kind is RecordKind.MARK)
    return {mark.hashed_tick: mark.state_hash for mark in marks if mark.hashed_tick != NO_HASH}


def _settle(running: list[tuple[int, Callable[[], bytes]]], wanted: dict[int, bytes], done: Replayed) -> None:
    while running:
        tick, hashed = running.pop()
        actual = hashed()
        if actual != wanted[tick]:
            raise HashDiffers(tick, wanted[tick], actual)
        done.hashes_checked += 1


def _joined(rows: list[NDArray[np.void]]) -> NDArray[np.void]:
    return np.concatenate(rows) if rows else NO_ACTIONS


def _hash_now(data: memoryview) -> Callable[[], bytes]:
    value = hash_bytes(data)
    return lambda: value
