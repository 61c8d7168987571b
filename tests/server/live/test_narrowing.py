"""Narrowed channels: a mirror of any form is the naive narrowing of the whole state, at every frame it stands at."""

from __future__ import annotations

from typing import Any, NoReturn

import numpy as np
import pytest
from arena_client import wire
from arena_client.mirror import Mirror
from arena_client.wire import SUBPROTOCOL_JSON, SUBPROTOCOL_MSGPACK

from engine.config import Config
from engine.ladder import prices
from engine.markets import ID, MARKETS, NAMES
from engine.state import BOOK_LEVELS, new_state
from server.live import frames, narrowing
from server.live.frames import MARKET_TICK, PSYCHOLOGY, STATE_CHANNELS
from server.live.narrowing import DEPTH_MAX, EVERY_MAX, Books, Form, FormCount, FormsFull, NarrowableTopic, parse_form
from server.live.topics import Subscription
from server.metrics import Metrics
from tests.support.published import EPOCH, World

RING, LAG = 30, 12
FOOD, OIL, LABOUR = ID["food"], ID["oil"], ID["labour"]


class Source:
    """The state channels of a world, whole and narrowed."""

    def __init__(self, forms_max: int = 8, *, has_books: bool = False) -> None:
        self.world = World()
        self.metrics = Metrics()
        self.state = new_state(Config(residents=2_000, max_agents=4, order_book_max=1_024))
        count = FormCount(self.metrics, forms_max)
        self.topics = {
            name: NarrowableTopic(
                name, EPOCH, self.metrics, resume_frames=RING, lag_frames_max=LAG, count=count,
                books=Books(self.state) if has_books and name == MARKET_TICK else None,
            )
            for name in STATE_CHANNELS
        }  # fmt: skip
        self.states: dict[str, wire.State] = {}

    def tick(self, times: int = 1) -> None:
        """Publish so many ticks, each with another book."""
        for _ in range(times):
            view = self.world.view()
            self._leave_a_book(view.tick)
            self.states = dict(view.states)
            for name, state in self.states.items():
                self.topics[name].publish(view.tick, state, 5)

    def _leave_a_book(self, tick: int) -> None:
        """Do what the auction does: note as many levels as are wanted."""
        for m, wanted in enumerate(self.state.book_wanted.tolist()):
            for side, sign in enumerate((-1, 1)):
                self.state.book_level[side, m, :wanted] = 7_000 + sign * (1 + np.arange(wanted)) + tick % 3
                self.state.book_lots[side, m, :wanted] = tick + m + np.arange(wanted)

    def naive(self, channel: str, form: Form) -> wire.State:
        """Return what a state in a form should be, from the whole one and the book."""
        whole = self.states[channel]
        if not form.markets:
            return whole
        state: wire.State = {}
        for m in form.markets:
            state[NAMES[m]] = [values[m] for values in whole.values() if isinstance(values, list)]
            for side, name in enumerate((".bids", ".asks")):
                if form.depth:
                    numbers = []
                    for k in range(form.depth):
                        lots = int(self.state.book_lots[side, m, k])
                        numbers += [int(prices()[self.state.book_level[side, m, k]]) if lots else 0, lots]
                    state[NAMES[m] + name] = numbers
        return state

    def metric(self, name: str) -> float:
        """Return the value of a metric."""
        return self.metrics.registry.get_sample_value(f"arena_{name}") or 0.0


class Reader:
    """A subscription with a client's mirror."""

    def __init__(
        self, source: Source, channel: str, form: Form, subprotocol: str = SUBPROTOCOL_MSGPACK, *position: Any
    ) -> None:
        self.source, self.form, self.subprotocol = source, form, subprotocol
        self.topic = source.topics[channel]
        self.mirror = Mirror(channel)
        self.subscription, self.told = self.topic.subscribe(*(position or (None, None)), form)

    def read(self) -> list[dict[str, Any]]:
        """Take everything there is into the mirror and return it."""
        taken = []
        while self.topic.pending(self.subscription):
            for message in self.topic.pull(self.subscription, self.subprotocol):
                frame = wire.decode(message.payload, self.subprotocol)
                taken.append(frame)
                if frame["type"] != "lagged":
                    assert self.mirror.feed(frame).applied, (frame, self.mirror.stale)
                    assert message.seq == frame["seq"]
        return taken

    @property
    def is_right(self) -> bool:
        """Whether the mirror is the naive state of now."""
        return dict(self.mirror.state) == self.source.naive(self.mirror.channel, self.form)


