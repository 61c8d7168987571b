"""Packed differences are those of the naive twin, to the byte, and lead to the next state."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from arena_client import wire
from hypothesis import given
from hypothesis import strategies as st

from server.live import changes
from server.live.changes import Link
from tests.support.naive_delta import naive_apply, naive_block, naive_pack

LIMIT = (1 << 52) - 1
values = st.integers(-LIMIT, LIMIT) | st.integers(-40, 40)
nudges = st.sampled_from([0, 0, 0, 1, -1, 7, -8, 300, -70_000])


@st.composite
def histories(draw: st.DrawFn) -> list[wire.State]:
    """Two or three states of the same fields: single values, lists of one length or of several."""
    lengths = draw(st.lists(st.sampled_from([0, 1, 7, 8, 9, 32]), max_size=6) | st.just([36] * 12))
    names = draw(st.permutations([f"f{i}" for i in range(len(lengths))]))
    singles = draw(st.lists(st.sampled_from("abcdgh"), max_size=6, unique=True))
    first: wire.State = {name: draw(values) for name in singles}
    first |= {name: draw(st.lists(values, min_size=n, max_size=n)) for name, n in zip(names, lengths, strict=True)}
    states = [first]
    for _ in range(draw(st.integers(1, 2))):
        states.append({name: _later(draw, value) for name, value in states[-1].items()})
    return states


def _later(draw: st.DrawFn, value: wire.Value) -> wire.Value:
    if not isinstance(value, list):
        return draw(values) if draw(st.booleans()) else max(-LIMIT, min(LIMIT, value + draw(nudges)))
    match draw(st.sampled_from(["same", "near", "far"])):
        case "same":
            return list(value)
        case "near":
            return [max(-LIMIT, min(LIMIT, entry + draw(nudges))) for entry in value]
        case _:
            return draw(st.lists(values, min_size=len(value), max_size=len(value)))


@given(histories())
def test_a_copy_that_follows_packed_differences_is_the_state(states: list[wire.State]) -> None:
    """From state to state, and over several at once, as a frame every so many ticks does."""
    copy = states[0]
    for before, after in pairwise(states):
        packed = changes.pack(before, after)
        copy = wire.apply(copy, {"diff": packed})

        assert packed == naive_pack(before, after)
        assert copy == naive_apply(before, {"diff": packed}) == after
        assert wire.checksum(copy) == wire.checksum(after)
    assert wire.apply(states[0], {"diff": changes.pack(states[0], states[-1])}) == copy


@pytest.mark.parametrize("plus", ["d", None])
def test_a_link_that_leads_too_far_is_left_out(plus: str | None) -> None:
    """No difference on the wire is beyond what a double holds."""
    before: wire.State = {"a": [-LIMIT], "b": [LIMIT], "d": [-LIMIT]}
    after: wire.State = {"a": [LIMIT], "b": [-LIMIT], "d": [LIMIT]}

    packed = changes.pack(before, after, [Link("a", "b", plus)])

    assert packed == changes.pack(before, after) == naive_pack(before, after)
    assert wire.apply(before, {"diff": packed}) == after


@given(st.lists(st.lists(values, min_size=5, max_size=5), min_size=8, max_size=8))
def test_linked_fields_come_back(rows: list[list[int]]) -> None:
    """Less one field, and less one and plus another, whatever the order of their names."""
    links = [Link("a", "d"), Link("c", "b", "d")]
    before = dict(zip("abcd", rows[:4], strict=True))
    after: wire.State = {"x": 1, **dict(zip("abcd", rows[4:], strict=True))}

    packed = changes.pack({"x": 0, **before}, after, links)

    assert packed == naive_pack({"x": 0, **before}, after, links)
    assert wire.apply({"x": 0, **before}, {"diff": packed}) == after


def test_a_field_that_follows_from_two_others_costs_four_bytes() -> None:
    """Nothing is left of the differences of a sum."""
    before: wire.State = {"demand": [5] * 32, "imbalance": [3] * 32, "supply": [2] * 32}
    after: wire.State = {"demand": [9] * 32, "imbalance": [1] * 32, "supply": [8] * 32}

    with_link = changes.pack(before, after, [Link("imbalance", "demand", "supply")])
    alone = changes.pack({"demand": [5] * 32, "supply": [2] * 32}, {"demand": [9] * 32, "supply": [8] * 32})

    assert len(with_link) == len(alone) + 4
    assert wire.apply(before, {"diff": with_link}) == after


@pytest.mark.parametrize("far", [1, 2**31, 2**52, 2**53 - 1, -(2**53) + 1])
def test_packing_together_is_packing_one_by_one(far: int) -> None:
    """Both ways give the same bytes, at the edges of every width."""
    edges = [d for width in range(53) for d in (1 << width, (1 << width) - 1, -(1 << width), -(1 << width) - 1)]
    rows = [edges[i : i + 20] for i in range(0, len(edges) - 19, 20)] + [[0] * 20, [0] * 19 + [far], [far] * 20]
    rows += [[(-1) ** i * i * i * step for i in range(20)] for step in (1, 50, 3_000)]

    together = changes._packed_together(np.array(rows, np.int64))

    assert together == [naive_block(row) for row in rows]
    assert changes.pack_blocks(rows[:3]) == together[:3]
    assert len(rows[0]) * len(rows[:3]) < changes.TOGETHER_MIN
