"""The compiled loop of writes does what its twin in Python does, in one thread and in two."""

from __future__ import annotations

import os
import random
import socket
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from server import send_loop
from server.send_loop import SHARED_MAX, SHARED_MIN, Send, Sender, send_to_each
from tests.support.deadlines import seconds

CROWD = 2 * SHARED_MIN
needs_two = pytest.mark.skipif(
    not hasattr(os, "sched_getaffinity") or len(os.sched_getaffinity(0)) < 2, reason="helps on two processors only"
)


@pytest.fixture
def pairs() -> Iterator[list[tuple[socket.socket, socket.socket]]]:
    """Give pairs of connected sockets that do not block and take little."""
    made = [socket.socketpair() for _ in range(4)]
    for ours, theirs in made:
        ours.setblocking(False)
        theirs.setblocking(False)
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4_096)
    yield made
    for pair in made:
        for one in pair:
            one.close()


def naive(descriptors: list[int], data: bytes) -> list[int]:
    """Write to each descriptor with os.write."""
    taken = []
    for descriptor in descriptors:
        try:
            taken.append(os.write(descriptor, data) if descriptor >= 0 else -1)
        except OSError:
            taken.append(-1)
    return taken


class Started:
    """Threads a sender has started."""

    def __init__(self) -> None:
        self.threads: list[threading.Thread] = []

    def __call__(self, run: Callable[[], None]) -> threading.Thread:
        """Start one."""
        self.threads.append(threading.Thread(target=run, daemon=True))
        self.threads[-1].start()
        return self.threads[-1]


class Late:
    """A thread that the system does not run before somebody waits for its end."""

    def __init__(self, run: Callable[[], None]) -> None:
        self.join = run


@pytest.fixture
def crowd() -> Iterator[list[tuple[socket.socket, socket.socket]]]:
    """Give more pairs of sockets than are written to without help."""
    made = [socket.socketpair() for _ in range(CROWD)]
    for pair in made:
        for one in pair:
            one.setblocking(False)
    yield made
    for pair in made:
        for one in pair:
            one.close()


@pytest.fixture
def started() -> Started:
    """Give what a sender starts its thread with."""
    return Started()


@pytest.fixture(params=["one thread", "two threads", "naive"])
def send(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, started: Started) -> Iterator[Send]:
    """Give each way to write; two threads whatever the number of connections."""
    monkeypatch.setattr(send_loop, "SHARED_MIN", 1)
    shared = Sender(started)
    yield {"one thread": send_to_each, "two threads": shared, "naive": naive}[request.param]
    shared.close()


def test_each_takes_what_it_has_room_for(send: Send, pairs: list[tuple[socket.socket, socket.socket]]) -> None:
    """All of it, a part, nothing when full, nothing when closed by the other side, nothing for -1."""
    open_, full, gone, _ = (ours.fileno() for ours, _ in pairs)
    large = bytes(range(256)) * 1_024
    pairs[2][1].close()

    small = send([open_, -1, gone], b"small")
    part = send([full], large)
    none = send([full], b"small")

    assert small == [5, -1, -1]
    assert 0 < part[0] < len(large)
    assert none == [-1]
    assert pairs[0][1].recv(100) == b"small"
    got = b"".join(iter(lambda: _read(pairs[1][1]), b""))
    assert got == large[: part[0]]


def test_nobody_is_no_mistake(send: Send) -> None:
    """An empty list takes nothing."""
    assert send([], b"data") == []


def test_everybody_gets_everything_once(send: Send, crowd: list[tuple[socket.socket, socket.socket]]) -> None:
    """Whoever writes, whatever the crowd and the size: each gets the data once, and nobody else does."""
    chance = random.Random(1)
    for _ in range(300):
        chosen = chance.sample(crowd, chance.randrange(1, CROWD))
        data = chance.randbytes(chance.randrange(1, 3_000))

        taken = send([ours.fileno() for ours, _ in chosen], data)

        assert taken == [len(data)] * len(chosen)
        assert all(_read(theirs) == data for _, theirs in chosen)
        assert all(_read(theirs) == b"" for _, theirs in crowd)


@needs_two
def test_the_helper_takes_its_share(started: Started, crowd: list[tuple[socket.socket, socket.socket]]) -> None:
    """It spends processor time of its own on writes."""
    sender, deadline, spent = Sender(started), time.monotonic() + seconds(30.0), 0.0

    while spent < 0.005 and time.monotonic() < deadline:
        sender([ours.fileno() for ours, _ in crowd], b"data")
        for _, theirs in crowd:
            _read(theirs)
        spent = time.clock_gettime(time.pthread_getcpuclockid(started.threads[0].ident or 0))
    sender.close()

    assert spent >= 0.005
    assert not started.threads[0].is_alive()


@needs_two
def test_nobody_waits_for_a_helper_that_does_not_run(crowd: list[tuple[socket.socket, socket.socket]]) -> None:
    """What it does not come to do is done without it, and when it comes too late it does nothing."""
    sender = Sender(Late)

    taken = [sender([ours.fileno() for ours, _ in crowd], data) for data in (b"one", b"two")]
    sender.close()

    assert taken == [[3] * CROWD] * 2
    assert [_read(theirs) for _, theirs in crowd] == [b"onetwo"] * CROWD


@needs_two
def test_no_thread_where_it_is_of_no_use(started: Started, crowd: list[tuple[socket.socket, socket.socket]]) -> None:
    """For a few, for those whose transports write, for more than there is room for, and with one processor."""
    sender, descriptors = Sender(started), [ours.fileno() for ours, _ in crowd]

    sender(descriptors[: SHARED_MIN - 1], b"few")
    sender([-1] * CROWD, b"nobody")
    sender([-1] * SHARED_MAX + descriptors, b"many")
    every = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(every)})
    try:
        sender(descriptors, b"alone")
    finally:
        os.sched_setaffinity(0, every)
    assert started.threads == []

    sender(descriptors, b"together")
    sender.close()
    assert len(started.threads) == 1


def _read(one: socket.socket) -> bytes:
    try:
        return one.recv(1 << 20)
    except BlockingIOError:
        return b""
