"""A client that came and went leaves nothing for the cyclic collector, whichever way it went."""

from __future__ import annotations

import asyncio
import gc
import json
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest
from arena_client.wire import SUBPROTOCOL_JSON

from server.live.collector import Collector
from tests.support.arena import Bot, RunningServer, run_server
from tests.support.raw_http import Connection, connected, post
from tests.support.streams import until

Way = Callable[[RunningServer, Bot], Awaitable[None]]

ONES = 3
"""Clients that come and go in the same way."""
QUEUE = 16
"""Actions that may wait for a tick."""
PACKAGES = ("server.", "uvicorn.", "starlette.", "websockets.", "httptools.")
SOURCES = str(Path(__file__).parents[2] / "server")
GET = b"GET /api/info HTTP/1.1\r\nHost: a\r\n\r\n"
HANDSHAKE = (
    b"GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Protocol: %b\r\n\r\n"
)


async def kept_alive(arena: RunningServer, bot: Bot) -> None:
    """Three requests over one connection, which the client closes."""
    async with connected(arena.url) as connection:
        for _ in range(3):
            assert (await connection.ask(GET)).status == 200


async def refused(arena: RunningServer, bot: Bot) -> None:
    """Requests that end in exceptions."""
    async with connected(arena.url) as connection:
        assert (await connection.ask(b"GET /api/nothing HTTP/1.1\r\nHost: a\r\n\r\n")).status == 404
        assert (await connection.ask(post("/api/actions", b"{}"))).status == 401


async def acted(arena: RunningServer, bot: Bot) -> None:
    """Actions, the later ones at sight."""
    async with connected(arena.url) as connection:
        for i in range(3):
            action = {"client_action_id": str(i), "type": "set_sentiment", "sentiment": 0.5, "fear": 0.1, "greed": 0.1}
            body = json.dumps(action | {"confidence": 0.5}).encode()
            head = ("Content-Type: application/json", f"Authorization: Bearer {bot.api_key}")
            assert (await connection.ask(post(f"/api/agents/{bot.agent_id}/action", body, *head))).status == 202


async def full(arena: RunningServer, bot: Bot) -> None:
    """Actions and batches that find no room, at sight too."""
    async with connected(arena.url) as connection:
        head = ("Content-Type: application/json", f"Authorization: Bearer {bot.api_key}")
        action = {"type": "set_sentiment", "sentiment": 0.5, "fear": 0.1, "greed": 0.1, "confidence": 0.5}
        path, statuses = f"/api/agents/{bot.agent_id}/action", []
        for i in range(QUEUE + 3):
            body = json.dumps({"client_action_id": f"full-{arena.tick}-{i}"} | action).encode()
            statuses.append((await connection.ask(post(path, body, *head))).status)
        batch = [{"agent_id": bot.agent_id, "client_action_id": "f"} | action]
        for _ in range(3):
            body = json.dumps({"actions": batch}).encode()
            statuses.append((await connection.ask(post("/api/actions", body, *head))).status)
        assert statuses[-6:] == [429] * 6
    await arena.step()


async def impatient(arena: RunningServer, bot: Bot) -> None:
    """Requests one behind the other, and a reset instead of reading the answers."""
    async with connected(arena.url) as connection:
        connection.writer.write(GET * 5)
        await connection.answer()
        _reset(connection)


async def half(arena: RunningServer, bot: Bot) -> None:
    """The beginning of a request."""
    async with connected(arena.url) as connection:
        await connection.ask(GET)
        connection.writer.write(GET[:20])


async def nonsense(arena: RunningServer, bot: Bot) -> None:
    """What is no HTTP."""
    async with connected(arena.url) as connection:
        connection.writer.write(b"\x16\x03\x01\r\n\r\n")
        await connection.end()


async def subscribed(arena: RunningServer, bot: Bot) -> None:
    """A WebSocket that is closed in order."""
    async with _subscribed(arena) as connection:
        connection.writer.write(b"\x88\x82\0\0\0\0\x03\xe8")
        await connection.end()


async def subscribed_and_gone(arena: RunningServer, bot: Bot) -> None:
    """A WebSocket that ends without a close frame."""
    async with _subscribed(arena):
        pass


async def subscribed_and_reset(arena: RunningServer, bot: Bot) -> None:
    """A WebSocket that is reset."""
    async with _subscribed(arena) as connection:
        _reset(connection)


