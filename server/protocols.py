"""Our uvicorn protocols: HTTP with deadlines, WebSocket with small buffers, several frames in one write, and a limit.

An endpoint finds its WebSocket under scope["extensions"][EXTENSION]; where it is missing (another ASGI server, a test
client) ordinary `send` does the same, one write a frame. Source: DESIGN section 3 (Limits), S4.
"""

from __future__ import annotations

import socket
from asyncio import BaseTransport, TimerHandle, Transport
from collections.abc import Callable
from enum import Enum
from http import HTTPStatus
from typing import Any, Final, cast

from arena_client.wire import CLIENT_FRAME_MAX
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
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
HEAD_S: Final = 5.0
"""From connecting, or from the first byte of a further request, to the end of its headers."""
BODY_S: Final = 10.0
"""From the end of the headers to the end of the body."""
DRAIN_BODY_S: Final = 1.0
"""The same once the server stops: one unfinished body held a stop up for 9.3 s."""
UNREAD_S: Final = 35.0
"""An answer may wait so long for a client that does not read; the same as for a stuck subscriber."""
HEAD_BYTES_MAX: Final = 64 * 1024
"""Of request line and headers; what comes in one piece with the end of an earlier request is not counted."""
FRAMES_PER_S: Final = 50.0
FRAMES_BURST: Final = 200
"""Frames of any kind, pings and fragments too. Left alone, one connection's empty fragments held ticks up for 6 s."""
SLICE_BYTES: Final = 512
"""Bytes looked at between two counts of frames: the smallest have six."""
TOO_MANY_FRAMES: Final = 4003


class Part(Enum):
    """What a connection waits for from its client."""

    HEAD = "headers"
    BODY = "body"
    NOTHING = "nothing"


