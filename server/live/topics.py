"""What one subscribes to: the current state and its recent frames, or the log of events, and how both are handed out.

A subscription is a cursor into its topic. Nothing is queued for anybody: when a connection can take more, it pulls
what lies between its cursor and now. A slow reader therefore costs a number, resuming is setting that number, and
being too slow is the number having fallen too far behind.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final, Protocol

from arena_client import wire
from arena_client.wire import SUBPROTOCOL_MSGPACK

from engine.errors import InvariantBroken
from engine.events import Event
from server.live import frames
from server.metrics import Metrics
from server.protocols import prebuilt

PULL_FRAMES_MAX: Final = 8
"""Frames handed out at a time: a long catch-up leaves in pieces, each after the socket took the one before."""
EVENTS_MAX: Final = 100_000
"""Events of a channel kept for who comes back: a month of discoveries, about 25 MB."""


class TooFarBehind(Exception):
    """A subscriber is further behind than its topic keeps, in a channel that leaves nothing out: it must come back."""


class Message:
    """A frame ready to be sent on any number of connections of one encoding. seq: of a data frame."""

    __slots__ = ("_framed", "channel", "kind", "payload", "seq", "size")

    def __init__(self, payload: bytes | str, channel: str, kind: str, seq: int | None = None) -> None:
        self.payload = payload
        self.seq = seq
        self.size = len(payload if isinstance(payload, bytes) else payload.encode())
        self.channel = channel
        self.kind = kind
        self._framed: bytes | None = None

    @property
    def framed(self) -> bytes:
        """The whole WebSocket frame, made once for all who share the message."""
        if self._framed is None:
            self._framed = prebuilt(self.payload)
        return self._framed


@dataclass(slots=True)
class Subscription:
    """How far one connection has come in one topic.

    seq: the last frame handed out; None: a snapshot is next, for `reason`. catching_up_to: the seq at which a resumed
    subscription was in step; only what comes after it can make the subscriber late. form: what else than the topic
    decides its frames; subscriptions of equal form and seq are given the same ones, and share them (live/groups).
    """

    seq: int | None
    reason: str = "subscribed"
    catching_up_to: int = 0
    form: Hashable = None


class Topic(Protocol):
    """What is needed of a topic once somebody has subscribed to it."""

    def pending(self, subscription: Subscription) -> bool:
        """Say whether there is something to pull."""

    def pull(self, subscription: Subscription, subprotocol: str) -> list[Message]:
        """Return the next frames for a subscription and move it on."""


class StateTopic:
    """A state channel: one state, changed every tick, seq = tick."""

    def __init__(self, name: str, epoch: str, metrics: Metrics, *, resume_frames: int, lag_frames_max: int) -> None:
        self.name = name
        self.epoch = epoch
        self.seq: int | None = None
        self.state: wire.State = {}
        self.sent_ns = 0
        self._metrics = metrics
        # there from the begin: a count that appears with its first event hides that event from a rate
        self._frames_skipped = metrics.frames_skipped.labels(name)
        self._lag_frames_max = lag_frames_max
        self._ring: deque[dict[str, Message]] = deque(maxlen=resume_frames)
        self._prepared: tuple[wire.State, dict[str, Any]] = {}, {}
        """A state that may be the next one, and the frame that leads to it."""
        self._snapshots: dict[tuple[str, str], Message] = {}

    def prepare(self, tick: int, state: wire.State) -> None:
        """Make the frame of a state that will be published next; in any thread, while nothing is published."""
        if self.seq is not None and tick == self.seq + 1:
            self._prepared = state, frames.delta(self.name, self.epoch, self.seq, tick, 0, self.state, state)

    def publish(self, tick: int, state: wire.State, sent_ns: int) -> None:
        """Make state the current one and add the frame that leads to it, or start over after a jump."""
        if self.seq is not None and tick == self.seq + 1:
            prepared, frame = self._prepared
            if prepared is not state or (frame["epoch"], frame["seq"]) != (self.epoch, tick):
                frame = frames.delta(self.name, self.epoch, self.seq, tick, sent_ns, self.state, state)
            frame["sent_ns"] = sent_ns
            self._append(tick, wire.encode(frame, SUBPROTOCOL_MSGPACK))
        else:
            self._ring.clear()
        self._stand_at(tick, state, sent_ns)

    def follow(self, frame: dict[str, Any], state: wire.State, payload: bytes) -> None:
        """Take the next frame, made elsewhere, and the state it leads to. payload: the frame as msgpack."""
        self._append(frame["seq"], payload)
        self._stand_at(frame["seq"], state, frame["sent_ns"])

    def adopt(self, seq: int, state: wire.State, sent_ns: int, payloads: Sequence[bytes]) -> None:
        """Begin anew with a state and the frames, oldest first, the last of which leads to it; made elsewhere."""
        self._ring.clear()
        numbered = enumerate(payloads, seq - len(payloads) + 1)
        self._ring.extend({SUBPROTOCOL_MSGPACK: Message(payload, self.name, "delta", i)} for i, payload in numbered)
        self._stand_at(seq, state, sent_ns)

    def since(self, seq: int | None) -> list[bytes] | None:
        """Return the frames after seq as msgpack, None when they are not all kept; seq None: all that are kept."""
        kept = len(self._ring)
        if self.seq is None or seq is None:
            first = 0
        elif self.seq - kept <= seq <= self.seq:
            first = kept - (self.seq - seq)
        else:
            return None
        return [_bytes(encodings[SUBPROTOCOL_MSGPACK]) for encodings in islice(self._ring, first, None)]

    def subscribe(self, epoch: str | None, seq: int | None) -> tuple[Subscription, dict[str, Any]]:
        """Return a new subscription, after seq where that can be resumed, and what the acknowledgement says of it."""
        subscription, resumed = self._resume(epoch, seq)
        return subscription, {"seq": self.seq, "resumed": resumed}

    def pending(self, subscription: Subscription) -> bool:
        """Say whether there is something to pull."""
        return self.seq is not None and subscription.seq != self.seq

    def pull(self, subscription: Subscription, subprotocol: str) -> list[Message]:
        """Return the next frames for a subscription and move it on; a late one is told and gets a snapshot."""
        now = self.seq
        if now is None or subscription.seq == now:
            return []
        if subscription.seq is None:
            return [self._give_snapshot(subscription, now, subscription.reason, subprotocol)]
        oldest = now - len(self._ring)
        if subscription.seq < oldest or now - max(subscription.seq, subscription.catching_up_to) > self._lag_frames_max:
            skipped = now - subscription.seq
            self._frames_skipped.inc(skipped)
            lagged = {"type": "lagged", "channel": self.name, "skipped": skipped}
            return [
                Message(wire.encode(lagged, subprotocol), self.name, "lagged"),
                self._give_snapshot(subscription, now, "lagged", subprotocol),
            ]
        first = subscription.seq
        subscription.seq = min(now, first + PULL_FRAMES_MAX)
        return [self._delta(i - oldest, subprotocol) for i in range(first, subscription.seq)]

    def leave(self, subscription: Subscription) -> None:
        """Take note that a subscription has ended."""

    def begin_epoch(self, epoch: str) -> None:
        """Forget everything: the world goes on under another name, and its numbers mean something else."""
        self.epoch, self.seq, self.state, self.sent_ns = epoch, None, {}, 0
        self._ring.clear()
        self._snapshots.clear()

    def _append(self, seq: int, payload: bytes | str) -> None:
        self._ring.append({SUBPROTOCOL_MSGPACK: Message(payload, self.name, "delta", seq)})

    def _stand_at(self, seq: int, state: wire.State, sent_ns: int) -> None:
        self.seq, self.state, self.sent_ns = seq, state, sent_ns
        self._snapshots.clear()

    def _resume(self, epoch: str | None, seq: int | None) -> tuple[Subscription, bool]:
        if epoch is None or seq is None:
            return Subscription(None), False
        if epoch != self.epoch:
            return Subscription(None, "epoch"), False
        if self.seq is None or seq > self.seq:
            return Subscription(None, "ahead"), False
        if seq < self.seq - len(self._ring):
            return Subscription(None, "too_old"), False
        return Subscription(seq, catching_up_to=self.seq), True

    def _give_snapshot(self, subscription: Subscription, now: int, reason: str, subprotocol: str) -> Message:
        subscription.seq = now
        if reason != "subscribed":
            self._metrics.resyncs.labels(reason).inc()
        key = (reason, subprotocol)
        if key not in self._snapshots:
            frame = frames.snapshot(self.name, self.epoch, now, self.sent_ns, self.state, reason)
            self._snapshots[key] = Message(wire.encode(frame, subprotocol), self.name, "snapshot", now)
        return self._snapshots[key]

    def _delta(self, index: int, subprotocol: str) -> Message:
        """Return a frame of the ring. JSON is made when first asked for: most ticks nobody does."""
        encodings = self._ring[index]
        if subprotocol not in encodings:
            packed = encodings[SUBPROTOCOL_MSGPACK]
            frame = frames.in_json(_decoded(packed), self.epoch, self.state)
            encodings[subprotocol] = Message(wire.encode(frame, subprotocol), self.name, "delta", packed.seq)
        return encodings[subprotocol]


class EventTopic:
    """An event channel: a log that only grows, seq = the number of the event. Nothing in it is ever skipped.

    Far behind its end the log is cut; who resumes from before the cut is told what is missing.
    """

    def __init__(self, name: str, epoch: str, events_max: int = EVENTS_MAX) -> None:
        self.name = name
        self.epoch = epoch
        self.seq = 0
        self._events_max = events_max
        self._first = 1
        self._log: list[bytes] = []
        self._recent: dict[tuple[int, str], Message] = {}

    def begin(self, count: int) -> None:
        """Let the log begin after count events that it does not hold; any it holds are dropped."""
        self.seq, self._first = count, count + 1
        self._log.clear()
        self._recent.clear()

    def begin_epoch(self, epoch: str) -> None:
        """Forget everything: the world goes on under another name, and its events are numbered anew."""
        self.epoch = epoch
        self.begin(0)

    def publish(self, happened: Event, sent_ns: int) -> None:
        """Add an event. Raises InvariantBroken when its number is not the next one."""
        if happened.number != self.seq + 1:
            raise InvariantBroken(f"{self.name}: event {happened.number} after {self.seq}")
        payload = wire.encode(frames.event(happened, self.epoch, sent_ns), SUBPROTOCOL_MSGPACK)
        self.add(happened.number, payload if isinstance(payload, bytes) else payload.encode())

    @property
    def oldest(self) -> int:
        """Number of the first event the log holds, of the next one when it holds none."""
        return self._first

    def since(self, seq: int, limit: int) -> tuple[int, list[bytes]]:
        """Return the number of the first event after seq that is held, and at most limit of them from there on."""
        first = min(max(seq + 1, self._first), self.seq + 1)
        start = first - self._first
        return first, self._log[start : start + limit]

    def add(self, number: int, payload: bytes) -> None:
        """Add the next event as a finished frame in msgpack."""
        self._log.append(payload)
        self.seq = number
        self._recent.clear()
        if len(self._log) > self._events_max + self._events_max // 8:
            # an eighth at a time, so that moving the rest is rare
            self._first += len(self._log) - self._events_max
            del self._log[: -self._events_max]

    def subscribe(self, epoch: str | None, seq: int | None) -> tuple[Subscription, dict[str, Any]]:
        """Return a new subscription, after seq where that can be resumed, and what the acknowledgement says of it."""
        if epoch is None or seq is None:
            return Subscription(self.seq), {"seq": self.seq, "resumed": False}
        if epoch != self.epoch or seq > self.seq:
            reason = "ahead" if epoch == self.epoch else "epoch"
            return Subscription(self.seq), {"seq": self.seq, "resumed": False, "reason": reason}
        told: dict[str, Any] = {"seq": self.seq, "resumed": True}
        if seq + 1 < self._first:
            told |= {"missed_from": seq + 1, "missed_to": self._first - 1}
            seq = self._first - 1
        return Subscription(seq), told

    def pending(self, subscription: Subscription) -> bool:
        """Say whether there is something to pull."""
        return subscription.seq != self.seq

    def pull(self, subscription: Subscription, subprotocol: str) -> list[Message]:
        """Return the next events for a subscription and move it on."""
        # a cut overtakes nobody: whoever took nothing for so long was closed; should it, the base of the next tells
        first = max(subscription.seq or 0, self._first - 1)
        subscription.seq = min(self.seq, first + PULL_FRAMES_MAX)
        return [self._message(number, subprotocol) for number in range(first + 1, subscription.seq + 1)]

    def leave(self, subscription: Subscription) -> None:
        """Take note that a subscription has ended."""

    def _message(self, number: int, subprotocol: str) -> Message:
        """Return an event's frame; those of the last event are kept, it goes to every subscriber."""
        key = (number, subprotocol)
        message = self._recent.get(key)
        if message is None:
            message = Message(self._log[number - self._first], self.name, "event", number)
            if subprotocol != SUBPROTOCOL_MSGPACK:
                message = Message(wire.encode(_decoded(message), subprotocol), self.name, "event", number)
            if number == self.seq:
                self._recent[key] = message
        return message


def _bytes(message: Message) -> bytes:
    assert isinstance(message.payload, bytes)
    return message.payload


def _decoded(message: Message) -> dict[str, Any]:
    return wire.decode(message.payload, SUBPROTOCOL_MSGPACK)
