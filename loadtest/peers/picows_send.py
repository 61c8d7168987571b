"""picows' send, on uvloop: a loop over all transports, with the header built in place in one shared buffer.

    python -m loadtest.peers.picows_send BYTES

`send_reuse_external_bytearray` copies nothing; plain `send` of bytes costs a few percent more.
"""

from __future__ import annotations

import asyncio
import sys

from picows import WSListener, WSMsgType, WSTransport, WSUpgradeRequest, ws_create_server

from loadtest.peers import broadcasting

HEADER_BYTES = 14
"""Room that picows wants before the payload."""


async def main(size: int) -> None:
    """Serve until the input ends."""
    connected: set[WSTransport] = set()

    class Stream(WSListener):  # type: ignore[misc]  # picows is not installed where types are checked
        def on_ws_connected(self, transport: WSTransport) -> None:
            connected.add(transport)

        def on_ws_disconnected(self, transport: WSTransport) -> None:
            connected.discard(transport)

    def stream(request: WSUpgradeRequest) -> WSListener:
        return Stream()

    async def tick() -> int:
        buffer = bytearray(HEADER_BYTES) + broadcasting.payload(size)
        for transport in connected:
            transport.send_reuse_external_bytearray(WSMsgType.BINARY, buffer, HEADER_BYTES)
        return len(connected)

    server = await ws_create_server(stream, "127.0.0.1", 0, backlog=4096, enable_auto_ping=False)
    serving = asyncio.create_task(server.serve_forever())
    await broadcasting.run(server.sockets[0].getsockname()[1], tick)
    serving.cancel()


if __name__ == "__main__":
    import uvloop

    uvloop.run(main(int(sys.argv[1])))
