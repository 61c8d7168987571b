"""State channels narrowed to what a subscriber wants: some markets, their book, a frame every so many ticks.

Whoever asks for the same gets the same frames, made once: a topic for each form somebody asked for, fed by the whole
one. Its frames are joined from parts that all forms share (live/market_table); each says by its base which one comes
before it. A form nobody reads is kept as long as one may come back to it and nobody needs its room; how many there may
be at a time is bounded, for each costs its frames every tick. Source: DESIGN D4, section 3 (WebSocket).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Final, NamedTuple, NoReturn, Protocol

import numpy as np
from arena_client import wire
from arena_client.wire import SUBPROTOCOL_MSGPACK
from numpy.typing import NDArray

from engine.markets import MARKETS, NAMES
from engine.state import BOOK_LEVELS, State
from server.live import frames
from server.live.frames import CHANNELS, MARKET_TICK
from server.live.market_table import Book, MarketTable, book_of, parts_of
from server.live.topics import PULL_FRAMES_MAX, Message, StateTopic, Subscription
from server.metrics import Metrics

EVERY_MAX: Final = 100
"""Ticks between two frames, at most."""
DEPTH_MAX: Final = BOOK_LEVELS
FORMS_MAX: Final = 128
"""Narrowed forms of all channels at a time."""
RING_BYTES: Final = 256 * 1024
"""Of frames kept for who comes back to a form; forms with many markets and deep books reach less far back."""
FIELD_NAMES: Final = tuple(field.name for field in CHANNELS[MARKET_TICK].fields)


class Form(NamedTuple):
    """What is asked of a state channel beside its name. markets: rising, empty: all; depth: levels a side, 0: none."""

    markets: tuple[int, ...] = ()
    depth: int = 0
    every: int = 1

    def told(self) -> dict[str, Any]:
        """Return what an acknowledgement says of it: how the lists of the state are to be read."""
        told: dict[str, Any] = {"every": self.every}
        if self.markets:
            told |= {"markets": [NAMES[m] for m in self.markets], "fields": list(FIELD_NAMES)}
        if self.depth:
            told["depth"] = self.depth
        return told


WHOLE: Final = Form()


class FormsFull(Exception):
    """As many narrowed forms are read as the server takes."""


class FormCount:
    """How many forms there are, of all channels together. Where there is no room the longest unread one makes it."""

    def __init__(self, metrics: Metrics, most: int | None = None) -> None:
        self._metrics = metrics
        self._most = FORMS_MAX if most is None else most
        self._count = 0
        self._channels: list[NarrowableTopic] = []

    def join(self, channel: NarrowableTopic) -> None:
        """Count a channel's forms too."""
        self._channels.append(channel)

    def add(self) -> None:
        """Count another one. Raises FormsFull."""
        if self._count >= self._most:
            unread = [channel for channel in self._channels if channel.unread_until is not None]
            if not unread:
                self._metrics.narrowings_refused.inc()
                raise FormsFull(f"{self._most} narrowed forms of channels are in use")
            min(unread, key=lambda channel: channel.unread_until or 0).drop_unread()
        self._set(self._count + 1)

    def remove(self) -> None:
        """Count one less."""
        self._set(self._count - 1)

    def _set(self, count: int) -> None:
        self._count = count
        self._metrics.narrowings.set(count)


class BooksCopy:
    """What an auction left unfilled, copied; a market's book is made when somebody asks for it."""

    def __init__(self, levels: NDArray[np.int64], lots: NDArray[np.int64], prices: NDArray[np.int64]) -> None:
        self._levels, self._lots, self._prices = levels, lots, prices
        self._made: dict[int, Book] = {}

    def __getitem__(self, m: int) -> Book:
        """Return the book of a market."""
        if m not in self._made:
            self._made[m] = book_of(self._levels[:, m].tolist(), self._lots[:, m].tolist(), self._prices)
        return self._made[m]


class Books:
    """The unfilled books of markets, as far as wanted. state: read and written while the world stands still."""

    def __init__(self, state: State) -> None:
        self._state = state

    def noted(self) -> list[int]:
        """Return how many levels a side the last auction noted, by market."""
        levels: list[int] = self._state.book_wanted.tolist()
        return levels

    def want(self, levels: Sequence[int]) -> None:
        """Have so many levels noted from the next auction on, by market."""
        self._state.book_wanted[:] = levels

    def copy(self) -> BooksCopy:
        """Return what the last auction left in all markets."""
        return BooksCopy(self._state.book_level.copy(), self._state.book_lots.copy(), self._state.ladder)


