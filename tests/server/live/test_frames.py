"""Channels cover every public value, states are exact integers, frames lead from one state to the next."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from arena_client import wire
from arena_client.wire import SUBPROTOCOL_JSON, SUBPROTOCOL_MSGPACK
from hypothesis import given
from hypothesis import strategies as st

from engine.config import Config
from engine.economy import Economy
from engine.errors import InvariantBroken
from engine.events import Event, PublicState
from engine.markets import OIL
from engine.phases.emission import CATASTROPHE_STRUCK, RESOURCE_DISCOVERED, inject_event
from engine.public import INDICATOR_FIELDS, MARKET_FIELDS, MONETARY_FIELDS, PSYCHOLOGY_FIELDS, RESOURCE_FIELDS, Field
from server.live import frames
from server.live.frames import CHANNELS, INFLATION, MARKET_TICK, PSYCHOLOGY, SCARCITY, UNITS, VALUE_MAX
from tests.support.published import EPOCH, World

NUMBERS = st.one_of(
    st.floats(allow_nan=False, allow_infinity=False),
    st.integers(-(10**19), 10**19).map(float),
    st.floats(-1.0, 1.0),
)


#: A seed, and for some group of values which of them is replaced by what.
EXTREMES = st.tuples(
    st.integers(0, 2**32),
    st.lists(st.tuples(st.integers(0, 4), st.integers(0, 10**6), NUMBERS), max_size=12),
)


def extreme_world(extremes: tuple[int, list[tuple[int, int, float]]]) -> PublicState:
    """Return public values of which some are anything a finite number can be."""
    seed, replaced = extremes
    public = World(seed).public()
    groups: list[dict[str, Any]] = [
        public.market,
        public.resource,
        public.psychology,
        public.monetary,
        public.indicators,
    ]
    for group, place, value in replaced:
        names = list(groups[group])
        name = names[place % len(names)]
        if group < 2:
            groups[group][name] = groups[group][name].astype(np.float64)
            groups[group][name][place % len(groups[group][name])] = value
        else:
            groups[group][name] = value
    return public


def naive_integer(value: float, field: frames.WireField) -> int:
    """Round with fractions, half to even, and cut."""
    return max(-VALUE_MAX, min(VALUE_MAX, round(Fraction(float(value)) * field.scale / field.divisor)))


class TestChannels:
    def test_are_the_six_of_the_specification(self) -> None:
        """Names and kinds are those of the client."""
        assert frames.STATE_CHANNELS == wire.STATE_CHANNELS
        assert frames.EVENT_CHANNELS == wire.EVENT_CHANNELS

    @pytest.mark.parametrize(
        ("channel", "group", "length"),
        [
            (MARKET_TICK, MARKET_FIELDS, 32),
            (PSYCHOLOGY, PSYCHOLOGY_FIELDS, 0),
            (INFLATION, MONETARY_FIELDS, 0),
            (INFLATION, INDICATOR_FIELDS, 0),
            (SCARCITY, RESOURCE_FIELDS, 7),
        ],
    )
    def test_carry_every_public_value(self, channel: str, group: tuple[Field, ...], length: int) -> None:
        """Nothing the engine publishes is missing from the streams, and each list has an entry a market or resource."""
        lengths = {field.name: field.length for field in CHANNELS[channel].fields}

        assert {field.name: lengths[field.name] for field in group} == dict.fromkeys((f.name for f in group), length)

    def test_name_no_field_twice(self) -> None:
        """Values of two groups, such as the policy rate, are sent once."""
        for channel in CHANNELS.values():
            names = [field.name for field in channel.fields]
            assert len(names) == len(set(names))

    def test_units_are_for_people(self) -> None:
        """Money is in credits; nothing on the wire is in ucr."""
        assert UNITS[MARKET_TICK]["price"] == UNITS[INFLATION]["money_supply"] == "credits"
        assert all(unit != "ucr" for units in UNITS.values() for unit in units.values())

    def test_schema_hash_follows_the_schema(self) -> None:
        """A rescaled field is another schema; a new explanation is not."""
        channel = CHANNELS[SCARCITY]
        first, *others = channel.fields

        rescaled = channel._replace(fields=(first._replace(scale=10), *others))
        reworded = channel._replace(fields=(first._replace(text="other words"), *others))

        assert rescaled.schema_hash != channel.schema_hash
        assert reworded.schema_hash == channel.schema_hash


class TestQuantise:
    @given(EXTREMES)
    def test_equals_exact_rounding(self, extremes: Any) -> None:
        """The vectorised integers are those of exact fractions, up to what a double cannot hold."""
        public = extreme_world(extremes)
        states = frames.quantise(public)

        sources: dict[str, dict[str, Any]] = {
            MARKET_TICK: public.market,
            PSYCHOLOGY: public.psychology,
            INFLATION: public.indicators | public.monetary,
            SCARCITY: public.resource,
        }
        for channel, source in sources.items():
            for field in CHANNELS[channel].fields:
                values = np.atleast_1d(np.asarray(source[field.name], np.float64))
                integers = np.atleast_1d(np.asarray(states[channel][field.name]))
                for value, integer in zip(values.tolist(), integers.tolist(), strict=True):
                    exact = naive_integer(value, field)
                    assert abs(integer - exact) <= abs(exact) >> 50

    @given(EXTREMES)
    def test_fits_the_wire(self, extremes: Any) -> None:
        """Both encodings carry every state and give it back."""
        for state in frames.quantise(extreme_world(extremes)).values():
            for subprotocol in wire.SUBPROTOCOLS:
                assert wire.decode(wire.encode({"state": state}, subprotocol), subprotocol) == {"state": state}

    def test_names_what_is_not_finite(self) -> None:
        """A NaN never leaves the server: the tick is not published, and the field is named."""
        public = World().public()
        public.market["elasticity"][5] = np.nan

        with pytest.raises(InvariantBroken, match="market_tick: not finite: elasticity"):
            frames.quantise(public)

    def test_large_money_is_cut_not_wrapped(self) -> None:
        """A value beyond the wire's range shows as its largest."""
        public = World().public()

        state = frames.quantise(replace(public, monetary=public.monetary | {"credit": 1e30, "bank": -1e30}))[INFLATION]

        assert (state["credit"], state["bank"]) == (VALUE_MAX, -VALUE_MAX)