class ArenaHttpProtocol(HttpToolsProtocol):
    """uvicorn's HTTP protocol, for clients that send slowly, endlessly, or do not read.

    A deadline is set only when data has been taken in and something is still missing: a request that arrives in one
    piece costs no timer.
    """

    def __init__(
        self, config: Config, server_state: ServerState, app_state: dict[str, Any], _loop: Any | None = None
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._awaited = Part.HEAD
        self._head_bytes = 0
        self._deadline: TimerHandle | None = None
        self._deadline_of: tuple[Part, int] | None = None
        """The part the deadline is for, and the identity of its request."""
        self._unread: TimerHandle | None = None

    def connection_made(self, transport: BaseTransport) -> None:
        """Expect a request."""
        super().connection_made(cast(Transport, transport))
        self._set_deadline()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget all deadlines."""
        self._awaited = Part.NOTHING
        self._set_deadline()
        self._set_unread(None)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take what arrived, then see what is missing and whether the headers are too long."""
        cycle, before = self.cycle, self._awaited
        super().data_received(data)
        awaited = self._missing()
        if awaited is Part.NOTHING and self._deadline is None:
            self._awaited = awaited
            return
        if self.transport.is_closing() or self.transport.get_protocol() is not self:
            return
        self._awaited = awaited
        # a piece in which another request ended does not count
        earlier = self._head_bytes if before is Part.HEAD else 0
        self._head_bytes = 0 if before is Part.BODY or self.cycle is not cycle else earlier + len(data)
        if awaited is Part.HEAD and self._head_bytes > HEAD_BYTES_MAX:
            self._refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
        else:
            self._set_deadline()

    def handle_websocket_upgrade(self) -> None:
        """Hand the connection over; nothing here waits for it any more."""
        self._awaited = Part.NOTHING
        self._set_deadline()
        super().handle_websocket_upgrade()

    def pause_writing(self) -> None:
        """Begin to wait for a client that does not read."""
        super().pause_writing()
        self._set_unread(UNREAD_S)

    def resume_writing(self) -> None:
        """Go on: the client reads."""
        self._set_unread(None)
        super().resume_writing()

    def shutdown(self) -> None:
        """Answer what has been taken in, and wait for the rest of a body only a moment longer."""
        super().shutdown()
        if self._awaited is Part.BODY and self._deadline is not None:
            self._deadline.cancel()
            self._deadline = self.loop.call_later(DRAIN_BODY_S, self._late)

    def _missing(self) -> Part:
        """Return what the client is to send next. A request has its scope at its first byte, its cycle at its body."""
        cycle = self.cycle
        if cycle is None or self.scope is not cycle.scope:
            return Part.HEAD
        if cycle.more_body:
            return Part.BODY
        # line ends may precede a request: they end the wait for the next one, and begin nothing
        is_idle = cycle.response_complete and self.timeout_keep_alive_task is None
        return Part.HEAD if is_idle else Part.NOTHING

    def _set_deadline(self) -> None:
        """Set the deadline of what is awaited now, unless it is set."""
        wanted = None if self._awaited is Part.NOTHING else (self._awaited, id(self.scope))
        if wanted == self._deadline_of:
            return
        if self._deadline is not None:
            self._deadline.cancel()
        self._deadline_of = wanted
        seconds = HEAD_S if self._awaited is Part.HEAD else BODY_S
        self._deadline = None if wanted is None else self.loop.call_later(seconds, self._late)

    def _late(self) -> None:
        self._deadline = self._deadline_of = None
        if self.flow.read_paused:
            # it is us who do not read: an earlier answer is not given yet, or the body is more than is looked at
            self._set_deadline()
        else:
            self._refuse(HTTPStatus.REQUEST_TIMEOUT)

    def _refuse(self, status: HTTPStatus) -> None:
        """Close the connection, with an answer unless another one is on its way."""
        cycle = self.cycle
        if self._awaited is Part.HEAD:
            is_answered = cycle is not None and not cycle.response_complete
        else:
            is_answered = cycle.response_started
        if not is_answered:
            text = status.phrase
            self.transport.write(
                f"HTTP/1.1 {status.value} {text}\r\ncontent-type: text/plain; charset=utf-8\r\n"
                f"content-length: {len(text)}\r\nconnection: close\r\n\r\n{text}".encode()
            )
        self.transport.close()

    def _set_unread(self, seconds: float | None) -> None:
        if self._unread is not None:
            self._unread.cancel()
        self._unread = None if seconds is None else self.loop.call_later(seconds, self.transport.abort)


class ArenaWebSocketProtocol(WebSocketsSansIOProtocol):
    """uvicorn's sans-I/O protocol with the few things a broadcaster needs, and a limit on what comes in."""

    def __init__(
        self, config: Config, server_state: ServerState, app_state: dict[str, Any], _loop: Any | None = None
    ) -> None:
        # frames are deltas already; a compressor would hold 64 KiB and more for every connection
        config.ws_per_message_deflate = False
        super().__init__(config, server_state, app_state, _loop)
        self.farewell: Callable[[], bytes] | None = None
        """Gives the last frame of this connection when the server shuts down."""
        self._frames_left = float(FRAMES_BURST)
        self._frames_counted = self.loop.time()

    def connection_made(self, transport: BaseTransport) -> None:
        """Keep what may wait for a slow reader small, in this process and in the kernel."""
        super().connection_made(transport)
        cast(Transport, transport).set_write_buffer_limits(high=WRITE_BUFFER_BYTES)
        connected = transport.get_extra_info("socket")
        if connected is not None:
            connected.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)

    def data_received(self, data: bytes) -> None:
        """Take frames in a few at a time; whoever sends more of them than allowed is closed with 4003."""
        if not self.handshake_initiated:
            super().data_received(data)
            return
        now = self.loop.time()
        self._frames_left = min(FRAMES_BURST, self._frames_left + (now - self._frames_counted) * FRAMES_PER_S)
        self._frames_counted = now
        for start in range(0, len(data), SLICE_BYTES):
            if self.transport.is_closing():
                return
            super().data_received(data[start : start + SLICE_BYTES])
            if self._frames_left < 0.0:
                self._fail(TOO_MANY_FRAMES, f"more than {FRAMES_PER_S:.0f} frames a second")

    def handle_cont(self, event: Frame) -> None:
        """Count a fragment."""
        self._frames_left -= 1.0
        super().handle_cont(event)

    def handle_text(self, event: Frame) -> None:
        """Count a message or its first fragment."""
        self._frames_left -= 1.0
        super().handle_text(event)

    def handle_bytes(self, event: Frame) -> None:
        """Count a message or its first fragment."""
        self._frames_left -= 1.0
        super().handle_bytes(event)

    def handle_ping(self) -> None:
        """Count a ping."""
        self._frames_left -= 1.0
        super().handle_ping()

    def handle_pong(self, event: Frame) -> None:
        """Count a pong, asked for or not."""
        self._frames_left -= 1.0
        super().handle_pong(event)

    def _fail(self, code: int, reason: str) -> None:
        """Close with a code, in our own words, without waiting for the client's."""
        if self.close_sent or self.transport.is_closing():
            return
        self.queue.put_nowait({"type": "websocket.disconnect", "code": code, "reason": reason})
        self.conn.fail(code, reason)
        self.transport.write(b"".join(self.conn.data_to_send()))
        self.close_sent = True
        self.transport.close()

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
    """Return the uvicorn.Config arguments that belong to these protocols."""
    return {
        "http": ArenaHttpProtocol,
        "ws": ArenaWebSocketProtocol,
        "ws_max_size": CLIENT_FRAME_MAX,
        "ws_ping_interval": PING_INTERVAL_S,
        "ws_ping_timeout": PING_TIMEOUT_S,
        "ws_per_message_deflate": False,
    }
