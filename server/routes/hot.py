"""The hot path of one action: POST /api/agents/{id}/action without routing, models, or a task of its own.

And of what there is no room for: POST /api/actions is refused as soon as its head is there.

HotAction answers what it can take at sight: a known key within its rate, an own agent, a JSON body that the quick check
takes. To everything else it says no before anything has happened, and the ordinary route answers. It is asked

* by HotRoute, beside the routes and behind the middleware, under any ASGI server;
* by our own HTTP protocol, before any of that, for a request that begins with the same bytes as one which HotRoute
  answered on the same connection: all layers have seen those bytes and let them pass. A bot's client library sends the
  same head again and again.

Source: DESIGN D2, D24.
"""

from __future__ import annotations

import asyncio
import re
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import orjson
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from server import keys
from server.bodies import JSON, MSGPACK
from server.clock import Clock
from server.errors import MEDIA_TYPE, Problem, Unauthorized
from server.live.admission import Admission, Rate, api_key
from server.live.errors import LiveError
from server.live.recorder import Recorder, Submitted
from server.live.view import Published
from server.metrics import Metrics
from server.middleware import EXCHANGE, Exchange, Tally
from server.protocols import HOT_HEAD
from server.registry import BY_NAME, Operation
from server.routes import problem_of

OPERATION, BATCH = BY_NAME["act"], BY_NAME["act_batch"]
_BATCH_PATH = BATCH.path.encode()
_BEGIN, _END = OPERATION.path.split("{id}")
_PATH = re.compile(f"{re.escape(_BEGIN)}a([1-9][0-9]{{0,15}}){re.escape(_END)}")
_LINE = re.compile(f"POST {_PATH.pattern} HTTP/1\\.1\r\n".encode())
_LENGTH = re.compile(rb"\r\ncontent-length: ?([0-9]{1,6})\r\n", re.IGNORECASE)
_JSON, _MSGPACK = JSON.encode(), MSGPACK.encode()
_DIGITS = re.compile(rb"[0-9]{1,6}")
_HOST = re.compile(rb"[A-Za-z0-9._:\[\]-]*")
#: Headers that change nothing of how an action is answered; so does every other x- header.
_INDIFFERENT = frozenset(
    {b"user-agent", b"accept", b"accept-encoding", b"accept-language", b"cache-control", b"pragma", b"priority"}
    | {b"traceparent", b"tracestate", b"baggage", b"forwarded", b"via"}
)

Answer = Callable[[int, bytes, bytes], None]
"""Takes an answer: its status, the lines of its head each with its line end, its body."""


class Head(NamedTuple):
    """What the headers of a request say that matters here. is_named: whether it brings a name of its own."""

    key_hash: bytes
    content_length: int
    is_named: bool


class Likeness(NamedTuple):
    """The bytes of a request's head behind its first line, without the digits of its Content-Length."""

    key_hash: bytes
    before_length: bytes
    after_length: bytes