class _Frame:
    """A delta by subprotocol, made when it is first asked for: most forms have readers of one, and idle ones none.

    base: the seq before it. make: returns it, its differences packed.
    """

    __slots__ = ("_make", "base", "encodings", "seq")

    def __init__(self, base: int, seq: int, make: Callable[[], dict[str, Any]]) -> None:
        self.base = base
        self.seq = seq
        self.encodings: dict[str, Message] = {}
        self._make: Callable[[], dict[str, Any]] | None = make

    @property
    def size(self) -> int:
        """Bytes of it that are made."""
        return self.encodings[SUBPROTOCOL_MSGPACK].size if self.encodings else 0

    def encoded(self, name: str, subprotocol: str, in_json: Callable[[dict[str, Any]], dict[str, Any]]) -> Message:
        """Return it in a subprotocol. name: of the channel. in_json: makes of it what JSON has."""
        if self._make is not None:
            payload = wire.encode(self._make(), SUBPROTOCOL_MSGPACK)
            self.encodings[SUBPROTOCOL_MSGPACK] = Message(payload, name, "delta", self.seq)
            # with it goes what it was to be made from
            self._make = None
        if subprotocol not in self.encodings:
            decoded = wire.decode(self.encodings[SUBPROTOCOL_MSGPACK].payload, SUBPROTOCOL_MSGPACK)
            self.encodings[subprotocol] = Message(wire.encode(in_json(decoded), subprotocol), name, "delta", self.seq)
        return self.encodings[subprotocol]


