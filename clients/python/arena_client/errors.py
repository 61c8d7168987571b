"""What can go wrong in the client, as one tree.

ArenaError
├── WireError              bytes or messages that break the protocol; the text says what is allowed
├── StreamError            the stream cannot go on
│   ├── HandshakeRefused   the server refused the WebSocket handshake for good (wrong path, subprotocol, rights)
│   ├── ConnectionGaveUp   closed with a code that says not to come back, or out of attempts
│   └── SubscriptionRefused  the server answered a subscribe with an error; other subscriptions go on
└── RequestError           a REST call without the answer that was asked for
    ├── Unreachable        no answer came, and nothing can have changed: a read, or no connection was made
    ├── OutcomeUnknown     no answer came (timeout, lost connection, 504): the action may or may not be in the journal
    └── ProblemError       the server answered with application/problem+json
        ├── BadRequest     400, 413, 415, 422: the request itself is wrong; a retry will not help
        ├── Unauthorized   401, 403: no key, a wrong key, or not allowed
        ├── NotFound       404, 410: no such thing, or not yours
        ├── Conflict       409: the client_action_id belongs to another action, or the world is full
        ├── RateLimited    429: too many requests; surely not applied; `retry_after` says when
        └── ServerError    5xx: 503 was surely not applied; others are unknown
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class ArenaError(Exception):
    """Root of everything this package raises on its own account."""


class WireError(ArenaError, ValueError):
    """Bytes or messages that break the protocol. str() says what was found and what is allowed."""


class StreamError(ArenaError):
    """The stream cannot go on."""


class HandshakeRefused(StreamError):
    """The server refused the WebSocket handshake and will refuse it again.

    status: HTTP status of the refusal.
    """

    def __init__(self, status: int, text: str) -> None:
        super().__init__(f"handshake refused with HTTP {status}: {text}")
        self.status = status


class ConnectionGaveUp(StreamError):
    """Closed with a code that says not to come back, or the allowed number of attempts is used up.

    code: WebSocket close code, 1006 when the connection was simply lost, None when none was ever made.
    """

    def __init__(self, code: int | None, text: str) -> None:
        super().__init__(text if code is None else f"closed with {code}: {text}")
        self.code = code


class SubscriptionRefused(StreamError):
    """The server refused one subscription. code, title, detail, allowed and temporary are the server's."""

    def __init__(self, channel: str, message: Mapping[str, Any]) -> None:
        self.channel = channel
        self.code = message.get("code")
        self.title = message.get("title")
        self.detail = message.get("detail")
        self.allowed = message.get("allowed")
        self.temporary = bool(message.get("temporary", False))
        super().__init__(f"{channel}: {self.title} ({self.code}): {self.detail}; allowed: {self.allowed}")


class RequestError(ArenaError):
    """A REST call without the answer that was asked for."""


class Unreachable(RequestError):
    """No answer came and nothing can have changed: the request was a read, or no connection could be made."""


class OutcomeUnknown(RequestError):
    """No answer came, so whether the request counts is unknown.

    client_action_id: of an action: ask for its receipt, or send the same action again, under this id. None for
    requests that have none; a registration sent again under its Idempotency-Key is safe.
    """

    def __init__(self, text: str, client_action_id: str | None = None) -> None:
        super().__init__(text)
        self.client_action_id = client_action_id


class ProblemError(RequestError):
    """The server answered with application/problem+json.

    status: HTTP status. code: the product's own code (1xx shape, 2xx funds, 3xx market, 4xx limits) or None.
    errors: one entry per wrong field. temporary: whether the same request may work later.
    retry_after: seconds from the header, or None. document: the whole body.
    """

    def __init__(self, status: int, document: Mapping[str, Any], retry_after: float | None = None) -> None:
        self.status = status
        self.document = dict(document)
        self.code = document.get("code")
        self.title = document.get("title")
        self.detail = document.get("detail")
        self.errors = list(document.get("errors") or ())
        self.temporary = bool(document.get("temporary", False))
        self.request_id = document.get("request_id")
        self.retry_after = retry_after
        super().__init__(f"{status} {self.title}: {self.detail}" + (f" (code {self.code})" if self.code else ""))


class BadRequest(ProblemError):
    """400, 405, 413, 415, 422: the request itself is wrong; a retry will not help."""


class Unauthorized(ProblemError):
    """401, 403: no key, a wrong key, or not allowed."""


class NotFound(ProblemError):
    """404, 410: no such thing, or not yours."""


class Conflict(ProblemError):
    """409: the client_action_id belongs to another action, or the world is full."""


class RateLimited(ProblemError):
    """429: too many requests. Surely not applied."""


class ServerError(ProblemError):
    """5xx. 503 says that nothing was applied; with others only the receipt can tell."""


def problem(status: int, document: Mapping[str, Any], retry_after: float | None = None) -> ProblemError:
    """Return the error of the tree that fits an HTTP status from 400 to 599."""
    if status >= 500:
        return ServerError(status, document, retry_after)
    return _BY_STATUS.get(status, BadRequest)(status, document, retry_after)


_BY_STATUS: dict[int, type[ProblemError]] = {
    401: Unauthorized,
    403: Unauthorized,
    404: NotFound,
    410: NotFound,
    409: Conflict,
    429: RateLimited,
}
