"""A batch in any encoding is what its actions are alone: the same rows, the same refusals, word for word."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import numpy as np
import pytest
from arena_client.columns import encode_columns
from hypothesis import given
from hypothesis import strategies as st

from engine.ladder import LAST_LEVEL, prices
from engine.markets import FINAL, ID, NAMES
from engine.messages import CANCEL_AFTER_TICKS_MAX
from server import batches, bodies, schemas
from server.batches import BINARY, FIELDS, Batch, BinaryBatch
from server.clock import ManualClock
from server.config import Settings
from server.errors import BadRequest, Problem
from server.live.admission import Admission, Limits, TimeBudget, agent_number, unknown_agent
from server.live.errors import Full
from server.live.pace import Pace
from server.live.recorder import Recorder
from server.live.turns import Turns
from server.metrics import Metrics
from tests.support.live import open_small

Item = dict[str, Any]


@pytest.fixture(scope="module")
def admission(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Admission]:
    """A door of a small world."""
    world, metrics, clock = open_small(tmp_path_factory.mktemp("world")), Metrics(), ManualClock()
    recorder = Recorder(world.journal, world.queue, world.receipts, world.registry, metrics)
    budget, pace = TimeBudget(0.5, clock), Pace(world.queue, 0.1, clock)
    yield Admission(recorder, Limits.of(Settings(), clock), budget, pace, Turns(clock), metrics)
    world.lock.release()


def alone(admission: Admission, agent_id: Any, content: Any) -> np.ndarray | Problem:
    """Return the row of an action sent alone, or why it is refused: the models decide."""
    number = agent_number(agent_id)
    if number is None:
        return unknown_agent(agent_id)
    try:
        return admission.row(number, admission.parse(content))
    except Problem as problem:
        return problem


def looked_at(admission: Admission, batch: Batch) -> list[np.ndarray | None]:
    """Return the row of each action of a batch that is surely right at a glance."""
    rows, is_right = admission.look_at(batch.columns)
    return [rows[i : i + 1] if is_right[i] else None for i in range(len(rows))]


def check(admission: Admission, batch: Batch, expected: list[np.ndarray | Problem]) -> list[bool]:
    """See to it that each action becomes the expected row, or is refused with the expected words.

    Returns which were surely right at a glance.
    """
    found = looked_at(admission, batch)
    for i, (row, wanted) in enumerate(zip(found, expected, strict=True)):
        if row is None:
            got = alone(admission, batch.agent_id(i), batch.content(i))
            row = None if isinstance(got, Problem) else got
            if isinstance(wanted, Problem):
                assert isinstance(got, Problem)
                assert got.members() == wanted.members()
        if not isinstance(wanted, Problem):
            assert row is not None, f"refused: {wanted}"
            assert row.tobytes() == wanted.tobytes(), (row, wanted)
        else:
            assert row is None, f"taken: {wanted.detail}"
    return [row is not None for row in found]


# --- what actions may look like ----------------------------------------------------------------------------------
GOOD: dict[str, st.SearchStrategy[Any]] = {
    "market": st.sampled_from(NAMES),
    "side": st.sampled_from(["buy", "sell"]),
    "quantity": st.integers(1, 1_000_000_000),
    "price": st.one_of(
        st.decimals("0.01", "1018465.744168", places=6).map(str),
        st.decimals("0.01", "1018465.744168", places=9),
        st.integers(1, 1_018_465),
        st.integers(0, LAST_LEVEL).map(lambda level: str(Decimal(int(prices()[level])).scaleb(-6))),
    ),
    "order_id": st.integers(1, 10**16 - 1).map(str),
    "ticks": st.integers(0, CANCEL_AFTER_TICKS_MAX),
    "amount": st.one_of(st.decimals("0.000001", "1000000000", places=6).map(str), st.integers(1, 10**9)),
    "time_in_force": st.sampled_from(["gtc", "ioc"]),
    "sentiment": st.one_of(st.integers(0, 1), st.decimals(0, 1, places=4)),
}
for name in ("fear", "greed", "confidence"):
    GOOD[name] = GOOD["sentiment"]
NEEDED = {
    "limit": ("market", "side", "quantity", "price"),
    "market": ("market", "side", "quantity"),
    "cancel": ("order_id",),
    "replace": ("order_id", "quantity", "price", "side"),
    "borrow": ("amount",),
    "repay": ("amount",),
    "produce": ("market", "quantity"),
    "consume": ("market", "quantity"),
    "set_sentiment": ("sentiment", "fear", "greed", "confidence"),
    "cancel_all": (),
    "cancel_after": ("ticks",),
}
IDS = st.text("abcXYZ019._:-", min_size=1, max_size=64)


@st.composite
def good_items(draw: st.DrawFn) -> Item:
    """Draw an action as it should be."""
    kind = draw(st.sampled_from(list(NEEDED)))
    item: Item = {"agent_id": f"a{draw(st.integers(1, 10**16 - 1))}", "type": kind, "client_action_id": draw(IDS)}
    item |= {name: draw(GOOD[name]) for name in NEEDED[kind]}
    if kind == "produce":
        item["market"] = draw(st.sampled_from(schemas.GOODS))
    if kind == "consume":
        item["market"] = draw(st.sampled_from(FINAL))
    if kind == "limit" and draw(st.booleans()):
        item["time_in_force"] = draw(st.sampled_from(["gtc", "ioc", "gtt"]))
        if item["time_in_force"] == "gtt":
            item["expires_tick"] = draw(st.integers(0, 1 << 53))
    if kind == "cancel_all" and draw(st.booleans()):
        item["market"] = draw(GOOD["market"])
    if draw(st.booleans()):
        item["valid_until_tick"] = draw(st.integers(0, 36_000))
    return item


ODD: st.SearchStrategy[Any] = st.one_of(
    st.none(), st.booleans(), st.integers(-5, 1 << 53), st.decimals(-9, 9, places=3), st.just([]), st.just({}),
    st.sampled_from([
        "", "a", "a0", "a01", "gold", "labour", "food", "gtt", "buy ", "1.2.3", "1.", ".5", "01", "0.009", "-1", "1e5",
        "0.0000001", "1.1234567", "99999999999", "a b", "ä", "a\0", "x" * 65, "limit", "register", "0",
        "1018465.7441681", "1000000000.000001",
    ]),
    st.sampled_from([1 << 53, 10**9 + 1, 10**10, *map(Decimal, ("1.0000000000000000000001", "1e-20", "0.5"))]),
)  # fmt: skip


@st.composite
def items(draw: st.DrawFn) -> Any:
    """Draw an action that may be wrong in any way."""
    item = draw(good_items())
    for _ in range(draw(st.integers(0, 2))):
        name = draw(st.sampled_from([*FIELDS, "colour"]))
        if draw(st.booleans()):
            item.pop(name, None)
        else:
            item[name] = draw(st.one_of(ODD, GOOD.get(name, ODD)))
    return draw(st.sampled_from([item] * 9 + [7]))


# --- objects and columns -----------------------------------------------------------------------------------------
@given(st.lists(items(), min_size=1, max_size=8))
def test_objects_are_what_they_are_alone(admission: Admission, given_items: list[Any]) -> None:
    """Whatever is wrong with them, and whether it is seen at a glance or not."""
    batch = batches.read({"actions": given_items})
    plain = [item for item in given_items if isinstance(item, dict)]

    for i, item in enumerate(given_items):
        if not isinstance(item, dict):
            with pytest.raises(BadRequest, match="no object"):
                batch.agent_id(i)
    if plain:
        expected = [alone(admission, item.get("agent_id"), without_agent(item)) for item in plain]
        check(admission, batches.read({"actions": plain}), expected)


@given(st.lists(good_items(), min_size=1, max_size=8))
def test_what_is_right_is_seen_at_a_glance(admission: Admission, given_items: list[Item]) -> None:
    """Objects or columns: nothing that is written as the page says is looked at alone."""
    expected = [alone(admission, item["agent_id"], without_agent(item)) for item in given_items]

    assert all(check(admission, batches.read({"actions": given_items}), expected))
    assert all(check(admission, batches.read({"columns": columns_of(given_items)}), expected))


@given(st.lists(items().filter(lambda item: isinstance(item, dict)), min_size=1, max_size=8))
def test_columns_are_what_their_actions_are_alone(admission: Admission, given_items: list[Item]) -> None:
    """A null is a field that is not there."""
    # in one order for all: what is wrong is named in the order of the columns
    given_items = [{name: item[name] for name in FIELDS if name in item} for item in given_items]
    present = [{name: value for name, value in item.items() if value is not None} for item in given_items]
    expected = [alone(admission, item.get("agent_id"), without_agent(item)) for item in present]

    check(admission, batches.read({"columns": columns_of(given_items)}), expected)


def without_agent(item: Item) -> Item:
    """Return an action as it is sent alone."""
    return {name: value for name, value in item.items() if name != "agent_id"}


def columns_of(given_items: list[Item]) -> dict[str, list[Any]]:
    """Return actions as one list a field; a list without a value is left out."""
    names = {name for item in given_items for name in item}
    return {name: [item.get(name) for item in given_items] for name in FIELDS if name in names}


# --- binary ------------------------------------------------------------------------------------------------------
@given(st.lists(good_items(), min_size=1, max_size=8))
def test_a_binary_batch_is_the_same_actions(admission: Admission, given_items: list[Item]) -> None:
    """Typed arrays, as the client makes them: the same rows, all of them seen at a glance."""
    # an amount in ucr has six decimals
    for item in given_items:
        if "price" in item:
            item["price"] = str(round(Decimal(item["price"]), 6))
    expected = [alone(admission, item["agent_id"], without_agent(item)) for item in given_items]

    assert all(check(admission, read_binary(encode_columns(binary_columns(given_items))), expected))


def binary_columns(given_items: list[Item]) -> dict[str, Any]:
    """Return actions as columns for the client: numbers for markets, what stands for no value where there is none."""
    absent = {"side": 0, "time_in_force": 0, "price": 0, "amount": 0, "market": -1}
    absent |= {name: column.absent for name, column in BINARY.items() if column.absent is not None}
    names = dict.fromkeys(name for item in given_items for name in item)
    columns = {name: [item.get(name, absent.get(name)) for item in given_items] for name in names}
    if "market" in columns:
        columns["market"] = [ID.get(name, -1) for name in columns["market"]]
    return columns


def read_binary(body: bytes) -> Batch:
    """Return a batch from the bytes of a request."""
    batch = batches.read(bodies.decode(body, bodies.MSGPACK, (bodies.MSGPACK,), binary=True))
    assert isinstance(batch, BinaryBatch)
    return batch


NUMBERS: dict[str, st.SearchStrategy[Any]] = {
    "agent_id": st.integers(-1, 10**16),
    "type": st.integers(0, 14),
    "ticks": st.sampled_from([-1, -1, 0, 5, CANCEL_AFTER_TICKS_MAX, CANCEL_AFTER_TICKS_MAX + 1, -2, 1 << 62]),
    "valid_until_tick": st.sampled_from([-1, -2, 0, 600, 36_025, 36_026, 1 << 60, -(1 << 63)]),
    "market": st.one_of(st.just(-1), st.integers(-3, 33)),
    "side": st.integers(-2, 2),
    "quantity": st.sampled_from([0, 1, 5, 10**9, 10**9 + 1, -1, (1 << 63) - 1]),
    "price_ucr": st.sampled_from([0, 9_999, 10_000, 1_250_000, 1_018_465_744_168, 1_018_465_744_169, -5, 1 << 62]),
    "time_in_force": st.sampled_from([0, 1, 2, 3, 4, 255]),
    "expires_tick": st.sampled_from([-1, -1, 0, 9, 1 << 53, (1 << 53) + 1, -2]),
    "order_id": st.sampled_from([0, 1, 10**16 - 1, 10**16, -1]),
    "amount_ucr": st.sampled_from([0, 1, 10**15, 10**15 + 1, -1]),
    "level": st.sampled_from([-1, 0, 5, LAST_LEVEL, LAST_LEVEL + 1, -2]),
}
MOODS = st.sampled_from([math.nan, math.nan, 0.0, 0.3, 1.0, 1.0000001, -0.1, math.inf])


@given(st.data())
def test_any_numbers_are_judged_as_the_models_judge_them(admission: Admission, data: st.DataObject) -> None:
    """Right at a glance exactly when the same action in JSON is right, with the same row."""
    count = data.draw(st.integers(1, 6))
    price = data.draw(st.sampled_from(["price_ucr", "level"]))
    columns = {
        name: [data.draw(values) for _ in range(count)]
        for name, values in NUMBERS.items()
        if name in ("agent_id", "type")
        or (name not in ("price_ucr", "level") and data.draw(st.booleans()))
        or name == price
    }
    columns |= {name: [data.draw(MOODS) for _ in range(count)] for name in batches.MOODS}
    columns["client_action_id"] = [data.draw(st.sampled_from(["a", "a.b", "a b", "ä", "x" * 64])) for _ in range(count)]

    batch = read_binary(encode_columns(columns))
    found = looked_at(admission, batch)

    for i, row in enumerate(found):
        try:
            expected = alone(admission, batch.agent_id(i), batch.content(i))
        except Problem as problem:
            expected = problem
        assert (row is None) == isinstance(expected, Problem)
        if row is not None and not isinstance(expected, Problem):
            assert row.tobytes() == expected.tobytes()


def test_numbers_are_names_by_their_digits(admission: Admission) -> None:
    """An id sent as a number is the same id as its decimal text."""
    numbers = [0, 7, 10, 99, 1 << 63, (1 << 64) - 1]
    columns = {"agent_id": 1, "type": "cancel", "order_id": 5}

    by_number = read_binary(encode_columns({**columns, "client_action_number": numbers}))
    by_text = read_binary(encode_columns({**columns, "client_action_id": [str(number) for number in numbers]}))

    receipts = admission._receipts
    agents = np.ones(len(numbers), np.int64)
    assert (
        receipts.keys(agents, by_number.columns.names).tolist() == receipts.keys(agents, by_text.columns.names).tolist()
    )
    assert by_number.content(5)["client_action_id"] == "18446744073709551615"


def test_levels_are_prices(admission: Admission) -> None:
    """A level stands for its price exactly, whatever the side."""
    levels = [0, 1, 50_000, LAST_LEVEL]
    columns = {"agent_id": 1, "type": "replace", "order_id": 5, "quantity": 1, "client_action_id": [*"abcd"]}

    rows = looked_at(admission, read_binary(encode_columns({**columns, "level": levels})))

    assert [None if row is None else int(row["level"][0]) for row in rows] == levels


# --- batches that are none ---------------------------------------------------------------------------------------
ONE = {"agent_id": 1, "type": "cancel", "order_id": 5, "client_action_id": ["a", "b"]}
BAD_COLUMNS: dict[str, tuple[Any, str]] = {
    "unknown column": ({"colour": ["red"]}, "unknown column"),
    "no list": ({"type": "limit"}, "is no list"),
    "lengths differ": ({"type": ["limit"], "agent_id": ["a1", "a2"]}, "has 2 values"),
    "nothing in it": ({}, "0 actions"),
    "empty": ({"type": []}, "0 actions"),
    "too many": ({"type": ["limit"] * 1_001}, "1001 actions"),
}


@pytest.mark.parametrize("name", BAD_COLUMNS)
def test_columns_that_do_not_fit_together_are_refused_as_a_whole(name: str) -> None:
    """With the column and what is allowed."""
    columns, problem = BAD_COLUMNS[name]

    with pytest.raises(BadRequest) as caught:
        batches.read({"columns": columns})

    assert problem in caught.value.detail
    assert caught.value.errors[0]["field"].startswith("columns")


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"agent_id": b"1234567"}, "has 7 bytes"),
        ({"quantity": bytes(8)}, "8 bytes for each of 2 actions"),
        ({"colour": bytes(2)}, "unknown column"),
        ({"agent_id": None}, "columns.agent_id: missing"),
        ({"client_action_id": None}, "client_action_id or client_action_number"),
        ({"client_action_number": bytes(16)}, "both are there"),
        ({"price_ucr": bytes(16), "level": bytes(8)}, "both are there"),
        ({"client_action_id": bytes(130)}, "1 to 64 bytes"),
        ({"client_action_id": bytes(3)}, "1 to 64 bytes"),
        ({"type": b""}, "0 actions"),
        ({"type": bytes(1_001)}, "1001 actions"),
    ],
)
def test_typed_arrays_that_do_not_fit_are_refused_as_a_whole(change: dict[str, bytes | None], problem: str) -> None:
    """Nothing is guessed from bytes that are too many or too few."""
    columns = bodies.decode_msgpack(encode_columns(ONE), binary=True)["columns"] | change

    with pytest.raises(BadRequest, match=problem):
        batches.read({"columns": {name: data for name, data in columns.items() if data is not None}})


def test_an_answer_may_not_be_expected_of_both_forms() -> None:
    """A body is objects or columns."""
    with pytest.raises(BadRequest, match="unknown field"):
        batches.read({"columns": {"type": ["limit"]}, "actions": []})


def test_a_level_that_is_none_is_named(admission: Admission) -> None:
    """With those there are."""
    batch = read_binary(encode_columns({**ONE, "type": "replace", "quantity": 1, "level": LAST_LEVEL + 1}))

    assert looked_at(admission, batch) == [None, None]
    with pytest.raises(BadRequest, match=f"0 to {LAST_LEVEL}"):
        batch.content(0)


async def test_a_batch_whose_turn_it_is_is_not_refused_for_those_behind_it(admission: Admission) -> None:
    """They are told to come again; it has had its wait."""
    await admission.turns.take()
    turn = asyncio.create_task(admission.intake_turn())
    await asyncio.sleep(0)
    behind = [asyncio.create_task(admission.turns.take()) for _ in range(100)]
    await asyncio.sleep(0)

    with pytest.raises(Full, match="as many batches wait"):
        admission.check_intake()
    await turn
    await asyncio.gather(*behind)
