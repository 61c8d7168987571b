"""What stands between a gateway and its engine, passes everything on, and pulls a trigger at a step of an exchange."""

from __future__ import annotations

import asyncio
import random
import socket
from collections.abc import Callable
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from typing import Final

STEPS: Final = (
    "before_connect",  # nobody listens when the gateway connects
    "connected",  # the connection is there, nothing was sent on it
    "request_part",  # a part of the request has gone to the engine
    "request_all",  # all of it has; some microseconds later
    "journaled",  # the journal has grown since
    "answer_made",  # the engine's answer has come, the gateway has nothing of it
    "answer_part",  # the gateway has a part of it
    "answer_all",  # the gateway has all of it; some microseconds later
)
OFFSET_S: Final = 0.004
"""Longest a trigger is held back where the step says so."""
JOURNAL_LIMIT_S: Final = 0.05
_INPUTS: Final = (b"POST /api/", b"DELETE /api/")

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Proxy:
    """Listens at a port of its own. arm() sets a step and what to do there; it is done once.

    data: the world's folder, to see its journal grow.
    """

    def __init__(self, engine_port: int, data: Path, draw: random.Random) -> None:
        self.port = 0
        self.is_done = asyncio.Event()
        """Set when the trigger was pulled."""
        self._engine_port = engine_port
        self._data = data
        self._draw = draw
        self._listener: socket.socket | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._step: str | None = None
        self._pull: Callable[[], None] = _nothing

    def open(self) -> None:
        """Listen, at the same port as before."""
        # a server of asyncio forgets what it has just accepted when it is closed
        self._listener = socket.create_server(("127.0.0.1", self.port))
        self._listener.setblocking(False)
        self.port = self._listener.getsockname()[1]
        asyncio.get_running_loop().add_reader(self._listener, self._accept, self._listener)

    def vanish(self) -> None:
        """Stop listening and drop every connection, as the system does for a process that was killed."""
        if self._listener is not None:
            asyncio.get_running_loop().remove_reader(self._listener)
            self._listener.close()
            self._listener = None
        self.drop_connections()

    async def close(self) -> None:
        """Vanish, and return when nothing is carried any more."""
        self.vanish()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def drop_connections(self) -> None:
        """Close every connection, so that the next request needs a new one."""
        for task in self._tasks:
            task.cancel()

    def arm(self, step: str, pull: Callable[[], None]) -> None:
        """Pull when the next input comes to that step."""
        self.is_done.clear()
        self._step, self._pull = step, pull

    def disarm(self) -> None:
        """Pull nothing any more."""
        self._step = None

    def _accept(self, listener: socket.socket) -> None:
        with suppress(BlockingIOError, ConnectionError):
            accepted, _ = listener.accept()
            task = asyncio.create_task(self._carry(accepted))
            self._tasks.add(task)
            task.add_done_callback(partial(self._carried, accepted))

    def _carried(self, accepted: socket.socket, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        # cancelled before it began, it has closed nothing
        accepted.close()

    async def _carry(self, accepted: socket.socket) -> None:
        with ExitStack() as ends, suppress(OSError, EOFError):
            gateway = await asyncio.open_connection(sock=accepted)
            ends.callback(gateway[1].transport.abort)
            if self._step == "connected":
                # whoever connects wants to send an input: its own questions have their own connections
                self._fire()
                await asyncio.sleep(self._offset_s())
            engine = await asyncio.open_connection("127.0.0.1", self._engine_port)
            ends.callback(engine[1].transport.abort)
            while True:
                await self._exchange(gateway, engine)

    async def _exchange(self, gateway: Streams, engine: Streams) -> None:
        """Carry one request and its answer. Raises OSError, EOFError when either side is gone."""
        request = await _message(gateway[0])
        step = self._step if request.startswith(_INPUTS) else None
        size = _journal_bytes(self._data) if step == "journaled" else 0
        await self._pass_on(engine[1], request, part=step == "request_part")
        if step == "request_all":
            await asyncio.sleep(self._offset_s())
            self._fire()
        elif step == "journaled":
            await self._until_journal_grows(size)
            self._fire()
        answer = await _message(engine[0])
        if step == "answer_made":
            self._fire()
            await asyncio.sleep(self._offset_s())
        await self._pass_on(gateway[1], answer, part=step == "answer_part")
        if step == "answer_all":
            await asyncio.sleep(self._offset_s())
            self._fire()

    async def _pass_on(self, writer: asyncio.StreamWriter, message: bytes, *, part: bool) -> None:
        cut = self._draw.randrange(1, len(message)) if part else len(message)
        writer.write(message[:cut])
        await writer.drain()
        if part:
            # whoever is there has what was sent before the other one is gone
            await asyncio.sleep(self._offset_s())
            self._fire()
            await asyncio.sleep(self._offset_s())
            writer.write(message[cut:])
            await writer.drain()

    async def _until_journal_grows(self, size: int) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(JOURNAL_LIMIT_S):
                while _journal_bytes(self._data) == size:  # noqa: ASYNC110 - a file tells nobody that it grows
                    await asyncio.sleep(0)

    def _offset_s(self) -> float:
        return self._draw.uniform(0.0, OFFSET_S)

    def _fire(self) -> None:
        if self._step is not None:
            self._step = None
            self._pull()
            self.is_done.set()


def _nothing() -> None:
    """Do nothing."""


async def _message(reader: asyncio.StreamReader) -> bytes:
    """Read one HTTP message with a content-length, or without a body."""
    head = await reader.readuntil(b"\r\n\r\n")
    _, found, rest = head.lower().partition(b"\r\ncontent-length: ")
    body = await reader.readexactly(int(rest.split(b"\r\n")[0])) if found else b""
    return head + body


def _journal_bytes(data: Path) -> int:
    """Return the size of the newest segment, which is the one that grows."""
    newest = max(data.glob("journal-*.arj"), default=None)
    return 0 if newest is None else newest.stat().st_size
