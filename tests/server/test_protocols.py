"""Our uvicorn protocols: what they lean on exists, slow and endless clients are dropped, frames leave in one write."""

from __future__ import annotations

import ast
import asyncio
import inspect
import os
import re
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, cast

import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus
from websockets.frames import Frame, Opcode

from server import protocols
from server.clock import SystemClock
from server.config import Settings
from server.input_poll import InputPoll
from server.protocols import (
    EXTENSION,
    FRAGMENTS_MAX,
    FRAMES_BURST_S,
    FRAMES_PER_S,
    HOT,
    HOT_HEAD,
    ArenaHttpProtocol,
    ArenaWebSocketProtocol,
    Crowd,
    prebuilt,
    raw_descriptor,
    send_to_all,
    websocket_options,
)
from tests.support.deadlines import seconds
from tests.support.streams import until

pytestmark = pytest.mark.both_loops


TLS = Path(__file__).parents[1] / "support" / "tls"
MEMORY = (socket.SOL_SOCKET, 55, 36)
"""SO_MEMINFO of Linux: nine numbers of 32 bits."""
WMEM_QUEUED = slice(20, 24)


class Told:
    """A receiver that keeps what it is told."""

    def __init__(self) -> None:
        self.messages: list[bytes | str] = []
        self.pongs = self.ends = 0
        self.is_blocked = asyncio.Event()
        self.is_drained = asyncio.Event()
        self.is_lost = asyncio.Event()
        self.code = 0
        self.last_words = b""
        self.is_owed = False
        self.is_asked_to_finish = asyncio.Event()
        self.finished: Callable[[], None] = lambda: None

    def receive(self, data: bytes | str) -> None:
        self.messages.append(data)

    def alive(self) -> None:
        self.pongs += 1

    def blocked(self) -> None:
        self.is_blocked.set()

    def drained(self) -> None:
        self.is_drained.set()

    def ended(self) -> None:
        self.ends += 1

    def lost(self, code: int) -> None:
        self.code = code
        self.is_lost.set()

    def finish(self, then: Callable[[], None]) -> None:
        self.is_asked_to_finish.set()
        if self.is_owed:
            self.finished = then
        else:
            then()

    def farewell(self) -> bytes:
        return self.last_words


class Echo:
    """Answers what is like a request it was shown, when the test says so, with its own number and the body."""

    def __init__(self) -> None:
        self.waiting: list[Callable[[], None]] = []
        self.served = 0

    def learn(self, data: bytes, head: bytes) -> bytes | None:
        """Remember what was in front of the body."""
        return data.removesuffix(head)

    def refuse(self, path: bytes, headers: list[tuple[bytes, bytes]]) -> tuple[int, bytes, bytes] | None:
        """Refuse what says that it is too much."""
        return (429, b"content-length: 4\r\n", b"full") if (b"x", b"too much") in headers else None

    def serve(self, likeness: bytes, data: bytes, answer: Callable[[int, bytes, bytes], None]) -> bool:
        """Take a request that begins alike and has two bytes of body."""
        if not data.startswith(likeness) or len(data) != len(likeness) + 2:
            return False
        self.served += 1
        body = b"%d: %b" % (self.served, data[-2:])
        self.waiting.append(partial(answer, 200, b"content-length: %d\r\n" % len(body), body))
        return True

    def answer(self) -> None:
        """Answer what was taken."""
        waiting, self.waiting = self.waiting, []
        for answer in waiting:
            answer()


class Server:
    """A server whose one endpoint attaches a receiver and hands connection and receiver to the test.

    hot: answers at sight what is like a POST to /echo. frames_per_s: of a client, as by default unless given. poll:
    says when there is something to read from a connection.
    """

    def __init__(
        self, hot: Echo | None = None, frames_per_s: int | None = None, poll: InputPoll | None = None, **more: Any
    ) -> None:
        routes = [WebSocketRoute("/ws", self._endpoint), Route("/echo", self._echo, methods=["POST"])]
        self._hot = hot
        self._frames_per_s = frames_per_s
        self.poll = poll
        app = Starlette(routes=routes, lifespan=self._lifespan)
        self.lost = lost = asyncio.Event()

        class Noting(ArenaHttpProtocol):
            def connection_lost(self, exc: Exception | None) -> None:
                super().connection_lost(exc)
                lost.set()

        options = websocket_options() | {"http": Noting} | more
        self._server = uvicorn.Server(uvicorn.Config(app, log_config=None, lifespan="on", **options))
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = self._listener.getsockname()
        self.url = f"ws://localhost:{self.address[1]}/ws"
        self.may_accept = asyncio.Event()
        self.may_accept.set()
        self.refuses = False
        self.arrived: asyncio.Queue[ArenaWebSocketProtocol] = asyncio.Queue()
        self.accepted: asyncio.Queue[tuple[ArenaWebSocketProtocol, Told]] = asyncio.Queue()
        self._serving = asyncio.create_task(self._server.serve([self._listener]))

    @asynccontextmanager
    async def _lifespan(self, app: Starlette) -> AsyncIterator[dict[str, object]]:
        state: dict[str, object] = {} if self._hot is None else {HOT: lambda: self._hot}
        yield state if self._frames_per_s is None else state | {FRAMES_PER_S: self._frames_per_s}

    async def _echo(self, request: Request) -> Response:
        body = await request.body()
        request.scope[HOT_HEAD] = body
        return Response(body)

    async def _endpoint(self, websocket: WebSocket) -> None:
        self.arrived.put_nowait(websocket.scope["extensions"][EXTENSION])
        await self.may_accept.wait()
        if self.refuses:
            await websocket.send_denial_response(Response("not now", 503))
            return
        await websocket.accept()
        connection, told = websocket.scope["extensions"][EXTENSION], Told()
        connection.attach(told, self.poll)
        self.accepted.put_nowait((connection, told))

    @property
    def protocol(self) -> ArenaHttpProtocol:
        """Its end of the only connection."""
        (protocol,) = self._server.server_state.connections
        assert isinstance(protocol, ArenaHttpProtocol)
        return protocol

    async def stop(self) -> None:
        """Shut down as SIGTERM would."""
        self._server.should_exit = True
        await asyncio.wait_for(self._serving, seconds(10.0))
        if self.poll is not None:
            self.poll.close()


def new_poll() -> InputPoll:
    """Return a poll of the running loop."""
    return InputPoll(SystemClock().monotonic)


@pytest.fixture
async def server() -> Server:
    """Give a running server."""
    return Server()


