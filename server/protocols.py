"""Our uvicorn protocols: HTTP with deadlines and a short way for what comes again and again; WebSocket without a task
of its own, one frame to many, and a limit.

An endpoint finds its WebSocket under scope["extensions"][EXTENSION]; where it is missing (another ASGI server, a test
client) ordinary `receive` and `send` do the same, in tasks. Source: DESIGN D3, D4, section 3 (Limits), S4.
"""

from __future__ import annotations

import os
import socket
from asyncio import BaseTransport, TimerHandle, Transport
from collections.abc import Callable, Sequence
from enum import Enum
from http import HTTPStatus
from typing import Any, Final, Protocol, cast

import numpy as np
from arena_client.wire import CLIENT_FRAME_MAX
from uvicorn._types import ASGISendEvent
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from uvicorn.server import ServerState
from websockets.frames import Frame, Opcode
from websockets.server import ServerProtocol
from websockets.streams import StreamReader

from server.config import Settings
from server.input_poll import InputPoll
from server.send_loop import Descriptors, Send, send_to_each

EXTENSION: Final = "arena.connection"
HOT: Final = "arena.hot"
"""Where the application's lifespan leaves a function that returns what answers requests at sight, None for nobody."""
HOT_HEAD: Final = "arena.hot_head"
"""Where a request's scope says that one like it may be answered at sight, and what its head says."""
SAMPLE_BYTES_MAX: Final = 4 * 1024
"""Of a request that others are compared with."""
PING_INTERVAL_S: Final = 15.0
PING_TIMEOUT_S: Final = 10.0
STREAM_BUFFER_BYTES: Final = 32 * 1024
"""Bytes of a stream over HTTP that may wait in this process before its writer waits too."""
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
FRAMES_PER_S: Final = "arena.frames_per_s"
"""Where the application's lifespan leaves how many frames of any kind a client may send; else as many as the settings.

Left alone, one connection's empty fragments held ticks up for 6 s.
"""
FRAMES_BURST_S: Final = 4
"""Seconds' worth of them that may come at once."""
FRAGMENTS_MAX: Final = 128
"""Of a message: a whole one of the largest size comes in one, and no client needs more than a few."""
READ_BYTES: Final = 16 * 1024
"""Read from a connection at a time."""
READS_AT_STOP: Final = 4
"""Of a connection that is told that the server stops, and may have something that has not been read."""
SLICE_BYTES: Final = 512
"""Bytes looked at between two counts of frames: the smallest have six."""
LOST, INVALID_DATA, TOO_MANY_FRAMES = 1006, 1007, 4003
FAREWELL_S: Final = 1.0
"""After a shutdown, for a client that does not take the close frame."""


class Part(Enum):
    """What a connection waits for from its client."""

    HEAD = "headers"
    BODY = "body"
    NOTHING = "nothing"


class Hot(Protocol):
    """Answers requests at sight."""

    def learn(self, data: bytes, head: Any) -> Any | None:
        """Return what is alike in requests like this one, None when that cannot be said."""

    def serve(self, likeness: Any, data: bytes, answer: Callable[[int, bytes, bytes], None]) -> bool:
        """Take a request, to be answered once with status, lines and body; False when it is not for it."""

    def refuse(self, path: bytes, headers: list[tuple[bytes, bytes]]) -> tuple[int, bytes, bytes] | None:
        """Return status, lines and body of the answer to a POST that is refused whatever its body says, or None."""


class HotCycle:
    """Stands where uvicorn has the request it answers, while one is answered at sight."""

    def __init__(self) -> None:
        self.scope: Any = None
        self.more_body = False
        self.disconnected = False
        self.keep_alive = True
        self.response_complete = True

    @property
    def message_event(self) -> HotCycle:
        """Nobody waits for a message of it."""
        return self

    @property
    def response_started(self) -> bool:
        """Whether an answer has begun: it leaves in one piece."""
        return self.response_complete

    def set(self) -> None:
        """Wake nobody."""


