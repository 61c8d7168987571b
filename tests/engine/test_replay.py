"""Replay: the same records give the same world, split and threaded as one likes, and a false hash is found."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from engine.config import Config
from engine.economy import Economy
from engine.events import TickReport
from engine.journal import (
    Actions,
    Genesis,
    KeyRecord,
    Mark,
    Record,
    RecordKind,
    Scan,
    encode_genesis,
    encode_key,
)
from engine.replay import HashDiffers, Watch, replay
from engine.state_bytes import hash_bytes
from tests.support.journals import JournalBytes, action_row
from tests.support.worlds import RandomBots, in_threads, small_config

TICKS = 30
CONFIG: Config = small_config()


def recorded(*, wrong_at: int | None = None) -> tuple[JournalBytes, list[bytes]]:
    """Run a world under random bots and return its journal, with a hash of every fifth tick, and all its hashes."""
    economy, bots, journal = Economy(CONFIG, 7), RandomBots(8, 3), JournalBytes()
    journal.add(RecordKind.GENESIS, encode_genesis(Genesis(1, 1, {}, "", "", -1, "", "")))
    journal.add(RecordKind.KEY, encode_key(KeyRecord(1, 1, bytes(32), bytes(32))))
    hashes: list[bytes] = []
    bots.sequence = journal.next_sequence - 1
    for tick in range(TICKS):
        rows = bots.rows(economy, 12)
        if tick % 3 == 2:
            # a batch: one record
            assert journal.actions(rows.copy(), *(f"{i}" for i in range(len(rows)))) == rows["seq"][0]
        else:
            for i in range(len(rows)):
                assert journal.action(int(rows["agent_id"][i]), f"{i}", rows[i : i + 1]) == rows["seq"][i]
        due = tick - 1
        state_hash = b"wrong" + bytes(11) if due == wrong_at else hashes[due] if hashes else b""
        journal.mark(tick, len(rows), (due, state_hash) if due >= 0 and due % 5 == 0 else (-1, bytes(16)))
        bots.sequence += 1
        journal.batch()
        economy.advance(rows)
        hashes.append(economy.state_hash())
    return journal, hashes


def fresh(threads: int = 1) -> Economy:
    """Return the world every journal here begins with."""
    return Economy(CONFIG, 7, threads=threads, parallel=in_threads(threads))


@pytest.fixture(scope="module")
def past() -> tuple[JournalBytes, list[bytes]]:
    """A recorded world."""
    return recorded()


@pytest.mark.parametrize("threads", [1, 2])
def test_a_replayed_world_is_the_recorded_one(past: tuple[JournalBytes, list[bytes]], threads: int) -> None:
    """At every tick the hash is what it was, and every stored one was checked."""
    journal, hashes = past
    economy = fresh(threads)
    seen: list[bytes] = []

    class Hashes(Watch):
        def tick(self, report: TickReport, mark: Mark) -> None:
            assert report.tick == mark.tick == len(seen)
            seen.append(economy.state_hash())

    done = replay(economy, Scan(journal.data), Hashes())

    assert seen == hashes
    assert (done.marks, done.hashes_checked, len(done.pending)) == (TICKS, 6, 0)
    assert done.actions == 8 + 12 * (TICKS - 1)


def test_hashing_beside_the_ticks_gives_the_same(past: tuple[JournalBytes, list[bytes]]) -> None:
    """A hasher that answers late is asked for each hash once, one at a time."""
    journal, hashes = past
    open_now: list[int] = []

    def later(data: memoryview) -> Callable[[], bytes]:
        open_now.append(1)
        assert len(open_now) == 1

        def value() -> bytes:
            open_now.pop()
            return hash_bytes(data)

        return value

    economy = fresh()
    done = replay(economy, Scan(journal.data), hasher=later)

    assert done.hashes_checked == 6
    assert economy.state_hash() == hashes[-1]


def test_the_first_hash_that_is_not_met_ends_the_replay_by_its_tick() -> None:
    """Tick, expected and actual are named; without checking nobody notices."""
    journal, hashes = recorded(wrong_at=10)

    with pytest.raises(HashDiffers) as raised:
        replay(fresh(), Scan(journal.data))
    unchecked = fresh()
    done = replay(unchecked, Scan(journal.data), check=False)

    assert raised.value.tick == 10
    assert (raised.value.expected[:5], raised.value.actual) == (b"wrong", hashes[10])
    assert done.hashes_checked == 0
    assert unchecked.state_hash() == hashes[-1]


def test_another_start_is_found_at_the_first_hash(past: tuple[JournalBytes, list[bytes]]) -> None:
    """A credit more in one pocket at the start is another world."""
    economy = fresh()
    economy.checks = 0
    economy.state.cash[5] += 1_000_000

    with pytest.raises(HashDiffers) as raised:
        replay(economy, Scan(past[0].data))

    assert raised.value.tick == 0


def test_actions_behind_the_last_mark_are_left_for_the_next_tick(past: tuple[JournalBytes, list[bytes]]) -> None:
    """What was accepted but not ticked is given back in order, not dropped and not applied."""
    journal = JournalBytes()
    journal.data, journal.next_sequence = bytearray(past[0].data), past[0].next_sequence
    journal.durable = journal.next_sequence - 1
    first = journal.action(client_action_id="x")
    journal.actions(np.concatenate([action_row(), action_row()]), "y", "z")
    journal.batch()

    economy = fresh()
    done = replay(economy, Scan(journal.data))

    assert done.pending["seq"].tolist() == [first, first + 1, first + 2]
    assert economy.tick == TICKS - 1
    assert economy.state_hash() == past[1][-1]


def test_everything_is_told_in_the_order_of_the_journal(past: tuple[JournalBytes, list[bytes]]) -> None:
    """Actions before their tick, other records where they stand."""
    told: list[str] = []

    class Order(Watch):
        def record(self, record: Record) -> None:
            told.append(record.kind.name)

        def actions(self, actions: Actions) -> None:
            told.append(f"action {actions.rows['seq'][0]}")

        def tick(self, report: TickReport, mark: Mark) -> None:
            told.append(f"tick {mark.tick}")

    replay(fresh(), Scan(past[0].data), Order(), check=False)

    assert told[:3] == ["GENESIS", "KEY", "action 3"]
    assert told[9:13] == ["action 10", "tick 0", "action 12", "action 13"]
    assert told[-1] == f"tick {TICKS - 1}"


def test_who_does_not_want_a_tick_is_not_told_of_it(past: tuple[JournalBytes, list[bytes]]) -> None:
    """It is asked at every mark, and the world is the same."""
    told: list[int] = []

    class Some(Watch):
        def wants(self, mark: Mark) -> bool:
            return mark.tick % 7 == 3

        def tick(self, report: TickReport, mark: Mark) -> None:
            assert report.tick == report.public.tick == mark.tick
            told.append(mark.tick)

    economy = fresh()
    done = replay(economy, Scan(past[0].data), Some())

    assert told == [3, 10, 17, 24]
    assert (done.marks, done.hashes_checked) == (TICKS, 6)
    assert economy.state_hash() == past[1][-1]


@pytest.mark.parametrize(("tick", "actions"), [(1, 0), (0, 2)])
def test_marks_that_do_not_fit_what_is_before_them_are_refused(tick: int, actions: int) -> None:
    """A skipped tick number or a wrong count of actions is no history."""
    journal = JournalBytes()
    journal.mark(tick, actions)
    journal.batch()

    with pytest.raises(ValueError, match=f"mark {tick} of {actions} actions, behind tick -1 and 0 actions"):
        replay(fresh(), Scan(journal.data))
