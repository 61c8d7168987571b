"""A small world that lives by hand with its journal in memory: what a fork starts from."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.economy import NO_ACTIONS, Economy
from engine.events import TickReport
from engine.fork import Branch, Forked, Interventions, admitted, fork, inputs
from engine.journal import NO_HASH, Record, Scan
from engine.messages import Kind, Status
from tests.support.journals import JournalBytes, action_row
from tests.support.worlds import RandomBots, small_config

BEGIN = 30
"""The tick that recorded worlds begin after."""
SEED = 7


class Recorded:
    """A world and everything that came into it.

    hashes: after every tick, all of them journaled. slots: where each agent sat that was let in, by number.
    """

    def __init__(self, **changes: Any) -> None:
        self.config = small_config(**changes)
        self.economy = Economy(self.config, SEED)
        for _ in range(BEGIN + 1):
            self.economy.advance()
        self.start = self.economy.copy_arrays()
        self.journal = JournalBytes()
        self.hashes: dict[int, bytes] = {}
        self.slots: dict[int, int] = {}

    def tick(self, *rows: NDArray[np.void]) -> NDArray[np.void]:
        """Live a tick under actions, journal them, and return their outcomes. An agent 0 registers under its seq."""
        taken: list[NDArray[np.void]] = []
        for row in rows:
            if row["kind"] == Kind.REGISTER and row["agent_id"] == 0:
                row["agent_id"] = self.journal.next_sequence + len(taken)
            taken.append(row)
        tick = self.economy.tick
        self._journal(taken, is_batch=tick % 2 == 0)
        hashed = (tick, self.hashes[tick]) if tick in self.hashes else (NO_HASH, bytes(16))
        self.journal.mark(tick + 1, len(rows), hashed)
        report = self.economy.advance(np.concatenate(rows) if rows else NO_ACTIONS)
        self.hashes[tick + 1] = self.economy.state_hash()
        for outcome in report.outcomes:
            if outcome["kind"] == Kind.REGISTER and outcome["status"] == Status.DONE:
                self.slots[int(outcome["agent_id"])] = int(outcome["available"])
        return report.outcomes

    def _journal(self, rows: list[NDArray[np.void]], *, is_batch: bool) -> None:
        """Journal actions one by one, or in one record, as a batch without registrations is."""
        if not is_batch or len(rows) < 2 or any(row["kind"] == Kind.REGISTER for row in rows):
            for row in rows:
                self.journal.action(row=row)
            return
        joined = np.concatenate(rows)
        self.journal.actions(joined, *(str(i) for i in range(len(rows))))
        for row, seq in zip(rows, joined["seq"].tolist(), strict=True):
            row["seq"] = seq

    def join(self, owner: int = 0) -> int:
        """Live a tick in which an agent registers, and return its number."""
        return int(self.tick(action_row(0, Kind.REGISTER, owner=owner))["agent_id"][0])

    def records(self) -> list[Record]:
        """Return everything that follows the start."""
        self.journal.batch()
        return list(Scan(bytes(self.journal.data)))

    def at_start(self) -> Economy:
        """Return the world as the journal begins."""
        return Economy(self.config, SEED, start=self.start)

    def fork(self, interventions: Interventions | None = None, *, ticks: int | None = None, copies: int = 1) -> Forked:
        """Fork at the start."""
        return fork(self.at_start(), self.records(), interventions or Interventions(), ticks=ticks, copies=copies)

    def branch(self, interventions: Interventions, ticks: int | None = None) -> Iterator[tuple[TickReport, Economy]]:
        """Yield report and branch after every tick. ticks: how many, as many as were recorded unless given."""
        original, branch = self.at_start(), Branch(self.at_start(), interventions, spare=len(self.slots))
        coming = inputs(self.records(), BEGIN)
        for _ in range(len(self.hashes) if ticks is None else ticks):
            given = next(coming)
            report = original.advance(given.rows)
            yield branch.advance(given._replace(rows=admitted(given.rows, report))), branch.economy


def busy(ticks: int = 80, *, agents: int = 12, count: int = 20, seed: int = 3, **changes: Any) -> Recorded:
    """Return a world in which random bots did everything they may, from its first tick on."""
    world = Recorded(**changes)
    bots = RandomBots(agents, seed)
    for _ in range(ticks):
        rows = bots.rows(world.economy, count)
        world.tick(*(rows[i : i + 1] for i in range(len(rows))))
    return world
