"""What happened to outside agents, as it is kept: records by owner, and the last ticks as they were reported.

The first ticks of a server are kept whole, with those it replayed: nobody knows yet whose reader will come back, and
making records of all would take longer than a tick. An owner's are found in them by its agents when it does.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from engine.events import TickReport
from engine.messages import Kind

Ints = NDArray[np.int64]

PART_BITS: Final = 12
LAST_PART: Final = (1 << PART_BITS) - 1
"""A position is tick x 4,096 + part: what happened to an owner with thousands of agents in a tick takes several frames.
The last part stands for the end of the tick."""
PART_ENTRIES: Final = 256
"""Entries of a record: about 60 KB as msgpack, so that a slow reader's buffer holds whole frames."""
RECORD_BYTES: Final = 400
"""What a record costs beside its rows and names (measured: 380 with one outcome)."""
NAME_BYTES: Final = 60
ROWS_MAX: Final = 200_000
"""Outcomes and updates that are kept of everybody's ticks: 55 MB with their names, for half a minute."""

LEFT_REASONS: Final = ("expired", "defaulted")
LEFT = dict(zip(("agent_expired", "agent_defaulted"), LEFT_REASONS, strict=True))
"""Events of agents that left without having asked, and what they are called here."""


def end_of(tick: int) -> int:
    """Return the position behind everything that happened in a tick."""
    return tick << PART_BITS | LAST_PART


class Record(NamedTuple):
    """What happened to an owner's agents in a tick, or a part of it, in this order: fired, outcomes, updates, left.

    seq: its position; base: of the record before it, between them is nothing. unix_ns: when the tick was published, 0
    before this start. outcomes, updates: rows of the tick's report. names: client_action_id by outcome, None for what
    has none. left: agent and why.
    """

    seq: int
    base: int
    unix_ns: int
    fired: tuple[int, ...]
    outcomes: bytes
    names: tuple[str | None, ...]
    updates: bytes
    left: tuple[tuple[int, str], ...]

    @property
    def size(self) -> int:
        """Bytes it takes in memory, about."""
        rows = len(self.outcomes) + len(self.updates) + 64 * (len(self.fired) + len(self.left))
        return RECORD_BYTES + rows + NAME_BYTES * len(self.names)


class Gathered:
    """What a tick did to one owner's agents: places of rows in the report; agents: all it happened to."""

    __slots__ = ("agents", "fired", "left", "outcomes", "updates")

    def __init__(self) -> None:
        self.agents: set[int] = set()
        self.fired: list[int] = []
        self.outcomes: list[int] = []
        self.updates: list[int] = []
        self.left: list[tuple[int, str]] = []

    def parts(self) -> Iterator[tuple[list[int], list[int], list[int], list[tuple[int, str]]]]:
        """Yield it in parts of PART_ENTRIES."""
        total = len(self.fired) + len(self.outcomes) + len(self.updates) + len(self.left)
        if total <= PART_ENTRIES:
            yield self.fired, self.outcomes, self.updates, self.left
            return
        kinds = (iter(self.fired), iter(self.outcomes), iter(self.updates), iter(self.left))
        for start in range(0, total, PART_ENTRIES):
            room = min(PART_ENTRIES, total - start)
            taken = []
            for rows in kinds:
                taken.append(list(islice(rows, room)))
                room -= len(taken[-1])
            yield tuple(taken)  # type: ignore[misc]  # four lists, of the types above


class Names:
    """client_action_ids by sequence: runs of sequences one after another, as they were accepted."""

    __slots__ = ("_firsts", "_runs")

    def __init__(self, firsts: list[int] | None = None, runs: list[NDArray[np.uint8]] | None = None) -> None:
        self._firsts = firsts or []
        self._runs = runs or []

    def add(self, first: int, names: NDArray[np.uint8]) -> None:
        """Add a run behind all others. first: its first sequence; names: as in engine.journal.Actions."""
        self._firsts.append(first)
        self._runs.append(names)

    def take(self, last: int) -> Names:
        """Return the runs that begin at or before a sequence, and forget them."""
        end = bisect_right(self._firsts, last)
        taken = Names(self._firsts[:end], self._runs[:end])
        del self._firsts[:end], self._runs[:end]
        return taken

    def get(self, seq: int) -> str | None:
        """Return the name of an action, None for what has none."""
        at = bisect_right(self._firsts, seq) - 1
        if at < 0 or seq - self._firsts[at] >= len(self._runs[at]):
            return None
        return bytes(self._runs[at][seq - self._firsts[at]]).rstrip(b"\0").decode()


