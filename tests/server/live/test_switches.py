"""Cancel on disconnect: the orders end with the last connection that asked, or with the server; and cost little."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from engine.ladder import REFERENCE_LOW
from engine.markets import ID
from engine.messages import Kind
from engine.state import NEXT_DEADLINE, ORDER_COUNT
from server.live.switches import A_TICK, RENEW_TICKS, SET_TICKS, Switches
from tests.support.live import LiveWorld, live_world, open_small


class Covered:
    """A live world with the switches of its agents held."""

    def __init__(self, arena: LiveWorld) -> None:
        self.arena = arena
        self.state = arena.world.economy.state
        self.switches = Switches(arena.recorder, self.state, arena.metrics)
        arena.recorder.followers.append(self.switches.accepted)

    async def tick(self, count: int = 1) -> None:
        """Run ticks, each published to the switches as well."""
        for _ in range(count):
            self.switches.publish((await self.arena.tick()).tick)

    def pass_by(self, ticks: int) -> None:
        """Let the switches believe that so many ticks have passed."""
        self.switches.publish(self.switches._tick + ticks)

    def rest(self, agent: int, name: str) -> None:
        """Place an order far from the market."""
        self.arena.act(agent, name, Kind.LIMIT, market=ID["food"], side=1, quantity=1, level=REFERENCE_LOW)

    def fill(self, agent: int) -> None:
        """Leave no room for another action in this tick."""
        for i in range(self.arena.world.queue.room):
            self.arena.act(agent, f"m-{i}", Kind.SET_SENTIMENT)

    def journaled(self, kind: Kind) -> int:
        """Return how many of the actions that wait are of a kind."""
        queue = self.arena.world.queue
        return int(np.count_nonzero(queue._filling[: len(queue)]["kind"] == kind))

    @property
    def orders(self) -> int:
        """Orders that stand in the world."""
        return int(self.state.counters[ORDER_COUNT])


async def test_an_order_is_covered_with_its_own_record(tmp_path: Path) -> None:
    """The switch is journaled right behind the order; further orders in time bring no further record."""
    async with live_world(tmp_path) as arena:
        covered = Covered(arena)
        agent = (await arena.register()).agent
        covered.switches.hold(agent)
        await covered.tick(2)
        assert covered.journaled(Kind.CANCEL_AFTER) == 0

        covered.rest(agent, "a")
        covered.rest(agent, "b")

        assert covered.journaled(Kind.CANCEL_AFTER) == 1
        await covered.tick()
        deadline = int(covered.state.agent_deadline[0])
        assert deadline == covered.switches._tick + SET_TICKS


async def test_orders_of_a_batch_are_covered_like_others(tmp_path: Path) -> None:
    """One switch for each agent, behind the batch; whose owner sets the switch in a batch is left alone."""
    async with live_world(tmp_path) as arena:
        covered = Covered(arena)
        agent = (await arena.register()).agent
        second = (await arena.register("second", owner=agent)).agent
        stranger = (await arena.register("stranger")).agent
        covered.switches.hold(agent)
        await covered.tick()
        far = {"market": ID["food"], "side": 1, "quantity": 1, "level": REFERENCE_LOW}
        arena.act_batch(second, "mine", "mine-too", kind=Kind.CANCEL_AFTER, quantity=7)
        set_by_us = covered.journaled(Kind.CANCEL_AFTER) - 2

        for one in (agent, second, stranger):
            arena.act_batch(one, "a", "b", **far)
        journaled = covered.journaled(Kind.CANCEL_AFTER) - 2 - set_by_us
        await covered.tick()

        assert (set_by_us, journaled, covered.orders) == (0, 1, 6)
        tick = covered.switches._tick
        assert covered.state.agent_deadline[:3].tolist() == [tick + SET_TICKS, tick + 7, 0]


async def test_what_stood_before_is_covered_from_the_next_tick_on(tmp_path: Path) -> None:
    """An agent without orders is not."""
    async with live_world(tmp_path) as arena:
        covered = Covered(arena)
        agent = (await arena.register()).agent
        other = (await arena.register("other", owner=agent)).agent
        covered.rest(agent, "a")
        await covered.tick()

        covered.switches.hold(agent)
        await covered.tick(2)

        assert covered.state.agent_deadline[:2].tolist() == [covered.switches._tick + SET_TICKS, 0]
        assert other != agent


async def test_a_switch_is_set_again_while_there_are_orders(tmp_path: Path) -> None:
    """One record in RENEW_TICKS, in one chain however often connections come and go; none without orders."""
    async with live_world(tmp_path) as arena:
        covered = Covered(arena)
        agent = (await arena.register()).agent
        covered.switches.hold(agent)
        covered.switches.hold(agent)
        covered.rest(agent, "a")
        await covered.tick()
        for _ in range(5):
            covered.switches.release(agent, is_stopping=False)
            covered.switches.hold(agent)

        for _ in range(3):
            covered.pass_by(covered.switches._next[agent] - covered.switches._tick - 1)
            assert covered.journaled(Kind.CANCEL_AFTER) == 0
            covered.pass_by(1)
            assert covered.switches._next[agent] - covered.switches._tick == RENEW_TICKS
            assert covered.journaled(Kind.CANCEL_AFTER) == 1
            await arena.tick()
        arena.act(agent, "end", Kind.CANCEL_ALL)
        await arena.tick()
        covered.pass_by(3 * SET_TICKS)

        assert covered.journaled(Kind.CANCEL_AFTER) == 0


async def test_the_end_of_the_last_connection_cancels_everything(tmp_path: Path) -> None:
    """Of all agents of the owner; the switches are taken back, so that later orders stand."""
    async with live_world(tmp_path) as arena:
        covered = Covered(arena)
        agent = (await arena.register()).agent
        second = (await arena.register("second", owner=agent)).agent
        covered.switches.hold(agent)
        covered.switches.hold(agent)
        covered.rest(agent, "a")
        covered.rest(second, "b")
        await covered.tick()

        covered.switches.release(agent, is_stopping=False)
        await covered.tick()
        assert covered.orders == 2
        covered.switches.release(agent, is_stopping=False)
        await covered.tick()

        assert covered.orders == 0
        assert not covered.state.agent_deadline.any()
        covered.rest(agent, "later")
        await covered.tick(2)
        assert (covered.orders, covered.journaled(Kind.CANCEL_AFTER)) == (1, 0)


async def test_a_server_that_stops_cancels_nothing(tmp_path: Path) -> None:
    """The switch stays set in the world, and fires in time when nobody comes back."""
    async with live_world(tmp_path) as arena:
        covered = Covered(arena)
        agent = (await arena.register()).agent
        covered.switches.hold(agent)
        covered.rest(agent, "a")
        await covered.tick()

        covered.switches.release(agent, is_stopping=True)
        await covered.tick()

        assert covered.orders == 1
    world = open_small(tmp_path)
    try:
        state = world.economy.state
        assert int(state.agent_deadline[0]) == int(state.counters[NEXT_DEADLINE]) > world.economy.tick
    finally:
        world.lock.release()


async def test_who_sets_the_switch_by_itself_is_left_alone(tmp_path: Path) -> None:
    """The server does not overrule what the agent asked for, until the connection ends."""
    async with live_world(tmp_path) as arena:
        covered = Covered(arena)
        agent = (await arena.register()).agent
        covered.switches.hold(agent)
        arena.act(agent, "mine", Kind.CANCEL_AFTER, quantity=5)
        covered.rest(agent, "a")
        await covered.tick()
        assert int(covered.state.agent_deadline[0]) == covered.switches._tick + 5

        covered.switches.release(agent, is_stopping=False)
        await covered.tick()

        assert covered.orders == 0


async def test_who_takes_the_switch_back_is_covered_again(tmp_path: Path) -> None:
    """With ticks of 0 the owner leaves it to the server, from the next tick on."""
    async with live_world(tmp_path) as arena:
        covered = Covered(arena)
        agent = (await arena.register()).agent
        covered.switches.hold(agent)
        arena.act(agent, "mine", Kind.CANCEL_AFTER, quantity=5)
        covered.rest(agent, "a")
        await covered.tick()

        arena.act(agent, "no-more", Kind.CANCEL_AFTER, quantity=0)
        await covered.tick(2)

        assert int(covered.state.agent_deadline[0]) == covered.switches._tick + SET_TICKS


async def test_who_takes_back_a_switch_it_never_set_stays_covered(tmp_path: Path) -> None:
    """The server's own switch was taken back with it, and is set again."""
    async with live_world(tmp_path) as arena:
        covered = Covered(arena)
        agent = (await arena.register()).agent
        covered.switches.hold(agent)
        covered.rest(agent, "a")
        await covered.tick()

        arena.act(agent, "just-in-case", Kind.CANCEL_AFTER, quantity=0)
        await covered.tick(2)

        assert int(covered.state.agent_deadline[0]) == covered.switches._tick + SET_TICKS


