"""The compiled loop of writes does what its twin in Python does, in one thread and in two."""

from __future__ import annotations

import os
import random
import resource
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import numpy as np
import pytest

from server import send_loop
from server.send_loop import SHARED_MAX, SHARED_MIN, Descriptors, Send, Sender, send_to_each
from tests.support.deadlines import seconds

CROWD = 2 * SHARED_MIN


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


def always() -> bool:
    """Say that a helper is of use: with one processor it is late, and as right."""
    return True


def numbers(*descriptors: int) -> Descriptors:
    """Return descriptors as a send takes them."""
    return np.array(descriptors, np.int32)


def naive(descriptors: Descriptors, data: bytes) -> list[int]:
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


class Gated:
    """A thread that does not run before it is let."""

    def __init__(self, run: Callable[[], None]) -> None:
        self.gate = threading.Event()
        self._thread = threading.Thread(target=lambda: (self.gate.wait(), run()), daemon=True)
        self._thread.start()
        self.join = self._thread.join


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
    shared = Sender(started, always)
    yield {"one thread": send_to_each, "two threads": shared, "naive": naive}[request.param]
    shared.close()


def test_each_takes_what_it_has_room_for(send: Send, pairs: list[tuple[socket.socket, socket.socket]]) -> None:
    """All of it, a part, nothing when full, nothing when closed by the other side, nothing for -1."""
    open_, full, gone, _ = (ours.fileno() for ours, _ in pairs)
    large = bytes(range(256)) * 1_024
    pairs[2][1].close()

    small = send(numbers(open_, -1, gone), b"small")
    part = send(numbers(full), large)
    none = send(numbers(full), b"small")

    assert small == [5, -1, -1]
    assert 0 < part[0] < len(large)
    assert none == [-1]
    assert pairs[0][1].recv(100) == b"small"
    got = b"".join(iter(lambda: _read(pairs[1][1]), b""))
    assert got == large[: part[0]]


def test_nobody_is_no_mistake(send: Send) -> None:
    """An empty list takes nothing."""
    assert send(numbers(), b"data") == []


def test_everybody_gets_everything_once(send: Send, crowd: list[tuple[socket.socket, socket.socket]]) -> None:
    """Whoever writes, whatever the crowd and the size: each gets the data once, and nobody else does."""
    chance = random.Random(1)
    for _ in range(300):
        chosen = chance.sample(crowd, chance.randrange(1, CROWD))
        data = chance.randbytes(chance.randrange(1, 3_000))

        taken = send(numbers(*(ours.fileno() for ours, _ in chosen)), data)

        assert taken == [len(data)] * len(chosen)
        assert all(_read(theirs) == data for _, theirs in chosen)
        assert all(_read(theirs) == b"" for _, theirs in crowd)


def test_nobody_waits_for_a_helper_that_does_not_run(crowd: list[tuple[socket.socket, socket.socket]]) -> None:
    """What it does not come to do is done without it, and when it comes too late it does nothing."""
    sender = Sender(Late, always)

    taken = [sender(numbers(*(ours.fileno() for ours, _ in crowd)), data) for data in (b"one", b"two")]
    sender.close()

    assert taken == [[3] * CROWD] * 2
    assert [_read(theirs) for _, theirs in crowd] == [b"onetwo"] * CROWD


