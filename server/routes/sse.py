"""GET /api/stream: the channels of /ws as server-sent events, for clients that speak HTTP only.

A stream is a subscriber like any other, told to subscribe by the query instead of by messages: the same topics, limits
and rules of time, the same messages as those of arena.v2.json in `data`. The id of an event is where all channels of
the stream stand, so that the one id a client sends back resumes every one of them. Source: DESIGN section 3, D4.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import Any, Final

from arena_client import wire
from arena_client.wire import SUBPROTOCOL_JSON
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from server import keys
from server.errors import BadRequest, Code, Problem, Unauthorized, Unavailable
from server.live.admission import api_key, invalid
from server.live.agent_frames import AGENT
from server.live.caps import of_address, of_key
from server.live.frames import MARKET_TICK, STATE_CHANNELS
from server.live.hub import Hub
from server.live.outlets import TaskOutlet
from server.live.subscriber import TOO_MANY_FORMS, UNKNOWN_CHANNEL, Refusal, Subscriber
from server.live.topics import Message, Subscription
from server.middleware import EXCHANGE
from server.protocols import EXTENSION, LOST, ArenaHttpProtocol
from server.routes import Call, Handler, address_of

MEDIA: Final = "text/event-stream"
NORMAL: Final = 1000
RETRY_WHEN_FULL_S: Final = 5
NOWHERE: Final = "-"
"""In an id: a channel whose snapshot is still to come."""
_HEADERS: Final = {
    "Cache-Control": "no-store",
    "Connection": "close",
    # proxies that collect an answer before they pass it on would make a stream of it that stands still
    "X-Accel-Buffering": "no",
}


def handlers(hub: Hub) -> dict[str, Handler]:
    """Return the handler of the stream."""

    async def stream(call: Call) -> Response:
        if call.request.method == "HEAD":
            return Response(status_code=200, headers=_HEADERS, media_type=MEDIA)
        channels: list[str] = call.query.channels.split(",")
        key = api_key(call.request.headers)
        # that a key opens something is known by now; without one the stream counts for its address
        holder = of_address(address_of(call.request)) if key is None else of_key(keys.digest(key))
        if (reason := hub.refusal(holder)) is not None:
            raise Unavailable(Code.SOCKETS_FULL, reason, retry_after=RETRY_WHEN_FULL_S)
        if AGENT in channels and key is None:
            raise Unauthorized(Code.KEY_MISSING, f"the channel {AGENT} needs an API key: Authorization: Bearer ak_...")
        where = _Where(channels, call.headers.get("Last-Event-ID"))
        messages = _subscriptions(call.query, where)
        subscriber = hub.open(SUBPROTOCOL_JSON, holder)
        try:
            if key is not None:
                subscriber.show(keys.digest(key))
            for message in messages:
                subscriber.ask(message)
            where.begin(hub.epoch, subscriber.subscriptions)
        except Refusal as refusal:
            hub.leave(subscriber, NORMAL)
            raise _problem(refusal) from None
        return EventStream(hub, subscriber, where)

    return {"stream": stream}


class EventStream(Response):
    """An answer that lasts as long as its subscriber."""

    media_type = MEDIA

    def __init__(self, hub: Hub, subscriber: Subscriber, where: _Where) -> None:
        self.status_code = 200
        self.background = None
        self.init_headers(_HEADERS)
        self._hub = hub
        self._subscriber = subscriber
        self._where = where

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send events until either side is done."""
        subscriber, code = self._subscriber, LOST
        scope[EXCHANGE].is_stream = True
        try:
            connection = scope.get("extensions", {}).get(EXTENSION)
            if isinstance(connection, ArenaHttpProtocol):
                connection.begin_stream(lambda: self._hub.dismiss(subscriber))
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            code = await self._move(receive, send)
        finally:
            self._hub.leave(subscriber, code)

    async def _move(self, receive: Receive, send: Send) -> int:
        async def write(batch: list[Message]) -> None:
            data = "".join(self._event(message) for message in batch)
            await send({"type": "http.response.body", "body": data.encode(), "more_body": True})

        self._subscriber.outlet = outlet = TaskOutlet(self._hub, self._subscriber, write)
        writer = asyncio.create_task(outlet.run())
        reader = asyncio.create_task(_gone(receive))
        try:
            await asyncio.wait((reader, writer), return_when=asyncio.FIRST_COMPLETED)
        finally:
            reader.cancel()
            writer.cancel()
            await asyncio.gather(reader, writer, return_exceptions=True)
        if writer.cancelled() or self._subscriber.close_code is None:
            return LOST
        if (failure := writer.exception()) is not None:
            raise failure
        await send({"type": "http.response.body", "body": self._end().encode(), "more_body": False})
        return self._subscriber.close_code

    def _event(self, message: Message) -> str:
        if message.seq is not None:
            self._where.move(message.channel, message.seq)
        retry = ""
        if message.kind == "shutdown":
            # a browser's EventSource comes back by itself, after so long
            retry = f"retry: {json.loads(message.payload)['retry_after_ms']}\n"
        return f"id: {self._where.id}\n{retry}event: {message.kind}\ndata: {_text(message)}\n\n"

    def _end(self) -> str:
        row = wire.close_code(self._subscriber.close_code or NORMAL)
        told = {"code": row.code, "name": row.name, "reason": self._subscriber.close_reason, "advice": row.advice}
        return f"event: close\ndata: {json.dumps({'type': 'close', **told})}\n\n"


