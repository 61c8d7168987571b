"""The auction: one price that trades the most, exact margins, and measures that are document 004's formulas."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.auction import (
    ASSETS,
    CHUNKS,
    INDICATIVE_LIMIT,
    Auction,
    auction_of,
    clear_markets,
    consumer_surplus,
    equilibrium_price,
    kyle_lambda,
    marginal_lots,
    marginal_offers,
    open_markets,
    prefix_margins,
    price_change,
    price_elasticity,
    producer_surplus,
    remember,
)
from engine.config import Config
from engine.ladder import LEVELS, REFERENCE_HIGH, REFERENCE_LOW, prices, window
from engine.markets import CONSOL, LABOUR, MARKETS, OIL
from engine.state import BOOK_LEVELS, CENTRE, SLOTS, new_state
from tests.support.naive_auction import Order, clear, counted_level

DOWN, UP = window(0.5)
P = prices()
REFERENCE = 76_013


def one_market(reference: int = REFERENCE, threads: int = 1, book: int = 0) -> Auction:
    """Return the arrays of a single market at a reference level, elasticity .2; book: levels to note."""

    def ints(*shape: int) -> np.ndarray:
        return np.zeros(shape, np.int64)

    auction = Auction(
        histogram=ints(threads, 1, 2, SLOTS), touched=ints(threads, 1, 2), ladder=P, level=ints(1) + reference,
        price=ints(1) + P[reference], elasticity=np.full(1, 0.2), kyle_xy=np.zeros(1), kyle_xx=np.zeros(1),
        variance=np.zeros(1), volume=ints(1), margin_level=ints(2, 1), margin_ration=ints(2, 1),
        margin_total=ints(2, 1), market_return=ints(1), demand=ints(1), supply=ints(1), bids_total=ints(1),
        asks_total=ints(1), imbalance=ints(1), indicative=ints(1), elasticity_demand=np.zeros(1),
        elasticity_supply=np.zeros(1), surplus=np.zeros((2, 1)), best_bid=ints(1), best_ask=ints(1),
        depth=ints(2, 1), book_wanted=ints(1) + book, book_level=ints(2, 1, BOOK_LEVELS),
        book_lots=ints(2, 1, BOOK_LEVELS),
    )  # fmt: skip
    auction.touched[...] = SLOTS, -1
    return auction


def put(auction: Auction, orders: list[Order], threads: int = 1) -> None:
    """Add orders to the histograms, dealt to the threads in turn."""
    reference = int(auction.level[0])
    for i, order in enumerate(orders):
        level = counted_level(order, reference, DOWN, UP)
        if level is not None:
            slot, touched = level - reference + CENTRE, auction.touched[i % threads, 0]
            auction.histogram[i % threads, 0, 0 if order.side > 0 else 1, slot] += order.lots
            touched[0], touched[1] = min(touched[0], slot), max(touched[1], slot)


def run(auction: Auction, is_open: np.ndarray, down: int = DOWN, up: int = UP, limit: float = INDICATIVE_LIMIT) -> None:
    """Clear a market that has only what is in its touched range."""
    clear_markets(auction, is_open, np.zeros((1, 2, CHUNKS), np.int64), np.array([[SLOTS, -1]]), down, up, limit)


def cleared(orders: list[Order], reference: int = REFERENCE, threads: int = 1, book: int = 0) -> Auction:
    """Return a market after the auction of these orders."""
    auction = one_market(reference, threads, book)
    put(auction, orders, threads)
    run(auction, np.ones(1, np.bool_))
    return auction


def around(level: int) -> list[Order]:
    """Return a book that is one lot short of sellers at a level and one lot short of buyers at the next."""
    return [Order(1, level, 1), Order(1, level + 1, 2), Order(-1, level, 2), Order(-1, level + 1, 1)]


NEAR = st.integers(-200, 200)
ANYWHERE = st.one_of(
    NEAR, st.integers(-7_500, 4_500), st.sampled_from([-DOWN - 1, -DOWN, -DOWN + 1, UP - 1, UP, UP + 1])
)
LOTS = st.one_of(st.integers(1, 20), st.integers(1, 10**9))


def books(reference: int = REFERENCE, offsets: st.SearchStrategy[int] = ANYWHERE) -> st.SearchStrategy[list[Order]]:
    """Return a strategy of random books around a reference level."""
    order = st.builds(
        lambda side, offset, lots: Order(side, min(LEVELS - 1, max(0, reference + offset)), lots),
        st.sampled_from([-1, 1]), offsets, LOTS,
    )  # fmt: skip
    return st.lists(order, max_size=14)


@given(books(), st.integers(1, 3))
def test_the_auction_is_the_naive_one(orders: list[Order], threads: int) -> None:
    """Price, volume, margins, demand and supply are those of trying every price, for any number of threads."""
    naive = clear(orders, REFERENCE, DOWN, UP)

    auction = cleared(orders, threads=threads)

    assert auction.volume[0] == naive.volume
    if naive.volume:
        assert auction.level[0] == naive.level
        for side in range(2):
            found = auction.margin_level[side, 0], auction.margin_ration[side, 0], auction.margin_total[side, 0]
            assert found == naive.margins[side]
    assert (auction.demand[0], auction.supply[0]) == (naive.demand, naive.supply)
    assert auction.imbalance[0] == naive.demand - naive.supply


@given(books(offsets=st.integers(-9, 9)))
def test_no_price_trades_more(orders: list[Order]) -> None:
    """p* is maximal: brute force over every price finds no larger volume (ECONOMY A14.12)."""
    auction = cleared(orders)

    for k in range(REFERENCE - 10, REFERENCE + 11):
        demand = sum(o.lots for o in orders if o.side > 0 and o.level >= k)
        supply = sum(o.lots for o in orders if o.side < 0 and o.level <= k)
        assert min(demand, supply) <= auction.volume[0]


@pytest.mark.parametrize("reference", [REFERENCE_LOW, REFERENCE_LOW + 5, REFERENCE_HIGH - 5, REFERENCE_HIGH])
@given(data=st.data())
def test_the_reference_level_never_leaves_its_range(reference: int, data: st.DataObject) -> None:
    """At the ends of the ladder the best price inside the range is taken, as the naive auction does."""
    orders = data.draw(books(reference))

    auction = cleared(orders, reference)

    naive = clear(orders, reference, DOWN, UP)
    assert REFERENCE_LOW <= auction.level[0] <= REFERENCE_HIGH
    assert auction.volume[0] == naive.volume
    if naive.volume:
        assert auction.level[0] == naive.level
        assert auction.margin_level[:, 0].tolist() == [naive.margins[0][0], naive.margins[1][0]]


@given(books())
def test_histograms_are_empty_afterwards(orders: list[Order]) -> None:
    """The next tick's orders meet zeros and an untouched range, in every thread."""
    auction = cleared(orders, threads=2)

    assert not auction.histogram.any()
    assert auction.touched.tolist() == [[[SLOTS, -1]], [[SLOTS, -1]]]