def test_it_returns_only_when_the_helper_has_written(monkeypatch: pytest.MonkeyPatch) -> None:
    """The caller may close a descriptor behind it: a write still under way would reach whoever gets its number."""
    monkeypatch.setattr(send_loop, "SHARED_MIN", 1)
    data, hired = bytes(1 << 20), list[Gated]()

    def hire(run: Callable[[], None]) -> Gated:
        hired.append(Gated(run))
        return hired[-1]

    with ExitStack() as stack:
        # sockets that block: a write of so much lasts for as long as nobody reads
        (first, reads_first), (second, reads_second) = (socket.socketpair() for _ in range(2))
        for one in (first, reads_first, second, reads_second):
            stack.enter_context(one)
            one.settimeout(None if one in (first, second) else seconds(30.0))
        sender = Sender(hire, always)
        stack.callback(sender.close)
        # were it to fail here: nobody reads, so no write stays under way
        stack.callback(reads_first.close)
        stack.callback(reads_second.close)
        caller = ThreadPoolExecutor(1)
        stack.callback(caller.shutdown, wait=False)
        sent = caller.submit(sender, numbers(first.fileno(), second.fileno()), data)
        # it has begun the first write, so the second is the helper's
        begun = len(reads_first.recv(1))
        hired[0].gate.set()
        helped = len(reads_second.recv(1))
        _read_all(reads_first, len(data) - begun)

        with pytest.raises(TimeoutError):
            sent.result(timeout=0.3)
        _read_all(reads_second, len(data) - helped)

        assert sent.result(timeout=seconds(30.0)) == [len(data)] * 2


def test_it_does_without_a_helper_that_the_system_has_no_thread_for(
    started: Started, crowd: list[tuple[socket.socket, socket.socket]]
) -> None:
    """Nobody misses a frame for it, nothing stays open, and the next call asks again."""
    refused: list[None] = []

    def start(run: Callable[[], None]) -> threading.Thread:
        if not refused:
            refused.append(None)
            raise RuntimeError("can't start new thread")
        return started(run)

    sender, descriptors, lowest = Sender(start, always), numbers(*(ours.fileno() for ours, _ in crowd)), _lowest_free()

    assert sender(descriptors, b"one") == [3] * CROWD
    assert (started.threads, _lowest_free()) == ([], lowest)

    assert sender(descriptors, b"two") == [3] * CROWD
    sender.close()
    assert (len(started.threads), _lowest_free()) == (1, lowest)
    assert [_read(theirs) for _, theirs in crowd] == [b"onetwo"] * CROWD


@pytest.mark.parametrize("left", [0, 1])
def test_it_does_without_a_helper_when_descriptors_have_run_out(
    left: int, started: Started, crowd: list[tuple[socket.socket, socket.socket]]
) -> None:
    """left: descriptors that can still be opened; a helper needs two."""
    sender, descriptors, lowest = (
        Sender(started, always),
        numbers(*(ours.fileno() for ours, _ in crowd)),
        _lowest_free(),
    )
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest + left, limits[1]))
    try:
        taken = sender(descriptors, b"data")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)

    assert taken == [4] * CROWD
    assert (started.threads, _lowest_free()) == ([], lowest)


def test_no_thread_where_it_is_of_no_use(started: Started, crowd: list[tuple[socket.socket, socket.socket]]) -> None:
    """For a few, for those whose transports write, and for more than there is room for."""
    sender, descriptors = Sender(started, always), numbers(*(ours.fileno() for ours, _ in crowd))

    sender(descriptors[: SHARED_MIN - 1], b"few")
    sender(numbers(*[-1] * CROWD), b"nobody")
    sender(numbers(*descriptors, *[-1] * SHARED_MAX), b"many")
    assert started.threads == []

    sender(descriptors, b"together")
    sender.close()
    assert len(started.threads) == 1


def test_no_thread_with_one_processor(started: Started, crowd: list[tuple[socket.socket, socket.socket]]) -> None:
    """Also when the process was moved to it while it ran."""
    sender, every = Sender(started), os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(every)})
    try:
        taken = sender(numbers(*(ours.fileno() for ours, _ in crowd)), b"alone")
    finally:
        os.sched_setaffinity(0, every)

    assert taken == [5] * CROWD
    assert started.threads == []


def _lowest_free() -> int:
    """Return the number that what is opened next will have."""
    descriptor = os.open(os.devnull, os.O_RDONLY)
    os.close(descriptor)
    return descriptor


def _read_all(one: socket.socket, size: int) -> None:
    while size:
        got = len(one.recv(min(size, 1 << 16)))
        assert got
        size -= got


def _read(one: socket.socket) -> bytes:
    try:
        return one.recv(1 << 20)
    except BlockingIOError:
        return b""
