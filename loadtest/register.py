"""A crowd of outside agents: registered as fast as the server takes them, then idle."""

from __future__ import annotations

import asyncio
from urllib.parse import urlsplit

CONNECTIONS = 32
"""Each waits for its answer, and one sync of the journal serves all that wait."""


async def register(url: str, count: int) -> int:
    """Register so many agents, each of an owner of its own; return how many the server took.

    Raises OSError when it goes away.
    """
    request = (
        f"POST /api/agents/register HTTP/1.1\r\nhost: {urlsplit(url).netloc}\r\n"
        "content-type: application/json\r\ncontent-length: 2\r\n\r\n{}"
    ).encode()
    shares = [len(range(first, count, CONNECTIONS)) for first in range(CONNECTIONS)]
    return sum(await asyncio.gather(*(_register(url, request, share) for share in shares)))


async def _register(url: str, request: bytes, count: int) -> int:
    parts = urlsplit(url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port or 80)
    taken = 0
    for _ in range(count):
        writer.write(request)
        head = await reader.readuntil(b"\r\n\r\n")
        await reader.readexactly(int(head.lower().split(b"content-length: ", 1)[1].split(b"\r\n", 1)[0]))
        taken += head.startswith(b"HTTP/1.1 201")
    writer.close()
    await writer.wait_closed()
    return taken
