"""Facts of the whole economy, to the letter of ECONOMY B0: relations between its series, their ranges, the long run.

Macro series are taken at day end, as the central bank sees them (ECONOMY A9).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from engine.analysis.figures import BAND_TICKS, LONG_TICKS, Figure, Verdict, finite, judge, shown
from engine.analysis.recording import ASSETS, Recording
from engine.analysis.statistics import NAN, Line, aggregate, regress, slope_and_correlation
from engine.config import Config
from engine.ladder import window
from engine.markets import HOURS, MARKETS, NAMES

MONTH, YEAR_DAYS = 30, 360
PHILLIPS_LAGS = (0, 10, 20, 30, 45, 60)
PHILLIPS_DAYS = MONTH + PHILLIPS_LAGS[-1] + 3
REAL_OUTPUT = 0.05

F64 = NDArray[np.float64]


def macro_figures(recording: Recording) -> list[Figure]:
    """Return the figures of the whole economy: those every run is held to, those of long runs, and some that are shown.

    Source: ECONOMY B0.
    """
    return [
        *_relations(recording),
        *_ranges(recording),
        _untraded(recording),
        _window_breaches(recording),
        _real_output(recording),
        *_shown(recording),
    ]


def phillips(recording: Recording) -> tuple[int, Line]:
    """Return the lag in days of the lowest correlation, and the line of 30-day CPI inflation on unemployment before.

    Inflation: 30-day growth of the CPI to the power of 12, minus 1; every lag is measured over the same days.
    """
    inflation, unemployment = monthly_inflation(recording), recording.day("unemployment")
    latest = PHILLIPS_LAGS[-1]
    y = inflation[latest:]
    lines = [(lag, slope_and_correlation(unemployment[MONTH + latest - lag :][: len(y)], y)) for lag in PHILLIPS_LAGS]
    return min(lines, key=lambda item: item[1].correlation if item[1].correlation == item[1].correlation else 2.0)


def monthly_inflation(recording: Recording) -> F64:
    """Return the CPI's growth over 30 days, annualised, shape (D - 30,): that of day 30 first."""
    cpi = recording.day("cpi")
    return (cpi[MONTH:] / cpi[:-MONTH]) ** 12 - 1.0


def okun_changes(recording: Recording) -> tuple[F64, F64]:
    """Return the 30-day changes of unemployment and of log real consumption, shape (D - 30,) each."""
    unemployment, real = recording.day("unemployment"), np.log(recording.day("consumption_real"))
    return unemployment[MONTH:] - unemployment[:-MONTH], real[MONTH:] - real[:-MONTH]


def policy_on(recording: Recording) -> F64:
    """Return the coefficients of the policy rate on a constant, quarterly inflation and unemployment."""
    rate = recording.day("policy_rate")
    if len(rate) < 4 or np.ptp(rate) == 0.0:
        return np.full(3, NAN)
    return regress(rate, recording.day("inflation_quarterly"), recording.day("unemployment"))


