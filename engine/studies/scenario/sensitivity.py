"""Each parameter of specification 004 that shapes the world, moved down and up: does it do what its name promises?

A parameter is moved in a situation where it matters: a quiet world, a panic, wells that are nearly empty, chance
events. All worlds of a seed begin with the same arrays, so that they differ by the parameter alone. The parameters of
the server (maxAgents, tickRate, cacheExpiry, rateLimit, historyLimit) shape no economy; tests/system/test_options.py
shows what they do.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.config import Config
from engine.economy import CHECK_EVERY
from engine.markets import HOURS
from engine.studies.scenario.expectations import ABSOLUTE, FALLS, GROWTH, RISES, Expectation, measure
from engine.studies.scenario.run import Life, Progress, Start, _say_nothing, live, start_of
from engine.studies.scenario.script import Scenario, parse

RESIDENTS = 20_000
SEEDS = (1, 2, 3)

_NO_CHANCE = {"discovery_probability": 0.0, "catastrophe_probability": 0.0}
_PANIC = [{"do": "shock", "size": 0.6}, {"do": "news", "markets": "shares", "bp": -1_500}]
#: Minds that were cheerful turn at their own speeds: they disagree, so that herding is what a panic waits for.
_PARTY = [{"do": "minds", "sentiment": 1.0}, *_PANIC, {"do": "shock", "size": 0.2, "day": 1, "every": 24, "times": 6}]
_EMPTY = [{"do": "catastrophe", "resource": "oil", "size": 0.95}]
#: Where a parameter is moved, as scenario documents without a title and what is watched.
SITUATIONS: dict[str, dict[str, Any]] = {
    "a quiet world": {"days": 120, "settings": _NO_CHANCE, "script": []},
    "two quiet years": {"days": 720, "settings": _NO_CHANCE, "script": []},
    "a panic": {"days": 60, "settings": _NO_CHANCE, "script": _PANIC},
    "a panic after a party": {"days": 60, "settings": _NO_CHANCE, "script": _PARTY},
    "wells nearly empty": {"days": 90, "settings": _NO_CHANCE, "script": _EMPTY},
    "chance events": {"days": 360, "script": []},
}


@dataclass(frozen=True)
class Figure:
    """What a parameter moves: a figure of the world, and which way it goes when the parameter rises."""

    text: str
    taken: Expectation
    direction: str


@dataclass(frozen=True)
class Parameter:
    """A setting, its name in specification 004, the values it is given in ascending order, and its promises."""

    name: str
    spelt: str
    values: tuple[float, float, float]
    situation: str
    figures: tuple[Figure, ...]


@dataclass(frozen=True)
class Effect:
    """What came of a figure. measured: shape (values, seeds)."""

    parameter: Parameter
    figure: Figure
    seeds: tuple[int, ...]
    measured: NDArray[np.float64]

    @property
    def sign(self) -> float:
        """1 when the figure is promised to rise with the parameter, -1 when it is to fall."""
        return 1.0 if self.figure.direction == RISES else -1.0

    @property
    def holds(self) -> bool:
        """Whether every seed shows the promised direction from the lowest to the highest value, and the means of all
        seeds show it in both steps."""
        whole = self.sign * (self.measured[-1] - self.measured[0])
        steps = self.sign * np.diff(self.measured.mean(axis=1))
        return bool((whole > 0.0).all() and (steps > 0.0).all())


def _figure(
    text: str, direction: str, series: str, take: str, compare: str = ABSOLUTE, day: int | None = None
) -> Figure:
    return Figure(text, Expectation(series=series, take=take, compare=compare, day=day), direction)


def _weight(of: str) -> tuple[Figure, ...]:
    return (
        _figure(f"volatility multiplier, mean of the days ({of} counts more)", RISES, "volatility_multiplier", "mean"),
        _figure("realised volatility of the 15 asset markets a year, mean of the days", RISES, "volatility", "mean"),
    )


PARAMETERS = (
    Parameter(
        "market_open_hours", "marketOpenHours", (6, 12, 24), "a quiet world",
        (_figure("lots traded a day in the 15 asset markets", RISES, "volume.assets", "mean"),),
    ),
    Parameter(
        "base_inflation_rate", "baseInflationRate", (0.0, 0.02, 0.06), "two quiet years",
        (_figure("growth of consumer prices in two years", RISES, "cpi", "value", GROWTH, day=720),),
    ),
    Parameter(
        "volatility_threshold", "volatilityThreshold", (0.05, 0.1, 0.2), "a panic",
        (_figure("volatility events", FALLS, "events.volatility_began", "sum"),),
    ),
    Parameter(
        "max_price_change", "maxPriceChange", (0.01, 0.03, 0.5), "a panic",
        (
            _figure("largest move of a tick in any market, bp", RISES, "largest_move_bp.all", "highest"),
            _figure("halts: moves that reach the edge", FALLS, "events.market_halted", "sum"),
        ),
    ),
    Parameter("sentiment_weight", "sentimentWeight", (0.0, 0.4, 1.2), "a panic", _weight("one-sided sentiment")),
    Parameter("fear_weight", "fearWeight", (0.0, 0.3, 0.9), "a panic", _weight("fear")),
    Parameter("greed_weight", "greedWeight", (0.0, 0.3, 0.9), "a panic", _weight("greed")),
    Parameter(
        "herding_threshold", "herdingThreshold", (0.35, 0.7, 1.05), "a panic after a party",
        (
            _figure("markets in panic, mean of the days", FALLS, "is_panic.all", "mean"),
            _figure("largest fall of the shares", RISES, "equity_index", "lowest", GROWTH),
        ),
    ),
    Parameter(
        "depletion_rate", "depletionRate", (0.0003, 0.001, 0.003), "wells nearly empty",
        (
            _figure("oil left after 90 days, against the start", FALLS, "reserves.oil", "value", GROWTH, day=90),
            _figure("price of oil, mean of the days, ucr", FALLS, "price.oil", "mean"),
        ),
    ),
    Parameter(
        "discovery_probability", "discoveryProbability", (0.0, 0.005, 0.02), "chance events",
        (
            _figure("finds in a year", RISES, "events.resource_discovered", "sum"),
            _figure("scarcity of the seven resources at the end", FALLS, "scarcity.raw", "value", day=360),
        ),
    ),
    Parameter(
        "catastrophe_probability", "catastropheProbability", (0.0, 0.0003, 0.003), "chance events",
        (
            _figure("catastrophes in a year", RISES, "events.catastrophe_struck", "sum"),
            _figure("scarcity of the seven resources at the end", RISES, "scarcity.raw", "value", day=360),
            _figure("fear, mean of the days", RISES, "fear", "mean"),
        ),
    ),
)  # fmt: skip


def study(
    parameters: Sequence[Parameter] = PARAMETERS, residents: int = RESIDENTS, seeds: Sequence[int] = SEEDS,
    progress: Progress = _say_nothing, days: int | None = None,
) -> list[Effect]:  # fmt: skip
    """Move each parameter in each seed's world and return what every figure did.

    days: at most so many of a situation's days, for a short look. Raises InvariantBroken when money or goods do not
    add up at the end of a day of any world.
    """
    measured: dict[tuple[str, str], list[list[float]]] = {}
    for seed in seeds:
        start: Start | None = None
        unmoved: dict[str, Life] = {}
        for parameter in parameters:
            scenario = situation(parameter.situation, residents, seed, days)
            start = start or start_of(scenario, progress)
            lives = []
            for value in parameter.values:
                change: dict[str, Any] = {parameter.name: value}
                config = replace(scenario.config, **change)
                # the world with every parameter as it is serves all parameters of its situation
                as_it_is = config == scenario.config
                life = unmoved.get(parameter.situation) if as_it_is else None
                life = life or live(scenario, start, scenario.steps, progress, config=config, checks=CHECK_EVERY)
                if as_it_is:
                    unmoved[parameter.situation] = life
                lives.append(life)
            for figure in parameter.figures:
                column = [_taken(figure, life) for life in lives]
                measured.setdefault((parameter.name, figure.text), []).append(column)
    return [
        Effect(parameter, figure, tuple(seeds), np.array(measured[parameter.name, figure.text]).T)
        for parameter in parameters
        for figure in parameter.figures
    ]


def ticks_of(parameters: Sequence[Parameter], seeds: int, days: int | None = None) -> int:
    """Return about how many ticks a study reports as progress; worlds that are shared make it less."""
    total = 125
    for parameter in parameters:
        wanted = SITUATIONS[parameter.situation]["days"]
        total += len(parameter.values) * min(wanted, days or wanted)
    return seeds * total * HOURS


def situation(name: str, residents: int, seed: int, days: int | None = None) -> Scenario:
    """Return a situation as a scenario that watches what all its parameters' figures need."""
    document = SITUATIONS[name]
    watch = [f.taken.series for p in PARAMETERS if p.situation == name for f in p.figures]
    shortened = min(document["days"], days or document["days"])
    return parse(
        name,
        {**document, "title": name, "shows": name, "watch": watch, "days": shortened},
        residents=residents,
        seed=seed,
    )


def _taken(figure: Figure, life: Life) -> float:
    days = life.days[figure.taken.series]
    taken = figure.taken
    if taken.day is not None:
        taken = replace(taken, day=min(taken.day, len(days) - 1))
    return measure(taken, days, days)


def default_of(parameter: Parameter) -> float:
    """Return the product's own value of a parameter."""
    return float(getattr(Config(), parameter.name))
