"""The preview says what the intake would say, and changes nothing."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from engine.economy import Economy
from engine.markets import ID
from engine.messages import ACTION, Kind, Reject, Status
from engine.preview import preview
from engine.state import persistent
from tests.support.worlds import RandomBots, small_config


def row(kind: Kind, agent: int, **fields: Any) -> Any:
    """Return an action, shape (1,)."""
    made = np.zeros(1, ACTION)
    made["agent_id"], made["kind"], made["market"], made["valid_until"] = agent, kind, -1, 10_000
    for name, value in fields.items():
        made[name] = value
    return made


@pytest.fixture(scope="module")
def traded() -> tuple[Economy, RandomBots]:
    """A world in which bots have orders, holdings and debts."""
    economy = Economy(small_config(), 3)
    bots = RandomBots(12, 5)
    for _ in range(60):
        economy.advance(bots.rows(economy, 20))
    return economy, bots


def test_agents_beyond_the_number_of_markets_get_an_answer() -> None:
    """Some of an account's columns are by slot, some by market: neither's length limits the other."""
    economy = Economy(small_config(), 3)
    bots = RandomBots(60, 5)
    economy.advance(bots.rows(economy, 0))
    last = int(economy.state.agent_id[59])

    told = preview(economy.state, economy.config, row(Kind.BORROW, last, amount=1))

    assert told["status"] == Status.DONE


def test_the_verdict_is_the_outcome_of_the_next_tick(traded: tuple[Economy, RandomBots]) -> None:
    """For random actions of random bots, each as the first of its tick: the same code, needed and available."""
    economy, bots = traded
    codes = set()
    for _ in range(150):
        asked = bots.rows(economy, 1)

        told = preview(economy.state, economy.config, asked)
        outcome = economy.advance(asked).outcomes[0]

        assert int(told["code"]) == int(outcome["code"])
        if told["code"]:
            assert (told["needed"], told["available"]) == (outcome["needed"], outcome["available"])
        codes.add(int(told["code"]))
    assert {0, Reject.NO_HOLDINGS, Reject.UNKNOWN_ORDER} <= codes


def test_a_preview_changes_nothing(traded: tuple[Economy, RandomBots]) -> None:
    """Neither the world nor the tables that follow from it."""
    economy, bots = traded
    before = {name: array.copy() for name, array in persistent(economy.state)}
    scratch = economy.state.agent_index.copy()

    for _ in range(50):
        preview(economy.state, economy.config, bots.rows(economy, 1))

    for name, array in persistent(economy.state):
        assert np.array_equal(array, before[name]), name
    assert np.array_equal(economy.state.agent_index, scratch)


def test_agents_that_are_not_there_are_unknown(traded: tuple[Economy, RandomBots]) -> None:
    """Also in a world without any."""
    for economy in (traded[0], Economy(small_config(), 1)):
        told = preview(economy.state, economy.config, row(Kind.BORROW, 999_999, amount=1))

        assert (told["status"], told["code"]) == (Status.REJECTED, Reject.UNKNOWN_AGENT)


def test_crossing_an_own_order_is_seen_across_the_owners_agents() -> None:
    """The copy holds all agents of the owner, not only the one that asks."""
    economy = Economy(small_config(), 1)
    registers = np.concatenate([row(Kind.REGISTER, number, owner=1, seq=number) for number in (1, 2)])
    economy.advance(registers)
    market, level = ID["food"], int(economy.state.level[ID["food"]])
    economy.state.agent_holdings[1, market] += 5
    resting = row(Kind.LIMIT, 1, seq=3, market=market, side=1, quantity=1, level=level - 3_000)
    economy.advance(resting)

    crossing = row(Kind.LIMIT, 2, market=market, side=-1, quantity=1, level=level - 3_000)

    assert preview(economy.state, economy.config, crossing)["code"] == Reject.SELF_TRADE


def test_a_full_book_is_seen() -> None:
    """The copy has as much room as the book."""
    config = small_config(order_book_max=1_024, open_orders_max=1_000, actions_per_tick_max=1_000)
    economy = Economy(config, 1)
    economy.advance(np.concatenate([row(Kind.REGISTER, number, owner=number, seq=number) for number in (1, 2)]))
    orders = [
        row(Kind.LIMIT, 1 + i // 600, seq=10 + i, market=ID["food"], side=1, quantity=1, level=i % 600)
        for i in range(1_024)
    ]
    economy.advance(np.concatenate(orders))

    told = preview(economy.state, config, row(Kind.LIMIT, 2, market=ID["food"], side=1, quantity=1, level=5))

    assert told["code"] == Reject.BOOK_FULL
