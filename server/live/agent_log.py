"""What the world did to outside agents, kept by owner for who reads it: entries by tick, added, never changed.

    outcomes, fills, fired switches, departures of a tick -> the logs of their owners -> live/agent_channel

Kept are the owners that have a reader, each for `keep_ticks` after its last one left; and everybody's in the first
`keep_ticks` after a start, for nobody knows yet who will come back. All logs together hold at most `bytes_max`; beyond
it the oldest records go first, whosever they are. What is gone is no secret: a log says from where on it is whole, and
a record which one comes before it. Source: DESIGN section 3 (channel `agent`), R9.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from engine.agent_index import find
from engine.events import TickReport
from engine.messages import ORDER_UPDATE, OUTCOME, Kind
from engine.state import State
from server.live.agent_records import LEFT, PART_BITS, Gathered, Names, Recent, Record, Tick, end_of
from server.metrics import Metrics

Ints = NDArray[np.int64]

BYTES_MAX: Final = 64 << 20
SHED_TICKS: Final = 10
"""Ticks of everybody that are forgotten at a time."""


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


class _Known:
    """The agents whose entries are kept, with their logs; made to be asked about a whole column at once."""

    def __init__(self) -> None:
        self._log_of: dict[int, OwnerLog] = {}
        self._sorted: Ints | None = None

    def get(self, agent: int) -> OwnerLog | None:
        """Return an agent's log."""
        return self._log_of.get(agent)

    def put(self, agents: Iterable[int], log: OwnerLog) -> None:
        """Add agents of a log."""
        self._log_of.update(dict.fromkeys(agents, log))
        self._sorted = None

    def remove(self, agent: int, log: OwnerLog) -> None:
        """Forget an agent, if it is that log's."""
        if self._log_of.get(agent) is log:
            del self._log_of[agent]
            self._sorted = None

    def places(self, agents: Ints) -> NDArray[np.bool_]:
        """Return which of the agents are known. One by one it takes ten times as long."""
        if self._sorted is None:
            self._sorted = np.fromiter(self._log_of, np.int64, len(self._log_of))
            self._sorted.sort()
        if not len(self._sorted):
            return np.zeros(len(agents), np.bool_)
        at = np.searchsorted(self._sorted, agents)
        known: NDArray[np.bool_] = self._sorted[np.minimum(at, len(self._sorted) - 1)] == agents
        return known


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
        self._recent = Recent(keep_ticks)
        self._recent_until = -1
        """The tick up to which everybody's ticks are kept."""
        self._logs: dict[int, OwnerLog] = {}
        self._known = _Known()
        self._names = Names()
        """Of the actions that are not decided."""
        self._oldest: deque[tuple[OwnerLog, int]] = deque()
        """Log and position of every record, oldest first; some are of logs that are kept no longer."""
        self._expiring: deque[tuple[int, OwnerLog]] = deque()
        self._departed: deque[tuple[int, OwnerLog, int]] = deque()
        """Agents that left, and until when something may still be told of them."""
        self._bytes = 0
        self._restored: tuple[int, Sequence[LogCopy]] = (-1, ())
        """Logs of a snapshot, and its tick."""

    # the world's side

    def accepted(self, rows: NDArray[np.void], names: NDArray[np.uint8]) -> None:
        """Note the names of actions that wait for their tick: a live.recorder.Follower."""
        self._names.add(int(rows["seq"][0]), names)

    def replayed(self, report: TickReport) -> None:
        """Take a tick of before this start."""
        self._recent.add(Tick(report, self._take_names(report), 0))

    def copy(self) -> tuple[LogCopy, ...]:
        """Return all logs as they are, for a snapshot."""
        return tuple(LogCopy(log.owner, log.floor, log.newest, tuple(log.records)) for log in self._logs.values())

    def restore(self, tick: int, logs: Sequence[LogCopy]) -> None:
        """Take the logs of a snapshot of a tick, before those behind it are replayed."""
        self._restored = tick, logs

    def open(self, owners: Owners, tick: int) -> None:
        """Begin after the replay. owners: of then and from then on. tick: the last published one."""
        self._owners = owners
        self.tick = tick
        self._recent_until = tick + self._keep_ticks
        if not len(self._recent):
            self._recent.began = tick
        self._put_back()

    def _put_back(self) -> None:
        """Go on with the logs of a snapshot, unless ticks between it and what is known are missing."""
        (tick, copies), self._restored = self._restored, (-1, ())
        assert self._owners is not None
        for copy in copies if tick >= self._recent.began else ():
            log = self._logs[copy.owner] = OwnerLog(copy.owner, copy.floor, self._owners.agents_of(copy.owner))
            self._known.put(log.agents, log)
            for record in copy.records:
                self._keep(log, record)
            log.newest = copy.newest
            self._recall(log)
            self._let_expire(log, self._recent_until)
        self._cut()

    def publish(self, report: TickReport, unix_ns: int, state: State) -> None:
        """Take a tick that is being published. state: of the world, which stands still."""
        found = self._take(report, self._take_names(report), unix_ns)
        if found:
            self._weigh(found, report.tick, state)
        self._metrics.agent_log_bytes.set(self._bytes)

    def _take_names(self, report: TickReport) -> Names:
        """Return the names of the actions a tick decided, and forget them."""
        return self._names.take(int(report.outcomes["seq"].max(initial=0)))

    def _take(self, report: TickReport, names: Names, unix_ns: int) -> dict[OwnerLog, Gathered]:
        """Add a tick to the logs it concerns, and cut what is old; return those logs and what concerns them."""
        self.tick = report.tick
        found: dict[OwnerLog, Gathered] = {}
        if self._logs:
            found = self._gather(report)
            self._add(found, report, names, unix_ns)
        if report.tick <= self._recent_until:
            self._recent.add(Tick(report, names, unix_ns))
        else:
            # all at once they held the event loop up for 5 ms, a minute after a start (loop_pause)
            self._recent.shed(SHED_TICKS)
        self._cut()
        self._expire()
        return found

    def _gather(self, report: TickReport) -> dict[OwnerLog, Gathered]:
        found: dict[OwnerLog, Gathered] = {}

        def of(log: OwnerLog, agent: int) -> Gathered:
            gathered = found.get(log)
            if gathered is None:
                gathered = found[log] = Gathered()
            gathered.agents.add(agent)
            return gathered

        ids, kinds = report.outcomes["agent_id"], report.outcomes["kind"]
        for i in self._candidates(ids, kinds):
            agent, kind = int(ids[i]), int(kinds[i])
            if log := self._find(agent, is_new=kind == Kind.REGISTER):
                of(log, agent).outcomes.append(i)
                if kind == Kind.UNREGISTER:
                    self._departed.append((report.tick + self._keep_ticks, log, agent))
        ids = report.updates["agent_id"]
        for i in self._candidates(ids):
            if log := self._find(agent := int(ids[i])):
                of(log, agent).updates.append(i)
        for agent in report.fired.tolist():
            if log := self._find(agent):
                of(log, agent).fired.append(agent)
        for event in report.events:
            if event.name in LEFT and (log := self._find(agent := event.data["agent"])):
                of(log, agent).left.append((agent, LEFT[event.name]))
                self._departed.append((report.tick + self._keep_ticks, log, agent))
        return found

    def _candidates(self, agents: Ints, kinds: NDArray[np.uint8] | None = None) -> list[int]:
        """Return which rows are of agents whose entries may be kept."""
        known = self._known.places(agents)
        places: list[int] = np.flatnonzero(known if kinds is None else known | (kinds == Kind.REGISTER)).tolist()
        return places

    def _find(self, agent: int, *, is_new: bool = False) -> OwnerLog | None:
        """Return the log an agent's entries go to, None when its owner's is not kept. is_new: it registers now."""
        log = self._known.get(agent)
        if log is not None or not is_new:
            return log
        assert self._owners is not None
        log = self._logs.get(self._owners.owner_of_agent(agent) or self._owners.owner_of_left_agent(agent) or 0)
        if log is not None:
            log.agents.add(agent)
            self._known.put((agent,), log)
        return log

    def _add(self, found: dict[OwnerLog, Gathered], report: TickReport, names: Names, unix_ns: int) -> None:
        """Add a tick to the logs it concerns. Their rows are copied at once, and cut to pieces."""
        decided = [i for gathered in found.values() for i in gathered.outcomes]
        changed = [i for gathered in found.values() for i in gathered.updates]
        outcomes, updates = report.outcomes[decided].tobytes(), report.updates[changed].tobytes()
        named = [names.get(seq) for seq in report.outcomes["seq"][decided].tolist()]
        at = update_at = 0
        for log, gathered in found.items():
            for part, (fired, rows, update_rows, left) in enumerate(gathered.parts()):
                end, update_end = at + len(rows), update_at + len(update_rows)
                record = Record(
                    report.tick << PART_BITS | part,
                    log.newest,
                    unix_ns,
                    tuple(fired),
                    outcomes[at * OUTCOME.itemsize : end * OUTCOME.itemsize],
                    tuple(named[at:end]),
                    updates[update_at * ORDER_UPDATE.itemsize : update_end * ORDER_UPDATE.itemsize],
                    tuple(left),
                )
                self._keep(log, record)
                at, update_at = end, update_end

    def _keep(self, log: OwnerLog, record: Record) -> None:
        log.records.append(record)
        log.newest = record.seq
        self._oldest.append((log, record.seq))
        self._bytes += record.size

    def _weigh(self, found: dict[OwnerLog, Gathered], tick: int, state: State) -> None:
        """Note what the agents have that something happened to, of logs with readers."""
        read = [(log, agent) for log, gathered in found.items() if log.readers for agent in gathered.agents]
        slots = [find(state.agent_index, state.agent_id, agent) for _, agent in read]
        columns = (
            column[slots].tolist()
            for column in (
                state.agent_cash,
                state.agent_escrow,
                state.agent_debt,
                state.agent_advance,
                state.agent_holdings,
                state.agent_reserved,
            )
        )
        for (log, agent), slot, balance in zip(read, slots, zip(*columns, strict=True), strict=True):
            if slot < 0:
                log.balances.pop(agent, None)
            else:
                log.balances[agent] = Balance(tick, *balance)

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
            self._let_expire(log, max(self.tick + self._keep_ticks, self._recent_until))

    def _begin(self, owner: int) -> OwnerLog:
        """Return a new log, whole from now on; or from where this start knows of, while it keeps everybody's."""
        assert self._owners is not None
        is_recent = self.tick <= self._recent_until
        floor = end_of(self._recent.began if is_recent else self.tick)
        log = self._logs[owner] = OwnerLog(owner, floor, self._owners.agents_of(owner))
        self._known.put(log.agents, log)
        if is_recent:
            self._recall(log)
        return log

    def _recall(self, log: OwnerLog) -> None:
        """Add what happened to a log's agents in the ticks that are kept of everybody."""
        owners = self._owners
        assert owners is not None
        left = {agent for agent in self._recent.departed() if owners.owner_of_left_agent(agent) == log.owner}
        log.agents |= left
        self._known.put(left, log)
        self._departed.extend((self.tick + self._keep_ticks, log, agent) for agent in left)
        for tick, found in self._recent.of(log.agents):
            self._add({log: found}, tick.report, tick.names, tick.unix_ns)

    # what goes

    def _let_expire(self, log: OwnerLog, tick: int) -> None:
        log.expires = tick
        self._expiring.append((tick, log))

    def _expire(self) -> None:
        while self._expiring and self._expiring[0][0] < self.tick:
            expires, log = self._expiring.popleft()
            # more than one entry may say so: readers that come and go within a tick, or while the world is paused
            if log.readers == 0 and log.expires == expires and self._logs.get(log.owner) is log:
                del self._logs[log.owner]
                for agent in log.agents:
                    self._known.remove(agent, log)
                self._bytes -= sum(record.size for record in log.records)
                log.records.clear()
        while self._departed and self._departed[0][0] < self.tick:
            _, log, agent = self._departed.popleft()
            log.agents.discard(agent)
            self._known.remove(agent, log)

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