class ArenaHttpProtocol(HttpToolsProtocol):
    """uvicorn's HTTP protocol, for clients that send slowly, endlessly, or do not read, and for those that send much.

    A deadline is set only when data has been taken in and something is still missing: a request that arrives in one
    piece costs no timer.

    A whole request that begins as one before it did, byte for byte, is answered without a parser, a scope or a task.
    What of a head was parsed once and let pass by the whole application means the same when it comes again. One that is
    refused whatever its body says is answered behind its head, and the body is let go as it comes.
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
        self._dismiss: Callable[[], None] | None = None
        self._find_hot: Callable[[], Hot | None] | None = app_state.get(HOT)
        self._hot_cycle = HotCycle()
        self._sample = b""
        """The bytes of the last request, if it began with them and may be one that comes again."""
        self._likeness: Any = None
        self._default_headers: list[tuple[bytes, bytes]] = []
        self._default_lines = b""
        self._answered_at = 0.0

    def on_message_begin(self) -> None:
        """Begin a request, with this connection within its reach."""
        super().on_message_begin()
        cast(dict[str, Any], self.scope)["extensions"] = {EXTENSION: self}

    def on_headers_complete(self) -> None:
        """Answer a request that is refused for its head; begin to answer any other."""
        answer = None if self._find_hot is None else self._refusal(self._find_hot())
        if answer is None:
            super().on_headers_complete()
            return
        cycle = self._hot_cycle
        cycle.scope, cycle.more_body = self.scope, True
        self.cycle = cast(Any, cycle)
        self._write_answer(*answer)
        self.server_state.total_requests += 1

    def on_message_complete(self) -> None:
        """Take note that all of a body is there, of one that nobody wants as well: the wait for the next begins."""
        super().on_message_complete()
        if cast(Any, self.cycle) is self._hot_cycle and self._hot_cycle.more_body:
            self._hot_cycle.more_body = False
            self._answered_at = self.loop.time()
            self._unset_keepalive_if_required()
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )

    def begin_stream(self, dismiss: Callable[[], None]) -> None:
        """Keep what may wait for a slow reader small. dismiss: called once when the server stops."""
        if self.parser is not None:
            # not when the connection was lost before
            self._dismiss = dismiss
        self.transport.set_write_buffer_limits(high=STREAM_BUFFER_BYTES)
        connected = self.transport.get_extra_info("socket")
        if connected is not None:
            connected.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)

    def connection_made(self, transport: BaseTransport) -> None:
        """Expect a request."""
        super().connection_made(cast(Transport, transport))
        self._set_deadline()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget all deadlines and requests: whoever still answers one has it, and nothing leads back from here."""
        self._hot_cycle.disconnected = True
        self._awaited = Part.NOTHING
        self._set_deadline()
        self._set_unread(None)
        super().connection_lost(exc)
        # after a reset uvicorn leaves it running, with all that hangs on it
        self._unset_keepalive_if_required()
        self._forget_requests()

    def data_received(self, data: bytes) -> None:
        """Take what arrived, then see what is missing and whether the headers are too long."""
        if self._find_hot is not None:
            is_between = self.scope is None if self.cycle is None else self._is_between()
            if is_between and self.scope is not None and self._serve_at_sight(self._find_hot(), data):
                return
            self._sample = data if is_between and len(data) <= SAMPLE_BYTES_MAX else b""
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
        # nobody tells this one when the connection is lost
        self.parser = cast(Any, None)
        self._forget_requests()

    def pause_writing(self) -> None:
        """Begin to wait for a client that does not read."""
        super().pause_writing()
        self._set_unread(UNREAD_S)

    def resume_writing(self) -> None:
        """Go on: the client reads."""
        self._set_unread(None)
        super().resume_writing()

    def shutdown(self) -> None:
        """Answer what has been taken in, and wait for the rest of a body only a moment longer; end a stream."""
        super().shutdown()
        if self._dismiss is not None:
            self._dismiss()
        if self._awaited is Part.BODY and self._deadline is not None:
            self._deadline.cancel()
            self._deadline = self.loop.call_later(DRAIN_BODY_S, self._late)

    def timeout_keep_alive_handler(self) -> None:
        """Close a connection that has been idle for long enough; what was answered at sight has moved no timer."""
        is_answering = not self._hot_cycle.response_complete
        last = self.loop.time() if is_answering else self._answered_at
        left = last + self.timeout_keep_alive - self.loop.time()
        if left <= 0.0:
            super().timeout_keep_alive_handler()
        else:
            self.timeout_keep_alive_task = self.loop.call_later(left, self.timeout_keep_alive_handler)

    def _forget_requests(self) -> None:
        """Let go of what holds this protocol in turn: a client that has gone is freed at once, not by a collection."""
        self.scope = self.cycle = self._hot_cycle.scope = cast(Any, None)
        self.pipeline.clear()
        self._dismiss = None

    def _is_between(self) -> bool:
        """Return whether the last request is taken in and answered and no byte of the next one has come."""
        cycle = self.cycle
        return cycle.response_complete and not cycle.more_body and self.scope is cycle.scope

    def _serve_at_sight(self, hot: Hot | None, data: bytes) -> bool:
        """Have a request answered that is like one before it; False when it has to go the ordinary way."""
        if hot is None or self._deadline is not None or self.flow.write_paused or self.transport.is_closing():
            return False
        if (head := cast(dict[str, Any], self.scope).pop(HOT_HEAD, None)) is not None and self._sample:
            self._likeness = hot.learn(self._sample, head)
        if self._likeness is None:
            return False
        ordinary, cycle = self.cycle, self._hot_cycle
        cycle.scope, cycle.response_complete = self.scope, False
        # whoever looks, uvicorn included, sees a request that is being answered: what is sent meanwhile has to wait
        self.cycle = cast(Any, cycle)
        if hot.serve(self._likeness, data, self._answer_at_sight):
            return True
        self.cycle = ordinary
        cycle.response_complete = True
        return False

    def _answer_at_sight(self, status: int, lines: bytes, body: bytes) -> None:
        """Write an answer in one piece, and go on to what was sent meanwhile."""
        cycle = self._hot_cycle
        cycle.response_complete = True
        if cycle.disconnected or self.transport.is_closing():
            return
        self._write_answer(status, lines, body)
        if not cycle.keep_alive:
            self.transport.close()
        if self.pipeline or self.timeout_keep_alive_task is None:
            self.on_response_complete()
        else:
            # a timer for every answer costs as much as writing it: the one that is set looks when it fires
            self.server_state.total_requests += 1
            self._answered_at = self.loop.time()

    def _write_answer(self, status: int, lines: bytes, body: bytes) -> None:
        if self._default_headers is not self.server_state.default_headers:
            # uvicorn makes a new list every second, with the date in it
            self._default_headers = self.server_state.default_headers
            self._default_lines = b"".join(b"%b: %b\r\n" % header for header in self._default_headers)
        close = b"" if self._hot_cycle.keep_alive else b"connection: close\r\n"
        self.transport.write(b"".join((STATUS_LINE[status], self._default_lines, lines, close, b"\r\n", body)))

    def _refusal(self, hot: Hot | None) -> tuple[int, bytes, bytes] | None:
        """Return the answer to the request whose head is here, if it is refused whatever follows."""
        parser, cycle = self.parser, self.cycle
        is_next = cycle is None or cycle.response_complete
        if hot is None or not is_next or self.flow.write_paused or self.transport.is_closing():
            return None
        is_plain = parser.get_method() == b"POST" and parser.get_http_version() == "1.1" and parser.should_keep_alive()
        if not is_plain or parser.should_upgrade() or self.expect_100_continue or not self._hot_cycle.keep_alive:
            return None
        return hot.refuse(self.url, self.headers)

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


