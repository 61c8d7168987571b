"""Admission: rates, callers, rows and fingerprints; what is refused leaves no trace."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.ladder import LAST_LEVEL, UCR, prices
from engine.markets import ID
from engine.messages import Kind, TimeInForce
from server import schemas
from server.clock import ManualClock
from server.config import Settings
from server.errors import BadRequest, Problem, Unauthorized
from server.live.admission import (
    Limits,
    RateLimiter,
    TimeBudget,
    agent_number,
    api_key,
    network_of,
    to_level,
    to_row,
)
from server.live.receipts import Receipts

LIMIT: dict[str, Any] = {
    "client_action_id": "a-1", "type": "limit", "market": "food", "side": "buy", "quantity": 5, "price": "1.25",
}  # fmt: skip
KEY = b"k" * 32


def row_of(**changes: Any) -> np.void:
    """Return the row of the plain limit order with changes."""
    row: np.void = to_row(17, schemas.parse_action({**LIMIT, **changes}))[0]
    return row


def test_a_limit_order_becomes_a_row() -> None:
    """Every field where the world looks for it; seq and valid_until are filled later."""
    row = row_of(time_in_force="gtt", expires_tick=99)

    assert (row["agent_id"], row["kind"], row["market"], row["side"]) == (17, Kind.LIMIT, ID["food"], 1)
    assert (row["quantity"], row["time_in_force"], row["order_until"]) == (5, TimeInForce.GTT, 99)
    assert prices()[row["level"]] <= 1_250_000 < prices()[row["level"] + 1]
    assert (row["seq"], row["valid_until"]) == (0, 0)


@pytest.mark.parametrize(
    ("action", "expected"),
    [
        ({"type": "market", "market": "oil", "side": "sell", "quantity": 3}, {"market": 1, "side": -1, "quantity": 3}),
        ({"type": "cancel", "order_id": "12"}, {"market": -1, "order_id": 12}),
        ({"type": "replace", "order_id": "12", "quantity": 4, "price": 1}, {"order_id": 12, "quantity": 4, "side": 0}),
        ({"type": "borrow", "amount": "1.000001"}, {"amount": 1_000_001}),
        ({"type": "repay", "amount": 1_000_000_000}, {"amount": 10**15}),
        ({"type": "produce", "market": "food", "quantity": 2}, {"market": ID["food"], "quantity": 2}),
        ({"type": "consume", "market": "food", "quantity": 2}, {"market": ID["food"], "quantity": 2}),
        ({"type": "cancel_all"}, {"market": -1}),
        ({"type": "cancel_all", "market": "food"}, {"market": ID["food"]}),
        ({"type": "cancel_after", "ticks": 50}, {"market": -1, "quantity": 50}),
    ],
)
def test_other_actions_become_rows(action: dict[str, Any], expected: dict[str, int]) -> None:
    """Fields that an action does not have are 0, the market -1."""
    (row,) = to_row(17, schemas.parse_action({"client_action_id": "a", **action}))

    assert row["kind"] == Kind[action["type"].upper()]
    assert {name: int(row[name]) for name in expected} == expected


def test_moods_are_taken_to_q15() -> None:
    """0 is 0, 1 is 32767."""
    moods = {"sentiment": 0, "fear": 1, "greed": Decimal("0.5"), "confidence": Decimal("0.25")}

    (row,) = to_row(1, schemas.parse_action({"client_action_id": "a", "type": "set_sentiment", **moods}))

    assert row["mood"].tolist() == [0, 32_767, 16_384, 8_192]


@given(
    price=st.decimals("0.01", "1018465.744168", places=9), side=st.sampled_from(["buy", "sell"]),
)  # fmt: skip
def test_a_buy_is_never_taken_above_its_price_and_a_sell_never_below(price: Decimal, side: str) -> None:
    """And never further than to the nearest level on that side."""
    level, table = to_level(price, side), prices()

    if side == "buy":
        assert table[level] <= price * UCR
        assert level == LAST_LEVEL or table[level + 1] > price * UCR
    else:
        assert table[level] >= price * UCR
        assert level == 0 or table[level - 1] < price * UCR


def test_without_a_side_only_prices_of_the_ladder_are_taken() -> None:
    """A replace does not say which way to round."""
    exact = Decimal(int(prices()[50_000])) / UCR

    assert to_level(exact, None) == 50_000
    with pytest.raises(BadRequest) as caught:
        to_level(exact + Decimal("0.000001"), None)
    assert str(exact) in caught.value.detail
    assert "side" in caught.value.detail


def print_of(**changes: Any) -> bytes:
    """Return the fingerprint of the plain limit order with changes."""
    action = schemas.parse_action({**LIMIT, **changes})
    asked = -1 if action.valid_until_tick is None else action.valid_until_tick
    return Receipts(0).fingerprints(to_row(17, action), np.array([asked])).tobytes()


def test_a_fingerprint_is_of_what_is_asked_for_not_of_how_it_is_written() -> None:
    """A number, a text, a default said aloud: the same action."""
    assert print_of() == print_of(price=Decimal("1.25")) == print_of(price="1.250") == print_of(time_in_force="gtc")
    assert len(print_of()) == 16


@pytest.mark.parametrize(
    "change",
    [
        {"quantity": 6}, {"price": "1.26"}, {"side": "sell"}, {"market": "oil"}, {"time_in_force": "ioc"},
        {"time_in_force": "gtt", "expires_tick": 9}, {"valid_until_tick": 7}, {"valid_until_tick": 0},
    ],
)  # fmt: skip
def test_every_other_wish_has_another_fingerprint(change: dict[str, Any]) -> None:
    """Under one client_action_id it must be noticed."""
    assert print_of(**change) != print_of()


def test_a_bucket_holds_a_tenth_of_a_minute_and_refills_evenly() -> None:
    """600 a minute: 60 at once, then ten a second."""
    clock = ManualClock()
    limiter = RateLimiter(600, clock)

    burst = [limiter.take(KEY).remaining for _ in range(60)]
    with pytest.raises(Problem) as caught:
        limiter.take(KEY)
    clock.advance(0.25)
    later = [limiter.take(KEY).remaining for _ in range(2)]

    assert burst == list(range(59, -1, -1))
    assert caught.value.status == 429
    assert caught.value.headers["Retry-After"] == "1"
    assert caught.value.headers["X-RateLimit-Remaining"] == "0"
    assert caught.value.headers["X-RateLimit-Reset"] == "6"
    assert later == [1, 0]


def test_keys_have_buckets_of_their_own() -> None:
    """One key's flood costs nobody else."""
    limiter = RateLimiter(10, ManualClock())

    limiter.take(KEY)
    limiter.take(b"o" * 32)

    with pytest.raises(Problem):
        limiter.take(KEY)