def leaned_on(ours: type) -> set[str]:
    """Return the names a class of ours takes from uvicorn's: of itself what it does not make, and what it extends."""
    [tree] = ast.parse(inspect.getsource(ours)).body
    assert isinstance(tree, ast.ClassDef)
    made = {node.name for node in tree.body if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))}
    taken, extended = set(), set()
    for node in ast.walk(tree):
        if not isinstance(node, ast.Attribute):
            continue
        if isinstance(node.value, ast.Call) and isinstance(node.value.func, ast.Name) and node.value.func.id == "super":
            extended.add(node.attr)
        elif isinstance(node.value, ast.Name) and node.value.id == "self":
            taken.add(node.attr)
    # what only we write to is ours: all of it begins in __init__
    [init] = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "__init__"]
    made |= {
        target.attr
        for node in ast.walk(init)
        if isinstance(node, (ast.Assign, ast.AnnAssign))
        for target in (node.targets if isinstance(node, ast.Assign) else [node.target])
        if isinstance(target, ast.Attribute)
    }
    return extended | (taken - made)


def has(theirs: type, name: str) -> bool:
    """Say whether a class has a method, or gives itself an attribute."""
    given = re.search(rf"self\.{name}\b\s*(:[^=\n]+)?=[^=]", inspect.getsource(theirs))
    return hasattr(theirs, name) or given is not None


class TestUvicorn:
    """A release of uvicorn that renames something we lean on fails here, not in production."""

    @pytest.mark.parametrize("name", sorted(leaned_on(ArenaWebSocketProtocol)))
    def test_what_our_websocket_leans_on_exists(self, name: str) -> None:
        """The state that says whether a frame may be written, and what takes frames in, is uvicorn's."""
        assert has(WebSocketsSansIOProtocol, name)

    @pytest.mark.parametrize("name", sorted(leaned_on(ArenaHttpProtocol)))
    def test_what_our_http_leans_on_exists(self, name: str) -> None:
        """What is asked, what is being answered and whether more is read is uvicorn's, as is what deadlines hang on."""
        assert has(HttpToolsProtocol, name)

    def test_the_names_are_found(self) -> None:
        """Of each kind some: what is written to, what is read, what is called, what is extended."""
        assert leaned_on(ArenaWebSocketProtocol) >= {
            "close_sent", "conn", "curr_msg_data_type", "disconnected", "frames", "handle_cont", "handle_ping",
            "handshake_complete", "initial_response", "queue", "read_paused", "run_asgi", "stop_keepalive", "transport",
            "writable",
        }  # fmt: skip
        assert leaned_on(ArenaHttpProtocol) >= {
            "_unset_keepalive_if_required", "cycle", "expect_100_continue", "flow", "handle_websocket_upgrade",
            "headers", "on_headers_complete", "on_message_begin", "on_message_complete", "on_response_complete",
            "parser", "pipeline", "timeout_keep_alive_handler", "timeout_keep_alive_task", "url",
        }  # fmt: skip

    @pytest.mark.parametrize("name", ["nobody", "close", "ur"])
    def test_what_does_not_exist_is_missed(self, name: str) -> None:
        """The beginning of another name is not enough."""
        assert not has(HttpToolsProtocol, name)


