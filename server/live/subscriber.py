"""One connection's side of the stream protocol, without input or output: what it said, what it gets next.

`receive` takes what came from the socket, `drain` gives what goes to it; routes/stream moves the bytes between them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, NoReturn

from arena_client import wire

from server.live.topics import Message, StateTopic, Subscription, Topic

CONTROL: Final = "control"
"""Label of messages that belong to no channel."""
CONTROL_PER_S: Final = 10.0
CONTROL_BURST: Final = 20
"""Control messages that may come at once: subscribing to everything, twice over, is no flood."""
SUBSCRIBE_WITHIN_S: Final = 5.0
UNDECODABLE_MAX: Final = 10
"""Messages in a row that are none, after which the client is taken to speak another protocol."""
STUCK_AFTER_S: Final = 35.0
"""A write that makes no progress is noticed by the 15 s + 10 s of the pings and cut 10 s later."""
CLOSING_MAX_S: Final = 10.0
SHOWN_MAX: Final = 80
ID_LENGTH_MAX: Final = 64
SEQ_MAX: Final = wire.INTEGER_MAX

INTERNAL, RESTART = 1011, 1012
PROTOCOL_ERROR, TOO_SLOW, IDLE, TOO_MANY = 4000, 4001, 4002, 4003


class Mistake(NamedTuple):
    """A kind of wrong control message. code: in the range of shapes, 15x for the stream (server.errors has the rest).

    None of them is temporary: the same message will be refused again.
    """

    code: int
    title: str


MALFORMED = Mistake(150, "not a message of this subprotocol")
UNKNOWN_OP = Mistake(151, "unknown op")
UNKNOWN_FIELD = Mistake(152, "unknown field")
BAD_FIELD = Mistake(153, "missing or wrong field")
UNKNOWN_CHANNEL = Mistake(154, "unknown channel")
ALREADY_SUBSCRIBED = Mistake(155, "already subscribed")
NOT_SUBSCRIBED = Mistake(156, "not subscribed")
WRONG_FRAME_TYPE = Mistake(157, "wrong frame type")
AUTH_FAILED = Mistake(158, "authentication failed")
NOT_FOR_EVENTS = Mistake(159, "not for event channels")
MISTAKES: Final = (
    MALFORMED, UNKNOWN_OP, UNKNOWN_FIELD, BAD_FIELD, UNKNOWN_CHANNEL, ALREADY_SUBSCRIBED, NOT_SUBSCRIBED,
    WRONG_FRAME_TYPE, AUTH_FAILED, NOT_FOR_EVENTS,
)  # fmt: skip

#: Fields of each op beside op and id: required, optional.
OPS: Final[dict[str, tuple[tuple[str, ...], tuple[str, ...]]]] = {
    "subscribe": (("channel",), ("epoch", "seq")),
    "unsubscribe": (("channel",), ()),
    "resync": (("channel",), ()),
    "auth": (("api_key",), ()),
    "ping": ((), ()),
}


class Refusal(Exception):
    """A control message that cannot be done: its mistake, what was found, and what is allowed."""

    def __init__(self, mistake: Mistake, detail: str, allowed: str | list[str]) -> None:
        super().__init__(detail)
        self.mistake = mistake
        self.allowed = allowed


Authenticate = Callable[[str], list[str] | None]
"""Takes an API key; returns the ids of the owner's agents, or None for a key that is not valid."""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What all subscribers share."""

    epoch: str
    topics: dict[str, Topic]
    controls_max: int
    """Answers that may wait for a connection; one that lets more pile up is closed."""
    monotonic: Callable[[], float]
    now: Callable[[], tuple[int | None, int]]
    """Returns the last published tick and the time as sent_ns."""
    authenticate: Authenticate
    subscribed: Callable[[str, int], None]
    """Told about every change of a channel's number of subscriptions."""


