"""One connection's side of the stream protocol, without input or output: what it said, what it gets next.

`receive` takes what came from the socket, `drain` gives what goes to it; an outlet moves the bytes between them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, NoReturn, Protocol

import structlog
from arena_client import wire

from server import keys
from server.live.agent_channel import AgentTopic
from server.live.agent_frames import AGENT
from server.live.caps import NOBODY, Caps, Holder, of_key
from server.live.desk import WAITING_MAX, Identity, too_many
from server.live.groups import Group, Key
from server.live.narrowing import FormsFull, NarrowableTopic, parse_form
from server.live.topics import EventTopic, Message, Subscription, TooFarBehind
from server.protocols import ArenaWebSocketProtocol

CONTROL: Final = "control"
"""Label of messages that belong to no channel."""
CONTROL_PER_S: Final = 10.0
CONTROL_BURST: Final = 20
"""Control messages that may come at once: subscribing to everything, twice over, is no flood."""
SUBSCRIBE_WITHIN_S: Final = 5.0
UNDECODABLE_MAX: Final = 10
"""Messages in a row that are none, after which the client is taken to speak another protocol."""
PING_INTERVAL_S: Final = 15.0
"""Seconds between two moments at which a client is to show that it reads."""
STUCK_AFTER_S: Final = 8.0
"""A client that has not shown it for so long is noticed. It is looked at once a second, when a ping is due as when its
pong is: 25 s after it stopped reading at the latest."""
CUT_AFTER_S: Final = 18.0
"""... and is cut when it has not shown it for so long."""
CLOSING_MAX_S: Final = 10.0
SHOWN_MAX: Final = 80
ID_LENGTH_MAX: Final = 64
SEQ_MAX: Final = wire.INTEGER_MAX

log = structlog.get_logger("arena.stream")

INTERNAL, RESTART, TRY_LATER = 1011, 1012, 1013
PROTOCOL_ERROR, TOO_SLOW, IDLE, TOO_MANY = 4000, 4001, 4002, 4003
KEY_REVOKED = 4500

Topic = NarrowableTopic | EventTopic | AgentTopic


class Mistake(NamedTuple):
    """A kind of wrong control message. code: in the range of shapes, 15x for the stream (server.errors has the rest).

    is_temporary: the same message may be taken later; all others will be refused again.
    """

    code: int
    title: str
    is_temporary: bool = False


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
OUT_OF_REACH = Mistake(160, "the engine is out of reach", is_temporary=True)
NOT_AUTHENTICATED = Mistake(161, "not authenticated")
TOO_MANY_FORMS = Mistake(162, "too many narrowed forms", is_temporary=True)
TOO_MANY_SOCKETS = Mistake(163, "too many connections of this key", is_temporary=True)
MISTAKES: Final = (
    MALFORMED, UNKNOWN_OP, UNKNOWN_FIELD, BAD_FIELD, UNKNOWN_CHANNEL, ALREADY_SUBSCRIBED, NOT_SUBSCRIBED,
    WRONG_FRAME_TYPE, AUTH_FAILED, NOT_FOR_EVENTS, OUT_OF_REACH, NOT_AUTHENTICATED, TOO_MANY_FORMS,
    TOO_MANY_SOCKETS,
)  # fmt: skip

#: Fields of each op beside op and id: required, optional.
OPS: Final[dict[str, tuple[tuple[str, ...], tuple[str, ...]]]] = {
    "subscribe": (("channel",), ("epoch", "seq", "markets", "every", "depth")),
    "unsubscribe": (("channel",), ()),
    "resync": (("channel",), ()),
    "auth": (("api_key",), ("cancel_on_disconnect",)),
    "action": (("agent_id", "action"), ()),
    "ping": ((), ()),
}
UNREAD_MAX: Final = CONTROL_BURST + WAITING_MAX
"""Messages that may wait while an answer has to come from elsewhere."""
NARROWING: Final = ("markets", "every", "depth")
"""Fields of subscribe that only state channels have."""


def spread(number: int) -> float:
    """Return a fraction in [0, 1), 0 for 0: those of numbers in a row lie evenly spread however many there are."""
    # multiples of 2^32 / golden ratio
    return (number * 2_654_435_769 & 0xFFFF_FFFF) / 4_294_967_296.0


class Refusal(Exception):
    """A control message that cannot be done: its mistake, what was found, and what is allowed."""

    def __init__(self, mistake: Mistake, detail: str, allowed: str | list[str]) -> None:
        super().__init__(detail)
        self.mistake = mistake
        self.allowed = allowed


Agents = list[str] | None
"""The ids of an owner's agents; None: the key is not valid."""
Authenticate = Callable[[bytes], Agents | Awaitable[Agents]]
"""Takes the digest of an API key; returns, or promises, whose agents it speaks for. Raises Refusal OUT_OF_REACH."""
Told = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What all subscribers share."""

    topics: dict[str, Topic]
    controls_max: int
    """Answers that may wait for a connection; one that lets more pile up is closed."""
    monotonic: Callable[[], float]
    now: Callable[[], tuple[int | None, int]]
    """Returns the last published tick and the time as sent_ns."""
    authenticate: Authenticate
    is_revoked: Callable[[bytes], bool]
    """Says whether a key was revoked a moment ago, while it was being looked up elsewhere."""
    spawn: Callable[[Coroutine[Any, Any, None]], None]
    """Runs what cannot be answered at once."""
    subscribed: Callable[[str, int], None]
    """Told about every change of a channel's number of subscriptions."""
    parted: Callable[[Subscriber], None]
    """Told about every subscriber that has left its group."""
    stuck: Callable[[], None]
    """Told about every client that is found not to read."""
    desk: ActionDesk | None
    """Where actions go, and who knows whom a connection speaks for; None where there is no world."""
    caps: Caps
    """Counts connections by key and by address."""


