"""The REST client against a real server that fails on cue: repetitions, receipts, errors, cached reads."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from decimal import Decimal
from typing import Any

import pytest
import uvicorn
from arena_client.backoff import Backoff
from arena_client.errors import (
    BadRequest,
    Conflict,
    NotFound,
    OutcomeUnknown,
    RateLimited,
    RequestError,
    ServerError,
    Unauthorized,
    Unreachable,
)
from arena_client.rest import ArenaClient, Credentials, Receipt
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from tests.support.deadlines import seconds

ME = Credentials("a7", "ak_secret")
FAST = Backoff(base_s=0.001, cap_s=0.01)
Fault = Callable[[Request, dict[str, Any]], Response | None]


class Server:
    """A server that keeps receipts as the real one does. faults: what befalls the next requests, oldest first.

    A fault gets the request and its body; it may answer in the server's place, before or after the work is done.
    """

    def __init__(self) -> None:
        self.url = ""
        self.faults: list[str] = []
        self.requests: list[tuple[str, str, dict[str, str], dict[str, Any]]] = []
        self.receipts: dict[str, dict[str, Any]] = {}
        self.documents: dict[str, dict[str, Any]] = {}
        self.registered: dict[str, int] = {}

    async def answer(self, request: Request) -> Response:
        """Take any request, with the next fault."""
        body = await request.json() if await request.body() else {}
        self.requests.append((request.method, request.url.path, dict(request.headers), body))
        fault = self.faults.pop(0) if self.faults else ""
        if fault.isdigit():
            return problem(int(fault), retry_after="0")
        response = self.work(request, body)
        if fault == "done, then 504":
            return problem(504)
        if fault == "done, then silence":
            await asyncio.Event().wait()
        if fault == "done, then cut":
            # half an answer: the length that was promised never comes
            response.headers["Content-Length"] = str(len(response.body) + 1)
        return response

    def work(self, request: Request, body: dict[str, Any]) -> Response:
        """Do what the request asks."""
        path = request.url.path
        if path == "/api/agents/register":
            number = self.registered.setdefault(request.headers["Idempotency-Key"], len(self.registered) + 1)
            return JSONResponse(
                {"agent_id": f"a{number}", "api_key": f"ak_{len(self.requests)}", "seq": 1, "tick": 1}, 201
            )
        if path.endswith("/action"):
            return self.accept(body, request.query_params.get("wait"))
        if path == "/api/actions":
            results = [self.result(i, item) for i, item in enumerate(body["actions"])]
            return JSONResponse({"tick": 5, "accepted": 1, "refused": 2, "results": results}, 202)
        if request.method == "DELETE":
            return Response(status_code=204)
        return self.read(request)

    def accept(self, body: dict[str, Any], wait: str | None) -> Response:
        known = self.receipts.get(body["client_action_id"])
        if known is not None:
            return JSONResponse({**known, "duplicate": True}, 202)
        receipt = {"client_action_id": body["client_action_id"], "status": "accepted", "seq": 100 + len(self.receipts)}
        receipt |= {"tick": None, "duplicate": False, "outcome": None}
        self.receipts[body["client_action_id"]] = receipt
        if wait == "outcome":
            refused = body.get("market") == "labour"
            receipt["tick"] = 5
            receipt["outcome"] = {
                "status": "rejected" if refused else "filled",
                "code": 201 if refused else 0,
                "filled": 3,
            }
            if refused:
                return problem(422, code=201, receipt=receipt)
            return JSONResponse(receipt)
        return JSONResponse(receipt, 202, {"Arena-Tick": "5"})

    def result(self, index: int, item: dict[str, Any]) -> dict[str, Any]:
        receipt = {"client_action_id": item["client_action_id"], "seq": index, "tick": 5, "duplicate": False}
        if item["type"] == "limit":
            return {"index": index, "status": 202, "receipt": {**receipt, "outcome": None}}
        if item["type"] == "market":
            outcome = {"status": "rejected", "code": 301}
            return {"index": index, "status": 422, "error": {"code": 301, "receipt": {**receipt, "outcome": outcome}}}
        return {"index": index, "status": 400, "error": {"code": 101, "title": "Bad Request", "detail": "no"}}

    def read(self, request: Request) -> Response:
        name = request.url.path.rsplit("/", 1)[-1]
        cursor = request.query_params.get("cursor")
        document = self.documents.get(f"{name} {cursor}" if cursor else name) or self.receipts.get(name)
        if document is None:
            return problem(404, code=115)
        etag = f'"{document.get("tick")}"'
        if request.headers.get("If-None-Match") == etag:
            return Response(status_code=304, headers={"ETag": etag})
        return JSONResponse(document, headers={"ETag": etag, "Arena-Tick": str(document.get("tick") or 0)})

    def sent(self, method: str = "POST") -> list[dict[str, Any]]:
        """The bodies of all requests of a method."""
        return [body for verb, _, _, body in self.requests if verb == method]


def problem(status: int, *, retry_after: str | None = None, **members: Any) -> Response:
    document = {"type": "/docs", "title": "Problem", "status": status, "detail": f"it is {status}", "code": 100}
    headers = {} if retry_after is None else {"Retry-After": retry_after}
    return JSONResponse({**document, **members}, status, headers, "application/problem+json")


@asynccontextmanager
async def run_server() -> AsyncIterator[Server]:
    """Run the server on a free port of this machine."""
    server = Server()
    methods = ["GET", "POST", "DELETE"]
    app = Starlette(routes=[Route("/{path:path}", server.answer, methods=methods)])
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        runner = uvicorn.Server(uvicorn.Config(app, log_config=None, lifespan="off", timeout_graceful_shutdown=0))
        task = asyncio.create_task(runner.serve(sockets=[listener]))
        try:
            async with asyncio.timeout(seconds(20)):
                yield server
        finally:
            runner.should_exit = True
            await task


@asynccontextmanager
async def serving(**options: Any) -> AsyncIterator[tuple[Server, ArenaClient]]:
    """A server and a client of it."""
    async with run_server() as server, ArenaClient(server.url, ME, **{"backoff": FAST, **options}) as client:
        yield server, client


async def test_an_action_gets_its_receipt() -> None:
    """With the key as a bearer token, an id of its own, and the newest tick taken from the header."""
    async with serving() as (server, arena):
        receipt = await arena.limit("food", "buy", 5, "1.25")

        [(method, path, headers, body)] = server.requests
        assert (method, path, headers["authorization"]) == ("POST", "/api/agents/a7/action", "Bearer ak_secret")
        assert body == {
            "client_action_id": receipt.client_action_id,
            "type": "limit",
            "market": "food",
            "side": "buy",
            "quantity": 5,
            "price": "1.25",
            "time_in_force": "gtc",
        }
        assert receipt == Receipt(receipt.client_action_id, 100, None, False, None)
        assert (receipt.order_id, arena.tick) == ("100", 5)


@pytest.mark.parametrize("fault", ["429", "502", "503", "504", "done, then 504", "done, then cut"])
async def test_a_failed_attempt_is_repeated_under_the_same_id(fault: str) -> None:
    """One effect, whatever happened on the way, and the receipt tells whether it had been accepted before."""
    async with serving() as (server, arena):
        server.faults = [fault, fault]

        receipt = await arena.limit("food", "buy", 5, "1.25")

        assert len(server.requests) == 3
        assert len({body["client_action_id"] for body in server.sent()}) == 1
        assert len({str(body) for body in server.sent()}) == 1
        assert len(server.receipts) == 1
        assert receipt.duplicate == fault.startswith("done")


async def test_a_timeout_is_repeated_under_the_same_id() -> None:
    """The answer was lost, the action was not, and it counts once."""
    async with serving(timeout_s=0.2) as (server, arena):
        server.faults = ["done, then silence"]

        receipt = await arena.market("food", "sell", 1)

        assert receipt.duplicate
        assert len(server.receipts) == 1


@pytest.mark.parametrize("faults", [["done, then 504"] * 3, ["504", "503", "503"], ["done, then cut", "429", "429"]])
async def test_one_unclear_attempt_makes_the_end_unclear(faults: list[str]) -> None:
    """A later "surely not applied" speaks of the later attempt only; the id says what to ask for."""
    async with serving(attempts=3) as (server, arena):
        server.faults = list(faults)

        with pytest.raises(OutcomeUnknown) as raised:
            await arena.act({"type": "cancel", "order_id": "5"}, client_action_id="mine")

        assert raised.value.client_action_id == "mine"
        assert len(server.requests) == 3


@pytest.mark.parametrize(("fault", "error"), [("429", RateLimited), ("503", ServerError)])
async def test_surely_not_applied_stays_what_it_is(fault: str, error: type[Exception]) -> None:
    """When every attempt was clearly refused, so is the action."""
    async with serving(attempts=3) as (server, arena):
        server.faults = [fault] * 3

        with pytest.raises(error):
            await arena.cancel("5")

        assert server.receipts == {}


async def test_a_server_that_asks_for_a_long_wait_gets_no_second_attempt() -> None:
    """The caller is told how long instead."""
    async with run_server() as server, ArenaClient(server.url, ME, retry_after_max_s=30.0) as arena:
        server.work = lambda request, body: problem(429, retry_after="31")  # type: ignore[method-assign]  # a server full for long

        with pytest.raises(RateLimited) as raised:
            await arena.cancel("5")

        assert (raised.value.retry_after, len(server.requests)) == (31.0, 1)


async def test_retry_after_is_waited_for() -> None:
    """The second attempt does not come before the server wants it."""
    loop = asyncio.get_running_loop()
    async with run_server() as server, ArenaClient(server.url, ME, backoff=FAST) as arena:
        work, times = server.work, []

        def busy_first(request: Request, body: dict[str, Any]) -> Response:
            times.append(loop.time())
            return problem(503, retry_after="1") if len(times) == 1 else work(request, body)

        server.work = busy_first  # type: ignore[method-assign]  # a server that is busy at first

        await arena.cancel("5")

        assert times[1] - times[0] >= 0.99


async def test_a_server_that_is_not_there_is_unreachable() -> None:
    """Nothing was sent, so nothing is unclear, not even for an action."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"
        async with ArenaClient(url, ME, attempts=2, backoff=FAST) as arena:
            with pytest.raises(Unreachable):
                await arena.cancel("5")
            with pytest.raises(Unreachable):
                await arena.indicators()


