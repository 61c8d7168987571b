"""The least of a WebSocket client: a handshake, messages, pongs. Light enough for hundreds in one process."""

from __future__ import annotations

import asyncio
import base64
import secrets
from abc import ABC, abstractmethod
from typing import Any, cast

from arena_client import wire

_BINARY, _CLOSE, _PING, _PONG = 2, 8, 9, 10


class Connection(asyncio.Protocol, ABC):
    """One connection to /ws that speaks msgpack. Subclasses say what happens once it is open and with every message.

    close_code: the server's, 1005 for none in its close frame, 0 while there was no close frame. refused: the first
    line of another answer than 101.
    """

    def __init__(self) -> None:
        self.close_code = 0
        self.refused: str | None = None
        self.is_open = self.is_closed = False
        self._buffer = bytearray()
        self._transport: asyncio.Transport | None = None

    @abstractmethod
    def opened(self) -> None:
        """Do what comes after the handshake."""

    @abstractmethod
    def message(self, data: bytes) -> None:
        """Take a message."""

    def send(self, message: dict[str, Any]) -> None:
        """Send a control message."""
        data = wire.encode(message, wire.SUBPROTOCOL_MSGPACK)
        assert isinstance(data, bytes)
        self._send(_BINARY, data)

    def close(self) -> None:
        """End the connection in order."""
        if self._transport is not None and not self.is_closed:
            self._send(_CLOSE, (1000).to_bytes(2, "big"))
            self._transport.close()

    def abort(self) -> None:
        """Drop the connection."""
        if self._transport is not None:
            self._transport.abort()

    def pause(self) -> None:
        """Stop reading."""
        assert self._transport is not None
        self._transport.pause_reading()

    def resume(self) -> None:
        """Read again."""
        assert self._transport is not None
        self._transport.resume_reading()

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask for the upgrade."""
        self._transport = cast(asyncio.Transport, transport)
        host, port = transport.get_extra_info("peername")[:2]
        lines = (
            "GET /ws HTTP/1.1",
            f"Host: {host}:{port}",
            "Upgrade: websocket",
            "Connection: Upgrade",
            f"Sec-WebSocket-Key: {base64.b64encode(secrets.token_bytes(16)).decode()}",
            "Sec-WebSocket-Version: 13",
            f"Sec-WebSocket-Protocol: {wire.SUBPROTOCOL_MSGPACK}",
        )
        self._transport.write(("\r\n".join(lines) + "\r\n\r\n").encode())

    def data_received(self, data: bytes) -> None:
        """Take apart what has come."""
        self._buffer += data
        if not self.is_open:
            head, end, rest = bytes(self._buffer).partition(b"\r\n\r\n")
            if not end:
                return
            if not head.startswith(b"HTTP/1.1 101"):
                self.refused = head.split(b"\r\n")[0].decode()
                self.abort()
                return
            self.is_open = True
            self._buffer = bytearray(rest)
            self.opened()
        self._take_frames()

    def connection_lost(self, exc: Exception | None) -> None:
        """Remember that it is over."""
        self.is_closed = True

    def _take_frames(self) -> None:
        buffer, start = self._buffer, 0
        while len(buffer) - start >= 2:
            opcode, length, head = buffer[start] & 15, buffer[start + 1] & 127, 2
            if length > 125:
                size = 2 if length == 126 else 8
                head += size
                length = int.from_bytes(buffer[start + 2 : start + head], "big")
            if len(buffer) - start < head + length:
                break
            self._take(opcode, bytes(buffer[start + head : start + head + length]))
            start += head + length
        del buffer[:start]

    def _take(self, opcode: int, payload: bytes) -> None:
        if opcode == _PING:
            self._send(_PONG, payload)
        elif opcode == _CLOSE:
            self.close_code = int.from_bytes(payload[:2], "big") or 1005
        else:
            self.message(payload)

    def _send(self, opcode: int, payload: bytes) -> None:
        assert self._transport is not None
        # clients must mask; a mask of zeros leaves the bytes as they are
        self._transport.write(bytes((0x80 | opcode, 0x80 | len(payload), 0, 0, 0, 0)) + payload)
