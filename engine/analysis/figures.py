"""A figure of a report: a number that was measured, the band it is held to, what real markets show, and a verdict."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from math import isfinite

BAND_TICKS = 20_000
"""A history shorter than this gets no verdict: the bands are made for runs of at least so many ticks. ECONOMY B0."""
LONG_TICKS = 100_000
"""From here on the long-run bands count as well. Source: ECONOMY B0."""


class Verdict(StrEnum):
    """What a figure says about its band. Only FAILS fails a report."""

    HOLDS = "holds"
    FAILS = "FAILS"
    REACHED = "reached"
    MISSED = "missed"
    SHOWN = "shown"
    SHORT = "too short"


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One line of a report.

    value, band, reference: for people. numbers: for machines, only finite ones. verdict: HOLDS or FAILS a band of
    ECONOMY B0; REACHED or MISSED a goal beyond it; SHOWN without either; SHORT when the history does not suffice.
    """

    id: str
    title: str
    value: str
    band: str
    reference: str
    verdict: Verdict
    numbers: dict[str, float] = field(default_factory=dict)


def judge(holds: bool, ticks: int, needs: int = BAND_TICKS) -> Verdict:
    """Return HOLDS or FAILS, or SHORT for a history of fewer ticks than the band needs."""
    if ticks < needs:
        return Verdict.SHORT
    return Verdict.HOLDS if holds else Verdict.FAILS


def aim(reached: bool, ticks: int, needs: int = BAND_TICKS) -> Verdict:
    """Return REACHED or MISSED, or SHORT for a history of fewer ticks than the goal needs."""
    if ticks < needs:
        return Verdict.SHORT
    return Verdict.REACHED if reached else Verdict.MISSED


def fails(figures: Iterable[Figure]) -> list[str]:
    """Return the ids of the figures whose band does not hold."""
    return [figure.id for figure in figures if figure.verdict is Verdict.FAILS]


def finite(**numbers: float) -> dict[str, float]:
    """Return the numbers that are finite, as floats: what a JSON document can hold."""
    return {name: float(value) for name, value in numbers.items() if isfinite(value)}


def shown(value: float, form: str = ".2f", *, needs: int = 0, ticks: int = 0) -> str:
    """Return a number for people; one that is undefined says how many ticks it needs, if that is what it lacks."""
    if isfinite(value):
        return format(value, form)
    return f"needs {needs:,} ticks, has {ticks:,}" if ticks < needs else "undefined: nothing varies"