async def test_a_read_without_an_answer_is_unreachable() -> None:
    """Reads change nothing, so there is nothing unclear about them."""
    async with serving(attempts=2) as (server, arena):
        server.documents["time"] = {"tick": 5}
        server.faults = ["done, then cut", "done, then cut"]

        with pytest.raises(Unreachable):
            await arena.time()


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (400, BadRequest),
        (401, Unauthorized),
        (403, Unauthorized),
        (404, NotFound),
        (409, Conflict),
        (413, BadRequest),
        (422, BadRequest),
        (500, ServerError),
    ],
)
async def test_problems_are_typed_and_not_repeated(status: int, error: type[Exception]) -> None:
    """The whole document comes with the error."""
    async with serving() as (server, arena):
        server.faults = [str(status)]

        with pytest.raises(error, match=f"{status} Problem: it is {status}") as raised:
            await arena.cancel("5")

        assert len(server.requests) == 1
        assert raised.value.document["code"] == 100  # type: ignore[attr-defined]  # all of them are ProblemErrors


async def test_an_answer_that_is_no_document_is_an_error() -> None:
    """A page of some proxy is not mistaken for an answer."""
    async with serving() as (server, arena):
        server.work = lambda request, body: Response("<html>hello</html>")  # type: ignore[method-assign]  # a proxy

        with pytest.raises(RequestError, match="did not answer with a JSON object"):
            await arena.indicators()


