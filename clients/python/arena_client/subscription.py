"""What to send after connecting and what each message means: the rules of subscribing, resuming and resynchronising.

No input or output happens here. A `Session` holds the subscriptions of one client over any number of connections:
messages of the server go into `receive`, messages for the server come out of `take_outgoing`, and what the owner
should know comes back as reports.

A subscription is in one of four phases. A line that is missing leaves it where it is.

| phase     | what happens                          | what follows                                | next      |
|-----------|---------------------------------------|---------------------------------------------|-----------|
| any       | hello (again: a gateway's new epoch)  | as for a new connection                     | ASKED     |
| OFFLINE   | hello                                 | subscribe, from (epoch, seq) if copy good   | ASKED     |
| ASKED     | ack                                   | Subscribed                                  | LIVE      |
| ASKED     | error                                 | Refused                                     | (removed) |
| ASKED     | temporary error, was live before      | SessionBroken: only a new connection helps  |           |
| ASKED     | data (of an earlier subscription)     | dropped                                     | ASKED     |
| LIVE      | a frame that fits                     | StateChanged or EventReceived               | LIVE      |
| LIVE      | a state frame that does not fit       | OutOfStep, resync                           | RESYNCING |
| LIVE      | an event frame that does not fit      | OutOfStep, unsubscribe, subscribe from last | ASKED     |
| LIVE      | an entries frame that fits            | EntriesReceived                             | LIVE      |
| LIVE      | an entries frame behind a gap         | OutOfStep, unsubscribe, subscribe from last | ASKED     |
| RESYNCING | a snapshot that fits                  | StateChanged                                | LIVE      |
| RESYNCING | an error, 100 frames without snapshot | SessionBroken                               |           |
| any       | the connection is lost                |                                             | OFFLINE   |
| any       | unsubscribe                           |                                             | (removed) |

Event channels never lose an entry within an epoch. When the epoch changes their numbering starts anew; the
subscription then follows the new one from its first event. That, and whatever else the server could not resume, is
said with OutOfStep. The private channel `agent` does not lose an entry either; what its log no longer has when the
connection comes back is said with OutOfStep, and where it can be read.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final, TypeGuard

from arena_client import wire
from arena_client.errors import ArenaError, StreamError, SubscriptionRefused, WireError
from arena_client.mirror import Mirror, scales

#: Frames to wait for the snapshot of a resync: ten seconds of a channel with ten frames a second.
RESYNC_PATIENCE_FRAMES: Final = 100


class Phase(Enum):
    """Where a subscription stands."""

    OFFLINE = "offline"
    ASKED = "asked"
    LIVE = "live"
    RESYNCING = "resyncing"


class SessionBroken(ArenaError):
    """This connection cannot be put right; a new one can."""


@dataclass(frozen=True, slots=True)
class StateChanged:
    """A mirror took a frame. skipped: changes before this one that were not reported singly."""

    channel: str
    mirror: Mirror
    epoch: str
    seq: int
    tick: int
    sent_ns: int
    is_snapshot: bool
    reason: str | None = None
    skipped: int = 0


@dataclass(frozen=True, slots=True)
class EventReceived:
    """The next event of an event channel.

    event: its name and data as they came, integers and strings. values: the same in the units of the schema.
    """

    channel: str
    epoch: str
    seq: int
    tick: int
    sent_ns: int
    event: Mapping[str, Any]
    values: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class EntriesReceived:
    """What happened to one's own agents since the last frame of the channel `agent`, in order.

    entries, balances: as the protocol page says; the newest of what each agent has is in `accounts` of the session.
    """

    channel: str
    epoch: str
    seq: int
    tick: int
    sent_ns: int
    entries: list[Mapping[str, Any]]
    balances: list[Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class AccountsReceived:
    """One's own agents as they stand, after a subscribe to `agent`. left: how many are still to come."""

    accounts: list[Mapping[str, Any]]
    left: int


