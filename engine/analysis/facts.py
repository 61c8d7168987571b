"""The eight stylised facts of returns, per asset market and over all of them, to the letter of ECONOMY B0.

r is the return of a tick in bp; |r| is |r - mean| divided by the mean of its hour of the day, cut at its .9999
quantile. Returns of a longer horizon are sums of non-overlapping groups.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import sqrt
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from engine.analysis.figures import BAND_TICKS, Figure, finite, judge, shown
from engine.analysis.recording import ASSETS, Recording
from engine.analysis.statistics import (
    NAN,
    aggregate,
    autocorrelations,
    decay_exponent,
    excess_kurtosis,
    hill_index,
    skewness,
    slope_and_correlation,
    without_daily_pattern,
)
from engine.markets import HOURS, NAMES, YEAR

HORIZONS = (1, 6, 24, 120, 480)
HORIZON_RETURNS, HILL_RETURNS = 60, 400
"""Fewest returns of a horizon for a moment, and for a tail index."""
HILL_HORIZONS = (1, 6, 24, 120)
TAIL = 0.05
LINEAR_LAGS = (2, 3, 5, 10, 20)
DECAY_LAGS = (5, 10, 20, 50, 100, 200, 500)
SIZE_LAGS = (1, *DECAY_LAGS)
CUT = 0.9999
LOSS = 0.01
MARKET_FACTS, MARKETS_NEEDED = 7, 13
"""Facts of eight that a market must show, and markets of fifteen that must do so."""
MOST_MARKETS = 8
"""A single fact fails when most markets do not show it, whatever the other facts do."""

F64 = NDArray[np.float64]


class Fact(NamedTuple):
    """One of the eight. measure: the name in MarketFacts.numbers that is shown for it."""

    id: str
    title: str
    band: str
    reference: str
    measure: str
    form: str
    needs: int
    """Ticks without which the number is undefined."""
    holds: Callable[[dict[str, float]], bool]


@dataclass(frozen=True)
class MarketFacts:
    """What was measured of one market. numbers: NaN where undefined; passed: one truth value per FACTS."""

    name: str
    numbers: dict[str, float]
    passed: tuple[bool, ...]

    @property
    def count(self) -> int:
        """How many of the eight facts the market shows."""
        return sum(self.passed)


def _holds_tail_index(n: dict[str, float]) -> bool:
    return any(2.0 <= n[f"hill_{h}"] <= 6.0 for h in HILL_HORIZONS)


def _holds_no_autocorrelation(n: dict[str, float]) -> bool:
    return n["autocorrelation_most"] < max(0.06, 4.0 / sqrt(n["ticks"]))


def _holds_slow_decay(n: dict[str, float]) -> bool:
    return n["size_100"] > 3.0 / sqrt(n["ticks"]) and n["decay"] < 0.7


def _holds_losses(n: dict[str, float]) -> bool:
    return n["skewness"] < 0.0 or n["loss_over_gain"] > 1.0


FACTS = (
    Fact(
        "heavy_tails",
        "heavy tails: excess kurtosis of r",
        "> 1",
        "16 S&P 500 futures, 60 USD/CHF, 74 USD/DM, 5 minutes (Cont 2001, Quantitative Finance 1:223, table 1)",
        "kurtosis_1",
        ".1f",
        2,
        lambda n: n["kurtosis_1"] > 1.0,
    ),
    Fact(
        "tail_index",
        "tail index: Hill, largest 5 % of |r|",
        "2 to 6 at 1, 6, 24 or 120 ticks",
        "about 3 (Gopikrishnan et al. 1998, European Physical Journal B 3:139); 2 to 5 (Cont 2001, section 2, no. 2)",
        "hill_1",
        ".2f",
        HILL_RETURNS,
        _holds_tail_index,
    ),
    Fact(
        "no_autocorrelation",
        "no linear autocorrelation: largest |acf(r)|, lags 2 to 20",
        "< max(.06, 4/sqrt n)",
        "0 beyond the first minutes (Cont 2001, section 2, no. 1)",
        "autocorrelation_most",
        ".3f",
        LINEAR_LAGS[-1] + 2,
        _holds_no_autocorrelation,
    ),
    Fact(
        "clustering",
        "volatility clustering: acf(|r|) at lag 10",
        "> .05 at lag 10 and > .03 at lag 50",
        "positive for days to weeks (Cont 2001, section 2, no. 6; Ding, Granger & Engle 1993)",
        "size_10",
        ".3f",
        52,
        lambda n: n["size_10"] > 0.05 and n["size_50"] > 0.03,
    ),
    Fact(
        "slow_decay",
        "slow decay of acf(|r|): power-law exponent, lags 5 to 500",
        "< .7, and acf > 3/sqrt n at lag 100",
        ".2 to .4 (Cont 2001, section 2, no. 8)",
        "decay",
        ".2f",
        DECAY_LAGS[-1] + 2,
        _holds_slow_decay,
    ),
    Fact(
        "aggregation",
        "aggregational Gaussianity: kurtosis at the longest horizon",
        "below the kurtosis at 1 tick",
        "falls toward 0 over weeks to months (Cont 2001, section 2, no. 4)",
        "kurtosis_longest",
        ".1f",
        HORIZON_RETURNS * HORIZONS[1],
        lambda n: n["kurtosis_longest"] < n["kurtosis_1"],
    ),
    Fact(
        "volume_volatility",
        "volume and volatility: correlation of daily volume and daily sum of |r|",
        "> .1",
        "positive in most markets (Karpoff 1987, Journal of Financial and Quantitative Analysis 22:109, table 1)",
        "volume_volatility",
        ".2f",
        4 * HOURS,
        lambda n: n["volume_volatility"] > 0.1,
    ),
    Fact(
        "losses",
        "losses: skewness of r",
        "< 0, or the 1 % loss larger than the 1 % gain",
        "negative for stock indices, -.4 S&P 500 futures (Cont 2001, table 1 and section 2, no. 3)",
        "skewness",
        ".2f",
        2,
        _holds_losses,
    ),
)


def asset_facts(recording: Recording) -> tuple[MarketFacts, ...]:
    """Return what the 15 asset markets of a recording show, in the order of ASSETS."""
    returns = recording.returns
    return tuple(market_facts(returns[:, m], recording.volume[:, m], recording.first_tick, NAMES[m]) for m in ASSETS)


def market_facts(
    returns: NDArray[Any], volume: NDArray[Any], first_tick: int = 0, name: str = "a market"
) -> MarketFacts:
    """Return what one market shows. returns: bp per tick, shape (T,); volume: lots per tick, shape (T,).

    Source: ECONOMY B0; Cont 2001, Quantitative Finance 1:223.
    """
    r = np.asarray(returns, np.float64)
    r = r - r.mean() if len(r) else r
    sizes = return_sizes(r, first_tick)
    numbers = {"ticks": float(max(len(r), 1))} | _moments(r) | _tails(r, sizes) | _memory(r, sizes)
    numbers["volume_volatility"] = slope_and_correlation(
        day_sums(np.asarray(volume, np.float64), first_tick), day_sums(sizes, first_tick)
    ).correlation
    return MarketFacts(name, numbers, tuple(bool(fact.holds(numbers)) for fact in FACTS))


def return_sizes(returns: NDArray[Any], first_tick: int = 0) -> F64:
    """Return |r|: sizes of returns without their mean and daily pattern, cut at the .9999 quantile; 1 on average.

    Source: ECONOMY B0, how it is measured.
    """
    r = np.asarray(returns, np.float64)
    if not len(r):
        return r
    sizes = without_daily_pattern(np.abs(r - r.mean()), first_tick)
    return np.minimum(sizes, np.quantile(sizes, CUT))


def day_sums(values: NDArray[Any], first_tick: int = 0) -> F64:
    """Return the sums over whole simulated days (tick mod 24 = 0 .. 23); parts of days at both ends are left out."""
    return aggregate(np.asarray(values)[-first_tick % HOURS :], HOURS)


def fact_figures(markets: tuple[MarketFacts, ...], ticks: int) -> list[Figure]:
    """Return one figure for each fact, and first the one that counts: how many markets show at least seven of eight."""
    enough = sum(market.count >= MARKET_FACTS for market in markets)
    together = sum(market.count for market in markets)
    figures = [
        Figure(
            id="asset_facts",
            title="asset markets that show at least 7 of the 8 facts below",
            value=f"{enough} of {len(markets)} ({together} of {8 * len(markets)} facts)",
            band=f"at least {MARKETS_NEEDED} of {len(ASSETS)}",
            reference="all eight are found across markets and periods (Cont 2001, section 2)",
            verdict=judge(enough >= MARKETS_NEEDED, ticks),
            numbers={"markets": enough, "facts": together},
        )
    ]
    return figures + [_fact_figure(i, fact, markets, ticks) for i, fact in enumerate(FACTS)]


def _fact_figure(index: int, fact: Fact, markets: tuple[MarketFacts, ...], ticks: int) -> Figure:
    values = np.array([market.numbers[fact.measure] for market in markets])
    known = values[np.isfinite(values)]
    count = sum(market.passed[index] for market in markets)
    middle, low, high = (float(np.median(known)), known.min(), known.max()) if len(known) else (NAN, NAN, NAN)
    text = shown(middle, fact.form, needs=fact.needs, ticks=ticks)
    if len(known):
        text = f"{text} [{low:{fact.form}} .. {high:{fact.form}}], {count} of {len(markets)} markets"
    return Figure(
        id=fact.id,
        title=fact.title,
        value=text,
        band=fact.band,
        reference=fact.reference,
        verdict=judge(count >= MOST_MARKETS, ticks),
        numbers=finite(median=middle, lowest=float(low), highest=float(high), markets=count),
    )


def _moments(r: F64) -> dict[str, float]:
    numbers = {f"kurtosis_{h}": NAN for h in HORIZONS}
    longest = NAN
    for horizon in HORIZONS:
        if len(r) // horizon >= HORIZON_RETURNS:
            numbers[f"kurtosis_{horizon}"] = longest = excess_kurtosis(aggregate(r, horizon))
    loss, gain = np.quantile(r, [LOSS, 1.0 - LOSS]) if len(r) else (NAN, NAN)
    return numbers | {
        "kurtosis_longest": longest,
        "skewness": skewness(r),
        "loss_over_gain": float(-loss / gain) if gain > 0.0 else NAN,
        "volatility_year": float(r.std() * sqrt(YEAR) / 1e4) if len(r) else NAN,
    }


def _tails(r: F64, sizes: F64) -> dict[str, float]:
    numbers = {}
    for horizon in HILL_HORIZONS:
        values = sizes if horizon == 1 else aggregate(r, horizon)
        numbers[f"hill_{horizon}"] = hill_index(values, TAIL) if len(values) >= HILL_RETURNS else NAN
    return numbers


def _memory(r: F64, sizes: F64) -> dict[str, float]:
    linear = _autocorrelations(r, (1, *LINEAR_LAGS))
    size = dict(zip(SIZE_LAGS, _autocorrelations(sizes, SIZE_LAGS), strict=True))
    return {
        "autocorrelation_1": linear[0],
        "autocorrelation_most": float(np.abs(linear[1:]).max()),
        **{f"size_{lag}": value for lag, value in size.items()},
        "decay": decay_exponent([size[lag] for lag in DECAY_LAGS], DECAY_LAGS),
    }


def _autocorrelations(x: F64, lags: tuple[int, ...]) -> list[float]:
    """Return autocorrelations, NaN for lags that the series is too short for."""
    known = [lag for lag in lags if lag < len(x)]
    return [*autocorrelations(x, known).tolist(), *[NAN] * (len(lags) - len(known))]


def self_test(paths: int = 10, ticks: int = BAND_TICKS) -> list[Figure]:
    """Return the report's proof on itself: iid normal returns may pass 4 of the 8 facts at most, a GARCH(1,1) 6.

    paths: independent series of each kind, the worst of which counts. Source: ECONOMY B0.
    """
    return [_self_figure(kind, make, most, paths, ticks) for kind, make, most in _SYNTHETIC]


def gaussian(ticks: int, seed: int) -> tuple[F64, F64]:
    """Return iid normal returns of 10 bp and independent volumes, shape (ticks,) each."""
    random = np.random.default_rng((1, seed))
    return random.normal(0.0, 10.0, ticks), random.lognormal(5.0, 0.5, ticks)


def garch(ticks: int, seed: int, alpha: float = 0.10, beta: float = 0.87, freedom: float = 6.0) -> tuple[F64, F64]:
    """Return a GARCH(1,1) with t(freedom) shocks of 10 bp and independent volumes, shape (ticks,) each.

    Its volatility clusters and its tails are heavy, but the clusters fade exponentially and nobody trades more in them.
    alpha + beta = .97, as daily returns of currencies give; from .98 on a path in ten fades so slowly that lags up to
    500 cannot tell it from a power law.
    Source: Bollerslev 1986, Journal of Econometrics 31:307; 1987, Review of Economics and Statistics 69:542.
    """
    random = np.random.default_rng((2, seed))
    shocks = random.standard_t(freedom, ticks) * sqrt((freedom - 2.0) / freedom)
    returns = np.empty(ticks)
    variance, calm = 100.0, 100.0 * (1.0 - alpha - beta)
    for t in range(ticks):
        returns[t] = shocks[t] * sqrt(variance)
        variance = calm + alpha * returns[t] ** 2 + beta * variance
    return returns, random.lognormal(5.0, 0.5, ticks)


_SYNTHETIC: tuple[tuple[str, Callable[[int, int], tuple[F64, F64]], int], ...] = (
    ("iid normal returns", gaussian, 4),
    ("GARCH(1,1) with t(6)", garch, 6),
)


def _self_figure(kind: str, make: Callable[[int, int], tuple[F64, F64]], most: int, paths: int, ticks: int) -> Figure:
    passed = [market_facts(*make(ticks, seed)).passed for seed in range(paths)]
    counts = [sum(row) for row in passed]
    names = [fact.id for i, fact in enumerate(FACTS) if any(row[i] for row in passed)]
    return Figure(
        id=make.__name__,
        title=f"{kind}: facts passed, most of {paths} paths",
        value=f"{max(counts)} of {len(FACTS)} ({', '.join(names)})",
        band=f"at most {most}",
        reference="none of the memory or volume of real markets",
        verdict=judge(max(counts) <= most, ticks),
        numbers={"most": max(counts), "mean": float(np.mean(counts))},
    )
