"""Connections are read from a few at a time, each when it has something, and none after it has gone."""

from __future__ import annotations

import asyncio
import os
import select
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from server.clock import ManualClock, SystemClock
from server.input_poll import READ_A_TURN, TURN_S, InputPoll
from tests.support.streams import until

pytestmark = pytest.mark.both_loops

CROWD = 3 * READ_A_TURN + 1


class Line:
    """One end of a pair of sockets that reads when it is told to; the test has the other."""

    def __init__(self, poll: InputPoll) -> None:
        self.ours, self.theirs = socket.socketpair()
        self.ours.setblocking(False)
        self.poll = poll
        self.read: list[bytes] = []
        self.ends: Line | None = None
        """Another one that leaves when this one reads."""
        self.takes: Callable[[], None] = lambda: None
        """What happens then."""
        self.fails = self.is_aborted = self.is_released = False
        assert poll.add(self.ours.fileno(), self)

    def take_input(self) -> None:
        """Read once."""
        self.read.append(os.read(self.ours.fileno(), 4))
        self.takes()
        if self.fails:
            raise RuntimeError("a mistake of ours")
        if self.ends is not None:
            self.ends.leave()

    def leave(self) -> None:
        """Hear no more."""
        self.poll.remove(self.ours.fileno(), self)

    def abort(self) -> None:
        """Note it."""
        self.is_aborted = True

    def release(self) -> None:
        """Note it."""
        self.is_released = True

    def close(self) -> None:
        """Close both ends."""
        self.ours.close()
        self.theirs.close()


class Counting(InputPoll):
    """One that counts its turns."""

    turns = 0

    def _turn(self) -> None:
        self.turns += 1
        super()._turn()


@pytest.fixture
def clock() -> ManualClock:
    """Give a clock that stands still."""
    return ManualClock()


@pytest.fixture
def poll(clock: ManualClock) -> Iterator[Counting]:
    """Give a poll."""
    made = Counting(clock.monotonic)
    yield made
    made.close()


@pytest.fixture
async def lines(poll: InputPoll) -> AsyncIterator[list[Line]]:
    """Give more of them than are read from in a turn."""
    made = [Line(poll) for _ in range(CROWD)]
    yield made
    for line in made:
        line.close()


async def test_others_have_their_turn_between_a_few(lines: list[Line]) -> None:
    """All have something at once: no turn of the loop reads from more than a few, and in the end all were read from."""
    seen = [0]
    for line in lines:
        line.theirs.send(b"data")

    while seen[-1] < CROWD:
        await asyncio.sleep(0)
        seen.append(sum(len(line.read) for line in lines))

    assert max(after - before for before, after in pairwise(seen)) <= READ_A_TURN
    assert all(line.read == [b"data"] for line in lines)


async def test_a_turn_ends_when_it_has_lasted(lines: list[Line], clock: ManualClock) -> None:
    """However few have been read from: one may have sent a lot."""
    seen = [0]
    for line in lines[:10]:
        line.theirs.send(b"data")
        line.takes = lambda: clock.advance(0.6 * TURN_S)

    while seen[-1] < 10:
        await asyncio.sleep(0)
        seen.append(sum(len(line.read) for line in lines))

    assert {after - before for before, after in pairwise(seen)} <= {0, 2}


async def test_who_sends_without_end_takes_nobodys_turn(lines: list[Line], clock: ManualClock) -> None:
    """However long its input takes: those that were found ready with it come before it comes again."""
    greedy, others = lines[0], lines[1:READ_A_TURN]

    def take() -> None:
        clock.advance(2 * TURN_S)
        greedy.theirs.send(b"more")

    greedy.takes = take
    for line in (greedy, *others):
        line.theirs.send(b"data")

    await until(lambda: len(greedy.read) == 10)

    assert all(line.read == [b"data"] for line in others)