@dataclass(frozen=True, slots=True)
class ActionAnswered:
    """The answer to an action sent over this connection: its receipt, or the error."""

    request_id: int
    receipt: Mapping[str, Any] | None
    error: Mapping[str, Any] | None


@dataclass(frozen=True, slots=True)
class Lagged:
    """The server left out `skipped` frames because this client read too slowly; a snapshot follows."""

    channel: str
    skipped: int


@dataclass(frozen=True, slots=True)
class Stale:
    """The gateway has lost its engine: nothing new comes until it is back. tick: the last one that came."""

    tick: int | None


@dataclass(frozen=True, slots=True)
class OutOfStep:
    """A frame did not fit what came before. What repairs it has been asked for already."""

    channel: str
    reason: str


@dataclass(frozen=True, slots=True)
class Subscribed:
    """The server acknowledged a subscription."""

    channel: str


@dataclass(frozen=True, slots=True)
class Refused:
    """The server refused a subscription, which is gone now; the others go on."""

    channel: str
    error: SubscriptionRefused


@dataclass(frozen=True, slots=True)
class ShuttingDown:
    """The server is about to close. It wants nobody back before `retry_after_s`."""

    retry_after_s: float


Report = (
    StateChanged
    | EventReceived
    | EntriesReceived
    | AccountsReceived
    | ActionAnswered
    | Lagged
    | Stale
    | OutOfStep
    | Subscribed
    | Refused
    | ShuttingDown
)


class Subscription:
    """One channel of a session: its phase, and how far its data has come.

    mirror: of a state channel, else None. event_position: (epoch, seq) of an event channel's last event, or where the
    channel `agent` stands, else None. scales: field -> scale of an event channel. narrowing: fields of its subscribe.
    """

    def __init__(self, channel: str, since: int | None = None, narrowing: Mapping[str, Any] | None = None) -> None:
        if channel in wire.STATE_CHANNELS:
            if since is not None:
                raise ValueError(f"{channel} is a state channel, `since` is for event channels")
            self.mirror: Mirror | None = Mirror(channel)
        else:
            if narrowing:
                raise ValueError(f"{channel} is no state channel, {', '.join(narrowing)} are for those")
            if since is not None and channel == wire.AGENT_CHANNEL:
                raise ValueError(f"{channel} has no numbers of its own, `since` is for event channels")
            self.mirror = None
        self.channel = channel
        self.narrowing = dict(narrowing or {})
        self.phase = Phase.OFFLINE
        self.request_id: int | None = None
        self.event_position: tuple[str, int] | None = None
        self.since = since
        self.scales: dict[str, int] = {}
        self.frames_waited = 0
        self.was_live = False


