"""HTTP as bytes: one connection, requests written exactly as a test wants them, answers taken apart."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from tests.support.deadlines import seconds

WAIT_S = 20.0


class Answer(NamedTuple):
    """headers: by name in small letters."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        """Return the document."""
        return json.loads(self.body)


class Connection:
    """A connection to a server."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def ask(self, request: bytes) -> Answer:
        """Send a request and return its answer."""
        self.writer.write(request)
        return await self.answer()

    async def answer(self) -> Answer:
        """Return the next answer."""
        async with asyncio.timeout(seconds(WAIT_S)):
            head = await self.reader.readuntil(b"\r\n\r\n")
            status, *lines = head[:-4].decode("latin-1").split("\r\n")
            headers = dict(line.split(": ", 1) for line in lines)
            headers = {name.lower(): value for name, value in headers.items()}
            body = await self.reader.readexactly(int(headers["content-length"]))
        return Answer(int(status.split(" ")[1]), headers, body)

    async def end(self) -> bytes:
        """Return what comes until the server closes the connection."""
        async with asyncio.timeout(seconds(WAIT_S)):
            return await self.reader.read()


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[Connection]:
    """Give a connection to the server of a URL."""
    address = urlsplit(url)
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    try:
        yield Connection(reader, writer)
    finally:
        writer.close()


def post(path: str, body: bytes, *headers: str) -> bytes:
    """Return a POST with these header lines and the length of its body."""
    lines = [f"POST {path} HTTP/1.1", "Host: 127.0.0.1", *headers, f"Content-Length: {len(body)}"]
    return "\r\n".join([*lines, "", ""]).encode() + body