HANDSHAKE = (
    b"GET /ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
POST = b"POST /echo HTTP/1.1\r\nHost: arena\r\n"
WHOLE = POST + b"Content-Length: 2\r\n\r\nhi"


class TestAtSight:
    async def test_what_is_alike_is_answered_at_sight(self) -> None:
        """The first request goes the ordinary way, those like it do not; the last head that passed is the one known."""
        hot = Echo()
        server = Server(hot)
        reader, writer = await asyncio.open_connection(*server.address)
        other = WHOLE.replace(b"arena", b"other")
        bodies = []
        for request in (WHOLE, WHOLE, WHOLE[:-2] + b"yo", other, other, WHOLE, WHOLE):
            writer.write(request)
            answered = asyncio.ensure_future(body_of(reader))
            await until(lambda answered=answered: bool(hot.waiting) or answered.done())  # type: ignore[misc]
            hot.answer()
            bodies.append(await answered)

        assert bodies == [b"hi", b"1: hi", b"2: yo", b"hi", b"3: hi", b"hi", b"4: hi"]
        writer.close()
        await server.stop()

    async def test_what_comes_meanwhile_is_answered_afterwards(self) -> None:
        """An ordinary request that is sent while one is being answered at sight waits for its turn."""
        hot = Echo()
        server = Server(hot)
        reader, writer = await asyncio.open_connection(*server.address)
        writer.write(WHOLE)
        first = await body_of(reader)
        writer.write(WHOLE)
        await until(lambda: bool(hot.waiting))

        writer.write(WHOLE + WHOLE[:-2])
        await until(lambda: bool(server.protocol.pipeline))
        hot.answer()
        writer.write(b"yo")

        assert [first, *[await body_of(reader) for _ in range(3)]] == [b"hi", b"1: hi", b"hi", b"yo"]
        writer.close()
        await server.stop()

    @pytest.mark.parametrize(("part", "limit"), [(b"", "BODY_S"), (b"hi", "KEEP_ALIVE_S")])
    async def test_what_was_refused_for_its_head_is_not_waited_for(
        self, monkeypatch: pytest.MonkeyPatch, part: bytes, limit: str
    ) -> None:
        """A body that does not come ends the connection in its time, one that came leaves it idle like any other."""
        monkeypatch.setattr(protocols, "BODY_S", 0.05 if limit == "BODY_S" else 60.0)
        server = Server(Echo())
        reader, writer = await asyncio.open_connection(*server.address)
        writer.write(WHOLE)
        await body_of(reader)
        server.protocol.timeout_keep_alive = 0.05 if limit == "KEEP_ALIVE_S" else 60.0

        writer.write(POST + b"X: too much\r\nContent-Length: 2\r\n\r\n")
        refused = await body_of(reader)
        writer.write(part)
        async with asyncio.timeout(seconds(10.0)):
            rest = await reader.read()

        assert (refused, rest) == (b"full", b"")
        writer.close()
        await server.stop()

    async def test_line_ends_before_a_request_start_no_deadline_that_outlives_it(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """They begin the wait for a request's headers, which ends with the request, whichever way it goes."""
        monkeypatch.setattr(protocols, "HEAD_S", 0.05)
        hot = Echo()
        server = Server(hot)
        reader, writer = await asyncio.open_connection(*server.address)
        writer.write(WHOLE)
        await body_of(reader)
        writer.write(b"\r\n")
        await until(lambda: server.protocol._deadline is not None)

        writer.write(WHOLE)
        first = await body_of(reader)
        passed = asyncio.Event()
        asyncio.get_running_loop().call_later(4 * protocols.HEAD_S, passed.set)
        await passed.wait()
        writer.write(WHOLE)
        await until(lambda: bool(hot.waiting))
        hot.answer()

        assert [first, await body_of(reader)] == [b"hi", b"1: hi"]
        writer.close()
        await server.stop()

    async def test_idle_connections_are_closed_and_answers_at_sight_count(self) -> None:
        """The time is counted from the last answer, though its timer was set by an earlier one."""
        hot, idle_s = Echo(), 0.2
        server = Server(hot, timeout_keep_alive=idle_s)
        reader, writer = await asyncio.open_connection(*server.address)
        loop = asyncio.get_running_loop()
        writer.write(WHOLE)
        await body_of(reader)
        passed = asyncio.Event()
        loop.call_later(idle_s / 2, passed.set)
        await passed.wait()

        writer.write(WHOLE)
        await until(lambda: bool(hot.waiting))
        answered = loop.time()
        hot.answer()
        body = await body_of(reader)
        rest = await asyncio.wait_for(reader.read(), seconds(10.0))

        assert (body, rest) == (b"1: hi", b"")
        assert loop.time() - answered > idle_s * 0.9
        writer.close()
        await server.stop()

    async def test_no_answer_at_sight_keeps_its_connection_open(self) -> None:
        """Whoever waits for an answer is not idle."""
        hot, idle_s = Echo(), 0.05
        server = Server(hot, timeout_keep_alive=idle_s)
        reader, writer = await asyncio.open_connection(*server.address)
        writer.write(WHOLE)
        await body_of(reader)
        writer.write(WHOLE)
        await until(lambda: bool(hot.waiting))
        passed = asyncio.Event()
        asyncio.get_running_loop().call_later(4 * idle_s, passed.set)
        await passed.wait()

        hot.answer()

        assert await body_of(reader) == b"1: hi"
        writer.close()
        await server.stop()

    async def test_a_client_that_has_gone_is_not_written_to(self) -> None:
        """The answer comes too late for it, and hurts nobody."""
        hot = Echo()
        server = Server(hot)
        reader, writer = await asyncio.open_connection(*server.address)
        writer.write(WHOLE)
        await body_of(reader)
        writer.write(WHOLE)
        await until(lambda: bool(hot.waiting))
        writer.transport.abort()
        await asyncio.wait_for(server.lost.wait(), seconds(10.0))

        hot.answer()

        await server.stop()


async def body_of(reader: asyncio.StreamReader) -> bytes:
    """Return the body of the next answer."""
    async with asyncio.timeout(seconds(10.0)):
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        return await reader.readexactly(int(re.search(r"content-length: ([0-9]+)", head)[1]))  # type: ignore[index]


class TestSlowClients:
    @pytest.fixture(autouse=True)
    def short(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Make the deadlines short."""
        monkeypatch.setattr(protocols, "HEAD_S", 0.05)
        monkeypatch.setattr(protocols, "BODY_S", 0.05)

    @pytest.mark.parametrize(
        "begun",
        [
            b"",
            b"POST /ec",
            b"\r\n\r\n",
            POST + b"X: y",
            POST + b"Content-Length: 5\r\n\r\nhi",
            POST + b"Transfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n",
        ],
    )
    async def test_unfinished_request_is_answered_408_and_closed(self, server: Server, begun: bytes) -> None:
        """Nothing sent, half of the headers, half of a body: none of them holds a connection for long."""
        reader, writer = await asyncio.open_connection(*server.address)

        writer.write(begun)

        assert (await asyncio.wait_for(reader.read(), seconds(10.0))).startswith(b"HTTP/1.1 408 ")
        writer.close()
        await server.stop()

    @pytest.mark.parametrize("begun", [b"POST /ec", b"\r\n", POST + b"Content-Length: 5\r\n\r\nhi"])
    async def test_deadline_holds_for_every_request_of_a_connection(self, server: Server, begun: bytes) -> None:
        """A good request first buys no time for the next one."""
        reader, writer = await asyncio.open_connection(*server.address)
        writer.write(WHOLE)
        first = await asyncio.wait_for(reader.readuntil(b"\r\n\r\nhi"), seconds(10.0))

        writer.write(begun)

        assert first.startswith(b"HTTP/1.1 200 ")
        assert (await asyncio.wait_for(reader.read(), seconds(10.0))).startswith(b"HTTP/1.1 408 ")
        writer.close()
        await server.stop()

    async def test_websocket_outlives_the_deadlines_of_its_handshake(self, server: Server) -> None:
        """Nothing of HTTP waits for a connection that has become a WebSocket."""
        async with connect(server.url) as client:
            connection, _ = await server.accepted.get()
            passed = asyncio.Event()
            connection.loop.call_later(4 * protocols.HEAD_S, passed.set)
            await passed.wait()

            connection.write(prebuilt("still here"))

            assert await client.recv() == "still here"
        await server.stop()


async def _read_out(client: ClientConnection) -> None:
    while True:
        await client.recv()


class TestEndlessClients:
    async def test_endless_headers_are_refused(self, server: Server) -> None:
        """A header that never ends is cut off at the limit, not collected."""
        reader, writer = await asyncio.open_connection(*server.address)
        writer.write(POST + b"X: ")
        await writer.drain()
        writer.write(b"y" * (protocols.HEAD_BYTES_MAX + 1))

        answer = await asyncio.wait_for(reader.readline(), seconds(10.0))

        assert answer.startswith(b"HTTP/1.1 431 ")
        writer.close()
        await server.stop()

    async def test_pipelined_requests_are_no_endless_headers(self, server: Server) -> None:
        """More bytes of whole requests at once than headers may have are answered one by one."""
        reader, writer = await asyncio.open_connection(*server.address)
        count = protocols.HEAD_BYTES_MAX // len(WHOLE) + 100

        writer.write(WHOLE * count + POST)

        for _ in range(count):
            assert (await asyncio.wait_for(reader.readuntil(b"\r\n\r\nhi"), seconds(10.0))).startswith(b"HTTP/1.1 200 ")
        writer.close()
        await server.stop()

    async def test_client_that_never_reads_is_dropped(self, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
        """An answer that cannot leave is given up after a while."""
        monkeypatch.setattr(protocols, "UNREAD_S", 0.05)
        _, writer = await asyncio.open_connection(*server.address)
        cast(asyncio.Transport, writer.transport).pause_reading()
        size = 16 << 20

        writer.write(POST + b"Content-Length: %d\r\n\r\n" % size + b"x" * size)

        await asyncio.wait_for(server.lost.wait(), seconds(10.0))
        writer.close()
        await server.stop()

    @pytest.mark.parametrize(
        ("opcode", "fin"), [(Opcode.PING, True), (Opcode.PONG, True), (Opcode.CONT, False), (Opcode.TEXT, True)]
    )
    async def test_flood_of_frames_is_closed(self, server: Server, opcode: Opcode, fin: bool) -> None:
        """Pings, pongs, empty fragments, messages: more than the burst at once ends the connection with 4003."""
        async with connect(server.url) as client:
            connection, told = await server.accepted.get()
            begin = Frame(Opcode.TEXT, b"", fin=False).serialize(mask=True) if opcode is Opcode.CONT else b""
            one = Frame(opcode, b"", fin=fin).serialize(mask=True)

            client.transport.write(begin + one * (FRAMES_BURST_S * Settings.client_frames_per_s + 100))

            with pytest.raises(ConnectionClosed):
                await asyncio.wait_for(_read_out(client), seconds(10.0))
            assert client.close_code == 4003
            await asyncio.wait_for(told.is_lost.wait(), seconds(10.0))
            assert told.code == 4003
            assert not connection.is_open
        await server.stop()

    async def test_a_message_in_endless_fragments_is_closed(self) -> None:
        """Empty ones add nothing to its size; slowly sent they are no flood either."""
        server = Server(frames_per_s=300)
        first, more = (Frame(kind, b"", fin=False).serialize(mask=True) for kind in (Opcode.TEXT, Opcode.CONT))
        last = Frame(Opcode.CONT, b"x", fin=True).serialize(mask=True)
        try:
            async with connect(server.url) as client:
                connection, told = await server.accepted.get()
                client.transport.write(first + more * (FRAGMENTS_MAX - 2) + last)
                await until(lambda: told.messages == ["x"])
                client.transport.write(first + more * FRAGMENTS_MAX)

                with pytest.raises(ConnectionClosed):
                    await asyncio.wait_for(_read_out(client), seconds(10.0))
                assert client.close_code == 4003
                assert client.close_reason == f"a message of more than {FRAGMENTS_MAX} fragments"
                assert not connection.is_open
        finally:
            await server.stop()

    async def test_how_many_frames_are_a_flood_is_a_setting(self) -> None:
        """As many as the application says are taken, and the reason says how many that is."""
        server = Server(frames_per_s=300)
        one = Frame(Opcode.BINARY, b"x").serialize(mask=True)
        try:
            async with connect(server.url) as client:
                _, told = await server.accepted.get()
                client.transport.write(one * FRAMES_BURST_S * 300)
                await until(lambda: len(told.messages) == FRAMES_BURST_S * 300)
                client.transport.write(one * FRAMES_BURST_S * 300)
                with pytest.raises(ConnectionClosed):
                    await asyncio.wait_for(_read_out(client), seconds(10.0))
                assert (client.close_code, client.close_reason) == (4003, "more than 300 frames a second")
        finally:
            await server.stop()


class TestPolled:
    """A connection that is told by a poll when there is something to read."""

    @pytest.fixture
    async def poll(self) -> InputPoll:
        """Give a poll."""
        return new_poll()

    @pytest.fixture
    async def server(self, poll: InputPoll) -> Server:
        """Give a running server whose connections are."""
        return Server(poll=poll)

    async def test_who_is_closed_or_lost_is_read_from_no_more(self, server: Server, poll: InputPoll) -> None:
        """One that does not take what was written to it stays open for a while, and may send what it likes."""
        async with connect(server.url, max_queue=None) as client, connect(server.url) as other:
            (connection, told), (lost, told_lost) = [await server.accepted.get() for _ in range(2)]
            client.transport.pause_reading()
            connection.write(prebuilt(b"x" * 10_000_000))
            connection.transport.close()

            await client.send("more")
            lost.abort()
            await asyncio.wait_for(told_lost.is_lost.wait(), seconds(5.0))
            await until(lambda: len(poll) == 0)

            assert told.messages == []
            client.transport.abort()
            await asyncio.wait_for(told.is_lost.wait(), seconds(5.0))
            with pytest.raises(ConnectionClosed):
                await other.recv()
        await server.stop()

    async def test_what_has_come_is_taken_before_a_stop(self, server: Server) -> None:
        """Thousands that send in one moment have their turns one after another, and a stop does not wait for them."""
        async with connect(server.url) as client:
            connection, told = await server.accepted.get()
            sent = [f"in time {i} " + "x" * 3_000 for i in range(10)]
            client.transport.write(b"".join(Frame(Opcode.TEXT, text.encode()).serialize(mask=True) for text in sent))
            assert told.messages == []

            connection.shutdown()

            assert told.messages == sent
            with pytest.raises(ConnectionClosed):
                await client.recv()
            assert client.close_code == 1012
        await server.stop()

    async def test_a_mistake_at_a_stop_is_nobody_elses(self, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
        """Whoever stops all connections one after another must not be told of it."""

        def fail(data: bytes | str) -> None:
            raise RuntimeError("a mistake of ours")

        async with connect(server.url) as client:
            connection, told = await server.accepted.get()
            monkeypatch.setattr(told, "receive", fail)
            client.transport.write(Frame(Opcode.TEXT, b"in time").serialize(mask=True))

            connection.shutdown()

            await asyncio.wait_for(told.is_lost.wait(), seconds(5.0))
            with pytest.raises(ConnectionClosed):
                await client.recv()
        await server.stop()

    async def test_one_that_outlives_its_poll_goes_on(self, server: Server, poll: InputPoll) -> None:
        """The transport reads again, what came meanwhile as well; whoever comes later never knew another way."""
        async with connect(server.url) as client:
            connection, told = await server.accepted.get()
            client.transport.write(Frame(Opcode.TEXT, b"before").serialize(mask=True))

            poll.close()
            await client.send("after")
            await until(lambda: told.messages == ["before", "after"])

            assert connection.transport.is_reading()
            async with connect(server.url) as second:
                _, told_second = await server.accepted.get()
                await second.send("mine")
                await until(lambda: told_second.messages == ["mine"])
        await asyncio.wait_for(told.is_lost.wait(), seconds(5.0))
        await server.stop()


class TestPrebuilt:
    @pytest.mark.parametrize("size", [0, 1, 125, 126, 65_535, 65_536])
    def test_headers_of_every_length(self, size: int) -> None:
        """One final unmasked frame: opcode, length in its shortest form, payload."""
        length = bytes([size]) if size < 126 else b"\x7e" + size.to_bytes(2, "big") if size < 65_536 else None
        header = b"\x82" + (length or b"\x7f" + size.to_bytes(8, "big"))

        assert prebuilt(b"x" * size) == header + b"x" * size

    def test_text_is_utf8(self) -> None:
        """A str becomes a text frame, its length counted in bytes."""
        assert prebuilt("é") == b"\x81\x02\xc3\xa9"


class TestAttached:
    """A connection that belongs to a receiver, read from by its transport and a few of many at a time."""

    @pytest.fixture(params=[True, False], ids=["few at a time", "transport"])
    async def server(self, request: pytest.FixtureRequest) -> Server:
        """Give a running server."""
        return Server(poll=new_poll() if request.param else None)

    async def test_is_read_from_in_one_way(self, server: Server) -> None:
        """Where a poll says when there is something to read, the transport does not look; both take all that comes."""
        async with connect(server.url) as client:
            connection, told = await server.accepted.get()
            assert connection.transport.is_reading() == (server.poll is None)
            sent = [f"{i} " + "x" * 4_000 for i in range(50)]

            for text in sent:
                await client.send(text)

            await until(lambda: len(told.messages) == len(sent))
            assert told.messages == sent
        await server.stop()

    async def test_outlives_its_endpoint_without_a_task(self, server: Server) -> None:
        """The endpoint has returned, no task is left, and messages still go both ways."""
        async with connect(server.url) as client:
            connection, told = await server.accepted.get()
            await asyncio.sleep(0)

            await client.send("text")
            await client.send([b"in ", b"pieces"])
            await (await client.ping())
            connection.write(prebuilt(b"one") + prebuilt("two") + prebuilt(b"x" * 70_000))

            assert [await client.recv() for _ in range(3)] == [b"one", "two", b"x" * 70_000]
            assert told.messages == ["text", b"in pieces"]
            assert not connection.tasks
        await server.stop()

    async def test_a_pong_that_comes_alone_needs_no_parser(
        self, server: Server, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """It is what comes most; one that comes in pieces, or with something else, is parsed like any other frame."""
        async with connect(server.url):
            connection, told = await server.accepted.get()
            parsed, receive = list[bytes](), connection.conn.receive_data
            monkeypatch.setattr(connection.conn, "receive_data", lambda data: (parsed.append(data), receive(data)))
            pong, empty, other = (
                Frame(kind, payload).serialize(mask=True)
                for kind, payload in ((Opcode.PONG, b"arena"), (Opcode.PONG, b""), (Opcode.BINARY, b"other"))
            )

            for data in (pong, empty, pong):
                connection.data_received(data)
            assert (told.pongs, parsed) == (3, [])

            pieces = [pong[:1], pong[1:], pong + pong, other + pong, pong[:7], pong[7:]]
            for data in pieces:
                connection.data_received(data)
            assert (told.pongs, parsed) == (8, pieces)

            connection.data_received(pong)
            assert (told.pongs, parsed) == (9, pieces)
            longest = Frame(Opcode.PONG, b"x" * 125).serialize(mask=True)
            connection.data_received(longest)
            assert (told.pongs, parsed) == (10, pieces)
            assert told.messages == [b"other"]
        await server.stop()

    @pytest.mark.parametrize(
        ("head", "rest", "payload"),
        [
            (b"\x82\x8b\0\0\0\0", b"\x8a\x85maskarena", b"\x8a\x85maskarena"),
            (b"\x82\x89", b"\x8a\x87\0\0" + bytes(9), b"\x8a\x87\0\0" * 2 + b"\x8a"),
            (b"\x82", b"\x8a\x89\0\0\0" + bytes(10), b"\x89\0\0\0" * 2 + b"\x89\0"),
        ],
        ids=["payload", "mask and payload", "all but a byte"],
    )
    async def test_what_looks_like_a_pong_in_a_frame_is_none(
        self, server: Server, head: bytes, rest: bytes, payload: bytes
    ) -> None:
        """A piece that is byte for byte a pong belongs to the frame that has begun."""
        async with connect(server.url):
            connection, told = await server.accepted.get()

            connection.data_received(head)
            connection.data_received(rest)

            assert (told.pongs, told.messages) == (0, [payload])
        await server.stop()

    @pytest.mark.parametrize("size", [126, 127])
    async def test_a_pong_that_is_too_long_is_a_mistake(self, server: Server, size: int) -> None:
        """The size is where longer frames say how they give theirs, which control frames must not."""
        async with connect(server.url) as client:
            connection, told = await server.accepted.get()

            client.transport.write(b"\x8a" + bytes([0x80 + size]) + bytes(4 + size))

            with pytest.raises(ConnectionClosed):
                await asyncio.wait_for(_read_out(client), seconds(10.0))
            assert (client.close_code, told.pongs) == (1002, 0)
            assert not connection.is_open
        await server.stop()

    async def test_too_many_single_pongs_are_a_flood(self, server: Server) -> None:
        """The short way counts them as the long one does."""
        async with connect(server.url) as client:
            connection, told = await server.accepted.get()
            pong = Frame(Opcode.PONG, b"").serialize(mask=True)

            for _ in range(FRAMES_BURST_S * Settings.client_frames_per_s + 100):
                connection.data_received(pong)

            with pytest.raises(ConnectionClosed):
                await asyncio.wait_for(_read_out(client), seconds(10.0))
            assert client.close_code == 4003
            await asyncio.wait_for(told.is_lost.wait(), seconds(10.0))
        await server.stop()

    async def test_takes_what_came_before_it_was_there(self, server: Server) -> None:
        """Messages that arrive while the handshake is being answered wait for the receiver."""
        server.may_accept.clear()
        _, writer = await asyncio.open_connection(*server.address)
        writer.write(HANDSHAKE)
        connection = await server.arrived.get()
        writer.write(Frame(Opcode.BINARY, b"early").serialize(mask=True))
        await until(lambda: connection.read_paused)

        server.may_accept.set()
        _, told = await server.accepted.get()
        writer.write(Frame(Opcode.TEXT, b"late").serialize(mask=True))
        await until(lambda: len(told.messages) == 2)

        assert told.messages == [b"early", "late"]
        writer.close()
        await server.stop()

    async def test_client_that_left_before_it_was_there_is_lost(self, server: Server) -> None:
        """The receiver hears of an end that came during the handshake."""
        server.may_accept.clear()
        attempt = asyncio.create_task(connect(server.url, open_timeout=None).__aenter__())
        connection = await server.arrived.get()
        connection.transport.abort()
        await until(lambda: connection.disconnected)

        connection.attach(told := Told(), server.poll)

        assert (told.is_lost.is_set(), told.code) == (True, 1006)
        with pytest.raises((ConnectionClosed, InvalidHandshake, OSError)):
            await attempt
        server.may_accept.set()
        await server.stop()

    async def test_a_refused_handshake_is_no_error(self, server: Server, caplog: pytest.LogCaptureFixture) -> None:
        """The client has the status and the body, the log has nothing to complain of."""
        server.refuses = True

        with pytest.raises(InvalidStatus) as refused:
            async with connect(server.url):
                pass
        await server.stop()

        assert (refused.value.response.status_code, refused.value.response.body) == (503, b"not now")
        assert [
            record for record in caplog.records if record.name == "uvicorn.error" and record.levelname == "ERROR"
        ] == []

    async def test_text_that_is_no_utf8_is_closed(self, server: Server) -> None:
        """1007, as the standard says."""
        async with connect(server.url) as client:
            await server.accepted.get()
            client.transport.write(Frame(Opcode.TEXT, b"\xff").serialize(mask=True))

            with pytest.raises(ConnectionClosed):
                await client.recv()
            assert client.close_code == 1007
        await server.stop()

    @pytest.mark.parametrize("code", [1000, 4999])
    async def test_code_of_the_client_is_told(self, server: Server, code: int) -> None:
        """However the client closes, the receiver hears of it once."""
        async with connect(server.url) as client:
            _, told = await server.accepted.get()
            await client.close(code)

            await asyncio.wait_for(told.is_lost.wait(), seconds(5.0))
            assert told.code == code
        await server.stop()

    async def test_lost_client_has_no_code(self, server: Server) -> None:
        """Reset without a close frame: nothing is left for the receiver to close."""
        async with connect(server.url) as client:
            _, told = await server.accepted.get()
            client.transport.get_extra_info("socket").setsockopt(
                socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
            )
            client.transport.abort()

            await asyncio.wait_for(told.is_lost.wait(), seconds(5.0))
            assert told.code == 1006
        await server.stop()

    async def test_end_of_the_client_is_told_and_left_to_the_receiver(self, server: Server) -> None:
        """No more bytes from the client: nothing is written any more, and the connection is closed when it is said."""
        reader, writer = await asyncio.open_connection(*server.address)
        writer.write(HANDSHAKE)
        connection, told = await server.accepted.get()
        await reader.readuntil(b"\r\n\r\n")
        writer.write_eof()
        await until(lambda: told.ends == 1)

        connection.write(prebuilt("late"))
        assert not connection.is_open
        assert not told.is_lost.is_set()
        connection.end()

        await asyncio.wait_for(told.is_lost.wait(), seconds(5.0))
        assert told.code == 1006
        assert await reader.read() == b""
        writer.close()
        await server.stop()

    async def test_close_ends_with_the_answer_of_the_client(self, server: Server) -> None:
        """Code and reason arrive; nothing is written behind the close frame."""
        async with connect(server.url) as client:
            connection, told = await server.accepted.get()

            connection.close(4001, "enough")
            connection.close(4002, "again")
            connection.write(prebuilt("late"))

            with pytest.raises(ConnectionClosed):
                await client.recv()
            assert (client.close_code, client.close_reason) == (4001, "enough")
            await asyncio.wait_for(told.is_lost.wait(), seconds(5.0))
            assert told.code == 4001
        await server.stop()

    async def test_reader_that_stops_is_told_of_and_its_buffers_are_small(self, server: Server) -> None:
        """What a client that never reads can make wait here, in the kernel included, is at most 128 KiB."""
        async with connect(server.url, max_size=None, max_queue=None) as client:
            connection, told = await server.accepted.get()
            client.transport.pause_reading()
            while not told.is_blocked.is_set():
                connection.write(prebuilt(b"x" * 3_000))

            assert connection.transport.get_write_buffer_size() + in_kernel(connection) <= 128 * 1024
            client.transport.resume_reading()
            await asyncio.wait_for(told.is_drained.wait(), seconds(5.0))
            assert connection.transport.get_write_buffer_size() == 0
        await server.stop()

    async def test_abort_drops_at_once(self, server: Server) -> None:
        """Neither a close frame nor what waited arrives."""
        async with connect(server.url) as client:
            connection, told = await server.accepted.get()

            connection.abort()
            connection.write(prebuilt("late"))

            with pytest.raises(ConnectionClosed):
                await client.recv()
            assert client.close_code == 1006
            await asyncio.wait_for(told.is_lost.wait(), seconds(5.0))
        await server.stop()


def in_kernel(connection: ArenaWebSocketProtocol) -> int:
    """Return the bytes that wait in the kernel for a connection, all it keeps for them included (Linux)."""
    return int.from_bytes(connection.transport.get_extra_info("socket").getsockopt(*MEMORY)[WMEM_QUEUED], "little")


class TestSendToAll:
    """One frame on many connections, in one step: told each time, or noted once as a crowd."""

    give: Callable[[list[ArenaWebSocketProtocol], bytes], list[int]]

    @pytest.fixture(params=[False, True], ids=["told", "noted"], autouse=True)
    def _way(self, request: pytest.FixtureRequest) -> None:
        crowds: dict[tuple[int, ...], Crowd] = {}

        def give(connections: list[ArenaWebSocketProtocol], data: bytes) -> list[int]:
            if not request.param:
                return send_to_all(connections, data)
            members = tuple(map(id, connections))
            if members not in crowds:
                crowds[members] = Crowd(connections)
            return crowds[members].send(data)

        self.give = give

    @pytest.fixture(params=[True, False], ids=["raw", "transport"])
    def is_raw(self, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
        """Write to the descriptors, or let the transports do it."""
        if not request.param:
            monkeypatch.setattr(protocols, "PLAIN_TRANSPORTS", frozenset())
        return bool(request.param)

    async def test_everybody_gets_the_same(self, server: Server, is_raw: bool) -> None:
        """Several frames in one write are several messages for each."""
        clients = [await connect(server.url) for _ in range(5)]
        connections = [(await server.accepted.get())[0] for _ in clients]

        behind = self.give(connections, prebuilt(b"one") + prebuilt("two"))

        assert behind == []
        assert [[await client.recv() for _ in range(2)] for client in clients] == [[b"one", "two"]] * 5
        assert {connection.descriptor >= 0 for connection in connections} == {is_raw}
        for client in clients:
            await client.close()
        await server.stop()

    @pytest.mark.usefixtures("is_raw")
    async def test_what_comes_short_follows_whole(self, server: Server) -> None:
        """A frame larger than the socket takes arrives whole, its receiver hears of it, the others are not touched."""
        clients = [await connect(server.url, max_size=None, max_queue=None) for _ in range(2)]
        (first, first_told), (second, second_told) = [await server.accepted.get() for _ in clients]
        large = bytes(range(256)) * 8_192

        self.give([first], prebuilt(large))
        behind = self.give([first, second], prebuilt(b"small"))

        assert (behind, first_told.is_blocked.is_set(), second_told.is_blocked.is_set()) == ([0], True, False)
        assert await clients[0].recv() == large
        assert await clients[1].recv() == b"small"
        await asyncio.wait_for(first_told.is_drained.wait(), seconds(5.0))
        assert self.give([first], prebuilt(b"next")) == []
        assert await clients[0].recv() == b"next"
        for client in clients:
            await client.close()
        await server.stop()

    @pytest.mark.usefixtures("is_raw")
    async def test_closing_ones_get_nothing_and_hurt_nobody(self, server: Server) -> None:
        """uvloop raises on a closed handle: a connection that is closing is passed over, the others are served."""
        clients = [await connect(server.url) for _ in range(3)]
        connections = [(await server.accepted.get())[0] for _ in clients]
        connections[0].abort()
        connections[1].transport.close()

        assert self.give(connections, prebuilt(b"one")) == []

        assert await clients[2].recv() == b"one"
        for client in clients:
            await client.close()
        await server.stop()

    @pytest.mark.usefixtures("is_raw")
    async def test_connection_reset_by_its_client_is_lost(self, server: Server) -> None:
        """A write that fails ends the connection as one of the transport's own would."""
        async with connect(server.url) as client:
            connection, told = await server.accepted.get()
            reset(client)
            await until(lambda: client.transport.get_write_buffer_size() == 0)

            while not told.is_lost.is_set():
                self.give([connection], prebuilt(b"x"))
                await asyncio.sleep(0)
        await server.stop()

    @pytest.mark.usefixtures("is_raw")
    @pytest.mark.parametrize("happens", ["abort", "end", "its close", "its end", "its reset"])
    async def test_one_that_ends_between_two_rounds_gets_nothing_more(self, server: Server, happens: str) -> None:
        """Whoever ended it: the next round passes it over, the others are served."""
        clients = [await connect(server.url) for _ in range(3)]
        connections, told = zip(*[await server.accepted.get() for _ in clients], strict=True)
        assert self.give(list(connections), prebuilt(b"one")) == []
        assert [await client.recv() for client in clients] == [b"one"] * 3

        if happens == "abort":
            connections[0].abort()
        elif happens == "end":
            connections[0].end()
        elif happens == "its close":
            clients[0].transport.write(Frame(Opcode.CLOSE, b"\x03\xe8").serialize(mask=True))
            await until(connections[0].transport.is_closing)
        elif happens == "its reset":
            reset(clients[0])
            await asyncio.wait_for(told[0].is_lost.wait(), seconds(5.0))
        else:
            clients[0].transport.write_eof()
            await until(lambda: connections[0].is_ended or connections[0].transport.is_closing())
            connections[0].end()

        assert self.give(list(connections), prebuilt(b"two")) == []
        assert [await client.recv() for client in clients[1:]] == [b"two"] * 2
        await asyncio.wait_for(told[0].is_lost.wait(), seconds(5.0))
        assert self.give(list(connections), prebuilt(b"three")) == []
        assert [await client.recv() for client in clients[1:]] == [b"three"] * 2
        with pytest.raises(ConnectionClosed):
            await clients[0].recv()
        for client in clients:
            await client.close()
        await server.stop()

    @pytest.mark.usefixtures("is_raw")
    async def test_what_waits_of_another_write_is_not_overtaken(self, server: Server) -> None:
        """An answer that comes between two rounds may come short: until it is through, nothing follows it."""
        clients = [await connect(server.url, max_size=None, max_queue=None) for _ in range(2)]
        connections = [(await server.accepted.get())[0] for _ in clients]
        large = bytes(range(256)) * 8_192
        assert self.give(connections, prebuilt(b"one")) == []
        # whoever is in two crowds is asked by the first of them as well
        assert self.give(connections[:1], prebuilt(b"two")) == []
        assert self.give(connections, prebuilt(b"three")) == []

        connections[0].write(prebuilt(large))

        assert self.give(connections, prebuilt(b"four")) == [0]
        assert [await clients[0].recv() for _ in range(4)] == [b"one", b"two", b"three", large]
        assert [await clients[1].recv() for _ in range(3)] == [b"one", b"three", b"four"]
        await until(lambda: connections[0].transport.get_write_buffer_size() == 0)
        assert self.give(connections, prebuilt(b"five")) == []
        assert [await client.recv() for client in clients] == [b"five"] * 2
        for client in clients:
            await client.close()
        await server.stop()

    async def test_descriptor_of_a_closed_connection_is_never_written_to(self, server: Server) -> None:
        """The number belongs to somebody else at once: what is sent to the old connection must not reach it."""
        async with connect(server.url) as client:
            connection, _ = await server.accepted.get()
            number = connection.descriptor
            assert self.give([connection], prebuilt(b"ours")) == []
            connection.abort()
            await until(lambda: not is_open(number))
            taken, other = socket.socketpair()
            taken.setblocking(False)
            other.setblocking(False)
            if taken.fileno() != number:
                os.dup2(taken.fileno(), number)

            assert self.give([connection], prebuilt(b"foreign")) == []

            with pytest.raises(BlockingIOError):
                other.recv(1)
            if taken.fileno() != number:
                os.close(number)
            taken.close()
            other.close()
            assert await client.recv() == b"ours"
            with pytest.raises(ConnectionClosed):
                await client.recv()
        await server.stop()

    async def test_tls_goes_through_the_transport(self) -> None:
        """Bytes written behind an encrypting transport's back would be no TLS; through it they arrive."""
        poll = new_poll()
        server = Server(poll=poll, ssl_keyfile=TLS / "key.pem", ssl_certfile=TLS / "certificate.pem")
        trusted = ssl.create_default_context(cafile=str(TLS / "certificate.pem"))
        async with connect(server.url.replace("ws:", "wss:"), ssl=trusted, server_hostname="localhost") as client:
            connection, told = await server.accepted.get()

            behind = [self.give([connection], prebuilt(b"secret")) for _ in range(3)]

            assert (connection.descriptor, behind) == (-1, [[], [], []])
            assert [await client.recv() for _ in range(3)] == [b"secret"] * 3
            assert not told.is_blocked.is_set()
            await client.send("secret too")
            await until(lambda: told.messages == ["secret too"])
            assert len(poll) == 0
        await server.stop()


def reset(client: ClientConnection) -> None:
    """Break a connection off, so that the other end sees an error and no end."""
    connected = client.transport.get_extra_info("socket")
    connected.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.transport.abort()


def is_open(descriptor: int) -> bool:
    """Say whether a descriptor belongs to anything."""
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


class TestNamesWeLeanOn:
    """A release of uvloop, Python or websockets that renames one fails here, not in production."""

    def test_transports_that_may_be_written_past_exist(self) -> None:
        """Their names are compared with; a new one would quietly take the slow path."""
        for module, name in protocols.PLAIN_TRANSPORTS:
            kind = getattr(import_module(module), name)
            assert all(callable(getattr(kind, method)) for method in ("get_extra_info", "get_write_buffer_size"))

    async def test_this_loops_transport_is_one_of_them(self, server: Server) -> None:
        """The transport of the loop in use has a descriptor, and says what waits and whether it is closing."""
        async with connect(server.url):
            connection, _ = await server.accepted.get()
            transport = connection.transport

            assert raw_descriptor(transport) == transport.get_extra_info("socket").fileno() >= 0
            assert (transport.get_write_buffer_size(), transport.is_closing()) == (0, False)
        await server.stop()

    async def test_a_single_byte_that_waits_is_told(self, server: Server) -> None:
        """A frame written past the transport would come before it."""
        async with connect(server.url, max_queue=None) as client:
            connection, told = await server.accepted.get()
            client.transport.pause_reading()
            assert connection.descriptor >= 0
            with suppress(BlockingIOError):
                while True:
                    os.write(connection.descriptor, prebuilt(b"x" * 3_000))

            connection.transport.write(b"x")

            assert (connection.transport.get_write_buffer_size(), told.is_blocked.is_set()) == (1, True)
            client.transport.abort()
            await asyncio.wait_for(told.is_lost.wait(), seconds(5.0))
        await server.stop()

    async def test_a_connection_is_lost_before_its_descriptor_is_closed(
        self, server: Server, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A crowd is told of the loss while nobody else can have the descriptor, so it need not ask."""
        async with connect(server.url) as client:
            connection, told = await server.accepted.get()
            number, lost, was_open = connection.descriptor, told.lost, []

            def look(code: int) -> None:
                was_open.append(is_open(number))
                lost(code)

            monkeypatch.setattr(told, "lost", look)
            connection.abort()
            await asyncio.wait_for(told.is_lost.wait(), seconds(5.0))

            assert was_open == [True]
            with pytest.raises(ConnectionClosed):
                await client.recv()
        await server.stop()

    async def test_a_transport_writes_at_once(self, server: Server) -> None:
        """A frame behind one written to the descriptor must not overtake it: what was written has left the process."""
        async with connect(server.url) as client:
            connection, _ = await server.accepted.get()
            for i in range(100):
                connection.write(prebuilt(b"%d" % (2 * i)))
                assert send_to_all([connection], prebuilt(b"%d" % (2 * i + 1))) == []

            assert [await client.recv() for _ in range(200)] == [b"%d" % i for i in range(200)]
        await server.stop()


class TestShutdown:
    async def test_half_a_body_holds_a_stop_up_for_a_moment_only(
        self, server: Server, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A server that stops answers what it has, and waits for the rest of a request much shorter than else."""
        monkeypatch.setattr(protocols, "DRAIN_BODY_S", 0.05)
        reader, writer = await asyncio.open_connection(*server.address)
        writer.write(POST + b"Expect: 100-continue\r\nContent-Length: 5\r\n\r\nhi")
        # it has asked for the body, so it has begun to wait for it
        await asyncio.wait_for(reader.readuntil(b"100 Continue\r\n\r\n"), seconds(10.0))

        # BODY_S is longer than this waits
        await server.stop()

        assert (await asyncio.wait_for(reader.read(), seconds(10.0))).startswith(b"HTTP/1.1 408 ")
        writer.close()

    async def test_farewell_comes_before_the_close(self, server: Server) -> None:
        """What the endpoint left as last words, then 1012."""
        async with connect(server.url) as client:
            _, told = await server.accepted.get()
            told.last_words = prebuilt("goodbye")
            stopping = asyncio.create_task(server.stop())

            assert await client.recv() == "goodbye"
            with pytest.raises(ConnectionClosed):
                await client.recv()

            assert client.close_code == 1012
            await stopping

    async def test_a_stop_waits_for_a_client_that_is_owed_an_answer(self, server: Server) -> None:
        """It is open until the receiver says so; then the last words, and 1012."""
        async with connect(server.url) as client:
            connection, told = await server.accepted.get()
            told.is_owed = True
            stopping = asyncio.create_task(server.stop())
            await asyncio.wait_for(told.is_asked_to_finish.wait(), seconds(10.0))
            assert connection.is_open

            connection.write(prebuilt("the answer"))
            told.finished()

            assert await client.recv() == "the answer"
            with pytest.raises(ConnectionClosed):
                await client.recv()
            assert client.close_code == 1012
            await stopping
            # whatever comes late finds nothing left to close
            told.finished()

    async def test_reader_that_is_stuck_does_not_hold_a_stop_up(
        self, server: Server, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Whoever does not take the farewell is dropped a moment later."""
        monkeypatch.setattr(protocols, "FAREWELL_S", 0.05)
        async with connect(server.url, max_size=None, max_queue=None) as client:
            connection, told = await server.accepted.get()
            client.transport.pause_reading()
            while not told.is_blocked.is_set():
                connection.write(prebuilt(b"x" * 3_000))

            await server.stop()

            assert told.is_lost.is_set()
            client.transport.abort()

    async def test_a_client_that_closes_and_does_not_read_does_not_keep_a_stop_up(
        self, server: Server, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Its close is answered, but data waits before the answer: it is dropped, and others are told all the same."""
        monkeypatch.setattr(protocols, "FAREWELL_S", 0.05)
        async with connect(server.url, max_size=None, max_queue=None) as client, connect(server.url) as other:
            connection, told = await server.accepted.get()
            client.transport.pause_reading()
            while not told.is_blocked.is_set():
                connection.write(prebuilt(b"x" * 3_000))
            client.transport.write(Frame(Opcode.CLOSE, b"\x03\xe8").serialize(mask=True))
            await until(lambda: connection.transport.is_closing())
            assert not told.is_lost.is_set()

            await server.stop()

            assert told.is_lost.is_set()
            with pytest.raises(ConnectionClosed):
                await asyncio.wait_for(_read_out(other), seconds(10.0))
            assert other.close_code == 1012
            client.transport.abort()