@pytest.mark.parametrize(
    ("orders", "expected"),
    [
        ([Order(1, REFERENCE + 9, 5), Order(-1, REFERENCE - 9, 5)], REFERENCE),
        ([Order(1, REFERENCE - 2, 5), Order(-1, REFERENCE - 9, 5)], REFERENCE - 2),
        ([Order(1, REFERENCE + 9, 5), Order(-1, REFERENCE + 3, 5)], REFERENCE + 3),
        # five of the ten bids trade at any of +1..+4
        ([Order(1, REFERENCE + 4, 10), Order(-1, REFERENCE + 1, 5)], REFERENCE + 1),
        # up to the reference ten are bid for five, above it five: the smaller imbalance wins over closeness
        ([Order(1, REFERENCE + 6, 5), Order(1, REFERENCE, 5), Order(-1, REFERENCE - 3, 5)], REFERENCE + 1),
        # 3 against 2 at one level, 2 against 3 at the next: equal volume and imbalance, the closer one wins
        (around(REFERENCE + 3), REFERENCE + 3),
        (around(REFERENCE - 4), REFERENCE - 3),
    ],
)
def test_ties(orders: list[Order], expected: int) -> None:
    """Equal volume: the smallest imbalance, then the level closest to the reference, then the lower one."""
    assert cleared(orders).level[0] == expected
    assert clear(orders, REFERENCE, DOWN, UP).level == expected


@given(books())
def test_both_sides_trade_the_volume(orders: list[Order]) -> None:
    """Filled lots, whole ones better than the margin and the ration at it, are V on both sides (A14.6, 7)."""
    auction = cleared(orders)

    for s, side in enumerate((1, -1)):
        margin = int(auction.margin_level[s, 0])
        counted = [(counted_level(o, REFERENCE, DOWN, UP), o.lots) for o in orders if o.side == side]
        better = sum(lots for level, lots in counted if level is not None and side * (level - margin) > 0)
        assert better + auction.margin_ration[s, 0] == auction.volume[0]


