"""websockets' own broadcast(), on uvloop, without pings and compression.

python -m loadtest.peers.websockets_broadcast BYTES
"""

from __future__ import annotations

import sys

from websockets.asyncio.server import ServerConnection, broadcast, serve

from loadtest.peers import broadcasting


async def main(size: int) -> None:
    """Serve until the input ends."""
    connected: set[ServerConnection] = set()

    async def stream(connection: ServerConnection) -> None:
        connected.add(connection)
        await connection.wait_closed()
        connected.remove(connection)

    async def tick() -> int:
        broadcast(connected, broadcasting.payload(size))
        return len(connected)

    async with serve(stream, "127.0.0.1", 0, compression=None, ping_interval=None, backlog=4096) as server:
        await broadcasting.run(next(iter(server.sockets)).getsockname()[1], tick)


if __name__ == "__main__":
    import uvloop

    uvloop.run(main(int(sys.argv[1])))
