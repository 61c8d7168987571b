"""A treated world and its twin: same start, same chance, and only the script between them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from engine import invariants
from engine.economy import Economy
from engine.errors import InvariantBroken, ScenarioInvalid
from engine.ladder import UCR
from engine.markets import HOURS, OIL
from engine.messages import Reject
from engine.state import BANK, CENTRAL_BANK, TREASURY
from engine.studies.scenario.outside import Outside, market_size
from engine.studies.scenario.run import Result, Start, live, run, run_all, start_of, ticks_of
from engine.studies.scenario.script import Scenario, parse
from engine.studies.scenario.steps import Money, Stage, Step
from tests.support.worlds import small_config

DAYS = 3


def scenario(*script: dict[str, Any], **more: Any) -> Scenario:
    """Return a small scenario of three days."""
    document = {"title": "t", "shows": "s", "days": DAYS, "run_in_days": 2, "residents": 2_000, "script": list(script)}
    return parse("small", {**document, **more})


@pytest.fixture(scope="module")
def start() -> Start:
    return start_of(scenario())


def results(*script: dict[str, Any], watch: tuple[str, ...] = ("cpi",), **more: Any) -> Result:
    """Run a script."""
    return run(scenario(*script, watch=list(watch), **more))


def test_without_a_script_both_worlds_are_the_same() -> None:
    """Every deviation is zero."""
    result = results(watch=("cpi", "volume.all", "fear"))

    assert all(np.array_equal(result.treated.days[name], result.untreated[name]) for name in result.treated.days)


def test_a_run_repeats_bit_for_bit() -> None:
    """The same scenario gives the same hash, and another than without its script."""
    script = ({"do": "shock", "size": 0.5}, {"do": "join", "agents": "a", "count": 5})

    one, other = results(*script), results(*script)

    assert one.treated.state_hash == other.treated.state_hash != results().treated.state_hash


def test_scenarios_together_are_what_they_are_alone() -> None:
    """Shared starts and twins change nothing: lengths, series, seeds and what twins are told may all differ."""
    shock = {"do": "shock", "size": 0.5}
    mixed = [
        scenario(shock, watch=["fear"]),
        scenario(watch=["cpi"], days=1),
        scenario({"do": "money", "share": 0.2, "twin": True}, shock, watch=["cpi", "fear"]),
        scenario({"do": "join", "agents": "a", "count": 3, "twin": True}, watch=["agents"]),
        scenario(shock, watch=["fear"], seed=2),
    ]
    told: list[int] = []

    together = list(run_all(mixed, told.append))

    for one, alone in zip(together, map(run, mixed), strict=True):
        assert one.treated.state_hash == alone.treated.state_hash
        assert {name: days.tolist() for name, days in one.untreated.items()} == {
            name: days.tolist() for name, days in alone.untreated.items()
        }
    assert sum(told) == ticks_of(mixed) < sum(ticks_of([one]) for one in mixed)


def test_a_step_for_both_worlds_is_in_the_twin_too() -> None:
    """With every step marked twin nothing is left to compare, and yet the step was done."""
    result = results({"do": "shock", "size": 0.5, "twin": True}, watch=("fear",))

    assert result.treated.days["fear"].tolist() == result.untreated["fear"].tolist()
    assert result.treated.state_hash != results().treated.state_hash


def test_days_begin_with_the_start_and_sums_are_of_a_day(start: Start) -> None:
    """Index 0 is the start for both; a day's volume is that of its 24 ticks."""
    shown = scenario(watch=["volume.food", "price.food", "day"])
    life = live(shown, start, ())
    economy = Economy(shown.config, shown.seed, start=(start.tick, start.arrays))
    volume = sum(int(economy.advance().public.market["volume"][9]) for _ in range(HOURS))

    assert life.days["day"].tolist() == [2.0, 3.0, 4.0, 5.0]
    assert life.days["price.food"][0] == start.report.public.market["price"][9]
    assert life.days["volume.food"][1] == volume


# --- what each step does -------------------------------------------------------------------------------------------
def stage(start: Start) -> Stage:
    """Return a world at the start and nobody in it."""
    return Stage(Economy(small_config(), 1, checks=1, start=(start.tick, start.arrays)), Outside())


