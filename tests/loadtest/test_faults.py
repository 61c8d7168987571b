"""The faults' parts: a proxy that takes a stream apart, a referee that sees what differs, lists that have a hole."""

from __future__ import annotations

from typing import Any

import pytest
from arena_client import wire

from loadtest.faults.private import Told, broken_entries
from loadtest.faults.proxy import Frames, Pieces
from loadtest.faults.referee import Referee
from loadtest.faults.run import broken_list

HEAD = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n"


def framed(payload: bytes) -> bytes:
    """Return a server's frame, of 16 bits of length where it must be."""
    head = bytes((len(payload),)) if len(payload) < 126 else b"\x7e" + len(payload).to_bytes(2, "big")
    return b"\x82" + head + payload


def data(number: int, size: int = 20) -> bytes:
    """Return a frame that carries data."""
    payload = wire.encode({"type": "delta", "seq": number}, wire.SUBPROTOCOL_MSGPACK)
    assert isinstance(payload, bytes)
    return framed(payload.ljust(size, b"\0"))


class Plan:
    """Decides as it was told to, and remembers what was asked."""

    def __init__(self, *faults: str | None) -> None:
        self.faults = list(faults)
        self.asked: list[bool] = []

    def __call__(self, is_data: bool = False) -> str | None:
        self.asked.append(is_data)
        return self.faults.pop(0) if self.faults else None


class TestFrames:
    """What a server sends."""

    @pytest.mark.parametrize("step", [1, 7, 1_000])
    def test_frames_are_found_in_any_pieces(self, step: int) -> None:
        """Headers, then short and long frames, whatever way the bytes come."""
        sent = HEAD + data(1) + data(2, 300) + framed(b"\x81\xa4type\xa3ack")
        plan = Plan()
        frames = Frames(plan)

        units = [unit for i in range(0, len(sent), step) for unit in frames.take(sent[i : i + step])]

        assert [unit for _, unit in units] == [HEAD, data(1), data(2, 300), framed(b"\x81\xa4type\xa3ack")]
        assert plan.asked == [True, True, False]

    def test_frames_are_left_out_repeated_and_swapped(self) -> None:
        """1 is left out, 2 comes twice, 3 behind 4."""
        frames = Frames(Plan("drop", "repeat", "swap", None))

        units = frames.take(HEAD + b"".join(data(i) for i in (1, 2, 3, 4)))

        assert [unit for _, unit in units] == [HEAD, data(2), data(2), data(4), data(3)]

    def test_what_happens_to_bytes_is_told(self) -> None:
        """Delays and cuts are for who writes them."""
        assert Frames(Plan("cut within")).take(HEAD + data(1)) == [(None, HEAD), ("cut within", data(1))]
        assert Pieces(Plan("delay")).take(b"abc") == [("delay", b"abc")]

    @pytest.mark.parametrize("subprotocol", wire.SUBPROTOCOLS)
    @pytest.mark.parametrize("kind", ["snapshot", "delta", "event", "entries", "lagged"])
    def test_what_carries_data_may_be_left_out(self, subprotocol: str, kind: str) -> None:
        """Of both encodings, the private channel's entries among them; an acknowledgement may not."""
        plan = Plan()
        for name in (kind, "ack"):
            payload = wire.encode({"type": name, "seq": 1}, subprotocol)
            Frames(plan).take(HEAD + framed(payload.encode() if isinstance(payload, str) else payload))

        assert plan.asked == [True, False]


class TestReferee:
    """What clients saw, held against each other."""

    def test_two_states_of_one_place_that_differ_are_seen(self) -> None:
        """The same place of the same epoch must be the same for everybody."""
        referee = Referee()
        for epoch, value in (("a", 1), ("a", 1), ("b", 2), ("a", 3)):
            referee.take("one", "market_tick", epoch, 7, {"price": value})

        assert referee.differing == ["one: market_tick at 7"]
        assert referee.seen == 4

    def test_a_checksum_that_does_not_fit_is_no_gap(self) -> None:
        """Gaps are noticed and counted; a checksum that does not fit says that nobody noticed in time."""
        referee = Referee()
        referee.hear("one", "market_tick", "a gap: stood at 3, got 5")
        referee.hear("one", "market_tick", "the checksum is 1 instead of 2")

        assert referee.noticed["a gap"] == 1
        assert len(referee.checksum_misses) == 1


@pytest.mark.parametrize(
    ("numbers", "problem"),
    [
        ([4, 5, 6, 7, 8, 9], None),
        ([4, 5, 6], "ends with 6, others with 9"),
        ([4, 5, 7], "7 after 5"),
        ([4, 5, 5, 6], "5 after 5"),
        ([5, 6, 7], "begins with 5 instead of 4"),
        ([4, 5], "ends with 5, others with 9"),
        ([], "no events"),
    ],
)
def test_lists_of_events_have_no_hole(numbers: list[int], problem: str | None) -> None:
    """From the same first event to the same last one, each once, in order."""
    assert broken_list(numbers, [numbers, [4, 5, 6, 7, 8, 9]]) == problem


