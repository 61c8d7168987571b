"""Starlette's way to broadcast: one task that awaits `send_bytes` for each connection, under uvicorn on uvloop.

    python -m loadtest.peers.starlette_send BYTES

uvicorn's sans-I/O WebSocket implementation, without pings, compression and access log. A task for each connection, or
`gather` over all, costs more.
"""

from __future__ import annotations

import asyncio
import socket
import sys

import uvicorn
from starlette.applications import Starlette
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket

from loadtest.peers import broadcasting


async def main(size: int) -> None:
    """Serve until the input ends."""
    connected: list[WebSocket] = []

    async def stream(websocket: WebSocket) -> None:
        await websocket.accept()
        connected.append(websocket)
        while (await websocket.receive())["type"] != "websocket.disconnect":
            pass
        connected.remove(websocket)

    async def tick() -> int:
        payload = broadcasting.payload(size)
        for websocket in connected:
            await websocket.send_bytes(payload)
        return len(connected)

    listener = socket.create_server(("127.0.0.1", 0), backlog=4096)
    config = uvicorn.Config(
        Starlette(routes=[WebSocketRoute("/ws", stream)]),
        ws="websockets-sansio",
        ws_ping_interval=None,
        ws_per_message_deflate=False,
        log_config=None,
        access_log=False,
        lifespan="off",
    )
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve([listener]))
    await broadcasting.run(listener.getsockname()[1], tick)
    serving.cancel()


if __name__ == "__main__":
    import uvloop

    uvloop.run(main(int(sys.argv[1])))
