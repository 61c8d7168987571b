"""Phase 1 on whole states: halts, closed hours, the order of settlement, threads, declared writes."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.auction import ASSETS
from engine.ladder import LEVELS, prices, window
from engine.markets import CONSOL, HOURS, ID, MARKETS, OIL
from engine.messages import Status
from engine.phases.prices import HALT_TICKS, WRITES, step
from engine.state import ORDER_COUNT, TREASURY, array_fields
from tests.support.naive_auction import Order, clear
from tests.support.trading_floor import LEVEL, Floor
from tests.support.worlds import in_threads

P = prices()
DOWN, UP = window(0.5)
ENERGY = ID["energy"]


def first_trader(floor: Floor, market: int) -> int:
    """Return the id of the first trader of a market."""
    layout = floor.state.layout
    blocks = np.flatnonzero((layout.block_type == 3) & (layout.block_home == market))
    return int(layout.block_start[blocks[0]])


def cross(floor: Floor, market: int, level: int) -> None:
    """Let two residents trade one lot of a market at a level in the next auction."""
    floor.clear_residents()
    i = first_trader(floor, market)
    floor.stand(i, level, 1)
    floor.stand(i + 1, level, -1)


class TestHalts:
    """ECONOMY A6.6."""

    @pytest.mark.parametrize("move", [UP, -DOWN])
    def test_a_move_to_the_window_edge_halts_for_a_day(self, move: int) -> None:
        """The trade itself stands; for 24 ticks nothing clears, then the market resumes."""
        floor = Floor()
        cross(floor, OIL, LEVEL + move)

        floor.tick()
        assert floor.state.level[OIL] == LEVEL + move
        assert floor.state.cleared_volume[OIL] == 1
        begun = floor.state.tick
        assert [(e.name, e.data["market"], e.data["until"]) for e in floor.state.events] == [
            ("market_halted", "oil", begun + 1 + HALT_TICKS)
        ]
        for _ in range(HALT_TICKS):
            cross(floor, OIL, LEVEL + move)
            floor.tick()
            assert floor.state.cleared_volume[OIL] == 0
            assert floor.state.level[OIL] == LEVEL + move
            assert floor.resident_fills()[0] == [0] * floor.state.layout.residents
        cross(floor, OIL, LEVEL + move)
        floor.tick()

        assert [e.name for e in floor.state.events] == ["market_resumed"]
        assert floor.state.cleared_volume[OIL] == 1
        assert floor.state.halt_until[OIL] == 0

    def test_one_level_less_does_not_halt(self) -> None:
        """Only the edge itself does."""
        floor = Floor()
        cross(floor, OIL, LEVEL + UP - 1)

        floor.tick()

        assert floor.state.halt_until[OIL] == 0
        assert floor.state.market_return[OIL] == UP - 1

    def test_a_day_that_goes_further_than_the_window_halts(self) -> None:
        """Three moves of 1 500 levels within 24 ticks are more than 4 054 up."""
        floor = Floor()
        for part in (1, 2):
            cross(floor, OIL, LEVEL + 1_500 * part)
            floor.tick()
            assert floor.state.halt_until[OIL] == 0
        cross(floor, OIL, LEVEL + 4_500)

        floor.tick()

        assert floor.state.halt_until[OIL] == floor.state.tick + 1 + HALT_TICKS

    def test_the_same_way_over_more_than_a_day_does_not(self) -> None:
        """The ring forgets what is 24 ticks old."""
        floor = Floor()
        for part in (1, 2, 3):
            for _ in range(12):
                floor.clear_residents()
                floor.tick()
            cross(floor, OIL, LEVEL + 1_500 * part)
            floor.tick()

        assert floor.state.level[OIL] == LEVEL + 4_500
        assert floor.state.halt_until[OIL] == 0

    def test_outside_orders_rest_in_a_halt_and_trade_after_it(self) -> None:
        """They stay in the book with their escrow, and keep their age."""
        floor = Floor()
        buyer, seller = floor.join(2)
        floor.give(seller, OIL, 5)
        floor.state.halt_until[OIL] = floor.state.tick + 3

        outcomes = floor.tick(floor.limit(buyer, OIL, 1, 2), floor.limit(seller, OIL, -1, 2))
        assert outcomes["status"].tolist() == [Status.RESTING] * 2
        floor.tick()
        assert floor.state.counters[ORDER_COUNT] == 2
        floor.tick()

        assert floor.state.updates["filled"].tolist() == [2, 2]
        assert floor.state.counters[ORDER_COUNT] == 0


def test_asset_markets_close_outside_the_open_hours() -> None:
    """With 6 open hours assets clear in hours 0..5 only; goods always do."""
    floor = Floor(market_open_hours=6)

    for hour in range(HOURS):
        floor.clear_residents()
        for market in (OIL, CONSOL):
            i = first_trader(floor, market)
            floor.stand(i, LEVEL, 1)
            floor.stand(i + 1, LEVEL, -1)
        producer = int(np.flatnonzero(floor.state.layout.segment_market == ENERGY)[0])
        seller = int(floor.state.layout.segment_start[producer])
        floor.stand(seller, LEVEL, -1, offer=True)
        floor.tick()
        assert floor.state.cleared_volume[[OIL, CONSOL]].tolist() == ([1, 1] if hour < 6 else [0, 0])
        assert floor.state.asks_total[ENERGY] == 1
    assert OIL in ASSETS


def test_new_prices_are_the_clearing_prices_and_enter_the_ring() -> None:
    """level, price, market_return and the ring's row of the tick agree."""
    floor = Floor(tick=30)
    cross(floor, CONSOL, LEVEL - 77)

    floor.tick()

    state = floor.state
    assert state.level[CONSOL] == LEVEL - 77
    assert state.price[CONSOL] == P[LEVEL - 77]
    assert state.market_return[CONSOL] == state.returns[30 % HOURS, CONSOL] == -77
    untouched = [m for m in range(MARKETS) if m != CONSOL]
    assert (state.margin_level[0, untouched] == LEVELS).all()
    assert (state.margin_level[1, untouched] == -1).all()


