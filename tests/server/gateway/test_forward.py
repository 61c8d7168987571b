"""A request handed on: what the engine sees of it, and the status that is true whatever becomes of it."""

from __future__ import annotations

from typing import Any

import pytest
from starlette.requests import Request

from loadtest.process import free_port
from server.errors import Code, Problem
from server.gateway.forward import Forwarder
from server.gateway.upstream import Upstream
from server.metrics import Metrics
from server.middleware import EXCHANGE, Exchange
from tests.support.deadlines import seconds
from tests.support.http_peer import OK, Peer, answering, forever, serving

SECRET = "what-only-gateways-know"


class Station:
    """A forwarder to a port."""

    def __init__(self, port: int) -> None:
        self.metrics = Metrics(is_gateway=True)
        self.upstream = Upstream(("127.0.0.1", port), 4, self.metrics, limit_s=seconds(5))
        self.forwarder = Forwarder(self.upstream, SECRET, self.metrics)

    def count(self, result: str) -> float:
        """Return how many requests ended so."""
        return self.metrics.registry.get_sample_value("arena_gateway_forwarded_total", {"result": result}) or 0.0

    async def problem(self, method: str) -> Problem:
        """Return what a request is answered that cannot be handed on."""
        with pytest.raises(Problem) as raised:
            await self.forwarder.ask(request(method), b"{}")
        return raised.value


def request(method: str, *headers: tuple[bytes, bytes], query: bytes = b"", path: bytes = b"/api/x%20y") -> Request:
    """Return a request as a client sent it."""
    scope: dict[str, Any] = {
        "type": "http",
        "method": method,
        "path": path.decode(),
        "raw_path": path,
        "query_string": query,
        "headers": [(b"host", b"arena.example"), *headers],
        "client": ("203.0.113.7", 4711),
        EXCHANGE: Exchange("request-1", lambda: 3),
    }
    return Request(scope)


def seen(peer: Peer) -> tuple[bytes, dict[bytes, bytes], bytes]:
    """Return the first line, the headers and the body of the newest request a peer has read."""
    head, _, body = peer.requests[-1].partition(b"\r\n\r\n")
    first, *lines = head.split(b"\r\n")
    return first, dict(line.split(b": ", 1) for line in lines), body


async def test_the_engine_sees_the_request_and_where_its_client_is() -> None:
    """Path and query as they were written; the client's own proof and address are not believed."""
    async with serving(forever(OK)) as peer:
        station = Station(peer.port)
        await station.forwarder.ask(
            request(
                "POST",
                (b"authorization", b"Bearer ak_x"),
                (b"arena-client", b"10.0.0.1"),
                (b"arena-gateway", b"made-up-by-the-client"),
                (b"connection", b"keep-alive, x"),
                (b"transfer-encoding", b"chunked"),
                (b"expect", b"100-continue"),
                (b"content-length", b"99"),
                query=b"a=%2F&b",
            ),
            b"{}",
        )

        first, headers, body = seen(peer)
        assert first == b"POST /api/x%20y?a=%2F&b HTTP/1.1"
        assert body == b"{}"
        assert headers == {
            b"host": b"arena.example",
            b"authorization": b"Bearer ak_x",
            b"arena-gateway": SECRET.encode(),
            b"arena-client": b"203.0.113.7",
            b"x-request-id": b"request-1",
            b"content-length": b"2",
        }
        station.upstream.close()


async def test_the_answer_is_the_engines_with_its_tick() -> None:
    """Its headers but those of the way and those every answer gets here."""
    told = (
        b"HTTP/1.1 202 Accepted\r\nRetry-After: 3\r\nArena-Tick: 17\r\nX-Request-Id: x\r\nConnection: keep-alive\r\n"
        b"Content-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"
    )
    async with serving(forever(told)) as peer:
        station, asked = Station(peer.port), request("POST")

        response = station.forwarder.respond(asked, await station.forwarder.ask(asked))

        assert (response.status_code, response.body) == (202, b"{}")
        assert sorted(response.raw_headers) == [
            (b"content-length", b"2"), (b"content-type", b"application/json"), (b"retry-after", b"3")
        ]  # fmt: skip
        assert asked.scope[EXCHANGE].tick() == 17
        station.upstream.close()


@pytest.mark.parametrize("method", ["POST", "DELETE", "GET"])
async def test_nothing_sent_is_503(method: str) -> None:
    """Nobody listens: surely not applied."""
    station = Station(free_port())

    problem = await station.problem(method)

    assert (problem.status, problem.code, problem.temporary) == (503, Code.ENGINE_AWAY, True)
    assert station.count("unsent") == 1


@pytest.mark.parametrize("method", ["POST", "DELETE"])
async def test_an_input_without_an_answer_is_504_and_was_sent_once(method: str) -> None:
    """It may have been applied; nobody here sends it again."""
    async with serving(answering(b"")) as peer:
        station = Station(peer.port)

        problem = await station.problem(method)

        assert (problem.status, problem.code, problem.temporary) == (504, Code.UNKNOWN_FATE, False)
        assert (len(peer.requests), station.count("unknown")) == (1, 1)


async def test_a_read_without_an_answer_is_asked_again() -> None:
    """Once: it changes nothing. Then it is 503."""
    async with serving(answering(b"")) as peer:
        station = Station(peer.port)

        problem = await station.problem("GET")

        assert (problem.status, problem.code) == (503, Code.ENGINE_AWAY)
        assert len(peer.requests) == 2


async def test_head_is_asked_as_get() -> None:
    """An answer to HEAD names a length and has no body: nobody waits for one."""
    async with serving(forever(OK)) as peer:
        station = Station(peer.port)

        answer = await station.forwarder.ask(request("HEAD"))

        assert answer.body == b"ok"
        assert seen(peer)[0].startswith(b"GET ")
        station.upstream.close()