def limit(side: str, market: str = "food") -> dict[str, Any]:
    """Return an order as it was sent."""
    return {"type": "limit", "market": market, "side": side, "quantity": 5, "price": "1.25"}


def outcome(name: str | None, seq: int, **said: Any) -> dict[str, Any]:
    """Return the entry of an outcome."""
    return {"entry": "outcome", "agent_id": "a1", "client_action_id": name, "seq": seq, "type": "x", "outcome": said}


def update(order: str, status: str, filled: int, left: int) -> dict[str, Any]:
    """Return the entry of something that happened to an order in food."""
    return {
        "entry": "order", "agent_id": "a1", "order_id": order, "market": "food", "side": "buy", "status": status,
        "filled": filled, "open": left, "price": "1.2", "value": "0",
    }  # fmt: skip


#: A registration, a purchase at once, one that rests and is filled in three parts, a refusal, one that is cancelled.
ENTRIES = [
    outcome(None, 1, status="done", code=0),
    outcome("f-0", 2, status="filled", code=0, order_id="2", filled=5, open=0),
    outcome("f-1", 3, status="resting", code=0, order_id="3", filled=0, open=5),
    update("3", "partial", 2, 3),
    outcome("f-2", 4, status="rejected", code=201),
    update("3", "partial", 1, 2),
    outcome("f-3", 5, status="partial", code=0, order_id="5", filled=2, open=3),
    update("3", "filled", 2, 0),
    outcome("f-4", 6, status="done", code=0),
    update("5", "cancelled", 0, 0),
]
ACTIONS = (limit("buy"), limit("buy"), limit("sell"), limit("buy"), {"type": "cancel_all"})
TOLD = {
    entry["client_action_id"]: Told(action, entry["seq"], entry["outcome"])
    for entry, action in zip((one for one in ENTRIES[1:] if one["entry"] == "outcome"), ACTIONS, strict=True)
}
HELD = {"food": 12, "oil": 0}


class TestPrivateEntries:
    """What a private channel brought, held to what the engine told."""

    def test_all_of_them_are_in_order(self) -> None:
        """With the registration or without it: it may have been before the channel was followed."""
        assert broken_entries(ENTRIES, TOLD, HELD) == []
        assert broken_entries(ENTRIES[1:], TOLD, HELD) == []

    @pytest.mark.parametrize("place", range(1, len(ENTRIES)))
    def test_one_that_is_lost_is_found(self, place: int) -> None:
        """Whichever it is: outcomes, fills in part, the end of an order."""
        assert broken_entries(ENTRIES[:place] + ENTRIES[place + 1 :], TOLD, HELD) != []

    @pytest.mark.parametrize("place", range(1, len(ENTRIES)))
    def test_one_that_comes_twice_is_found(self, place: int) -> None:
        """In a row."""
        assert broken_entries(ENTRIES[: place + 1] + ENTRIES[place:], TOLD, HELD) != []

    def test_a_fill_before_an_order_is_cancelled_is_missed_in_the_account(self) -> None:
        """Nothing else tells of it: an order that is cancelled does not say how much of it was left."""
        lost = update("5", "partial", 1, 2)
        told = [*ENTRIES[:-1], lost, ENTRIES[-1]]

        assert broken_entries(told, TOLD, HELD | {"food": 13}) == []
        assert broken_entries(ENTRIES, TOLD, HELD | {"food": 13}) == ["food: 12 lots by the entries, 13 in the account"]

    def test_an_order_that_does_not_go_on_where_it_stood_is_found(self) -> None:
        """Even when all that was filled adds up: five less two are three, not two."""
        told = [*ENTRIES[:3], update("3", "partial", 2, 2), *ENTRIES[4:]]

        assert broken_entries(told, TOLD, HELD)[0] == "order 3: 2 filled of 5, 2 open, partial"

    def test_an_outcome_that_differs_from_its_receipt_is_found(self) -> None:
        """So is one of an action that nobody sent, and an order of things that is not the journal's."""
        other = [*ENTRIES[:2], outcome("f-1", 3, status="rejected", code=201), *ENTRIES[3:]]
        foreign = [*ENTRIES, outcome("f-9", 7, status="done", code=0)]
        swapped = [ENTRIES[0], ENTRIES[4], *ENTRIES[1:4], *ENTRIES[5:]]

        assert any("f-1 came to" in problem for problem in broken_entries(other, TOLD, HELD))
        assert any("nobody sent" in problem for problem in broken_entries(foreign, TOLD, HELD))
        assert broken_entries(swapped, TOLD, HELD) == ["outcomes in another order than their actions"]