@given(books())
def test_measures_are_those_of_the_curves(orders: list[Order]) -> None:
    """Surplus, best unfilled orders, depth and elasticities equal sums over the orders."""
    auction = cleared(orders)

    naive = clear(orders, REFERENCE, DOWN, UP)
    rows = [(o, level) for o, level in zip(orders, naive.counted, strict=True) if level is not None]
    price = int(P[int(auction.level[0])])
    for s, side in enumerate((1, -1)):
        gain = sum(side * (int(P[level]) - price) * o.fill for o, level in rows if o.side == side)
        assert auction.surplus[s, 0] == pytest.approx(gain, rel=1e-12, abs=0)
        left = {}
        for o, level in rows:
            if o.side == side and o.lots > o.fill:
                left[level] = left.get(level, 0) + o.lots - o.fill
        best = side * max((side * level for level in left), default=-side)
        assert (auction.best_bid, auction.best_ask)[s][0] == best
        assert auction.depth[s, 0] == sum(lots for level, lots in left.items() if abs(level - best) <= 100)

    def total(side: int, level: int) -> int:
        return sum(o.lots for o, k in rows if o.side == side and side * (k - level) >= 0)

    bought = [total(1, REFERENCE + step) for step in (-50, 50)]
    sold = [total(-1, REFERENCE + step) for step in (-50, 50)]
    e_d = 100 * (bought[0] - bought[1]) / ((bought[0] + bought[1]) / 2 + 1)
    e_s = 100 * (sold[1] - sold[0]) / ((sold[0] + sold[1]) / 2 + 1)
    assert auction.elasticity_demand[0] == pytest.approx(e_d)
    assert auction.elasticity_supply[0] == pytest.approx(e_s)
    if rows:
        assert auction.elasticity[0] == pytest.approx(0.2 + (1 / max(2, e_d + e_s) - 0.2) / 20)
        assert auction.bids_total[0] == sum(o.lots for o, _ in rows if o.side > 0)
        assert auction.asks_total[0] == sum(o.lots for o, _ in rows if o.side < 0)


@given(books(), st.sampled_from([1, 3, BOOK_LEVELS]))
def test_the_noted_book_is_what_the_auction_left(orders: list[Order], wanted: int) -> None:
    """Unfilled lots by level, best first, as many levels as asked for; what an earlier auction left is gone."""
    auction = cleared(orders, book=wanted)

    naive = clear(orders, REFERENCE, DOWN, UP)
    for s, side in enumerate((1, -1)):
        left: dict[int, int] = {}
        for order, level in zip(orders, naive.counted, strict=True):
            if level is not None and order.side == side and order.lots > order.fill:
                left[level] = left.get(level, 0) + order.lots - order.fill
        expected = sorted(left.items(), reverse=side > 0)[:wanted]
        noted = zip(auction.book_level[s, 0].tolist(), auction.book_lots[s, 0].tolist(), strict=True)
        assert [row for row in noted if row[1]] == expected
    run(auction, np.zeros(1, np.bool_))
    assert not auction.book_lots.any()


def test_without_any_order_nothing_changes() -> None:
    """Reference, elasticity and price stay; nobody is at a margin."""
    auction = cleared([])

    assert auction.level[0] == REFERENCE
    assert auction.elasticity[0] == 0.2
    assert auction.indicative[0] == P[REFERENCE]
    assert (auction.best_bid[0], auction.best_ask[0]) == (-1, -1)
    assert auction.margin_level[:, 0].tolist() == [LEVELS, -1]


@pytest.mark.parametrize(("side", "move"), [(1, 200), (-1, -18)])
def test_without_trade_the_reference_moves_toward_the_indicative_price(side: int, move: int) -> None:
    """Only buyers (sellers): int(10^4 x change), the change cut to 2 %: 0.2 x (10/1 - 1) and 0.2 x (1/1.1 - 1)."""
    lots = 9 if side > 0 else 10
    auction = one_market()
    put(auction, [Order(side, REFERENCE, lots)])
    if side < 0:
        auction.elasticity[0] = 0.002

    run(auction, np.ones(1, np.bool_))

    assert auction.volume[0] == 0
    assert auction.level[0] - REFERENCE == auction.market_return[0] == move
    assert auction.price[0] == P[REFERENCE + move]


@pytest.mark.parametrize(("side", "most"), [(1, 99), (-1, -100)])
def test_without_trade_the_reference_stays_in_the_window(side: int, most: int) -> None:
    """A maxPriceChange of 1 % holds for this move too, and for the indicative price."""
    down, up = window(0.01)
    auction = one_market()
    put(auction, [Order(side, REFERENCE, 1_000)])
    auction.elasticity[0] = 1.0

    run(auction, np.ones(1, np.bool_), down, up, 0.01)

    assert auction.market_return[0] == most
    assert abs(auction.price[0] / P[REFERENCE] - 1.0) <= 0.01
    assert abs(auction.indicative[0] - P[REFERENCE]) <= 0.01 * P[REFERENCE] + 1