class NarrowTopic:
    """One form of a channel. seq: of its last frame; a tick, one of those that have a frame.

    readers: its subscriptions. expires: the tick behind which it is kept no longer without any.
    """

    def __init__(
        self, whole: StateTopic, form: Form, metrics: Metrics, resume_frames: int, lag_frames_max: int
    ) -> None:
        self.form = form
        self.name = whole.name
        self.epoch = whole.epoch
        self.seq: int | None = None
        self.readers = 0
        self.expires = 0
        self._metrics = metrics
        self._resume_frames = resume_frames
        self._lag_frames_max = lag_frames_max
        self._parts = parts_of(form.markets, form.depth)
        self._whole: wire.State = {}
        """The whole state where the topic stands, and the markets of it when it is narrowed to some."""
        self._table: MarketTable | None = None
        self._sent_ns = 0
        self._ring: deque[_Frame] = deque()
        self._ring_bytes = 0
        self._snapshots: dict[tuple[str, str], Message] = {}

    def step(self, tick: int, whole: wire.State, table: MarketTable | None, sent_ns: int) -> None:
        """Take a tick: the first one whatever it is, then the multiples of `every`. table: when there are markets."""
        if self.seq is not None and tick % self.form.every:
            return
        if self.seq is not None:
            make = partial(self._delta, self.seq, tick, self._whole, whole, self._table, table, sent_ns)
            self._ring.append(_Frame(self.seq, tick, make))
            self._trim()
        self.seq, self._whole, self._table, self._sent_ns = tick, whole, table, sent_ns
        self._snapshots.clear()

    def restart(self) -> None:
        """Forget where the topic stands: a tick is missing."""
        self.seq = self._table = None
        self._ring.clear()
        self._ring_bytes = 0

    def subscribe(self, epoch: str | None, seq: int | None) -> tuple[Subscription, dict[str, Any]]:
        """Return a new subscription, after seq where that can be resumed, and what the acknowledgement says of it."""
        subscription = self._resume(epoch, seq)
        subscription.form = self
        told = {"seq": self.seq, "resumed": subscription.seq is not None}
        return subscription, told | self.form.told()

    def pending(self, subscription: Subscription) -> bool:
        """Say whether there is something to pull."""
        return self.seq is not None and subscription.seq != self.seq

    def pull(self, subscription: Subscription, subprotocol: str) -> list[Message]:
        """Return the next frames for a subscription and move it on; a late one is told and gets a snapshot."""
        now = self.seq
        if now is None or subscription.seq == now:
            return []
        if subscription.seq is None:
            return [self._snapshot(subscription, now, subscription.reason, subprotocol)]
        first, end = self._following(subscription.seq), len(self._ring)
        in_step = self._following(max(subscription.seq, subscription.catching_up_to))
        if first is None or end - (first if in_step is None else in_step) > self._lag_frames_max:
            return self._catch_up(subscription, now, subprotocol)
        last = min(end, first + PULL_FRAMES_MAX)
        given = [self._ring[i] for i in range(first, last)]
        subscription.seq = given[-1].seq
        before = sum(frame.size for frame in given)
        messages = [frame.encoded(self.name, subprotocol, self._in_json) for frame in given]
        self._ring_bytes += sum(frame.size for frame in given) - before
        self._trim()
        return messages

    def _catch_up(self, subscription: Subscription, now: int, subprotocol: str) -> list[Message]:
        assert subscription.seq is not None
        skipped = max(1, -(-(now - subscription.seq) // self.form.every))
        self._metrics.frames_skipped.labels(self.name).inc(skipped)
        lagged = {"type": "lagged", "channel": self.name, "skipped": skipped}
        return [
            Message(wire.encode(lagged, subprotocol), self.name, "lagged"),
            self._snapshot(subscription, now, "lagged", subprotocol),
        ]

    def _resume(self, epoch: str | None, seq: int | None) -> Subscription:
        if epoch is None or seq is None:
            return Subscription(None)
        if epoch != self.epoch:
            return Subscription(None, "epoch")
        if self.seq is not None and seq > self.seq:
            return Subscription(None, "ahead")
        # a form that nobody asked for lately does not know where it stood
        if self.seq is None or self._following(seq) is None:
            return Subscription(None, "too_old")
        return Subscription(seq, catching_up_to=self.seq)

    def _following(self, seq: int) -> int | None:
        """Return which frame of the ring follows a seq, that to come after the last; None when it is not there."""
        if seq == self.seq:
            return len(self._ring)
        for i in range(len(self._ring) - 1, -1, -1):
            if self._ring[i].base <= seq:
                return i if self._ring[i].base == seq else None
        return None

    def _trim(self) -> None:
        """Let frames go that are too many, or too large together."""
        while len(self._ring) > self._resume_frames or (self._ring_bytes > RING_BYTES and len(self._ring) > 1):
            self._ring_bytes -= self._ring.popleft().size

    def _delta(
        self,
        base: int,
        tick: int,
        before: wire.State,
        after: wire.State,
        table_before: MarketTable | None,
        table: MarketTable | None,
        sent_ns: int,
    ) -> dict[str, Any]:
        if table is None or table_before is None:
            return frames.delta(self.name, self.epoch, base, tick, sent_ns, before, after)
        packed = b"".join([table.change(table_before, part) for part in self._parts])
        crc = table.checksum(self._parts) if frames.has_checksum(tick) else None
        return frames.delta_of(self.name, self.epoch, base, tick, sent_ns, packed, crc)

    def _in_json(self, frame: dict[str, Any]) -> dict[str, Any]:
        return frames.in_json(frame, self.epoch, self._state())

    def _state(self) -> wire.State:
        return self._whole if self._table is None else self._table.state(self._parts)

    def _snapshot(self, subscription: Subscription, now: int, reason: str, subprotocol: str) -> Message:
        subscription.seq = now
        if reason != "subscribed":
            self._metrics.resyncs.labels(reason).inc()
        key = (reason, subprotocol)
        if key not in self._snapshots:
            frame = frames.snapshot(self.name, self.epoch, now, self._sent_ns, self._state(), reason)
            self._snapshots[key] = Message(wire.encode(frame, subprotocol), self.name, "snapshot", now)
        return self._snapshots[key]


class NarrowableTopic(StateTopic):
    """A state channel as one subscribes to it: whole, or in a form of one's own.

    count: shared by all channels. books: where there is a world to take them from; only market_tick has any.
    """

    def __init__(
        self,
        name: str,
        epoch: str,
        metrics: Metrics,
        *,
        resume_frames: int,
        lag_frames_max: int,
        count: FormCount,
        books: Books | None = None,
    ) -> None:
        super().__init__(name, epoch, metrics, resume_frames=resume_frames, lag_frames_max=lag_frames_max)
        self.books = books
        self._count = count
        self._resume_frames = resume_frames
        self._forms: dict[Form, NarrowTopic] = {}
        self._unread: dict[Form, NarrowTopic] = {}
        """Those of them without readers, that which lost its last one first in front."""
        count.join(self)

    @property
    def unread_until(self) -> int | None:
        """When the form that is unread for longest expires, None when all have readers."""
        return next(iter(self._unread.values())).expires if self._unread else None

    def drop_unread(self) -> None:
        """Let the form go that is unread for longest."""
        form = next(iter(self._unread))
        del self._unread[form], self._forms[form]
        self._count.remove()
        if not self._forms and self.books is not None:
            self.books.want([0] * MARKETS)

    def subscribe(self, epoch: str | None, seq: int | None, form: Form = WHOLE) -> tuple[Subscription, dict[str, Any]]:
        """Return a new subscription, after seq where that can be resumed, and what the acknowledgement says of it.

        Raises FormsFull.
        """
        if form == WHOLE:
            return super().subscribe(epoch, seq)
        topic = self._topic(form)
        topic.readers += 1
        self._unread.pop(form, None)
        return topic.subscribe(epoch, seq)

    def begin_epoch(self, epoch: str) -> None:
        """Forget everything, in every form: the world goes on under another name."""
        super().begin_epoch(epoch)
        # nobody comes back to a place in another world
        while self._unread:
            self.drop_unread()
        for topic in self._forms.values():
            topic.epoch = epoch
            topic.restart()

    def leave(self, subscription: Subscription) -> None:
        """Take note that a subscription has ended; its form stays for who comes back."""
        topic = subscription.form
        if isinstance(topic, NarrowTopic):
            topic.readers -= 1
            if topic.readers == 0:
                topic.expires = (self.seq or 0) + self._resume_frames
                self._unread[topic.form] = topic

    def pending(self, subscription: Subscription) -> bool:
        """Say whether there is something to pull."""
        topic = subscription.form
        return topic.pending(subscription) if isinstance(topic, NarrowTopic) else super().pending(subscription)

    def pull(self, subscription: Subscription, subprotocol: str) -> list[Message]:
        """Return the next frames for a subscription and move it on."""
        topic = subscription.form
        if isinstance(topic, NarrowTopic):
            return topic.pull(subscription, subprotocol)
        return super().pull(subscription, subprotocol)

    def _topic(self, form: Form) -> NarrowTopic:
        """Return the topic of a form, a new one if nobody asked for it before."""
        topic = self._forms.get(form)
        if topic is None:
            self._count.add()
            topic = NarrowTopic(self, form, self._metrics, self._resume_frames, self._lag_frames_max)
            self._forms[form] = topic
            # a book is known from the auction after the next tick on: until then there is nothing to send
            if self.seq is not None and not form.depth:
                topic.step(self.seq, self.state, self._table(None) if form.markets else None, self.sent_ns)
        return topic

    def _stand_at(self, seq: int, state: wire.State, sent_ns: int) -> None:
        before = self.seq
        super()._stand_at(seq, state, sent_ns)
        while self.unread_until is not None and self.unread_until < seq:
            self.drop_unread()
        if not self._forms:
            return
        if before is None or seq != before + 1:
            for topic in self._forms.values():
                topic.restart()
        self._step(seq, state, sent_ns)

    def _step(self, seq: int, state: wire.State, sent_ns: int) -> None:
        noted, books = self._books()
        table = None
        for form, topic in self._forms.items():
            if form.depth and any(noted[m] < form.depth for m in form.markets):
                continue
            if form.markets and table is None:
                table = self._table(books)
            topic.step(seq, state, table if form.markets else None, sent_ns)

    def _books(self) -> tuple[list[int], BooksCopy | None]:
        """Return what the last auction noted, and have the next one note what is wanted now."""
        noted, wanted = [0] * MARKETS, [0] * MARKETS
        for form in self._forms:
            for m in form.markets:
                wanted[m] = max(wanted[m], form.depth)
        if self.books is None:
            return noted, None
        noted = self.books.noted()
        books = self.books.copy() if any(noted) else None
        if wanted != noted:
            self.books.want(wanted)
        return noted, books

    def _table(self, books: BooksCopy | None) -> MarketTable:
        assert self.seq is not None
        return MarketTable(self.seq, self.state, books)


class Refuse(Protocol):
    """Refuses a field of a message."""

    def __call__(self, key: str, value: Any, allowed: str | list[str]) -> NoReturn:
        """Raise. allowed: what the field may be."""


def parse_form(channel: str, message: Mapping[str, Any], refuse: Refuse) -> Form:
    """Return the form that a subscribe message to a state channel asks for."""
    markets = _markets(channel, message.get("markets"), refuse)
    depth, every = message.get("depth", 0), message.get("every", 1)
    if not _is_whole(every) or not 1 <= every <= EVERY_MAX:
        refuse("every", every, f"a whole number from 1 to {EVERY_MAX}: ticks between two frames")
    if "depth" in message:
        if not markets:
            refuse("depth", depth, f"together with markets, of the channel {MARKET_TICK}")
        if not _is_whole(depth) or not 1 <= depth <= DEPTH_MAX:
            refuse("depth", depth, f"a whole number from 1 to {DEPTH_MAX}: levels a side of the book")
    return Form(markets, depth, every)


def _markets(channel: str, names: Any, refuse: Refuse) -> tuple[int, ...]:
    if names is None:
        return ()
    if channel != MARKET_TICK:
        refuse("markets", names, f"only with the channel {MARKET_TICK}")
    if not isinstance(names, list) or not names:
        refuse("markets", names, f"a list of 1 to {MARKETS} names of markets")
    known = dict(zip(NAMES, range(MARKETS), strict=True))
    for name in names:
        if not isinstance(name, str) or name not in known:
            refuse("markets", name, list(NAMES))
    if len(set(names)) != len(names):
        refuse("markets", names, "each market once")
    return tuple(sorted(known[name] for name in names))


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
