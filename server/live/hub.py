"""Topics, subscribers, and the task that brings every tick to all of them without holding up anything else."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from typing import Any, Final, Protocol

from arena_client import wire

from engine.events import Event, TickReport
from engine.markets import NAMES
from server.clock import Clock
from server.config import Settings
from server.live import frames
from server.live.frames import CHANNELS, EVENT_CHANNELS, RESOURCE_NAMES, STATE_CHANNELS
from server.live.subscriber import (
    CONTROL,
    CONTROL_BURST,
    CONTROL_PER_S,
    RESTART,
    SUBSCRIBE_WITHIN_S,
    Authenticate,
    Subscriber,
    Surroundings,
)
from server.live.topics import EventTopic, Message, StateTopic, Topic
from server.metrics import Metrics

SLICE: Final = 100
"""Connections woken before others get a turn: whole fan-outs held HTTP up for 60 ms, slices for 5."""
WATCH_S: Final = 1.0
"""Seconds between two looks at the rules of time."""
RETRY_MIN_MS, RETRY_RANGE_MS = 500, 4_500
_SPREAD: Final = 2_654_435_769
"""2^32 / golden ratio: multiples of it, modulo 2^32, lie evenly spread however many there are."""


class Published(Protocol):
    """What the hub needs of a view."""

    @property
    def report(self) -> TickReport:
        """What the tick reported."""

    @property
    def states(self) -> Mapping[str, wire.State]:
        """The integers of every state channel."""

    @property
    def published_unix_ns(self) -> int:
        """When it became visible."""


def _nobody(api_key: str) -> list[str] | None:
    """Know no key."""
    return None


def _goodbye(subscriber: Subscriber) -> dict[str, Any]:
    """Return the shutdown message: when to come back, spread over connections so that not all come at once."""
    spread = subscriber.number * _SPREAD % (1 << 32)
    return {"type": "shutdown", "retry_after_ms": RETRY_MIN_MS + (spread * RETRY_RANGE_MS >> 32)}


def stream_limits(settings: Settings) -> dict[str, int]:
    """Return every limit of one connection: what hello tells, and /api/info."""
    return {
        "client_frame_bytes": wire.CLIENT_FRAME_MAX,
        "control_per_s": int(CONTROL_PER_S),
        "control_burst": CONTROL_BURST,
        "subscribe_within_s": int(SUBSCRIBE_WITHIN_S),
        "outbox_frames": settings.outbox_frames_max,
        "resume_frames": settings.resume_frames,
    }


class Hub:
    """All topics and all subscribers of one world.

    epoch: the world's. clock: for every rule of time. authenticate: who an API key belongs to. `run` must be running
    for frames to leave; `publish` only makes them.
    """

    def __init__(
        self, epoch: str, settings: Settings, metrics: Metrics, clock: Clock, authenticate: Authenticate = _nobody
    ) -> None:
        self.epoch = epoch
        self.tick: int | None = None
        self.origin_unix_ms = clock.unix_ns() // 1_000_000
        self._settings = settings
        self._metrics = metrics
        self._clock = clock
        self._states = {
            name: StateTopic(
                name,
                epoch,
                metrics,
                resume_frames=settings.resume_frames,
                lag_frames_max=settings.outbox_frames_max,
            )
            for name in STATE_CHANNELS
        }
        self._events = {name: EventTopic(name, epoch) for name in EVENT_CHANNELS}
        topics: dict[str, Topic] = {**self._states, **self._events}
        self._around = Surroundings(
            epoch=epoch,
            topics={name: topics[name] for name in CHANNELS},
            controls_max=settings.outbox_frames_max,
            monotonic=clock.monotonic,
            now=self._now,
            authenticate=authenticate,
            subscribed=lambda name, change: metrics.subscriptions.labels(name).inc(change),
        )
        self._subscribers: dict[int, Subscriber] = {}
        self._opened = 0
        self._news = asyncio.Event()
        self._empty = asyncio.Event()
        self._empty.set()
        self._closing = False
        self._counters: dict[tuple[str, str], tuple[Any, Any]] = {}
        self._channels = [
            {"name": channel.name, "kind": channel.kind, "schema": channel.schema_hash, "fields": channel.schema}
            for channel in CHANNELS.values()
        ]

    # the world's side

    def publish(self, view: Published) -> None:
        """Make the frames of a published tick and have them brought to everybody. Must follow every tick, in order."""
        sent_ns = frames.sent_ns(view.published_unix_ns, self.origin_unix_ms)
        self._take(view.report, view.states, sent_ns)
        self._news.set()

    def restore(self, tick: int, states: Mapping[str, wire.State]) -> None:
        """Take a tick of before this server's start: its frames can be resumed from. Its events: restore_events."""
        for name, state in states.items():
            self._states[name].publish(tick, state, 0)
        self.tick = tick

    def begin_events(self, counts: Mapping[str, int]) -> None:
        """Say how many events of each event channel happened before those that will be restored or published.

        The numbers of events are the world's: a world that begins warm, or one whose oldest events are no longer
        held, does not begin with number 1.
        """
        for name, count in counts.items():
            self._events[name].begin(count)

    def restore_events(self, events: Iterable[Event]) -> None:
        """Take the events of before this server's start, oldest first; those of no channel are passed over."""
        for happened in events:
            if happened.channel in self._events:
                self._events[happened.channel].publish(happened, 0)

    def _take(self, report: TickReport, states: Mapping[str, wire.State], sent_ns: int) -> None:
        for name, state in states.items():
            self._states[name].publish(report.tick, state, sent_ns)
        for happened in report.events:
            if happened.channel in self._events:
                self._events[happened.channel].publish(happened, sent_ns)
        self.tick = report.tick

    async def run(self) -> None:
        """Bring frames to subscribers and keep the rules of time, until `close`."""
        async with asyncio.TaskGroup() as tasks:
            watch = tasks.create_task(self._watch())
            await self._fan_out()
            watch.cancel()

    async def close(self) -> None:
        """Tell every subscriber that the server goes, close with 1012 and return when all are gone."""
        self._closing = True
        for subscriber in self.subscribers:
            subscriber.tell(_goodbye(subscriber))
            subscriber.close(RESTART, "the server restarts")
        await self._empty.wait()
        self._news.set()

    async def _fan_out(self) -> None:
        while not (self._closing and not self._subscribers):
            await self._news.wait()
            self._news.clear()
            for i, subscriber in enumerate(self.subscribers):
                if subscriber.pending:
                    subscriber.wake.set()
                if i % SLICE == SLICE - 1:
                    await asyncio.sleep(0)

    async def _watch(self) -> None:
        deadline = self._clock.monotonic()
        while True:
            deadline = max(deadline + WATCH_S, self._clock.monotonic())
            await self._clock.sleep_until(deadline)
            for i, subscriber in enumerate(self.subscribers):
                subscriber.check(self._clock.monotonic(), self._settings.heartbeat_s)
                if i % SLICE == SLICE - 1:
                    await asyncio.sleep(0)

    # the subscribers' side

    @property
    def subscribers(self) -> list[Subscriber]:
        """Everybody connected, oldest first: a list of its own, that does not change while one goes through it."""
        return list(self._subscribers.values())

    @property
    def is_full(self) -> bool:
        """Whether no further connection may be opened, by number or because the server goes."""
        return self._closing or len(self._subscribers) >= self._settings.sockets_max

    def open(self, subprotocol: str) -> Subscriber:
        """Return a new subscriber with its hello waiting; the caller moves the bytes and calls `leave`."""
        subscriber = Subscriber(self._around, self._opened, subprotocol)
        self._subscribers[self._opened] = subscriber
        self._opened += 1
        self._empty.clear()
        self._metrics.sockets_opened.inc()
        self._metrics.sockets.set(len(self._subscribers))
        subscriber.tell(self.hello())
        return subscriber

    def leave(self, subscriber: Subscriber, code: int) -> None:
        """Forget a subscriber whose connection ended; code: the close code it ended with."""
        del self._subscribers[subscriber.number]
        for name in subscriber.subscriptions:
            self._metrics.subscriptions.labels(name).dec()
        # a client may close with any code it likes, which must not make a series of its own
        self._metrics.sockets_closed.labels(str(code) if code in wire.CLOSE_CODES else "other").inc()
        self._metrics.sockets.set(len(self._subscribers))
        if not self._subscribers:
            self._empty.set()

    def count(self, batch: list[Message]) -> None:
        """Count what was handed to a connection."""
        for message in batch:
            key = (message.channel, message.kind)
            if key not in self._counters:
                self._counters[key] = (self._metrics.frames.labels(*key), self._metrics.frame_bytes.labels(*key))
            frame_count, byte_count = self._counters[key]
            frame_count.inc()
            byte_count.inc(message.size)

    def hello(self) -> dict[str, Any]:
        """Return the first message of a connection: everything a client must know to read the others."""
        settings = self._settings
        return {
            "type": "hello",
            "version": wire.VERSION,
            "epoch": self.epoch,
            "tick": self.tick,
            "tick_rate_ms": settings.tick_rate,
            "heartbeat_s": settings.heartbeat_s,
            "origin_unix_ms": self.origin_unix_ms,
            "markets": list(NAMES),
            "resources": list(RESOURCE_NAMES),
            "channels": self._channels,
            "limits": stream_limits(settings),
        }

    def farewell(self, subscriber: Subscriber) -> Message:
        """Return the last frame of a connection that the web server, not the hub, is about to close."""
        told = _goodbye(subscriber)
        return Message(wire.encode(told, subscriber.subprotocol), CONTROL, told["type"])

    def _now(self) -> tuple[int | None, int]:
        return self.tick, frames.sent_ns(self._clock.unix_ns(), self.origin_unix_ms)
