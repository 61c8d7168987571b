"""Connections to the engine: an answer is whole or there is none, and what was not sent is known not to be."""

from __future__ import annotations

import asyncio
import gc
import weakref

import pytest

from server.gateway import upstream as module
from server.gateway.upstream import Answer, Unanswered, Unsent, Upstream
from server.metrics import Metrics
from tests.support.deadlines import seconds
from tests.support.gateways import until
from tests.support.http_peer import OK, Peer, Serve, answering, forever, serving


def pool(port: int, connections_max: int = 4, limit_s: float = 5.0) -> Upstream:
    """Return a pool of connections to a port."""
    return Upstream(("127.0.0.1", port), connections_max, Metrics(), limit_s=seconds(limit_s))


async def ask(upstream: Upstream, body: bytes = b"") -> Answer:
    """Send a request of no interest."""
    return await upstream.exchange(b"POST", b"/x?y=1", [(b"host", b"h")], body)


async def test_a_request_goes_as_it_was_given_and_the_answer_comes_back_whole() -> None:
    """Method, target, headers, body; status, headers in lower case, body."""
    async with serving(forever(b"HTTP/1.1 202 Accepted\r\nX-Y: z\r\nContent-Length: 3\r\n\r\nabc")) as peer:
        upstream = pool(peer.port)

        answer = await ask(upstream, b"body")

        assert answer == (202, [(b"x-y", b"z"), (b"content-length", b"3")], b"abc")
        assert peer.requests == [b"POST /x?y=1 HTTP/1.1\r\nhost: h\r\ncontent-length: 4\r\n\r\nbody"]
        upstream.close()


async def test_a_connection_is_used_again() -> None:
    """One after another on the same, as many at a time as requests are under way."""
    async with serving(forever(OK)) as peer:
        upstream = pool(peer.port)
        for _ in range(5):
            await ask(upstream)
        assert peer.connections == 1

        await asyncio.gather(*(ask(upstream) for _ in range(20)))

        assert 2 <= peer.connections <= 4
        upstream.close()


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\no\r\n1\r\nk\r\n0\r\n\r\n",
        b"HTTP/1.1 102 Processing\r\n\r\n" + OK,
    ],
)
async def test_every_way_of_answering_is_understood(answer: bytes) -> None:
    """Chunks, interim answers."""
    async with serving(forever(answer)) as peer:
        upstream = pool(peer.port)

        assert (await ask(upstream)).body == b"ok"
        assert (await ask(upstream)).status == 200
        upstream.close()


async def test_nobody_there_is_unsent() -> None:
    """A connection that is refused has carried nothing."""
    async with serving(forever(OK)) as peer:
        port = peer.port

    with pytest.raises(Unsent, match="no connection to the engine"):
        await ask(pool(port))


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 2",
        b"HTTP/1.1 202 Accepted\r\ncontent-length: 10\r\n",
        b"HTTP/1.1 202 Accepted\r\ncontent-length: 10\r\n\r\n",
        b"HTTP/1.1 202 Accepted\r\ncontent-length: 10\r\n\r\n123456789",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nabcde\r\n",
        b"SSH-2.0-x\r\n\r\n",
    ],
)
async def test_an_answer_cut_anywhere_is_none(answer: bytes) -> None:
    """Whatever part of it came: the request was sent, and nobody knows what became of it."""
    async with serving(answering(answer)) as peer:
        upstream = pool(peer.port)
        with pytest.raises(Unanswered):
            await ask(upstream)
        await until(lambda: not upstream._open)
        assert len(peer.requests) == 1


async def test_a_used_connection_that_is_closed_without_an_answer_leaves_it_open() -> None:
    """It was written to: the request is not sent a second time, and is not said to be unsent."""
    async with serving(answering(OK, b"")) as peer:
        upstream = pool(peer.port)
        await ask(upstream)

        with pytest.raises(Unanswered):
            await ask(upstream)

        assert len(peer.requests) == 2
        assert peer.connections == 1


