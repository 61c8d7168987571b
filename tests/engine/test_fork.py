"""The fork: nothing changed is the original hash for hash; each intervention does what it says, and nothing before."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from engine.economy import Economy
from engine.errors import SettingError
from engine.fork import (
    ADDED_AGENTS,
    CHANGEABLE,
    Addition,
    Change,
    Decided,
    Injection,
    Interventions,
    copy_of,
    fork,
    sub_seed,
    survey,
)
from engine.ladder import UCR
from engine.markets import ID, OIL, RAW_FIRST
from engine.messages import Kind, Reject, Status
from engine.phases.emission import CATASTROPHE_STRUCK, NATURAL, RESOURCE_DISCOVERED
from engine.replay import HashDiffers
from engine.state import ORDER_COUNT
from tests.support.journals import action_row
from tests.support.recorded import BEGIN, SEED, Recorded, busy

FOOD = ID["food"]


def slots_of(economy: Economy) -> dict[int, int]:
    """Return where each agent sits."""
    return {int(number): slot for slot, number in enumerate(economy.state.agent_id) if number}


class TestNothingChanged:
    """A branch without interventions is the original."""

    def test_every_stored_hash_is_met(self) -> None:
        """Random bots that do everything: the branch has the recorded hash after every single tick."""
        world = busy()

        hashes = {report.tick: economy.state_hash() for report, economy in world.branch(Interventions())}

        assert hashes == world.hashes
        assert len(hashes) == 80

    def test_a_fork_says_so_and_every_difference_is_zero(self) -> None:
        """Both worlds end with one hash; no series differs; the original was held to stored hashes."""
        world = busy()

        forked = world.fork()

        assert forked.original_hash == forked.branch_hash == world.hashes[world.economy.tick]
        assert forked.hashes_checked >= 1
        assert not forked.effects.difference.any()
        assert not forked.effects.cumulative.any()

    def test_a_short_fork_is_held_to_a_hash_of_its_own_ticks(self) -> None:
        """It ends long before the record does: the last hash it reaches is met, or found to differ."""
        world = busy()
        assert world.fork(ticks=25).hashes_checked == 1

        other = Economy(world.config, SEED + 1, start=world.start)
        with pytest.raises(HashDiffers):
            fork(other, world.records(), Interventions(), ticks=25)

    def test_agents_that_come_and_go_within_ticks_keep_their_slots(self) -> None:
        """Leaving and coming in one tick, a refused owner, a full world: still the recorded hashes."""
        world = Recorded(max_agents=4, agents_per_owner_max=2)
        first, _ = (world.join(owner=9) for _ in range(2))
        world.join(owner=9)  # its owner has two
        leave, come = action_row(first, Kind.UNREGISTER), action_row(0, Kind.REGISTER, owner=5)
        world.tick(action_row(0, Kind.REGISTER, owner=4), leave, come, action_row(0, Kind.REGISTER, owner=5))
        world.tick(action_row(0, Kind.REGISTER, owner=6))  # the world is full
        gone = world.journal.next_sequence + 1
        world.tick(
            action_row(sorted(world.slots)[1], Kind.UNREGISTER),
            action_row(0, Kind.REGISTER, owner=7),
            action_row(gone, Kind.UNREGISTER),
            action_row(0, Kind.REGISTER, owner=8),
        )
        world.tick()

        hashes = {report.tick: economy.state_hash() for report, economy in world.branch(Interventions())}

        assert hashes == world.hashes

    def test_a_world_that_is_not_the_recorded_one_is_refused(self) -> None:
        """An original under another seed does not meet the stored hash and says which tick."""
        world = busy(20)
        other = Economy(world.config, SEED + 1, start=world.start)

        with pytest.raises(HashDiffers):
            fork(other, world.records(), Interventions())


class TestWithoutAnAgent:
    """Its registration and its actions are left out; everybody else stays who and where they were."""

    def test_equal_until_the_registration_and_different_after(self) -> None:
        """The hashes are the recorded ones up to the tick before it, and no later one is."""
        world = busy(20, agents=3)
        joined = world.economy.tick + 1
        agent = world.join()
        for _ in range(30):
            world.tick(action_row(agent, Kind.MARKET, market=FOOD, side=1, quantity=5, valid_until=10_000))

        hashes = {r.tick: e.state_hash() for r, e in world.branch(Interventions(without=frozenset({agent})))}

        assert [tick for tick in hashes if hashes[tick] == world.hashes[tick]] == list(range(BEGIN + 1, joined))

    def test_ids_and_slots_of_everybody_else_stay(self) -> None:
        """An agent in the middle is left out: its slot stays empty, also for those who come later."""
        world = Recorded()
        agents = [world.join() for _ in range(4)]
        world.tick(action_row(agents[0], Kind.UNREGISTER))
        agents += [world.join() for _ in range(3)]

        *_, (_, branch) = world.branch(Interventions(without=frozenset({agents[1]})))

        assert slots_of(branch) == {n: slot for n, slot in slots_of(world.economy).items() if n != agents[1]}
        assert slots_of(world.economy)[agents[1]] == 1

    def test_one_who_took_its_place_keeps_it(self) -> None:
        """The agent left and its slot was given on, even in the same tick: the heir sits where it sat."""
        world = Recorded()
        agents = [world.join() for _ in range(3)]
        world.tick(action_row(0, Kind.REGISTER), action_row(agents[0], Kind.UNREGISTER), action_row(0, Kind.REGISTER))

        *_, (_, branch) = world.branch(Interventions(without=frozenset({agents[0]})))

        assert slots_of(branch) == slots_of(world.economy)
        assert slots_of(branch)[max(world.slots)] == 0

    def test_who_was_refused_stays_out(self) -> None:
        """A full world and a full owner: the place of the one left out is given to nobody the record refused."""
        world = Recorded(max_agents=3, agents_per_owner_max=2)
        first, second = world.join(owner=1), world.join(owner=1)
        world.join(owner=1)
        world.join(owner=2)
        world.join(owner=3)

        *_, (_, branch) = world.branch(Interventions(without=frozenset({first})))

        assert set(slots_of(branch)) == {second, *world.slots} - {first}
        assert len(world.slots) == 3

    def test_its_counterparts_trade_is_missing(self) -> None:
        """A seller above the market sold to the one left out only: in the branch its lots stay, its order stands."""
        world = Recorded(endowment_credits=100_000_000)
        seller, buyer = world.join(), world.join()
        world.tick(action_row(seller, Kind.MARKET, market=FOOD, side=1, quantity=2))
        above = int(world.economy.state.level[FOOD]) + 1_000
        offer = action_row(seller, market=FOOD, side=-1, quantity=2, level=above)
        bid = action_row(buyer, market=FOOD, side=1, quantity=1_000_000, level=above + 500)
        sold = world.tick(offer, bid)["filled"][0]

        *_, (_, branch) = world.branch(Interventions(without=frozenset({buyer})))

        slot = world.slots[seller]
        assert (sold, world.economy.state.agent_holdings[slot, FOOD]) == (2, 0)
        assert branch.state.agent_holdings[slot, FOOD] == 2
        assert branch.state.order_id[: branch.state.counters[ORDER_COUNT]].tolist() == [int(offer["seq"][0])]
        assert branch.state.price[FOOD] < world.economy.state.price[FOOD]

    def test_one_that_was_there_falls_silent(self) -> None:
        """Registered before the fork: the account stays, nothing of the agent is applied any more."""
        world = Recorded()
        agent = world.join()
        economy, records = copy_of(world.economy), len(world.records())
        for _ in range(5):
            world.tick(action_row(agent, Kind.BORROW, amount=UCR))

        later = world.records()[records:]
        forked = fork(economy, later, Interventions(without=frozenset({agent})))

        place = [one.name for one in forked.effects.series].index(f"agent.a{agent}.wealth")
        assert forked.effects.branch[:, place].tolist() == [0.0] * 5  # the advance is not wealth
        assert world.economy.state.agent_debt[0] == 5 * UCR
        assert forked.original_hash == world.hashes[world.economy.tick] != forked.branch_hash


class TestAddedActions:
    """Actions of an agent of the record, or of one that only the branch knows."""

    def test_a_new_agent_registers_and_trades(self) -> None:
        """Behind everything recorded, in a slot nobody recorded ever has, under a number of its own."""
        world = Recorded()
        agents = [world.join() for _ in range(3)]
        added = (
            Addition(BEGIN + 2, action_row(ADDED_AGENTS, Kind.REGISTER)),
            Addition(BEGIN + 3, action_row(ADDED_AGENTS, Kind.MARKET, market=FOOD, side=1, quantity=4)),
        )

        hashes = {r.tick: (e.state_hash(), slots_of(e)) for r, e in world.branch(Interventions(additions=added))}

        assert hashes[BEGIN + 1][0] == world.hashes[BEGIN + 1]
        assert hashes[BEGIN + 2][0] != world.hashes[BEGIN + 2]
        assert hashes[BEGIN + 3][1] == world.slots | {ADDED_AGENTS: 3}
        assert agents == sorted(world.slots)

    def test_orders_behind_an_added_one_move_up_and_are_still_found(self) -> None:
        """Recorded cancels and replaces name their orders by the recorded ids; the branch finds the right ones."""
        world = Recorded()
        one, two = world.join(), world.join()
        low = int(world.economy.state.level[FOOD]) - 3_000
        first = int(world.tick(action_row(one, market=FOOD, side=1, quantity=1, level=low))["order_id"][0])
        second = int(world.tick(action_row(one, market=FOOD, side=1, quantity=2, level=low))["order_id"][0])
        world.tick(action_row(one, Kind.REPLACE, order_id=second, quantity=1, level=low))
        world.tick(action_row(one, Kind.CANCEL, order_id=first))
        orders = [
            Addition(BEGIN + 3, action_row(two, market=FOOD, side=1, quantity=7 + i, level=low)) for i in range(3)
        ]

        *_, (report, branch) = world.branch(Interventions(additions=tuple(orders)))

        count = int(branch.state.counters[ORDER_COUNT])
        assert report.outcomes["code"].tolist() == [0]
        assert branch.state.order_qty[:count].tolist() == [7, 8, 9, 1]
        assert branch.state.order_id[:count].tolist() == [second - 1, second, second + 1, second + 3]
        assert branch.state.order_slot[:count].tolist() == [1, 1, 1, 0]

    def test_an_addition_names_an_order_of_its_own(self) -> None:
        """Placed, replaced to another price (a new id), cancelled, all by the place of the one that placed it."""
        world = Recorded()
        agent = world.join()
        for _ in range(4):
            world.tick()
        low = int(world.economy.state.level[FOOD]) - 3_000
        added = (
            Addition(BEGIN + 2, action_row(agent, market=FOOD, side=1, quantity=3, level=low)),
            Addition(BEGIN + 3, action_row(agent, Kind.REPLACE, order_id=-1, quantity=2, level=low - 9)),
            Addition(BEGIN + 4, action_row(agent, Kind.CANCEL, order_id=-1)),
            Addition(BEGIN + 5, action_row(agent, Kind.CANCEL, order_id=-1)),
        )

        decided = world.fork(Interventions(additions=added)).decided

        assert decided == {
            Decided(0, Status.RESTING, 0): 1,
            Decided(1, Status.RESTING, 0): 1,
            Decided(2, Status.DONE, 0): 1,
            Decided(3, Status.REJECTED, Reject.UNKNOWN_ORDER): 1,
        }

    def test_it_names_a_recorded_order_too(self) -> None:
        """An added cancel takes out an order the agent placed in the record."""
        world = Recorded()
        agent = world.join()
        low = int(world.economy.state.level[FOOD]) - 3_000
        order = int(world.tick(action_row(agent, market=FOOD, side=1, quantity=3, level=low))["order_id"][0])
        world.tick()
        added = (Addition(BEGIN + 3, action_row(agent, Kind.CANCEL, order_id=order)),)

        *_, (_, branch) = world.branch(Interventions(additions=added))

        assert branch.state.counters[ORDER_COUNT] == 0
        assert world.economy.state.counters[ORDER_COUNT] == 1


class TestParameters:
    """A setting changed at a tick."""

    @pytest.mark.parametrize("name", CHANGEABLE)
    def test_every_setting_acts_from_its_tick_on_as_in_a_world_made_with_it(self, name: str) -> None:
        """Equal to the record before, then equal to the recorded state put into a world with that setting."""
        world = busy(6, agents=4)
        at = world.economy.tick
        value = OTHER[name]

        branch = world.branch(Interventions(changes=(Change(at + 1, name, value),)), ticks=30)
        before = [next(branch)[1].state_hash() for _ in range(6)]
        changed = Economy(small(world, name, value), SEED, start=world.economy.copy_arrays())
        after = []
        for _, economy in branch:
            changed.advance()
            after.append(economy.state_hash() == changed.state_hash())

        assert before == list(world.hashes.values())
        assert after == [True] * 24

    def test_it_can_be_taken_back(self) -> None:
        """Two changes of one setting: the second holds from its tick on."""
        world = busy(3, agents=1)
        changes = (Change(BEGIN + 1, "policy_active", False), Change(BEGIN + 3, "policy_active", True))

        active = [economy.config.policy_active for _, economy in world.branch(Interventions(changes=changes))]

        assert active == [False, False, True]

    def test_sizes_and_values_out_of_bounds_are_refused(self) -> None:
        """What shapes the arrays cannot change; everything else keeps its bounds."""
        with pytest.raises(SettingError, match="name must be one of market_open_hours"):
            Interventions(changes=(Change(5, "residents", 3_000),))
        with pytest.raises(SettingError, match=r"base_inflation_rate must be a number in \[0.0, 0.5\]"):
            Interventions(changes=(Change(5, "base_inflation_rate", 2.0),))


class TestEvents:
    """Discoveries and catastrophes put in."""

    def test_an_event_strikes_at_the_end_of_its_tick_and_is_reported(self) -> None:
        """Equal before; at its tick the reserves are gone, the news is in and the tick's report tells."""
        world = busy(10, agents=2)
        strike = Injection(BEGIN + 5, CATASTROPHE_STRUCK, OIL, 0.25, NATURAL)

        lived = [
            (r.tick, e.state_hash() == world.hashes[r.tick], [x.name for x in r.events], int(e.state.reserves[0]))
            for r, e in world.branch(Interventions(injections=(strike,)))
        ]

        assert [same for _, same, _, _ in lived] == [True] * 4 + [False] * 6
        assert CATASTROPHE_STRUCK in lived[4][2]
        assert lived[4][3] < 0.76 * lived[3][3]

    def test_a_find_adds(self) -> None:
        """The other kind: reserves rise by a share of the base."""
        world = busy(4, agents=2)
        found = Injection(BEGIN + 2, RESOURCE_DISCOVERED, OIL, 0.01, NATURAL)

        forked = world.fork(Interventions(injections=(found,)))

        place = [one.name for one in forked.effects.series].index("resource.oil.reserves")
        base = world.economy.state.reserves_base[OIL - RAW_FIRST]
        assert forked.effects.difference[:2, place] == pytest.approx([0.0, 0.01 * base], rel=1e-5)


