"""The plots of a report, each an SVG with a caption that says what to see. Needs matplotlib (extra `studies`)."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from math import sqrt
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from engine.analysis.facts import HORIZON_RETURNS, HORIZONS, day_sums, return_sizes
from engine.analysis.goals import PARETO_SHARE, natural_impact, wage_by_hour
from engine.analysis.macro_facts import MONTH, PHILLIPS_DAYS, PHILLIPS_LAGS, monthly_inflation, okun_changes, phillips
from engine.analysis.metaorders import by_size
from engine.analysis.recording import ASSETS, Recording
from engine.analysis.statistics import aggregate, autocorrelations, pareto_exponent, slope_and_correlation
from engine.ladder import prices
from engine.markets import HOURS, ID, LABOUR, NAMES, RAW_FIRST, RAW_LAST, YEAR
from server import extras
from server.report.document import Report

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

WIDTH, HEIGHT = 7.2, 4.3
"""Inches of 72 units each."""
LINE_POINTS, CLOUD_POINTS = 400, 250
"""Points of a line over time and of a cloud, at most: enough to see, few enough for a page below a megabyte."""
BLUE, ORANGE, GREEN, RED, PURPLE, BROWN, GREY = (
    "#0072b2", "#e69f00", "#009e73", "#d55e00", "#cc79a7", "#8c564b", "#777777",
)  # fmt: skip
"""Okabe & Ito's colours, which colour-blind people can tell apart."""
SERIES = (BLUE, ORANGE, GREEN, RED, PURPLE, BROWN, GREY)
STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "arena",
    "font.family": "sans-serif",
    "font.sans-serif": ["Helvetica Neue", "Helvetica", "Arial", "DejaVu Sans", "sans-serif"],
    "font.size": 10,
    "axes.titlesize": 11,
    "axes.grid": True,
    "grid.color": "#e5e5e5",
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "lines.linewidth": 1.4,
}
SHARE, RAW = ID["eq_tech"], ID["oil"]
"""The two markets that stand for their kind where one plot shows one market."""

F64 = NDArray[np.float64]


@dataclass(frozen=True)
class Plot:
    """A plot: title, caption for people, and the SVG document."""

    name: str
    title: str
    caption: str
    svg: str


def available() -> bool:
    """Return whether matplotlib is installed."""
    return find_spec("matplotlib") is not None


def how_to_install() -> str:
    """Return what to do when matplotlib is missing here."""
    needs = "no page: plots need matplotlib, which is in the extra `studies`. Install it with"
    return f"{needs}\n    {extras.how_to_install('matplotlib')}"


def draw_all(report: Report) -> list[Plot]:
    """Return every plot that the history is long enough for, in the order of the page."""
    return [plot for make in PLOTS if (plot := make(report)) is not None]


def _distribution(report: Report) -> Plot | None:
    recording = report.recording
    if recording.ticks < HORIZON_RETURNS:
        return None
    bins = np.arange(-12.25, 12.5, 0.5)
    middle = (bins[1:] + bins[:-1]) / 2
    with drawn() as (figure, axes):
        for horizon, colour, mark in ((1, BLUE, "o"), (24, ORANGE, "s"), (120, GREEN, "^")):
            if recording.ticks // horizon < HORIZON_RETURNS:
                continue
            pooled = _standardised(recording, horizon)
            density = np.histogram(pooled, bins=bins)[0] / (max(len(pooled), 1) * 0.5)
            seen = density > 0
            axes.plot(
                middle[seen], density[seen], mark + "-", color=colour, markersize=4, linewidth=0.8,
                label=f"{horizon} tick{'s' * (horizon > 1)}",
            )  # fmt: skip
        axes.plot(middle, np.exp(-(middle**2) / 2) / sqrt(2 * np.pi), "--", color=GREY, label="normal")
        axes.set(
            yscale="log", ylim=(1e-6, 2), xlim=(-12, 12), xlabel="return, standard deviations", ylabel="density",
            title="Distribution of returns, 15 asset markets pooled",
        )  # fmt: skip
        axes.legend(loc="upper right")
        return finished(
            "distribution",
            "Returns against a normal distribution",
            "Each market's returns in units of their own standard deviation, on a logarithmic scale. A normal"
            " distribution is the dashed parabola. Look at the far left and right: hourly returns of 6 or 8 standard"
            " deviations, which a normal world would never see, occur; the longer the horizon, the closer the curve"
            " comes to the parabola.",
            figure,
        )