class Receiver(Protocol):
    """Who a connection belongs to once it is attached. Nothing of it may raise."""

    def receive(self, data: bytes | str) -> None:
        """Take a message of the client."""

    def alive(self) -> None:
        """Note that the client answered a ping."""

    def blocked(self) -> None:
        """Note that the socket took less than it was given; what is left waits in this process."""

    def drained(self) -> None:
        """Note that nothing waits in this process any more."""

    def ended(self) -> None:
        """Close the connection soon: the client has ended it. Nothing is written to it any more."""

    def lost(self, code: int) -> None:
        """Note that the connection is gone, and with which close code; 1006 for none."""

    def finish(self, then: Callable[[], None]) -> None:
        """Take nothing more; call `then` once the client has its answer to all that was taken, or after a while."""

    def farewell(self) -> bytes:
        """Return the last frames before the web server closes the connection: answers that wait, and a goodbye."""


class Calm:
    """Whether nothing has happened to some connections since they were asked what waits in them."""

    __slots__ = ("lasts",)

    def __init__(self) -> None:
        self.lasts = False


class _Nothing:
    """Stands in for what a connection with a receiver needs no more: its queue, its event, its timer of closing."""

    def put_nowait(self, item: object) -> None:
        """Forget it."""

    def set(self) -> None:
        """Wake nobody."""

    def cancel(self) -> None:
        """Stop nothing."""