class TestCopies:
    """Pairs of worlds under seeds of their own."""

    def test_copy_zero_is_the_world_and_the_others_are_other_worlds(self) -> None:
        """Sub-seeds are all different, come from the seed alone, and 0 has the seed itself."""
        seed = bytes(range(32))

        seeds = [sub_seed(seed, k) for k in range(5)]

        assert seeds[0] == seed
        assert len(set(seeds)) == 5
        assert seeds == [sub_seed(seed, k) for k in range(5)]

    def test_copies_leave_the_first_pair_as_it_is_and_give_bands(self) -> None:
        """Original and branch are those of a fork without copies; differences vary, so the bands are open."""
        world = busy(30, agents=4)
        strike = Interventions(injections=(Injection(BEGIN + 5, CATASTROPHE_STRUCK, OIL, 0.4, NATURAL),))

        alone, with_copies = world.fork(strike, ticks=60), world.fork(strike, ticks=60, copies=4)

        assert with_copies.branch_hash == alone.branch_hash
        assert np.array_equal(with_copies.effects.branch, alone.effects.branch)
        assert np.isnan(alone.effects.band).all()
        assert not with_copies.effects.band[:4].any()
        price = [one.name for one in with_copies.effects.series].index("market.oil.price")
        assert (with_copies.effects.band[-10:, price] > 0.0).any()

    def test_no_intervention_means_no_difference_in_any_copy(self) -> None:
        """Both worlds of a pair share their seed: without a cause there is no effect, and the band is closed."""
        world = busy(20, agents=6)

        effects = world.fork(copies=3).effects

        assert not effects.difference.any()
        assert not effects.band.any()