def _memory_of_returns(report: Report) -> Plot | None:
    recording, lags = report.recording, range(1, 51)
    if recording.ticks <= 2 * lags[-1]:
        return None
    table = np.array([autocorrelations(recording.returns[:, m], lags) for m in _moving(recording)])
    limit = max(0.06, 4 / sqrt(recording.ticks))
    with drawn() as (figure, axes):
        _fan(axes, np.array(lags), table, BLUE)
        for side in (-limit, limit):
            axes.axhline(side, color=RED, linestyle="--", linewidth=1, label="band" if side > 0 else None)
        axes.axhline(0, color="black", linewidth=0.6)
        axes.set(xlabel="lag, ticks", ylabel="autocorrelation of r", ylim=(-0.16, 0.16), title="Returns have no memory")
        axes.legend(loc="upper right")
        return finished(
            "acf_returns",
            "Autocorrelation of returns",
            "Median (line) and range (shade) over the 15 asset markets. It should stay between the dashed lines from"
            " lag 2 on: yesterday's return says nothing about today's, so nobody earns money by looking at the chart"
            " alone.",
            figure,
        )


def _memory_of_sizes(report: Report) -> Plot | None:
    recording = report.recording
    if recording.ticks < 1_100:
        return None
    lags = np.unique(np.geomspace(1, 1_000, 40).astype(int))
    rows = [
        autocorrelations(return_sizes(recording.returns[:, m], recording.first_tick), lags.tolist())
        for m in _moving(recording)
    ]
    with drawn() as (figure, axes):
        _fan(axes, lags, np.array(rows), BLUE)
        axes.axhline(3 / sqrt(recording.ticks), color=GREY, linestyle=":", label="noise (3 / sqrt n)")
        axes.plot([10, 50], [0.05, 0.03], "v", color=RED, label="band: above these")
        axes.set(
            xscale="log", xlabel="lag, ticks (24 are a day)", ylabel="autocorrelation of |r|",
            title="Sizes of returns have a long memory",
        )  # fmt: skip
        axes.set_ylim(bottom=min(-0.02, axes.get_ylim()[0]))
        axes.legend(loc="upper right")
        return finished(
            "acf_sizes",
            "Autocorrelation of the size of returns",
            "Wild hours follow wild hours. The line should stand well above zero for hundreds of hours and come down"
            " slowly, close to straight on this scale: calm and turbulent times last, as in real markets.",
            figure,
        )


