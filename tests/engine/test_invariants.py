"""The alarm rings for every kind of breach, and says where and by how much."""

from collections.abc import Callable

import numpy as np
import pytest

from engine import invariants
from engine.economy import Economy
from engine.errors import InvariantBroken
from engine.markets import CONSOL, OIL
from engine.state import BANK, LOANS, NEXT_DEADLINE, ORDER_COUNT, TREASURY, VOLATILITY_MULTIPLIER, State
from tests.support.worlds import RandomBots, run, small_config


@pytest.fixture(scope="module")
def economy() -> Economy:
    """Return a small world with busy bots and standing outside orders."""
    economy = Economy(small_config(), 2, checks=0)
    list(run(economy, 40, RandomBots(30, 6), 40))
    return economy


def test_a_sound_world_passes(economy: Economy) -> None:
    """Nothing is reported, with and without the config."""
    invariants.check(economy.state)
    invariants.check(economy.state, economy.config)


def add(name: str, index: object, amount: float) -> Callable[[State], None]:
    """Return a breach: one element of an array changed by an amount."""

    def breach(state: State) -> None:
        getattr(state, name)[index] += amount

    return breach


def put(name: str, index: object, value: float) -> Callable[[State], None]:
    """Return a breach: one element of an array set to a value."""

    def breach(state: State) -> None:
        getattr(state, name)[index] = value

    return breach


BREACHES = {
    "a resident's cash": (add("cash", 17, 1), "sum of all cash accounts is 1 ucr"),
    "an agent's cash": (add("agent_cash", 2, -3), "sum of all cash accounts is -3 ucr"),
    "escrow from nowhere": (add("agent_escrow", 2, 5), "sum of all cash accounts is 5 ucr"),
    "a pool": (add("pools", 3, 7), "sum of all cash accounts is 7 ucr"),
    "the bank": (add("ledger", BANK, 2), "sum of all cash accounts is 2 ucr"),
    "loans": (add("ledger", LOANS, 9), "loans outstanding"),
    "a debt": (add("debt", 4, 9), "loans outstanding"),
    "a stock of oil": (add("inventory", 0, 2), "lots held of oil: .* 2 apart"),
    "a deadline ahead of the noted one": (put("agent_deadline", 1, 30), "deadline is tick 30, the next one noted"),
    "an overdue deadline": (put("counters", NEXT_DEADLINE, 3), "the next one noted 3, after tick 39"),
    "an input": (add("in1", 0, 1), "lots held of .* 1 apart"),
    "a good": (add("out", 5, -1), "lots held of .* -1 apart"),
    "the estate": (add("estate", CONSOL, 3), "lots held of consol: .* 3 apart"),
    "an agent's goods": (add("agent_holdings", (1, OIL), 4), "lots held of oil: .* 4 apart"),
    "new shares": (add("goods_made", CONSOL, 1), "lots held of consol"),
    "reserves": (add("reserves", 0, 1), "reserves of oil: .* 1 apart"),
    "negative cash": (put("cash", 17, -1), r"cash\[17\] is negative: -1|cash\[17\]"),
    "a negative holding": (put("agent_holdings", (1, OIL), -1), r"agent_holdings\[1, 1\] is negative"),
    "a negative mood": (put("fear", 8, -2), r"fear\[8\] is negative: -2"),
    "a reserved lot too few": (add("agent_reserved", (0, 9), -1), "reserved lots of slot 0: .*, its orders say"),
    "an order of nobody": (put("order_slot", 0, 90), "or of nobody"),
    "an order in no market": (put("order_market", 0, -1), "or of nobody"),
    "an order at no price": (put("order_level", 0, 1 << 40), "or of nobody"),
    "an order without lots": (put("order_qty", 0, 0), "without lots"),
    "a reserved lot too many": (add("agent_reserved", (0, 9), 1), "reserved lots of slot 0"),
    "an order's lots": (add("order_qty", 0, 1), "escrow of slot|reserved lots of slot"),
    "a count of orders": (add("agent_orders", 3, 1), "open orders of slot 3"),
    "an unsorted table": (put("order_id", 1, 0), "not sorted"),
    "a forgotten agent": (put("agent_id", 5, 0), "agents, counted"),
    "a price off its level": (add("price", OIL, 1), "price of oil"),
    "a level off the range": (put("level", OIL, 6_000), r"reference level\[1\] is 6000"),
    "too large a move": (put("returns", (slice(None), 4), 5_000), r"return\[4\] is 5000"),
    "scarcity": (put("scarcity", 2, 1.5), r"scarcity\[2\] is 1.5"),
    "no number": (put("scarcity", 2, np.nan), r"scarcity\[2\] is nan"),
    "a wild multiplier": (put("market_vm", 7, 9.0), r"market volatility multiplier\[6\] is 9.0"),
    "a calm multiplier": (put("macro", VOLATILITY_MULTIPLIER, 0.5), r"volatility multiplier\[0\] is 0.5"),
}


