"""Arbitrage: no gap where prices keep their ties, and the right one where somebody pulls at a price."""

from __future__ import annotations

import numpy as np
import pytest

from engine.analysis.arbitrage import (
    COUPON,
    DIVIDEND,
    PRODUCTION,
    PRODUCTS,
    TICKS_MIN,
    Gap,
    Past,
    Recipe,
    gaps,
    links,
)
from engine.analysis.needs import TooFew
from engine.markets import CONSOL, GOOD_FIRST, GOOD_LAST, ID, INPUT_1, INPUT_2, LABOUR, MARKETS, MARKUP_BP, YEAR
from engine.phases.psychology import consol_value, share_value

RATE = 0.04
SPREAD = 1.002
RECIPES: list[Recipe | None] = [
    {LABOUR: 0.03, INPUT_1[m]: 0.2, INPUT_2[m]: 0.1} if GOOD_FIRST <= m <= GOOD_LAST else None for m in range(MARKETS)
]


def past(ticks: int = 400, noise: float = 0.002) -> Past:
    """Return prices that keep all their ties but for noise, quoted with a spread of 20 bp, oldest first."""
    random = np.random.default_rng(1)
    price = np.ones((ticks, MARKETS))
    price[:, LABOUR] = 20.0
    # goods are made of goods: a few rounds settle it
    for _ in range(12):
        for m, recipe in enumerate(RECIPES):
            if recipe is not None:
                price[:, m] = 1.0001**MARKUP_BP * sum(lots * price[:, i] for i, lots in recipe.items())
    income = np.zeros((ticks, MARKETS))
    income[:, ID["eq_energy"] : CONSOL] = 1.0 / YEAR / share_value(1.0, RATE)
    income[:, CONSOL] = 1.0 / YEAR / consol_value(1.0, RATE)
    price *= np.exp(noise * random.standard_normal(price.shape))
    return Past(price, price / SPREAD**0.5, price * SPREAD**0.5, income, np.full(ticks, RATE))


def found(values: Past) -> dict[tuple[str, str, tuple[int, ...]], Gap]:
    """Return the gaps by kind, market and others."""
    names = {m: name for name, m in ID.items()}
    return {(gap.link.kind, names[gap.link.market], gap.link.others): gap for gap in gaps(values, RECIPES)}


def test_every_link_is_looked_at() -> None:
    """16 goods, each raw material with each good made of it, 7 shares, the consol."""
    kinds = [link.kind for link in links()]

    assert [kinds.count(kind) for kind in (PRODUCTION, PRODUCTS, DIVIDEND, COUPON)] == [16, 16, 7, 1]


def test_prices_that_keep_their_ties_have_no_gap() -> None:
    """Gaps are around zero, inside their bounds, and the bounds are wider than the spreads."""
    all_gaps = found(past()).values()

    assert not any(gap.is_outside for gap in all_gaps)
    for gap in all_gaps:
        assert gap.spread_bp is not None
        assert gap.threshold_bp >= gap.spread_bp > 9.9
        assert abs(gap.usual_bp) < 60.0
        assert np.log(gap.price / gap.value) * 1e4 == pytest.approx(gap.gap_bp)


@pytest.mark.parametrize(
    ("market", "kind"), [("food", PRODUCTION), ("oil", PRODUCTS), ("eq_tech", DIVIDEND), ("consol", COUPON)]
)
def test_a_price_that_is_pulled_away_is_flagged(market: str, kind: str) -> None:
    """By twenty percent, up and down, and the sign says which way."""
    for factor in (1.2, 1.0 / 1.2):
        values = past()
        values.price[-1, ID[market]] *= factor
        flagged = [gap for gap in found(values).values() if gap.is_outside]

        own = [gap for gap in flagged if gap.link.market == ID[market] and gap.link.kind == kind]
        assert own
        assert all((gap.gap_bp > gap.usual_bp) == (factor > 1.0) for gap in own)
        # nothing is flagged that has nothing to do with it
        assert all(ID[market] in (gap.link.market, *gap.link.others) for gap in flagged)


def test_a_move_within_the_spread_is_no_gap() -> None:
    """Prices that never move have no scatter; what crossing the spreads costs remains."""
    values = past(noise=0.0)
    values.price[-1, ID["food"]] *= 1.0005
    assert not found(values)[PRODUCTION, "food", (LABOUR, INPUT_1[9], INPUT_2[9])].is_outside
    values.price[-1, ID["food"]] *= 1.01
    assert found(values)[PRODUCTION, "food", (LABOUR, INPUT_1[9], INPUT_2[9])].is_outside


def test_the_profit_is_that_of_the_quotes() -> None:
    """Inputs at the ask, the product at the bid; without a quote there is none."""
    values = past(noise=0.0)
    key = (PRODUCTION, "food", (LABOUR, INPUT_1[9], INPUT_2[9]))

    profit = found(values)[key].profit_bp
    values.bid[-1, ID["food"]] = 0.0

    assert profit == pytest.approx(1e4 * (1.0001**MARKUP_BP / SPREAD - 1.0), rel=1e-6)
    assert found(values)[key].profit_bp is None


def test_a_market_without_quotes_has_no_spread() -> None:
    """Its bounds are its scatter alone."""
    values = past()
    values.ask[:, ID["eq_tech"]] = 0.0

    gap = found(values)[DIVIDEND, "eq_tech", ()]

    assert gap.spread_bp is None
    assert np.isfinite(gap.threshold_bp)


def test_too_little_is_said_in_numbers() -> None:
    """A usual size takes five days."""
    with pytest.raises(TooFew, match="119 of the 120 ticks"):
        gaps(past(TICKS_MIN - 1), RECIPES)