class Tick(NamedTuple):
    """A tick as it was reported. names: of its actions; unix_ns: as of a record."""

    report: TickReport
    names: Names
    unix_ns: int


class Recent:
    """The last ticks of everybody, at most so many and with at most ROWS_MAX rows. began: the tick before the first."""

    def __init__(self, keep_ticks: int) -> None:
        self.began = -1
        self._keep_ticks = keep_ticks
        self._ticks: deque[Tick] = deque()
        self._rows = 0
        self._index: tuple[_Index, _Index] | None = None

    def __len__(self) -> int:
        return len(self._ticks)

    def add(self, tick: Tick) -> None:
        """Add the next tick."""
        if not self._ticks:
            self.began = tick.report.tick - 1
        self._ticks.append(tick)
        self._rows += len(tick.report.outcomes) + len(tick.report.updates)
        while len(self._ticks) > self._keep_ticks or (len(self._ticks) > 1 and self._rows > ROWS_MAX):
            self._forget_oldest()
        self._index = None

    def shed(self, ticks: int) -> None:
        """Forget so many of the oldest."""
        for _ in range(min(ticks, len(self._ticks))):
            self._forget_oldest()
        self._index = None

    def _forget_oldest(self) -> None:
        gone = self._ticks.popleft().report
        self._rows -= len(gone.outcomes) + len(gone.updates)
        self.began = gone.tick

    def departed(self) -> Iterator[int]:
        """Yield the agents that left in these ticks."""
        for tick in self._ticks:
            outcomes = tick.report.outcomes
            yield from outcomes["agent_id"][outcomes["kind"] == Kind.UNREGISTER].tolist()
            yield from (event.data["agent"] for event in tick.report.events if event.name in LEFT)

    def of(self, agents: Iterable[int]) -> Iterator[tuple[Tick, Gathered]]:
        """Yield the ticks in which something happened to any of the agents, oldest first, and what."""
        wanted = set(agents)
        if self._index is None:
            self._index = (
                _Index([tick.report.outcomes["agent_id"] for tick in self._ticks]),
                _Index([tick.report.updates["agent_id"] for tick in self._ticks]),
            )
        outcomes, updates = (index.of(wanted) for index in self._index)
        for i, tick in enumerate(self._ticks):
            found = Gathered()
            found.agents = wanted
            found.outcomes, found.updates = outcomes.get(i, []), updates.get(i, [])
            found.fired = [agent for agent in tick.report.fired.tolist() if agent in wanted]
            found.left = [
                (event.data["agent"], LEFT[event.name])
                for event in tick.report.events
                if event.name in LEFT and event.data["agent"] in wanted
            ]
            if found.outcomes or found.updates or found.fired or found.left:
                yield tick, found


class _Index:
    """Rows of several ticks by agent. columns: the agents of each tick's rows."""

    def __init__(self, columns: list[Ints]) -> None:
        agents = np.concatenate(columns) if columns else np.zeros(0, np.int64)
        self._order = np.argsort(agents, kind="stable")
        self._agents = agents[self._order]
        self._starts = np.cumsum([0, *map(len, columns)])

    def of(self, agents: set[int]) -> dict[int, list[int]]:
        """Return the rows of agents by tick, rising."""
        asked = np.array(sorted(agents), np.int64)
        firsts, ends = np.searchsorted(self._agents, asked), np.searchsorted(self._agents, asked, side="right")
        pieces = [
            self._order[first:end] for first, end in zip(firsts.tolist(), ends.tolist(), strict=True) if first < end
        ]
        found: dict[int, list[int]] = {}
        if pieces:
            places = np.sort(np.concatenate(pieces))
            ticks = np.searchsorted(self._starts, places, side="right") - 1
            for tick, row in zip(ticks.tolist(), (places - self._starts[ticks]).tolist(), strict=True):
                found.setdefault(tick, []).append(row)
        return found
