"""What many connections send, read from a few of them in each turn of the event loop.

The event loop reads in one turn from everybody who has sent something. The ends of 10,000 clients that left at once
came in turns of up to 50 ms, and a tick that was due meanwhile began so much later (loadtest.storm). Here the rest
waits in the kernel for the next turn, and whatever else is due comes in between.
"""

from __future__ import annotations

import asyncio
import select
from collections import deque
from collections.abc import Callable
from typing import Final, Protocol

import structlog

READ_A_TURN: Final = 64
"""Connections read from in a turn: pongs and ends of so many take about a millisecond."""
TURN_S: Final = 0.002
"""After so long nobody else is read from in this turn: one client may have sent hundreds of frames."""

log = structlog.get_logger("arena.input")


class Reader(Protocol):
    """A connection that reads by itself when told that something has come."""

    def take_input(self) -> None:
        """Read once what has come, or the end; leave the poll when nothing more is wanted."""

    def release(self) -> None:
        """Find out in another way from now on what has come."""

    def abort(self) -> None:
        """Drop the connection."""


class InputPoll:
    """Tells connections when there is something to read. To be used in the thread of one event loop, and closed.

    monotonic: returns the time, s.
    """

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._poll: select.epoll | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._is_closed = False
        self._readers: dict[int, Reader] = {}
        self._ready: deque[int] = deque()
        """Descriptors that were found ready and have not had their turn."""

    def __len__(self) -> int:
        """Return how many readers are told."""
        return len(self._readers)

    def add(self, descriptor: int, reader: Reader) -> bool:
        """Tell a reader from now on when there is something to read from its descriptor.

        Return whether that can be done: only on Linux, only while the system has room for more, not once it is closed.
        """
        if self._is_closed or not hasattr(select, "epoll"):
            return False
        try:
            if self._poll is None:
                self._open()
            assert self._poll is not None
            self._poll.register(descriptor, select.EPOLLIN)
        except OSError:
            return False
        self._readers[descriptor] = reader
        return True

    def _open(self) -> None:
        poll, loop = select.epoll(), asyncio.get_running_loop()
        try:
            loop.add_reader(poll.fileno(), self._turn)
        except OSError:
            poll.close()
            raise
        self._poll, self._loop = poll, loop

    def remove(self, descriptor: int, reader: Reader) -> None:
        """Tell it no more, before the descriptor is closed. Does nothing when it is not told anything."""
        if self._poll is not None and self._readers.get(descriptor) is reader:
            del self._readers[descriptor]
            self._poll.unregister(descriptor)

    def close(self) -> None:
        """Tell nobody any more, and say so to those who are told still."""
        self._is_closed = True
        if self._poll is not None and self._loop is not None:
            self._loop.remove_reader(self._poll.fileno())
            self._poll.close()
        self._poll = self._loop = None
        self._ready.clear()
        readers, self._readers = self._readers, {}
        for reader in readers.values():
            reader.release()

    def _turn(self) -> None:
        """Let a few read; whoever has not had a turn has one of the next."""
        if self._poll is None:
            return
        if not self._ready:
            # not before: the system names those that it named first, first again
            self._ready.extend(descriptor for descriptor, _ in self._poll.poll(0, READ_A_TURN))
        ends = self._monotonic() + TURN_S
        while self._ready:
            self.read(self._ready.popleft())
            if self._monotonic() >= ends:
                break

    def read(self, descriptor: int) -> None:
        """Let a reader read now, whatever mistakes there are in what it does with it."""
        # one that was read from before in this turn may have ended this one
        reader = self._readers.get(descriptor)
        if reader is None:
            return
        try:
            reader.take_input()
        except Exception:
            # one connection's mistake is nobody else's to notice
            log.exception("input_failed")
            self.remove(descriptor, reader)
            reader.abort()