class _Where:
    """Where each channel of a stream stands, as the ids of events say: epoch:seq,seq,... by the query's channels."""

    def __init__(self, channels: list[str], last_id: str | None) -> None:
        self.channels = channels
        self.epoch: str | None = None
        self.seqs: dict[str, int | None] = dict.fromkeys(channels)
        if last_id is not None:
            self.epoch, _, places = last_id.partition(":")
            given = places.split(",")
            if len(given) != len(channels):
                allowed = f"the id of an event of a stream of the same {len(channels)} channels"
                raise invalid([{"field": "Last-Event-ID", "problem": "of another stream", "allowed": allowed}])
            self.seqs = {
                channel: None if seq == NOWHERE else int(seq) for channel, seq in zip(channels, given, strict=True)
            }

    def begin(self, epoch: str, subscriptions: Mapping[str, Subscription]) -> None:
        """Take note of where the channels begin: one without snapshots has its place before anything comes."""
        self.epoch = epoch
        self.seqs = {channel: subscriptions[channel].seq for channel in self.channels}

    def move(self, channel: str, seq: int) -> None:
        """Take note of a data frame."""
        self.seqs[channel] = seq

    @property
    def id(self) -> str:
        """Where it stands now, as the id of an event says it."""
        return f"{self.epoch}:" + ",".join(NOWHERE if seq is None else str(seq) for seq in self.seqs.values())


def _subscriptions(query: Any, where: _Where) -> list[dict[str, Any]]:
    """Return the subscribe messages a query stands for."""
    messages: list[dict[str, Any]] = []
    if MARKET_TICK not in where.channels and (query.markets is not None or query.depth is not None):
        allowed = f"only with the channel {MARKET_TICK}"
        raise invalid([{"field": "markets", "problem": "narrows no channel of the stream", "allowed": allowed}])
    for channel in where.channels:
        message: dict[str, Any] = {"op": "subscribe", "id": channel, "channel": channel}
        if where.epoch is not None and where.seqs.get(channel) is not None:
            message |= {"epoch": where.epoch, "seq": where.seqs[channel]}
        if query.every is not None and channel in STATE_CHANNELS:
            message["every"] = query.every
        if channel == MARKET_TICK and query.markets is not None:
            message["markets"] = query.markets.split(",")
        if channel == MARKET_TICK and query.depth is not None:
            message["depth"] = query.depth
        messages.append(message)
    return messages


def _problem(refusal: Refusal) -> Problem:
    """Return a refused subscription as the answer to the request."""
    if refusal.mistake is TOO_MANY_FORMS:
        return Unavailable(Code.FORMS_FULL, str(refusal), retry_after=RETRY_WHEN_FULL_S)
    allowed = refusal.allowed if isinstance(refusal.allowed, str) else ", ".join(refusal.allowed)
    field = "channels" if refusal.mistake is UNKNOWN_CHANNEL else str(refusal).partition(" ")[0]
    errors = [{"field": field, "problem": str(refusal), "allowed": allowed}]
    return BadRequest(Code.INVALID, f"{refusal}; allowed: {allowed}", errors=errors)


def _text(message: Message) -> str:
    # JSON as it is made here has no line ends, so that it is one line of data
    return message.payload if isinstance(message.payload, str) else message.payload.decode()


async def _gone(receive: Receive) -> None:
    """Return when the client is gone; a GET has nothing else to say."""
    while (await receive())["type"] != "http.disconnect":
        pass
