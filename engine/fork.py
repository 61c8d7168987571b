"""What would have happened if: a recorded world run on from a tick under interventions, beside the world as it was.

    economy after tick T + the records behind it  ->  original (as recorded)  and  branch (with interventions)

What makes the two comparable: everybody's inputs come as recorded, at their ticks, in their order. A registration
the original let in is let in by the branch and gets the same slot; one it refused stays out. So ids and slots of
everybody are what they were, also behind an agent that is left out: its places stay empty. An added action comes
behind the recorded ones of its tick and takes the next sequence number, as it would have in the journal; the numbers
(and so the order ids) behind it move up by one, the ids of agents do not. Nothing changed is the original, hash for
hash.
Copies: the same two worlds under another seed from T on, derived from the world's own; copy 0 has the world's own.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from hashlib import blake2b
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from engine.commands import CHANGEABLE, SHAPING, Command, decode_command
from engine.config import Config, checked
from engine.economy import NO_ACTIONS, Economy
from engine.effects import Effects, Sampler, catalogue, rows_of
from engine.errors import SettingError
from engine.events import TickReport
from engine.journal import Record, RecordKind, decode_actions, decode_mark, is_input, row_bytes
from engine.messages import ACTION, Kind, Status
from engine.phases.emission import inject_event
from engine.replay import HashDiffers
from engine.state import SLOTS_USED

Actions = NDArray[np.void]

ADDED_AGENTS = 1 << 52
"""Number of the first agent that only a branch knows; no recorded one comes near it."""
CHUNK_TICKS = 600
"""Ticks that all worlds run before the next are read: what is kept of the record at a time."""
AGENTS_MAX = 100
"""Agents whose wealth is compared, at most."""

_NUMBERED = (Kind.CANCEL, Kind.REPLACE)


class Change(NamedTuple):
    """A setting takes a value before a tick."""

    tick: int
    name: str
    value: float | int | bool


class Injection(NamedTuple):
    """A discovery or catastrophe happens at the end of a tick, as one drawn by chance would. See inject_event."""

    tick: int
    name: str
    resource: int
    size: float
    kind: str


class Addition(NamedTuple):
    """An action is added to a tick. row: shape (1,), dtype ACTION, seq unused.

    Its agent is a recorded one, or one from ADDED_AGENTS on, registered by an addition before. order_id of a cancel
    or replace: a recorded order's, or -1 - i for the order that additions[i] placed.
    """

    tick: int
    row: Actions


@dataclass(frozen=True, kw_only=True)
class Interventions:
    """What a branch does differently. without: numbers of agents whose registrations and actions are left out.

    without_commands: whether what an operator did to the recorded world is left out too.
    Raises SettingError for a setting that cannot be changed or a value out of its bounds.
    """

    without: frozenset[int] = frozenset()
    without_commands: bool = False
    changes: tuple[Change, ...] = ()
    injections: tuple[Injection, ...] = ()
    additions: tuple[Addition, ...] = ()

    def __post_init__(self) -> None:
        bounds = {item.name: item.metadata for item in fields(Config)}
        for change in self.changes:
            if change.name not in CHANGEABLE:
                raise SettingError("name", change.name, f"one of {', '.join(CHANGEABLE)}")
            checked(change.name, change.value, bounds[change.name])


@dataclass
class Survey:
    """What a record holds, read once before any tick is run.

    first_tick, last_tick: of its marks (last < first: none). acted: actions by agent. joined: numbers of agents that
    asked to register. hashes: about one stored state hash per CHUNK_TICKS, by tick.
    """

    first_tick: int
    last_tick: int
    acted: Counter[int] = field(default_factory=Counter)
    joined: set[int] = field(default_factory=set)
    hashes: dict[int, bytes] = field(default_factory=dict)


class Inputs(NamedTuple):
    """What the record gives to one tick. mark: sequence of the tick's mark; commands: those that shape it."""

    tick: int
    rows: Actions
    mark: int
    commands: tuple[Command, ...] = ()


class Decided(NamedTuple):
    """What became of an addition. addition: its place in the interventions; code: Reject."""

    addition: int
    status: int
    code: int


@dataclass(frozen=True)
class Forked:
    """What came of a fork. original_hash, branch_hash: after the last tick, of the worlds under the own seed.

    decided: how often an addition came to which end. hashes_checked: stored hashes that the original met.
    """

    effects: Effects
    last_tick: int
    recorded_to: int
    original_hash: bytes
    branch_hash: bytes
    hashes_checked: int
    decided: Mapping[Decided, int]


