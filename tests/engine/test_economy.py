"""Economy: whole worlds under bots conserve money and goods at every tick."""

import numpy as np
import pytest

from engine import invariants
from engine.economy import Economy
from engine.errors import InvariantBroken
from engine.ladder import UCR
from engine.markets import MARKETS
from engine.order_book import accounts_of, book_of, rebuild_lists
from engine.state import ORDER_COUNT, TREASURY, state_hash
from tests.support.worlds import RandomBots, run, small_config


@pytest.mark.parametrize(
    ("bots", "count"),
    [(None, 0), (RandomBots(40, 3), 30), (RandomBots(40, 4, edges=True), 30)],
    ids=["no bots", "random bots", "bots at the edges"],
)
def test_money_and_goods_add_up_at_every_tick(bots: RandomBots | None, count: int) -> None:
    """The sum of all cash is zero and goods add up whatever agents do (ECONOMY A14)."""
    economy = Economy(small_config(), 11, checks=1)

    for _ in run(economy, 400, bots, count):
        invariants.check(economy.state)


def test_bots_leave_another_world() -> None:
    """Random bots, none, and bots at the edges: three different worlds from one seed."""
    ends = set()
    for bots in (None, RandomBots(40, 3), RandomBots(40, 4, edges=True)):
        economy = Economy(small_config(), 11)
        ends.add(list(run(economy, 50, bots))[-1])

    assert len(ends) == 3


@pytest.mark.parametrize(
    ("endowment", "ticks"),
    [
        (0, 60),
        (1_000, 22),  # at a day's end the endowment is part of M, by which the transfer to households grows
    ],
)
def test_an_agent_that_sends_nothing_changes_nothing_but_its_endowment(endowment: int, ticks: int) -> None:
    """ECONOMY A14.14: an idle agent is invisible to every resident and market."""
    config = small_config(endowment_credits=endowment)
    alone, joined = Economy(config, 3), Economy(config, 3)
    joined.advance(RandomBots(1, 0).rows(joined, 0))
    alone.advance()

    for _ in range(ticks):
        alone.advance()
        joined.advance()

    for name in ("cash", "ord_level", "ord_qty", "sentiment", "level", "debt", "shares", "reserves", "pools"):
        same = np.array_equal(getattr(alone.state, name), getattr(joined.state, name))
        assert same, name
    assert alone.state.ledger[TREASURY] - joined.state.ledger[TREASURY] == endowment * UCR


def test_a_planted_leak_freezes_the_tick() -> None:
    """One micro-credit out of nothing is found by the check after the tick."""
    economy = Economy(small_config(), 3, checks=1)
    economy.advance()
    economy.state.cash[17] += 1

    with pytest.raises(InvariantBroken, match="cash"):
        economy.advance()


def test_the_hash_sees_every_persistent_array() -> None:
    """A change of one element of any persistent array changes the state hash."""
    from engine.state import persistent

    economy = Economy(small_config(), 3)
    list(run(economy, 5, RandomBots(10, 1)))
    before = state_hash(economy.state)

    for name, array in persistent(economy.state):
        flat = array.reshape(-1)
        if not flat.size:
            continue
        old = flat[-1]
        flat[-1] = old + 1 if array.dtype.kind == "f" else old ^ 1
        assert state_hash(economy.state) != before, name
        flat[-1] = old

    assert state_hash(economy.state) == before


def test_the_owners_bits_cover_every_open_order() -> None:
    """Whoever has an open order has its bit set, under owners that share a place too, in ticks and after a restart."""
    economy = Economy(small_config(), 3)
    bots = RandomBots(40, 3)
    for _ in range(30):
        economy.advance(bots.rows(economy, 60))
    state = economy.state
    grown = state.owner_open["resting"].copy()

    rebuild_lists(book_of(state), accounts_of(state))

    count = int(state.counters[ORDER_COUNT])
    needed = np.zeros_like(grown)
    for slot, market, side in zip(
        state.order_slot[:count], state.order_market[:count], state.order_side[:count], strict=True
    ):
        needed[state.agent_owner[slot] % len(needed)] |= np.uint64(1 << int(market) + (0 if side > 0 else MARKETS))
    assert count > 20
    assert np.array_equal(state.owner_open["resting"], needed)
    assert not state.owner_open["new"].any()
    assert np.array_equal(grown & needed, needed)
