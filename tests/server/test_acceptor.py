"""Connections are taken in at once, begun a few a turn of the loop, and never beyond the descriptors there are."""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from itertools import pairwise
from typing import cast

import pytest

from server.acceptor import BEGUN_A_TURN, TAKEN_A_TURN, Acceptor, take_over
from server.metrics import Metrics
from tests.support.deadlines import seconds
from tests.support.live import soon, until

GREETING = b"welcome"
MANY = 1_000
LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {"asyncio": asyncio.SelectorEventLoop}
with suppress(ImportError):  # it has no wheel for Windows
    import uvloop

    LOOPS["uvloop"] = uvloop.new_event_loop


@pytest.fixture(params=LOOPS.values(), ids=LOOPS.keys())
def event_loop_of(request: pytest.FixtureRequest) -> Iterator[asyncio.Runner]:
    """Give the event loop that is used where there is one, and Python's own."""
    with asyncio.Runner(loop_factory=request.param) as runner:
        yield runner


class Door:
    """A port and who came through it. begun: their transports, in order, those that have gone left out."""

    def __init__(self, room: int, listener: socket.socket) -> None:
        self.metrics = Metrics()
        self.begun: list[asyncio.Transport] = []
        self.count = 0
        self.address = listener.getsockname()
        self.acceptor = Acceptor([listener], lambda: Greeter(self), lambda: len(self.begun), room, self.metrics)

    @property
    def waiting(self) -> float:
        """How many wait for their turn, as the metrics have it."""
        return float(self.metrics.sockets_waiting._value.get())

    @property
    def held_off(self) -> float:
        """How often nobody was taken in for want of descriptors."""
        return float(self.metrics.sockets_held_off._value.get())


class Greeter(asyncio.Protocol):
    """Greets whoever comes and notes who is there."""

    def __init__(self, door: Door) -> None:
        self._door = door

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Greet."""
        self._transport = cast(asyncio.Transport, transport)
        self._door.begun.append(self._transport)
        self._door.count += 1
        self._transport.write(GREETING)

    def connection_lost(self, exc: Exception | None) -> None:
        """Take note."""
        self._door.begun.remove(self._transport)


@asynccontextmanager
async def opened(room: int = MANY, listener: socket.socket | None = None) -> AsyncIterator[Door]:
    """Give a door, and close it and whatever came through it."""
    door = Door(room, listener or socket.create_server(("127.0.0.1", 0), backlog=4_096))
    try:
        yield door
    finally:
        door.acceptor.close()
        for transport in tuple(door.begun):
            transport.abort()
        await until(lambda: not door.begun)


@contextmanager
def knocking(address: tuple[str, int], count: int) -> Iterator[list[socket.socket]]:
    """Give so many connections, all of which the kernel has accepted before anybody else looks."""
    clients = [socket.create_connection(address, seconds(5.0)) for _ in range(count)]
    try:
        for one in clients:
            one.setblocking(False)
        yield clients
    finally:
        for one in clients:
            one.close()


async def turns() -> AsyncIterator[int]:
    """Let one turn of the event loop pass after another, as many as are enough for everything here."""
    for i in range(1_000):
        await asyncio.sleep(0)
        yield i


async def greeted(client: socket.socket) -> bytes:
    """Return what a client is told first."""
    told: bytes = await soon(asyncio.get_running_loop().sock_recv(client, 100))
    return told


def test_everybody_who_comes_at_once_is_greeted(event_loop_of: asyncio.Runner) -> None:
    """More than are taken in a turn: all come through, and nobody waits any more."""

    async def check() -> None:
        async with opened() as door:
            with knocking(door.address, 3 * TAKEN_A_TURN) as clients:
                told = await asyncio.gather(*(greeted(one) for one in clients))

            assert set(told) == {GREETING}
            assert (door.count, door.waiting, door.held_off) == (3 * TAKEN_A_TURN, 0, 0)

    event_loop_of.run(check())


def test_a_turn_of_the_loop_begins_a_few_while_the_kernel_is_relieved_of_many(event_loop_of: asyncio.Runner) -> None:
    """A tick that is due waits for a few handshakes and not for all; nobody finds the kernel's queue full."""

    async def check() -> None:
        async with opened() as door:
            with knocking(door.address, TAKEN_A_TURN):
                counts, waiting = [0], [0.0]
                while door.count < TAKEN_A_TURN:
                    await asyncio.sleep(0)
                    counts.append(door.count)
                    waiting.append(door.waiting)

            assert max(after - before for before, after in pairwise(counts)) <= BEGUN_A_TURN
            assert max(waiting) >= TAKEN_A_TURN - 2 * BEGUN_A_TURN

    event_loop_of.run(check())