async def test_waiting_brings_the_outcome() -> None:
    """Filled or refused by the world, both are values."""
    async with serving() as (_, arena):
        done = await arena.market("food", "buy", 3, wait=True)
        refused = await arena.market("labour", "sell", 3, wait=True)

        assert done.outcome is not None
        assert refused.outcome is not None
        assert (done.outcome.status, done.outcome.filled, done.tick) == ("filled", 3, 5)
        assert (refused.outcome.is_rejected, refused.outcome.code) == (True, 201)


async def test_an_outcome_can_be_waited_for_later() -> None:
    """The receipt is asked for until the tick has decided."""
    async with serving() as (server, arena):
        receipt = await arena.cancel("5")
        read = server.read

        def decide_on_third_look(request: Request) -> Response:
            if len(server.requests) == 4:
                server.receipts[receipt.client_action_id] |= {"tick": 6, "outcome": {"status": "cancelled", "code": 0}}
            return read(request)

        server.read = decide_on_third_look  # type: ignore[method-assign]  # a world that ticks

        decided = await arena.outcome(receipt.client_action_id, timeout_s=seconds(5))

        assert decided.outcome is not None
        assert (decided.outcome.status, decided.tick, len(server.requests)) == ("cancelled", 6, 4)


async def test_an_outcome_that_never_comes_times_out() -> None:
    """After the time that was given, not before, not never."""
    async with serving() as (_, arena):
        receipt = await arena.cancel("5")

        with pytest.raises(TimeoutError):
            await arena.outcome(receipt.client_action_id, timeout_s=0.1)


