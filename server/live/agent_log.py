"""What the world did to outside agents, kept by owner for who reads it: entries by tick, added, never changed.

    outcomes, fills, fired switches, departures of a tick -> the logs of their owners -> live/agent_channel

Kept are the owners that have a reader, each for `keep_ticks` after its last one left; and everybody's in the first
`keep_ticks` after a start, for nobody knows yet who will come back. All logs together hold at most `bytes_max`; beyond
it the oldest records go first, whosever they are. What is gone is no secret: a log says from where on it is whole, and
a record which one comes before it. Source: DESIGN section 3 (channel `agent`), R9.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Final, NamedTuple, Protocol

import numpy as np

from engine.agent_index import find
from engine.events import TickReport
from engine.messages import ORDER_UPDATE, OUTCOME, Kind
from engine.state import State
from server.metrics import Metrics

PART_BITS: Final = 12
LAST_PART: Final = (1 << PART_BITS) - 1
"""A position is tick x 4,096 + part: what happened to an owner with thousands of agents in a tick takes several frames.
The last part stands for the end of the tick."""
PART_ENTRIES: Final = 256
"""Entries of a record: about 60 KB as msgpack, so that a slow reader's buffer holds whole frames."""
BYTES_MAX: Final = 64 << 20
RECORD_BYTES: Final = 400
"""What a record costs beside its rows and names (measured: 380 with one outcome)."""
NAME_BYTES: Final = 60
REPLAYED_ROWS_MAX: Final = 100_000
"""Outcomes and updates that are kept while replaying: making records of them takes half a second."""

LEFT_REASONS: Final = ("expired", "defaulted")
_LEFT = dict(zip(("agent_expired", "agent_defaulted"), LEFT_REASONS, strict=True))
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


class Balance(NamedTuple):
    """What an agent had after a tick: ucr, and lots by market."""

    tick: int
    cash: int
    escrow: int
    debt: int
    advance: int
    holdings: list[int]
    reserved: list[int]


class LogCopy(NamedTuple):
    """A log as it stood: the position it was whole from, that of its newest record, and its records."""

    owner: int
    floor: int
    newest: int
    records: Sequence[Record]


class Owners(Protocol):
    """What is asked of the registry."""

    def owner_of_agent(self, number: int) -> int | None:
        """Return whose agent it is."""

    def owner_of_left_agent(self, number: int) -> int | None:
        """Return whose agent it was."""

    def agents_of(self, owner: int) -> list[int]:
        """Return an owner's agents."""


class OwnerLog:
    """The records of one owner, oldest first.

    floor: the position after which it has all there was; newest: of its last record, or where it began. balances: of
    agents something happened to while somebody read, the newest of each.
    """

    __slots__ = ("agents", "balances", "expires", "floor", "newest", "owner", "readers", "records")

    def __init__(self, owner: int, floor: int, agents: Iterable[int]) -> None:
        self.owner = owner
        self.floor = self.newest = floor
        self.agents = set(agents)
        self.records: deque[Record] = deque()
        self.readers = 0
        self.expires = 0
        self.balances: dict[int, Balance] = {}

    def after(self, seq: int) -> list[Record]:
        """Return the records behind a position, oldest first."""
        found: list[Record] = []
        for record in reversed(self.records):
            if record.seq <= seq:
                break
            found.append(record)
        found.reverse()
        return found


class _Gathered:
    """What a tick did to one owner's agents: places of rows in the report."""

    __slots__ = ("fired", "left", "outcomes", "updates")

    def __init__(self) -> None:
        self.fired: list[int] = []
        self.outcomes: list[int] = []
        self.updates: list[int] = []
        self.left: list[tuple[int, str]] = []

    def parts(self) -> Iterator[tuple[list[int], list[int], list[int], list[tuple[int, str]]]]:
        """Yield it in parts of PART_ENTRIES."""
        kinds = (iter(self.fired), iter(self.outcomes), iter(self.updates), iter(self.left))
        total = len(self.fired) + len(self.outcomes) + len(self.updates) + len(self.left)
        for start in range(0, total, PART_ENTRIES):
            room = min(PART_ENTRIES, total - start)
            taken = []
            for rows in kinds:
                taken.append(list(islice(rows, room)))
                room -= len(taken[-1])
            yield tuple(taken)  # type: ignore[misc]  # four lists, of the types above


