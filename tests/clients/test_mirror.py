"""The mirror is equal to the server at its seq, or it says that it needs a resync."""

from __future__ import annotations

from typing import Any

import pytest
from arena_client import wire
from arena_client.mirror import Mirror, Verdict, scales
from hypothesis import given
from hypothesis import strategies as st

EPOCHS = ("epoch-one", "epoch-two")
CHANNEL = "market_tick"


def snapshot(state: wire.State, seq: int, epoch: str = EPOCHS[0], **changes: Any) -> dict[str, Any]:
    frame = {
        "type": "snapshot",
        "channel": CHANNEL,
        "epoch": epoch,
        "seq": seq,
        "base": None,
        "tick": seq,
        "sent_ns": seq,
        "state": state,
        "crc": wire.checksum(state),
    }
    return frame | changes


def delta(before: wire.State, after: wire.State, seq: int, epoch: str = EPOCHS[0], **changes: Any) -> dict[str, Any]:
    frame = {
        "type": "delta",
        "channel": CHANNEL,
        "epoch": epoch,
        "seq": seq,
        "base": seq - 1,
        "tick": seq,
        "sent_ns": seq,
        **wire.diff(before, after),
    }
    if seq % wire.CRC_EVERY == 0:
        frame["crc"] = wire.checksum(after)
    return frame | changes


A: wire.State = {"price": [1, 2, 3], "level": 5}
B: wire.State = {"price": [1, 9, 3], "level": 5}
C: wire.State = {"price": [0, 0, 0], "level": 6}


def test_a_snapshot_and_its_deltas_are_followed() -> None:
    """The copy stands where the last frame says, and knows what was verified."""
    mirror = Mirror(CHANNEL)

    verdicts = [mirror.feed(snapshot(A, 8)), mirror.feed(delta(A, B, 9)), mirror.feed(delta(B, C, 10))]

    assert verdicts == [Verdict(True)] * 3
    assert (mirror.state, mirror.position, mirror.tick, mirror.verified_seq) == (C, (EPOCHS[0], 10), 10, 10)


def test_nothing_is_known_before_the_first_snapshot() -> None:
    """A delta alone builds nothing, and there is no position to resume after."""
    mirror = Mirror(CHANNEL)

    verdict = mirror.feed(delta(A, B, 9))

    assert verdict == Verdict(False, "no snapshot yet")
    assert (mirror.state, mirror.position) == ({}, None)


@pytest.mark.parametrize(
    ("frame", "reason"),
    [
        (delta(B, C, 10), "a gap: stands at 8, the delta starts at 9"),
        (delta(A, B, 9, epoch=EPOCHS[1]), "the epoch changed from epoch-one to epoch-two"),
        (delta(A, B, 9, crc=1), "checksum mismatch at seq 9"),
        (snapshot(B, 9, crc=1), "checksum mismatch in a snapshot"),
        (delta(A, B, 9, diff={"weather": 1}), "malformed: diff names the unknown field 'weather'"),
        (delta(A, B, 9, diff={"price": [1]}), "malformed: diff.price must have 3 entries, got 1"),
        (delta(A, B, 9, base=9), "malformed: a delta needs a base below its seq"),
        (delta(A, B, 9, base=None), "malformed: a delta needs a base below its seq"),
        (delta(A, B, 9) | {"seq": "9"}, "malformed: a data frame needs seq, tick and sent_ns as integers"),
        (delta(A, B, 9) | {"epoch": None}, "malformed: a data frame needs its epoch as a string"),
        (delta(A, B, 9, type="event"), "malformed: a state channel sends snapshot and delta, got 'event'"),
        (snapshot(B, 9, crc=None), "malformed: a snapshot must carry its checksum"),
        (snapshot(B, 9) | {"state": [1]}, "malformed: a snapshot needs its state as a map"),
        (snapshot(B, 9) | {"state": {"price": "1"}}, "malformed: 'price' must be an integer or a list of integers"),
    ],
)
def test_what_does_not_fit_leaves_the_old_state_readable(frame: dict[str, Any], reason: str) -> None:
    """The copy goes stale with the reason, keeps its last state, and takes no delta until a snapshot comes."""
    mirror = Mirror(CHANNEL)
    mirror.feed(snapshot(A, 8))

    verdict = mirror.feed(frame)

    assert not verdict.applied
    assert str(verdict.needs_resync).startswith(reason)
    assert (mirror.state, mirror.seq, mirror.position) == (A, 8, None)
    assert mirror.stale == verdict.needs_resync
    assert not mirror.feed(delta(A, B, 9)).applied
    assert mirror.feed(snapshot(C, 12)).applied
    assert (mirror.state, mirror.stale) == (C, None)


def test_what_came_before_is_passed_over() -> None:
    """A frame that the copy already contains changes nothing and is no reason to worry."""
    mirror = Mirror(CHANNEL)
    mirror.feed(snapshot(A, 8))
    mirror.feed(delta(A, B, 9))

    verdicts = [mirror.feed(delta(A, B, 9)), mirror.feed(snapshot(A, 8))]

    assert verdicts == [Verdict(False)] * 2
    assert (mirror.state, mirror.seq) == (B, 9)


def test_a_new_epoch_starts_with_its_snapshot() -> None:
    """Seq may be lower in the new epoch."""
    mirror = Mirror(CHANNEL)
    mirror.feed(snapshot(A, 8))

    verdict = mirror.feed(snapshot(C, 2, epoch=EPOCHS[1]))

    assert verdict.applied
    assert (mirror.state, mirror.position) == (C, (EPOCHS[1], 2))


