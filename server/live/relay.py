"""What an engine tells its gateways: bundles of finished frames, which put a hub in step with the engine's.

A bundle leads from where somebody stands (a position for each channel) to now. The engine publishes one after every
tick and answers with one when a gateway asks; what a gateway missed, or did not have yet, is only a longer bundle.
Whoever takes one checks that it fits: a gap is found by sequence numbers, and a state by its checksum.
Source: DESIGN D10.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgpack
from arena_client import wire

from server.live.hub import Hub
from server.live.topics import EventTopic, StateTopic

VERSION: Final = 3
"""Of the bundles and of reports of connections: an engine and its gateways must speak the same one."""
EVENTS_MAX: Final = 4_000
"""Events of a channel in one bundle, about 1 MB: a gateway that lacks more asks again."""

Positions = Mapping[str, int | None]
"""The last sequence number of each channel, None or absent: nothing is there."""


class Mismatch(Exception):
    """A bundle that is none, or that speaks another language than this release."""


class Gap(Exception):
    """A bundle does not go on where the hub stands; what is missing must be asked for."""


def bundle(hub: Hub, since: Positions, extra: Mapping[str, Any] | None = None) -> bytes:
    """Return what leads from the positions to the hub's present, as bytes. extra: further members of the bundle.

    A state channel whose frames since then are not all kept is sent whole, with all frames that are.
    """
    return pack(
        {
            "version": VERSION,
            "epoch": hub.epoch,
            "tick": hub.tick,
            "origin_unix_ms": hub.origin_unix_ms,
            "states": {name: _state_part(topic, since.get(name)) for name, topic in hub.states.items()},
            "events": {name: _event_part(topic, since.get(name)) for name, topic in hub.events.items()},
        }
        | dict(extra or {})
    )


def read(data: bytes) -> dict[str, Any]:
    """Return a bundle. Raises Mismatch for what is none."""
    try:
        found = unpack(data)
    except ValueError as error:
        raise Mismatch(f"not a bundle: {error}") from error
    if not isinstance(found, dict) or found.get("version") != VERSION:
        version = found.get("version") if isinstance(found, dict) else None
        raise Mismatch(f"the engine sends bundles of version {version}, this gateway reads version {VERSION}")
    return found


def positions(hub: Hub) -> dict[str, int | None]:
    """Return where a hub stands."""
    topics: dict[str, StateTopic | EventTopic] = {**hub.states, **hub.events}
    return {name: topic.seq for name, topic in topics.items()}


def take(hub: Hub, told: Mapping[str, Any]) -> bool:
    """Bring a hub of the bundle's epoch to where the bundle leads; return whether it leads to all there is.

    Raises Gap when it begins after where the hub stands or does not fit it: channels before that one are in step.
    """
    if told["states"].keys() != hub.states.keys() or told["events"].keys() != hub.events.keys():
        raise Mismatch("the engine has other channels than this gateway: run the same release")
    is_whole = True
    for name, part in told["events"].items():
        is_whole &= _take_events(hub.events[name], part)
    for name, part in told["states"].items():
        _take_states(hub.states[name], part)
    hub.arrived(told["tick"])
    return is_whole


def pack(value: Any) -> bytes:
    """Return a value as msgpack, bytes in it included."""
    packed: bytes = msgpack.packb(value)
    return packed


def unpack(data: bytes) -> Any:
    """Return the value in msgpack bytes. Raises ValueError."""
    try:
        return msgpack.unpackb(data, raw=False, strict_map_key=False)
    except (ValueError, TypeError, msgpack.UnpackException) as error:
        raise ValueError(str(error) or type(error).__name__) from error


def _state_part(topic: StateTopic, since: int | None) -> dict[str, Any]:
    part: dict[str, Any] = {"seq": topic.seq, "sent_ns": topic.sent_ns}
    frames = None if since is None else topic.since(since)
    if frames is None:
        # whoever has nothing gets the frames as well: clients will want to resume there
        return part | {"frames": topic.since(None), "state": topic.state}
    return part | {"frames": frames}


def _event_part(topic: EventTopic, since: int | None) -> dict[str, Any]:
    first, payloads = topic.since(since or 0, EVENTS_MAX)
    return {"seq": topic.seq, "oldest": topic.oldest, "first": first, "frames": payloads}


def _take_states(topic: StateTopic, part: Mapping[str, Any]) -> None:
    now, payloads = part["seq"], part["frames"]
    if now is None or (topic.seq is not None and now <= topic.seq):
        return
    oldest = now - len(payloads)
    if topic.seq is None or topic.seq < oldest:
        if "state" not in part:
            raise Gap(f"{topic.name}: stands at {topic.seq}, the frames begin after {oldest}")
        topic.adopt(now, part["state"], part["sent_ns"], payloads)
        return
    for payload in payloads[topic.seq - oldest :]:
        _follow(topic, payload)


def _follow(topic: StateTopic, payload: bytes) -> None:
    try:
        frame = wire.decode(payload, wire.SUBPROTOCOL_MSGPACK)
        state = wire.apply(topic.state, frame)
    except wire.WireError as error:
        raise Gap(f"{topic.name}: a frame after {topic.seq} does not fit: {error}") from error
    if "crc" in frame and frame["crc"] != wire.checksum(state):
        raise Gap(f"{topic.name}: the checksum at {frame['seq']} is not that of the state here")
    topic.follow(frame, state, payload)


def _take_events(topic: EventTopic, part: Mapping[str, Any]) -> bool:
    first, payloads = part["first"], part["frames"]
    if first > topic.seq + 1:
        if part["oldest"] <= topic.seq + 1:
            raise Gap(f"{topic.name}: stands at {topic.seq}, the events begin with {first}")
        # what lies between is kept by nobody: who resumes from there is told so
        topic.begin(first - 1)
    for payload in payloads[topic.seq + 1 - first :]:
        topic.add(topic.seq + 1, payload)
    return topic.seq >= int(part["seq"])