_NOTHING: Final = cast(Any, _Nothing())


class ArenaWebSocketProtocol(WebSocketsSansIOProtocol):
    """uvicorn's sans-I/O protocol with the few things a broadcaster needs, and a limit on what comes in.

    It runs the handshake like any other. The endpoint may then attach a receiver and return: from then on there is no
    task, no queue and no timer for the connection, messages and the end of it go straight to the receiver.
    """

    def __init__(
        self, config: Config, server_state: ServerState, app_state: dict[str, Any], _loop: Any | None = None
    ) -> None:
        # frames are deltas already; a compressor would hold 64 KiB and more for every connection
        config.ws_per_message_deflate = False
        super().__init__(config, server_state, app_state, _loop)
        self.receiver: Receiver | None = None
        self.descriptor = -1
        """Where frames may be written to without the transport's help; -1 where it must do it."""
        self.is_ended = False
        """Whether the client has ended the connection, which is to be closed then."""
        self.calm: Calm | None = None
        """Shared with those it is written to together with."""
        self._poll: InputPoll | None = None
        """Says when there is something to read, where that is not the transport's business."""
        self._is_answered = False
        """Whether the application has done its part in the handshake."""
        self._frames_per_s = int(app_state.get(FRAMES_PER_S, Settings.client_frames_per_s))
        self._frames_left = float(FRAMES_BURST_S * self._frames_per_s)
        self._frames_counted = self.loop.time()

    def connection_made(self, transport: BaseTransport) -> None:
        """Keep what may wait in the kernel for a slow reader small."""
        super().connection_made(transport)
        connected = transport.get_extra_info("socket")
        if connected is not None:
            connected.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)

    async def send(self, message: ASGISendEvent) -> None:
        """Send what the endpoint says. A refusal it has sent to its end completes a handshake too.

        uvicorn logs an error for each otherwise: a second for every client that comes while the world is being opened.
        """
        await super().send(message)
        if self.initial_response is not None and self.close_sent:
            self.handshake_complete = True

    def attach(self, receiver: Receiver, poll: InputPoll | None = None) -> None:
        """Let everything from now on go to a receiver. To be called by the endpoint after it has accepted.

        poll: says from now on when there is something to read, where it can: not for TLS, not on every system.
        """
        self.receiver = receiver
        self.stop_keepalive()
        # uvloop raises when the handle is closed already
        if not self.transport.is_closing():
            self.descriptor = raw_descriptor(self.transport)
            # one byte that waits is a reader that is behind: high is the least that a transport of its kind understands
            self.transport.set_write_buffer_limits(high=int(self.descriptor < 0), low=0)
        waiting, self.queue, self.writable = self.queue, _NOTHING, _NOTHING
        self.scope = self.request = self.response = _NOTHING
        # with a timer of closing uvicorn does not close behind the endpoint, and does on the answer to a close frame
        self.close_timer = _NOTHING
        while not waiting.empty():
            event = waiting.get_nowait()
            if event["type"] == "websocket.receive":
                data = event.get("bytes")
                receiver.receive(cast(str, event.get("text")) if data is None else data)
        if self.disconnected:
            self._end()
        elif not self.transport.is_closing():
            if poll is not None and self.descriptor >= 0 and poll.add(self.descriptor, self):
                self._poll = poll
                self.transport.pause_reading()
            elif self.read_paused:
                self.transport.resume_reading()
            self.read_paused = False

    def take_input(self) -> None:
        """Read what has come, or that nothing more will."""
        if self.transport.is_closing():
            self._leave_poll()
            return
        try:
            data = os.read(self.descriptor, READ_BYTES)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            self._leave_poll()
            self.abort()
            return
        if data:
            self.data_received(data)
            return
        self._leave_poll()
        if not self.eof_received():
            self.transport.close()

    def release(self) -> None:
        """Have the transport say again when something has come."""
        self._poll = None
        if not self.transport.is_closing():
            self.transport.resume_reading()

    def _leave_poll(self) -> None:
        poll, self._poll = self._poll, None
        if poll is not None:
            poll.remove(self.descriptor, self)

    def eof_received(self) -> bool:  # type: ignore[override]  # asyncio takes the answer, uvicorn gives none
        """Leave it to the receiver when to close: thousands of ends come in one turn of the loop, and must not stay it.

        True keeps the transport open, which one under TLS refuses.
        """
        if self.receiver is None or self.descriptor < 0:
            self.stir()
            return False
        self.is_ended = True
        self.receiver.ended()
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the receiver, if there is one."""
        # the descriptor is closed when this returns, and may belong to somebody else before the receiver has its turn
        self._leave_poll()
        self.stir()
        super().connection_lost(exc)
        self._end()
        # the parser is a generator: its frame, and those of what went wrong in it, hold what holds them
        self.conn.parser.close()
        _forget_frames(self.conn.parser_exc)
        _forget_frames(self.conn.handshake_exc)
        self._forget_scope()

    def data_received(self, data: bytes) -> None:
        """Take frames in a few at a time; whoever sends more of them than allowed is closed with 4003."""
        if not self.handshake_initiated:
            super().data_received(data)
            return
        now = self.loop.time()
        most, gained = FRAMES_BURST_S * self._frames_per_s, (now - self._frames_counted) * self._frames_per_s
        self._frames_left = min(most, self._frames_left + gained)
        self._frames_counted = now
        if self.receiver is not None and _is_pong(data) and _is_between_frames(self.conn):
            # what comes most, from thousands of connections that lie cold in memory: it needs nothing of the parser
            self._frames_left -= 1.0
            self.receiver.alive()
            self._check_rate()
        else:
            for start in range(0, len(data), SLICE_BYTES):
                if self.transport.is_closing():
                    break
                super().data_received(data[start : start + SLICE_BYTES])
                self._check_rate()
        if self.transport.is_closing():
            # it answered a close frame, or what was none
            self.stir()

    def handle_cont(self, event: Frame) -> None:
        """Count a fragment; empty ones have no end that their size would bring."""
        self._frames_left -= 1.0
        if len(self.frames) < FRAGMENTS_MAX:
            super().handle_cont(event)
        else:
            self._fail(TOO_MANY_FRAMES, f"a message of more than {FRAGMENTS_MAX} fragments")

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
        if self.receiver is None:
            super().handle_pong(event)
        else:
            self.receiver.alive()

    def send_receive_event_to_app(self) -> None:
        """Hand a whole message on."""
        if self.receiver is None:
            super().send_receive_event_to_app()
            return
        frames, self.frames = self.frames, []
        data = frames[0] if len(frames) == 1 else b"".join(frames)
        if self.close_sent:
            return
        if self.curr_msg_data_type == "bytes":
            self.receiver.receive(data)
            return
        try:
            text = data.decode()
        except UnicodeDecodeError:
            self._fail(INVALID_DATA, "a text frame must be valid UTF-8")
        else:
            self.receiver.receive(text)

    def pause_writing(self) -> None:
        """Note that the socket is full."""
        self.stir()
        if self.receiver is None:
            super().pause_writing()
        else:
            self.receiver.blocked()

    def resume_writing(self) -> None:
        """Note that everything has gone into the socket."""
        if self.receiver is None:
            super().resume_writing()
        else:
            self.receiver.drained()

    async def run_asgi(self) -> None:
        """Run the application with this connection within its reach; one that was attached stays open behind it."""
        cast(dict[str, Any], self.scope["extensions"])[EXTENSION] = self
        try:
            await super().run_asgi()
        finally:
            self._is_answered = True
            self._forget_scope()

    def shutdown(self) -> None:
        """Answer what has come and say goodbye before uvicorn closes with 1012."""
        for _ in range(READS_AT_STOP):
            if self._poll is not None:
                # it may wait for its turn still; what the client has ended leaves the poll
                self._poll.read(self.descriptor)
        if self.receiver is not None and self.is_open:
            self.receiver.finish(self._go)
        else:
            self._go()

    def _go(self) -> None:
        """Close with 1012, and do not wait for long until that is read."""
        if self.disconnected:
            return
        self.stir()
        if self.receiver is not None and self.is_open:
            self.transport.write(self.receiver.farewell())
        # one that is closing already has its code, and uvicorn raises when it is to send another one
        if not self.transport.is_closing():
            super().shutdown()
        if self.transport.get_write_buffer_size():
            self.loop.call_later(FAREWELL_S, self.transport.abort)

    @property
    def is_open(self) -> bool:
        """Whether a frame may be written: handshake done, nothing closed or closing."""
        return (
            self.handshake_complete
            and not self.close_sent
            and not self.disconnected
            and not self.is_ended
            and not self.transport.is_closing()
        )

    def write(self, data: bytes) -> None:
        """Write prebuilt frames, to an open connection; a closed one takes nothing."""
        # uvloop raises when the handle is closed already
        if self.is_open:
            self.transport.write(data)

    def close(self, code: int, reason: str) -> None:
        """Begin to close; the connection ends when the client answers. Does nothing when it is closing already."""
        if self.is_open:
            self.conn.send_close(code, reason)
            self.transport.write(b"".join(self.conn.data_to_send()))
            self.close_sent = True

    def end(self) -> None:
        """Close a connection that the client has ended."""
        self.stir()
        self.transport.close()

    def abort(self) -> None:
        """Drop the connection at once, with whatever still waits in its buffer."""
        self.stir()
        self.transport.abort()

    def share(self, calm: Calm) -> None:
        """End a calm from now on when something happens here, and the one it shared before at once."""
        self.stir()
        self.calm = calm

    def stir(self) -> None:
        """End the calm: something waits in the transport, or it closes, or is about to."""
        if self.calm is not None:
            self.calm.lasts = False

    def _check_rate(self) -> None:
        """Close a connection that has sent more frames than it may."""
        if self._frames_left < 0.0:
            self._fail(TOO_MANY_FRAMES, f"more than {self._frames_per_s} frames a second")

    def _fail(self, code: int, reason: str) -> None:
        """Close with a code, in our own words, without waiting for the client's."""
        if self.close_sent or self.transport.is_closing():
            return
        self.queue.put_nowait({"type": "websocket.disconnect", "code": code, "reason": reason})
        self.conn.fail(code, reason)
        self.transport.write(b"".join(self.conn.data_to_send()))
        self.close_sent = True
        self.transport.close()

    def _forget_scope(self) -> None:
        """Let go of the handshake, which holds this protocol in turn, once its task and the connection are over."""
        if self.disconnected and self._is_answered:
            self.scope = _NOTHING

    def _end(self) -> None:
        receiver, self.receiver = self.receiver, None
        if receiver is not None:
            close = self.conn.close_rcvd or self.conn.close_sent
            receiver.lost(LOST if close is None else close.code)