class TestBeyondTheRecord:
    """A branch can run on after the recorded inputs end."""

    def test_it_goes_on_without_inputs(self) -> None:
        """Ticks behind the last mark are those of a world nobody acts in."""
        world = busy(10, agents=3)
        alone = copy_of(world.economy)

        forked = world.fork(ticks=15)
        for _ in range(5):
            alone.advance()

        assert (forked.recorded_to, forked.last_tick) == (BEGIN + 10, BEGIN + 15)
        assert forked.original_hash == forked.branch_hash == alone.state_hash()

    def test_it_can_stop_before(self) -> None:
        """Fewer ticks than were recorded end there."""
        world = busy(10, agents=3)

        forked = world.fork(ticks=4)

        assert forked.branch_hash == world.hashes[BEGIN + 4]

    def test_actions_behind_the_last_mark_belong_to_no_tick(self) -> None:
        """They are not applied, and numbers of additions do not collide with theirs."""
        world = busy(5, agents=3)
        world.journal.action(row=action_row(0, Kind.REGISTER))
        world.journal.actions(np.concatenate([action_row(), action_row()]), "a", "b")
        added = (Addition(BEGIN + 6, action_row(ADDED_AGENTS, Kind.REGISTER)),)

        forked = world.fork(Interventions(additions=added), ticks=7)

        assert forked.decided == {Decided(0, Status.DONE, 0): 1}

    def test_a_record_without_ticks_needs_a_number(self) -> None:
        """Nothing recorded and nothing asked for is said."""
        with pytest.raises(ValueError, match=f"the record ends at tick {BEGIN}"):
            Recorded().fork()


