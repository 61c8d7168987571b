"""Two worlds compared series by series: what is measured of each, how they differ, and how sure that is.

A world is sampled as means over rows of equally many ticks, so a long comparison stays small and every tick counts.
With several pairs of worlds (copies) the differences are taken pair by pair, and a band says where the mean of
such differences lies: mean +- t x sd / sqrt(copies), Student's t with copies - 1 degrees of freedom, 95 %.
Source: Law, Simulation Modeling and Analysis, 10.2 (paired t, common random numbers).
"""

from __future__ import annotations

from collections.abc import Sequence
from math import atan, ceil, cos, pi, sin, sqrt
from operator import itemgetter
from typing import Any, NamedTuple

import numpy as np

from engine.agent_index import find
from engine.economy import Economy
from engine.events import TickReport
from engine.ladder import UCR
from engine.markets import NAMES, RAW_FIRST, RESOURCES
from engine.messages import Kind
from engine.public import INDICATOR_FIELDS, MARKET_FIELDS, MONETARY_FIELDS, PSYCHOLOGY_FIELDS, RESOURCE_FIELDS, Field
from engine.state import F64, I64

ROWS_MAX = 2_000
"""Rows of a comparison, at most: beyond so many ticks a row is the mean of several."""
CONFIDENCE = 0.95
MARKET_SERIES = ("price", "volume")
"""What is compared of every market."""
RESOURCE_SERIES = ("reserves", "scarcity")
"""What is compared of every resource."""

_HEADLINES = {field.name for field in INDICATOR_FIELDS}
_SCALARS = (
    ("indicators", INDICATOR_FIELDS),
    # what is a headline indicator too is compared once
    ("monetary", tuple(field for field in MONETARY_FIELDS if field.name not in _HEADLINES)),
    ("psychology", tuple(field for field in PSYCHOLOGY_FIELDS if field.name not in _HEADLINES)),
)


class Series(NamedTuple):
    """One compared quantity. name: group.name or group.thing.name; unit: as in engine.public, but ucr are credits."""

    name: str
    unit: str
    text: str


class Rows(NamedTuple):
    """How ticks are gathered into rows. every: ticks of a row (of the last one: what is left)."""

    first_tick: int
    ticks: int
    every: int

    @property
    def weights(self) -> I64:
        """How many ticks each row is the mean of."""
        starts = np.arange(0, self.ticks, self.every)
        return np.minimum(self.every, self.ticks - starts)

    @property
    def last_ticks(self) -> I64:
        """The last tick of each row."""
        return self.first_tick - 1 + np.cumsum(self.weights)


def rows_of(first_tick: int, ticks: int) -> Rows:
    """Return how so many ticks become at most ROWS_MAX rows. ticks: >= 1."""
    return Rows(first_tick, ticks, ceil(ticks / ROWS_MAX))


def catalogue(agents: Sequence[int] = ()) -> tuple[Series, ...]:
    """Return every compared series in the order of a sample: public values, markets, resources, agents' wealth."""
    found = [_series(f"{group}.{field.name}", field) for group, fields in _SCALARS for field in fields]
    for name in MARKET_SERIES:
        found += [_series(f"market.{market}.{name}", _field(MARKET_FIELDS, name)) for market in NAMES]
    for name in RESOURCE_SERIES:
        for resource in NAMES[RAW_FIRST : RAW_FIRST + RESOURCES]:
            found.append(_series(f"resource.{resource}.{name}", _field(RESOURCE_FIELDS, name)))
    wealth = "cash, escrow and holdings at reference prices, net of debt and advance; 0 while not registered"
    return (*found, *(Series(f"agent.a{number}.wealth", "credits", wealth) for number in agents))


class Sampler:
    """Measures one world, tick by tick, and gives rows of means."""

    def __init__(self, agents: Sequence[int], rows: Rows) -> None:
        self._rows = rows
        self._agents = np.array(agents, np.int64)
        self._slots = np.full(len(agents), -1, np.int64)
        self._pickers = [(group, itemgetter(*(field.name for field in fields))) for group, fields in _SCALARS]
        series = catalogue(agents)
        self._scale = np.array([1.0 / UCR if one.unit == "credits" else 1.0 for one in series])
        self._sum = np.zeros(len(series))
        self._count = self._taken = 0
        self._done: list[F64] = []

    def take(self, economy: Economy, report: TickReport) -> None:
        """Take in a tick that was just completed."""
        public = report.public
        parts: list[Any] = [picker(getattr(public, group)) for group, picker in self._pickers]
        parts += [public.market[name] for name in MARKET_SERIES]
        parts += [public.resource[name] for name in RESOURCE_SERIES]
        self._sum += np.concatenate([*parts, self._wealth(economy, report)])
        self._count += 1
        self._taken += 1
        if self._count == self._rows.every or self._taken == self._rows.ticks:
            self._done.append(self._sum / self._count * self._scale)
            self._sum[:] = 0.0
            self._count = 0

    def finished(self) -> F64:
        """Return the rows completed since the last call, shape (rows, series)."""
        rows = np.array(self._done).reshape(-1, len(self._sum))
        self._done = []
        return rows

    def _wealth(self, economy: Economy, report: TickReport) -> F64:
        """Return what the agents own, ucr, 0 for one that is not registered."""
        if not len(self._agents):
            return np.zeros(0)
        state, slots = economy.state, self._slots
        here = (slots >= 0) & (state.agent_id[slots] == self._agents)
        if not here.all() and (self._taken == 0 or (report.outcomes["kind"] == Kind.REGISTER).any()):
            for i in np.flatnonzero(~here):
                slots[i] = find(state.agent_index, state.agent_id, self._agents[i])
            here = slots >= 0
        own = state.agent_cash[slots] + state.agent_escrow[slots] - state.agent_debt[slots] - state.agent_advance[slots]
        # lots x price may pass 2^63
        return np.where(here, own + state.agent_holdings[slots] @ state.price.astype(np.float64), 0.0)