#: What the parser of websockets is at while no frame has begun.
_AT_EOF: Final = StreamReader.at_eof.__code__


def _is_pong(data: bytes) -> bool:
    """Return whether data is one whole masked pong and nothing else, where it begins with a frame."""
    # a control frame has at most 125 bytes: 126 and 127 are no lengths
    return 6 <= len(data) <= 131 and data[0] == 0x8A and data[1] == 0x80 + len(data) - 6


def _is_between_frames(conn: ServerProtocol) -> bool:
    """Return whether what comes next on an open connection begins a frame; False where the parser does not say so."""
    # a generator that runs another one: the server's, the one of all connections, and in it what it waits for
    frames = cast(Any, conn.parser).gi_yieldfrom
    wait = frames and frames.gi_yieldfrom
    return wait is not None and wait.gi_code is _AT_EOF


def _forget_frames(error: BaseException | None) -> None:
    """Let an error that somebody keeps say no more than what it is, and so those that led to it."""
    while error is not None:
        error.__traceback__ = None
        error = error.__cause__ or error.__context__


#: Transports that write to their socket at once and keep nothing else in order: module and name of their classes.
PLAIN_TRANSPORTS: Final = frozenset(
    {
        ("uvloop.loop", "TCPTransport"),
        ("uvloop.loop", "UnixTransport"),
        ("asyncio.selector_events", "_SelectorSocketTransport"),
    }
)