async def test_every_action_has_its_shape() -> None:
    """Amounts become decimal strings without exponent, options are left out when not given."""
    async with serving() as (server, arena):
        await arena.limit("food", "sell", 1, Decimal("1E+1"), time_in_force="gtt", expires_tick=9, valid_until_tick=8)
        await arena.market("oil", "buy", 2)
        await arena.replace("5", 3, 1.25, side="buy")
        await arena.replace("5", 3, 2)
        await arena.borrow(Decimal("0.000001"))
        await arena.repay("10.5")
        await arena.produce("food", 4)
        await arena.consume("food", 1)
        await arena.set_sentiment(0.5, 0.25, 0.75, 1.0)
        await arena.cancel_all()
        await arena.cancel_all("food")
        await arena.cancel_after(50)

        shapes = [{key: value for key, value in body.items() if key != "client_action_id"} for body in server.sent()]
        assert shapes == [
            {"type": "limit", "market": "food", "side": "sell", "quantity": 1, "price": "10", "time_in_force": "gtt"}
            | {"expires_tick": 9, "valid_until_tick": 8},
            {"type": "market", "market": "oil", "side": "buy", "quantity": 2},
            {"type": "replace", "order_id": "5", "quantity": 3, "price": "1.250000", "side": "buy"},
            {"type": "replace", "order_id": "5", "quantity": 3, "price": "2"},
            {"type": "borrow", "amount": "0.000001"},
            {"type": "repay", "amount": "10.5"},
            {"type": "produce", "market": "food", "quantity": 4},
            {"type": "consume", "market": "food", "quantity": 1},
            {"type": "set_sentiment", "sentiment": 0.5, "fear": 0.25, "greed": 0.75, "confidence": 1.0},
            {"type": "cancel_all"},
            {"type": "cancel_all", "market": "food"},
            {"type": "cancel_after", "ticks": 50},
        ]
        assert len({body["client_action_id"] for body in server.sent()}) == len(shapes)


async def test_a_batch_gives_one_result_an_action() -> None:
    """A receipt, a receipt of what the world refused, an error: in the order of the actions."""
    async with serving() as (server, arena):
        taken, refused, wrong = await arena.batch(
            [{"type": "limit", "client_action_id": "mine"}, {"type": "market"}, {"type": "dance", "agent_id": "a9"}]
        )

        [body] = server.sent()
        assert [item["agent_id"] for item in body["actions"]] == ["a7", "a7", "a9"]
        assert isinstance(taken, Receipt)
        assert (taken.client_action_id, taken.outcome) == ("mine", None)
        assert isinstance(refused, Receipt)
        assert refused.outcome is not None
        assert refused.outcome.code == 301
        assert isinstance(wrong, BadRequest)
        assert wrong.code == 101


@pytest.mark.parametrize("count", [0, 1001])
async def test_a_batch_has_bounds(count: int) -> None:
    """Said before anything is sent."""
    async with ArenaClient("http://127.0.0.1:1", ME) as arena:
        with pytest.raises(ValueError, match=f"1 to 1000 actions, got {count}"):
            await arena.batch([{"type": "limit"}] * count)