class HotAction:
    """Takes actions at sight."""

    def __init__(
        self, admission: Admission, recorder: Recorder, published: Published, metrics: Metrics, clock: Clock
    ) -> None:
        self._admission = admission
        self._recorder = recorder
        self._published = published
        self._clock = clock
        self._tally = Tally(metrics)
        self._leaving: list[Callable[[], None]] = []
        """Answers of this turn of the event loop."""

    def begin(self, key_hash: bytes, agent: int, body: bytes, request_id: str, answer: Answer) -> bool:
        """Take an action, to be answered once it is durable; False when the ordinary route has to be asked.

        After False nothing has happened. answer: called once, at once or later; its lines are those the handler and
        the exceptions of the ordinary route give.
        """
        sighted = self._admission.at_sight(key_hash, agent, body)
        if sighted is None:
            return False
        rate, result = sighted
        if not isinstance(result, Submitted):
            self._refuse(agent, request_id, answer, rate, result)
            return True

        def finish(error: Exception | None) -> None:
            if isinstance(error, LiveError):
                self._refuse(agent, request_id, answer, rate, error)
            else:
                assert error is None
                _accept(result, rate, answer)

        self._recorder.journal.when_durable(result.receipt.seq, finish)
        return True

    def refuse(self, path: bytes, headers: list[tuple[bytes, bytes]]) -> tuple[int, bytes, bytes] | None:
        """Return the answer to a batch that there is no room for: status, lines, body; None for any other request.

        It is that of the ordinary route, which asks for room before it reads. All lines but those of the protocol.
        """
        head = head_of(headers, BATCH) if path == _BATCH_PATH else None
        sighted = None if head is None or head.is_named else self._admission.refuse_batch(head.key_hash)
        if sighted is None:
            return None
        began, request_id = self._clock.monotonic(), keys.request_id()
        assert not isinstance(sighted.result, Submitted)
        status, lines, body = self._refused(BATCH.path, request_id, sighted.rate, sighted.result)
        self._tally.add("POST", BATCH.path, status, self._clock.monotonic() - began, request_id)
        return status, lines + self._completion(request_id), body

    def learn(self, data: bytes, head: Head) -> Likeness | None:
        """Return what is alike in requests like this one. data: the bytes it came in; None when they hold more."""
        line, end = _LINE.match(data), data.find(b"\r\n\r\n") + 4
        length = None if line is None else _LENGTH.search(data, line.end() - 2, end)
        if line is None or length is None or len(data) != end + head.content_length:
            return None
        return Likeness(head.key_hash, data[line.end() : length.start(1)], data[length.end(1) : end])

    def serve(self, likeness: Likeness, data: bytes, answer: Answer) -> bool:
        """Take a whole request that is like one before it; False when it is not, or the ordinary way has to be gone.

        It is answered in a later turn of the event loop. The answer's lines are all but those of the protocol itself.
        """
        line = _LINE.match(data)
        if line is None or not data.startswith(likeness.before_length, line.end()):
            return False
        length = _DIGITS.match(data, line.end() + len(likeness.before_length))
        if length is None or not data.startswith(likeness.after_length, length.end()):
            return False
        body = data[length.end() + len(likeness.after_length) :]
        if not len(body) == int(length[0]) <= OPERATION.body_bytes:
            return False
        began, request_id = self._clock.monotonic(), keys.request_id()

        def complete(status: int, lines: bytes, body: bytes) -> None:
            self._tally.add("POST", OPERATION.path, status, self._clock.monotonic() - began, request_id)
            self._leave(partial(answer, status, lines + self._completion(request_id), body))

        return self.begin(likeness.key_hash, int(line[1]), body, request_id, complete)

    def _leave(self, answer: Callable[[], None]) -> None:
        """Let an answer leave with all others of this turn, one behind the other.

        Written between two requests each of them woke a client that had gone to sleep: 22 us of 60 for an action.
        """
        if not self._leaving:
            asyncio.get_running_loop().call_soon(self._let_go)
        self._leaving.append(answer)

    def _let_go(self) -> None:
        leaving, self._leaving = self._leaving, []
        for answer in leaving:
            answer()

    def _refuse(
        self, agent: int, request_id: str, answer: Answer, rate: Rate | None, error: Problem | LiveError
    ) -> None:
        answer(*self._refused(f"{_BEGIN}a{agent}{_END}", request_id, rate, error))

    def _refused(
        self, path: str, request_id: str, rate: Rate | None, error: Problem | LiveError
    ) -> tuple[int, bytes, bytes]:
        """Return what server.routes.answer_problem answers: status, lines, body."""
        problem = error if isinstance(error, Problem) else problem_of(error)
        body = problem.document(path, request_id, self._published.view.tick)
        headers = {"cache-control": "no-store", **problem.headers, "content-type": MEDIA_TYPE}
        lines = [f"{name.lower()}: {value}\r\n".encode() for name, value in headers.items()]
        lines += [b"content-length: %d\r\n" % len(body), b"" if rate is None else rate.lines()]
        return problem.status, b"".join(lines), body

    def _completion(self, request_id: str) -> bytes:
        """Return the lines that every answer carries."""
        return b"x-request-id: %b\r\nx-content-type-options: nosniff\r\narena-tick: %d\r\n" % (
            request_id.encode(), self._published.view.tick,
        )  # fmt: skip


