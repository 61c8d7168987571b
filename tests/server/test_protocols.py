"""Our uvicorn protocols: what they lean on exists, slow and endless clients are dropped, frames leave in one write."""

from __future__ import annotations

import asyncio
import inspect
import socket
from typing import cast

import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.protocols.utils import ClientDisconnected
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed
from websockets.frames import Frame, Opcode

from server import protocols
from server.protocols import (
    EXTENSION,
    FRAMES_BURST,
    ArenaHttpProtocol,
    ArenaWebSocketProtocol,
    prebuilt,
    websocket_options,
)
from tests.support.deadlines import seconds


class Server:
    """A server whose one endpoint hands its connection to the test and waits until it is told to end."""

    def __init__(self) -> None:
        routes = [WebSocketRoute("/ws", self._endpoint), Route("/echo", self._echo, methods=["POST"])]
        app = Starlette(routes=routes)
        self.lost = lost = asyncio.Event()

        class Noting(ArenaHttpProtocol):
            def connection_lost(self, exc: Exception | None) -> None:
                super().connection_lost(exc)
                lost.set()

        options = websocket_options() | {"http": Noting}
        self._server = uvicorn.Server(uvicorn.Config(app, log_config=None, lifespan="off", **options))
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = self._listener.getsockname()
        self.url = f"ws://127.0.0.1:{self.address[1]}/ws"
        self.connection: asyncio.Future[ArenaWebSocketProtocol] = asyncio.get_running_loop().create_future()
        self.ended = asyncio.Event()
        self._serving = asyncio.create_task(self._server.serve([self._listener]))

    async def _echo(self, request: Request) -> Response:
        return Response(await request.body())

    async def _endpoint(self, websocket: WebSocket) -> None:
        await websocket.accept()
        self.connection.set_result(websocket.scope["extensions"][EXTENSION])
        while (await websocket.receive())["type"] != "websocket.disconnect":
            pass
        self.ended.set()

    async def stop(self) -> None:
        """Shut down as SIGTERM would."""
        self._server.should_exit = True
        await asyncio.wait_for(self._serving, seconds(10.0))


@pytest.fixture
async def server() -> Server:
    """Give a running server."""
    return Server()


class TestUvicorn:
    @pytest.mark.parametrize(
        "name", ["connection_made", "connection_lost", "run_asgi", "shutdown", "send", "receive", "pause_writing"]
    )
    def test_methods_we_lean_on_exist(self, name: str) -> None:
        """A release of uvicorn that renames one fails here, not in production."""
        assert callable(getattr(WebSocketsSansIOProtocol, name))

    @pytest.mark.parametrize(
        "name",
        ["transport", "writable", "handshake_complete", "close_sent", "disconnected", "scope", "close_timeout"],
    )
    def test_attributes_we_lean_on_exist(self, name: str) -> None:
        """The state that says whether a frame may be written is uvicorn's."""
        assert f"self.{name}" in inspect.getsource(WebSocketsSansIOProtocol)

    @pytest.mark.parametrize("name", ["data_received", "handle_websocket_upgrade", "pause_writing", "resume_writing"])
    def test_methods_of_http_we_lean_on_exist(self, name: str) -> None:
        """Deadlines hang on them."""
        assert callable(getattr(HttpToolsProtocol, name))

    @pytest.mark.parametrize("name", ["cycle", "scope", "flow", "loop", "timeout_keep_alive_task"])
    def test_attributes_of_http_we_lean_on_exist(self, name: str) -> None:
        """What is being answered and whether more is read is uvicorn's."""
        assert f"self.{name}" in inspect.getsource(HttpToolsProtocol)


POST = b"POST /echo HTTP/1.1\r\nHost: arena\r\n"
WHOLE = POST + b"Content-Length: 2\r\n\r\nhi"


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
            connection = await server.connection
            passed = asyncio.Event()
            connection.loop.call_later(4 * protocols.HEAD_S, passed.set)
            await passed.wait()

            await connection.write([prebuilt("still here")])

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
            connection = await server.connection
            begin = Frame(Opcode.TEXT, b"", fin=False).serialize(mask=True) if opcode is Opcode.CONT else b""
            one = Frame(opcode, b"", fin=fin).serialize(mask=True)

            client.transport.write(begin + one * (FRAMES_BURST + 100))

            with pytest.raises(ConnectionClosed):
                await asyncio.wait_for(_read_out(client), seconds(10.0))
            assert client.close_code == 4003
            assert connection.close_sent
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


class TestWrite:
    async def test_frames_arrive_whole_and_in_order(self, server: Server) -> None:
        """Several frames in one write are several messages for the client."""
        async with connect(server.url) as client:
            connection = await server.connection

            await connection.write([prebuilt(b"one"), prebuilt("two"), prebuilt(b"x" * 70_000)])

            assert [await client.recv() for _ in range(3)] == [b"one", "two", b"x" * 70_000]
        await server.stop()

    async def test_waits_while_the_client_does_not_read(self, server: Server) -> None:
        """A full buffer holds the writer back until the client reads again."""
        async with connect(server.url, max_size=None, max_queue=None) as client:
            connection = await server.connection
            client.transport.pause_reading()
            while connection.writable.is_set():
                await connection.write([prebuilt(b"x" * 30_000)])

            blocked = asyncio.create_task(connection.write([prebuilt(b"last")]))
            await asyncio.sleep(0)
            held_back = not blocked.done()
            client.transport.resume_reading()
            async with asyncio.timeout(seconds(10.0)):
                while await client.recv() != b"last":
                    pass

            assert held_back
            await blocked
        await server.stop()

    async def test_buffers_of_a_stuck_reader_are_small(self, server: Server) -> None:
        """What a client that never reads can make wait here, in the kernel included, is at most 128 KiB."""
        async with connect(server.url, max_size=None, max_queue=None) as client:
            connection = await server.connection
            client.transport.pause_reading()
            while connection.writable.is_set():
                await connection.write([prebuilt(b"x" * 3_000)])

            kernel = connection.transport.get_extra_info("socket")
            in_kernel = kernel.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF)
            assert connection.transport.get_write_buffer_size() + in_kernel <= 128 * 1024
            client.transport.resume_reading()
        await server.stop()

    async def test_closed_connection_takes_nothing(self, server: Server) -> None:
        """Writing after the end raises instead of reaching whoever has the descriptor now."""
        async with connect(server.url):
            connection = await server.connection
        await asyncio.wait_for(server.ended.wait(), seconds(5.0))

        with pytest.raises(ClientDisconnected):
            await connection.write([prebuilt(b"late")])
        await server.stop()

    async def test_abort_drops_at_once(self, server: Server) -> None:
        """Neither a close frame nor what waited arrives, and a waiting writer is let go."""
        async with connect(server.url) as client:
            connection = await server.connection

            connection.abort()

            with pytest.raises(ConnectionClosed):
                await client.recv()
            assert client.close_code == 1006
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
            (await server.connection).farewell = lambda: prebuilt("goodbye")
            stopping = asyncio.create_task(server.stop())

            assert await client.recv() == "goodbye"
            with pytest.raises(ConnectionClosed):
                await client.recv()

            assert client.close_code == 1012
            await stopping

    async def test_no_farewell_is_no_hindrance(self, server: Server) -> None:
        """An endpoint without last words is closed with 1012 all the same."""
        async with connect(server.url) as client:
            await server.connection
            stopping = asyncio.create_task(server.stop())
            with pytest.raises(ConnectionClosed):
                await client.recv()

            assert client.close_code == 1012
            await stopping