class Session:
    """All subscriptions of one client, over any number of connections.

    api_key: sent with `auth` first on every connection when given. cancel_on_disconnect: asked for with it.
    hello: the server's last one, None before the first. resyncs: copies that had to be put right. agents: ids of the
    key's agents, as of the last auth. accounts: by agent, the newest of what `agent` told each of them has.
    """

    def __init__(self, api_key: str | None = None, *, cancel_on_disconnect: bool = False) -> None:
        self.subscriptions: dict[str, Subscription] = {}
        self.agents: list[str] = []
        self.accounts: dict[str, dict[str, Any]] = {}
        self.hello: dict[str, Any] | None = None
        self.is_connected = False
        self.resyncs = 0
        self._api_key = api_key
        self._cancel_on_disconnect = cancel_on_disconnect
        self._outgoing: list[dict[str, Any]] = []
        self._last_id = 0
        self._auth_id: int | None = None

    def subscribe(
        self, channel: str, since: int | None = None, narrowing: Mapping[str, Any] | None = None
    ) -> Subscription:
        """Add a channel; its subscribe message goes out now, or after the next hello.

        since: only for event channels, the number of the last event already known; 0 = all there are.
        Without it events from now on are sent. narrowing: only for state channels, any of markets, every and depth.
        Raises ValueError when the channel is subscribed already.
        """
        if channel in self.subscriptions:
            raise ValueError(f"{channel} is subscribed already")
        subscription = Subscription(channel, since, narrowing)
        self.subscriptions[channel] = subscription
        if self.is_connected:
            self._learn_scales(subscription)
            self._ask(subscription)
        return subscription

    def unsubscribe(self, channel: str) -> None:
        """Remove a channel. Raises KeyError when it is not subscribed."""
        subscription = self.subscriptions.pop(channel)
        if subscription.phase is not Phase.OFFLINE:
            self._send("unsubscribe", channel=channel)

    def lost(self) -> None:
        """Take note that the connection is gone: copies stay readable, every subscription waits for the next hello."""
        self.is_connected = False
        self._outgoing.clear()
        for subscription in self.subscriptions.values():
            subscription.phase = Phase.OFFLINE
            subscription.request_id = None

    @property
    def has_key(self) -> bool:
        """Whether it authenticates."""
        return self._api_key is not None

    def act(self, agent_id: str, action: Mapping[str, Any]) -> int:
        """Have an action sent and return the id of the request; its ActionAnswered follows, unless the connection ends.

        Raises SessionBroken without a connection.
        """
        if not self.is_connected:
            raise SessionBroken("there is no connection")
        return self._send("action", agent_id=agent_id, action=dict(action))

    def take_outgoing(self) -> list[dict[str, Any]]:
        """Return the messages to send now, in order, and forget them."""
        outgoing, self._outgoing = self._outgoing, []
        return outgoing

    def receive(self, message: Mapping[str, Any]) -> list[Report]:
        """Take one message of the server and return what the owner should know.

        Raises WireError for a message that breaks the protocol, SessionBroken when only a new connection helps and
        StreamError when no connection would: another protocol version, a refused key.
        Message types that this version does not know are passed over, so that a newer server may add some.
        """
        kind = message.get("type")
        if not isinstance(kind, str):
            raise WireError("a message of the server needs its type as a string")
        if not self.is_connected and kind != "hello":
            raise WireError(f"the first message must be hello, got {kind}")
        handler = {
            "hello": self._on_hello,
            "ack": self._on_ack,
            "error": self._on_error,
            "snapshot": self._on_state,
            "delta": self._on_state,
            "event": self._on_event,
            "entries": self._on_entries,
            "accounts": self._on_accounts,
            "lagged": self._on_lagged,
            "stale": self._on_stale,
            "shutdown": self._on_shutdown,
        }.get(kind)
        return handler(message) if handler else []

    def _on_hello(self, message: Mapping[str, Any]) -> list[Report]:
        if message.get("version") != wire.VERSION:
            raise StreamError(f"the server speaks version {message.get('version')}, this client {wire.VERSION}")
        for name, kinds in _HELLO:
            if not isinstance(message.get(name), kinds):
                raise WireError(f"hello needs {name}, got {message.get(name)!r}")
        reports = self._notice_epoch(message["epoch"])
        self.hello = dict(message)
        self.is_connected = True
        if self._api_key is not None:
            wish = {"cancel_on_disconnect": True} if self._cancel_on_disconnect else {}
            self._auth_id = self._send("auth", api_key=self._api_key, **wish)
        for subscription in self.subscriptions.values():
            self._learn_scales(subscription)
            self._ask(subscription)
        return reports

    def _learn_scales(self, subscription: Subscription) -> None:
        """Take the channel's scales from hello, where the server describes all of them."""
        documents = self.hello["channels"] if self.hello else []
        document = next((d for d in documents if isinstance(d, dict) and d.get("name") == subscription.channel), None)
        if document is not None:
            subscription.scales = scales(document)
            if subscription.mirror is not None:
                subscription.mirror.scales = subscription.scales
                if subscription.channel == MARKET_CHANNEL and not subscription.mirror.fields and self.hello:
                    subscription.mirror.markets = tuple(self.hello["markets"])

    def _notice_epoch(self, epoch: str) -> list[Report]:
        """Let event channels start over when their numbering does."""
        reports: list[Report] = []
        for subscription in self.subscriptions.values():
            position = subscription.event_position
            if position is not None and position[0] != epoch:
                is_agent = subscription.channel == wire.AGENT_CHANNEL
                subscription.event_position = None if is_agent else (epoch, 0)
                reports.append(OutOfStep(subscription.channel, f"the epoch changed from {position[0]} to {epoch}"))
        return reports

    def _on_ack(self, message: Mapping[str, Any]) -> list[Report]:
        number = message.get("id")
        if message.get("op") == "action" and type(number) is int:
            receipt = message.get("receipt")
            if not isinstance(receipt, dict):
                raise WireError(f"the ack of an action needs its receipt, got {receipt!r}")
            return [ActionAnswered(number, receipt, None)]
        if number is not None and number == self._auth_id:
            self.agents = [str(agent) for agent in message.get("agents") or ()]
            return []
        subscription = self._asking(message.get("id"))
        if subscription is None or subscription.phase is not Phase.ASKED:
            return []
        subscription.phase = Phase.LIVE
        subscription.was_live = True
        reports: list[Report] = [Subscribed(subscription.channel)]
        mirror = subscription.mirror
        if mirror is not None and mirror.position is not None and mirror.epoch != message.get("epoch", mirror.epoch):
            # a delta in msgpack does not say of which epoch it is: only a snapshot is taken now
            mirror.lost(f"the epoch changed from {mirror.epoch} to {message['epoch']}")
        if subscription.mirror is None:
            reports += self._place(subscription, message)
        elif "fields" in message:
            markets, fields = message.get("markets"), message["fields"]
            if not _are_texts(markets) or not _are_texts(fields):
                raise WireError(f"a narrowed ack needs markets and fields, got {markets!r:.80} and {fields!r:.80}")
            subscription.mirror.narrow(markets, fields)
        return reports

    def _place(self, subscription: Subscription, ack: Mapping[str, Any]) -> list[Report]:
        """Take from the ack after which event an event channel goes on."""
        epoch, seq = ack.get("epoch"), ack.get("seq")
        if not isinstance(epoch, str) or type(seq) is not int:
            raise WireError(f"the ack of an event channel needs epoch and seq, got {epoch!r} and {seq!r}")
        asked = subscription.event_position
        if asked is None or not ack.get("resumed"):
            subscription.event_position = (epoch, seq)
            reason = f"could not go on after {asked}: {ack.get('reason')}" if asked else None
        elif "missed_to" in ack:
            subscription.event_position = (epoch, int(ack["missed_to"]))
            reason = f"{ack.get('missed_from')} to {ack['missed_to']} are kept no longer"
            if "missed_at" in ack:
                reason += f"; receipts: {ack['missed_at']}"
        else:
            reason = None
        return [OutOfStep(subscription.channel, reason)] if reason else []

    def _on_error(self, message: Mapping[str, Any]) -> list[Report]:
        number = message.get("id")
        if number is not None and number == self._auth_id:
            reason = f"the api key was refused: {message.get('detail') or message.get('title')}"
            raise SessionBroken(reason) if message.get("temporary") is True else StreamError(reason)
        if message.get("op") == "action" and type(number) is int:
            return [ActionAnswered(number, None, message)]
        subscription = self._asking(number)
        if subscription is None:
            return []
        error = SubscriptionRefused(subscription.channel, message)
        if subscription.phase is Phase.RESYNCING or (error.temporary and subscription.was_live):
            raise SessionBroken(str(error)) from error
        del self.subscriptions[subscription.channel]
        return [Refused(subscription.channel, error)]

    def _on_state(self, message: Mapping[str, Any]) -> list[Report]:
        subscription = self.subscriptions.get(str(message.get("channel")))
        if subscription is None or subscription.mirror is None or subscription.phase in _DEAF:
            return []
        mirror = subscription.mirror
        verdict = mirror.feed(message)
        if verdict.applied:
            subscription.phase = Phase.LIVE
            subscription.frames_waited = 0
            return [_changed(mirror, message)]
        if verdict.needs_resync is None:
            return []
        if subscription.phase is Phase.RESYNCING:
            return self._wait_on(subscription, verdict.needs_resync)
        self.resyncs += 1
        subscription.phase = Phase.RESYNCING
        subscription.frames_waited = 0
        subscription.request_id = self._send("resync", channel=subscription.channel)
        return [OutOfStep(subscription.channel, verdict.needs_resync)]

    def _wait_on(self, subscription: Subscription, reason: str) -> list[Report]:
        subscription.frames_waited += 1
        if subscription.frames_waited >= RESYNC_PATIENCE_FRAMES:
            raise SessionBroken(f"no good snapshot of {subscription.channel} came: {reason}")
        return []

    def _on_event(self, message: Mapping[str, Any]) -> list[Report]:
        subscription = self.subscriptions.get(str(message.get("channel")))
        if subscription is None or subscription.phase is not Phase.LIVE or subscription.event_position is None:
            return []
        epoch, seq, base = message.get("epoch"), message.get("seq"), message.get("base")
        tick, sent_ns, event = message.get("tick"), message.get("sent_ns"), message.get("event")
        if not all(type(number) is int for number in (seq, base, tick, sent_ns)) or not isinstance(event, dict):
            raise WireError(f"an event frame needs seq, base, tick, sent_ns and its event: {dict(message)!r:.200}")
        known_epoch, known = subscription.event_position
        assert isinstance(seq, int)  # checked above, for the type checker
        if epoch == known_epoch and seq <= known:
            return []
        if epoch != known_epoch or base != known:
            self._ask_again(subscription)
            return [OutOfStep(subscription.channel, f"a gap: stands at {known}, the event is {seq} after {base}")]
        subscription.event_position = (known_epoch, seq)
        values = {key: _in_units(value, subscription.scales.get(key, 0)) for key, value in event.items()}
        return [
            EventReceived(subscription.channel, known_epoch, seq, message["tick"], message["sent_ns"], event, values)
        ]

    def _on_entries(self, message: Mapping[str, Any]) -> list[Report]:
        subscription = self.subscriptions.get(str(message.get("channel")))
        if subscription is None or subscription.phase is not Phase.LIVE or subscription.event_position is None:
            return []
        numbers = [message.get(name) for name in ("seq", "base", "tick", "sent_ns")]
        entries, balances = message.get("entries"), message.get("balances", [])
        if not all(type(number) is int for number in numbers) or not _are_maps(entries) or not _are_maps(balances):
            raise WireError(f"an entries frame needs seq, base, tick, sent_ns and entries: {dict(message)!r:.200}")
        seq, base, tick, sent_ns = (int(number) for number in numbers if number is not None)
        epoch, known = subscription.event_position
        if message.get("epoch") == epoch and seq <= known:
            return []
        if message.get("epoch") != epoch or base > known:
            self._ask_again(subscription)
            return [OutOfStep(subscription.channel, f"a gap: stands at {known}, the entries begin after {base}")]
        subscription.event_position = (epoch, seq)
        self._learn_accounts(balances)
        return [EntriesReceived(subscription.channel, epoch, seq, tick, sent_ns, list(entries), list(balances))]

    def _on_accounts(self, message: Mapping[str, Any]) -> list[Report]:
        accounts, left = message.get("accounts"), message.get("left")
        if not _are_maps(accounts) or type(left) is not int:
            raise WireError(f"an accounts frame needs accounts and left: {dict(message)!r:.200}")
        self._learn_accounts(accounts)
        return [AccountsReceived(list(accounts), left)]

    def _learn_accounts(self, told: list[dict[str, Any]]) -> None:
        """Take in what agents have; of one agent the newest tick counts, an account and a balance have it whole."""
        for account in told:
            known = self.accounts.setdefault(str(account.get("agent_id")), {})
            if account.get("tick", -1) >= known.get("tick", -1):
                known.update(account)

    def _on_lagged(self, message: Mapping[str, Any]) -> list[Report]:
        skipped = message.get("skipped")
        return [Lagged(str(message.get("channel")), skipped if isinstance(skipped, int) else 0)]

    def _on_stale(self, message: Mapping[str, Any]) -> list[Report]:
        tick = message.get("tick")
        return [Stale(tick if type(tick) is int else None)]

    def _on_shutdown(self, message: Mapping[str, Any]) -> list[Report]:
        wait_ms = message.get("retry_after_ms")
        return [ShuttingDown(wait_ms / 1000 if isinstance(wait_ms, int | float) else 0.0)]

    def _ask(self, subscription: Subscription) -> None:
        """Send subscribe, from where the data has come to."""
        subscription.phase = Phase.ASKED
        position = subscription.mirror.position if subscription.mirror else subscription.event_position
        if position is None and subscription.since is not None:
            assert self.hello is not None  # nothing is asked before the server has greeted
            position = subscription.event_position = (self.hello["epoch"], subscription.since)
        fields: dict[str, Any] = {"channel": subscription.channel, **subscription.narrowing}
        if position is not None:
            fields["epoch"], fields["seq"] = position
        subscription.request_id = self._send("subscribe", **fields)

    def _ask_again(self, subscription: Subscription) -> None:
        self.resyncs += 1
        self._send("unsubscribe", channel=subscription.channel)
        self._ask(subscription)

    def _asking(self, number: Any) -> Subscription | None:
        """Return the subscription that waits for the answer to request `number`."""
        if number is None:
            return None
        return next((s for s in self.subscriptions.values() if s.request_id == number), None)

    def _send(self, op: str, **fields: Any) -> int:
        self._last_id += 1
        self._outgoing.append({"op": op, "id": self._last_id, **fields})
        return self._last_id