def _accept(submitted: Submitted, rate: Rate | None, answer: Answer) -> None:
    """Answer as the handler of the ordinary route does."""
    body = orjson.dumps(submitted.receipt.document(submitted.duplicate))
    answer(
        202,
        b"cache-control: private, no-store\r\ncontent-length: %d\r\ncontent-type: application/json\r\n%b"
        % (len(body), b"" if rate is None else rate.lines()),
        body,
    )


class HotRoute:
    """Asks HotAction first. find: returns it once the world is open."""

    def __init__(self, app: ASGIApp, *, find: Callable[[], HotAction | None]) -> None:
        self._app = app
        self._find = find

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer an action that can be taken at sight; pass everything else on."""
        hot, head = self._find(), None
        path = _PATH.fullmatch(scope["path"]) if scope["type"] == "http" and scope["method"] == "POST" else None
        if hot is not None and path is not None and not scope["query_string"]:
            head = head_of(scope["headers"])
        if hot is None or path is None or head is None:
            await self._app(scope, receive, send)
            return
        exchange: Exchange = scope[EXCHANGE]
        body, receive = await _read(receive)
        answered: asyncio.Future[tuple[int, bytes, bytes]] = asyncio.get_running_loop().create_future()
        if len(body) != head.content_length or not hot.begin(
            head.key_hash, int(path[1]), body, exchange.request_id, lambda *answer: _settle(answered, answer)
        ):
            await self._app(scope, receive, send)
            return
        exchange.route = OPERATION.path
        status, lines, document = await answered
        if not head.is_named:
            scope[HOT_HEAD] = head
        headers = [tuple(line.split(b": ", 1)) for line in lines.splitlines()]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": document})


def head_of(headers: list[tuple[bytes, bytes]], operation: Operation = OPERATION) -> Head | None:
    """Return what the headers of a request say, None when something about them is for the ordinary route."""
    binary = operation.binary_bytes
    given = dict(headers)
    if len(given) != len(headers):
        return None
    key, length, is_named = {}, b"", False
    for name, value in headers:
        if name in (b"authorization", b"x-api-key"):
            key[name.decode()] = value.decode("latin-1")
        elif name == b"content-length":
            length = value
        elif name == b"content-type":
            media = value.split(b";")[0].strip().lower()
            if media != _JSON and (binary is None or media != _MSGPACK):
                return None
        elif name == b"x-request-id":
            is_named = True
        elif name == b"host":
            if not _HOST.fullmatch(value):
                return None
        elif name == b"connection":
            if value.lower() != b"keep-alive":
                return None
        elif name not in _INDIFFERENT and not name.startswith(b"x-"):
            return None
    try:
        found = api_key(key)
    except Unauthorized:
        return None
    if found is None or b"content-type" not in given or not _DIGITS.fullmatch(length):
        return None
    if int(length) > (binary or operation.body_bytes):
        return None
    return Head(keys.digest(found), int(length), is_named)


async def _read(receive: Receive) -> tuple[bytes, Receive]:
    """Return the body, and a receive that gives it once more."""
    messages: deque[Message] = deque()
    while True:
        message = await receive()
        messages.append(message)
        if not message.get("more_body", False):
            break

    async def again() -> Message:
        return messages.popleft() if messages else await receive()

    return b"".join(message.get("body", b"") for message in messages), again


def _settle(answered: asyncio.Future[tuple[int, bytes, bytes]], answer: tuple[int, bytes, bytes]) -> None:
    # the client may have gone and its task with it
    if not answered.done():
        answered.set_result(answer)
