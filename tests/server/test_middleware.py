"""What every request passes: its name, the tick, the gate."""

from __future__ import annotations

from typing import Any

import httpx2
import orjson
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.routing import Mount
from starlette.types import Message, Receive, Scope, Send

from server.clock import ManualClock
from server.errors import Code
from server.metrics import Metrics
from server.middleware import EXCHANGE, Envelope, Gate
from server.routes import EXCEPTION_HANDLERS


async def hello(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer 200, as an application behind the middleware."""
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
    await send({"type": "http.response.body", "body": b"hello"})


async def call(
    app: Any, path: str = "/x", kind: str = "http", method: str = "GET", **headers: str
) -> tuple[Any, dict[str, str], bytes]:
    """Send a request through and return status, headers and body."""
    sent: list[Message] = []
    scope = {
        "type": kind,
        "method": method,
        "path": path,
        "headers": [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()],
        "extensions": {"websocket.http.response": {}},
    }

    async def receive() -> Message:
        return {"type": "websocket.connect"}

    async def send(message: Message) -> None:
        sent.append(message)

    await app(scope, receive, send)
    given = {name.decode(): value.decode() for name, value in sent[0].get("headers", [])}
    return sent[0].get("status"), given, sent[-1].get("body", b"")


def envelope(app: Any = hello, tick: int | None = 7) -> tuple[Envelope, Metrics]:
    """Return an application in its envelope."""
    metrics = Metrics()
    return Envelope(app, metrics=metrics, clock=ManualClock(), tick=lambda: tick), metrics


async def test_an_answer_carries_a_name_and_the_tick() -> None:
    """X-Request-Id of ours when none was given."""
    status, headers, _ = await call(envelope()[0])

    assert status == 200
    assert len(headers["x-request-id"]) == 16
    assert headers["arena-tick"] == "7"
    assert headers["x-content-type-options"] == "nosniff"


async def test_a_decent_name_is_kept_and_any_other_replaced() -> None:
    """What goes into logs and headers must not bring line breaks or markup along."""
    app, _ = envelope()

    assert (await call(app, x_request_id="my-request.1"))[1]["x-request-id"] == "my-request.1"
    for wrong in ("", "a b", "x" * 65, "<b>", "ä"):
        assert (await call(app, x_request_id=wrong))[1]["x-request-id"] != wrong


async def test_before_the_world_is_open_there_is_no_tick() -> None:
    """A header that says nothing is left out."""
    assert "arena-tick" not in (await call(envelope(tick=None)[0]))[1]


async def test_requests_are_counted_by_route_and_status() -> None:
    """By the pattern of the route, not by the path: labels must stay few."""

    async def routed(scope: Scope, receive: Receive, send: Send) -> None:
        scope[EXCHANGE].route = "/api/markets/{id}"
        await hello(scope, receive, send)

    app, metrics = envelope(routed)
    for path in ("/api/markets/food", "/api/markets/oil"):
        await call(app, path)

    count = metrics.registry.get_sample_value(
        "arena_http_requests_total", {"method": "GET", "route": "/api/markets/{id}", "status": "200"}
    )
    assert count == 2


async def test_a_mistake_of_ours_is_500_with_its_name_and_without_its_text() -> None:
    """The client gets a request id to ask with; what went wrong is in the log."""

    async def broken(scope: Scope, receive: Receive, send: Send) -> None:
        raise ValueError("the secret of the house")

    metrics = Metrics()
    app = Starlette(
        routes=[Mount("/", broken)],
        middleware=[Middleware(Envelope, metrics=metrics, clock=ManualClock(), tick=lambda: 7)],
        exception_handlers=EXCEPTION_HANDLERS,
    )
    transport = httpx2.ASGITransport(app=app, raise_app_exceptions=False)
    async with httpx2.AsyncClient(transport=transport, base_url="http://arena") as client:
        response = await client.get("/x", headers={"X-Request-Id": "mine"})

    assert (response.status_code, response.json()["code"], response.json()["request_id"]) == (500, 500, "mine")
    assert (response.headers["x-request-id"], response.headers["arena-tick"]) == ("mine", "7")
    assert "secret" not in response.text
    labels = {"method": "GET", "route": "unknown", "status": "500"}
    assert metrics.registry.get_sample_value("arena_http_requests_total", labels) == 1


async def test_odd_methods_do_not_make_labels() -> None:
    """Whoever sends a thousand invented methods makes one label."""
    app, metrics = envelope()

    for number in range(5):
        await call(app, method=f"X{number}")

    assert (
        metrics.registry.get_sample_value(
            "arena_http_requests_total", {"method": "other", "route": "unknown", "status": "200"}
        )
        == 5
    )


def gate(code: Code | None) -> Envelope:
    """Return an application behind a gate."""
    return envelope(Gate(hello, alive=frozenset({"/healthz"}), shut=lambda: code))[0]


async def test_a_shut_gate_answers_503_and_says_when_to_come_back() -> None:
    """With the reason: opening or stopping."""
    status, headers, body = await call(gate(Code.STARTING))

    assert (status, headers["retry-after"], headers["content-type"]) == (503, "1", "application/problem+json")
    assert (orjson.loads(body)["code"], orjson.loads(body)["temporary"]) == (501, True)
    assert orjson.loads(body)["request_id"] == headers["x-request-id"]
    assert orjson.loads((await call(gate(Code.STOPPING)))[2])["code"] == 503


async def test_a_shut_gate_still_says_that_the_process_lives() -> None:
    """Whoever restarts what does not live must not restart what is opening."""
    status, _, body = await call(gate(Code.STARTING), "/healthz")

    assert (status, body) == (200, b'{"status":"ok"}')


async def test_a_shut_gate_refuses_handshakes_with_503() -> None:
    """As an HTTP answer, so that clients read the reason."""
    status, headers, body = await call(gate(Code.STARTING), "/ws", "websocket")

    assert (status, headers["retry-after"]) == (503, "1")
    assert orjson.loads(body)["code"] == 501
    assert orjson.loads(body)["request_id"] == headers["x-request-id"]


async def test_a_socket_that_is_not_refused_is_no_request() -> None:
    """However long it lasts, it is counted as a socket, and its messages pass unchanged."""

    async def accepting(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "websocket.accept"})

    app, metrics = envelope(accepting)

    assert (await call(app, "/ws", "websocket"))[:2] == (None, {})
    assert b"arena_http_requests_total{" not in (await metrics.expose(None))[0]


async def test_an_open_gate_lets_everything_through() -> None:
    """And the lifespan at any time."""
    assert (await call(gate(None)))[2] == b"hello"
    assert (await call(gate(Code.STARTING), kind="lifespan"))[2] == b"hello"
