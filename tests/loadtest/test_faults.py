"""The faults' parts: a proxy that takes a stream apart, a referee that sees what differs, lists that have a hole."""

from __future__ import annotations

import pytest
from arena_client import wire

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
