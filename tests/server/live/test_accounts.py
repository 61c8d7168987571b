"""An agent's account as a document: exact money, holdings, orders, mood."""

from __future__ import annotations

import numpy as np
import pytest

from engine.economy import Economy
from engine.ladder import prices
from engine.markets import ID
from engine.messages import ACTION, Kind, TimeInForce
from server import documents
from server.live.accounts import AccountReader
from tests.support.worlds import small_config


@pytest.fixture
def economy() -> Economy:
    """A world with agents 1 and 2, of which 1 has an order that ends, one that does not, and a mood."""
    economy = Economy(small_config(), 1)
    rows = np.zeros(5, ACTION)
    rows["seq"], rows["agent_id"], rows["owner"] = range(1, 6), (1, 2, 1, 1, 1), (1, 2, 0, 0, 0)
    rows["kind"] = (Kind.REGISTER, Kind.REGISTER, Kind.LIMIT, Kind.LIMIT, Kind.SET_SENTIMENT)
    rows["market"], rows["valid_until"] = (-1, -1, ID["food"], ID["oil"], -1), 100
    rows["side"][2:], rows["quantity"][2:], rows["level"][2:] = 1, 7, 8_000
    rows["time_in_force"][3], rows["order_until"][3] = TimeInForce.GTT, 50
    rows["mood"][4] = (32_767, 0, 16_384, 8_192)
    economy.advance(rows)
    return economy


def test_an_account_shows_cash_escrow_orders_and_mood(economy: Economy) -> None:
    """Money with six decimals, exact; an order that ends says when."""
    price = int(prices()[8_000])
    document = AccountReader(economy).document(1)

    assert document["escrow"] == f"{14 * price / 1e6:.6f}"
    assert document["cash"] == f"{1_000 - 14 * price / 1e6:.6f}"
    assert document["wealth"] == "0.000000"
    assert [(order["order_id"], order["market"], order["expires_tick"]) for order in document["orders"]] == [
        ("3", "food", None),
        ("4", "oil", 50),
    ]
    assert document["mood"] == {"sentiment": 1.0, "fear": 0.0, "greed": 0.500015, "confidence": 0.250008}
    documents.Agent.model_validate(document)


def test_another_agents_orders_are_not_shown(economy: Economy) -> None:
    """Slots are not mixed up."""
    document = AccountReader(economy).document(2)

    assert (document["orders"], document["mood"], document["cash"]) == ([], None, "1000.000000")


def test_wealth_counts_holdings_at_reference_prices_and_debts(economy: Economy) -> None:
    """Exact beyond 2^63: lots times price are reckoned in whole numbers of any size."""
    state = economy.state
    state.agent_holdings[1, ID["food"]] = 10**15
    state.agent_reserved[1, ID["food"]] = 3
    state.agent_debt[1] = 5

    document = AccountReader(economy).document(2)

    worth = 10**15 * int(state.price[ID["food"]]) - 5
    assert document["wealth"] == f"{worth // 10**6}.{worth % 10**6:06d}"
    assert document["holdings"] == {"food": {"quantity": 10**15, "reserved": 3}}


def test_an_agent_that_waits_for_its_tick_has_nothing_yet(economy: Economy) -> None:
    """The same document, empty."""
    document = AccountReader(economy).document(99)

    assert (document["agent_id"], document["status"], document["cash"]) == ("a99", "registering", "0.000000")
    documents.Agent.model_validate(document)


def test_a_verdict_says_in_words_what_the_world_would_refuse(economy: Economy) -> None:
    """Code and text, and the tick it was checked against."""
    row = np.zeros(1, ACTION)
    row["agent_id"], row["kind"], row["order_id"], row["valid_until"] = 1, Kind.CANCEL, 77, 100

    verdict = AccountReader(economy).verdict(row, "c-1")

    assert (verdict["valid"], verdict["code"], verdict["tick"]) == (False, 120, 0)
    assert "no open order" in verdict["detail"]
    documents.Verdict.model_validate(verdict)
