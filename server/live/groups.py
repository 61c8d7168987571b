"""Subscribers that stand at the same place of the same streams get the same bytes: pulled, joined and framed once.

A group holds one cursor for each of its topics, and its members share them: in step, a member costs a write and
nothing else. Whoever falls behind, changes its subscriptions or closes takes copies of the cursors and leaves; the hub
brings it on by itself, and lets it in again once it stands where the group stands.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import replace
from typing import Final, Protocol

from server.live.topics import Message, Subscription, Topic
from server.protocols import ArenaWebSocketProtocol, Crowd
from server.send_loop import Send

SLICE: Final = 100
"""Connections brought on before others get a turn: whole fan-outs held HTTP up for 60 ms, slices for 5."""

Key = tuple[str, tuple[tuple[str, Hashable], ...]]
"""Subprotocol, and name and form of every subscription, in the order of the topics."""


class Member(Protocol):
    """What a group needs of a subscriber. group and position are the group's to set."""

    number: int
    connection: ArenaWebSocketProtocol | None
    subscriptions: dict[str, Subscription]
    group: Group | None
    position: int


class Group:
    """Members in step. A round gives all that were members when it began what is next; `step` serves a slice of them.

    subscriptions: the shared cursors, in the order of the topics. send: writes to descriptors. last_sent: when the last
    round began.
    """

    def __init__(self, subprotocol: str, subscriptions: dict[str, Subscription], send: Send) -> None:
        self.subprotocol = subprotocol
        self.subscriptions = subscriptions
        self.last_sent = 0.0
        self._send = send
        self._members: list[Member | None] = []
        self._holes = 0
        self._crowds: dict[int, tuple[int, list[Member], Crowd]] = {}
        """Slices as they were served last, by their first place: where they end, who is in them."""
        # of the round under way: what it gives, to whom it has not been given yet, where they stood before
        self._data = b""
        self._next = self._end = 0
        self._before: dict[str, Subscription] = {}

    def __len__(self) -> int:
        """Return the number of members."""
        return len(self._members) - self._holes

    @property
    def members(self) -> list[Member]:
        """All members, in the order they are served in."""
        return [member for member in self._members if member is not None]

    def stands_with(self, subscriptions: Mapping[str, Subscription]) -> bool:
        """Say whether subscriptions of the group's key have come exactly as far as the group."""
        return all(subscriptions[name].seq == mine.seq for name, mine in self.subscriptions.items())

    def add(self, subscriber: Member) -> None:
        """Take in a subscriber that stands with the group; it is served from the next round on."""
        subscriber.group, subscriber.position = self, len(self._members)
        subscriber.subscriptions = self.subscriptions
        self._members.append(subscriber)

    def remove(self, subscriber: Member) -> None:
        """Let a member go, with cursors of its own that say what it has been given."""
        self._release(subscriber, is_served=not self._next <= subscriber.position < self._end)

    def _release(self, subscriber: Member, *, is_served: bool) -> None:
        cursors = self.subscriptions if is_served else self._before
        subscriber.group = None
        subscriber.subscriptions = {name: replace(cursor) for name, cursor in cursors.items()}
        # the place stays empty until the next round, so that the others keep theirs
        self._members[subscriber.position] = None
        self._crowds.pop(subscriber.position // SLICE * SLICE, None)
        self._holes += 1

    def begin(self, topics: Mapping[str, Topic], now: float) -> list[Message]:
        """Begin a round and return what it gives; nothing when there is nothing new."""
        if self._holes:
            self._members = list(self.members)
            self._crowds.clear()
            self._holes = 0
            for i, member in enumerate(self._members):
                assert member is not None
                member.position = i
        if not any(topics[name].pending(cursor) for name, cursor in self.subscriptions.items()):
            return []
        self._before = {name: replace(cursor) for name, cursor in self.subscriptions.items()}
        batch = [
            message
            for name, cursor in self.subscriptions.items()
            for message in topics[name].pull(cursor, self.subprotocol)
        ]
        self._data = b"".join(message.framed for message in batch)
        self._next, self._end = 0, len(self._members)
        self.last_sent = now
        return batch

    @property
    def is_under_way(self) -> bool:
        """Whether the round has members left to serve."""
        return self._next < self._end

    def step(self) -> int:
        """Serve the next slice and return how many took it. Members where older data waits leave, without it."""
        first, self._next = self._next, min(self._next + SLICE, self._end)
        # moved on first, because a write that comes short makes its member leave at once, as one that was served
        members, crowd = self._slice(first, self._next)
        behind = crowd.send(self._data, self._send)
        for i in behind:
            self._release(members[i], is_served=False)
        return len(members) - len(behind)

    def _slice(self, first: int, end: int) -> tuple[list[Member], Crowd]:
        """Return the members in places from first to end that have a connection, and their connections."""
        ended, members, crowd = self._crowds.get(first, (-1, [], None))
        if crowd is None or ended != end:
            members, connections = [], []
            for member in self._members[first:end]:
                if member is not None and member.connection is not None:
                    members.append(member)
                    connections.append(member.connection)
            crowd = Crowd(connections)
            self._crowds[first] = end, members, crowd
        return members, crowd