def test_who_comes_beyond_the_descriptors_waits_until_somebody_goes(event_loop_of: asyncio.Runner) -> None:
    """Nobody is accepted to be dropped unanswered, and what is left stays for the journal's files."""

    async def check() -> None:
        async with opened(room=2) as door:
            with knocking(door.address, 3) as clients:
                assert [await greeted(one) for one in clients[:2]] == [GREETING, GREETING]
                await until(lambda: door.held_off > 0)

                assert door.count == 2
                clients[0].close()
                assert await greeted(clients[2]) == GREETING

    event_loop_of.run(check())


def test_the_sockets_of_a_server_are_taken_over_while_it_listens(event_loop_of: asyncio.Runner) -> None:
    """The port stays the same and open; from then on another protocol answers at it."""

    async def check() -> None:
        door = Door(MANY, socket.create_server(("127.0.0.1", 0)))
        server = await asyncio.get_running_loop().create_server(asyncio.Protocol, "127.0.0.1", 0)
        address = server.sockets[0].getsockname()
        acceptor = take_over([server], lambda: Greeter(door), lambda: 0, MANY, door.metrics)
        with knocking(address, 2) as clients:
            told = [await greeted(one) for one in clients]
        await until(lambda: not door.begun)

        assert told == [GREETING, GREETING]
        assert acceptor.sockets[0].getsockname() == address
        acceptor.close()
        door.acceptor.close()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(address, seconds(5.0))

    event_loop_of.run(check())


def test_whoever_has_not_begun_is_dropped_when_it_closes(event_loop_of: asyncio.Runner) -> None:
    """A server that stops leaves nobody behind who waits for an answer that will not come."""

    async def check() -> None:
        async with opened() as door:
            with knocking(door.address, TAKEN_A_TURN) as clients:
                async for _ in turns():
                    if door.waiting:
                        break
                door.acceptor.close()
                await soon(door.acceptor.begun())
                count = door.count
                told = await asyncio.gather(*(greeted(one) for one in clients), return_exceptions=True)

            assert GREETING in told
            assert all(one == GREETING or not one or isinstance(one, ConnectionResetError) for one in told)
            assert told.count(GREETING) == count == door.count < TAKEN_A_TURN, "all that begin have begun"
            assert door.waiting == 0

    event_loop_of.run(check())


class Troubled(socket.socket):
    """A listening socket whose next accept ends with an error: what one peer did, or what the system is short of."""

    error: int = 0

    def accept(self) -> tuple[socket.socket, object]:
        """Fail once, as the system does: whoever it was about is gone, or waits."""
        if self.error:
            number, self.error = self.error, 0
            raise OSError(number, "planted")
        return super().accept()


@pytest.mark.parametrize(("error", "held_off"), [(errno.EHOSTUNREACH, 0), (errno.ECONNABORTED, 0), (errno.EMFILE, 1)])
def test_what_one_peer_did_holds_nobody_up(event_loop_of: asyncio.Runner, error: int, held_off: int) -> None:
    """Only when descriptors are short nobody is taken in for a moment; both times the next one is served."""

    async def check() -> None:
        listener = Troubled(socket.AF_INET)
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        listener.error = error
        async with opened(listener=listener) as door:
            with knocking(door.address, 1) as [client]:
                assert await greeted(client) == GREETING

            assert door.held_off == held_off

    event_loop_of.run(check())
