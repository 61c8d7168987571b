"""Client of Living Economy Arena: watch the live economy and trade in it.

    from arena_client import ArenaClient, ArenaStream

`wire` is the frame codec, `mirror` a local copy that cannot drift unnoticed, `subscription` the resume rules,
`stream` the WebSocket connection, `rest` the REST calls, `receipt` what both answer an action with, `errors` what can
go wrong. The first three do no input or output; the names below are imported on first use, so that who needs only the
codec does not load a network library.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from arena_client.columns import BatchOutcome
    from arena_client.errors import (
        ArenaError,
        BadRequest,
        Conflict,
        ConnectionGaveUp,
        HandshakeRefused,
        NotFound,
        OutcomeUnknown,
        ProblemError,
        RateLimited,
        RequestError,
        ServerError,
        StreamError,
        SubscriptionRefused,
        Unauthorized,
        Unreachable,
        WireError,
    )
    from arena_client.mirror import Mirror
    from arena_client.receipt import Receipt
    from arena_client.rest import ArenaClient, Credentials
    from arena_client.stream import (
        AccountsReceived,
        ArenaStream,
        EntriesReceived,
        EventReceived,
        Lagged,
        StateChanged,
    )

__version__ = "0.1.0"

_HOME = {
    "ArenaClient": "rest",
    "BatchOutcome": "columns",
    "Credentials": "rest",
    "Receipt": "receipt",
    "AccountsReceived": "stream",
    "ArenaStream": "stream",
    "EntriesReceived": "stream",
    "EventReceived": "stream",
    "Lagged": "stream",
    "StateChanged": "stream",
    "Mirror": "mirror",
    "ArenaError": "errors",
    "BadRequest": "errors",
    "Conflict": "errors",
    "ConnectionGaveUp": "errors",
    "HandshakeRefused": "errors",
    "NotFound": "errors",
    "OutcomeUnknown": "errors",
    "ProblemError": "errors",
    "RateLimited": "errors",
    "RequestError": "errors",
    "ServerError": "errors",
    "StreamError": "errors",
    "SubscriptionRefused": "errors",
    "Unauthorized": "errors",
    "Unreachable": "errors",
    "WireError": "errors",
}

__all__ = [
    "AccountsReceived",
    "ArenaClient",
    "ArenaError",
    "ArenaStream",
    "BadRequest",
    "BatchOutcome",
    "Conflict",
    "ConnectionGaveUp",
    "Credentials",
    "EntriesReceived",
    "EventReceived",
    "HandshakeRefused",
    "Lagged",
    "Mirror",
    "NotFound",
    "OutcomeUnknown",
    "ProblemError",
    "RateLimited",
    "Receipt",
    "RequestError",
    "ServerError",
    "StateChanged",
    "StreamError",
    "SubscriptionRefused",
    "Unauthorized",
    "Unreachable",
    "WireError",
]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(f"arena_client.{_HOME[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