FORMS = [
    Form((FOOD,)),
    Form((LABOUR, OIL, FOOD)),
    Form(tuple(range(MARKETS))),
    Form((OIL, FOOD), depth=3),
    Form((FOOD,), depth=DEPTH_MAX, every=4),
    Form((FOOD,), every=7),
    Form(every=5),
]


@pytest.mark.parametrize("subprotocol", wire.SUBPROTOCOLS)
@pytest.mark.parametrize("form", FORMS)
def test_a_mirror_of_any_form_is_the_naive_narrowing(form: Form, subprotocol: str) -> None:
    """At every frame, with the checksums that come with every tenth tick."""
    source = Source(has_books=True)
    source.tick(3)
    reader = Reader(source, MARKET_TICK, form, subprotocol)
    source.tick(2)
    reader.read()
    seqs = []
    for _ in range(70):
        source.tick()
        for frame in reader.read():
            assert frame["type"] == "delta"
            assert ("crc" in frame) == (frame["seq"] % 10 == 0)
            seqs.append(frame["seq"])
            assert reader.is_right
    assert all(seq % form.every == 0 for seq in seqs)
    assert len(seqs) == 70 // form.every or len(seqs) == 70 // form.every + 1
    assert reader.mirror.verified_seq is not None
    assert reader.mirror.verified_seq >= source.world.tick - 10 * form.every


@pytest.mark.parametrize("channel", [name for name in STATE_CHANNELS if name != MARKET_TICK])
def test_every_channel_may_be_had_every_so_many_ticks(channel: str) -> None:
    """The base of a frame is the one before it."""
    source = Source()
    source.tick()
    reader = Reader(source, channel, Form(every=3))
    first = reader.read()
    source.tick(12)

    deltas = reader.read()

    assert [frame["type"] for frame in first] == ["snapshot"]
    seqs = [first[0]["seq"], *(frame["seq"] for frame in deltas)]
    assert [frame["base"] for frame in deltas] == seqs[:-1]
    assert [seq % 3 for seq in seqs[1:]] == [0] * 4
    source.tick(3 - source.world.tick % 3)
    reader.read()
    assert reader.is_right


def test_readers_of_a_form_share_its_frames() -> None:
    """The same message objects, so that a frame is encoded once; the order the markets were asked in means nothing."""
    source = Source()
    source.tick()
    one, two = (Reader(source, MARKET_TICK, Form((OIL, FOOD))) for _ in range(2))
    one.read(), two.read()
    source.tick()

    first = one.topic.pull(one.subscription, SUBPROTOCOL_MSGPACK)
    second = two.topic.pull(two.subscription, SUBPROTOCOL_MSGPACK)

    assert first[0] is second[0]
    assert one.subscription.form == two.subscription.form
    assert one.told["markets"] == ["oil", "food"]


def test_an_acknowledgement_says_how_to_read_the_lists() -> None:
    """The markets, the fields in the order of each list, the levels, the ticks between frames."""
    source = Source(has_books=True)
    source.tick()

    told = Reader(source, MARKET_TICK, Form((FOOD,), 5, 10)).told

    fields = [field.name for field in frames.CHANNELS[MARKET_TICK].fields]
    assert told == {"seq": None, "resumed": False, "markets": ["food"], "fields": fields, "depth": 5, "every": 10}
    assert "fields" not in Reader(source, PSYCHOLOGY, Form(every=2)).told