async def test_a_connection_known_to_be_closed_is_not_used() -> None:
    """Nothing was written on it, so another one is taken."""
    async with serving(answering(OK)) as peer:
        upstream = pool(peer.port)
        await ask(upstream)
        await until(lambda: not upstream._open)

        assert (await ask(upstream)).status == 200
        assert peer.connections == 2
        upstream.close()
        await until(lambda: not upstream._open)


async def test_a_connection_the_engine_wants_closed_is_not_used_again() -> None:
    """It says so in its answer."""
    closing = b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok"
    async with serving(forever(closing)) as peer:
        upstream = pool(peer.port)
        await ask(upstream)
        await ask(upstream)

        assert peer.connections == 2


async def test_one_kept_for_long_is_not_used_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """The engine closes its own after a while: a request must not meet that moment."""
    monkeypatch.setattr(module, "IDLE_S", 0.0)
    async with serving(forever(OK)) as peer:
        upstream = pool(peer.port)
        await ask(upstream)
        await ask(upstream)

        assert peer.connections == 2
        upstream.close()


async def test_no_answer_in_time_is_unanswered_and_the_connection_goes() -> None:
    """A late answer must not be taken for that of the next request."""

    def silent(peer: Peer) -> Serve:
        async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await peer.read(reader)
            await asyncio.Event().wait()

        return handle

    async with serving(silent) as peer:
        upstream = pool(peer.port, limit_s=0.05)

        with pytest.raises(Unanswered, match="in time"):
            await ask(upstream)

        await until(lambda: not upstream._open)


async def test_what_finds_no_connection_free_is_unsent(monkeypatch: pytest.MonkeyPatch) -> None:
    """It waits a while, and so do only so many: nothing of them was sent."""
    monkeypatch.setattr(module, "WAIT_S", seconds(0.2))
    release = asyncio.Event()

    def holding(peer: Peer) -> Serve:
        async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await peer.read(reader)
            await release.wait()
            writer.write(OK)

        return handle

    async with serving(holding) as peer:
        upstream = pool(peer.port, connections_max=1)
        first = asyncio.create_task(ask(upstream))
        await until(lambda: peer.requests)

        crowd = await asyncio.gather(*(ask(upstream) for _ in range(7)), return_exceptions=True)

        assert [type(one) for one in crowd] == [Unsent] * 7
        assert len({str(one) for one in crowd}) == 2
        release.set()
        assert (await first).status == 200
        assert len(peer.requests) == 1
        upstream.close()


async def test_whoever_stops_waiting_leaves_nothing_behind() -> None:
    """A cancelled request's answer is nobody's: its connection is not used again."""
    release = asyncio.Event()

    def holding(peer: Peer) -> Serve:
        async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await peer.read(reader)
            await release.wait()
            writer.write(OK.replace(b"ok", b"no"))
            await peer.read(reader)
            writer.write(OK)

        return handle

    async with serving(holding) as peer:
        upstream = pool(peer.port)
        left = asyncio.create_task(ask(upstream))
        await until(lambda: peer.requests)
        left.cancel()
        await asyncio.gather(left, return_exceptions=True)
        release.set()

        assert (await ask(upstream)).body == b"no"
        assert peer.connections == 2
        upstream.close()


async def test_unasked_bytes_end_a_connection() -> None:
    """Two answers to one request: neither is trusted further."""
    async with serving(forever(OK + OK)) as peer:
        upstream = pool(peer.port)
        await ask(upstream)
        await until(lambda: not upstream._open)

        assert (await ask(upstream)).status == 200
        assert peer.connections == 2
        upstream.close()


async def test_a_lost_connection_leaves_no_cycle() -> None:
    """A gateway sets aside from the collector what stays: what one leaves in a cycle, its last answer too, is kept."""
    async with serving(answering(OK)) as peer:
        upstream = pool(peer.port)
        await ask(upstream)
        gc.disable()
        try:
            lost = [weakref.ref(connection) for connection in upstream._open]
            upstream.close()
            await until(lambda: not upstream._open and lost[0]() is None, 10.0)
        finally:
            gc.enable()
