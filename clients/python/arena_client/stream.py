"""The live stream over a WebSocket that outlives its connections: reconnects, resumes, resynchronises.

One task, owned by the `ArenaStream`, reads the socket and keeps the mirrors fresh, whatever the user of the stream
is doing. What happened waits for `async for` in a queue: of state changes only the newest per channel, of everything
else all of it, and when `events_max` of those wait, the task stops reading until there is room again.
All rules are in `subscription`; here bytes move and time passes.
"""

from __future__ import annotations

import asyncio
import logging
import random
import secrets
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import replace
from types import TracebackType
from typing import Any, Final
from urllib.parse import urlsplit, urlunsplit

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus, InvalidURI
from websockets.typing import Subprotocol

from arena_client import wire
from arena_client.backoff import Backoff, retry_after_s
from arena_client.errors import (
    ArenaError,
    ConnectionGaveUp,
    HandshakeRefused,
    OutcomeUnknown,
    RequestError,
    StreamError,
    Unreachable,
    WireError,
    problem,
)
from arena_client.mirror import Mirror
from arena_client.receipt import Receipt
from arena_client.subscription import (
    AccountsReceived,
    ActionAnswered,
    EntriesReceived,
    EventReceived,
    Lagged,
    OutOfStep,
    Refused,
    Report,
    Session,
    SessionBroken,
    ShuttingDown,
    Stale,
    StateChanged,
    Subscribed,
)

__all__ = [
    "AccountsReceived",
    "ArenaStream",
    "Backoff",
    "EntriesReceived",
    "EventReceived",
    "Lagged",
    "OutOfStep",
    "ShuttingDown",
    "Stale",
    "StateChanged",
]

log = logging.getLogger("arena_client")

Update = StateChanged | EventReceived | EntriesReceived | AccountsReceived | Lagged | Stale | OutOfStep | ShuttingDown

#: Without any message for this many of the server's heartbeats the connection counts as dead.
HEARTBEATS_MISSED: Final = 2.5
#: Until hello has told the server's heartbeat.
HELLO_TIMEOUT_S: Final = 10.0
OPEN_TIMEOUT_S: Final = 10.0
#: A dead peer does not answer the closing handshake; there is nothing to gain by waiting for it.
CLOSE_TIMEOUT_S: Final = 1.0