async def test_what_is_left_is_told_again(lines: list[Line]) -> None:
    """More than is read at once, by somebody who reads once when told, and the end behind it."""
    lines[0].theirs.send(b"one two three")
    lines[0].theirs.shutdown(socket.SHUT_WR)

    await until(lambda: b"" in lines[0].read)

    assert lines[0].read[:5] == [b"one ", b"two ", b"thre", b"e", b""]


async def test_one_that_left_in_the_same_turn_is_not_told(lines: list[Line]) -> None:
    """Its descriptor may be closed by then, or belong to somebody else."""
    first, second = lines[:2]
    first.ends, second.ends = second, first
    mistakes = list[dict[str, object]]()
    asyncio.get_running_loop().set_exception_handler(lambda _, context: mistakes.append(context))
    first.theirs.send(b"data")
    second.theirs.send(b"data")

    await until(lambda: bool(first.read or second.read))
    for _ in range(10):
        await asyncio.sleep(0)

    assert sorted([len(first.read), len(second.read)]) == [0, 1]
    assert mistakes == []


async def test_who_left_costs_no_turn(poll: Counting, lines: list[Line]) -> None:
    """What is sent to somebody who does not listen wakes nobody, however long it lies there."""
    lines[0].theirs.send(b"data")
    lines[0].leave()

    for _ in range(10):
        await asyncio.sleep(0)

    assert (poll.turns, len(poll), lines[0].read) == (0, CROWD - 1, [])


async def test_one_mistake_is_nobody_elses(lines: list[Line]) -> None:
    """Whoever fails is dropped and not told again, the others of its turn are read from."""
    lines[0].fails = True
    for line in lines[:10]:
        line.theirs.send(b"data more")

    await until(lambda: all(len(line.read) == 3 for line in lines[1:10]))

    assert (lines[0].read, lines[0].is_aborted) == ([b"data"], True)
    assert not any(line.is_aborted for line in lines[1:])


async def test_only_who_is_told_can_leave(poll: InputPoll, lines: list[Line]) -> None:
    """Leaving twice does nothing, and one whose descriptor was closed does not end whoever has its number now."""
    old = lines[0]
    number = old.ours.fileno()
    old.leave()
    old.leave()
    old.ours.close()
    new = Line(poll)
    lines.append(new)
    assert new.ours.fileno() == number

    poll.remove(number, old)
    new.theirs.send(b"data")

    await until(lambda: new.read == [b"data"])
    assert old.read == []


async def test_a_closed_one_tells_nobody_and_says_so(poll: InputPoll, lines: list[Line]) -> None:
    """Those that are told still find out in another way; closed twice, left and asked afterwards it does no harm."""
    gone, others = lines[0], lines[1:]
    gone.leave()
    for line in lines:
        line.theirs.send(b"data")

    poll.close()
    poll.close()
    others[0].leave()
    for _ in range(10):
        await asyncio.sleep(0)

    assert not any(line.read for line in lines)
    assert [line.is_released for line in lines] == [False] + [True] * len(others)
    assert (len(poll), poll.add(gone.ours.fileno(), gone)) == (0, False)


async def test_what_the_system_does_not_take_is_not_told(poll: InputPoll, lines: list[Line], tmp_path: Path) -> None:
    """A folder is never waited for; a descriptor twice is a mistake that hurts nobody."""
    file = os.open(tmp_path, os.O_RDONLY)
    assert not poll.add(file, lines[0])
    os.close(file)
    assert not poll.add(lines[0].ours.fileno(), lines[1])
    assert len(poll) == CROWD

    lines[0].theirs.send(b"data")
    await until(lambda: lines[0].read == [b"data"])


async def test_elsewhere_nobody_is_told(monkeypatch: pytest.MonkeyPatch, lines: list[Line]) -> None:
    """Where the system has no such thing the transports go on reading."""
    monkeypatch.delattr(select, "epoll")
    poll = InputPoll(SystemClock().monotonic)

    assert not poll.add(lines[0].ours.fileno(), lines[0])
    poll.close()
