"""A request becomes one call, a call becomes one answer: what all routes share.

bind() joins the registry's operations with their handlers. Before a handler runs, its caller is known and within its
rate, its role is enough, and its parameters and headers are checked. LiveErrors become problems in one place here.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from server import bodies, schemas
from server.errors import CODE_TEXT, MEDIA_TYPE, Code, Conflict, NotFound, Problem, Unauthorized, Unavailable
from server.live.admission import Admission, Caller, invalid
from server.live.errors import (
    Frozen,
    Full,
    IdReused,
    JournalFailed,
    LiveError,
    OwnerFull,
    ReadOnly,
    ReceiptDamaged,
    ReceiptsFull,
    TickLate,
    WorldFull,
)
from server.middleware import EXCHANGE, Exchange
from server.registry import BY_NAME, Header, Operation, Role

JSON = bodies.JSON
FOREVER_S = 31_536_000
"""Max-age of what never changes: a year, the most that caches are asked for."""
PRIVATE = {"Cache-Control": "private, no-store"}


@dataclass(frozen=True, slots=True)
class Call:
    """A request that passed every check that needs no body. query: of the operation's model."""

    request: Request
    operation: Operation
    caller: Caller
    query: Any
    headers: Mapping[str, str]

    @property
    def path(self) -> dict[str, str]:
        """The values of the path's placeholders."""
        parameters: dict[str, str] = self.request.path_params
        return parameters

    async def body(self) -> Any:
        """Return the body as a plain value, read within the operation's limit. Raises Problem."""
        return self.decode(await self.read())

    async def read(self) -> bytes:
        """Return the body, read within the operation's limit. Raises Problem."""
        media = bodies.media_of(self.request.headers.get("content-type"))
        return await bodies.read(self.request, self.operation.body_limit(media))

    def decode(self, data: bytes) -> Any:
        """Return a body as a plain value. Raises Problem."""
        operation = self.operation
        if not data and operation.body_optional:
            return {}
        content_type = self.request.headers.get("content-type")
        return bodies.decode(data, content_type, operation.body_media, binary=operation.binary_bytes is not None)


Handler = Callable[[Call], Awaitable[Response]]
Endpoint = Callable[[Request], Awaitable[Response]]


def bind(handlers: Mapping[str, Handler], admission: Admission, *, operators: bool = False) -> list[Route]:
    """Return a route for every path of the registry: the public ones, or the operator's.

    Raises ValueError when handlers are missing or too many.
    """
    chosen = {name: operation for name, operation in BY_NAME.items() if operation.is_operators == operators}
    if handlers.keys() != chosen.keys():
        raise ValueError(f"operations without handler or handlers without: {sorted(handlers.keys() ^ chosen.keys())}")
    resources: dict[str, dict[str, Endpoint]] = {}
    for name, operation in chosen.items():
        endpoint = _endpoint(operation, handlers[name], admission)
        resources.setdefault(operation.path, {})[operation.method] = endpoint
    return [Route(path, Resource(path, endpoints)) for path, endpoints in resources.items()]