def test_only_those_that_asked_lately_have_a_bucket() -> None:
    """A full bucket is what a new key begins with, so nothing is lost; whoever asks goes on with its own."""
    clock = ManualClock()
    limiter = RateLimiter(600, clock)
    for number in range(1_000):
        limiter.take(number.to_bytes(32, "big"))
        for _ in range(3 * (number >= 990)):
            limiter.take(KEY)
        clock.advance(0.05)

    assert len(limiter) <= 6 / 0.05 + 2
    assert limiter.take(KEY).remaining == pytest.approx(60 - 30 + 5 - 1, abs=1)


@given(st.lists(st.tuples(st.integers(0, 5), st.sampled_from((0.0, 0.5, 5.0, 6.0, 7.0))), max_size=60))
def test_forgetting_full_buckets_changes_no_answer(steps: list[tuple[int, float]]) -> None:
    """Every answer is that of a limiter with one key and its whole past."""
    clock = ManualClock()
    limiter = RateLimiter(40, clock)
    alone = [RateLimiter(40, clock) for _ in range(6)]

    def answer(asked: RateLimiter, who: int) -> object:
        try:
            return asked.take(bytes([who]))
        except Problem as problem:
            return problem.headers

    for who, pause in steps:
        assert answer(limiter, who) == answer(alone[who], who)
        clock.advance(pause)