#: The channel that may be narrowed to markets.
MARKET_CHANNEL: Final = wire.STATE_CHANNELS[0]
#: Fields of hello without which nothing else can be read. The tick is null before the first one is published.
_HELLO: Final = (
    ("epoch", str),
    ("tick", (int, type(None))),
    ("tick_rate_ms", int),
    ("heartbeat_s", (int, float)),
    ("markets", list),
    ("resources", list),
    ("channels", list),
)
#: Phases in which data can only be left over from an earlier subscription.
_DEAF = (Phase.OFFLINE, Phase.ASKED)


def _changed(mirror: Mirror, message: Mapping[str, Any]) -> StateChanged:
    # a delta in msgpack has none of its own
    assert mirror.epoch is not None
    return StateChanged(
        channel=mirror.channel,
        mirror=mirror,
        epoch=mirror.epoch,
        seq=message["seq"],
        tick=message["tick"],
        sent_ns=message["sent_ns"],
        is_snapshot=message["type"] == "snapshot",
        reason=message.get("reason"),
    )


def _are_texts(value: Any) -> TypeGuard[list[str]]:
    return isinstance(value, list) and set(map(type, value)) <= {str}


def _are_maps(value: Any) -> TypeGuard[list[dict[str, Any]]]:
    return isinstance(value, list) and set(map(type, value)) <= {dict}


def _in_units(value: Any, scale: int) -> Any:
    """Return a value of an event in its unit; scale 0 stands for text, 1 for whole numbers."""
    return value / scale if scale > 1 and isinstance(value, int) else value