async def subscribed_and_wrong(arena: RunningServer, bot: Bot) -> None:
    """A WebSocket that sends a frame without a mask."""
    async with _subscribed(arena) as connection:
        connection.writer.write(b"\x81\x01a")
        await connection.end()


async def denied(arena: RunningServer, bot: Bot) -> None:
    """A handshake that the endpoint refuses."""
    async with connected(arena.url) as connection:
        assert (await connection.ask(HANDSHAKE % b"nobody's")).status == 400


async def no_handshake(arena: RunningServer, bot: Bot) -> None:
    """A handshake without a key."""
    async with connected(arena.url) as connection:
        request = b"GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
        assert (await connection.ask(request)).status == 400


async def streamed(arena: RunningServer, bot: Bot) -> None:
    """Server-sent events."""
    async with connected(arena.url) as connection:
        connection.writer.write(b"GET /api/stream?channels=market_tick HTTP/1.1\r\nHost: a\r\n\r\n")
        await connection.reader.readuntil(b"event: snapshot")


WAYS: tuple[Way, ...] = (
    kept_alive, refused, acted, full, impatient, half, nonsense, subscribed, subscribed_and_gone, subscribed_and_reset,
    subscribed_and_wrong, denied, no_handshake, streamed,
)  # fmt: skip


@pytest.mark.both_loops
async def test_a_client_that_came_and_went_leaves_no_cycle(tmp_path: Path) -> None:
    """Connections are set aside from the collector: what one leaves in a cycle would stay for good."""
    left: dict[str, list[str]] = {}

    async with run_server(tmp_path, queue_actions_max=QUEUE, rate_limit=1_000_000) as arena:
        bot = await arena.register()
        for way in WAYS:
            # the first one brings what is made once
            await _come_and_go(arena, bot, way)
            with _saved() as garbage:
                for _ in range(ONES):
                    await _come_and_go(arena, bot, way)
            if ours := [_name(one) for one in garbage if _is_ours(one)]:
                left[way.__name__] = ours

    assert left == {}


async def test_a_subscriber_that_was_set_aside_is_freed_when_it_goes(tmp_path: Path) -> None:
    """What is frozen and in no cycle is freed like anything else."""
    async with run_server(tmp_path) as arena:
        bot = await arena.register()
        await subscribed(arena, bot)
        await _nobody(arena)
        collector = Collector()
        collector.start()
        before = gc.get_freeze_count()

        async with _subscribed(arena):
            gc.freeze()
            held = gc.get_freeze_count() - before
        await _nobody(arena)
        left = gc.get_freeze_count() - before

        # the world's own ticks leave some twenty meanwhile; a subscriber is three times as many
        assert left < held / 2
        collector.stop()


@asynccontextmanager
async def _subscribed(arena: RunningServer) -> AsyncIterator[Connection]:
    async with connected(arena.url) as connection:
        connection.writer.write(HANDSHAKE % SUBPROTOCOL_JSON.encode())
        await connection.reader.readuntil(b"\r\n\r\n")
        text = b'{"op":"subscribe","id":"1","channel":"market_tick"}'
        connection.writer.write(bytes((0x81, 0x80 | len(text))) + bytes(4) + text)
        await connection.reader.readuntil(b'"snapshot"')
        yield connection


def _reset(connection: Connection) -> None:
    connected = connection.writer.get_extra_info("socket")
    connected.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


async def _come_and_go(arena: RunningServer, bot: Bot, way: Way) -> None:
    await way(arena, bot)
    await _nobody(arena)


async def _nobody(arena: RunningServer) -> None:
    """Return when the server has done with everybody."""
    state = arena.server.server_state
    await until(lambda: not state.connections and not state.tasks and not arena.hub.subscribers)
    # what was to run in the next turn has run
    for _ in range(3):
        await asyncio.sleep(0)


@contextmanager
def _saved() -> Iterator[list[Any]]:
    """Give what the collector finds during a block, instead of its being freed."""
    found: list[Any] = []
    gc.collect()
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        yield found
        gc.collect()
        found += gc.garbage
    finally:
        gc.set_debug(0)
        gc.garbage.clear()


def _is_ours(one: Any) -> bool:
    code = getattr(one, "f_code", None) or getattr(one, "cr_code", None) or getattr(one, "__code__", None)
    return type(one).__module__.startswith(PACKAGES) or (code is not None and code.co_filename.startswith(SOURCES))


def _name(one: Any) -> str:
    return getattr(one, "__qualname__", None) or type(one).__qualname__
