"""What many connections send, read from a few of them in each turn of the event loop.

The event loop reads in one turn from everybody who has sent something. The ends of 10,000 clients that left at once
came in turns of up to 50 ms, and a tick that was due meanwhile began so much later (loadtest.storm). Here the rest
waits in the kernel for the next turn, and whatever else is due comes in between.
"""

from __future__ import annotations

import asyncio
import select
from typing import Final, Protocol

import structlog

READ_A_TURN: Final = 64
"""Connections read from in a turn: messages, pongs and ends of so many take a millisecond or two."""

log = structlog.get_logger("arena.input")


class Reader(Protocol):
    """A connection that reads by itself when told that something has come."""

    def take_input(self) -> None:
        """Read once what has come, or the end; leave the poll when nothing more is wanted."""

    def abort(self) -> None:
        """Drop the connection."""


class InputPoll:
    """Tells connections when there is something to read. To be used in the thread of one event loop, and closed.

    Linux only: see `is_available`.
    """

    is_available: Final = hasattr(select, "epoll")

    def __init__(self) -> None:
        self._poll: select.epoll | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._readers: dict[int, Reader] = {}

    def __len__(self) -> int:
        """Return how many readers are told."""
        return len(self._readers)

    def add(self, descriptor: int, reader: Reader) -> None:
        """Tell a reader from now on when there is something to read from its descriptor."""
        if self._poll is None or self._loop is None:
            self._poll, self._loop = select.epoll(), asyncio.get_running_loop()
            self._loop.add_reader(self._poll.fileno(), self._turn)
        self._poll.register(descriptor, select.EPOLLIN)
        self._readers[descriptor] = reader

    def remove(self, descriptor: int, reader: Reader) -> None:
        """Tell it no more, before the descriptor is closed. Does nothing when it is not told anything."""
        if self._poll is not None and self._readers.get(descriptor) is reader:
            del self._readers[descriptor]
            self._poll.unregister(descriptor)

    def close(self) -> None:
        """Tell nobody any more."""
        if self._poll is not None and self._loop is not None:
            self._loop.remove_reader(self._poll.fileno())
            self._poll.close()
        self._poll = self._loop = None
        self._readers.clear()

    def _turn(self) -> None:
        """Let a few read; whoever has not had a turn has one of the next."""
        if self._poll is None:
            return
        for descriptor, _ in self._poll.poll(0, READ_A_TURN):
            # one that was read before in this turn may have ended this one
            reader = self._readers.get(descriptor)
            if reader is None:
                continue
            try:
                reader.take_input()
            except Exception:
                # one connection's mistake is nobody else's to notice
                log.exception("input_failed")
                self.remove(descriptor, reader)
                reader.abort()