def raw_descriptor(transport: Transport) -> int:
    """Return the descriptor of a transport's socket, -1 where bytes must go through the transport: TLS, unknown."""
    kind = type(transport)
    connected = transport.get_extra_info("socket")
    if connected is None or (kind.__module__, kind.__name__) not in PLAIN_TRANSPORTS:
        return -1
    descriptor: int = connected.fileno()
    return descriptor


def send_to_all(connections: Sequence[ArenaWebSocketProtocol], data: bytes, send: Send = send_to_each) -> list[int]:
    """Write data to every connection that can take it now; return the places of those where older data still waits.

    Closing ones get nothing. All happens in one step of the event loop: a descriptor belongs to its connection for as
    long as the transport is not closing, and to anybody after that. send: writes to descriptors.
    """
    clear, behind = [], []
    for i, connection in enumerate(connections):
        transport = connection.transport
        if transport.is_closing():
            continue
        if transport.get_write_buffer_size():
            behind.append(i)
        else:
            clear.append(connection)
    _send(clear, np.array([connection.descriptor for connection in clear], np.int32), data, send)
    return behind


def _send(clear: Sequence[ArenaWebSocketProtocol], descriptors: Descriptors, data: bytes, send: Send) -> None:
    """Write data to connections that are open and where nothing waits."""
    taken = send(descriptors, data)
    if min(taken, default=len(data)) < len(data):
        for connection, count in zip(clear, taken, strict=True):
            if count < len(data):
                # it tries again, keeps what does not fit, and closes the connection when that is what is wrong
                connection.stir()
                connection.transport.write(memoryview(data)[max(count, 0) :])


