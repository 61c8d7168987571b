"""A subscriber whose frames carry the time at which the kernel had them: a slow reader measures the server, not itself.

Its sockets block, so it works in a thread, in a process of its own, and under the sockets that gevent puts in their
place. What a frame means is left to arena_client, what a WebSocket is to the library the client uses.
"""

from __future__ import annotations

import socket
import struct
import sys
import time
from typing import NamedTuple

from arena_client import wire
from arena_client.errors import HandshakeRefused
from arena_client.stream import socket_url
from arena_client.subscription import Lagged, OutOfStep, Refused, Session, StateChanged
from websockets.client import ClientProtocol
from websockets.frames import Frame, Opcode
from websockets.http11 import Response
from websockets.typing import Subprotocol
from websockets.uri import parse_uri

READ_BYTES = 1 << 16
SENT_NS_RANGE = 1 << 53
_SO_TIMESTAMPNS = 35
"""Of Linux; Python has no name for it."""
_TIMESPEC = struct.Struct("qq")


class Arrival(NamedTuple):
    """A delta that came. late_ms: from its publication to the kernel of this machine; size: its bytes.

    Of several that came in one read each has the time of the last of them: a reader that is behind sees them late.
    """

    late_ms: float
    size: int


class Follower:
    """One connection that follows a state channel, with a frame every so many ticks.

    checked: checksums that agreed. Raises OSError when there is no connection, HandshakeRefused when there is no room.
    """

    def __init__(self, url: str, channel: str, every: int = 1, timeout_s: float = 15.0) -> None:
        self.checked = 0
        self._losses: list[str] = []
        self._session = Session()
        self._session.subscribe(channel, narrowing={"every": every} if every > 1 else None)
        uri = parse_uri(socket_url(url))
        self._protocol = ClientProtocol(uri, subprotocols=[Subprotocol(wire.SUBPROTOCOL_MSGPACK)])
        self._socket = socket.create_connection((uri.host, uri.port), timeout_s)
        self._has_stamps = sys.platform == "linux"
        if self._has_stamps:
            self._socket.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
        self._protocol.send_request(self._protocol.connect())
        self._flush()

    def receive(self) -> list[Arrival]:
        """Wait for data and return the deltas in it.

        Raises ConnectionError when the server has closed, TimeoutError when nothing came for the time given.
        """
        data, arrived_ns = self._read()
        if not data:
            raise ConnectionResetError(f"the server closed the connection ({self._protocol.close_code})")
        self._protocol.receive_data(data)
        arrivals = []
        for event in self._protocol.events_received():
            if isinstance(event, Response) and event.status_code != 101:
                raise HandshakeRefused(event.status_code, event.reason_phrase)
            if isinstance(event, Frame) and event.opcode in (Opcode.BINARY, Opcode.TEXT):
                arrivals += self._take(bytes(event.data), arrived_ns)
        if self._protocol.handshake_exc is not None:
            raise ConnectionResetError(f"no WebSocket: {self._protocol.handshake_exc}")
        self._flush()
        return arrivals

    def take_losses(self) -> list[str]:
        """Return what did not fit, was refused or was left out since this was asked last."""
        losses, self._losses = self._losses, []
        return losses

    def close(self) -> None:
        """Hang up."""
        self._socket.close()

    def _take(self, data: bytes, arrived_ns: int) -> list[Arrival]:
        arrivals = []
        message = wire.decode(data, wire.SUBPROTOCOL_MSGPACK)
        for report in self._session.receive(message):
            if isinstance(report, StateChanged):
                self.checked += report.mirror.verified_seq == report.seq
                # a snapshot may be of a tick that was published long ago
                if not report.is_snapshot:
                    arrivals.append(Arrival(self._late_ms(report.sent_ns, arrived_ns), len(data)))
            elif isinstance(report, OutOfStep):
                self._losses.append(f"out of step: {report.reason}")
            elif isinstance(report, Refused):
                self._losses.append(f"refused: {report.error}")
            elif isinstance(report, Lagged):
                self._losses.append(f"lagged {report.skipped}")
        for asked in self._session.take_outgoing():
            packed = wire.encode(asked, wire.SUBPROTOCOL_MSGPACK)
            assert isinstance(packed, bytes)
            self._protocol.send_binary(packed)
        return arrivals

    def _late_ms(self, sent_ns: int, arrived_ns: int) -> float:
        assert self._session.hello is not None
        origin_ns = int(self._session.hello["origin_unix_ms"]) * 1_000_000
        late_ns = (arrived_ns - origin_ns - sent_ns) % SENT_NS_RANGE
        # clocks of two machines may differ: a frame from the near future is not one from 104 days ago
        return (late_ns - SENT_NS_RANGE if late_ns > SENT_NS_RANGE // 2 else late_ns) / 1e6

    def _read(self) -> tuple[bytes, int]:
        """Return what has come and when the kernel had the last of it, Unix ns."""
        if not self._has_stamps:
            return self._socket.recv(READ_BYTES), time.time_ns()
        data, notes, _, _ = self._socket.recvmsg(READ_BYTES, socket.CMSG_SPACE(_TIMESPEC.size))
        for level, kind, value in notes:
            if (level, kind) == (socket.SOL_SOCKET, _SO_TIMESTAMPNS):
                seconds, nanoseconds = _TIMESPEC.unpack(value[: _TIMESPEC.size])
                return data, seconds * 1_000_000_000 + nanoseconds
        return data, time.time_ns()

    def _flush(self) -> None:
        for data in self._protocol.data_to_send():
            if data:
                self._socket.sendall(data)
