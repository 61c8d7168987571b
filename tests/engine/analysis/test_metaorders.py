"""Metaorders: a copy of the world is pushed, the world itself goes on as if nothing had been."""

from __future__ import annotations

import numpy as np
import pytest

from engine.analysis.figures import Verdict
from engine.analysis.metaorders import SIZES, Metaorder, Metaorders, by_size, experiment, metaorder_figure
from engine.analysis.recording import Recorder
from engine.economy import Economy
from engine.markets import ID
from tests.support.recordings import made
from tests.support.worlds import RandomBots, small_config


def test_larger_orders_push_further_and_the_world_stays() -> None:
    """Impact rises with size, orders are filled, and the state hash of the world is what it was."""
    economy = Economy(small_config(), 3)
    for _ in range(240):
        economy.advance()
    before = economy.state_hash()
    volume = 0.0
    for _ in range(24):
        volume += int(economy.advance().public.market["volume"][ID["oil"]])
    before = economy.state_hash()

    done = experiment(economy, ID["oil"], volume, 50.0)

    assert economy.state_hash() == before
    assert [order.size for order in done] == pytest.approx(SIZES[-len(done) :], rel=0.6)
    assert done[-1].filled > 0.9
    assert done[-1].impact_bp > done[0].impact_bp
    assert done[-1].impact_bp > 20.0


def test_a_world_with_agents_of_its_own_can_be_pushed() -> None:
    """Slots, orders and numbers of the world's agents do not get in the way."""
    economy, bots = Economy(small_config(), 3), RandomBots(8, 1)
    for _ in range(60):
        economy.advance(bots.rows(economy, 10))

    done = experiment(economy, ID["oil"], 5_000.0, 50.0)

    assert len(done) == len(SIZES)
    assert done[-1].filled > 0.5


def test_experiments_are_spread_over_the_second_half() -> None:
    """Twenty-eight start times at day ends, two markets each; none in a run too short for them."""
    economy = Economy(small_config(), 3)
    recorder = Recorder(economy)
    watcher = Metaorders(recorder, 60 * 24, economy.tick + 1)

    assert sorted(watcher._starts) == [24 * day + 23 for day in np.linspace(30, 59, 28).astype(int)]
    assert Metaorders(recorder, 59 * 24, 0)._starts == {}


def test_the_exponent_is_that_of_the_pooled_impact() -> None:
    """Impact in daily sds of its time against size: a square-root law gives one half in any market."""
    done = [
        Metaorder(market, size, 1.0, deviation * 0.8 * size**0.5, deviation)
        for market, deviation in ((24, 10.0), (1, 30.0))
        for size in SIZES
    ]

    impact = by_size(done)

    assert impact.exponent == pytest.approx(0.5)
    assert impact.impact == pytest.approx([0.8 * size**0.5 for size in SIZES])
    assert metaorder_figure(done, made(20_000)).value.startswith("0.50 (resources 0.50, shares 0.50; 0.08 sd at 1%")


def test_without_experiments_the_figure_says_what_it_needs() -> None:
    """A short history gives the ticks it lacks."""
    figure = metaorder_figure([], made(100))

    assert figure.verdict is Verdict.SHORT
    assert figure.value == "needs 1,440 ticks, has 100"