def test_a_narrowed_subscription_resumes_where_it_stood() -> None:
    """From the ring of its form, also when nobody read it meanwhile; the bytes are the same."""
    source = Source()
    source.tick()
    reader = Reader(source, MARKET_TICK, Form((FOOD,), every=2))
    reader.read()
    source.tick(4)
    reader.read()
    position = reader.mirror.position
    reader.topic.leave(reader.subscription)
    source.tick(RING // 2)

    again = Reader(source, MARKET_TICK, Form((FOOD,), every=2), SUBPROTOCOL_JSON, *position)
    again.mirror = reader.mirror
    taken = again.read()

    assert again.told["resumed"]
    assert [frame["type"] for frame in taken] == ["delta"] * len(taken)
    assert again.mirror.seq == source.world.tick - source.world.tick % 2


@pytest.mark.parametrize(
    ("position", "reason"),
    [(("another", 101), "epoch"), ((EPOCH, 10_000), "ahead"), ((EPOCH, 7), "too_old"), ((EPOCH, 104), "too_old")],
)
def test_where_it_cannot_resume_it_says_why(position: tuple[str, int], reason: str) -> None:
    """And sends a snapshot: of another epoch, to come, gone, never a frame of this form."""
    source = Source()
    source.tick()
    Reader(source, MARKET_TICK, Form((FOOD,), every=5))
    source.tick(9)

    reader = Reader(source, MARKET_TICK, Form((FOOD,), every=5), SUBPROTOCOL_MSGPACK, *position)

    assert reader.told["resumed"] is False
    assert [frame["reason"] for frame in reader.read()] == [reason]


def test_a_form_nobody_read_lately_starts_over() -> None:
    """It is kept for as long as frames are kept, then it is gone and costs nothing."""
    source = Source(has_books=True)
    source.tick()
    form = Form((FOOD,), depth=2)
    reader = Reader(source, MARKET_TICK, form)
    source.tick(3)
    reader.read()
    position = reader.mirror.position
    reader.topic.leave(reader.subscription)
    source.tick(RING + 2)
    assert source.metric("narrowings") == 0
    assert not source.state.book_wanted.any()

    again = Reader(source, MARKET_TICK, form, SUBPROTOCOL_MSGPACK, *position)
    source.tick(2)

    assert again.read()[0]["reason"] == "too_old"
    assert again.is_right


def test_a_late_reader_is_told_and_gets_a_snapshot() -> None:
    """Frames are counted, not ticks."""
    source = Source()
    source.tick()
    reader = Reader(source, MARKET_TICK, Form((FOOD,), every=2))
    reader.read()
    stood = reader.mirror.seq
    source.tick(2 * (LAG + 3))

    taken = reader.read()

    assert [frame["type"] for frame in taken] == ["lagged", "snapshot"]
    assert taken[0]["skipped"] == len(range(stood + stood % 2, source.world.tick + 1, 2)) - (stood % 2 == 0)


def test_a_missing_tick_starts_every_form_over() -> None:
    """A delta over a jump would be one over states nobody has."""
    source = Source(has_books=True)
    source.tick()
    readers = [Reader(source, MARKET_TICK, form) for form in (Form((FOOD,)), Form((OIL,), depth=1))]
    source.tick(3)
    for reader in readers:
        reader.read()
    source.world.tick += 5

    source.tick(2)

    for reader in readers:
        assert [frame["type"] for frame in reader.read()][:2] == ["lagged", "snapshot"]
        assert reader.is_right


def test_there_is_an_end_to_forms() -> None:
    """Another one is refused and counted; a known one is not; where one has no readers any more it makes room."""
    source = Source(forms_max=2)
    source.tick()
    readers = [Reader(source, MARKET_TICK, Form((0,))), Reader(source, MARKET_TICK, Form((1,)))]

    with pytest.raises(FormsFull, match="2 narrowed forms"):
        Reader(source, MARKET_TICK, Form((2,)))

    readers.append(Reader(source, MARKET_TICK, Form((0,))))
    assert source.metric("narrowings_refused_total") == 1.0
    readers[0].topic.leave(readers[0].subscription)
    source.tick(RING + 2)
    with pytest.raises(FormsFull):
        Reader(source, MARKET_TICK, Form((2,)))
    readers[1].topic.leave(readers[1].subscription)
    Reader(source, "psychology_update", Form(every=2))
    assert source.metric("narrowings") == 2.0


def test_the_longest_unread_form_makes_room_first() -> None:
    """Whichever channel it is of; one that is read again keeps its place."""
    source = Source(forms_max=3)
    source.tick()
    forms = (("psychology_update", Form(every=2)), (MARKET_TICK, Form((1,))), (MARKET_TICK, Form((2,))))
    readers = [Reader(source, channel, form) for channel, form in forms]
    for reader in readers:
        reader.topic.leave(reader.subscription)
        source.tick()
    again = Reader(source, *forms[0])

    Reader(source, MARKET_TICK, Form((3,)))

    assert again.topic._forms.keys() == {forms[0][1]}
    assert source.topics[MARKET_TICK]._forms.keys() == {Form((2,)), Form((3,))}


def test_who_comes_and_goes_within_a_tick_leaves_one_form_behind() -> None:
    """However often; it is let go once, when its time is over."""
    source = Source()
    source.tick()
    for _ in range(3):
        reader = Reader(source, MARKET_TICK, Form((0,), every=7))
        reader.topic.leave(reader.subscription)

    source.tick(RING)
    kept = source.metric("narrowings")
    source.tick(2)

    assert (kept, source.metric("narrowings")) == (1.0, 0.0)


def test_forms_of_another_world_do_not_stand_in_the_way() -> None:
    """A world that goes on from an earlier tick lets its forms go in its own time."""
    source = Source()
    source.world.tick += 5_000
    source.tick()
    reader = Reader(source, MARKET_TICK, Form((0,)))
    reader.topic.leave(reader.subscription)
    source.world.tick -= 5_000

    reader.topic.begin_epoch("another")
    assert source.metric("narrowings") == 0.0
    source.tick()
    later = Reader(source, MARKET_TICK, Form((0,)))
    later.topic.leave(later.subscription)
    source.tick(RING + 2)

    assert source.metric("narrowings") == 0.0


def test_what_is_kept_for_who_comes_back_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A form with large frames reaches less far back."""
    monkeypatch.setattr(narrowing, "RING_BYTES", 4_000)
    source = Source()
    source.tick()
    reader = Reader(source, MARKET_TICK, Form(tuple(range(MARKETS))))
    for _ in range(20):
        source.tick()
        reader.read()

    topic = reader.subscription.form
    assert isinstance(topic, narrowing.NarrowTopic)
    sizes = [frame.encodings[SUBPROTOCOL_MSGPACK].size for frame in topic._ring]
    assert sum(sizes) == topic._ring_bytes <= 4_000 or len(sizes) == 1


def test_whole_channels_stay_as_they_are() -> None:
    """A subscription that narrows nothing is one to the whole topic, and costs no form."""
    source = Source(forms_max=0)
    source.tick()

    subscription, told = source.topics[MARKET_TICK].subscribe(None, None)

    assert (subscription, told) == (Subscription(None), {"seq": source.world.tick, "resumed": False})


class Refused(Exception):
    """A field was refused."""


def refuse(field: str, value: Any, allowed: Any) -> NoReturn:
    """Raise what was wrong."""
    raise Refused(field, allowed)


@pytest.mark.parametrize(
    ("channel", "fields", "field"),
    [
        (MARKET_TICK, {"markets": []}, "markets"),
        (MARKET_TICK, {"markets": "food"}, "markets"),
        (MARKET_TICK, {"markets": ["gold"]}, "markets"),
        (MARKET_TICK, {"markets": ["food", "food"]}, "markets"),
        (MARKET_TICK, {"markets": [9]}, "markets"),
        (PSYCHOLOGY, {"markets": ["food"]}, "markets"),
        (MARKET_TICK, {"every": 0}, "every"),
        (MARKET_TICK, {"every": EVERY_MAX + 1}, "every"),
        (MARKET_TICK, {"every": True}, "every"),
        (MARKET_TICK, {"every": 2.0}, "every"),
        (MARKET_TICK, {"depth": 5}, "depth"),
        (MARKET_TICK, {"markets": ["food"], "depth": 0}, "depth"),
        (MARKET_TICK, {"markets": ["food"], "depth": BOOK_LEVELS + 1}, "depth"),
    ],
)
def test_a_form_that_cannot_be_is_refused_by_name(channel: str, fields: dict[str, Any], field: str) -> None:
    """The text says what is allowed."""
    with pytest.raises(Refused) as caught:
        parse_form(channel, fields, refuse)

    assert caught.value.args[0] == field


def test_a_form_is_what_was_asked_for() -> None:
    """Markets in the order of their ids, whatever the order they were named in."""
    assert parse_form(MARKET_TICK, {}, refuse) == Form()
    assert parse_form(PSYCHOLOGY, {"every": EVERY_MAX}, refuse) == Form(every=EVERY_MAX)
    assert parse_form(MARKET_TICK, {"markets": ["food", "oil"], "depth": 3, "every": 2}, refuse) == Form(
        (OIL, FOOD), 3, 2
    )
