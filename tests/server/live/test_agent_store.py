"""The logs of outside agents survive a snapshot, to the byte."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from engine.messages import ORDER_UPDATE, OUTCOME
from server.live.agent_log import AgentLog, LogCopy
from server.live.agent_records import Record, end_of
from server.live.agent_store import from_arrays, to_arrays
from server.live.array_file import read_arrays, write_arrays
from server.metrics import Metrics
from tests.support.tick_reports import tick_report

NUMBERS = st.integers(0, 2**50)
AGENTS = st.integers(1, 2**50)


@st.composite
def records(draw: st.DrawFn) -> Record:
    """Return any record, as of an earlier start."""
    names = draw(st.lists(st.one_of(st.none(), st.text("abc:~.-", max_size=64)), max_size=4))
    return Record(
        draw(NUMBERS),
        draw(NUMBERS),
        0,
        tuple(draw(st.lists(AGENTS, max_size=3))),
        draw(st.binary(min_size=len(names) * OUTCOME.itemsize, max_size=len(names) * OUTCOME.itemsize)),
        tuple(names),
        draw(st.integers(0, 3)) * draw(st.binary(min_size=ORDER_UPDATE.itemsize, max_size=ORDER_UPDATE.itemsize)),
        tuple((agent, reason) for agent in draw(st.lists(AGENTS, max_size=2)) for reason in ("expired", "defaulted")),
    )


LOGS = st.lists(st.builds(LogCopy, AGENTS, NUMBERS, NUMBERS, st.lists(records(), max_size=4)), max_size=4)


@given(LOGS)
def test_logs_come_back_as_they_were(logs: list[LogCopy]) -> None:
    """Whatever is in them."""
    assert from_arrays(to_arrays(logs)) == logs


def test_they_pass_through_a_file(tmp_path: Path) -> None:
    """Empty ones too; a snapshot of before there were any has none."""
    for number, logs in enumerate(([], [LogCopy(7, end_of(3), end_of(3), [])])):
        path = tmp_path / f"{number}.arf"
        write_arrays(path, {}, list(to_arrays(logs).items()))
        assert from_arrays(read_arrays(path)[1]) == logs
    assert from_arrays({}) == []


class Everybody:
    """Every agent belongs to owner 1."""

    def owner_of_agent(self, number: int) -> int | None:
        """Return the owner."""
        return 1

    def owner_of_left_agent(self, number: int) -> int | None:
        """Return nobody."""
        return None

    def agents_of(self, owner: int) -> list[int]:
        """Return an agent."""
        return [10]


def filled(ticks: range) -> AgentLog:
    """Return a log with a reader and an outcome in each tick."""
    log = AgentLog(100, Metrics())
    log.open(Everybody(), ticks.start - 1)
    log.watch(1)
    for tick in ticks:
        log._take(tick_report(tick, [{"agent_id": 10, "seq": tick}]), {}, 5)
    return log


def test_a_start_goes_on_where_the_snapshot_stood() -> None:
    """Its records, then those of the replayed ticks, one chain."""
    before = filled(range(50, 60))
    log = AgentLog(100, Metrics())
    log.restore(59, from_arrays(to_arrays(before.copy())))
    for tick in (60, 61):
        log.replayed(tick_report(tick, [{"agent_id": 10, "seq": tick}]))

    log.open(Everybody(), 61)

    kept = list(log.watch(1).records)
    assert [record.seq >> 12 for record in kept] == list(range(50, 62))
    assert [record.base for record in kept[1:]] == [record.seq for record in kept[:-1]]
    assert log.watch(1).floor == before.watch(1).floor
    assert log._bytes == sum(record.size for record in kept)


def test_a_gap_behind_the_snapshot_makes_it_useless() -> None:
    """When a flood left only the last replayed ticks, what came before them is missing, and said to be."""
    log = AgentLog(100, Metrics())
    log.restore(59, from_arrays(to_arrays(filled(range(50, 60)).copy())))
    log.replayed(tick_report(62, [{"agent_id": 10, "seq": 62}]))

    log.open(Everybody(), 62)

    mine = log.watch(1)
    assert ([record.seq >> 12 for record in mine.records], mine.floor) == ([62], end_of(61))