SIDE = st.sampled_from([-1, 1])


@settings(max_examples=60)
@given(data=st.data())
def test_a_good_is_shared_in_the_order_of_the_rules(data: st.DataObject) -> None:
    """New outside orders, then first orders by block (households, firms), then offers by segment: as the naive one."""
    floor = Floor(max_agents=8)
    state, layout = floor.state, floor.state.layout
    agents = floor.join(4)
    tick = state.tick + 1
    blocks = np.flatnonzero(layout.markets_at(tick) == ENERGY)
    segment = int(np.flatnonzero(layout.segment_market == ENERGY)[0])
    for agent in agents:
        floor.give(agent, ENERGY, 100)
        state.agent_cash[floor.slot(agent)] += 10**12
        state.ledger[TREASURY] -= 10**12
    outside = [(data.draw(SIDE), data.draw(st.integers(-2, 2)), data.draw(st.integers(1, 9))) for _ in agents]
    residents = {
        data.draw(st.integers(int(layout.block_start[b]), int(layout.block_end[b]) - 1)): (
            data.draw(SIDE),
            data.draw(st.integers(1, 9)),
        )
        for b in blocks
    }
    sellers = sorted(data.draw(st.sets(st.integers(0, 8), max_size=4)))
    offers = {int(layout.segment_start[segment]) + k: data.draw(st.integers(1, 9)) for k in sellers}
    levels = {i: LEVEL + data.draw(st.integers(-2, 2)) for i in residents | offers}
    for i, (side, lots) in residents.items():
        floor.stand(i, levels[i], side * lots)
    for i, lots in offers.items():
        floor.stand(i, levels[i], -lots, offer=True)

    outcomes = floor.tick(
        *(floor.limit(a, ENERGY, s, q, LEVEL + d) for a, (s, d, q) in zip(agents, outside, strict=True))
    )

    twin = [Order(s, LEVEL + d, q) for s, d, q in outside]
    twin += [Order(side, levels[i], lots) for i, (side, lots) in sorted(residents.items())]
    twin += [Order(-1, levels[i], lots) for i, lots in offers.items()]
    naive = clear(twin, LEVEL, DOWN, UP)
    first, offered = floor.resident_fills()
    fills = outcomes["filled"].tolist() + [abs(first[i]) for i in sorted(residents)]
    # an offer above a firm's own purchase may belong to the same firm: two orders, two fills
    fills += [-offered[i - layout.producer_first] for i in offers]
    assert state.cleared_volume[ENERGY] == naive.volume
    assert fills == [order.fill for order in twin]


def laid_out(threads: int) -> tuple[list[Any], ...]:
    """Return margins and prefixes of one busy auction, its histogram filled by so many threads."""
    floor = Floor(threads)
    floor.state.parallel = in_threads(threads)
    random = np.random.default_rng(4)
    floor.tick()
    for i in range(floor.state.layout.residents):
        lots = int(random.integers(-9, 10))
        floor.stand(i, LEVEL + int(random.integers(-3, 4)), lots, thread=i % threads)
    floor.tick()
    state = floor.state
    return (
        state.level.tolist(), state.margin_ration.tolist(), state.margin_total.tolist(),
        state.block_before.tolist(), state.segment_before.tolist(),
    )  # fmt: skip


def test_threads_change_nothing() -> None:
    """Histograms dealt to three threads and blocks summed in three ranges give the same margins."""
    assert laid_out(3) == laid_out(1)


def test_only_declared_arrays_change() -> None:
    """WRITES of the phase is complete."""
    floor = Floor()
    one, two = floor.join(2)
    floor.give(one, CONSOL, 9)
    floor.state.income_per_lot[CONSOL] = 5
    floor.state.estate[OIL] = 64
    before = {item.name: getattr(floor.state, item.name).copy() for item in array_fields()}
    cross(floor, OIL, LEVEL - 60)
    floor.intake(floor.limit(one, CONSOL, -1, 3), floor.limit(two, CONSOL, 1, 2), floor.limit(two, OIL, 1, 3))
    between = {name: getattr(floor.state, name).copy() for name in before}

    step(floor.state, floor.config)

    changed = {name for name, array in between.items() if not np.array_equal(array, getattr(floor.state, name))}
    assert changed <= set(WRITES)
    assert {"agent_cash", "agent_holdings", "estate", "order_qty"} <= changed