def test_the_state_cannot_be_changed_from_outside() -> None:
    """What a user holds is read-only and stays as it was while the copy moves on."""
    mirror = Mirror(CHANNEL)
    mirror.feed(snapshot(A, 8))
    held = mirror.state

    mirror.feed(delta(A, B, 9))

    assert held == A
    with pytest.raises(TypeError):
        held["level"] = 6  # type: ignore[index]  # that it cannot be done is what is tested


def test_values_are_integers_over_their_scale() -> None:
    """Scale 1 stays whole, everything else is the quotient; a field without scale is an error."""
    mirror = Mirror(CHANNEL)
    mirror.feed(snapshot({"price": [1_250_000, 3], "level": 5}, 8))
    mirror.scales = scales({"fields": {"price": [1_000_000, 2, "credits"], "level": [1, 0, "level"]}})

    assert mirror.values() == {"price": [1.25, 3 / 1_000_000], "level": 5}
    assert (mirror.series("price"), mirror.value("level")) == ([1.25, 0.000003], 5)
    with pytest.raises(TypeError, match=r"use series\(\)"):
        mirror.value("price")
    with pytest.raises(TypeError, match=r"use value\(\)"):
        mirror.series("level")
    mirror.scales = {}
    with pytest.raises(KeyError):
        mirror.values()


@pytest.mark.parametrize("channel", [{}, {"fields": None}, {"fields": {"a": []}}, {"fields": {"a": ["1"]}}])
def test_a_schema_that_is_none_is_refused(channel: dict[str, Any]) -> None:
    """Scales come from the server and are checked like everything else."""
    with pytest.raises(wire.WireError):
        scales(channel)


def test_another_channels_frame_is_the_callers_mistake() -> None:
    """It raises, where what a server sends never does."""
    with pytest.raises(ValueError, match="the mirror of market_tick got a frame of 'scarcity_update'"):
        Mirror(CHANNEL).feed(snapshot(A, 8, channel="scarcity_update"))


# -- the promise, on random networks ----------------------------------------------------------------------------------


@st.composite
def histories(draw: st.DrawFn) -> dict[str, list[wire.State]]:
    """For each epoch the state at every seq from 0."""
    value = st.integers(-1000, 1000)

    def state() -> wire.State:
        return {"price": draw(st.lists(value, min_size=4, max_size=4)), "level": draw(value)}

    return {epoch: [state() for _ in range(draw(st.integers(2, 14)))] for epoch in EPOCHS}


@given(histories(), st.data())
def test_a_mirror_is_equal_or_says_so(states: dict[str, list[wire.State]], data: st.DataObject) -> None:
    """Whatever is dropped, doubled, reordered or has its checksum flipped, over an epoch change as well.

    After every frame the copy is exactly what the server had at (epoch, seq) of the copy, and as long as it says that
    it is in step and a frame follows the last one, it takes it.
    """
    frames = [
        snapshot(states[epoch][i], i, epoch) if i == 0 or data.draw(st.integers(0, 4)) == 0
        else delta(states[epoch][i - 1], states[epoch][i], i, epoch)
        for epoch in EPOCHS
        for i in range(len(states[epoch]))
    ]  # fmt: skip
    kept = [frame for frame in frames if data.draw(st.integers(0, 5)) > 0]
    doubled = [frame for frame in kept for _ in range(data.draw(st.sampled_from([1, 1, 1, 2])))]
    order = data.draw(st.permutations(range(len(doubled)))) if data.draw(st.booleans()) else range(len(doubled))
    mirror = Mirror(CHANNEL)

    for i in order:
        frame = dict(doubled[i])
        is_flipped = "crc" in frame and data.draw(st.integers(0, 4)) == 0
        if is_flipped:
            frame["crc"] ^= 1 << data.draw(st.integers(0, 31))
        was_in_step = mirror.position is not None and mirror.position == (frame["epoch"], frame["base"])

        verdict = mirror.feed(frame)

        assert not verdict.applied or (mirror.epoch, mirror.seq) == (frame["epoch"], frame["seq"])
        assert not (verdict.applied and is_flipped)
        if was_in_step and not is_flipped:
            assert verdict.applied
        if mirror.epoch is not None and mirror.seq is not None:
            assert mirror.state == states[mirror.epoch][mirror.seq]
        assert (mirror.position is None) == (mirror.stale is not None)


@given(histories(), st.data())
def test_a_flipped_value_is_found_at_the_next_checksum(
    states: dict[str, list[wire.State]], data: st.DataObject
) -> None:
    """Damage that fits the grammar lasts until the next frame with a checksum, no longer."""
    history = states[EPOCHS[0]]
    damaged = data.draw(st.integers(1, len(history) - 1))
    mirror = Mirror(CHANNEL)
    mirror.feed(snapshot(history[0], 0))

    for i in range(1, len(history)):
        frame = delta(history[i - 1], history[i], i, crc=wire.checksum(history[i]))
        if i == damaged:
            frame["diff"] = {**frame["diff"], "level": frame["diff"].get("level", 0) + 1}
        mirror.feed(frame)

    assert mirror.stale == f"checksum mismatch at seq {damaged}"
    assert (mirror.state, mirror.verified_seq) == (history[damaged - 1], damaged - 1)