def test_registrations_of_an_address_may_all_come_at_once() -> None:
    """Five, then one every twelve seconds; the refusal says of what."""
    clock = ManualClock()
    limiter = Limits.of(Settings(), clock).newcomers

    for _ in range(5):
        limiter.take(b"x")
    with pytest.raises(Problem, match="5 registrations without a key a minute") as caught:
        limiter.take(b"x")
    clock.advance(12.0)
    limiter.take(b"x")

    assert caught.value.headers["Retry-After"] == "12"
    assert caught.value.headers["RateLimit-Policy"] == '"registrations";q=5;w=60'


@pytest.mark.parametrize(
    ("one", "other", "is_same"),
    [
        ("127.0.0.1", "127.0.0.2", False),
        ("127.0.0.1", "::ffff:127.0.0.1", True),
        ("2001:db8::1", "2001:db8::ffff:2", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("", "unix", False),
    ],
)
def test_addresses_of_one_customer_count_together(one: str, other: str, is_same: bool) -> None:
    """With IPv6 everybody has 2^64 of them."""
    assert (network_of(one) == network_of(other)) == is_same


@given(st.floats(0.0, 100.0), st.integers(1, 100_000))
def test_a_key_never_gets_more_than_its_rate(pause: float, per_minute: int) -> None:
    """Over any time: the burst and what flowed in, not one more."""
    clock = ManualClock()
    limiter = RateLimiter(per_minute, clock)
    taken = 0
    for _ in range(5):
        for _ in range(50):
            try:
                limiter.take(KEY)
                taken += 1
            except Problem:
                break
        clock.advance(pause)

    assert taken <= limiter.burst + 4 * pause * per_minute / 60 + 1e-6


def test_batches_may_take_their_share_of_the_time_and_no_more() -> None:
    """Twenty milliseconds at once, a fourth of the time in the long run; the last one may overdraw it."""
    clock = ManualClock()
    budget = TimeBudget(0.25, clock)

    def spend(seconds: float) -> None:
        with budget.spent():
            clock.advance(seconds)

    assert budget.wait_s() == 0
    spend(0.02)
    assert budget.wait_s() == 0, "spending fills the bucket as well: it takes its time"
    spend(0.1)
    wait_s = budget.wait_s()
    clock.advance(wait_s - 0.001)
    almost = budget.wait_s()
    clock.advance(0.002)

    assert wait_s == pytest.approx(0.28)
    assert almost > 0
    assert budget.wait_s() == 0


def test_keys_come_in_either_header() -> None:
    """Bearer in any case; anything else in Authorization is refused, not ignored."""
    assert api_key({"authorization": "Bearer ak_x"}) == "ak_x"
    assert api_key({"authorization": "bearer  ak_x "}) == "ak_x"
    assert api_key({"x-api-key": "ak_x"}) == "ak_x"
    assert api_key({}) is None
    for wrong in ("Basic ak_x", "Bearer ", "ak_x", ""):
        with pytest.raises(Unauthorized):
            api_key({"authorization": wrong})


@pytest.mark.parametrize("text", ["17", "a", "a0", "a01", "a-1", "A17", "a1 ", "a" + "9" * 17, 17, None, "a١"])  # noqa: RUF001  # the last digit is Arabic: a number to Python, none to us
def test_what_is_no_agent_id_has_no_number(text: Any) -> None:
    """One spelling only."""
    assert agent_number(text) is None


def test_an_agent_id_is_a_and_its_number() -> None:
    """As registering gave it."""
    assert agent_number("a17") == 17