@pytest.mark.parametrize("name", sorted(BREACHES))
def test_every_breach_is_found(economy: Economy, name: str) -> None:
    """One element off by a little, in any account, is reported with its place and size."""
    breach, message = BREACHES[name]
    kept = {key: array.copy() for key, array in arrays(economy.state).items()}

    breach(economy.state)
    try:
        with pytest.raises(InvariantBroken, match=message):
            invariants.check(economy.state)
    finally:
        for key, array in arrays(economy.state).items():
            array[...] = kept[key]
    invariants.check(economy.state)


def arrays(state: State) -> dict[str, np.ndarray]:
    """Return the arrays the breaches touch."""
    names = (
        "cash agent_cash agent_escrow pools ledger debt inventory in1 out estate agent_holdings goods_made reserves "
        "fear agent_reserved order_qty order_slot order_market order_level agent_orders order_id agent_id price level "
        "returns scarcity market_vm macro agent_deadline counters"
    )
    return {name: getattr(state, name) for name in names.split()}


def test_more_promised_than_held_is_found(economy: Economy) -> None:
    """Reserved lots that are those of the orders, but of goods their agent does not have."""
    state = economy.state
    sells = np.flatnonzero(state.order_side[: state.counters[ORDER_COUNT]] < 0)
    slot, market = int(state.order_slot[sells[0]]), int(state.order_market[sells[0]])
    kept = int(state.agent_holdings[slot, market])
    state.agent_holdings[slot, market] = state.agent_reserved[slot, market] - 1
    try:
        with pytest.raises(InvariantBroken, match="promised more lots than it holds"):
            invariants.check_accounts(state)
    finally:
        state.agent_holdings[slot, market] = kept


def test_looking_changes_nothing(economy: Economy) -> None:
    """Orders are taken out of the accounts to be compared and put back: also when something is found."""
    before = economy.state_hash()

    invariants.check(economy.state)
    assert economy.state_hash() == before

    economy.state.agent_orders[3] += 1
    broken = economy.state_hash()
    try:
        with pytest.raises(InvariantBroken, match="open orders of slot 3"):
            invariants.check(economy.state)
        assert economy.state_hash() == broken != before
    finally:
        economy.state.agent_orders[3] -= 1


def test_the_config_narrows_the_multiplier(economy: Economy) -> None:
    """3.0 is within the widest weights any world may have, not within the default ones."""
    kept = economy.state.market_vm[3]
    economy.state.market_vm[3] = 3.0
    try:
        invariants.check(economy.state)
        with pytest.raises(InvariantBroken, match="market volatility multiplier"):
            invariants.check(economy.state, economy.config)
    finally:
        economy.state.market_vm[3] = kept


def test_money_moved_between_accounts_is_fine(economy: Economy) -> None:
    """Conservation is about sums: what the treasury pays a household breaks nothing."""
    economy.state.ledger[TREASURY] -= 50
    economy.state.cash[0] += 50

    invariants.check(economy.state)


def test_holdings_count_every_lot_once(economy: Economy) -> None:
    """Shares and consols held by all together are those outstanding; labour counts none."""
    held, state = invariants.holdings(economy.state), economy.state

    goods = state.goods_initial + state.goods_made - state.goods_gone
    assert held[1:].tolist() == goods[1:].tolist()
    assert held[24:].tolist() == state.shares_out[24:].tolist()
    assert held[0] == 0
