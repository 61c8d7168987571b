"""Topics, subscribers, and the task that brings every tick to all of them without holding up anything else."""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Mapping
from dataclasses import replace
from itertools import islice
from typing import Any, Final, NamedTuple, Protocol

import structlog
from arena_client import wire

from engine.events import Event, TickReport
from engine.markets import NAMES
from server.clock import Clock
from server.config import Settings
from server.input_poll import InputPoll
from server.live import caps, frames
from server.live.agent_channel import AgentTopic
from server.live.caps import Caps, Holder
from server.live.desk import WAITING_MAX, Desk
from server.live.frames import CHANNELS, EVENT_CHANNELS, MARKET_TICK, RESOURCE_NAMES, STATE_CHANNELS
from server.live.groups import SLICE, Group, Key
from server.live.narrowing import DEPTH_MAX, EVERY_MAX, FORMS_MAX, Books, FormCount, NarrowableTopic
from server.live.outlets import DirectOutlet
from server.live.subscriber import (
    CONTROL,
    CONTROL_BURST,
    CONTROL_PER_S,
    CUT_AFTER_S,
    ID_LENGTH_MAX,
    INTERNAL,
    KEY_REVOKED,
    PING_INTERVAL_S,
    RESTART,
    SUBSCRIBE_WITHIN_S,
    UNDECODABLE_MAX,
    ActionDesk,
    Agents,
    Authenticate,
    Subscriber,
    Surroundings,
    Topic,
    spread,
)
from server.live.topics import EventTopic, Message
from server.live.workers import SYSTEM, Workers
from server.metrics import Metrics
from server.protocols import FRAMES_BURST_S, ArenaWebSocketProtocol, ping_frame, send_to_all
from server.send_loop import Sender

WATCH_S: Final = 1.0
"""Seconds between two looks at the rules of time of one connection."""
WATCHES: Final = 20
"""Parts that the connections are looked at in, one after another: pongs to pings of one moment come in one moment."""
QUIET_MAX_S: Final = 10.0
"""Longest that a connection is not looked at because nothing can be due. A look at each every second was a quarter of
what a server spends on 5,000 subscribers beside its writes (fanout_c)."""
PING: Final = ping_frame(b"arena")
PRIVATE: Final = "private"
"""Kind of the channel `agent`."""
FAILED: Final = "the server failed on this connection"
OWED_MAX_S: Final = 5.0
"""Longest that a stop waits for the answers to actions of one connection; the whole stop has 10 s (DESIGN R11)."""
RETRY_MIN_MS, RETRY_RANGE_MS = 500, 4_500
REVOKED_KEPT: Final = 1_024
"""Keys remembered after they were revoked: an answer about one may still be on its way."""


log = structlog.get_logger("arena.stream")


def _turns(seconds: float) -> int:
    """Return after how many turns of the watch so much time has passed, at least one."""
    return max(1, math.ceil(seconds * WATCHES / WATCH_S))


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


def _nobody(key_hash: bytes) -> Agents:
    """Know no key."""
    return None


def _goodbye(subscriber: Subscriber) -> dict[str, Any]:
    """Return the shutdown message: when to come back, spread over connections so that not all come at once."""
    return {"type": "shutdown", "retry_after_ms": RETRY_MIN_MS + int(RETRY_RANGE_MS * spread(subscriber.number))}


def stream_limits(settings: Settings) -> dict[str, int]:
    """Return every limit that a stream can meet: what hello tells, and /api/info."""
    return {
        "client_frame_bytes": wire.CLIENT_FRAME_MAX,
        "client_frames_per_s": settings.client_frames_per_s,
        "client_frames_burst": FRAMES_BURST_S * settings.client_frames_per_s,
        "control_per_s": int(CONTROL_PER_S),
        "control_burst": CONTROL_BURST,
        "subscribe_within_s": int(SUBSCRIBE_WITHIN_S),
        "unreadable_in_a_row": UNDECODABLE_MAX,
        "id_characters": ID_LENGTH_MAX,
        "actions_unanswered": WAITING_MAX,
        "ping_s": int(PING_INTERVAL_S),
        "pong_within_s": int(CUT_AFTER_S),
        "sockets_per_key": settings.sockets_per_key_max,
        "sockets_per_address": settings.sockets_per_address_max,
        "outbox_frames": settings.outbox_frames_max,
        "resume_frames": settings.resume_frames,
        "every_ticks": EVERY_MAX,
        "depth_levels": DEPTH_MAX,
        "narrowed_forms": FORMS_MAX,
    }


