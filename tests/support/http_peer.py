"""A server that does with each connection what a test says: answers in part, never, twice, or hangs up."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Peer:
    """A server that does with each connection what a test says. requests: heads and bodies it has read."""

    def __init__(self) -> None:
        self.requests: list[bytes] = []
        self.connections = 0
        self.port = 0

    async def read(self, reader: asyncio.StreamReader) -> bytes:
        """Read one request and return it."""
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
        request = head + await reader.readexactly(length)
        self.requests.append(request)
        return request


@asynccontextmanager
async def serving(serve: Callable[[Peer], Serve]) -> AsyncIterator[Peer]:
    """Run a peer until the block ends."""
    peer = Peer()
    handle = serve(peer)

    served: set[asyncio.Task[None]] = set()

    async def serve_one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            with suppress(asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
                await handle(reader, writer)
        finally:
            writer.close()
            # it may be closing already when the block ends
            with suppress(ConnectionError, asyncio.CancelledError):
                await writer.wait_closed()

    def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer.connections += 1
        served.add(asyncio.create_task(serve_one(reader, writer)))

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    peer.port = server.sockets[0].getsockname()[1]
    try:
        yield peer
    finally:
        server.close()
        for task in served:
            task.cancel()
        await asyncio.gather(*served)


def answering(*answers: bytes) -> Callable[[Peer], Serve]:
    """Answer each request of a connection with the next of these bytes, then close."""

    def serve(peer: Peer) -> Serve:
        async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            for answer in answers:
                await peer.read(reader)
                writer.write(answer)
                await writer.drain()

        return handle

    return serve


def forever(answer: bytes) -> Callable[[Peer], Serve]:
    """Answer every request with these bytes."""

    def serve(peer: Peer) -> Serve:
        async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while True:
                await peer.read(reader)
                writer.write(answer)

        return handle

    return serve
