"""Whose an agent is or was: the arrays say what a dict says, however many there are."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from server.live.owner_index import LeftAgents, OwnerIndex

MANY = 5_000


def test_an_index_grows_with_those_that_are_there() -> None:
    """Everybody is found again after it has grown twice; who was removed is nobody's."""
    index = OwnerIndex()
    for number in range(1, MANY):
        index.add(number, 10 * number)
    for number in range(2, MANY, 2):
        index.remove(number)

    owners = index.of(np.arange(MANY + 1))

    assert owners.tolist() == [10 * number if number % 2 and number < MANY else 0 for number in range(MANY + 1)]


def test_those_that_left_are_found_after_growing_in_the_middle_of_the_ring() -> None:
    """In the order in which they left, whatever was forgotten before."""
    left = LeftAgents()
    for number in range(1, 1_001):
        left.add(number, number, 1)
    left.forget_before(801)

    for number in range(1_001, MANY):
        left.add(number, number, number // 2)

    assert len(left) == MANY - 801
    assert left.rows().tolist() == [[n, n, 1 if n <= 1_000 else n // 2] for n in range(801, MANY)]
    assert [left.owner_of(number) for number in (800, 801, 1_001, MANY - 1, MANY)] == [
        None, 1, 500, (MANY - 1) // 2, None,
    ]  # fmt: skip


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(1, 400), st.integers(0, 400)), max_size=40))
def test_those_that_left_are_what_a_dict_has(steps: list[tuple[int, int, int]]) -> None:
    """Ticks pass, so many leave in one, those of so many ticks ago are forgotten."""
    left, naive = LeftAgents(), dict[int, tuple[int, int]]()
    tick = number = 0
    for passed, leaving, kept in steps:
        tick += passed
        for _ in range(leaving):
            number += 7
            left.add(tick, number, number % 13 + 1)
            naive[number] = (tick, number % 13 + 1)
        left.forget_before(tick - kept % 6)
        naive = {one: (then, owner) for one, (then, owner) in naive.items() if then >= tick - kept % 6}

        assert left.rows().tolist() == [[then, one, owner] for one, (then, owner) in naive.items()]
        assert [left.owner_of(one) for one in (number, number - 7 * leaving, 0)] == [
            naive.get(one, (0, None))[1] for one in (number, number - 7 * leaving, 0)
        ]
