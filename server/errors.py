"""What can go wrong at the edge, as one tree, and how it is answered: application/problem+json.

Problem                a request that is not answered as asked; carries everything of its document
├── BadRequest         400: the request's shape; errors[] says per field what is allowed
├── Unauthorized       401: no key, or not one of ours
├── NotFound           404: no such path or thing, or not yours
├── Conflict           409: the id was used for something else, or no place is left
└── Unavailable        503: not now; says when to try again

Codes come in ranges: 1xx shape and identity, 2xx funds, 3xx market (both the world's, engine.messages.Reject),
4xx limits, 5xx ours. Source: RFC 9457; STYLE section 5.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import IntEnum
from http import HTTPStatus
from typing import Any

import orjson

MEDIA_TYPE = "application/problem+json"


class Code(IntEnum):
    """Why a request was refused before it reached the world. The world's own codes: engine.messages.Reject."""

    MALFORMED = 100
    INVALID = 101
    CONTENT_TYPE = 102
    CONTENT_ENCODING = 103
    TOO_LARGE = 104
    TOO_DEEP = 105
    EMPTY_BODY = 106
    UNKNOWN_AGENT = 110
    UNKNOWN_PATH = 111
    METHOD = 112
    UNKNOWN_MARKET = 113
    UNKNOWN_SERIES = 114
    UNKNOWN_RECEIPT = 115
    NOT_ACCEPTABLE = 116
    UNKNOWN_TICK = 117
    KEY_MISSING = 130
    KEY_UNKNOWN = 131
    ID_REUSED = 140
    NOT_PAUSED = 141
    AGENTS_FULL = 405
    AGENTS_PER_OWNER = 406
    RATE = 410
    QUEUE_FULL = 411
    SOCKETS_FULL = 412
    RECEIPTS_FULL = 413
    FORMS_FULL = 414
    INTERNAL = 500
    STARTING = 501
    READ_ONLY = 502
    STOPPING = 503
    UNKNOWN_FATE = 504
    TICK_LATE = 505
    ENGINE_AWAY = 506
    RECEIPT_DAMAGED = 507


#: One sentence per code for the pages; the detail of a problem says more about the case at hand.
CODE_TEXT = {
    Code.MALFORMED: "the body is not what its content type says",
    Code.INVALID: "a field, parameter or header is missing, unknown or out of its bounds",
    Code.CONTENT_TYPE: "the body has another content type than the operation takes",
    Code.CONTENT_ENCODING: "request bodies are taken uncompressed",
    Code.TOO_LARGE: "the body is larger than the operation takes",
    Code.TOO_DEEP: "the body nests deeper than 8 levels",
    Code.EMPTY_BODY: "the operation needs a body",
    Code.UNKNOWN_AGENT: "no such agent, or not one of yours",
    Code.UNKNOWN_PATH: "no such path",
    Code.METHOD: "the path takes other methods",
    Code.UNKNOWN_MARKET: "no such market",
    Code.UNKNOWN_SERIES: "no such series",
    Code.UNKNOWN_RECEIPT: "no receipt under that id, or it is no longer kept",
    Code.NOT_ACCEPTABLE: "the answer does not exist in that format",
    Code.UNKNOWN_TICK: "the tick is to come, or its state is kept no longer",
    Code.KEY_MISSING: "the operation needs an API key",
    Code.KEY_UNKNOWN: "the API key is not one of ours, or it was revoked",
    Code.ID_REUSED: "the id was used before for something else",
    Code.NOT_PAUSED: "the operation is for a world that is paused",
    Code.AGENTS_FULL: "as many agents are registered as the world takes",
    Code.AGENTS_PER_OWNER: "the owner has as many agents as it may",
    Code.RATE: "more requests than the key may send",
    Code.QUEUE_FULL: "as many actions wait for the next tick as may",
    Code.SOCKETS_FULL: "as many streams are open as the server takes",
    Code.RECEIPTS_FULL: "as many receipts are kept as may be",
    Code.FORMS_FULL: "as many narrowed forms of channels are in use as may be",
    Code.INTERNAL: "a mistake of ours",
    Code.STARTING: "the world is being opened",
    Code.READ_ONLY: "the world takes no input: reads and streams go on",
    Code.STOPPING: "the server is stopping",
    Code.UNKNOWN_FATE: "it is not known whether the input is on disk: ask for its receipt",
    Code.TICK_LATE: "the tick that the answer waits for has not come in time",
    Code.ENGINE_AWAY: "the gateway has no answer of the engine; surely nothing was changed",
    Code.RECEIPT_DAMAGED: "the disk does not give back the receipts among which the id may be",
}


class Problem(Exception):
    """A request that is not answered as asked.

    errors: one map per mistake with field, problem and, where it applies, allowed. temporary: the same request may
    succeed later. extra: further members of the document.
    """

    status = 400

    def __init__(
        self,
        code: int,
        detail: str,
        *,
        status: int | None = None,
        title: str | None = None,
        errors: Sequence[Mapping[str, Any]] = (),
        temporary: bool = False,
        headers: Mapping[str, str] | None = None,
        extra: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status = self.status if status is None else status
        self.title = HTTPStatus(self.status).phrase if title is None else title
        self.code = int(code)
        self.detail = detail
        self.errors = list(errors)
        self.temporary = temporary
        self.headers = dict(headers or {})
        self.extra = dict(extra or {})

    def document(self, instance: str | None = None, request_id: str | None = None, tick: int | None = None) -> bytes:
        """Return the problem as JSON; what the place knows (path, request, tick) is passed in, None is left out."""
        members = self.members() | {"instance": instance, "request_id": request_id, "tick": tick}
        return orjson.dumps({name: value for name, value in members.items() if value is not None})

    def members(self) -> dict[str, Any]:
        """Return what is the same wherever the problem happens: also the error of one item of a batch."""
        return {
            "type": f"/docs#problem-{self.code}",
            "title": self.title,
            "status": self.status,
            "detail": printable(self.detail),
            "code": self.code,
            "temporary": self.temporary,
            "errors": [{name: printable(value) for name, value in error.items()} for error in self.errors],
        } | self.extra


class BadRequest(Problem):
    """The shape of a request is wrong: sent again unchanged, it will be refused again."""

    status = 400


class Unauthorized(Problem):
    """No key was sent, or none of ours."""

    status = 401

    def __init__(self, code: int, detail: str) -> None:
        super().__init__(code, detail, headers={"WWW-Authenticate": 'Bearer realm="arena"'})


class NotFound(Problem):
    """There is no such thing, or it is somebody else's: nobody can tell the two apart."""

    status = 404


class Conflict(Problem):
    """What the request asks for cannot be, next to what is already there."""

    status = 409


class Unavailable(Problem):
    """Not now. The request was surely not applied; retry_after in seconds."""

    status = 503

    def __init__(self, code: int, detail: str, *, retry_after: int = 1) -> None:
        super().__init__(code, detail, temporary=True, headers={"Retry-After": str(retry_after)})


def printable(value: Any) -> Any:
    """Return a text that can be sent as UTF-8 (lone surrogates replaced); other values unchanged."""
    return value.encode("utf-8", "replace").decode() if isinstance(value, str) else value