async def test_registering_is_safe_to_repeat() -> None:
    """A lost answer does not make a second agent; the client acts as the new one from then on."""
    async with run_server() as server, ArenaClient(server.url, backoff=FAST) as arena:
        server.faults = ["done, then 504"]

        me = await arena.register()
        await arena.cancel("5")

        assert len(server.registered) == 1
        assert me == arena.credentials == Credentials("a1", "ak_2")
        assert server.requests[0][2].get("authorization") is None
        assert server.requests[-1][1] == "/api/agents/a1/action"


async def test_the_key_does_not_show() -> None:
    """Neither credentials nor a client print it."""
    assert "ak_secret" not in repr(ME)
    async with ArenaClient("http://127.0.0.1:1", ME) as arena:
        assert "ak_secret" not in repr(arena)


async def test_acting_needs_an_agent() -> None:
    """The error says how to get one."""
    async with ArenaClient("http://127.0.0.1:1") as arena:
        with pytest.raises(RequestError, match="register"):
            await arena.cancel("5")


async def test_leaving_has_no_document() -> None:
    """204 is success; leaving an agent that is not there is an error."""
    async with serving() as (server, arena):
        await arena.unregister()
        server.faults = ["404"]

        with pytest.raises(NotFound):
            await arena.unregister()


async def test_an_unchanged_document_does_not_travel_again() -> None:
    """The ETag is sent, 304 gives the document of before, and a new one replaces it."""
    async with serving() as (server, arena):
        server.documents["indicators"] = {"tick": 5, "values": {"cpi": 1.0}}

        first, second = await arena.indicators(), await arena.indicators()
        server.documents["indicators"] = {"tick": 6, "values": {"cpi": 1.1}}
        third = await arena.indicators()

        assert [headers.get("if-none-match") for _, _, headers, _ in server.requests] == [None, '"5"', '"5"']
        assert first is second
        assert third["values"]["cpi"] == 1.1


async def test_lists_are_read_to_their_end() -> None:
    """Page after page by cursor."""
    async with serving() as (server, arena):
        server.documents = {
            "markets": {"tick": 5, "markets": [{"id": 0}], "next_cursor": "1"},
            "markets 1": {"tick": 5, "markets": [{"id": 1}], "next_cursor": None},
            "cpi": {"tick": 5, "rows": [[1, 1.0]], "next_cursor": "2"},
            "cpi 2": {"tick": 5, "rows": [[2, 1.1]], "next_cursor": None},
            "events": {"tick": 5, "events": [{"id": 1}], "next_cursor": "1"},
            "events 1": {"tick": 5, "events": [], "next_cursor": "1"},
        }

        assert [row["id"] for row in await arena.markets()] == [0, 1]
        assert await arena.history("cpi", from_tick=1, step=1) == [[1, 1.0], [2, 1.1]]
        assert [event["id"] async for event in arena.events("discovery_event", newest_first=True)] == [1]


@pytest.mark.parametrize("name", ["psychology", "monetary", "scarcity", "info", "time", "status"])
async def test_documents_are_read_from_their_paths(name: str) -> None:
    """Each read has a path of the same name."""
    async with serving() as (server, arena):
        server.documents[name] = {"tick": 5, "name": name}

        assert (await getattr(arena, name)())["name"] == name
        assert server.requests[0][1] == f"/api/{name}"


async def test_one_market_and_the_own_agent_are_read_by_name() -> None:
    """By the market's name and the agent's id."""
    async with serving() as (server, arena):
        server.documents = {"food": {"tick": 5, "id": 9}, "a7": {"tick": 5, "cash": "1000.000000"}}

        assert (await arena.market_detail("food"))["id"] == 9
        assert (await arena.agent())["cash"] == "1000.000000"


async def test_checking_changes_nothing() -> None:
    """The action goes with validate=true and its verdict comes back."""
    async with serving() as (server, arena):
        server.work = lambda request, body: JSONResponse({"valid": request.query_params["validate"] == "true"})  # type: ignore[method-assign]  # a verdict

        assert await arena.check({"type": "cancel", "order_id": "5"}) == {"valid": True}