def longest_pause(volume: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return for each market the largest number of ticks in a row without a trade. volume: shape (T, markets)."""
    longest = np.zeros(volume.shape[1], np.int64)
    for m in range(volume.shape[1]):
        traded = np.flatnonzero(volume[:, m] > 0)
        longest[m] = np.diff(traded, prepend=-1, append=len(volume)).max() - 1
    return longest


def _relations(recording: Recording) -> list[Figure]:
    ticks, days = recording.ticks, len(recording.day_tick)
    lag, line = phillips(recording) if days > PHILLIPS_DAYS else (0, Line(NAN, NAN, NAN))
    du, dc = okun_changes(recording) if days > MONTH + 3 else (np.zeros(0), np.zeros(0))
    on_real, on_unemployment = slope_and_correlation(dc, du), slope_and_correlation(du, dc)
    policy = policy_on(recording)
    moves = len(recording.day("policy_rate")) > 0 and np.ptp(recording.day("policy_rate")) > 0.0
    return [
        Figure(
            id="phillips_cpi",
            title="CPI Phillips curve: 30-day inflation on unemployment, slope",
            value=_line(line, PHILLIPS_DAYS, ticks) + (f", best lag {lag} days" if line.slope == line.slope else ""),
            band="< 0 at the best lag up to 60 days",
            reference="negative and small (Hazell, Herreno, Nakamura & Steinsson 2022, QJE 137:1299)",
            verdict=judge(line.slope < 0.0, ticks),
            numbers=finite(slope=line.slope, correlation=line.correlation, lag_days=lag),
        ),
        Figure(
            id="okun",
            title="Okun: 30-day change of unemployment on that of log real consumption, slope",
            value=_line(on_real, MONTH + 3, ticks)
            + (f"; the other way {on_unemployment.slope:.2f}" if on_real.slope == on_real.slope else ""),
            band="< 0",
            reference="output on unemployment about -2, stable (Ball, Leigh & Loungani 2013, NBER 18668)",
            verdict=judge(on_real.slope < 0.0, ticks),
            numbers=finite(
                unemployment_on_real=on_real.slope,
                real_on_unemployment=on_unemployment.slope,
                correlation=on_real.correlation,
            ),
        ),
        Figure(
            id="policy",
            title="policy rate on quarterly inflation (unemployment held), coefficient",
            value=shown(policy[1], ".2f", needs=4 * HOURS, ticks=ticks) if moves else "the rate does not move",
            band="> 0",
            reference="1.5 in the long run (Taylor 1993, Carnegie-Rochester Conference Series 39:195)",
            verdict=judge(bool(policy[1] > 0.0), ticks),
            numbers=finite(on_inflation=policy[1], on_unemployment=policy[2]),
        ),
    ]


def _ranges(recording: Recording) -> list[Figure]:
    return [
        _range(
            recording,
            "unemployment",
            "unemployment",
            (0.0, 0.25),
            (0.03, 0.08),
            "2.5 to 14.8 % in the US since 1948 (BLS)",
        ),
        _range(
            recording,
            "inflation",
            "inflation_quarterly",
            (-0.03, 0.08),
            (0.0, 0.04),
            "about 2 % where that is the target (Federal Reserve 2012, ECB 2021)",
        ),
    ]


def _range(
    recording: Recording, name: str, column: str, inside: tuple[float, float], mean: tuple[float, float], reference: str
) -> Figure:
    x = recording.day(column)
    if len(x):
        average, (low, high) = float(x.mean()), (float(q) for q in np.quantile(x, [0.01, 0.99]))
        value = f"mean {average:.2%}, 1-99 % {low:.2%} .. {high:.2%}"
    else:
        average = low = high = NAN
        value = shown(NAN, needs=BAND_TICKS, ticks=recording.ticks)
    holds = inside[0] <= low and high <= inside[1] and mean[0] <= average <= mean[1]
    return Figure(
        id=name,
        title=f"{name}, at day end",
        value=value,
        band=f"mean {mean[0]:.0%} .. {mean[1]:.0%}, 1-99 % inside {inside[0]:.0%} .. {inside[1]:.0%}",
        reference=reference,
        verdict=judge(holds, recording.ticks),
        numbers=finite(mean=average, low=low, high=high),
    )


def _untraded(recording: Recording) -> Figure:
    pauses = longest_pause(recording.volume)
    worst = int(pauses.argmax())
    dead = [NAMES[m] for m in range(MARKETS) if pauses[m] >= HOURS]
    return Figure(
        id="untraded",
        title="longest time any market goes without a trade",
        value=f"{pauses[worst]} ticks ({NAMES[worst]})" + (f"; a day or more: {', '.join(dead)}" if dead else ""),
        band=f"less than a day of {HOURS} ticks",
        reference="liquid markets trade every day",
        verdict=_in_the_long_run(not dead, recording.ticks),
        numbers={"ticks": int(pauses[worst]), "markets": len(dead)},
    )


def _window_breaches(recording: Recording) -> Figure:
    down, up = window(recording.config.get("max_price_change", Config().max_price_change))
    returns = recording.returns
    largest = int(np.abs(returns[:, ASSETS]).max(initial=0))
    breaches = int(((returns <= -down) | (returns >= up)).sum())
    return Figure(
        id="window",
        title="moves that reach the edge of an auction's window",
        value=f"{breaches}; largest move of an asset in a tick {largest} bp",
        band=f"none (the window is -{down} .. +{up} bp)",
        reference="exchanges halt at moves of 5 to 20 % (US limit up-limit down)",
        verdict=_in_the_long_run(breaches == 0, recording.ticks),
        numbers={"breaches": breaches, "largest_bp": largest},
    )


def _real_output(recording: Recording) -> Figure:
    real = recording.day("consumption_real") / recording.real_base
    end, low, high = (real[-1], real.min(), real.max()) if len(real) else (NAN, NAN, NAN)
    text = f"{end:.3f} at the end, {low:.3f} .. {high:.3f} meanwhile" if len(real) else f"needs {HOURS} ticks"
    return Figure(
        id="real_output",
        title="real output against the calibrated start",
        value=text,
        band=f"{1 - REAL_OUTPUT:.2f} .. {1 + REAL_OUTPUT:.2f} at the end",
        reference="no growth by construction: population and technology stay",
        verdict=_in_the_long_run(bool(abs(end - 1.0) <= REAL_OUTPUT), recording.ticks),
        numbers=finite(end=end, lowest=low, highest=high),
    )


def _in_the_long_run(holds: bool, ticks: int) -> Verdict:
    """Return a verdict for a long run; a shorter one is only shown."""
    return judge(holds, ticks) if ticks >= LONG_TICKS else Verdict.SHOWN


def _shown(recording: Recording) -> list[Figure]:
    """Return figures without a band: what else people ask of an economy."""
    days, ticks = len(recording.day_tick), recording.ticks
    wage, unemployment = recording.day("wage"), recording.day("unemployment")
    growth = (wage[MONTH:] / wage[:-MONTH] - 1.0) * 12.0 if days > MONTH + 3 else np.zeros(0)
    line = slope_and_correlation(unemployment[MONTH:][: len(growth)], growth)
    figures = [
        _plain(
            "phillips_wage",
            "wage Phillips curve: 30-day wage growth, annualised, on unemployment, slope",
            _line(line, MONTH + 3, ticks),
            "negative (Phillips 1958, Economica 25:283)",
            slope=line.slope,
            correlation=line.correlation,
        )
    ]
    if days < 2:
        return figures
    rate, velocity, money, cpi = (recording.day(n) for n in ("policy_rate", "velocity", "money_supply", "cpi"))
    years = (days - 1) / YEAR_DAYS
    money_growth, cpi_growth = (float((x[-1] / x[0]) ** (1 / years) - 1.0) for x in (money, cpi))
    left = recording.reserves / recording.reserves_base
    panics = aggregate(recording.panic_markets, 1)
    return [
        *figures,
        _plain(
            "policy_rate",
            "policy rate",
            f"mean {rate.mean():.2%}, {rate.min():.2%} .. {rate.max():.2%}",
            "0 to 8 % in the US since 1990 (Federal Reserve, federal funds rate)",
            mean=float(rate.mean()),
            lowest=float(rate.min()),
            highest=float(rate.max()),
        ),
        _plain(
            "money",
            "money: velocity; growth of M and CPI a year",
            f"{velocity.mean():.2f}; {money_growth:.2%}, {cpi_growth:.2%}",
            "velocity of M2 1.1 to 2.2 in the US since 1960 (Federal Reserve of St. Louis, M2V)",
            velocity=float(velocity.mean()),
            money_growth=money_growth,
            cpi_growth=cpi_growth,
        ),
        _plain(
            "reserves",
            "reserves of the seven resources, share of base",
            f"{left.min():.0%} .. {left.max():.0%}, at the end {left[-1].min():.0%} .. {left[-1].max():.0%}",
            "used up slowly, found again: no resource runs out",
            lowest=float(left.min()),
            highest=float(left.max()),
        ),
        _plain(
            "panics",
            "ticks with a panic in some market",
            f"{float((panics > 0).mean()):.2%}",
            "rare",
            share=float((panics > 0).mean()),
        ),
    ]


def _plain(name: str, title: str, value: str, reference: str, **numbers: float) -> Figure:
    return Figure(
        id=name,
        title=title,
        value=value,
        band="",
        reference=reference,
        verdict=Verdict.SHOWN,
        numbers=finite(**numbers),
    )


def _line(line: Line, days: int, ticks: int) -> str:
    text = shown(line.slope, ".2f", needs=days * HOURS, ticks=ticks)
    return f"{text} (r {line.correlation:.2f})" if line.slope == line.slope else text