async def test_what_an_owner_does_before_it_asks_says_nothing_of_later(tmp_path: Path) -> None:
    """A switch set while only somebody else had asked leaves no trace: later orders are covered."""
    async with live_world(tmp_path) as arena:
        covered = Covered(arena)
        somebody = (await arena.register()).agent
        agent = (await arena.register("later")).agent
        covered.switches.hold(somebody)
        arena.act(agent, "mine", Kind.CANCEL_AFTER, quantity=5)
        await covered.tick()

        covered.switches.hold(agent)
        covered.rest(agent, "a")
        await covered.tick()

        assert int(covered.state.agent_deadline[1]) == covered.switches._tick + SET_TICKS


async def test_who_comes_back_before_all_was_cancelled_has_new_orders_covered(tmp_path: Path) -> None:
    """The cancelling that was put off comes first, and does not take back the switch of what is ordered since."""
    async with live_world(tmp_path, queue_actions_max=16) as arena:
        covered = Covered(arena)
        agent = (await arena.register()).agent
        covered.switches.hold(agent)
        covered.rest(agent, "old")
        await covered.tick()
        covered.fill(agent)
        covered.switches.release(agent, is_stopping=False)
        assert covered.journaled(Kind.CANCEL_ALL) == 0

        await arena.tick()
        covered.switches.hold(agent)
        covered.rest(agent, "new")
        await covered.tick(2)

        assert covered.orders == 1
        assert int(covered.state.agent_deadline[0]) > covered.switches._tick