def apply(start: Start, **keys: Any) -> Stage:
    """Apply one step to a world at the start and advance a tick, all invariants checked."""
    on = stage(start)
    [step] = scenario(keys).steps
    step.apply(on)
    invariants.check(on.economy.state)
    on.economy.advance(on.outside.take())
    return on


def test_money_is_owed_by_the_treasury(start: Start) -> None:
    """Households get their share to the micro-credit, and the ledger owes as much."""
    before = stage(start).economy.state
    on = stage(start)
    [step] = scenario({"do": "money", "share": 0.25}).steps
    step.apply(on)
    after, households = on.economy.state, before.layout.households

    assert np.array_equal(after.cash[:households], before.cash[:households] + before.cash[:households] // 4)
    assert np.array_equal(after.cash[households:], before.cash[households:])
    given = int(after.cash.sum() - before.cash.sum())
    assert before.ledger[TREASURY] - after.ledger[TREASURY] == given
    assert np.array_equal(after.ledger[[BANK, CENTRAL_BANK]], before.ledger[[BANK, CENTRAL_BANK]])


def test_money_that_is_taken_leaves_standing_orders_covered() -> None:
    """Nine tenths are taken again and again, every tick, and no cash goes below zero."""
    result = results({"do": "money", "share": -0.9, "times": DAYS * HOURS}, watch=("money_supply",))

    supply = result.treated.days["money_supply"]
    assert supply[1] < 0.8 * supply[0]


def test_the_alarm_is_on(start: Start) -> None:
    """Money out of nowhere ends a run at once: the check is made at every tick of both worlds."""

    class Forged(Step):
        def apply(self, stage: Stage) -> None:
            stage.economy.state.cash[0] += 1

    with pytest.raises(InvariantBroken, match="sum of all cash accounts is 1 ucr"):
        live(scenario(), start, (Forged(day=1),))


def test_minds_are_set_to_what_is_given_only(start: Start) -> None:
    """Fear is everybody's; sentiment stays what it was."""
    on = stage(start)
    before = on.economy.state.sentiment.copy()
    [step] = scenario({"do": "minds", "fear": 1.0, "greed": 0.5}).steps
    step.apply(on)

    state = on.economy.state
    assert set(state.fear.tolist()) == {32_767}
    assert set(state.greed.tolist()) == {16_384}
    assert np.array_equal(state.sentiment, before)


def test_events_go_through_the_engine() -> None:
    """A find and a disaster are counted, move reserves and are felt."""
    result = results(
        {"do": "discovery", "resource": "lithium", "size": 0.05},
        {"do": "catastrophe", "resource": "oil", "size": 0.4, "kind": "political_instability"},
        watch=("reserves.oil", "reserves.lithium", "shock"),
    )

    treated, untreated = result.treated.days, result.untreated
    assert treated["reserves.oil"][1] / untreated["reserves.oil"][1] == pytest.approx(0.6, abs=0.001)
    assert treated["reserves.lithium"][1] > untreated["reserves.lithium"][1]
    assert treated["shock"][1] == pytest.approx(0.3 * 0.995**HOURS)
    assert untreated["shock"][1] == 0.0


def test_a_find_that_the_world_drops_is_refused() -> None:
    """Nothing is done silently: a scenario whose find is too large says so."""
    with pytest.raises(ScenarioInvalid, match=r"a find of 0.9 would lift reserves above 1.2 x their base"):
        results({"do": "discovery", "resource": "oil", "size": 0.9})


def test_the_policy_switch_stops_the_rate() -> None:
    """Off it stays where it is; on again it moves."""
    steps = ({"do": "policy", "active": False}, {"do": "policy", "active": True, "day": 2})
    rate = results(*steps, watch=("policy_rate",)).treated.days["policy_rate"]

    assert rate[0] == rate[1] == rate[2] != rate[3]


def test_news_moves_what_is_believed(start: Start) -> None:
    """The fundamental value of the named market moves, of no other."""
    on = apply(start, do="news", markets=["eq_tech"], bp=-2_000)
    plain = stage(start)
    plain.economy.advance()
    moved = on.economy.state.fundamental - plain.economy.state.fundamental

    assert moved[26] == pytest.approx(-2_000, abs=2)
    assert np.count_nonzero(moved) == 1


# --- outside agents ------------------------------------------------------------------------------------------------
JOIN = {"do": "join", "agents": "crowd", "count": 20, "endowment_credits": 50_000}
BUY = {"do": "order", "agents": "crowd", "market": "eq_tech", "side": "buy", "quantity": 2, "hour": 2}


def test_agents_pay_for_what_they_get() -> None:
    """They register, buy by market order, and hold lots they paid for; the world's money still adds up."""
    result = results(JOIN, BUY, watch=("agents", "outside_part.eq_tech", "actions", "refused"))

    days = result.treated.days
    assert days["agents"].tolist() == [0.0, 20.0, 20.0, 20.0]
    assert days["actions"][1] == 40.0
    assert days["refused"].sum() == 0.0
    assert days["outside_part.eq_tech"][1] > 0.0
    assert result.notes == ("outside agents sent 40 actions, 0 were refused",)


def test_what_the_world_refuses_is_told() -> None:
    """Selling what one has not, and paying more than one has."""
    sell = {**BUY, "side": "sell"}
    dear = {**BUY, "quantity": 1_000_000, "offset_bp": 50}

    result = results(JOIN, sell, dear)

    assert result.treated.refused == {Reject.NO_FUNDS: 20, Reject.NO_HOLDINGS: 20}
    assert "20 refused (202): not enough unreserved holdings" in result.notes


def test_a_group_that_leaves_stays_in_its_twin_and_goes_on() -> None:
    """After leaving nothing more is sent here; there the orders go on."""
    both = {"twin": True}
    result = results(
        {**JOIN, **both}, {**BUY, **both, "every": 24, "times": 3}, {"do": "leave", "agents": "crowd", "day": 1},
        watch=("agents", "open_orders", "outside_part.eq_tech"),
    )  # fmt: skip

    treated, untreated = result.treated.days, result.untreated
    assert treated["agents"].tolist() == [0.0, 20.0, 0.0, 0.0]
    assert untreated["agents"].tolist() == [0.0, 20.0, 20.0, 20.0]
    assert treated["outside_part.eq_tech"][2:].tolist() == [0.0, 0.0]
    assert untreated["outside_part.eq_tech"][3] > untreated["outside_part.eq_tech"][1]
    assert result.treated.refused == {}


@pytest.mark.parametrize(
    ("keys", "resting"),
    [
        ({"offset_bp": -3_000}, [20.0, 20.0, 20.0]),
        ({"offset_bp": -3_000, "time_in_force": "gtt", "order_ticks": 30}, [20.0, 0.0, 0.0]),
        ({"offset_bp": -3_000, "time_in_force": "ioc"}, [0.0, 0.0, 0.0]),
        ({"price_credits": 0.02}, [20.0, 20.0, 20.0]),
    ],
)
def test_a_limit_rests_as_long_as_it_is_told(keys: dict[str, Any], resting: list[float]) -> None:
    """Far below the market nothing is filled: gtc stays, gtt ends in time, ioc at once."""
    days = results(JOIN, {**BUY, **keys}, watch=("open_orders",)).treated.days

    assert days["open_orders"][1:].tolist() == resting


def test_a_part_of_the_market_is_shared_out(start: Start) -> None:
    """A tenth of all shares among twenty agents; a day's oil for one of them."""
    state = stage(start).economy.state
    outside = Outside()
    outside.join("crowd", 20)

    assert outside.share_out("crowd", 0.1, state, 26) == round(0.1 * int(state.shares_out[26]) / 20)
    assert outside.share_out("crowd", 1e-9, state, 26) == 1
    assert market_size(state, OIL) == pytest.approx(float(state.output_weight[OIL]))


def test_a_price_is_put_on_the_ladder_in_the_senders_favour(start: Start) -> None:
    """A buyer never pays more than it said, a seller never gets less."""
    state = stage(start).economy.state
    price = 12_345_678

    assert (
        state.ladder[Outside.level_of(state, price, "buy")]
        <= price
        <= state.ladder[Outside.level_of(state, price, "sell")]
    )
    assert state.ladder[Outside.level_of(state, UCR, "buy")] == UCR


def test_a_step_is_due_at_its_times() -> None:
    """First, every so often, and not once more."""
    step = Money(day=1, hour=3, every=12, times=3, share=0.1)

    assert [tick for tick in range(200) if step.is_due(tick)] == [27, 39, 51]
    assert step.last_tick == 51