def test_a_closed_market_keeps_its_reference_and_loses_its_orders() -> None:
    """Residents' orders of a closed market lapse: no trade, no margin, an empty histogram."""
    auction = one_market()
    put(auction, [Order(1, REFERENCE + 5, 3), Order(-1, REFERENCE, 3)])

    run(auction, np.zeros(1, np.bool_))

    assert auction.volume[0] == auction.market_return[0] == 0
    assert auction.margin_level[:, 0].tolist() == [LEVELS, -1]
    assert not auction.histogram.any()


def test_quantities_at_the_edge_of_int64_stay_exact() -> None:
    """A million orders of 10^9 lots a side at the dearest price: volume and margins exact, surplus in float64."""
    lots = 10**15
    orders = [Order(1, REFERENCE_HIGH, lots), Order(-1, REFERENCE_HIGH - DOWN, lots + 1)]

    auction = cleared(orders, REFERENCE_HIGH)

    naive = clear(orders, REFERENCE_HIGH, DOWN, UP)
    assert auction.volume[0] == lots
    assert auction.margin_ration[:, 0].tolist() == [lots, lots]
    gain = (int(P[naive.level]) - int(P[REFERENCE_HIGH - DOWN])) * lots
    assert gain > 2**63
    assert auction.surplus[:, 0].sum() == pytest.approx(
        gain + (int(P[REFERENCE_HIGH]) - int(P[naive.level])) * lots, rel=1e-12
    )


def test_equilibrium_price_is_the_formula_of_the_specification() -> None:
    """Equilibrium Price = Current Price x (1 + Elasticity x (Demand/Supply - 1))."""
    assert equilibrium_price(100.0, 0.2, 110.0, 100.0, 0.5) == pytest.approx(102.0)
    assert equilibrium_price(100.0, 0.2, 90.0, 100.0, 0.5) == pytest.approx(98.0)
    assert equilibrium_price(100.0, 0.7, 55.0, 55.0, 0.5) == 100.0


def test_the_change_is_cut_at_the_largest_price_change() -> None:
    """maxPriceChange bounds the step in both directions."""
    assert equilibrium_price(100.0, 1.0, 1_000.0, 1.0, 0.5) == 150.0
    assert equilibrium_price(100.0, 1.0, 1.0, 1_000.0, 0.5) == 50.0
    assert price_change(0.2, 3.0, 1.0, 0.02) == 0.02


def test_price_elasticity_is_the_ratio_of_relative_changes() -> None:
    """Price Elasticity = dQ/Q / dP/P: a fall by 10 of 100 over 5 % is 2."""
    assert price_elasticity(104.5, 93.5, 0.05) == pytest.approx(11 / 100 / 0.05)
    assert price_elasticity(0.0, 0.0, 0.01) == 0.0


def test_consumer_surplus_is_the_area_between_demand_and_price() -> None:
    """The integral of (demand curve - price) over the quantity bought; producers' surplus is the mirror."""
    limits, lots = P[[100, 200, 300]].copy(), np.array([5, 0, 2])
    price = int(P[100])

    assert consumer_surplus(limits, lots, price) == 2 * (P[300] - P[100])
    assert consumer_surplus(limits, lots, int(P[200])) == 2 * (P[300] - P[200])
    assert producer_surplus(limits, lots, int(P[300])) == 5 * (P[300] - P[100])


def test_kyle_lambda_recovers_a_linear_impact() -> None:
    """Returns that are .03 bp per lot of imbalance give lambda .03; no imbalance at all gives 0."""
    auction = one_market()
    returns = np.zeros((24, 1), np.int64)
    for imbalance in (100, -300, 700, 500):
        auction.imbalance[0], auction.market_return[0] = imbalance, imbalance * 3 // 100
        remember(auction, np.ones(1, np.bool_), 0, returns)

    assert kyle_lambda(auction.kyle_xy[0], auction.kyle_xx[0]) == pytest.approx(0.03)
    assert kyle_lambda(0.0, 0.0) == 0.0


