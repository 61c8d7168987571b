"""What a scenario promises: a figure taken from a series of the treated world, mostly against its twin, and a band."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf

import numpy as np
from numpy.typing import NDArray

from engine.errors import ScenarioInvalid
from engine.studies.scenario import vocabulary as v

Floats = NDArray[np.float64]

RATIO, DIFFERENCE, GROWTH, ABSOLUTE = "ratio", "difference", "growth", "absolute"
COMPARISONS = {
    RATIO: "treated / untreated - 1",
    DIFFERENCE: "treated - untreated",
    GROWTH: "treated / treated at the start - 1",
    ABSOLUTE: "the treated world alone",
}
TAKES = {
    "value": "on `day`",
    "mean": "of the days `from_day` to `to_day`",
    "sum": "of these days",
    "lowest": "of these days",
    "highest": "of these days",
    "day_of_lowest": "the day it happens",
    "day_of_highest": "the day it happens",
    "recovery": "part of the largest deviation until `to_day` that is gone in the mean of these days; 1 = all of it",
}
RISES, FALLS = "rises", "falls"
#: What a figure taken this way is a number of, whatever its comparison.
_DAYS = ("day_of_lowest", "day_of_highest")


@dataclass(frozen=True, kw_only=True)
class Expectation:
    """One promise. low, high: the band, ends included; direction alone promises a side of zero."""

    series: str = v.key(v.sentence("what is looked at; names are listed below"))
    compare: str = v.key(v.word(tuple(COMPARISONS), "how it becomes a deviation"), RATIO)
    take: str = v.key(v.word(tuple(TAKES), "which figure of the days"), "value")
    day: int | None = v.key(v.whole(1, 1_080, "for `value`: the day, 1 is the first after the start"), None)
    from_day: int | None = v.key(v.whole(1, 1_080, "for the others: the first day, else 1"), None)
    to_day: int | None = v.key(v.whole(1, 1_080, "for the others: the last day, else the scenario's"), None)
    direction: str | None = v.key(v.word((RISES, FALLS), "side of zero the figure is on"), None)
    low: float | None = v.key(v.number("lower end of the band"), None)
    high: float | None = v.key(v.number("upper end of the band"), None)
    measured: tuple[float, float] | None = v.key(v.interval("range that several seeds gave; inside the band"), None)
    why: str = v.key(v.sentence("what the figure stands for"), "")

    @property
    def band(self) -> tuple[float, float]:
        """The lowest and the highest figure that keep the promise; a direction ends the band at zero."""
        low = self.low if self.low is not None else -inf
        high = self.high if self.high is not None else inf
        if self.direction == RISES:
            return max(low, 0.0), high
        return (low, min(high, 0.0)) if self.direction == FALLS else (low, high)

    @property
    def is_days(self) -> bool:
        """Whether the figure is a day, whatever the series is."""
        return self.take in _DAYS

    def days(self, last: int) -> tuple[int, int]:
        """Return the first and the last day that are looked at. last: the scenario's last day."""
        if self.take == "value":
            return self.day or last, self.day or last
        return self.from_day or 1, self.to_day or last

    def keeps(self, figure: float) -> bool:
        """Return whether a figure keeps the promise."""
        low, high = self.band
        at_zero = figure == 0.0 and self.direction is not None
        return low <= figure <= high and not at_zero

    def side(self) -> int:
        """Return the side of zero that the whole band is on: 1 above, -1 below, 0 neither."""
        low, high = self.band
        if low >= 0.0 and (low > 0.0 or self.direction == RISES):
            return 1
        if high <= 0.0 and (high < 0.0 or self.direction == FALLS):
            return -1
        return 0


def measure(expected: Expectation, treated: Floats, untreated: Floats) -> float:
    """Return the figure of an expectation.

    treated, untreated: the series by day, index 0 = the start. Raises ScenarioInvalid when it divides by zero.
    """
    first, last = expected.days(len(treated) - 1)
    if expected.take in ("mean", "sum"):
        # taken before they are compared: a single day on which nothing is traded divides nothing
        count = last - first + 1
        parts, at_start = (count, treated[0]) if expected.take == "mean" else (1, count * treated[0])
        here, there = (np.array([days[first : last + 1].sum() / parts]) for days in (treated, untreated))
        return float(_deviation(expected, here, there, at_start)[0])
    until = _deviation(expected, treated[1 : last + 1], untreated[1 : last + 1], treated[0])
    days = until[first - 1 :]
    match expected.take:
        case "value":
            return float(days[0])
        case "lowest":
            return float(days.min())
        case "highest":
            return float(days.max())
        case "day_of_lowest":
            return float(first + days.argmin())
        case "day_of_highest":
            return float(first + days.argmax())
        case _:
            largest = float(until[np.abs(until).argmax()])
            if largest == 0.0:
                raise ScenarioInvalid(f"{expected.series} never deviates, so that nothing can recover")
            return 1.0 - float(days.mean()) / largest


def _deviation(expected: Expectation, treated: Floats, untreated: Floats, at_start: float) -> Floats:
    if expected.compare == ABSOLUTE:
        return treated
    if expected.compare == DIFFERENCE:
        return treated - untreated
    base = untreated if expected.compare == RATIO else np.full(len(treated), at_start)
    if not base.all():
        raise ScenarioInvalid(
            f"{expected.series} is 0 where it is divided by, so that there is no {expected.compare}:"
            f" compare by {DIFFERENCE} or look at other days"
        )
    return treated / base - 1.0


def check(expected: Expectation, where: str, last: int) -> None:
    """Raise ScenarioInvalid when the keys of an expectation contradict each other. last: the scenario's last day."""
    low, high = expected.band
    if expected.low is None and expected.high is None and expected.direction is None:
        raise ScenarioInvalid(f"{where}: low, high or direction must say what is expected")
    if low > high:
        raise ScenarioInvalid(f"{where}: the band is empty: low {expected.low}, high {expected.high}" + _side(expected))
    if expected.take == "value":
        if expected.day is None or expected.from_day is not None or expected.to_day is not None:
            raise ScenarioInvalid(f"{where}: value is taken on one day: give day, neither from_day nor to_day")
    elif expected.day is not None:
        raise ScenarioInvalid(f"{where}: {expected.take} is taken over days: give from_day and to_day, not day")
    if expected.direction and (expected.is_days or expected.take == "recovery" or expected.compare == ABSOLUTE):
        raise ScenarioInvalid(f"{where}: a direction is for a figure around zero: give low and high instead")
    first, end = expected.days(last)
    if not first <= end <= last:
        raise ScenarioInvalid(f"{where}: days {first} to {end} must be in order and within the scenario's {last}")
    if expected.measured and not (expected.keeps(expected.measured[0]) and expected.keeps(expected.measured[1])):
        raise ScenarioInvalid(f"{where}: measured {list(expected.measured)} must be inside the band")


def _side(expected: Expectation) -> str:
    return f", direction {expected.direction}" if expected.direction else ""