def fork(
    economy: Economy,
    records: Iterable[Record],
    interventions: Interventions,
    *,
    ticks: int | None = None,
    copies: int = 1,
    surveyed: Survey | None = None,
    progress: Callable[[int], None] | None = None,
) -> Forked:
    """Run the world and its branch on from where the economy stands, and compare them.

    economy: becomes the original. records: what follows its tick; read twice (once when surveyed). ticks: how many to
    run; None = to the end of the record; what lies beyond it runs without inputs. copies: pairs of worlds, >= 1.
    progress: called with the ticks that are done in all worlds, several times in CHUNK_TICKS.
    Raises HashDiffers when the original does not meet a stored hash, ValueError when there is no tick to run.
    """
    found = surveyed or survey(records, economy.tick, None if ticks is None else economy.tick + ticks)
    ticks = found.last_tick - economy.tick if ticks is None else ticks
    if ticks < 1:
        raise ValueError(f"no tick to run: the record ends at tick {found.last_tick}")
    begin = economy.tick
    rows = rows_of(begin + 1, ticks)
    followed = agents_to_follow(economy, found, interventions)
    spare = int(economy.state.counters[SLOTS_USED]) + len(found.joined)
    pairs = [
        _Pair(
            Branch(original, Interventions(), spare),
            Branch(copy_of(original), interventions, spare),
            Sampler(followed, rows),
            Sampler(followed, rows),
        )
        for original in [economy, *(copy_of(economy, sub_seed(economy.seed, k)) for k in range(1, copies))]
    ]
    effects = Effects(catalogue(followed), rows, copies)
    coming = islice(inputs(records, begin), ticks)
    hashes_checked = 0
    while economy.tick < begin + ticks:
        # the first original says which registrations were let in, and where: all others follow it
        chunk: list[Inputs] = []
        for given in islice(coming, CHUNK_TICKS):
            report = economy.advance(given.rows, commands=given.commands)
            pairs[0].measured.take(economy, report)
            chunk.append(given._replace(rows=admitted(given.rows, report)))
            if given.tick in found.hashes:
                _compare(economy, found.hashes[given.tick])
                hashes_checked += 1
        for number, pair in enumerate(pairs):
            for given in chunk:
                if number:
                    pair.measured.take(pair.original.economy, pair.original.advance(given))
                pair.branch_measured.take(pair.branch.economy, pair.branch.advance(given))
            if progress is not None:
                progress(economy.tick - begin - len(chunk) + len(chunk) * (number + 1) // copies)
        effects.add([pair.measured.finished() for pair in pairs], [pair.branch_measured.finished() for pair in pairs])
    branch = pairs[0].branch
    return Forked(
        effects=effects,
        last_tick=economy.tick,
        recorded_to=found.last_tick,
        original_hash=economy.state_hash(),
        branch_hash=branch.economy.state_hash(),
        hashes_checked=hashes_checked,
        decided=branch.decided,
    )


class Branch:
    """A world that follows the record under interventions.

    spare: lowest slot that no recorded agent will ever have; agents that only the branch knows sit there.
    decided: how often an addition came to which end.
    """

    def __init__(self, economy: Economy, interventions: Interventions, spare: int) -> None:
        self.economy = economy
        self.decided: Counter[Decided] = Counter()
        self._without_commands = interventions.without_commands
        self._without = np.array(sorted(interventions.without), np.int64)
        self._additions = interventions.additions
        self._at = _by_tick(range(len(interventions.additions)), interventions.additions)
        self._changes = _by_tick(interventions.changes, interventions.changes)
        self._injections = _by_tick(interventions.injections, interventions.injections)
        self._spare = spare
        self._moved_from, self._moved_by = np.zeros(0, np.int64), np.zeros(1, np.int64)
        """Recorded numbers from moved_from[i] on are moved_by[i + 1] higher here."""
        self._orders: dict[int, int] = {}

    def advance(self, given: Inputs) -> TickReport:
        """Run one tick. given.rows: registrations that were let in name their slot (quantity = slot + 1)."""
        economy = self.economy
        if (changes := self._changes.get(given.tick)) is not None:
            configure(economy, {change.name: change.value for change in changes})
        rows = given.rows
        if len(self._without) and len(rows):
            rows = rows[~np.isin(rows["agent_id"], self._without)]
        rows = self._in_place(rows)
        added = self._at.get(given.tick, [])
        if added:
            rows = np.concatenate([rows, *self._added(added, given.mark)])
        commands = () if self._without_commands else given.commands
        report = economy.advance(rows, self._strike if given.tick in self._injections else _watch_nothing, commands)
        if added:
            self._settle(added, report)
        return report

    def _in_place(self, rows: Actions) -> Actions:
        """Return recorded rows with the numbers they have here."""
        joins = rows["kind"] == Kind.REGISTER
        if not len(self._moved_from) and not joins.any():
            return rows
        rows = rows.copy()
        leaving = rows["agent_id"][rows["kind"] == Kind.UNREGISTER]
        for i in np.flatnonzero(joins):
            holder = self.economy.state.agent_id[rows["quantity"][i] - 1]
            # held by somebody who had left in the original: another place that the record does not need will do
            if holder != 0 and holder not in leaving:
                rows["quantity"][i] = self._next_spare()
        if len(self._moved_from):
            rows["seq"] = self._moved(rows["seq"])
            named = np.isin(rows["kind"], _NUMBERED)
            rows["order_id"][named] = self._moved(rows["order_id"][named])
        return rows

    def _moved(self, numbers: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return recorded sequence numbers as they are here."""
        moved: NDArray[np.int64] = numbers + self._moved_by[np.searchsorted(self._moved_from, numbers, side="right")]
        return moved

    def _added(self, added: list[int], mark: int) -> Iterator[Actions]:
        """Yield the additions of a tick, numbered; everything from its mark on moves up."""
        before = int(self._moved_by[-1])
        for place, index in enumerate(added):
            row = self._additions[index].row.copy()
            row["seq"] = mark + before + place
            if row["kind"] == Kind.REGISTER:
                row["quantity"] = self._next_spare()
            elif row["kind"] == Kind.LIMIT:
                self._orders[index] = int(row["seq"][0])
            elif row["kind"] in _NUMBERED:
                named = int(row["order_id"][0])
                row["order_id"] = self._orders.get(-1 - named, 0) if named < 0 else self._moved(row["order_id"])
            yield row
        self._moved_from = np.append(self._moved_from, mark)
        self._moved_by = np.append(self._moved_by, before + len(added))

    def _settle(self, added: list[int], report: TickReport) -> None:
        """Note what became of the additions; a replaced order answers to the addition that placed it."""
        for index, outcome in zip(added, report.outcomes[-len(added) :], strict=True):
            self.decided[Decided(index, int(outcome["status"]), int(outcome["code"]))] += 1
            named = int(self._additions[index].row["order_id"][0])
            if outcome["kind"] == Kind.REPLACE and named < 0 and outcome["status"] != Status.REJECTED:
                self._orders[-1 - named] = int(outcome["order_id"])

    def _next_spare(self) -> int:
        """Return quantity of a registration into a slot of our own; where there is none left, the lowest free one."""
        self._spare += 1
        return self._spare if self._spare <= len(self.economy.state.agent_id) else 0

    def _strike(self, phase: str) -> None:
        if phase == "emission":
            economy = self.economy
            for one in self._injections[economy.tick]:
                inject_event(economy.state, economy.config, one.name, one.resource, one.size, one.kind)


class _Pair(NamedTuple):
    """A world, its branch, and what is measured of both. original: the first one of all is run on its own."""

    original: Branch
    branch: Branch
    measured: Sampler
    branch_measured: Sampler


def survey(records: Iterable[Record], after: int, until: int | None = None) -> Survey:
    """Read what a record holds. after: the tick its first mark follows; until: the last one a fork will run, if known.

    Of the stored hashes up to there the last of every CHUNK_TICKS is kept: a short fork is held to one of its own.
    """
    found = Survey(after + 1, after)
    latest: dict[int, int] = {}
    for record in records:
        if is_input(record):
            rows = decode_actions(record).rows
            found.acted.update(rows["agent_id"].tolist())
            found.joined.update(rows["agent_id"][rows["kind"] == Kind.REGISTER].tolist())
        elif record.kind is RecordKind.MARK:
            mark = decode_mark(record.payload)
            found.last_tick = mark.tick
            # NO_HASH lies before every tick
            if after < mark.hashed_tick and (until is None or mark.hashed_tick <= until):
                last = latest.get(mark.hashed_tick // CHUNK_TICKS)
                if last is not None:
                    del found.hashes[last]
                latest[mark.hashed_tick // CHUNK_TICKS] = mark.hashed_tick
                found.hashes[mark.hashed_tick] = mark.state_hash
    return found


def inputs(records: Iterable[Record], after: int) -> Iterator[Inputs]:
    """Yield the inputs of every tick behind `after`: the recorded ones, then without end ticks without any.

    Actions behind the last mark belong to no tick yet and are left out.
    Raises ValueError when the ticks are not consecutive.
    """
    rows: list[memoryview] = []
    commands: list[Command] = []
    mark = 0
    for record in records:
        if is_input(record):
            # joined as bytes: a tenth of the time of joining arrays
            rows.append(row_bytes(record))
        elif record.kind is RecordKind.MARK:
            tick, mark = decode_mark(record.payload).tick, record.sequence
            if tick != after + 1:
                raise ValueError(f"the mark of tick {tick} follows tick {after}")
            after = tick
            # a bytearray, because kernels are compiled for arrays that can be written
            given = np.frombuffer(bytearray().join(rows), ACTION) if rows else NO_ACTIONS
            yield Inputs(tick, given, mark, tuple(commands))
            rows, commands = [], []
        elif record.kind is RecordKind.COMMAND:
            command = decode_command(record.payload)
            if isinstance(command, SHAPING):
                commands.append(command)
    # numbers go on behind the actions that belong to no tick yet
    mark += sum(map(len, rows)) // ACTION.itemsize
    while True:
        after += 1
        mark += 1
        yield Inputs(after, NO_ACTIONS, mark)


def admitted(rows: Actions, report: TickReport) -> Actions:
    """Return a tick's recorded rows with refused registrations left out and the others' slots named."""
    joins = rows["kind"] == Kind.REGISTER
    if not joins.any():
        return rows
    rows, outcomes = rows.copy(), report.outcomes
    rows["quantity"][joins] = outcomes["available"][joins] + 1
    admitted: Actions = rows[~joins | (outcomes["status"] == Status.DONE)]
    return admitted


def sub_seed(seed: bytes, copy: int) -> bytes:
    """Return the seed that a copy of the world has behind the fork: the world's own for 0. copy: in [0, 2^64)."""
    return seed if copy == 0 else blake2b(seed + b"fork" + copy.to_bytes(8, "little"), digest_size=32).digest()


def copy_of(economy: Economy, seed: bytes | None = None) -> Economy:
    """Return a second economy that stands where this one does. seed: of its draws from now on, None = the same."""
    state = economy.state
    return Economy(
        economy.config,
        economy.seed if seed is None else seed,
        threads=state.threads,
        parallel=state.parallel,
        checks=economy.checks,
        start=economy.copy_arrays(),
    )


def configure(economy: Economy, values: Mapping[str, Any]) -> None:
    """Set settings of an economy between two ticks. Raises SettingError; see CHANGEABLE."""
    economy.configure(replace(economy.config, **values))


def agents_to_follow(economy: Economy, found: Survey, interventions: Interventions) -> tuple[int, ...]:
    """Return whose wealth is compared: whom the interventions name, then who acts most; at most AGENTS_MAX."""
    added = {int(addition.row["agent_id"][0]) for addition in interventions.additions}
    registered = {int(number) for number in economy.state.agent_id[: economy.state.counters[SLOTS_USED]] if number}
    busiest = sorted(registered | found.joined, key=lambda number: (-found.acted[number], number))
    return tuple(dict.fromkeys([*sorted(interventions.without), *sorted(added), *busiest]))[:AGENTS_MAX]


def _compare(economy: Economy, stored: bytes) -> None:
    actual = economy.state_hash()
    if actual != stored:
        raise HashDiffers(economy.tick, stored, actual)


def _by_tick(things: Sequence[Any], timed: Sequence[Any]) -> dict[int, list[Any]]:
    found: dict[int, list[Any]] = {}
    for thing, one in zip(things, timed, strict=True):
        found.setdefault(one.tick, []).append(thing)
    return found


def _watch_nothing(phase: str) -> None:
    """Observe nothing."""