class Resource:
    """A path with its methods: one place answers for all of them, so that Allow is complete."""

    def __init__(self, path: str, endpoints: Mapping[str, Endpoint]) -> None:
        self.path = path
        self.endpoints = dict(endpoints)
        if "GET" in self.endpoints:
            # the server leaves the body of an answer to HEAD out
            self.endpoints["HEAD"] = self.endpoints["GET"]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request. Raises Problem 405 for a method the path does not have."""
        scope[EXCHANGE].route = self.path
        endpoint = self.endpoints.get(scope["method"])
        if endpoint is None:
            allowed = ", ".join(sorted(self.endpoints))
            detail = f"{scope['method'][:20]} is not taken here; allowed: {allowed}"
            raise Problem(Code.METHOD, detail, status=405, headers={"Allow": allowed})
        response = await endpoint(Request(scope, receive, send))
        await response(scope, receive, send)


def _endpoint(operation: Operation, handler: Handler, admission: Admission) -> Callable[[Request], Awaitable[Response]]:
    async def answer(request: Request) -> Response:
        exchange: Exchange = request.scope[EXCHANGE]
        caller = (
            admission.operator(request.headers)
            if operation.is_operators
            else admission.caller(request.headers, address_of(request), counted=operation.counted)
        )
        if caller.rate is not None:
            exchange.headers += _encoded(caller.rate.headers())
        if operation.role is Role.AGENT and caller.owner is None:
            raise Unauthorized(Code.KEY_MISSING, "an API key is needed: Authorization: Bearer ak_..., from registering")
        return await handler(call_of(request, operation, caller))

    return answer


def call_of(request: Request, operation: Operation, caller: Caller) -> Call:
    """Return a request as a call of an operation. Raises Problem for a wrong query or header."""
    return Call(request, operation, caller, _query(request, operation.query), _headers(request, operation.headers))


def address_of(request: Request) -> str:
    """Return the address a request came from, empty where there is none (a socket of the file system)."""
    return request.client.host if request.client is not None else ""


def json_response(body: bytes, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """Return a JSON answer."""
    return Response(body, status, headers, JSON)


def shared_response(
    call: Call, body: Callable[[], bytes], version: str, media: str = JSON, max_age: int = 0
) -> Response:
    """Return a public answer with an ETag, or 304 when the client has it. version: all that the body depends on.

    max_age: seconds it may be used without asking, 0: none; FOREVER_S says that it never changes.
    """
    role = Role.ANONYMOUS if call.caller.owner is None else Role.AGENT
    etag = f'"{version}-{role.value}-{media.rpartition("/")[2]}"'
    headers = {
        "ETag": etag,
        "Vary": "Accept, Authorization, X-API-Key",
        "Cache-Control": _caching(max_age),
    }
    if _matches(call.request.headers.get("if-none-match"), etag):
        return Response(status_code=304, headers=headers)
    return Response(body(), 200, headers, media)


def _caching(max_age: int) -> str:
    if not max_age:
        return "public, no-cache"
    return f"public, max-age={max_age}" + (", immutable" if max_age == FOREVER_S else "")


def problem_of(error: LiveError) -> Problem:
    """Return how an error of the live path is answered."""
    if isinstance(error, IdReused):
        return Conflict(Code.ID_REUSED, str(error))
    if isinstance(error, OwnerFull):
        return Conflict(Code.AGENTS_PER_OWNER, str(error))
    if isinstance(error, WorldFull):
        return Conflict(Code.AGENTS_FULL, str(error), temporary=True)
    if isinstance(error, Full):
        return Problem(Code.QUEUE_FULL, str(error), status=429, temporary=True, headers={"Retry-After": "1"})
    if isinstance(error, (ReadOnly, Frozen)):
        return Unavailable(Code.READ_ONLY, str(error), retry_after=30)
    if isinstance(error, TickLate):
        return Unavailable(Code.TICK_LATE, str(error), retry_after=5)
    if isinstance(error, ReceiptsFull):
        return Unavailable(Code.RECEIPTS_FULL, str(error), retry_after=10)
    if isinstance(error, ReceiptDamaged):
        return Unavailable(Code.RECEIPT_DAMAGED, CODE_TEXT[Code.RECEIPT_DAMAGED], retry_after=60)
    if isinstance(error, JournalFailed):
        return Problem(Code.UNKNOWN_FATE, f"{error}: it may or may not be applied; ask for the receipt", status=504)
    return Problem(Code.INTERNAL, "a mistake of ours", status=500)


async def answer_problem(request: Request, error: Exception) -> Response:
    """Answer a Problem."""
    assert isinstance(error, Problem)
    exchange: Exchange = request.scope[EXCHANGE]
    # the tick travels in the Arena-Tick header as well; the document is what people paste into reports
    body = error.document(request.url.path, exchange.request_id, exchange.tick())
    return Response(body, error.status, {"Cache-Control": "no-store", **error.headers}, MEDIA_TYPE)


async def answer_live_error(request: Request, error: Exception) -> Response:
    """Answer an error of the live path."""
    assert isinstance(error, LiveError)
    return await answer_problem(request, problem_of(error))


async def answer_http_exception(request: Request, error: Exception) -> Response:
    """Answer what routing refuses: paths that do not exist."""
    assert isinstance(error, HTTPException)
    if error.status_code == 404:
        return await answer_problem(request, NotFound(Code.UNKNOWN_PATH, "no such path; /docs lists them"))
    problem = Problem(Code.MALFORMED, error.detail, status=error.status_code, headers=error.headers)
    return await answer_problem(request, problem)


async def answer_disconnect(request: Request, error: Exception) -> Response:
    """Answer nobody: the client left while its body was being read."""
    return Response(status_code=499)


async def answer_failure(request: Request, error: Exception) -> Response:
    """Answer for a mistake of ours; the traceback goes to the log, not to the client."""
    response = await answer_problem(request, Problem(Code.INTERNAL, "a mistake of ours; it is in our log", status=500))
    # this answer is given outside of the envelope, which has let the failure through
    exchange: Exchange = request.scope[EXCHANGE]
    response.raw_headers += exchange.completion()
    return response


EXCEPTION_HANDLERS: dict[Any, Callable[[Request, Exception], Awaitable[Response]]] = {
    Problem: answer_problem,
    LiveError: answer_live_error,
    HTTPException: answer_http_exception,
    ClientDisconnect: answer_disconnect,
    Exception: answer_failure,
}


def _query(request: Request, model: type[schemas.Query]) -> Any:
    given: dict[str, str] = {}
    for name, value in request.query_params.multi_items():
        if name in given:
            raise invalid([{"field": name[:80], "problem": "given twice", "allowed": "once"}])
        given[name] = value
    try:
        return model.model_validate(given)
    except ValidationError as error:
        raise invalid(schemas.mistakes(error, model)) from None


def _headers(request: Request, wanted: tuple[Header, ...]) -> dict[str, str]:
    given: dict[str, str] = {}
    for header in wanted:
        value = request.headers.get(header.name)
        if value is None:
            continue
        if not re.fullmatch(header.pattern, value):
            raise invalid([{"field": header.name, "problem": "malformed", "allowed": header.text}])
        given[header.name] = value
    return given


def _matches(if_none_match: str | None, etag: str) -> bool:
    if if_none_match is None:
        return False
    tags = [tag.strip().removeprefix("W/") for tag in if_none_match.split(",")]
    return "*" in tags or etag in tags


def _encoded(headers: Mapping[str, str]) -> list[tuple[bytes, bytes]]:
    return [(name.lower().encode(), value.encode()) for name, value in headers.items()]
