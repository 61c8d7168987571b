"""Our uvicorn protocol: what it leans on exists, several frames leave in one write, and it says goodbye."""

from __future__ import annotations

import asyncio
import inspect
import socket

import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket
from uvicorn.protocols.utils import ClientDisconnected
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from server.protocols import EXTENSION, ArenaWebSocketProtocol, prebuilt, websocket_options
from tests.support.deadlines import seconds


class Server:
    """A server whose one endpoint hands its connection to the test and waits until it is told to end."""

    def __init__(self) -> None:
        app = Starlette(routes=[WebSocketRoute("/ws", self._endpoint)])
        self._server = uvicorn.Server(uvicorn.Config(app, log_config=None, lifespan="off", **websocket_options()))
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"ws://127.0.0.1:{self._listener.getsockname()[1]}/ws"
        self.connection: asyncio.Future[ArenaWebSocketProtocol] = asyncio.get_running_loop().create_future()
        self.ended = asyncio.Event()
        self._serving = asyncio.create_task(self._server.serve([self._listener]))

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
