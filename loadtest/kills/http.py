"""A small HTTP client that knows whether a request can have been taken in: connections kept, one request at a time."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import NamedTuple

from loadtest.simulation.network import Answer, Lost, Request
from loadtest.simulation.witness import Intent, Witness

PATIENCE_S = 15.0


class Unsent(Lost):
    """No connection was made: surely nothing happened."""


class Pending(NamedTuple):
    """A request without an answer. intents: it carries out; sent: when, seconds of the loop."""

    request: Request
    intents: list[Intent]
    sent: float


class Connection:
    """Takes the requests of one client to a server, before a witness. pending: what was sent last, until answered."""

    def __init__(self, witness: Witness, port: int) -> None:
        self.port = port
        self.pending: Pending | None = None
        self._witness = witness
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def exchange(self, request: Request) -> Answer:
        """Send a request and return its answer. Raises Lost, Unsent."""
        try:
            async with asyncio.timeout(PATIENCE_S):
                if self._streams is None:
                    try:
                        self._streams = await asyncio.open_connection("127.0.0.1", self.port)
                    except OSError:
                        raise Unsent from None
                intents = self._witness.sent(request)
                self.pending = Pending(request, intents, asyncio.get_running_loop().time())
                answer = await self._ask(request)
        except (OSError, EOFError, TimeoutError, ValueError):
            await self.close()
            raise Lost from None
        self.pending = None
        self._witness.answered(request, intents, answer)
        return answer

    async def close(self) -> None:
        """End the connection."""
        if self._streams is not None:
            _, writer = self._streams
            self._streams = None
            await close(writer)

    async def _ask(self, request: Request) -> Answer:
        assert self._streams is not None
        reader, writer = self._streams
        lines = [f"{request.method} {request.path} HTTP/1.1".encode(), b"host: 127.0.0.1"]
        lines += [name + b": " + value for name, value in request.headers]
        lines.append(b"content-length: %d" % len(request.body))
        writer.write(b"\r\n".join(lines) + b"\r\n\r\n" + request.body)
        head = (await reader.readuntil(b"\r\n\r\n")).split(b"\r\n")
        status = int(head[0].split()[1])
        headers = dict(line.lower().split(b": ", 1) for line in head[1:] if line)
        body = await reader.readexactly(int(headers.get(b"content-length", 0)))
        if headers.get(b"connection") == b"close":
            await self.close()
        return Answer(status, body)


async def is_ready(port: int) -> bool:
    """Return whether a server there says so."""
    with suppress(OSError, EOFError, ValueError):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            writer.write(b"GET /readyz HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n\r\n")
            return (await reader.readline()).split()[1:2] == [b"200"]
        finally:
            await close(writer)
    return False


async def close(writer: asyncio.StreamWriter) -> None:
    """Close a connection, in whatever state it is."""
    writer.close()
    with suppress(OSError):
        await writer.wait_closed()