async def test_who_comes_back_is_cancelled_before_a_crowd_that_went(tmp_path: Path) -> None:
    """Its own cancelling goes ahead of all that waits, so that it does not end new orders."""
    async with live_world(tmp_path, queue_actions_max=16) as arena:
        covered = Covered(arena)
        agent = (await arena.register()).agent
        other = (await arena.register("other")).agent
        for one in (agent, other):
            covered.switches.hold(one)
        covered.rest(agent, "old")
        await covered.tick()
        covered.fill(agent)
        agents_of = covered.switches._registry.agents_of
        covered.switches._registry.agents_of = lambda owner: [other] * 2 * A_TICK  # type: ignore[method-assign]
        covered.switches.release(other, is_stopping=False)
        covered.switches._registry.agents_of = agents_of  # type: ignore[method-assign]
        covered.switches.release(agent, is_stopping=False)

        await arena.tick()
        covered.switches.hold(agent)
        covered.rest(agent, "new")
        await covered.tick(2)

        assert covered.orders == 1


async def test_who_comes_back_and_goes_again_has_no_switch_left(tmp_path: Path) -> None:
    """What was not taken back the first time is the second time: later orders stand."""
    async with live_world(tmp_path, queue_actions_max=16) as arena:
        covered = Covered(arena)
        agent = (await arena.register()).agent
        covered.switches.hold(agent)
        covered.rest(agent, "old")
        await covered.tick()
        arena.act(agent, "no-more", Kind.CANCEL_ALL)
        await covered.tick()
        assert int(covered.state.agent_deadline[0]) > 0
        covered.fill(agent)
        covered.switches.release(agent, is_stopping=False)
        covered.switches.hold(agent)
        await covered.tick()

        covered.switches.release(agent, is_stopping=False)
        await covered.tick(2)

        assert (covered.orders, int(covered.state.agent_deadline[0])) == (0, 0)


async def test_a_full_queue_only_puts_it_off(tmp_path: Path) -> None:
    """What found no room is journaled in the next tick; it is counted."""
    async with live_world(tmp_path, queue_actions_max=16) as arena:
        covered = Covered(arena)
        agent = (await arena.register()).agent
        await covered.tick()
        for i in range(15):
            arena.act(agent, f"m-{i}", Kind.SET_SENTIMENT)
        covered.switches.hold(agent)
        covered.rest(agent, "a")
        assert covered.journaled(Kind.CANCEL_AFTER) == 0
        await covered.tick()
        assert covered.journaled(Kind.CANCEL_AFTER) == 1

        covered.switches.release(agent, is_stopping=False)
        await covered.tick(3)

        assert covered.orders == 0
        assert b'arena_switches_total{what="put_off"}' in (await arena.metrics.expose(None))[0]


async def test_a_crowd_is_worked_off_over_several_ticks(tmp_path: Path) -> None:
    """At most so many actions a tick are this part's own."""
    async with live_world(tmp_path) as arena:
        covered = Covered(arena)
        agent = (await arena.register()).agent
        covered.switches._registry.agents_of = lambda owner: [agent] * 2 * A_TICK  # type: ignore[method-assign]
        covered.switches.hold(agent)

        covered.switches.release(agent, is_stopping=False)

        assert covered.journaled(Kind.CANCEL_ALL) == A_TICK
        await covered.tick()
        assert covered.journaled(Kind.CANCEL_ALL) == A_TICK
