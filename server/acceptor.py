"""Takes connections in: everybody who knocks, at once; begins them a few at a time; none that would take the last file.

    the kernel's queue -> taken in, waiting here -> begun, a few a turn of the event loop -> their protocol

The event loop takes in one connection a turn. While a tick goes to thousands a turn is some milliseconds: of 10,000
that came back at once most found the kernel's queue full, tried again after 1, 3, 7 and 15 s, and were back in step
after 18 to 20 s (loadtest.storm). Taken in they wait where there is room, and ticks go on between any few of them.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

import structlog

from server.metrics import Metrics

TAKEN_A_TURN: Final = 64
"""Connections taken from the kernel in a turn of the loop: half a millisecond."""
BEGUN_A_TURN: Final = 4
"""Connections begun in a turn: their handshakes, which come in the next turns, take about half a millisecond each.

Of 10,000 that came back with 4 all were in step after 11 to 16 s and 1 tick in 200 was 20 ms late, with 6 after 9 to
12 s and 1 in 60 (loadtest.storm, on two cores that others used too).
"""
HOLD_OFF_S: Final = 0.05
"""Until it is looked again whether there are descriptors for more."""
WANT: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
"""What accepting says when descriptors or memory are short, of the process or of the whole machine."""

log = structlog.get_logger("arena.acceptor")


class Acceptor:
    """Stands in for the servers of an event loop: accepts at their sockets, from construction until `close`.

    listeners: bound, listening; they are not closed by it until `close`. make: the protocol of a connection. held: how
    many connections there are that have begun. room: descriptors that connections may have in all; where they are used
    up, who comes waits in the kernel's queue until somebody goes.
    """

    def __init__(
        self,
        listeners: Sequence[socket.socket],
        make: Callable[[], asyncio.Protocol],
        held: Callable[[], int],
        room: int,
        metrics: Metrics,
    ) -> None:
        self.sockets = tuple(listeners)
        self._make = make
        self._held = held
        self._room = room
        self._metrics = metrics
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[socket.socket] = deque()
        self._beginning: set[asyncio.Task[None]] = set()
        self._is_serving = False
        self._is_closed = False
        self._is_in_want = False
        for listener in self.sockets:
            listener.setblocking(False)
        self._listen()

    def close(self) -> None:
        """Take in nobody any more; whoever has not begun is dropped, as those in the kernel's queue are.

        The last few may be beginning still: see `begun`.
        """
        if self._is_closed:
            return
        self._is_closed = True
        for listener in self.sockets:
            self._loop.remove_reader(listener.fileno())
            listener.close()
        while self._waiting:
            self._waiting.popleft().close()
        self._metrics.sockets_waiting.set(0)

    async def begun(self) -> None:
        """Return when whoever was beginning has its protocol: after `close` nobody comes then."""
        if self._beginning:
            await asyncio.wait(self._beginning)

    async def wait_closed(self) -> None:
        """Return: connections that have begun are waited for by the web server itself."""

    def _listen(self) -> None:
        if not self._is_closed:
            for listener in self.sockets:
                self._loop.add_reader(listener.fileno(), self._take, listener)

    def _hold_off(self) -> None:
        """Take in nobody for a moment: a file that the journal needs must not fail for the sake of a connection."""
        self._metrics.sockets_held_off.inc()
        for listener in self.sockets:
            self._loop.remove_reader(listener.fileno())
        self._loop.call_later(HOLD_OFF_S, self._listen)

    def _take(self, listener: socket.socket) -> None:
        """Take in whoever waits at a socket, as many as may be in a turn."""
        for _ in range(TAKEN_A_TURN):
            if self._is_full():
                self._hold_off()
                break
            try:
                connection, _ = listener.accept()
            except (BlockingIOError, InterruptedError):
                break
            except OSError as error:
                if error.errno not in WANT:
                    # of that one: gone before its turn came, or its network is; Linux tells whoever accepts next
                    continue
                if not self._is_in_want:
                    log.warning("connection_not_accepted", error=str(error))
                self._is_in_want = True
                self._hold_off()
                break
            self._is_in_want = False
            connection.setblocking(False)
            self._waiting.append(connection)
        self._metrics.sockets_waiting.set(len(self._waiting))
        if not self._is_serving:
            self._begin()

    def _is_full(self) -> bool:
        taken = len(self._waiting) + len(self._beginning)
        return self._held() + taken >= self._room

    def _begin(self) -> None:
        """Begin the next few, and let others have their turn."""
        for _ in range(min(BEGUN_A_TURN, len(self._waiting))):
            task = self._loop.create_task(self._open(self._waiting.popleft()))
            self._beginning.add(task)
            task.add_done_callback(self._beginning.discard)
        self._metrics.sockets_waiting.set(len(self._waiting))
        self._is_serving = bool(self._waiting)
        if self._is_serving:
            self._loop.call_soon(self._begin)

    async def _open(self, connection: socket.socket) -> None:
        try:
            await self._loop.connect_accepted_socket(self._make, connection)
        except OSError:
            # gone before its turn came
            connection.close()


def take_over(
    servers: Sequence[asyncio.Server],
    make: Callable[[], asyncio.Protocol],
    held: Callable[[], int],
    room: int,
    metrics: Metrics,
) -> Acceptor:
    """Return what accepts instead of servers of the event loop, at the sockets that they have bound."""
    # a copy of the descriptor: closing the server closes its own and ends no listening
    listeners = [socket.socket(fileno=os.dup(one.fileno())) for server in servers for one in server.sockets]
    for server in servers:
        server.close()
    return Acceptor(listeners, make, held, room, metrics)
