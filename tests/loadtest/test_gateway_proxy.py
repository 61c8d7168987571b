"""What stands between a gateway and its engine lets go of everything it took."""

from __future__ import annotations

import asyncio
import random
import socket
from contextlib import suppress
from pathlib import Path

import pytest

from loadtest.gateways.proxy import Proxy
from tests.support.live import soon


@pytest.mark.parametrize("turns", range(6))
async def test_a_connection_of_any_age_ends_with_it(turns: int, tmp_path: Path) -> None:
    """Also one that the system has accepted and nobody has looked at; turns: of the loop since it was made."""
    silent = await asyncio.start_server(lambda _, writer: writer.transport.abort(), "127.0.0.1", 0)
    proxy = Proxy(silent.sockets[0].getsockname()[1], tmp_path, random.Random(1))
    proxy.open()
    with socket.create_connection(("127.0.0.1", proxy.port)) as connection:
        connection.setblocking(False)
        for _ in range(turns):
            await asyncio.sleep(0)

        await proxy.close()

        with suppress(ConnectionResetError):
            assert await soon(asyncio.get_running_loop().sock_recv(connection, 1)) == b""
    silent.close()
    await silent.wait_closed()