def _path(report: Report) -> Plot | None:
    recording = report.recording
    if len(recording.day_tick) < 10:
        return None
    offset = -recording.first_tick % HOURS
    days = (recording.ticks - offset) // HOURS
    hourly = recording.returns[offset : offset + days * HOURS, SHARE].reshape(days, HOURS) / 100.0
    years = np.arange(days) * HOURS / YEAR
    price = prices()[recording.level[offset + HOURS - 1 :: HOURS, SHARE]][:days] / 1e6
    group = max(1, -(-days // LINE_POINTS))
    whole = days // group * group
    high, low = (f(hourly[:whole].reshape(-1, group * HOURS), axis=1) for f in (np.max, np.min))
    with drawn(2, sharex=True) as (figure, axes):
        axes[0].plot(years[::group], price[::group], color=BLUE)
        axes[0].set(ylabel="price, credits", title=f"{NAMES[SHARE]}: price and hourly returns")
        axes[1].fill_between(years[:whole:group], low, high, color=BLUE, linewidth=0, step="mid")
        axes[1].set(ylabel="returns, %", xlabel="simulated years")
        return finished(
            "path",
            "A share over time",
            "Above the price of the technology share, below the range of its hourly returns. Calm stretches and"
            " clusters of large moves alternate; panics show as a sudden widening that takes weeks to fade.",
            figure,
        )


def _volume(report: Report) -> Plot | None:
    recording = report.recording
    with drawn() as (figure, axes):
        for market, colour in ((SHARE, BLUE), (RAW, ORANGE)):
            volume = day_sums(recording.volume[:, market].astype(np.float64), recording.first_tick)
            moves = day_sums(np.abs(recording.returns[:, market]), recording.first_tick)
            if len(volume) < 10 or not (volume.any() and moves.any()):
                return None
            some = _some(len(volume), CLOUD_POINTS)
            correlation = slope_and_correlation(volume, moves).correlation
            axes.plot(
                volume[some] / volume.mean(), moves[some] / 100, "o", color=colour, markersize=3, alpha=0.5,
                label=f"{NAMES[market]} (r {correlation:.2f})",
            )  # fmt: skip
        axes.set(
            xscale="log", yscale="log", xlabel="volume of a day, mean = 1", ylabel="sum of hourly |r| of the day, %",
            title="Days of much trade are days of large moves",
        )  # fmt: skip
        _plain_log(axes.xaxis)
        _plain_log(axes.yaxis)
        axes.legend(loc="upper left")
        return finished(
            "volume",
            "Volume and volatility",
            "Each point is a simulated day. The clouds should rise from lower left to upper right: the same news and"
            " moods that move prices make people trade.",
            figure,
        )


def _aggregation(report: Report) -> Plot | None:
    rows = np.array([[market.numbers[f"kurtosis_{h}"] for h in HORIZONS] for market in report.markets])
    known = np.isfinite(rows).any(axis=0)
    if known.sum() < 2:
        return None
    horizons, rows = np.array(HORIZONS)[known], rows[:, known]
    with drawn() as (figure, axes):
        for row in rows:
            axes.plot(horizons, row, color=BLUE, alpha=0.25, linewidth=0.8)
        axes.plot(horizons, np.nanmedian(rows, axis=0), "o-", color=BLUE, label="median of the markets")
        axes.axhline(0, color=GREY, linestyle="--", label="normal")
        axes.set(
            xscale="log", yscale="symlog", xlabel="horizon, ticks", ylabel="excess kurtosis",
            title="Aggregational Gaussianity",
        )  # fmt: skip
        axes.set_xticks(horizons, [f"{h}" for h in horizons])
        axes.minorticks_off()
        axes.set_yticks([0, 1, 3, 10, 30, 100], ["0", "1", "3", "10", "30", "100"])
        axes.set_ylim(-1, max(20.0, 1.3 * float(np.nanmax(rows))))
        axes.legend(loc="upper right")
        return finished(
            "aggregation",
            "Aggregation",
            "How heavy the tails are (0 = normal) against the length of the return. The lines should fall to the right:"
            " sums over days and weeks come closer to a normal distribution than single hours.",
            figure,
        )


def _impact(report: Report) -> Plot | None:
    recording = report.recording
    flows = [natural_impact(recording, m) for m in ASSETS]
    flows = [flow for flow in flows if (flow.impact > 0).any()]
    orders = by_size(report.history.metaorders)
    if not flows:
        return None
    with drawn(columns=2) as (figure, axes):
        for flow in flows:
            up = flow.impact > 0
            scale = flow.size.mean(), np.abs(flow.impact).mean()
            axes[0].plot(flow.size[up] / scale[0], flow.impact[up] / scale[1], color=BLUE, alpha=0.3, linewidth=0.9)
        _powers(axes[0], np.array([0.05, 5.0]), 1.0, 1.0)
        axes[0].set(
            xscale="log", yscale="log", xlabel="imbalance of a tick, mean = 1", ylabel="mean return, mean = 1",
            title=f"Natural order flow: exponent {np.median([flow.exponent for flow in flows]):.2f}",
        )  # fmt: skip
        seen = orders.impact > 0
        if seen.any():
            axes[1].plot(100 * orders.size[seen], orders.impact[seen], "o-", color=ORANGE, label="measured")
            at = 100 * orders.size[seen][-1], orders.impact[seen][-1]
            _powers(axes[1], np.array([1.0, 30.0]), *at)
            axes[1].legend(loc="upper left")
        title = f"An order worked over a day: exponent {orders.exponent:.2f}" if seen.any() else "No large orders"
        axes[1].set(
            xscale="log", yscale="log", xlabel="size, % of a day's volume", ylabel="impact, daily sd", title=title
        )
        return finished(
            "impact",
            "Price impact",
            "Left: how far prices move in a tick against how many more lots were bid than asked, one line a market."
            " Right: how much higher a price ends when an outsider buys that share of a day's volume, measured against"
            " the same world without the order. Real markets follow the dotted square root; the dashed line is"
            " proportional impact (Kyle).",
            figure,
        )


def _phillips_and_okun(report: Report) -> Plot | None:
    recording = report.recording
    if len(recording.day_tick) <= PHILLIPS_DAYS + MONTH:
        return None
    lag, line = phillips(recording)
    latest = PHILLIPS_LAGS[-1]
    inflation = monthly_inflation(recording)[latest:]
    before = recording.day("unemployment")[MONTH + latest - lag :][: len(inflation)]
    du, dc = okun_changes(recording)
    with drawn(columns=2) as (figure, axes):
        for axis, x, y, fitted in (
            (axes[0], before, inflation, line),
            (axes[1], dc, du, slope_and_correlation(dc, du)),
        ):
            some = _some(len(x), CLOUD_POINTS)
            axis.plot(100 * x[some], 100 * y[some], "o", color=BLUE, markersize=3, alpha=0.4)
            ends = np.array([x.min(), x.max()])
            axis.plot(
                100 * ends, 100 * (fitted.intercept + fitted.slope * ends), color=RED,
                label=f"slope {fitted.slope:.2f}, r {fitted.correlation:.2f}",
            )  # fmt: skip
            axis.legend(loc="upper right")
        axes[0].set(
            xlabel=f"unemployment {lag} days before, %",
            ylabel="inflation over 30 days, % a year",
            title="Phillips curve",
        )
        axes[1].set(
            xlabel="change of real consumption in 30 days, %", ylabel="change of unemployment, points", title="Okun"
        )
        return finished(
            "phillips_okun",
            "Phillips and Okun",
            "Each point is a day. Both clouds should fall to the right: prices rise faster when few are without work,"
            " and unemployment rises when people buy less.",
            figure,
        )


def _policy(report: Report) -> Plot | None:
    recording = report.recording
    if len(recording.day_tick) < 10:
        return None
    years = (recording.day_tick - recording.day_tick[0]) / YEAR
    some = _some(len(years), LINE_POINTS)
    with drawn(2, sharex=True) as (figure, axes):
        for column, label, colour in (
            ("policy_rate", "policy rate", BLUE),
            ("inflation_quarterly", "inflation (quarter, annualised)", RED),
        ):
            axes[0].plot(years[some], 100 * recording.day(column)[some], color=colour, label=label)
        axes[0].axhline(2, color=GREY, linestyle=":", linewidth=1, label="inflation target")
        axes[0].set(ylabel="% a year", title="The central bank at work")
        axes[0].margins(y=0.2)
        axes[0].legend(loc="upper right", ncols=3)
        axes[1].plot(years[some], 100 * recording.day("unemployment")[some], color=GREEN, label="unemployment")
        axes[1].set(ylabel="unemployment, %", xlabel="simulated years", ylim=(0, None))
        return finished(
            "policy",
            "Policy, inflation, unemployment",
            "The blue line should follow the red one with a delay and fall when unemployment below peaks: the central"
            " bank leans against both, and neither runs away.",
            figure,
        )


def _output(report: Report) -> Plot | None:
    recording = report.recording
    if len(recording.day_tick) < 10:
        return None
    years = (recording.day_tick - recording.day_tick[0]) / YEAR
    some = _some(len(years), LINE_POINTS)
    with drawn() as (figure, axes):
        for values, label, colour in (
            (recording.day("consumption_real") / recording.real_base, "real output (start of the model = 1)", BLUE),
            (recording.day("cpi") / recording.day("cpi")[0], "consumer prices", RED),
            (recording.day("money_supply") / recording.day("money_supply")[0], "money supply", GREEN),
            (recording.day("equity_index") / recording.day("equity_index")[0], "share index", GREY),
        ):
            axes.plot(years[some], values[some], color=colour, label=label)
        axes.set(xlabel="simulated years", ylabel="first day = 1", title="Output, prices, money")
        axes.legend(loc="upper left", ncols=2)
        return finished(
            "output",
            "Output, prices and money",
            "Real output stays near 1 because neither people nor technology grow; prices and money rise together by"
            " about two per cent a year; shares swing around both.",
            figure,
        )


def _scarcity(report: Report) -> Plot | None:
    recording = report.recording
    if len(recording.day_tick) < 10:
        return None
    years = (recording.day_tick - recording.day_tick[0]) / YEAR
    some = _some(len(years), LINE_POINTS // 2)
    at = recording.day_tick - recording.first_tick
    with drawn(2, sharex=True, height=1.35) as (figure, axes):
        for i, market in enumerate(range(RAW_FIRST, RAW_LAST + 1)):
            left = 100 * recording.reserves[:, i] / recording.reserves_base[i]
            price = prices()[recording.level[at, market]] / 1e6 / recording.day("cpi")
            axes[0].plot(years[some], left[some], color=SERIES[i], label=NAMES[market].replace("_", " "))
            axes[1].plot(years[some], price[some], color=SERIES[i])
        axes[0].set(ylabel="reserves, % of base", title="Scarcity and prices of the seven resources")
        axes[0].legend(loc="upper center", ncols=4, bbox_to_anchor=(0.5, -0.06))
        axes[1].set(ylabel="price, credits at prices of the start", xlabel="simulated years", yscale="log")
        _plain_log(axes[1].yaxis)
        return finished(
            "scarcity",
            "Scarcity and prices",
            "Above what is left of each resource, below its price without general inflation. Where a line above drops"
            " (a catastrophe, or years without a find) the line of the same colour below should rise, and fall again"
            " after a discovery.",
            figure,
        )


def _wealth(report: Report) -> Plot | None:
    recording = report.recording
    with drawn() as (figure, axes):
        for amounts, label, colour in (
            (recording.household_wealth, "households", BLUE),
            (recording.resident_wealth, "all residents", ORANGE),
        ):
            n = len(amounts)
            above = np.arange(n, 0, -1) / n
            picked = np.unique((n - np.geomspace(1, n, 250)).astype(int))
            seen = picked[amounts[picked] > 0]
            alpha = pareto_exponent(amounts, PARETO_SHARE)
            axes.plot(amounts[seen], above[seen], color=colour, label=f"{label} (tail exponent {alpha:.2f})")
            start = amounts[int(n * (1 - PARETO_SHARE))]
            if start > 0 and alpha == alpha:
                tail = np.array([start, amounts[-1]])
                axes.plot(tail, PARETO_SHARE * (tail / start) ** -alpha, ":", color=colour)
        axes.set(
            xscale="log", yscale="log", xlabel="wealth, credits", ylabel="share of people that own more",
            title="Distribution of wealth",
        )  # fmt: skip
        axes.legend(loc="lower left")
        return finished(
            "wealth",
            "Wealth",
            "How many own more than an amount, both on logarithmic scales. The right end should be straight (dotted:"
            " the fit to the richest 5 %): a Pareto tail, the flatter the more unequal. Real ones fall with about 1.5.",
            figure,
        )


def _wage(report: Report) -> Plot | None:
    pattern = wage_by_hour(report.recording)
    if not np.isfinite(pattern).all():
        return None
    with drawn(height=0.75) as (figure, axes):
        axes.bar(np.arange(HOURS), pattern, color=BLUE)
        axes.axhline(0, color="black", linewidth=0.6)
        axes.set(
            xlabel="hour of the day", ylabel="spot wage against its day, bp",
            title=f"Hours of {NAMES[LABOUR]}: is there a fixed daily pattern?",
        )  # fmt: skip
        widest = max(50.0, 1.1 * float(np.abs(pattern).max()))
        axes.set_ylim(-widest, widest)
        return finished(
            "wage",
            "The wage by hour of the day",
            "Mean gap of the spot wage to the mean of its day. Bars of a few basis points are noise; tall ones are a"
            " pattern that a bot could live on.",
            figure,
        )


PLOTS: tuple[Callable[[Report], Plot | None], ...] = (
    _distribution,
    _path,
    _memory_of_returns,
    _memory_of_sizes,
    _volume,
    _aggregation,
    _impact,
    _phillips_and_okun,
    _policy,
    _output,
    _scarcity,
    _wealth,
    _wage,
)


@contextmanager
def drawn(
    rows: int = 1, columns: int = 1, *, sharex: bool = False, height: float = 1.0
) -> Iterator[tuple[Figure, Any]]:
    """Give a figure and its axes in the style of the page; matplotlib is imported when the first plot is drawn."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(STYLE):
        size = (WIDTH * (1.35 if columns > 1 else 1.0), HEIGHT * height * (1.25 if rows > 1 else 1.0))
        figure = Figure(figsize=size, layout="constrained")
        yield figure, figure.subplots(rows, columns, sharex=sharex)


def finished(name: str, title: str, caption: str, figure: Figure) -> Plot:
    """Return a figure as a plot: the same numbers give the same bytes."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    return Plot(name, title, caption, buffer.getvalue())


def _fan(axes: Axes, x: NDArray[Any], table: F64, colour: str) -> None:
    """Draw the median of rows as a line over their range."""
    axes.fill_between(x, table.min(axis=0), table.max(axis=0), color=colour, alpha=0.18, linewidth=0, label="range")
    axes.plot(x, np.median(table, axis=0), color=colour, label="median of the markets")


def _powers(axes: Axes, x: F64, through_x: float, through_y: float) -> None:
    for power, style, label in ((0.5, ":", "square root"), (1.0, "--", "proportional")):
        axes.plot(x, through_y * (x / through_x) ** power, style, color=GREY, linewidth=1.1, label=label)


def _plain_log(axis: Axis) -> None:
    """Write numbers instead of powers of ten where an axis covers little more than a decade."""
    from matplotlib.ticker import LogLocator, NullFormatter, ScalarFormatter

    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axis.set_major_formatter(ScalarFormatter())
    axis.set_minor_formatter(NullFormatter())


def _standardised(recording: Recording, horizon: int) -> F64:
    rows = [aggregate(recording.returns[:, m], horizon) for m in ASSETS]
    return np.concatenate([(row - row.mean()) / row.std() for row in rows if row.std() > 0.0] or [np.zeros(1)])


def _moving(recording: Recording) -> list[int]:
    """Return the asset markets whose price moved at all."""
    return [m for m in ASSETS if recording.returns[:, m].any()] or [ASSETS[0]]


def _some(n: int, most: int) -> slice:
    """Return every k-th of n points, at most so many of them."""
    return slice(None, None, max(1, -(-n // most)))
