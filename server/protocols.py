"""Our uvicorn WebSocket protocol: no compression, a small write buffer, and several frames in one write.

An endpoint finds the connection under scope["extensions"][EXTENSION]; where it is missing (another ASGI server, a
test client) ordinary `send` does the same, one write a frame.
"""

from __future__ import annotations

import socket
from asyncio import BaseTransport, Transport
from collections.abc import Callable
from typing import Any, Final, cast

from arena_client.wire import CLIENT_FRAME_MAX
from uvicorn.config import Config
from uvicorn.protocols.utils import ClientDisconnected
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from uvicorn.server import ServerState
from websockets.frames import Frame, Opcode

EXTENSION: Final = "arena.connection"
PING_INTERVAL_S: Final = 15.0
PING_TIMEOUT_S: Final = 10.0
WRITE_BUFFER_BYTES: Final = 32 * 1024
"""Bytes that may wait in this process for one connection's socket before its writer waits too."""
SEND_BUFFER_BYTES: Final = 32 * 1024
"""Bytes that may wait in the kernel, which takes twice of it; left alone it grows to megabytes of stale frames."""


class ArenaWebSocketProtocol(WebSocketsSansIOProtocol):
    """uvicorn's sans-I/O protocol with the few things a broadcaster needs."""

    def __init__(
        self, config: Config, server_state: ServerState, app_state: dict[str, Any], _loop: Any | None = None
    ) -> None:
        # frames are deltas already; a compressor would hold 64 KiB and more for every connection
        config.ws_per_message_deflate = False
        super().__init__(config, server_state, app_state, _loop)
        self.farewell: Callable[[], bytes] | None = None
        """Gives the last frame of this connection when the server shuts down."""

    def connection_made(self, transport: BaseTransport) -> None:
        """Keep what may wait for a slow reader small, in this process and in the kernel."""
        super().connection_made(transport)
        cast(Transport, transport).set_write_buffer_limits(high=WRITE_BUFFER_BYTES)
        connected = transport.get_extra_info("socket")
        if connected is not None:
            connected.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)

    async def run_asgi(self) -> None:
        """Run the application with this connection within its reach."""
        cast(dict[str, Any], self.scope["extensions"])[EXTENSION] = self
        await super().run_asgi()

    def shutdown(self) -> None:
        """Say goodbye before uvicorn closes with 1012."""
        if self.farewell is not None and self.is_open:
            self.transport.write(self.farewell())
        super().shutdown()

    @property
    def is_open(self) -> bool:
        """Whether a frame may be written: handshake done, nothing closed or closing."""
        return (
            self.handshake_complete
            and not self.close_sent
            and not self.disconnected
            and not self.transport.is_closing()
        )

    async def write(self, frames: list[bytes]) -> None:
        """Write prebuilt frames in one go, once the buffer has room.

        Raises ClientDisconnected when the connection is closed or closing.
        """
        await self.writable.wait()
        if not self.is_open:
            raise ClientDisconnected
        self.transport.write(frames[0] if len(frames) == 1 else b"".join(frames))

    def abort(self) -> None:
        """Drop the connection at once, with whatever still waits in its buffer."""
        self.transport.abort()


def prebuilt(payload: bytes | str) -> bytes:
    """Return one whole, final, unmasked WebSocket frame: text for str, binary for bytes."""
    if isinstance(payload, str):
        return Frame(Opcode.TEXT, payload.encode()).serialize(mask=False)
    return Frame(Opcode.BINARY, payload).serialize(mask=False)


def websocket_options() -> dict[str, Any]:
    """Return the uvicorn.Config arguments that belong to this protocol."""
    return {
        "ws": ArenaWebSocketProtocol,
        "ws_max_size": CLIENT_FRAME_MAX,
        "ws_ping_interval": PING_INTERVAL_S,
        "ws_ping_timeout": PING_TIMEOUT_S,
        "ws_per_message_deflate": False,
    }