class Subscriber:
    """A connection: its subscriptions, the answers that wait for it, and how it stands with the rules.

    number: counts the connections of this server. wake: set whenever drain may have something to give.
    """

    def __init__(self, around: Surroundings, number: int, subprotocol: str) -> None:
        self.number = number
        self.subprotocol = subprotocol
        self.subscriptions: dict[str, Subscription] = {}
        self.agents: list[str] | None = None
        self.wake = asyncio.Event()
        self.close_code: int | None = None
        self.close_reason = ""
        self.abort: Callable[[], None] | None = None
        """Drops the connection without waiting for anything; set by who moves the bytes."""
        self._around = around
        self._controls: list[Message] = []
        self._opened = self._last_sent = self._rated = around.monotonic()
        self._allowance = float(CONTROL_BURST)
        self._undecodable = 0
        self._settled = False
        self._sending_since: float | None = None
        self._closing_since = 0.0

    # what comes in

    def receive(self, data: bytes | str) -> None:
        """Take one message from the client and answer it; nothing it holds can do more than get an error."""
        if self.close_code is not None:
            return
        if not self._within_rate():
            self.close(TOO_MANY, f"more than {CONTROL_PER_S:.0f} control messages a second")
            return
        message: dict[str, Any] = {}
        try:
            message = self._decode(data)
            self._answer(self._do(message))
        except Refusal as refusal:
            self._refuse(message, refusal)

    def _decode(self, data: bytes | str) -> dict[str, Any]:
        try:
            message = wire.decode(data, self.subprotocol, wire.CLIENT_FRAME_MAX)
        except wire.WireError as error:
            self._undecodable += 1
            if self._undecodable >= UNDECODABLE_MAX:
                self.close(PROTOCOL_ERROR, f"{UNDECODABLE_MAX} messages in a row that are not {self.subprotocol}")
            is_text = isinstance(data, str)
            wants_text = self.subprotocol == wire.SUBPROTOCOL_JSON
            if is_text != wants_text:
                kind = "text frames" if wants_text else "binary frames"
                raise Refusal(WRONG_FRAME_TYPE, str(error), f"{kind} on {self.subprotocol}") from error
            allowed = f"one map of at most {wire.CLIENT_FRAME_MAX} bytes with op and id, as {self.subprotocol}"
            raise Refusal(MALFORMED, str(error), allowed) from error
        self._undecodable = 0
        return message

    def _do(self, message: dict[str, Any]) -> dict[str, Any]:
        """Do what a decoded message asks and return the acknowledgement's fields."""
        op = message.get("op")
        if not isinstance(op, str) or op not in OPS:
            raise Refusal(UNKNOWN_OP, f"op is {_shown(op)}", list(OPS))
        required, optional = OPS[op]
        _check_fields(message, required, optional)
        if op == "ping":
            tick, sent_ns = self._around.now()
            return {"op": op, "id": message["id"], "tick": tick, "sent_ns": sent_ns}
        if op == "auth":
            return {"op": op, "id": message["id"], "agents": self._authenticate(message["api_key"])}
        topic = self._topic(message["channel"])
        told = {"op": op, "id": message["id"], "channel": topic.name, "epoch": self._around.epoch}
        if op == "subscribe":
            return told | self._subscribe(topic, message)
        if topic.name not in self.subscriptions:
            raise Refusal(NOT_SUBSCRIBED, f"no subscription to {topic.name}", list(self.subscriptions))
        if op == "unsubscribe":
            del self.subscriptions[topic.name]
            self._around.subscribed(topic.name, -1)
        else:
            self._resync(topic)
        return told | {"seq": topic.seq}

    def _subscribe(self, topic: Topic, message: dict[str, Any]) -> dict[str, Any]:
        epoch, seq = message.get("epoch"), message.get("seq")
        if (epoch is None) != (seq is None):
            raise Refusal(BAD_FIELD, "epoch and seq belong together", "both to resume after seq, or neither")
        if topic.name in self.subscriptions:
            detail = f"this connection is already subscribed to {topic.name}"
            raise Refusal(ALREADY_SUBSCRIBED, detail, "unsubscribe first, or resync for a snapshot")
        self.subscriptions[topic.name], told = topic.subscribe(epoch, seq)
        self._around.subscribed(topic.name, 1)
        self._settled = True
        return told

    def _resync(self, topic: Topic) -> None:
        if not isinstance(topic, StateTopic):
            allowed = "unsubscribe, then subscribe with epoch and the last seq"
            raise Refusal(NOT_FOR_EVENTS, f"{topic.name} has no snapshots", allowed)
        self.subscriptions[topic.name] = Subscription(None, "resync")

    def _authenticate(self, api_key: str) -> list[str]:
        agents = self._around.authenticate(api_key)
        if agents is None:
            raise Refusal(AUTH_FAILED, "this key is not valid", "a key from POST /api/agents/register")
        self.agents = agents
        self._settled = True
        return agents

    def _topic(self, channel: str) -> Topic:
        topic = self._around.topics.get(channel)
        if topic is None:
            raise Refusal(UNKNOWN_CHANNEL, f"channel is {_shown(channel)}", list(self._around.topics))
        return topic

    def _within_rate(self) -> bool:
        now = self._around.monotonic()
        self._allowance = min(CONTROL_BURST, self._allowance + (now - self._rated) * CONTROL_PER_S)
        self._rated = now
        self._allowance -= 1.0
        return self._allowance >= 0.0

    # what goes out

    def tell(self, message: dict[str, Any]) -> None:
        """Send a control message, ahead of all data; a connection that does not take its answers is closed."""
        if len(self._controls) >= self._around.controls_max:
            self.close(TOO_SLOW, "answers are not read")
            return
        self._controls.append(Message(wire.encode(message, self.subprotocol), CONTROL, message["type"]))
        self.wake.set()

    def _answer(self, told: dict[str, Any]) -> None:
        self.tell({"type": "ack", **told})

    def _refuse(self, message: dict[str, Any], refusal: Refusal) -> None:
        op, request_id = message.get("op"), message.get("id")
        self.tell(
            {
                "type": "error",
                "op": op if isinstance(op, str) and op in OPS else None,
                "id": request_id if _is_id(request_id) else None,
                "code": refusal.mistake.code,
                "title": refusal.mistake.title,
                "detail": str(refusal),
                "allowed": refusal.allowed,
                "temporary": False,
            }
        )

    @property
    def pending(self) -> bool:
        """Whether drain has something to give."""
        if self._controls or self.close_code is not None:
            return True
        topics = self._around.topics
        return any(topics[name].pending(subscription) for name, subscription in self.subscriptions.items())

    def drain(self) -> list[Message]:
        """Return what goes out next, in order: answers, then the next frames of every subscription."""
        batch, self._controls = self._controls, []
        if self.close_code is None:
            for name, subscription in self.subscriptions.items():
                batch += self._around.topics[name].pull(subscription, self.subprotocol)
        return batch

    @property
    def is_sending(self) -> bool:
        """Whether a batch is on its way into the socket."""
        return self._sending_since is not None

    def sending(self) -> None:
        """Note that a batch is on its way into the socket."""
        self._sending_since = self._around.monotonic()

    def sent(self) -> None:
        """Note that the socket took the batch."""
        self._last_sent = self._around.monotonic()
        self._sending_since = None

    # the rules of time

    def check(self, now: float, heartbeat_s: float) -> None:
        """Do what time demands: a heartbeat, or the end of a connection that is idle, stuck or does not close."""
        if self.close_code is not None:
            if now - self._closing_since > CLOSING_MAX_S:
                self.cut()
        elif self._sending_since is not None:
            if now - self._sending_since > STUCK_AFTER_S:
                self.close(TOO_SLOW, f"took nothing for {STUCK_AFTER_S:.0f} s")
                self.cut()
        elif not self._settled and now - self._opened > SUBSCRIBE_WITHIN_S:
            self.close(IDLE, f"no subscription and no authentication within {SUBSCRIBE_WITHIN_S:.0f} s")
        elif now - self._last_sent >= heartbeat_s:
            tick, sent_ns = self._around.now()
            self.tell({"type": "heartbeat", "tick": tick, "sent_ns": sent_ns})

    def close(self, code: int, reason: str) -> None:
        """End the connection with a code, after the answers that still wait for it; the first code stays."""
        if self.close_code is None:
            self.close_code, self.close_reason = code, reason
            self._closing_since = self._around.monotonic()
        self.wake.set()

    def cut(self) -> None:
        """Drop the connection without waiting for the socket."""
        if self.abort is not None:
            self.abort()


