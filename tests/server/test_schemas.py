"""The shape of actions and parameters: what is taken, what is refused, and that the answer says what is allowed."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from engine.ladder import UCR, prices
from engine.markets import FINAL, GOOD_FIRST, GOOD_LAST, NAMES
from server import schemas

LIMIT = {"client_action_id": "a-1", "type": "limit", "market": "food", "side": "buy", "quantity": 5, "price": "1.25"}
VALID: dict[str, dict[str, Any]] = {
    "limit": LIMIT,
    "market": {"client_action_id": "a", "type": "market", "market": "oil", "side": "sell", "quantity": 1},
    "cancel": {"client_action_id": "a", "type": "cancel", "order_id": "17"},
    "replace": {"client_action_id": "a", "type": "replace", "order_id": "17", "quantity": 2, "price": 3},
    "borrow": {"client_action_id": "a", "type": "borrow", "amount": "10.5"},
    "repay": {"client_action_id": "a", "type": "repay", "amount": 10},
    "produce": {"client_action_id": "a", "type": "produce", "market": "machinery", "quantity": 2},
    "consume": {"client_action_id": "a", "type": "consume", "market": "food", "quantity": 2},
    "set_sentiment": {
        "client_action_id": "a", "type": "set_sentiment", "sentiment": 1, "fear": Decimal("0.5"), "greed": 0,
        "confidence": Decimal("0.25"),
    },
    "cancel_all": {"client_action_id": "a", "type": "cancel_all"},
    "cancel_after": {"client_action_id": "a", "type": "cancel_after", "ticks": 50},
}  # fmt: skip


def test_price_bounds_are_those_of_the_ladder() -> None:
    """The constants stand in the documents; they must follow the table."""
    assert int(prices()[0]) == schemas.PRICE_LOWEST * UCR
    assert int(prices()[-1]) == schemas.PRICE_HIGHEST * UCR


@pytest.mark.parametrize("kind", VALID)
def test_every_type_of_action_is_taken_in_its_plain_form(kind: str) -> None:
    """One model per type, told apart by `type`."""
    action = schemas.parse_action(VALID[kind])

    assert type(action) is schemas.ACTION_MODELS[kind]
    assert action.type == kind


@pytest.mark.parametrize("kind", VALID)
def test_every_field_without_default_is_needed(kind: str) -> None:
    """A missing field is named, with what is allowed in it."""
    for name in VALID[kind]:
        rest = {key: value for key, value in VALID[kind].items() if key != name}

        (mistake,) = mistakes(rest)

        assert mistake["field"] == name
        assert mistake["problem"] == "missing"
        assert mistake["allowed"]


@pytest.mark.parametrize("kind", VALID)
def test_unknown_fields_are_refused_with_the_known_ones(kind: str) -> None:
    """A typing error must not pass as a default."""
    (mistake,) = mistakes({**VALID[kind], "colour": "red"})

    assert mistake["field"] == "colour"
    assert mistake["problem"] == "unknown field"
    for name in VALID[kind]:
        assert name in mistake["allowed"]


@pytest.mark.parametrize("quantity", [0, -1, 1_000_000_001, True, "5", Decimal("1.5"), Decimal("5.0"), None, [5]])
def test_quantities_are_whole_lots_in_bounds(quantity: Any) -> None:
    """Zero, negative, fractional, too many, a bool, a text."""
    (mistake,) = mistakes({**LIMIT, "quantity": quantity})

    assert mistake["field"] == "quantity"
    assert "[1, 1000000000]" in mistake["allowed"]


@pytest.mark.parametrize("price", ["1.25", "0.01", "1018465.744168", 1, Decimal("1.250000000000000001")])
def test_prices_are_numbers_or_decimal_strings_on_the_ladder(price: Any) -> None:
    """Exact, whichever way they are written."""
    action = schemas.parse_action({**LIMIT, "price": price})

    assert isinstance(action, schemas.LimitAction)
    assert action.price == Decimal(price)


@pytest.mark.parametrize(
    "price",
    [
        "0.009999",
        0,
        -1,
        "-1",
        "1018465.744169",
        10_000_000,
        "abc",
        "",
        "1e3",
        "0x1",
        "1,5",
        " 1",
        "1.",
        ".5",
        "NaN",
        "Infinity",
        True,
        None,
        "9" * 17,
        "\u0661",
    ],
)
def test_prices_off_the_ladder_or_in_another_form_are_refused(price: Any) -> None:
    """With the first and the last price that exist."""
    (mistake,) = mistakes({**LIMIT, "price": price})

    assert mistake["field"] == "price"
    assert "0.01 to 1018465.744168" in mistake["allowed"]


@given(st.data())
def test_what_the_published_pattern_of_money_matches_is_taken(data: st.DataObject) -> None:
    """A client that follows the documents is not refused."""
    for kind, field in (("limit", "price"), ("borrow", "amount")):
        schema = schemas.ACTION_MODELS[kind].model_json_schema()["properties"][field]
        text = data.draw(st.from_regex(schema["anyOf"][0]["pattern"].replace("$", r"\Z")))

        schemas.parse_action({**VALID[kind], field: text})


@pytest.mark.parametrize(
    "amount",
    [0, -1, "0", "0.0000001", 1_000_000_001, True, "ten", "01", None, Decimal("9.99999999999999999999999999999")],
)
def test_amounts_are_positive_and_exact_in_millionths(amount: Any) -> None:
    """What cannot be booked to the micro-credit is refused."""
    (mistake,) = mistakes({**VALID["borrow"], "amount": amount})

    assert mistake["field"] == "amount"


@pytest.mark.parametrize("ticks", [-1, 36_001, 1.0, True, "5", None])
def test_the_switch_is_set_in_whole_ticks_of_at_most_an_hour(ticks: Any) -> None:
    """0 takes it back; a market narrows cancel_all and may be left out."""
    (mistake,) = mistakes({**VALID["cancel_after"], "ticks": ticks})

    assert mistake["field"] == "ticks"
    for good in (0, 1, 36_000):
        schemas.parse_action({**VALID["cancel_after"], "ticks": good})
    schemas.parse_action({**VALID["cancel_all"], "market": "consol"})


@pytest.mark.parametrize("mood", [Decimal("-0.01"), Decimal("1.01"), 2, True, "0.5", None])
def test_moods_are_numbers_from_0_to_1(mood: Any) -> None:
    """A bool is no number, a text is none either."""
    (mistake,) = mistakes({**VALID["set_sentiment"], "fear": mood})

    assert mistake["field"] == "fear"
    assert "[0, 1]" in mistake["allowed"]


def test_markets_are_known_by_name_and_by_what_may_be_done_with_them() -> None:
    """Any market trades; the 16 goods can be made; the 13 final ones consumed."""
    for kind, names in (("limit", NAMES), ("produce", NAMES[GOOD_FIRST : GOOD_LAST + 1]), ("consume", FINAL)):
        for name in NAMES:
            value = {**VALID[kind], "market": name}
            if name in names:
                schemas.parse_action(value)
            else:
                assert mistakes(value)[0]["field"] == "market"
        (mistake,) = mistakes({**VALID[kind], "market": "gold"})
        assert all(name in mistake["allowed"] for name in names)


@pytest.mark.parametrize("market", [9, None, ["food"], "Food", ""])
def test_markets_are_named_exactly(market: Any) -> None:
    """A number or another spelling is no market."""
    assert mistakes({**LIMIT, "market": market})[0]["field"] == "market"


@pytest.mark.parametrize("action_id", ["", "a" * 65, "a b", "ä", "a\n", "~unregister", 7, None, "a/b"])
def test_client_action_ids_have_64_characters_of_a_small_alphabet(action_id: Any) -> None:
    """So that they fit into paths, logs and journals as they are."""
    (mistake,) = mistakes({**LIMIT, "client_action_id": action_id})

    assert mistake["field"] == "client_action_id"
    assert "1 to 64 characters" in mistake["allowed"]


@pytest.mark.parametrize("order_id", [17, "0", "017", "-1", "a1", "1" * 17, ""])
def test_order_ids_are_texts_of_digits(order_id: Any) -> None:
    """As the receipt gave them."""
    assert mistakes({**VALID["cancel"], "order_id": order_id})[0]["field"] == "order_id"


def test_expires_tick_goes_with_gtt_and_only_with_it() -> None:
    """Either alone says two things at once."""
    schemas.parse_action({**LIMIT, "time_in_force": "gtt", "expires_tick": 9})

    for wrong in ({"time_in_force": "gtt"}, {"expires_tick": 9}, {"time_in_force": "ioc", "expires_tick": 9}):
        (mistake,) = mistakes({**LIMIT, **wrong})
        assert "expires_tick" in mistake["problem"]


@pytest.mark.parametrize(
    "value", [{"client_action_id": "a"}, {"type": "buy"}, {"type": 7}, {"type": None}, {"type": []}]
)
def test_an_unknown_type_is_answered_with_all_types(value: dict[str, Any]) -> None:
    """Missing or wrong."""
    (mistake,) = mistakes(value)

    assert mistake["field"] == "type"
    assert all(kind in mistake["allowed"] for kind in schemas.ACTION_MODELS)


def test_several_mistakes_are_told_at_once_but_not_without_end() -> None:
    """A client mends them in one go; a hostile one gets no megabytes."""
    wrong = {**LIMIT, "quantity": 0, "price": 0, "side": "up"}

    assert {mistake["field"] for mistake in mistakes(wrong)} == {"quantity", "price", "side"}
    assert len(mistakes({**LIMIT, **{f"x{i}": i for i in range(1_000)}})) == 20


@pytest.mark.parametrize("limit", ["0", "33", "1.5", "1e1", " 1", "+1", "1_0", "", "x", "1" * 17])
def test_parameters_are_plain_whole_numbers_in_bounds(limit: str) -> None:
    """No other spelling of a number passes."""
    with pytest.raises(ValidationError) as caught:
        schemas.MarketsQuery.model_validate({"limit": limit})

    (mistake,) = schemas.mistakes(caught.value, schemas.MarketsQuery)
    assert mistake["field"] == "limit"
    assert mistake["allowed"] == "markets a page, 1 to 32"


def test_parameters_have_their_public_names() -> None:
    """`from`, `to` and `validate` are words of Python or its libraries, so the attribute has another."""
    query = schemas.HistoryQuery.model_validate({"from": "3", "to": "9"})

    assert (query.from_tick, query.to_tick, query.step) == (3, 9, None)
    assert schemas.ActionQuery.model_validate({"validate": "true"}).validate_only == "true"
    with pytest.raises(ValidationError):
        schemas.HistoryQuery.model_validate({"from_tick": "3"})


@pytest.mark.parametrize("actions", [[], [1] * 1_001, None, {}])
def test_a_batch_has_1_to_1000_actions(actions: Any) -> None:
    """The list itself; its items are checked one by one."""
    with pytest.raises(ValidationError) as caught:
        schemas.Batch.model_validate({"actions": actions})

    assert "1 to 1000" in schemas.mistakes(caught.value, schemas.Batch)[0]["allowed"]


def test_every_field_that_comes_in_says_what_is_allowed() -> None:
    """The text of a refusal comes from the field's description, so each has one."""
    models: list[type[BaseModel]] = [*schemas.ACTION_MODELS.values(), schemas.Batch, schemas.ActionQuery]
    models += [schemas.MarketsQuery, schemas.HistoryQuery, schemas.EventsQuery]
    for model in models:
        for name, field in model.model_fields.items():
            assert name == "type" or field.description, f"{model.__name__}.{name}"


def mistakes(value: Any) -> list[dict[str, Any]]:
    """Return how an action is refused."""
    with pytest.raises(ValidationError) as caught:
        schemas.parse_action(value)
    return schemas.mistakes(caught.value)
