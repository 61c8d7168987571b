"""How the bytes of one subscriber move: in callbacks over our own protocol class, in two tasks over any ASGI server."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from server.live.subscriber import Subscriber
from server.live.topics import Message
from server.protocols import ArenaWebSocketProtocol

if TYPE_CHECKING:
    from server.live.hub import Hub


class DirectOutlet:
    """Over a connection of our own: the hub writes, the connection calls. It costs no task and no turn of the loop."""

    __slots__ = ("_hub", "_subscriber", "connection")

    def __init__(self, hub: Hub, subscriber: Subscriber, connection: ArenaWebSocketProtocol) -> None:
        self._hub = hub
        self._subscriber = subscriber
        self.connection = connection

    # what the subscriber wants

    def notify(self) -> None:
        """Have the subscriber served soon."""
        self._hub.enqueue(self._subscriber)

    def ping(self) -> None:
        """Ask for a pong; where older data waits it would not arrive, and the end of that waiting tells the same."""
        if not self._subscriber.is_blocked:
            self._hub.ask(self.connection)

    def abort(self) -> None:
        """Drop the connection."""
        self.connection.abort()

    # what the connection tells

    def receive(self, data: bytes | str) -> None:
        """Take a message of the client."""
        self._hub.receive(self._subscriber, data)

    def alive(self) -> None:
        """Take note of a pong; while data waits it says nothing that the end of the waiting will not say."""
        if not self._subscriber.is_blocked:
            self._subscriber.alive()

    def blocked(self) -> None:
        """Take note that the socket is full."""
        self._subscriber.blocked()

    def drained(self) -> None:
        """Take note that it is empty."""
        self._subscriber.drained()

    def ended(self) -> None:
        """Have the connection closed in its turn."""
        self._hub.enqueue(self._subscriber)

    def lost(self, code: int) -> None:
        """Have the subscriber forgotten in its turn."""
        self._hub.lost(self._subscriber, code)

    def finish(self, then: Callable[[], None]) -> None:
        """Call `then` once the client is owed no answer."""
        self._hub.finish(self._subscriber, then)

    def farewell(self) -> bytes:
        """Return the answers that wait, and the shutdown message."""
        return b"".join(message.framed for message in self._hub.farewell(self._subscriber))


class TaskOutlet:
    """Over the sends of an ASGI server: a task of its own waits until there is something, and until that is taken.

    send: returns when the server has taken a batch.
    """

    connection = None

    def __init__(self, hub: Hub, subscriber: Subscriber, send: Callable[[list[Message]], Awaitable[None]]) -> None:
        self._hub = hub
        self._subscriber = subscriber
        self._send = send
        self._news = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def notify(self) -> None:
        """Wake the task."""
        self._news.set()

    def ping(self) -> None:
        """Do nothing: the ASGI server pings."""

    def abort(self) -> None:
        """End the task, and with it the connection."""
        if self._task is not None:
            self._task.cancel()

    async def run(self) -> None:
        """Write until the subscriber closes; return when everything before its close has been sent."""
        self._task = asyncio.current_task()
        try:
            await self._write()
        finally:
            # it holds this outlet in turn
            self._task = None

    async def _write(self) -> None:
        subscriber = self._subscriber
        while True:
            self._news.clear()
            if batch := subscriber.drain():
                subscriber.blocked()
                await self._send(batch)
                subscriber.drained()
                subscriber.sent()
                self._hub.count(batch)
                # a server that takes all at once would keep everybody else waiting through a long catch-up
                await asyncio.sleep(0)
            elif subscriber.close_code is not None:
                return
            else:
                await self._news.wait()