def test_variance_and_ring_follow_the_returns() -> None:
    """variance += (r^2 - variance)/50, the ring takes r; a closed market leaves Kyle's sums alone."""
    auction = one_market()
    returns = np.ones((24, 1), np.int64)
    auction.market_return[0], auction.imbalance[0] = -30, 10

    remember(auction, np.ones(1, np.bool_), 7, returns)
    before = auction.kyle_xx[0]
    auction.market_return[0] = 0
    remember(auction, np.zeros(1, np.bool_), 8, returns)

    assert returns[7:9, 0].tolist() == [-30, 0]
    assert auction.variance[0] == pytest.approx(18 - 18 / 50)
    assert auction.kyle_xx[0] == before == 1.0


def test_markets_are_open_unless_halted_or_out_of_hours() -> None:
    """The open hours close the 15 asset markets only; a halt ends in the tick it names."""
    halt = np.zeros(MARKETS, np.int64)
    halt[OIL] = 30

    assert open_markets(halt, 29, 24).sum() == MARKETS - 1
    assert open_markets(halt, 30, 24).all()
    closed = np.flatnonzero(~open_markets(halt, 24 + 8, 8)).tolist()
    assert closed == sorted(ASSETS)
    assert len(closed) == 15
    assert CONSOL in closed
    assert LABOUR not in closed


class TestMargins:
    """Prefixes of marginal lots over blocks and segments."""

    def test_blocks_follow_each_other_and_outside_orders_come_first(self) -> None:
        """Each block starts where the one before it in the same market and side ends; offers end the line."""
        level = np.array([10, 10, 11, 10, 10, 10, 10], np.int32)
        quantity = np.array([3, 4, 5, -2, 6, 1, -8], np.int32)
        start, end = np.array([0, 2, 4, 5]), np.array([2, 4, 5, 7])
        markets = np.array([1, 1, 0, 1])
        margin_level = np.array([[10, 10], [10, 10]])
        before, segment_before = np.zeros((4, 2), np.int64), np.zeros(2, np.int64)

        marginal_lots(level, quantity, start, end, markets, margin_level, 0, 4, before)
        assert before.tolist() == [[7, 0], [0, 2], [6, 0], [1, 8]]
        marginal_offers(
            np.array([10, 9, 10], np.int32), np.array([5, 7, 9], np.int32), 50, np.array([50, 52]),
            np.array([52, 53]), np.array([1, 1]), margin_level, segment_before,
        )  # fmt: skip
        assert segment_before.tolist() == [5, 9]
        outside = np.array([[0, 100], [0, 1_000]])
        prefix_margins(outside, markets, np.array([1, 1]), before, segment_before)

        assert before.tolist() == [[100, 1_000], [107, 1_000], [0, 0], [107, 1_002]]
        assert segment_before.tolist() == [1_010, 1_015]

    @given(st.lists(st.tuples(st.integers(0, 1), st.integers(-50, 50)), min_size=2, max_size=40), st.data())
    def test_splitting_a_block_changes_no_fill(self, orders: list[tuple[int, int]], data: st.DataObject) -> None:
        """Where a block is cut does not show in anybody's running sum (ECONOMY A14.13)."""
        level = np.array([at for at, _ in orders], np.int32)
        quantity = np.array([lots for _, lots in orders], np.int32)
        n = len(orders)
        cut = data.draw(st.integers(1, n - 1))

        whole = self.running(level, quantity, [0, n])
        split = self.running(level, quantity, [0, cut, n])

        assert whole == split

    @staticmethod
    def running(level: np.ndarray, quantity: np.ndarray, borders: list[int]) -> list[tuple[int, int]]:
        """Return every order's running sums of marginal lots for blocks cut at the borders."""
        start, end = np.array(borders[:-1]), np.array(borders[1:])
        markets, before = np.zeros(len(start), np.int64), np.zeros((len(start), 2), np.int64)
        marginal_lots(level, quantity, start, end, markets, np.ones((2, 1), np.int64), 0, len(start), before)
        prefix_margins(np.zeros((2, 1), np.int64), markets, np.zeros(0, np.int64), before, np.zeros(0, np.int64))
        sums = []
        for b in range(len(start)):
            bought, sold = before[b].tolist()
            for i in range(start[b], end[b]):
                if level[i] == 1:
                    bought, sold = bought + max(0, int(quantity[i])), sold + max(0, -int(quantity[i]))
                sums.append((bought, sold))
        return sums


def test_the_auction_works_on_the_arrays_of_a_state() -> None:
    """auction_of gives the state's own arrays: what the auction writes is what phases read."""
    state = new_state(Config(residents=2_000, max_agents=4, order_book_max=1_024))

    auction = auction_of(state)

    assert auction.level is state.level
    assert auction.volume is state.cleared_volume
    assert auction.histogram is state.histogram