class Crowd:
    """Connections that are written to together again and again: does what send_to_all does, in less time.

    What never changes about them is noted once. What may change is asked of all once, and again after one of them has
    said that something happened to it: they lie cold in memory, and asking took a tenth of what the kernel needs to
    send a frame (bench_fanout).
    """

    __slots__ = ("_calm", "_connections", "_descriptors", "_is_closing", "_transports", "_waiting")

    def __init__(self, connections: Sequence[ArenaWebSocketProtocol]) -> None:
        self._connections = connections
        self._transports: list[Transport] = [connection.transport for connection in connections]
        self._descriptors = np.array([connection.descriptor for connection in connections], np.int32)
        self._calm = Calm()
        for connection in connections:
            connection.share(self._calm)
        kinds = {type(transport) for transport in self._transports}
        # of one kind, and written to without its help: its methods can be called on all
        is_alike = len(kinds) == 1 and bool(self._descriptors.min() >= 0)
        kind = kinds.pop() if is_alike else None
        self._is_closing: Callable[[Transport], bool] | None = None if kind is None else kind.is_closing
        self._waiting: Callable[[Transport], int] | None = None if kind is None else kind.get_write_buffer_size

    def send(self, data: bytes, send: Send = send_to_each) -> list[int]:
        """Write data to all that can take it now; return the places of those where older data still waits."""
        if not (self._calm.lasts or self._is_clear()):
            return send_to_all(self._connections, data, send)
        _send(self._connections, self._descriptors, data, send)
        return []

    def _is_clear(self) -> bool:
        """Ask all whether they can take data now; note it when they can, and will until they say otherwise."""
        if self._is_closing is None or self._waiting is None:
            return False
        # who is closing must not be asked what waits
        if any(map(self._is_closing, self._transports)) or any(map(self._waiting, self._transports)):
            return False
        # one that another crowd was made of since tells that one
        self._calm.lasts = all(connection.calm is self._calm for connection in self._connections)
        return True


def prebuilt(payload: bytes | str) -> bytes:
    """Return one whole, final, unmasked WebSocket frame: text for str, binary for bytes."""
    if isinstance(payload, str):
        return Frame(Opcode.TEXT, payload.encode()).serialize(mask=False)
    return Frame(Opcode.BINARY, payload).serialize(mask=False)


def ping_frame(payload: bytes) -> bytes:
    """Return a ping, to be sent on any number of connections."""
    return Frame(Opcode.PING, payload).serialize(mask=False)


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