class Effects:
    """The differences between pairs of worlds. After the last add(): arrays of shape (rows, series).

    original, branch: of the first pair. difference: mean over the pairs of branch - original. cumulative: its sum over
    all ticks so far. band, cumulative_band: half the width of the confidence band, NaN for one pair. level: shape
    (series,): mean of the originals of all pairs over all ticks. total, total_band: as level, of the difference, and
    half the width of its band.
    """

    def __init__(self, series: Sequence[Series], rows: Rows, copies: int) -> None:
        shape = (len(rows.weights), len(series))
        self.series = tuple(series)
        self.rows = rows
        self.copies = copies
        self.original, self.branch, self.difference, self.cumulative = (np.zeros(shape) for _ in range(4))
        self.band, self.cumulative_band = np.full(shape, np.nan), np.full(shape, np.nan)
        self.level = np.zeros(len(series))
        self._sums = np.zeros((copies, len(series)))
        self._filled = 0

    def add(self, originals: Sequence[F64], branches: Sequence[F64]) -> None:
        """Take in the next rows of all pairs. Each array: shape (rows, series), equally many rows."""
        begin, end = self._filled, self._filled + len(originals[0])
        self._filled = end
        here = slice(begin, end)
        differences = np.array(branches) - np.array(originals)
        weights = self.rows.weights[here].astype(np.float64)
        cumulative = self._sums[:, np.newaxis, :] + np.cumsum(differences * weights[:, np.newaxis], axis=1)
        if end > begin:
            self._sums = cumulative[:, -1]
        self.level += weights @ np.mean(originals, axis=0) / self.rows.ticks
        self.original[here], self.branch[here] = originals[0], branches[0]
        self.difference[here], self.band[here] = mean_and_band(differences)
        self.cumulative[here], self.cumulative_band[here] = mean_and_band(cumulative)

    @property
    def total(self) -> F64:
        """The mean difference over all ticks."""
        return mean_and_band(self._sums / self.rows.ticks)[0]

    @property
    def total_band(self) -> F64:
        """Half the width of its confidence band."""
        return mean_and_band(self._sums / self.rows.ticks)[1]


def mean_and_band(samples: F64) -> tuple[F64, F64]:
    """Return the mean over the first axis and half the width of its 95 % confidence band, NaN for one sample."""
    count = len(samples)
    mean: F64 = samples.mean(axis=0)
    if count < 2:
        return mean, np.full(mean.shape, np.nan)
    return mean, student_t((1.0 + CONFIDENCE) / 2.0, count - 1) / sqrt(count) * samples.std(axis=0, ddof=1)


def student_t(probability: float, degrees: int) -> float:
    """Return the quantile of Student's t distribution. probability: in [.5, 1); degrees: >= 1.

    Source: Abramowitz and Stegun 26.7.3, 26.7.4 (the distribution in closed form), inverted by bisection.
    """
    low, high = 0.0, 1e6
    for _ in range(200):
        middle = (low + high) / 2.0
        if (1.0 + _two_sided(middle, degrees)) / 2.0 < probability:
            low = middle
        else:
            high = middle
    return (low + high) / 2.0


def _two_sided(t: float, degrees: int) -> float:
    """Return P(|T| <= t)."""
    angle = atan(t / sqrt(degrees))
    square = cos(angle) ** 2
    term = total = cos(angle) if degrees % 2 else 1.0
    for k in range(2 + degrees % 2, degrees - 1, 2):
        term *= square * (k - 1) / k
        total += term
    if degrees % 2 == 0:
        return sin(angle) * total
    return 2.0 / pi * (angle + (sin(angle) * total if degrees > 1 else 0.0))


def _series(name: str, field: Field) -> Series:
    return Series(name, "credits" if field.unit == "ucr" else field.unit, field.text)


def _field(fields: Sequence[Field], name: str) -> Field:
    return next(field for field in fields if field.name == name)