def _check_fields(message: dict[str, Any], required: tuple[str, ...], optional: tuple[str, ...]) -> None:
    """Refuse fields that op does not know, lacks, or that are not what they must be."""
    allowed = ["op", "id", *required, *optional]
    unknown = [key for key in message if key not in allowed]
    if unknown:
        raise Refusal(UNKNOWN_FIELD, f"{message['op']} has no field {_shown(unknown[0])}", allowed)
    missing = [key for key in ("id", *required) if key not in message]
    if missing:
        raise Refusal(BAD_FIELD, f"{message['op']} needs {missing[0]}", allowed)
    if not _is_id(message["id"]):
        _wrong("id", message["id"], f"a whole number below 2^53 or a text of at most {ID_LENGTH_MAX} characters")
    for key in ("channel", "epoch", "api_key"):
        if key in message and not isinstance(message[key], str):
            _wrong(key, message[key], "a text")
    seq = message.get("seq", 0)
    if isinstance(seq, bool) or not isinstance(seq, int) or not 0 <= seq <= SEQ_MAX:
        _wrong("seq", seq, "a whole number from 0 to 2^53 - 1")


def _wrong(key: str, value: Any, allowed: str) -> NoReturn:
    # a key that arrived as something else than a text is still a secret
    shown = type(value).__name__ if key == "api_key" else _shown(value)
    raise Refusal(BAD_FIELD, f"{key} is {shown}", allowed)


def _is_id(value: Any) -> bool:
    if isinstance(value, str):
        return len(value) <= ID_LENGTH_MAX
    return isinstance(value, int) and not isinstance(value, bool)


def _shown(value: Any) -> str:
    """Return a value for an error text, cut: what came from outside may be long."""
    text = repr(value)
    return text if len(text) <= SHOWN_MAX else text[: SHOWN_MAX - 1] + "…"