class ActionDesk(Protocol):
    """Takes actions, and knows whom a connection speaks for: live/desk, or a gateway's way to it."""

    def identify(self, key_hash: bytes) -> Identity | None:
        """Return whom a valid key speaks for."""

    def hold(self, identity: Identity) -> None:
        """Let the orders of its agents end with the connection. May raise Refusal."""

    def release(self, identity: Identity, *, is_stopping: bool) -> None:
        """Take note that it ended."""

    def is_valid(self, identity: Identity) -> bool:
        """Say whether a connection may still speak for whom it did."""

    def submit(self, identity: Identity, agent_id: Any, action: Any, answer: Callable[[dict[str, Any]], None]) -> None:
        """Take an action; `answer` is called once, now or later."""


class Outlet(Protocol):
    """Moves the bytes of one subscriber. connection: of our own protocol class, None over other ASGI servers."""

    @property
    def connection(self) -> ArenaWebSocketProtocol | None:
        """Where many subscribers' frames may be written to at once."""

    def notify(self) -> None:
        """Drain the subscriber soon: there may be something to send."""

    def ping(self) -> None:
        """Ask the client to show that it reads. Asked of an outlet with a connection only."""

    def abort(self) -> None:
        """Drop the connection without waiting for anything."""


class Subscriber:
    """A connection: its subscriptions, the answers that wait for it, and how it stands with the rules.

    number: counts the connections of this server. holder: whom this one counts for. subscriptions: the group's own
    while it is in one, so `part` comes before every change. outlet: set by who moves the bytes.
    """

    __slots__ = (
        "_acting",
        "_allowance",
        "_around",
        "_blocked_since",
        "_closing_since",
        "_controls",
        "_is_asking",
        "_is_noticed",
        "_last_sent",
        "_opened",
        "_ping_due",
        "_rated",
        "_settled",
        "_then",
        "_undecodable",
        "_unread",
        "_unread_since",
        "close_code",
        "close_reason",
        "connection",
        "group",
        "has_left",
        "holder",
        "holds",
        "identity",
        "is_dismissed",
        "is_mute",
        "key_hash",
        "number",
        "outlet",
        "position",
        "subprotocol",
        "subscriptions",
        "watched",
    )

    def __init__(self, around: Surroundings, number: int, subprotocol: str, holder: Holder = NOBODY) -> None:
        self.number = number
        self.holder = holder
        self.subprotocol = subprotocol
        self.subscriptions: dict[str, Subscription] = {}
        self.group: Group | None = None
        self.position = 0
        self.watched: dict[int, Subscriber] = {}
        """Those who are looked at in the same turn of the watch; the hub's to set."""
        self.key_hash: bytes | None = None
        """Digest of the API key this connection has authenticated with."""
        self.identity: Identity | None = None
        """Whom the connection speaks for; None until it has shown a key, and where there is no desk."""
        self.holds = False
        """Whether it asked for its agents' orders to end with it."""
        self.is_mute = False
        """Whether its client can ask for nothing on this connection, as one of server-sent events."""
        self.has_left = False
        """Whether its connection is gone: what it asked for before changes nothing any more. The hub's to set."""
        self.is_dismissed = False
        """Whether the server ends it because it stops."""
        self.close_code: int | None = None
        self.close_reason = ""
        self.outlet: Outlet | None = None
        self.connection: ArenaWebSocketProtocol | None = None
        self._around = around
        self._controls: list[Message] = []
        self._is_asking = False
        self._unread: deque[bytes | str] = deque()
        """What has come while an answer was awaited."""
        self._opened = self._last_sent = self._rated = around.monotonic()
        self._allowance = float(CONTROL_BURST)
        self._undecodable = 0
        self._acting = 0
        """Actions that wait for their answer."""
        self._then: Callable[[], None] | None = None
        """What is to happen when no answer is owed any more; from then on nothing is taken in."""
        self._settled = False
        self._closing_since = 0.0
        self._blocked_since: float | None = None
        """Since when the socket has taken nothing."""
        # those who came together were all asked within a second, and thousands of answers held the loop up (loop_pause)
        self._ping_due = self._opened + PING_INTERVAL_S * (1.0 - spread(number))
        self._unread_since: float | None = None
        """Since when the client owes a sign that it reads."""
        self._is_noticed = False

    # what comes in

    def receive(self, data: bytes | str) -> None:
        """Take one message from the client and answer it; nothing it holds can do more than get an error.

        While an answer has to come from elsewhere, what follows waits: answers keep the order of what was asked.
        """
        if self.close_code is not None or self._then is not None:
            return
        if self._is_asking:
            if len(self._unread) >= UNREAD_MAX:
                self.close(TOO_MANY, f"more than {UNREAD_MAX} messages wait for an answer")
            else:
                self._unread.append(data)
        else:
            self._take(data)

    def _take(self, data: bytes | str) -> None:
        message: dict[str, Any] = {}
        try:
            message = self._decode(data)
            # actions count for their key, as they do over REST
            is_action = message.get("op") == "action" and self.identity is not None
            if is_action or self._within_rate():
                self._give(message, self._do(message))
        except Refusal as refusal:
            if message or self._within_rate():
                self._refuse(message, refusal)

    def _give(self, message: dict[str, Any], told: Told | Awaitable[Told] | None) -> None:
        if isinstance(told, dict):
            self._answer(told)
        elif told is not None:
            self._is_asking = True
            self._around.spawn(self._answer_later(message, told))

    async def _answer_later(self, message: dict[str, Any], told: Awaitable[Told]) -> None:
        try:
            self._answer(await told)
        except Refusal as refusal:
            self._refuse(message, refusal)
        finally:
            self._is_asking = False
        while self._unread and not self._is_asking and self.close_code is None and not self.has_left:
            self._take(self._unread.popleft())
        self._settle()

    def ask(self, message: dict[str, Any]) -> None:
        """Do what a message says that comes from us, and answer it. Raises Refusal."""
        self.is_mute = True
        self._give(message, self._do(message))

    def show(self, key_hash: bytes) -> None:
        """Speak for whom a key belongs to, shown in another way than by auth. Raises Refusal."""
        if self._around.desk is not None:
            self.identity = self._identify(self._around.desk, key_hash)
            self.key_hash = key_hash

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

    def _do(self, message: dict[str, Any]) -> Told | Awaitable[Told] | None:
        """Do what a decoded message asks; return the acknowledgement's fields, or promise them, None for an action."""
        op = message.get("op")
        if not isinstance(op, str) or op not in OPS:
            raise Refusal(UNKNOWN_OP, f"op is {_shown(op)}", list(OPS))
        required, optional = OPS[op]
        _check_fields(message, required, optional)
        if op == "ping":
            tick, sent_ns = self._around.now()
            return {"op": op, "id": message["id"], "tick": tick, "sent_ns": sent_ns}
        if op == "auth":
            return self._authenticate(message)
        if op == "action":
            self._act(message)
            return None
        topic = self._topic(message["channel"])
        told = {"op": op, "id": message["id"], "channel": topic.name, "epoch": topic.epoch}
        if op == "subscribe":
            return told | self._subscribe(topic, message)
        if topic.name not in self.subscriptions:
            raise Refusal(NOT_SUBSCRIBED, f"no subscription to {topic.name}", list(self.subscriptions))
        if op == "unsubscribe":
            self.part()
            topic.leave(self.subscriptions.pop(topic.name))
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
        self.part()
        self.subscriptions[topic.name], told = self._begin(topic, epoch, seq, message)
        self._around.subscribed(topic.name, 1)
        self._settled = True
        return told

    def _begin(
        self, topic: Topic, epoch: str | None, seq: int | None, message: dict[str, Any]
    ) -> tuple[Subscription, dict[str, Any]]:
        if isinstance(topic, NarrowableTopic):
            form = parse_form(topic.name, message, _wrong)
            if form.depth and topic.books is None:
                _wrong("depth", form.depth, "at the engine only: a gateway does not have the levels of the book")
            try:
                return topic.subscribe(epoch, seq, form)
            except FormsFull as error:
                raise Refusal(TOO_MANY_FORMS, str(error), "a form that others read, the whole channel, later") from None
        for key in NARROWING:
            if key in message:
                _wrong(key, message[key], "only with state channels")
        if isinstance(topic, EventTopic):
            return topic.subscribe(epoch, seq)
        if self.identity is None:
            raise Refusal(NOT_AUTHENTICATED, f"{topic.name} is private", "auth with a key first")
        return topic.subscribe(epoch, seq, self.identity.owner, self._notify)

    def _resync(self, topic: Topic) -> None:
        if not isinstance(topic, NarrowableTopic):
            allowed = "unsubscribe, then subscribe with epoch and the last seq"
            raise Refusal(NOT_FOR_EVENTS, f"{topic.name} has no snapshots", allowed)
        self.part()
        self.subscriptions[topic.name] = Subscription(None, "resync", form=self.subscriptions[topic.name].form)

    def _authenticate(self, message: dict[str, Any]) -> Told | Awaitable[Told]:
        key_hash = keys.digest(message["api_key"])
        found = self._around.authenticate(key_hash)
        if found is None or isinstance(found, list):
            return self._authenticated(message, key_hash, found)

        async def wait() -> Told:
            agents = await found
            if self.has_left:
                raise Refusal(AUTH_FAILED, "the connection has ended", "another connection")
            return self._authenticated(message, key_hash, agents)

        return wait()

    def _authenticated(self, message: dict[str, Any], key_hash: bytes, agents: Agents) -> Told:
        if agents is None or self._around.is_revoked(key_hash):
            raise Refusal(AUTH_FAILED, "this key is not valid", "a key from POST /api/agents/register")
        self._check_room(key_hash)
        told: Told = {"op": "auth", "id": message["id"], "agents": agents}
        if self._around.desk is not None:
            told |= self._speak_for(self._around.desk, key_hash, message)
        self._count_for(key_hash)
        self.key_hash = key_hash
        self._settled = True
        return told

    def _check_room(self, key_hash: bytes) -> None:
        """Refuse a key for which as many connections count already as may."""
        holder = of_key(key_hash)
        if holder != self.holder and (reason := self._around.caps.refusal(holder)) is not None:
            raise Refusal(TOO_MANY_SOCKETS, reason, "close another connection of this key first")

    def _count_for(self, key_hash: bytes) -> None:
        """Count for a key from now on, to the end or to another key."""
        self._around.caps.give(self.holder)
        self.holder = of_key(key_hash)
        self._around.caps.take(self.holder)

    def _speak_for(self, desk: ActionDesk, key_hash: bytes, message: dict[str, Any]) -> Told:
        """Take note whom the connection speaks for from now on; it never changes to somebody else."""
        identity = self._identify(desk, key_hash)
        # a group's members are looked at too seldom to notice soon that a key has ended
        self.part()
        if self.identity is not None and self.identity.owner != identity.owner:
            raise Refusal(AUTH_FAILED, "this connection speaks for another owner", "a connection for each owner")
        if message.get("cancel_on_disconnect", False) and not self.holds:
            desk.hold(identity)
            self.holds = True
        self.identity = identity
        return {"cancel_on_disconnect": self.holds}

    def _identify(self, desk: ActionDesk, key_hash: bytes) -> Identity:
        identity = desk.identify(key_hash)
        if identity is None:
            raise Refusal(AUTH_FAILED, "this key is not valid", "a key from POST /api/agents/register")
        return identity

    def _act(self, message: dict[str, Any]) -> None:
        if self._around.desk is None:
            raise Refusal(UNKNOWN_OP, "action is not taken on this server", "POST /api/agents/{id}/action")
        if self.identity is None:
            raise Refusal(NOT_AUTHENTICATED, "an action belongs to an owner", "auth with a key first")
        request_id = message["id"]
        self._acting += 1
        if self._acting > WAITING_MAX:
            self._acted(request_id, too_many())
            return
        self._around.desk.submit(
            self.identity, message["agent_id"], message["action"], lambda told: self._acted(request_id, told)
        )

    def _acted(self, request_id: int | str, told: dict[str, Any]) -> None:
        """Answer an action; other answers did not wait for it."""
        self._acting -= 1
        if self.close_code is None:
            if len(self._controls) >= self._around.controls_max + WAITING_MAX:
                self.close(TOO_SLOW, "answers are not read")
            else:
                answer = {"type": told["type"], "op": "action", "id": request_id, **told}
                self.tell_encoded(Message(wire.encode(answer, self.subprotocol), CONTROL, told["type"]))
        self._settle()

    def _topic(self, channel: str) -> Topic:
        topic = self._around.topics.get(channel)
        if topic is None:
            raise Refusal(UNKNOWN_CHANNEL, f"channel is {_shown(channel)}", list(self._around.topics))
        return topic

    def _within_rate(self) -> bool:
        """Count a control message; one too many closes the connection."""
        now = self._around.monotonic()
        self._allowance = min(CONTROL_BURST, self._allowance + (now - self._rated) * CONTROL_PER_S)
        self._rated = now
        self._allowance -= 1.0
        if self._allowance < 0.0:
            self.close(TOO_MANY, f"more than {CONTROL_PER_S:.0f} control messages a second")
        return self._allowance >= 0.0

    # what goes out

    def tell(self, message: dict[str, Any]) -> None:
        """Send a control message, ahead of all data; a connection that does not take its answers is closed."""
        if len(self._controls) >= self._around.controls_max:
            self.close(TOO_SLOW, "answers are not read")
            return
        self.tell_encoded(Message(wire.encode(message, self.subprotocol), CONTROL, message["type"]))

    def tell_encoded(self, message: Message) -> None:
        """Send a control message that was encoded for many."""
        self._controls.append(message)
        self._notify()

    def _notify(self) -> None:
        if self.outlet is not None:
            self.outlet.notify()

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
                "temporary": refusal.mistake.is_temporary,
            }
        )

    @property
    def pending(self) -> bool:
        """Whether drain has something to give. What a group brings is the group's business."""
        if self._controls or self.close_code is not None:
            return True
        if self.group is not None:
            return False
        topics = self._around.topics
        return any(topics[name].pending(subscription) for name, subscription in self.subscriptions.items())

    def answers(self) -> list[Message]:
        """Return the control messages that wait, to be sent at once."""
        batch, self._controls = self._controls, []
        return batch

    def drain(self) -> list[Message]:
        """Return what goes out next, in order: answers, then the next frames of every subscription."""
        batch = self.answers()
        if self.close_code is None and self.group is None:
            try:
                for name, subscription in self.subscriptions.items():
                    batch += self._around.topics[name].pull(subscription, self.subprotocol)
            except TooFarBehind as error:
                self.close(TOO_SLOW, str(error))
        return batch

    def part(self) -> None:
        """Leave the group, if it is in one: from here on its cursors are its own."""
        if self.group is not None:
            self._last_sent = max(self._last_sent, self.group.last_sent)
            self.group.remove(self)
            self._around.parted(self)

    @property
    def key(self) -> Key | None:
        """Of the group it may be in; None while it may be in none: in one, behind, without subscriptions, closing."""
        is_ready = self.connection is not None and self.group is None and not self.is_blocked and not self.pending
        # what is private has one reader, or a few that are told of different accounts
        if not is_ready or not self.subscriptions or AGENT in self.subscriptions:
            return None
        known = self.subscriptions
        return self.subprotocol, tuple((name, known[name].form) for name in self._around.topics if name in known)

    @property
    def is_blocked(self) -> bool:
        """Whether something waits for room in the socket."""
        return self._blocked_since is not None

    def sent(self) -> None:
        """Note that a batch was handed over."""
        self._last_sent = self._around.monotonic()

    def blocked(self) -> None:
        """Note that the socket did not take all that it was given."""
        self.part()
        if self._blocked_since is None:
            self._blocked_since = self._around.monotonic()

    def drained(self) -> None:
        """Note that the socket took all that it was given, and so that the client reads."""
        self._blocked_since = None
        self.alive()
        self._notify()

    def alive(self) -> None:
        """Note that the client reads."""
        if self._is_noticed:
            log.info("subscriber_reads_again", subscriber=self.number)
        self._unread_since, self._is_noticed = None, False

    def end_subscriptions(self) -> None:
        """End every subscription, as if the connection were new: it has its time to subscribe again."""
        self.part()
        for name, subscription in self.subscriptions.items():
            self._around.topics[name].leave(subscription)
            self._around.subscribed(name, -1)
        self.subscriptions = {}
        self.key_hash = self.identity = None
        self._settled, self._opened = False, self._around.monotonic()

    # the end

    @property
    def is_finishing(self) -> bool:
        """Whether the end waits for answers that are owed."""
        return self._then is not None

    def finish(self, then: Callable[[], None]) -> None:
        """Take nothing more, and call `then` once all that was taken is answered; at once when it is."""
        self._then, self.is_dismissed = then, True
        self._settle()

    def give_up(self) -> None:
        """Wait for no answer any longer."""
        then, self._then = self._then, None
        if then is not None:
            then()

    def _settle(self) -> None:
        is_owed = self._acting or self._is_asking or self._unread
        if self._then is not None and (self.close_code is not None or not is_owed):
            self.give_up()

    # the rules of time

    def check(self, now: float, heartbeat_s: float) -> float:
        """Do what time demands: a heartbeat, or the end of a connection that is idle, stuck or does not close.

        Returns for how many seconds nothing will be due if it does not leave its group before; 0 outside of one.
        """
        self._check(now, heartbeat_s)
        is_owed = self._unread_since is not None or self.identity is not None or self.close_code is not None
        if self.group is None or is_owed:
            return 0.0
        return min(self._ping_due, max(self._last_sent, self.group.last_sent) + heartbeat_s) - now

    def _check(self, now: float, heartbeat_s: float) -> None:
        if self.close_code is not None:
            if now - self._closing_since > CLOSING_MAX_S:
                self.cut()
            return
        if not self._settled and now - self._opened > SUBSCRIBE_WITHIN_S:
            self.close(IDLE, f"no subscription and no authentication within {SUBSCRIBE_WITHIN_S:.0f} s")
            return
        desk, identity = self._around.desk, self.identity
        if desk is not None and identity is not None and not desk.is_valid(identity):
            self.close(KEY_REVOKED, "the API key was revoked")
            return
        self._check_reading(now)
        last_sent = self._last_sent if self.group is None else max(self._last_sent, self.group.last_sent)
        if self.close_code is None and not self.is_blocked and now - last_sent >= heartbeat_s:
            tick, sent_ns = self._around.now()
            self.tell({"type": "heartbeat", "tick": tick, "sent_ns": sent_ns})

    def _check_reading(self, now: float) -> None:
        """Ask for a sign that the client reads, notice one that gives none, cut it in the end."""
        if self._unread_since is None:
            self._ask(now)
        elif now - self._unread_since >= CUT_AFTER_S:
            silent_s = PING_INTERVAL_S + CUT_AFTER_S
            log.warning("subscriber_cut", subscriber=self.number, code=TOO_SLOW)
            self.close(TOO_SLOW, f"gave no sign of reading for {silent_s:.0f} s")
            self.cut()
        elif now - self._unread_since >= STUCK_AFTER_S and not self._is_noticed:
            self._is_noticed = True
            log.warning("subscriber_stuck", subscriber=self.number, cut_in_s=CUT_AFTER_S - STUCK_AFTER_S)
            self._around.stuck()

    def _ask(self, now: float) -> None:
        if self.outlet is None:
            return
        if self.connection is None:
            # the web server pings; what can be seen here is a write that does not end
            if self._blocked_since is not None and now - self._blocked_since >= PING_INTERVAL_S:
                self._unread_since = now
        elif now >= self._ping_due:
            # from when it was due, so that those who are asked late together are not together from then on
            self._ping_due = max(self._ping_due + PING_INTERVAL_S, now)
            self._unread_since = now
            self.outlet.ping()

    def close(self, code: int, reason: str) -> None:
        """End the connection with a code, after the answers that still wait for it; the first code stays."""
        if self.close_code is None:
            self.part()
            self.close_code, self.close_reason = code, reason
            self._closing_since = self._around.monotonic()
        self._notify()

    def cut(self) -> None:
        """Drop the connection without waiting for the socket."""
        if self.outlet is not None:
            self.outlet.abort()


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
    for key in ("channel", "epoch", "api_key", "agent_id"):
        if key in message and not isinstance(message[key], str):
            _wrong(key, message[key], "a text")
    if not isinstance(message.get("cancel_on_disconnect", False), bool):
        _wrong("cancel_on_disconnect", message["cancel_on_disconnect"], "true or false")
    if not isinstance(message.get("action", {}), dict):
        _wrong("action", message["action"], "a map: an action as POST /api/agents/{id}/action takes it")
    seq = message.get("seq", 0)
    if isinstance(seq, bool) or not isinstance(seq, int) or not 0 <= seq <= SEQ_MAX:
        _wrong("seq", seq, "a whole number from 0 to 2^53 - 1")


def _wrong(key: str, value: Any, allowed: str | list[str]) -> NoReturn:
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
