"""What two worlds differ by: rows, running sums, bands; held to closed forms and to simple loops."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.economy import Economy
from engine.effects import Effects, Sampler, Series, catalogue, mean_and_band, rows_of, student_t
from engine.ladder import UCR
from engine.messages import Kind
from tests.support.journals import action_row
from tests.support.worlds import small_config


@given(ticks=st.integers(1, 1_000_000), first=st.integers(0, 1 << 40))
def test_rows_cover_every_tick_once_and_are_few(ticks: int, first: int) -> None:
    """Weights sum to the ticks, the last row ends with the last tick, nobody gets more than 2,000 rows."""
    rows = rows_of(first, ticks)

    assert rows.weights.sum() == ticks
    assert rows.weights.min() >= 1
    assert len(rows.weights) <= 2_000
    assert rows.last_ticks[-1] == first + ticks - 1


@pytest.mark.parametrize(
    ("degrees", "quantile"),
    # Abramowitz and Stegun, table 26.10
    [(1, 12.706), (2, 4.303), (3, 3.182), (4, 2.776), (5, 2.571), (10, 2.228), (30, 2.042), (120, 1.980)],
)
def test_quantiles_of_student(degrees: int, quantile: float) -> None:
    """Those of the tables, for odd and even degrees."""
    assert student_t(0.975, degrees) == pytest.approx(quantile, abs=5e-4)


def test_a_band_holds_the_true_mean_in_95_of_100_cases() -> None:
    """Normal samples of five: the band is as sure as it says."""
    samples = np.random.default_rng(5).normal(3.0, 2.0, (5, 20_000))

    mean, half = mean_and_band(samples)

    assert (np.abs(mean - 3.0) <= half).mean() == pytest.approx(0.95, abs=0.005)


def test_one_sample_has_no_band() -> None:
    """One pair of worlds says nothing about others."""
    mean, half = mean_and_band(np.array([[1.0, 2.0]]))

    assert mean.tolist() == [1.0, 2.0]
    assert np.isnan(half).all()


@given(copies=st.integers(1, 4), cuts=st.lists(st.integers(1, 6), min_size=1, max_size=4), seed=st.integers(0, 1 << 32))
def test_effects_in_pieces_are_those_of_a_plain_loop(copies: int, cuts: list[int], seed: int) -> None:
    """However the rows come in: differences, running sums and totals are those of the whole."""
    ticks, random = sum(cuts), np.random.default_rng(seed)
    originals, branches = random.normal(size=(copies, ticks, 2)), random.normal(size=(copies, ticks, 2))
    effects = Effects([Series("a", "1", ""), Series("b", "1", "")], rows_of(10, ticks), copies)

    begin = 0
    for count in cuts:
        effects.add(list(originals[:, begin : begin + count]), list(branches[:, begin : begin + count]))
        begin += count

    differences = branches - originals
    assert effects.difference == pytest.approx(differences.mean(axis=0))
    assert effects.cumulative == pytest.approx(np.cumsum(differences, axis=1).mean(axis=0))
    assert effects.total == pytest.approx(differences.mean(axis=(0, 1)))
    assert np.array_equal(effects.original, originals[0])
    assert np.isnan(effects.total_band).all() == (copies == 1)


def test_a_sample_is_the_mean_of_its_ticks_in_the_order_of_the_catalogue() -> None:
    """Rows of three ticks: each value is the mean of the reports', money in credits."""
    economy = Economy(small_config(), 7)
    rows = rows_of(0, 7)._replace(every=3)
    sampler, reports = Sampler((), rows), []

    for _ in range(7):
        reports.append(economy.advance())
        sampler.take(economy, reports[-1])

    found, names = sampler.finished(), [one.name for one in catalogue()]
    assert found.shape == (3, len(names))
    assert found[:, names.index("indicators.cpi")] == pytest.approx(
        [np.mean([r.public.indicators["cpi"] for r in reports[i : i + 3]]) for i in (0, 3, 6)]
    )
    assert found[2, names.index("market.food.price")] == pytest.approx(reports[6].public.market["price"][9] / UCR)
    assert found[1, names.index("resource.oil.scarcity")] == pytest.approx(
        np.mean([r.public.resource["scarcity"][0] for r in reports[3:6]])
    )
    assert len(sampler.finished()) == 0


def test_wealth_is_net_of_the_advance_and_zero_for_who_is_not_there() -> None:
    """Before registering, with the endowment only, with goods, and after leaving."""
    economy = Economy(small_config(), 7)
    sampler = Sampler((5,), rows_of(0, 4))
    wealth = []

    for rows in (
        action_row(4, Kind.REGISTER, seq=1),
        action_row(5, Kind.REGISTER, seq=2),
        action_row(5, Kind.BORROW, seq=3, amount=UCR),
        action_row(5, Kind.UNREGISTER, seq=4),
    ):
        sampler.take(economy, economy.advance(rows))
        if economy.tick == 1:
            economy.state.agent_cash[1] += 3 * UCR
        wealth += sampler.finished()[:, -1].tolist()

    assert wealth == [0.0, 0.0, 3.0, 0.0]