class ArenaStream:
    """The live channels of one server, as mirrors and as an async iterator of updates.

        async with ArenaStream("http://127.0.0.1:8000") as stream:
            market = await stream.subscribe("market_tick")
            await stream.follow("catastrophic_event")
            async for update in stream:
                ...

    url: http, https, ws or wss; without a path `/ws` is meant. api_key: sent with `auth` on every connection.
    cancel_on_disconnect: open orders of the key's agents end with the connection, and with the server.
    attempts_max: connections in a row that may fail before ConnectionGaveUp, None = try for ever.
    silence_s: without a message for so long the connection counts as dead, None = 2.5 heartbeats of the server.
    events_max: updates kept for a slow reader. draw: uniform numbers in [0, 1) for the back-off.
    reconnects: connections made after the first one.
    """

    def __init__(
        self,
        url: str,
        *,
        api_key: str | None = None,
        cancel_on_disconnect: bool = False,
        subprotocol: str = wire.SUBPROTOCOL_MSGPACK,
        backoff: Backoff | None = None,
        attempts_max: int | None = None,
        silence_s: float | None = None,
        events_max: int = 1000,
        draw: Callable[[], float] = random.random,
    ) -> None:
        if subprotocol not in wire.SUBPROTOCOLS:
            raise ValueError(f"subprotocol must be one of {', '.join(wire.SUBPROTOCOLS)}, got {subprotocol!r}")
        self.url = socket_url(url)
        self.reconnects = 0
        self._subprotocol = subprotocol
        self._backoff = backoff or Backoff()
        self._attempts_max = attempts_max
        self._silence_s = silence_s
        self._events_max = events_max
        self._draw = draw
        if cancel_on_disconnect and api_key is None:
            raise ValueError("cancel_on_disconnect needs the api_key of the agents' owner")
        self._session = Session(api_key, cancel_on_disconnect=cancel_on_disconnect)
        self._socket: ClientConnection | None = None
        self._sending = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None
        self._wanted = asyncio.Event()
        self._news = asyncio.Event()
        self._room = asyncio.Event()
        #: What waits for the reader, oldest first; a string stands for the newest change of that channel.
        self._queue: deque[Update | Refused | str] = deque()
        self._changes: dict[str, StateChanged] = {}
        self._waiters: dict[str, asyncio.Future[None]] = {}
        self._acting: dict[int, asyncio.Future[ActionAnswered]] = {}
        self._greeted = asyncio.Event()
        # random per stream, counted within: unique without asking anybody, and readable in a log
        self._id_prefix = secrets.token_hex(6)
        self._id_count = 0
        self._retry_after_s = 0.0
        self._failures = 0
        self._was_connected = False
        self._end_was_raised = False

    async def __aenter__(self) -> ArenaStream:
        self._task = asyncio.create_task(self._run(), name="arena-stream")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            # who only reads mirrors would else never learn that the stream gave up
            if kind is None and not self._end_was_raised:
                self._raise_end()
        finally:
            await self.close()

    @property
    def is_connected(self) -> bool:
        """Whether the server has greeted on the present connection."""
        return self._session.is_connected

    @property
    def hello(self) -> dict[str, Any] | None:
        """The server's last hello: epoch, tick, tick_rate_ms, markets, channels, limits; None before the first."""
        return self._session.hello

    @property
    def markets(self) -> list[str]:
        """The names of the markets, in the order of every list of `market_tick`; empty before the first hello."""
        return list(self._session.hello["markets"]) if self._session.hello else []

    @property
    def resources(self) -> list[str]:
        """The names of the resources, in the order of every list of `scarcity_update`; empty before the first hello."""
        return list(self._session.hello["resources"]) if self._session.hello else []

    @property
    def accounts(self) -> Mapping[str, Mapping[str, Any]]:
        """By agent, the newest of what the channel `agent` told it has: account or balance, as of its `tick`."""
        return self._session.accounts

    @property
    def resyncs(self) -> int:
        """How often a copy did not fit what came and had to be put right."""
        return self._session.resyncs

    def mirror(self, channel: str) -> Mirror:
        """Return the mirror of a subscribed state channel. Raises KeyError when there is none."""
        subscription = self._session.subscriptions[channel]
        if subscription.mirror is None:
            raise KeyError(f"{channel} is an event channel and has no mirror")
        return subscription.mirror

    async def subscribe(
        self, channel: str, *, markets: Sequence[str] | None = None, every: int | None = None, depth: int | None = None
    ) -> Mirror:
        """Subscribe to a state channel and return its mirror once it holds its first state.

        markets: of `market_tick` only these; the mirror's `markets` says in which order. every: a frame every so many
        ticks. depth: with markets, so many levels a side of what each auction left unfilled, in the mirror's `book`.
        Raises SubscriptionRefused when the server says no, ValueError when the channel is subscribed already or is
        an event channel, and whatever ended the stream.
        """
        if channel in wire.EVENT_CHANNELS:
            raise ValueError(f"{channel} is an event channel: use follow()")
        asked = {"markets": None if markets is None else list(markets), "every": every, "depth": depth}
        await self._subscribe(channel, None, {name: value for name, value in asked.items() if value is not None})
        return self.mirror(channel)

    async def follow(self, channel: str, *, since: int | None = None) -> None:
        """Subscribe to an event channel, or to `agent`, and return once the server has acknowledged it.

        since: number of the last event already known, 0 = send all there are; None = only what comes from now on.
        Raises as `subscribe` does.
        """
        if channel in wire.STATE_CHANNELS:
            raise ValueError(f"{channel} is a state channel: use subscribe()")
        await self._subscribe(channel, since, {})

    async def act(
        self,
        action: Mapping[str, Any],
        *,
        agent_id: str | None = None,
        client_action_id: str | None = None,
        valid_until_tick: int | None = None,
        timeout_s: float = 10.0,
    ) -> Receipt:
        """Send an action over the stream and return its receipt, which is durable; the outcome comes with `agent`.

        agent_id: the key's only agent unless given. The same action under the same client_action_id has one effect,
        over whichever way it is sent again.
        Raises BadRequest and the like when the server does not take it, OutcomeUnknown when the connection ended or the
        time was up before the answer, Unreachable when nothing was sent.
        """
        body = dict(action)
        name = body["client_action_id"] = client_action_id or body.get("client_action_id") or self._next_name()
        if valid_until_tick is not None:
            body["valid_until_tick"] = valid_until_tick
        number: int | None = None
        try:
            async with asyncio.timeout(timeout_s):
                self._want()
                if not self._session.has_key:
                    raise StreamError("an action needs the api_key of its owner")
                await self._greeted.wait()
                number = self._session.act(agent_id or self._only_agent(), body)
                answer = self._acting[number] = asyncio.get_running_loop().create_future()
                await self._flush()
                answered = await answer
        except (TimeoutError, SessionBroken) as error:
            if number is None:
                raise Unreachable(f"no connection to {self.url}") from error
            raise OutcomeUnknown(f"no answer to {name} within {timeout_s} s", name) from error
        except RequestError as error:
            raise OutcomeUnknown(f"the connection ended before the answer to {name}", name) from error
        finally:
            if number is not None:
                self._acting.pop(number, None)
        if answered.receipt is not None:
            return Receipt.of(answered.receipt)
        refused = dict(answered.error or {})
        raise problem(int(refused.get("status", 400)), refused, refused.get("retry_after_s"))

    def _only_agent(self) -> str:
        if len(self._session.agents) != 1:
            raise ValueError(f"the key has {len(self._session.agents)} agents: say which one by agent_id")
        return self._session.agents[0]

    def _next_name(self) -> str:
        self._id_count += 1
        return f"{self._id_prefix}-{self._id_count}"

    async def unsubscribe(self, channel: str) -> None:
        """Stop a channel. Its mirror keeps its last state. Raises KeyError when it is not subscribed."""
        self._session.unsubscribe(channel)
        if not self._session.subscriptions:
            self._wanted.clear()
        await self._flush()

    async def close(self) -> None:
        """Close the connection and end the stream; iterating stops. Does nothing the second time."""
        task, self._task = self._task, None
        if task is None:
            return
        task.cancel()
        # the task's own error has been raised to the reader or was of no interest to anybody
        await asyncio.gather(task, return_exceptions=True)

    def __aiter__(self) -> ArenaStream:
        return self

    async def __anext__(self) -> Update:
        """Return what happened next. Raises SubscriptionRefused for a channel that is gone; the others go on."""
        while not self._queue:
            if self._task is None or self._task.done():
                self._raise_end()
                raise StopAsyncIteration
            self._news.clear()
            await self._news.wait()
        item = self._queue.popleft()
        if len(self._queue) < self._events_max:
            self._room.set()
        if isinstance(item, str):
            return self._changes.pop(item)
        if isinstance(item, Refused):
            raise item.error
        return item

    async def lasting(self, seconds: float) -> AsyncIterator[Update]:
        """Iterate as the stream itself does, and stop after `seconds` without losing what came by then."""
        deadline = asyncio.get_running_loop().time() + seconds
        while True:
            try:
                async with asyncio.timeout_at(deadline):
                    update = await anext(self)
            except (TimeoutError, StopAsyncIteration):
                return
            yield update

    # -- subscribing ------------------------------------------------------------------------------------------

    def _want(self) -> None:
        """See to it that there is a connection, or will be."""
        if self._task is None:
            raise StreamError("the stream is closed; use it inside `async with`")
        if self._task.done():
            self._raise_end()
            raise StreamError("the stream has ended")
        self._wanted.set()

    async def _subscribe(self, channel: str, since: int | None, narrowing: Mapping[str, Any]) -> None:
        self._want()
        self._session.subscribe(channel, since, narrowing)
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters[channel] = waiter
        try:
            await self._flush()
            await waiter
        finally:
            del self._waiters[channel]

    async def _flush(self) -> None:
        """Send what the session wants sent; a connection that fails meanwhile is the reading task's business."""
        async with self._sending:
            if self._socket is None:
                return
            for message in self._session.take_outgoing():
                try:
                    await self._socket.send(wire.encode(message, self._subprotocol))
                except ConnectionClosed:
                    return

    # -- the task ---------------------------------------------------------------------------------------------

    async def _run(self) -> None:
        try:
            while True:
                await self._wanted.wait()
                wait_s = await self._connect_once()
                if wait_s is None:
                    return
                await asyncio.sleep(wait_s)
        except StreamError as error:
            self._end_waiters(error)
            raise
        finally:
            self._session.lost()
            self._end_waiters(StreamError("the stream has ended"))
            self._news.set()

    async def _connect_once(self) -> float | None:
        """Hold one connection as long as it lasts and return the seconds until the next, None for no next.

        Raises StreamError when no other connection would do better.
        """
        try:
            await self._converse()
        except ConnectionClosed as error:
            code = error.rcvd.code if error.rcvd else 1006
            row = wire.close_code(code)
            if row.advice == "stop":
                return None
            if row.advice == "give_up":
                raise ConnectionGaveUp(code, (error.rcvd.reason if error.rcvd else "") or row.text) from error
            return self._next_wait_s(f"closed with {code}: {row.text}")
        except InvalidStatus as error:
            return self._after_refusal(error)
        except InvalidURI as error:
            raise StreamError(str(error)) from error
        except (OSError, InvalidHandshake, WireError, SessionBroken, TimeoutError) as error:
            return self._next_wait_s(f"{type(error).__name__}: {error}")
        raise AssertionError("a conversation ends with an exception")

    def _after_refusal(self, error: InvalidStatus) -> float:
        status = error.response.status_code
        text = (error.response.body or b"").decode("utf-8", "replace").strip()
        if status != 429 and status < 500:
            raise HandshakeRefused(status, text) from error
        self._retry_after_s = retry_after_s(error.response.headers.get("Retry-After"))
        return self._next_wait_s(f"handshake refused with HTTP {status}: {text}")

    def _next_wait_s(self, reason: str) -> float:
        self._failures += 1
        if self._attempts_max is not None and self._failures >= self._attempts_max:
            raise ConnectionGaveUp(None, f"{self._failures} connections in a row failed, the last: {reason}")
        asked, self._retry_after_s = self._retry_after_s, 0.0
        wait_s = asked + self._backoff.delay_s(self._failures, self._draw())
        # who has never been connected may have the wrong address and should hear of it
        level = logging.INFO if self._was_connected else logging.WARNING
        log.log(level, "%s: %s; next attempt in %.2f s", self.url, reason, wait_s)
        return wait_s

    async def _converse(self) -> None:
        async with connect(
            self.url,
            subprotocols=[Subprotocol(self._subprotocol)],
            # frames are deltas already, and the server does not compress
            compression=None,
            max_size=wire.SERVER_FRAME_MAX,
            open_timeout=OPEN_TIMEOUT_S,
            close_timeout=CLOSE_TIMEOUT_S,
            # the server's heartbeats tell that it is alive
            ping_interval=None,
        ) as socket:
            if socket.subprotocol != self._subprotocol:
                raise HandshakeRefused(101, f"{self.url} does not speak {self._subprotocol}")
            self.reconnects += self._was_connected
            self._was_connected = True
            self._socket = socket
            try:
                while True:
                    await self._take(await self._next_message(socket))
            except asyncio.CancelledError:
                # it is left, which is no failure: an error that leaves `connect` closes with 1011
                await socket.close()
                raise
            finally:
                self._socket = None
                self._session.lost()
                self._greeted.clear()
                self._end_actions()

    async def _next_message(self, socket: ClientConnection) -> dict[str, Any]:
        limit_s = self._silence_s
        if limit_s is None:
            hello = self._session.hello if self._session.is_connected else None
            limit_s = hello["heartbeat_s"] * HEARTBEATS_MISSED if hello else HELLO_TIMEOUT_S
        async with asyncio.timeout(limit_s):
            data = await socket.recv()
        try:
            return wire.decode(data, self._subprotocol)
        except WireError as error:
            await socket.close(4000, str(error)[:120])
            raise

    async def _take(self, message: dict[str, Any]) -> None:
        for report in self._session.receive(message):
            await self._deliver(report)
        await self._flush()
        # an action needs to know whose agents the key has
        if (message["type"] == "hello" and not self._session.has_key) or (
            message["type"] == "ack" and message.get("op") == "auth"
        ):
            self._greeted.set()

    async def _deliver(self, report: Report) -> None:
        match report:
            case Subscribed(channel):
                if channel not in wire.STATE_CHANNELS:
                    # for a long time nothing else may come on it
                    self._failures = 0
                    self._answer(channel)
            case Refused(channel, error):
                if not self._answer(channel, error):
                    await self._put(report)
            case StateChanged(channel):
                self._failures = 0
                self._put_change(report)
                self._answer(channel)
            case EventReceived():
                self._failures = 0
                await self._put(report)
            case ActionAnswered(number):
                self._failures = 0
                answer = self._acting.get(number)
                if answer is not None and not answer.done():
                    answer.set_result(report)
            case ShuttingDown(wait_s):
                self._retry_after_s = wait_s
                await self._put(report)
            case _:
                await self._put(report)

    def _put_change(self, change: StateChanged) -> None:
        earlier = self._changes.get(change.channel)
        if earlier is None:
            self._queue.append(change.channel)
        else:
            change = replace(change, skipped=earlier.skipped + 1)
        self._changes[change.channel] = change
        self._news.set()

    async def _put(self, item: Update | Refused) -> None:
        while len(self._queue) >= self._events_max:
            self._room.clear()
            await self._room.wait()
        self._queue.append(item)
        self._news.set()

    def _answer(self, channel: str, error: ArenaError | None = None) -> bool:
        """Let the call that waits for this subscription go on; False when none waits."""
        waiter = self._waiters.get(channel)
        if waiter is None or waiter.done():
            return False
        if error is None:
            waiter.set_result(None)
        else:
            waiter.set_exception(error)
        return True

    def _end_actions(self) -> None:
        """Tell who waits for the answer to an action that none will come."""
        for answer in self._acting.values():
            if not answer.done():
                answer.set_exception(RequestError("the connection ended"))

    def _end_waiters(self, error: StreamError) -> None:
        for waiter in self._waiters.values():
            if not waiter.done():
                waiter.set_exception(error)

    def _raise_end(self) -> None:
        """Raise what ended the task, if it was an error."""
        if self._task is not None and self._task.done() and not self._task.cancelled():
            error = self._task.exception()
            if error is not None:
                self._end_was_raised = True
                raise error


def socket_url(url: str) -> str:
    """Return the WebSocket address for a server's address: http becomes ws, an empty path becomes /ws."""
    parts = urlsplit(url)
    scheme = {"http": "ws", "https": "wss", "ws": "ws", "wss": "wss"}.get(parts.scheme)
    if scheme is None or not parts.netloc:
        raise ValueError(f"url must be http, https, ws or wss with a host, got {url!r}")
    return urlunsplit((scheme, parts.netloc, "/ws" if parts.path in ("", "/") else parts.path, parts.query, ""))
