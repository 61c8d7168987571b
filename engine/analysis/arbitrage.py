"""Arbitrage: markets that are tied to each other, how far their prices have come apart, and whether it pays.

A link says what one price should be given others. A gap is the price over that value; it is out of bounds when it left
its usual size by more than its own scatter and the spreads that have to be crossed.
Source: specification 004, cross-market arbitrage; the values: ECONOMY A7 (costs and fundamental values).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from engine.analysis.needs import check_enough
from engine.markets import (
    CONSOL,
    GOOD_FIRST,
    GOOD_LAST,
    INPUT_1,
    INPUT_2,
    LABOUR,
    MARKUP_BP,
    RAW_LAST,
    SHARE_FIRST,
    YEAR,
)
from engine.phases.psychology import consol_value, share_value

Floats = NDArray[np.float64]

PRODUCTION, PRODUCTS, DIVIDEND, COUPON = "production", "products", "dividend", "coupon"
"""Kinds of links: a good and what it is made of; an input and what is made of it; a share and its dividends; the
consol and the policy rate."""
WIDTH = 4.0
"""Standard deviations (by the median absolute deviation) a gap may be off its usual size."""
TICKS_MIN = 120
"""Fewest ticks a usual size is taken from: five days."""
NORMAL_MAD = 1.4826
"""Standard deviation of a normal distribution over its median absolute deviation."""


class Past(NamedTuple):
    """Published values of the last ticks, oldest first, shape (ticks, 32) but for the rate, (ticks,).

    price, bid, ask, income: credits a lot (bid, ask 0: none; income of a share or consol, a tick). rate: a year.
    """

    price: Floats
    bid: Floats
    ask: Floats
    income: Floats
    rate: Floats


class Link(NamedTuple):
    """One tie. market: whose price is compared; others: what it is compared with."""

    kind: str
    market: int
    others: tuple[int, ...]


class Gap(NamedTuple):
    """A link now. value: what the price should be, credits a lot. gap_bp: log price over value.

    usual_bp, deviation_bp: median and scatter of the gap over the ticks looked at. spread_bp: half the mean spreads of
    all legs, None when one never had quotes on both sides. threshold_bp: how far from usual_bp a gap counts.
    profit_bp: of buying the inputs at the best asks, making a lot and selling it at the best bid, None where nothing
    is made or a quote is missing.
    """

    link: Link
    price: float
    value: float
    gap_bp: float
    usual_bp: float
    deviation_bp: float
    spread_bp: float | None
    threshold_bp: float
    is_outside: bool
    profit_bp: float | None


Recipe = Mapping[int, float]


def links() -> list[Link]:
    """Return every link: 16 goods with their inputs, each input with each of its goods, 7 shares, the consol."""
    made = [Link(PRODUCTION, m, (LABOUR, INPUT_1[m], INPUT_2[m])) for m in range(GOOD_FIRST, GOOD_LAST + 1)]
    used = [
        Link(PRODUCTS, raw, (link.market, *(m for m in link.others if m != raw)))
        for link in made
        for raw in link.others[1:]
        if raw <= RAW_LAST
    ]
    shares = [Link(DIVIDEND, m, ()) for m in range(SHARE_FIRST, CONSOL)]
    return [*made, *used, *shares, Link(COUPON, CONSOL, ())]


def gaps(past: Past, recipes: Sequence[Recipe | None]) -> list[Gap]:
    """Return every link's gap at the last tick of the past, its usual size taken from all of it.

    recipes: by market, lots of each input a lot takes now, None where nothing is made. They change slowly: what a lot
    took before is taken to be the same. Raises TooFew below TICKS_MIN ticks.
    """
    check_enough(len(past.price), TICKS_MIN, "ticks")
    spreads = _half_spreads(past)
    return [_gap(link, past, recipes, spreads) for link in links()]


def _gap(link: Link, past: Past, recipes: Sequence[Recipe | None], spreads: Floats) -> Gap:
    values, legs = _value(link, past, recipes)
    price = past.price[:, link.market]
    size = 1e4 * np.log(price / values)
    usual = float(np.median(size))
    deviation = NORMAL_MAD * float(np.median(np.abs(size - usual)))
    spread = spreads[link.market] + sum(weight * spreads[m] for m, weight in legs.items())
    known = float(spread) if np.isfinite(spread) else None
    threshold = WIDTH * deviation + (known or 0.0)
    return Gap(
        link,
        float(price[-1]),
        float(values[-1]),
        float(size[-1]),
        usual,
        deviation,
        known,
        threshold,
        bool(abs(size[-1] - usual) > threshold),
        _profit(link, past, recipes),
    )


def _value(link: Link, past: Past, recipes: Sequence[Recipe | None]) -> tuple[Floats, dict[int, float]]:
    """Return what the price should have been in each tick, and the weights of the other legs' spreads.

    A good is worth its unit cost and the usual markup; an input what its good's price leaves for it; a share and the
    consol their yearly income over the yield that goes with the policy rate.
    """
    price, market = past.price, link.market
    if link.kind == PRODUCTION:
        recipe = _of(recipes, market)
        cost = sum((lots * price[:, m] for m, lots in recipe.items()), np.zeros(len(price)))
        return cost * _MARKUP, {m: lots * float(price[-1, m] / cost[-1]) for m, lots in recipe.items()}
    if link.kind == PRODUCTS:
        good = link.others[0]
        recipe = _of(recipes, good)
        rest = sum((lots * price[:, m] for m, lots in recipe.items() if m != market), np.zeros(len(price)))
        # what is left is small beside what it is taken from: at its least a tenth of the input's own price
        left = (price[:, good] / _MARKUP - rest) / recipe[market]
        value = np.maximum(left, 0.1 * price[:, market])
        return value, {good: float(price[-1, good] / recipe[market] / value[-1])}
    worth = share_value if link.kind == DIVIDEND else consol_value
    rates, places = np.unique(past.rate, return_inverse=True)
    yearly = YEAR * float(past.income[:, market].mean()) if link.kind == DIVIDEND else YEAR * past.income[:, market]
    worths = np.array([worth(1.0, rate) for rate in rates.tolist()])
    return np.maximum(yearly * worths[places], _PRICE_MIN), {}


def _profit(link: Link, past: Past, recipes: Sequence[Recipe | None]) -> float | None:
    """Return what making a lot now and selling it at once would earn, bp of its cost."""
    if link.kind != PRODUCTION:
        return None
    recipe, bid = _of(recipes, link.market), float(past.bid[-1, link.market])
    asks = [float(past.ask[-1, m]) for m in recipe]
    if bid == 0.0 or 0.0 in asks:
        return None
    return 1e4 * (bid / sum(lots * ask for lots, ask in zip(recipe.values(), asks, strict=True)) - 1.0)


def _half_spreads(past: Past) -> Floats:
    """Return half of the mean quoted spread of every market, bp; NaN where no tick had quotes on both sides.

    A side that was filled to the last lot has no quote in that tick: the last tick alone would often say nothing.
    """
    quoted = (past.bid > 0.0) & (past.ask > 0.0)
    size = 0.5e4 * np.log(np.divide(past.ask, past.bid, out=np.ones_like(past.bid), where=quoted))
    counts = quoted.sum(axis=0)
    mean: Floats = np.divide(size.sum(axis=0), counts, out=np.full(len(counts), np.nan), where=counts > 0)
    return mean


def _of(recipes: Sequence[Recipe | None], market: int) -> Recipe:
    recipe = recipes[market]
    if recipe is None:
        raise ValueError(f"market {market} has links of production and no recipe")
    return recipe


_MARKUP = 1.0001**MARKUP_BP
_PRICE_MIN = 0.01
"""First price of the ladder, credits: a share without dividends is worth no less."""