class AgentLog:
    """The logs of all owners that have or may have a reader.

    keep_ticks: how long entries, and logs without a reader, are kept. bytes_max: of all records together.
    """

    def __init__(self, keep_ticks: int, metrics: Metrics, bytes_max: int = BYTES_MAX) -> None:
        self.tick = -1
        self._keep_ticks = keep_ticks
        self._bytes_max = bytes_max
        self._metrics = metrics
        self._owners: Owners | None = None
        self._began = self._everybody_until = -1
        self._logs: dict[int, OwnerLog] = {}
        self._log_of: dict[int, OwnerLog] = {}
        """By agent, of the logs that are kept."""
        self._names: dict[int, str] = {}
        """client_action_id of the actions that are not decided, by sequence."""
        self._oldest: deque[tuple[OwnerLog, int]] = deque()
        """Log and position of every record, oldest first; some are of logs that are kept no longer."""
        self._expiring: deque[tuple[int, OwnerLog]] = deque()
        self._departed: deque[tuple[int, OwnerLog, int]] = deque()
        """Agents that left, and until when something may still be told of them."""
        self._bytes = 0
        self._replayed: deque[tuple[TickReport, dict[int, str]]] = deque()
        self._replayed_rows = 0
        self._restored: tuple[int, Sequence[LogCopy]] = (-1, ())
        """Logs of a snapshot, and its tick."""

    # the world's side

    def accepted(
        self, seqs: Sequence[int], agents: Sequence[int], kinds: Sequence[int], client_action_ids: Sequence[str]
    ) -> None:
        """Note the names of actions that wait for their tick: a live.recorder.Follower."""
        self._names.update(zip(seqs, client_action_ids, strict=True))

    def replayed(self, report: TickReport) -> None:
        """Take a tick of before this start; the newest ones are kept until `open`."""
        self._replayed.append((report, self._take_names(report)))
        self._replayed_rows += len(report.outcomes) + len(report.updates)
        while len(self._replayed) > self._keep_ticks or (
            len(self._replayed) > 1 and self._replayed_rows > REPLAYED_ROWS_MAX
        ):
            gone = self._replayed.popleft()[0]
            self._replayed_rows -= len(gone.outcomes) + len(gone.updates)

    def copy(self) -> tuple[LogCopy, ...]:
        """Return all logs as they are, for a snapshot."""
        return tuple(LogCopy(log.owner, log.floor, log.newest, tuple(log.records)) for log in self._logs.values())

    def restore(self, tick: int, logs: Sequence[LogCopy]) -> None:
        """Take the logs of a snapshot of a tick, before those behind it are replayed."""
        self._restored = tick, logs

    def open(self, owners: Owners, tick: int) -> None:
        """Begin after the replay. owners: of then and from then on. tick: the last published one."""
        self._owners = owners
        replayed, self._replayed = self._replayed, deque()
        self._began = self.tick = replayed[0][0].tick - 1 if replayed else tick
        self._everybody_until = tick + self._keep_ticks
        self._put_back()
        for report, names in replayed:
            self._take(report, names, 0)

    def _put_back(self) -> None:
        """Go on with the logs of a snapshot, unless ticks between it and what is known are missing."""
        (tick, copies), self._restored = self._restored, (-1, ())
        if tick < self._began:
            return
        records: list[tuple[Record, OwnerLog]] = []
        for copy in copies:
            log = self._begin(copy.owner)
            log.floor, log.newest = copy.floor, copy.newest
            self._let_expire(log, self._everybody_until)
            records += [(record, log) for record in copy.records]
        # as they came, for the oldest goes first
        for record, log in sorted(records, key=lambda row: row[0].seq):
            self._keep(log, record)
        self._cut()

    def publish(self, report: TickReport, unix_ns: int, state: State) -> None:
        """Take a tick that is being published. state: of the world, which stands still."""
        names = self._take_names(report)
        for log in self._take(report, names, unix_ns):
            if log.readers:
                self._weigh(log, report.tick, state)
        self._metrics.agent_log_bytes.set(self._bytes)

    def _take_names(self, report: TickReport) -> dict[int, str]:
        """Return the names of the actions a tick decided, and forget them."""
        if not self._names:
            return {}
        names, last = self._names, int(report.outcomes["seq"].max(initial=0))
        self._names = {seq: name for seq, name in names.items() if seq > last}
        return names

    def _take(self, report: TickReport, names: dict[int, str], unix_ns: int) -> list[OwnerLog]:
        """Add a tick to the logs it concerns, and cut what is old; return those logs."""
        self.tick = report.tick
        concerned: list[OwnerLog] = []
        if self._logs or report.tick <= self._everybody_until:
            for log, gathered in self._gather(report).items():
                self._add(log, gathered, report, names, unix_ns)
                concerned.append(log)
        self._cut()
        self._expire()
        return concerned

    def _gather(self, report: TickReport) -> dict[OwnerLog, _Gathered]:
        found: dict[OwnerLog, _Gathered] = {}

        def of(log: OwnerLog) -> _Gathered:
            gathered = found.get(log)
            if gathered is None:
                gathered = found[log] = _Gathered()
            return gathered

        # whole columns at once: reading fields of numpy rows one by one takes ten times as long
        columns = (report.outcomes[name].tolist() for name in ("agent_id", "kind"))
        for i, (agent, kind) in enumerate(zip(*columns, strict=True)):
            if log := self._find(agent, is_new=kind == Kind.REGISTER):
                of(log).outcomes.append(i)
                if kind == Kind.UNREGISTER:
                    self._departed.append((report.tick + self._keep_ticks, log, agent))
        for i, agent in enumerate(report.updates["agent_id"].tolist()):
            if log := self._find(agent):
                of(log).updates.append(i)
        for agent in report.fired.tolist():
            if log := self._find(agent):
                of(log).fired.append(agent)
        for event in report.events:
            if event.name in _LEFT and (log := self._find(agent := event.data["agent"])):
                of(log).left.append((agent, _LEFT[event.name]))
                self._departed.append((report.tick + self._keep_ticks, log, agent))
        return found

    def _find(self, agent: int, *, is_new: bool = False) -> OwnerLog | None:
        """Return the log an agent's entries go to, None when its owner's is not kept. is_new: it registers now."""
        log = self._log_of.get(agent)
        if log is not None or not (is_new or self.tick <= self._everybody_until):
            return log
        assert self._owners is not None
        owner = self._owners.owner_of_agent(agent)
        if owner is None:
            owner = self._owners.owner_of_left_agent(agent)
        if owner is None:
            return None
        log = self._logs.get(owner)
        if log is None:
            if self.tick > self._everybody_until:
                return None
            log = self._begin(owner)
            self._let_expire(log, self._everybody_until)
        log.agents.add(agent)
        self._log_of[agent] = log
        return log

    def _add(self, log: OwnerLog, gathered: _Gathered, report: TickReport, names: dict[int, str], unix_ns: int) -> None:
        seqs = report.outcomes["seq"]
        for part, (fired, outcomes, updates, left) in enumerate(gathered.parts()):
            record = Record(
                report.tick << PART_BITS | part,
                log.newest,
                unix_ns,
                tuple(fired),
                report.outcomes[outcomes].tobytes() if outcomes else b"",
                tuple(names.get(seq) for seq in seqs[outcomes].tolist()) if outcomes else (),
                report.updates[updates].tobytes() if updates else b"",
                tuple(left),
            )
            self._keep(log, record)

    def _keep(self, log: OwnerLog, record: Record) -> None:
        log.records.append(record)
        log.newest = record.seq
        self._oldest.append((log, record.seq))
        self._bytes += record.size

    def _weigh(self, log: OwnerLog, tick: int, state: State) -> None:
        """Note what the agents have that something happened to in a tick."""
        for record in log.after(end_of(tick - 1)):
            for agent in agents_in(record):
                slot = find(state.agent_index, state.agent_id, agent)
                if slot < 0:
                    log.balances.pop(agent, None)
                    continue
                log.balances[agent] = Balance(
                    tick,
                    int(state.agent_cash[slot]),
                    int(state.agent_escrow[slot]),
                    int(state.agent_debt[slot]),
                    int(state.agent_advance[slot]),
                    state.agent_holdings[slot].tolist(),
                    state.agent_reserved[slot].tolist(),
                )

    # the readers' side

    def watch(self, owner: int) -> OwnerLog:
        """Return an owner's log and keep it until as many `unwatch` follow."""
        log = self._logs.get(owner) or self._begin(owner)
        log.readers += 1
        return log

    def unwatch(self, log: OwnerLog) -> None:
        """Let a log go when nobody comes back to it in time."""
        log.readers -= 1
        if log.readers == 0:
            log.balances.clear()
            self._let_expire(log, max(self.tick + self._keep_ticks, self._everybody_until))

    def _begin(self, owner: int) -> OwnerLog:
        """Return a new log, whole from now on; or from where this start knows of, while it keeps everybody's."""
        assert self._owners is not None
        tick = self._began if self.tick <= self._everybody_until else self.tick
        log = self._logs[owner] = OwnerLog(owner, end_of(tick), self._owners.agents_of(owner))
        self._log_of.update(dict.fromkeys(log.agents, log))
        return log

    # what goes

    def _let_expire(self, log: OwnerLog, tick: int) -> None:
        log.expires = tick
        self._expiring.append((tick, log))

    def _expire(self) -> None:
        while self._expiring and self._expiring[0][0] < self.tick:
            expires, log = self._expiring.popleft()
            if log.readers == 0 and log.expires == expires:
                del self._logs[log.owner]
                for agent in log.agents:
                    self._log_of.pop(agent, None)
                self._bytes -= sum(record.size for record in log.records)
                log.records.clear()
        while self._departed and self._departed[0][0] < self.tick:
            _, log, agent = self._departed.popleft()
            log.agents.discard(agent)
            if self._log_of.get(agent) is log:
                del self._log_of[agent]

    def _cut(self) -> None:
        """Let records go that are too old, or too many."""
        first = end_of(self.tick - self._keep_ticks)
        while self._oldest and (self._oldest[0][1] <= first or self._bytes > self._bytes_max):
            log, seq = self._oldest.popleft()
            if not log.records or log.records[0].seq != seq:
                continue
            self._bytes -= log.records.popleft().size
            log.floor = seq
            if seq > first:
                self._metrics.agent_records_cut.inc()


def agents_in(record: Record) -> set[int]:
    """Return the agents something happened to."""
    return {
        *record.fired,
        *np.frombuffer(record.outcomes, OUTCOME)["agent_id"].tolist(),
        *np.frombuffer(record.updates, ORDER_UPDATE)["agent_id"].tolist(),
        *(agent for agent, _ in record.left),
    }