def test_a_survey_tells_what_a_record_holds() -> None:
    """Its ticks, who acted how often, who asked to join, and a stored hash."""
    world = busy(10, agents=3, count=2)

    found = survey(world.records(), BEGIN)

    assert (found.first_tick, found.last_tick) == (BEGIN + 1, BEGIN + 10)
    assert found.joined == {1, 2, 3}
    assert sum(found.acted.values()) == 3 + 9 * 2
    assert found.hashes == {BEGIN + 9: world.hashes[BEGIN + 9]}


#: Another value for each setting than small worlds have.
OTHER: dict[str, Any] = {
    "market_open_hours": 8, "base_inflation_rate": 0.3, "volatility_threshold": 0.02, "max_price_change": 0.02,
    "sentiment_weight": 1.5, "fear_weight": 1.5, "greed_weight": 1.5, "herding_threshold": 0.1,
    "depletion_rate": 0.05, "discovery_probability": 0.9, "catastrophe_probability": 0.5, "policy_active": False,
    "endowment_credits": 7, "actions_per_tick_max": 1, "open_orders_max": 1, "agents_per_owner_max": 1,
    "idle_ticks_max": 24, "blocked_ticks": 5,
}  # fmt: skip


def small(world: Recorded, name: str, value: Any) -> Any:
    """Return the config of a recorded world with one setting changed."""
    return type(world.config)(**world.config.as_dict() | {name: value})