class TestValues:
    def test_are_in_the_units_of_the_schema(self) -> None:
        """A price shows in credits with its decimals, an aggregate in whole credits, a share as a fraction."""
        public = World().public()
        public.market["price"][9] = 1_234_567
        public.monetary["money_supply"] = 2_500_000_499_999.0
        public.psychology["fear"] = 0.123_456_7

        values = frames.describe(public)

        prices = values[MARKET_TICK]["price"]
        assert isinstance(prices, list)
        assert prices[9] == 1.234567
        assert values[INFLATION]["money_supply"] == 2_500_000
        assert values[PSYCHOLOGY]["fear"] == 0.123457

    def test_whole_values_stay_integers(self) -> None:
        """Lots are counted, so their numbers are integers, not floats."""
        values = frames.describe(World().public())

        assert all(isinstance(lots, int) for lots in values[MARKET_TICK]["volume"])  # type: ignore[union-attr]  # a list


class TestFrames:
    @given(EXTREMES, EXTREMES, st.integers(1, 2**40))
    def test_delta_leads_to_the_next_state(self, first: Any, second: Any, tick: int) -> None:
        """Whatever the two states: the delta applied to the one is the other, in both encodings, and its sum holds."""
        before, after = frames.quantise(extreme_world(first)), frames.quantise(extreme_world(second))

        for channel in frames.STATE_CHANNELS:
            frame = frames.delta(channel, EPOCH, tick - 1, tick, 0, before[channel], after[channel])
            named = frames.in_json(frame, EPOCH, after[channel])
            for subprotocol, told in ((SUBPROTOCOL_MSGPACK, frame), (SUBPROTOCOL_JSON, named)):
                received = wire.decode(wire.encode(told, subprotocol), subprotocol)
                mirrored = wire.apply(before[channel], received)
                assert mirrored == after[channel]
                assert received.get("crc", wire.checksum(mirrored)) == wire.checksum(mirrored)
            assert ("crc" in frame) == (tick % 10 == 0)

    def test_delta_of_nothing_keeps_the_sequence(self) -> None:
        """A tick without change still has a frame, with no differences."""
        state = frames.quantise(World().public())[SCARCITY]

        frame = frames.delta(SCARCITY, EPOCH, 6, 7, 5, state, state)

        assert frame == {
            "type": "delta",
            "channel": SCARCITY,
            "epoch": EPOCH,
            "seq": 7,
            "base": 6,
            "tick": 7,
            "sent_ns": 5,
            "diff": b"\xff" * len(state),
        }
        assert frames.in_json(frame, EPOCH, state) == {**frame, "diff": {}}

    def test_the_links_hold(self) -> None:
        """Nothing is left of imbalance in a delta: it is demand less supply, whatever happens."""
        economy = Economy(Config(residents=2_000), 1)
        states = [frames.quantise(economy.advance().public)[MARKET_TICK] for _ in range(30)]

        for before, after in pairwise(states):
            packed = frames.delta(MARKET_TICK, EPOCH, 1, 2, 0, before, after)["diff"]
            linked = bytes([wire.LINKED, sorted(after).index("demand"), sorted(after).index("supply")])
            assert linked + bytes([wire.UNCHANGED]) in packed
            assert wire.apply(before, {"diff": packed}) == after
        assert after["imbalance"] != before["imbalance"]

    def test_snapshot_carries_its_checksum(self) -> None:
        """A snapshot stands alone: no base, the whole state, why it came, and its sum."""
        state = frames.quantise(World().public())[PSYCHOLOGY]

        frame = frames.snapshot(PSYCHOLOGY, EPOCH, 7, 5, state, "resync")

        assert (frame["base"], frame["seq"], frame["reason"]) == (None, 7, "resync")
        assert frame["crc"] == wire.checksum(frame["state"])

    def test_event_values_are_integers_or_texts(self) -> None:
        """Fractions go out over the scale of their field."""
        data = {"resource": "oil", "size": 0.5, "lots": 7_000}
        happened = Event("discovery_event", 3, 99, "resource_discovered", data)

        frame = frames.event(happened, EPOCH, 5)

        assert frame["event"] == {"name": "resource_discovered", "resource": "oil", "size": 500_000, "lots": 7_000}
        assert (frame["seq"], frame["base"], frame["tick"]) == (3, 2, 99)

    def test_events_of_the_engine_fit_their_schema(self) -> None:
        """Every value the engine puts into an event of a channel has its place in the channel's schema."""
        config = Config(residents=2_000, max_agents=16, order_book_max=1_024)
        state = Economy(config, 1).state
        found = inject_event(state, config, RESOURCE_DISCOVERED, OIL, 0.01)
        struck = inject_event(state, config, CATASTROPHE_STRUCK, OIL, 0.1)
        assert found is not None
        assert struck is not None

        for happened in (found, struck):
            names = {field.name for field in CHANNELS[happened.channel].fields}
            assert names == {"name", *happened.data}
            assert set(frames.event(happened, EPOCH, 5)["event"]) == names


def test_time_of_sending_stays_below_two_to_the_53() -> None:
    """After 104 days it begins again, and a wall clock set back does not make it negative."""
    assert frames.sent_ns(2_000_000_000, 1_000) == 1_000_000_000
    assert frames.sent_ns((1 << 53) + 1_000_000_007, 1_000) == 7
    assert 0 <= frames.sent_ns(999_000_000, 1_000) < 1 << 53