class Private(NamedTuple):
    """What a hub has for those who show a key: their channel, and where their actions go."""

    topic: AgentTopic
    desk: Desk


class Hub:
    """All topics and all subscribers of one world.

    epoch: the world's. clock: for every rule of time. authenticate: who an API key belongs to. origin_unix_ms: what
    sent_ns counts from, now unless given. `run` must be running for frames to leave; `publish` only makes them.
    books, private: where there is a world to have them of. desk: where actions go when that is elsewhere. workers: make
    the thread that helps to write.
    """

    def __init__(
        self,
        epoch: str,
        settings: Settings,
        metrics: Metrics,
        clock: Clock,
        authenticate: Authenticate = _nobody,
        origin_unix_ms: int | None = None,
        *,
        books: Books | None = None,
        private: Private | None = None,
        desk: ActionDesk | None = None,
        workers: Workers = SYSTEM,
    ) -> None:
        self.epoch = epoch
        self.tick: int | None = None
        self.is_stale = False
        """Whether the world is elsewhere and out of reach."""
        self.tick_rate_ms = settings.tick_rate
        self.origin_unix_ms = clock.unix_ns() // 1_000_000 if origin_unix_ms is None else origin_unix_ms
        self.sockets_max_in_all = settings.sockets_max
        self.elsewhere: Callable[[], int] = lambda: 0
        """Says how many connections other processes hold."""
        self.caps = Caps(settings.sockets_per_key_max, settings.sockets_per_address_max, metrics)
        self._settings = settings
        self._metrics = metrics
        self._clock = clock
        self._private = private
        self._send = Sender(lambda run: workers.thread("send", run))
        self._input = InputPoll(clock.monotonic)
        count = FormCount(metrics)
        self.states = {
            name: NarrowableTopic(
                name,
                epoch,
                metrics,
                resume_frames=settings.resume_frames,
                lag_frames_max=settings.outbox_frames_max,
                count=count,
                books=books if name == MARKET_TICK else None,
            )
            for name in STATE_CHANNELS
        }
        self._revoked: deque[bytes] = deque(maxlen=REVOKED_KEPT)
        self.events = {name: EventTopic(name, epoch) for name in EVENT_CHANNELS}
        topics: dict[str, Topic] = {**self.states, **self.events}
        topics = {name: topics[name] for name in CHANNELS}
        if private is not None:
            topics[private.topic.name] = private.topic
        self._around = Surroundings(
            topics=topics,
            controls_max=settings.outbox_frames_max,
            monotonic=clock.monotonic,
            now=self.now,
            authenticate=authenticate,
            is_revoked=self._revoked.__contains__,
            spawn=self._spawn,
            subscribed=lambda name, change: metrics.subscriptions.labels(name).inc(change),
            parted=self._parted,
            stuck=metrics.sockets_stuck.inc,
            desk=desk if private is None else private.desk,
            caps=self.caps,
        )
        self._subscribers: dict[int, Subscriber] = {}
        self._watched: tuple[dict[int, Subscriber], ...] = tuple({} for _ in range(_turns(QUIET_MAX_S) + 1))
        """The same by the turn in which they are looked at next: a wheel."""
        self._turn = 0
        self._opened = 0
        self._groups: dict[Key, Group] = {}
        self._singles: dict[int, Subscriber] = {}
        """Subscribers in no group, by number."""
        self._ready: dict[int, Subscriber] = {}
        """Those to be served at the next turns of the loop, in order."""
        self._lost: dict[int, int] = {}
        """Of those, close codes of the ones whose connection is gone."""
        self._is_serving = False
        self._asked: list[ArenaWebSocketProtocol] = []
        """Those to be pinged in this turn of the loop."""
        self._hellos: dict[str, tuple[tuple[str, int | None], Message]] = {}
        self._answering: set[asyncio.Task[None]] = set()
        self._news = asyncio.Event()
        self._empty = asyncio.Event()
        self._empty.set()
        self._closing = False
        self._counters: dict[tuple[str, str], tuple[Any, Any]] = {}
        self._channels = [
            {"name": channel.name, "kind": channel.kind, "schema": channel.schema_hash, "fields": channel.schema}
            for channel in CHANNELS.values()
        ]
        if private is not None:
            self._channels.append({"name": private.topic.name, "kind": PRIVATE, "schema": "", "fields": {}})

    # the world's side

    def prepare(self, tick: int, states: Mapping[str, wire.State]) -> None:
        """Make what can be made of a tick's frames before it is published; in any thread, while none is published."""
        for name, state in states.items():
            self.states[name].prepare(tick, state)

    def publish(self, view: Published) -> None:
        """Make the frames of a published tick and have them brought to everybody. Must follow every tick, in order."""
        sent_ns = frames.sent_ns(view.published_unix_ns, self.origin_unix_ms)
        self._take(view.report, view.states, sent_ns)
        self._news.set()

    def restore(self, tick: int, states: Mapping[str, wire.State]) -> None:
        """Take a tick of before this server's start: its frames can be resumed from. Its events: restore_events."""
        for name, state in states.items():
            self.states[name].publish(tick, state, 0)
        self.tick = tick

    def begin_events(self, counts: Mapping[str, int]) -> None:
        """Say how many events of each event channel happened before those that will be restored or published.

        The numbers of events are the world's: a world that begins warm, or one whose oldest events are no longer
        held, does not begin with number 1.
        """
        for name, count in counts.items():
            self.events[name].begin(count)

    def restore_events(self, events: Iterable[Event]) -> None:
        """Take the events of before this server's start, oldest first; those of no channel are passed over."""
        for happened in events:
            if happened.channel in self.events:
                self.events[happened.channel].publish(happened, 0)

    def _take(self, report: TickReport, states: Mapping[str, wire.State], sent_ns: int) -> None:
        for name, state in states.items():
            self.states[name].publish(report.tick, state, sent_ns)
        for happened in report.events:
            if happened.channel in self.events:
                self.events[happened.channel].publish(happened, sent_ns)
        self.tick = report.tick

    def revoke(self, key_hash: bytes) -> None:
        """Close every connection that speaks for a key which opens nothing any more."""
        self._revoked.append(key_hash)
        for subscriber in self.subscribers:
            if subscriber.key_hash == key_hash:
                subscriber.close(KEY_REVOKED, "the API key was revoked")

    # the side of a world that is elsewhere

    def arrived(self, tick: int | None) -> None:
        """Have what was put into the topics brought to everybody. tick: the newest one."""
        self.tick = tick
        self.is_stale = False
        self._news.set()

    def forget(self) -> None:
        """Let the state channels begin anew: what is here was found to be wrong."""
        for topic in self.states.values():
            topic.begin_epoch(self.epoch)

    def begin_epoch(self, epoch: str, origin_unix_ms: int, tick_rate_ms: int) -> None:
        """Go on with another world: every topic begins empty, nobody is subscribed; `greet_all` must follow."""
        self.epoch, self.origin_unix_ms, self.tick_rate_ms, self.tick = epoch, origin_unix_ms, tick_rate_ms, None
        topics: list[NarrowableTopic | EventTopic] = [*self.states.values(), *self.events.values()]
        for topic in topics:
            topic.begin_epoch(epoch)
        for subscriber in self.subscribers:
            subscriber.end_subscriptions()

    async def greet_all(self) -> None:
        """Greet everybody with the world that is there now; who has subscribed meanwhile does so once more."""
        async for subscriber in self._in_slices():
            subscriber.end_subscriptions()
            if subscriber.is_mute:
                subscriber.close(RESTART, "another world is here now")
            else:
                subscriber.tell_encoded(self._hello(subscriber.subprotocol))

    async def go_stale(self) -> None:
        """Tell everybody, and whoever comes, that nothing new comes until the world is back."""
        self.is_stale = True
        async for subscriber in self._in_slices():
            subscriber.tell(self._stale())

    def _stale(self) -> dict[str, Any]:
        return {"type": "stale", "tick": self.tick}

    async def _in_slices(self) -> AsyncIterator[Subscriber]:
        for i, subscriber in enumerate(self.subscribers):
            yield subscriber
            if i % SLICE == SLICE - 1:
                await asyncio.sleep(0)

    async def run(self) -> None:
        """Bring frames to subscribers and keep the rules of time, until `close`."""
        try:
            async with asyncio.TaskGroup() as tasks:
                helpers = [tasks.create_task(self._watch())]
                if self._private is not None:
                    helpers += [tasks.create_task(part.run()) for part in self._private]
                await self._fan_out()
                for helper in helpers:
                    helper.cancel()
        finally:
            self._send.close()
            self._input.close()

    async def close(self) -> None:
        """Tell every subscriber that the server goes, close with 1012 and return when all are gone."""
        self._closing = True
        for subscriber in self.subscribers:
            self.dismiss(subscriber)
        await self._empty.wait()
        for task in self._answering:
            task.cancel()
        self._news.set()

    async def _fan_out(self) -> None:
        while not (self._closing and not self._subscribers):
            await self._news.wait()
            self._news.clear()
            for key, group in tuple(self._groups.items()):
                if len(group):
                    await self._bring(group)
                elif self._groups[key] is group:
                    del self._groups[key]
            for i, subscriber in enumerate(tuple(self._singles.values())):
                if subscriber.outlet is not None and not subscriber.is_blocked and subscriber.pending:
                    subscriber.outlet.notify()
                if i % SLICE == SLICE - 1:
                    await asyncio.sleep(0)

    async def _bring(self, group: Group) -> None:
        """Give a group all that is new, slice by slice."""
        while batch := self._begin(group):
            given = 0
            while group.is_under_way:
                given += group.step()
                await asyncio.sleep(0)
            self.count(batch, given)

    def _begin(self, group: Group) -> list[Message]:
        try:
            return group.begin(self._around.topics, self._clock.monotonic())
        except Exception:
            log.exception("stream_failed", subscribers=len(group))
            for member in group.members:
                self._subscribers[member.number].close(INTERNAL, FAILED)
            return []

    async def _watch(self) -> None:
        period = WATCH_S / WATCHES
        deadline = self._clock.monotonic()
        while True:
            # a server that was held up makes up for the turns it missed, but goes round once at most
            deadline = max(deadline + period, self._clock.monotonic() - len(self._watched) * period)
            await self._clock.sleep_until(deadline)
            self._turn = (self._turn + 1) % len(self._watched)
            await self._look(self._watched[self._turn])

    async def _look(self, watched: dict[int, Subscriber]) -> None:
        """Look at those whose turn it is, slice by slice."""
        looked_at = list(watched.values())
        for first in range(0, len(looked_at), SLICE):
            for subscriber in looked_at[first : first + SLICE]:
                # who has left meanwhile, or its group, is no longer there
                if watched.pop(subscriber.number, None) is not None:
                    quiet_s = subscriber.check(self._clock.monotonic(), self._settings.heartbeat_s) or WATCH_S
                    if subscriber.number in self._subscribers:
                        self._watch_in(subscriber, _turns(min(max(quiet_s, 0.0), QUIET_MAX_S)))
            self._ping()
            if first + SLICE < len(looked_at):
                await asyncio.sleep(0)

    def _watch_in(self, subscriber: Subscriber, turns: int) -> None:
        """Look at a subscriber so many turns from now, and no sooner."""
        subscriber.watched.pop(subscriber.number, None)
        subscriber.watched = self._watched[(self._turn + turns) % len(self._watched)]
        subscriber.watched[subscriber.number] = subscriber

    def _watch_soon(self, subscriber: Subscriber) -> None:
        """Look at a subscriber within WATCH_S, with others only that have come at other times."""
        self._watch_in(subscriber, 1 + subscriber.number % WATCHES)

    def _ping(self) -> None:
        # one by one each gave the interpreter's lock away, and waited up to a millisecond for a tick to give it back
        asked, self._asked = self._asked, []
        send_to_all([connection for connection in asked if connection.is_open], PING, self._send)

    # the subscribers' side

    @property
    def subscribers(self) -> list[Subscriber]:
        """Everybody connected, oldest first: a list of its own, that does not change while one goes through it."""
        return list(self._subscribers.values())

    @property
    def connected(self) -> int:
        """Number of connections."""
        return len(self._subscribers)

    @property
    def is_full(self) -> bool:
        """Whether no further connection may be opened: by number, here or everywhere, or because the server goes."""
        here = self.connected
        is_full_here = here >= self._settings.sockets_max
        return self._closing or is_full_here or here + self.elsewhere() >= self.sockets_max_in_all

    def refusal(self, holder: Holder) -> str | None:
        """Return why no further connection may be opened for somebody, None when it may; a refusal is counted."""
        if self.is_full:
            self._metrics.sockets_refused.labels("all").inc()
            return "no room for another stream"
        return self.caps.refusal(holder)

    def open(self, subprotocol: str, holder: Holder = caps.NOBODY) -> Subscriber:
        """Return a new subscriber with its hello waiting; the caller moves the bytes and calls `leave`.

        holder: whom it counts for until it shows a key.
        """
        subscriber = Subscriber(self._around, self._opened, subprotocol, holder)
        self.caps.take(holder)
        self._subscribers[self._opened] = self._singles[self._opened] = subscriber
        self._watch_soon(subscriber)
        self._opened += 1
        self._empty.clear()
        self._metrics.sockets_opened.inc()
        self._metrics.sockets.set(self.connected)
        subscriber.tell_encoded(self._hello(subprotocol))
        if self.is_stale:
            subscriber.tell(self._stale())
        return subscriber

    def attach(self, subscriber: Subscriber, connection: ArenaWebSocketProtocol) -> None:
        """Move a subscriber's bytes over a connection of our own; when that ends the subscriber leaves by itself."""
        subscriber.connection = connection
        subscriber.outlet = outlet = DirectOutlet(self, subscriber, connection)
        outlet.notify()
        connection.attach(outlet, self._input)

    def ask(self, connection: ArenaWebSocketProtocol) -> None:
        """Ping a connection, with the others that are looked at in the same turn of the loop."""
        self._asked.append(connection)

    def receive(self, subscriber: Subscriber, data: bytes | str) -> None:
        """Let a subscriber take a message of its client."""
        try:
            subscriber.receive(data)
        except Exception:
            self._fail(subscriber)

    def enqueue(self, subscriber: Subscriber) -> None:
        """Serve a subscriber with a connection at the next turn of the loop."""
        self._ready[subscriber.number] = subscriber
        if not self._is_serving:
            self._is_serving = True
            asyncio.get_running_loop().call_soon(self._serve)

    def lost(self, subscriber: Subscriber, code: int) -> None:
        """Let a subscriber leave in its turn: its connection is gone."""
        self._lost[subscriber.number] = code
        self.enqueue(subscriber)

    def _serve(self) -> None:
        """Serve a slice of those that are to be served, and let others have their turn."""
        for number in tuple(islice(self._ready, SLICE)):
            self._advance(self._ready.pop(number))
        self._is_serving = bool(self._ready)
        if self._is_serving:
            asyncio.get_running_loop().call_soon(self._serve)

    def _advance(self, subscriber: Subscriber) -> None:
        """Give a subscriber what is next for it, close its connection, or let it into its group."""
        connection = subscriber.connection
        if subscriber.number in self._lost:
            self.leave(subscriber, self._lost.pop(subscriber.number))
            return
        if connection is not None and connection.is_ended:
            connection.end()
            return
        # one that is blocked comes back when its socket is empty
        if connection is None or subscriber.is_blocked or not connection.is_open:
            return
        try:
            batch = subscriber.drain()
        except Exception:
            self._fail(subscriber)
            return
        if batch:
            connection.write(b"".join(message.framed for message in batch))
            subscriber.sent()
            self.count(batch)
        if subscriber.close_code is not None:
            connection.close(subscriber.close_code, subscriber.close_reason)
        elif subscriber.pending and not subscriber.is_blocked:
            self.enqueue(subscriber)
        else:
            self._join(subscriber)

    def _fail(self, subscriber: Subscriber) -> None:
        # one connection's mistake is ours to mend and nobody else's to notice
        log.exception("stream_failed", subscriber=subscriber.number)
        subscriber.close(INTERNAL, FAILED)

    def _join(self, subscriber: Subscriber) -> None:
        """Let a subscriber that is in step into the group of its kind."""
        key = subscriber.key
        if key is None:
            return
        group = self._groups.get(key)
        if group is None or not len(group):
            cursors = {name: replace(subscriber.subscriptions[name]) for name, _ in key[1]}
            group = self._groups[key] = Group(subscriber.subprotocol, cursors, self._send)
        elif not group.stands_with(subscriber.subscriptions):
            return
        group.add(subscriber)
        del self._singles[subscriber.number]

    def _parted(self, subscriber: Subscriber) -> None:
        if subscriber.number in self._subscribers:
            self._singles[subscriber.number] = subscriber
            self._watch_soon(subscriber)

    def leave(self, subscriber: Subscriber, code: int) -> None:
        """Forget a subscriber whose connection ended; code: the close code it ended with, unless we closed it."""
        if subscriber.close_code is not None:
            code = subscriber.close_code
        del self._subscribers[subscriber.number]
        subscriber.watched.pop(subscriber.number, None)
        self.caps.give(subscriber.holder)
        subscriber.part()
        self._singles.pop(subscriber.number, None)
        self._ready.pop(subscriber.number, None)
        subscriber.has_left = True
        for name, subscription in subscriber.subscriptions.items():
            self._around.topics[name].leave(subscription)
            self._metrics.subscriptions.labels(name).dec()
        # whoever still goes through a list that holds it must not end them again
        subscriber.subscriptions = {}
        if subscriber.holds and self._private is not None and subscriber.identity is not None:
            # the web server says goodbye before it tells anybody else that it stops
            is_stopping = self._closing or subscriber.is_dismissed
            self._private.desk.release(subscriber.identity, is_stopping=is_stopping)
        # a client may close with any code it likes, which must not make a series of its own
        self._metrics.sockets_closed.labels(str(code) if code in wire.CLOSE_CODES else "other").inc()
        self._metrics.sockets.set(self.connected)
        # they hold the subscriber in turn
        subscriber.outlet = subscriber.connection = None
        if not self._subscribers:
            self._empty.set()

    def count(self, batch: list[Message], times: int = 1) -> None:
        """Count what was handed to so many connections."""
        for message in batch:
            key = (message.channel, message.kind)
            if key not in self._counters:
                self._counters[key] = (self._metrics.frames.labels(*key), self._metrics.frame_bytes.labels(*key))
            frame_count, byte_count = self._counters[key]
            frame_count.inc(times)
            byte_count.inc(message.size * times)

    def hello(self) -> dict[str, Any]:
        """Return the first message of a connection: everything a client must know to read the others."""
        settings = self._settings
        return {
            "type": "hello",
            "version": wire.VERSION,
            "epoch": self.epoch,
            "tick": self.tick,
            "tick_rate_ms": self.tick_rate_ms,
            "heartbeat_s": settings.heartbeat_s,
            "origin_unix_ms": self.origin_unix_ms,
            "markets": list(NAMES),
            "resources": list(RESOURCE_NAMES),
            "channels": self._channels,
            "limits": stream_limits(settings) | self.caps.announced(),
        }

    def _hello(self, subprotocol: str) -> Message:
        """Return the hello of this tick, encoded once for all who come."""
        of, message = self._hellos.get(subprotocol, (None, None))
        if message is None or of != (self.epoch, self.tick):
            message = Message(wire.encode(self.hello(), subprotocol), CONTROL, "hello")
            self._hellos[subprotocol] = (self.epoch, self.tick), message
        return message

    def dismiss(self, subscriber: Subscriber) -> None:
        """Tell a subscriber that the server goes, and close with 1012, once it is owed no answer."""

        def go() -> None:
            subscriber.tell(_goodbye(subscriber))
            subscriber.close(RESTART, "the server restarts")

        self.finish(subscriber, go)

    def finish(self, subscriber: Subscriber, then: Callable[[], None]) -> None:
        """Call `then`, once, when a subscriber is owed no answer, or after OWED_MAX_S; it takes nothing more."""
        subscriber.finish(then)
        if subscriber.is_finishing:
            asyncio.get_running_loop().call_later(OWED_MAX_S, subscriber.give_up)

    def farewell(self, subscriber: Subscriber) -> list[Message]:
        """Return the last frames of a connection that the web server, not the hub, is about to close."""
        told = _goodbye(subscriber)
        batch = [*subscriber.answers(), Message(wire.encode(told, subscriber.subprotocol), CONTROL, told["type"])]
        self.count(batch)
        return batch

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._answering.add(task)
        task.add_done_callback(self._answering.discard)

    def now(self) -> tuple[int | None, int]:
        """Return the last published tick and the time as sent_ns."""
        return self.tick, frames.sent_ns(self._clock.unix_ns(), self.origin_unix_ms)
