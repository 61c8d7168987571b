"""Run a scenario: a world settles, then lives twice from the same arrays, with the script and without.

    run(scenario) -> Result        run_all(scenarios) -> each Result, with what is common to them done once

Every invariant is checked after every tick of both worlds. The same scenario, seed and engine give the same Result.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.config import Config
from engine.economy import CHECK_EVERY, Economy
from engine.events import TickReport
from engine.markets import HOURS
from engine.messages import REJECT_TEXT, Reject
from engine.studies.scenario.expectations import Expectation, measure
from engine.studies.scenario.outside import Outside
from engine.studies.scenario.script import SMALLEST_BOOK, Scenario
from engine.studies.scenario.series import Recorder
from engine.studies.scenario.steps import Stage, Step

Floats = NDArray[np.float64]
Progress = Callable[[int], None]
"""Told how many ticks more are done."""


def _say_nothing(_ticks: int) -> None:
    """Tell nobody."""


@dataclass(frozen=True)
class Start:
    """Where both worlds begin: the arrays after the run-in and the tick that led to them."""

    tick: int
    arrays: list[tuple[str, NDArray[Any]]]
    report: TickReport


@dataclass(frozen=True)
class Life:
    """What became of one world. days: each series, shape (days + 1,), index 0 = the start."""

    days: dict[str, Floats]
    state_hash: str
    actions: int
    refused: dict[int, int]
    """Refused actions by code."""


@dataclass(frozen=True)
class Finding:
    """An expectation and the figure that was measured."""

    expected: Expectation
    figure: float

    @property
    def holds(self) -> bool:
        """Whether the figure is inside the band."""
        return self.expected.keeps(self.figure)

    @property
    def right_side(self) -> bool:
        """Whether the figure is on the band's side of zero; true when the band is on no side."""
        return self.expected.side() * self.figure > 0.0 or self.expected.side() == 0


@dataclass(frozen=True)
class Result:
    """A scenario that was run."""

    scenario: Scenario
    treated: Life
    untreated: dict[str, Floats]
    """Each series of the twin, by day as the treated ones."""
    findings: tuple[Finding, ...]
    notes: tuple[str, ...]
    """What a reader should know beside the figures, a sentence each."""

    @property
    def holds(self) -> bool:
        """Whether every expectation holds."""
        return all(finding.holds for finding in self.findings)


def run(scenario: Scenario, progress: Progress = _say_nothing) -> Result:
    """Let a world settle, then the treated world and its twin live, and measure every expectation.

    Raises InvariantBroken when money or goods do not add up in either world, ScenarioInvalid when a step asks for
    what the world cannot do.
    """
    [result] = run_all([scenario], progress)
    return result


def run_all(scenarios: Sequence[Scenario], progress: Progress = _say_nothing) -> Iterator[Result]:
    """Run scenarios in order and yield their results; each is what it would be alone.

    Scenarios of the same settings and seed share their start, and those whose twins live alike (in most nothing is
    done to the twin) share the longest twin too: half of a suite's time. Raises what run raises.
    """
    keys = [(start_key(scenario), twin_key(scenario)) for scenario in scenarios]
    left = Counter(key for pair in keys for key in pair)
    kin: dict[Hashable, list[Scenario]] = {}
    for scenario, (_, alike) in zip(scenarios, keys, strict=True):
        kin.setdefault(alike, []).append(scenario)
    starts: dict[Hashable, Start] = {}
    twins: dict[Hashable, Life] = {}
    for scenario, (begins, alike) in zip(scenarios, keys, strict=True):
        if begins not in starts:
            starts[begins] = start_of(scenario, progress)
        if alike not in twins:
            twins[alike] = live(_together(kin[alike]), starts[begins], twin_steps(scenario), progress)
        treated = live(scenario, starts[begins], scenario.steps, progress)
        yield _compared(scenario, treated, twins[alike])
        # a start of a million residents is 50 MB: what no later scenario needs is let go
        left.subtract((begins, alike))
        if not left[begins]:
            del starts[begins]
        if not left[alike]:
            del twins[alike]


def ticks_of(scenarios: Sequence[Scenario]) -> int:
    """Return the ticks that running scenarios together reports as progress."""
    starts = {start_key(scenario): scenario.run_in_days for scenario in scenarios}
    twins: dict[Hashable, int] = {}
    for scenario in scenarios:
        kin = twin_key(scenario)
        twins[kin] = max(scenario.days, twins.get(kin, 0))
    return HOURS * (sum(starts.values()) + sum(twins.values()) + sum(scenario.days for scenario in scenarios))


def twin_steps(scenario: Scenario) -> tuple[Step, ...]:
    """Return what is done to the twin as well."""
    return tuple(step for step in scenario.steps if step.twin)


def twin_key(scenario: Scenario) -> Hashable:
    """Return what decides how a scenario's twin lives: twins with the same key live alike."""
    return "twin", start_key(scenario), twin_steps(scenario)


def start_key(scenario: Scenario) -> Hashable:
    """Return what decides a scenario's start: two scenarios with the same key can share it."""
    return "start", _run_in_config(scenario.config), scenario.seed, scenario.run_in_days


def start_of(scenario: Scenario, progress: Progress = _say_nothing) -> Start:
    """Return the start of a scenario: the calibrated world after its run-in, without outside agents."""
    economy = Economy(_run_in_config(scenario.config), scenario.seed, checks=CHECK_EVERY)
    report = economy.report()
    for _ in range(scenario.run_in_days):
        for _ in range(HOURS):
            report = economy.advance()
        progress(HOURS)
    return Start(*economy.copy_arrays(), report)


def live(
    scenario: Scenario, start: Start, steps: tuple[Step, ...], progress: Progress = _say_nothing,
    *, config: Config | None = None, checks: int = 1,
) -> Life:  # fmt: skip
    """Let a world live the scenario's days from its start under some steps.

    config: instead of the scenario's. checks: ticks between two checks of the invariants.
    """
    outside = Outside()
    economy = Economy(config or scenario.config, scenario.seed, checks=checks, start=(start.tick, start.arrays))
    stage = Stage(economy, outside)
    recorder = Recorder(list(scenario.watched))
    recorder.tick(economy.state, start.report)
    recorder.end_day(economy.state, start.report)
    for day in range(scenario.days):
        for hour in range(HOURS):
            for step in steps:
                if step.is_due(day * HOURS + hour):
                    step.apply(stage)
            report = economy.advance(outside.take())
            if len(report.outcomes):
                outside.count(report.outcomes)
            recorder.tick(economy.state, report)
        recorder.end_day(economy.state, report)
        progress(HOURS)
    return Life(recorder.arrays(), economy.state_hash().hex(), outside.sent, outside.refused)


def _together(scenarios: list[Scenario]) -> Scenario:
    """Return a scenario as long as the longest of some that watches what any of them watches."""
    watched = {series.name: series for scenario in scenarios for series in scenario.watched}
    days = max(scenario.days for scenario in scenarios)
    return replace(scenarios[0], days=days, watched=tuple(watched.values()))


def _compared(scenario: Scenario, treated: Life, twin: Life) -> Result:
    untreated = {name: twin.days[name][: scenario.days + 1] for name in treated.days}
    findings = tuple(
        Finding(expected, measure(expected, treated.days[expected.series], untreated[expected.series]))
        for expected in scenario.expectations
    )
    return Result(scenario, treated, untreated, findings, tuple(_notes(treated)))


def _run_in_config(config: Config) -> Config:
    """Return the config a world lives in with before agents come: their places and endowments decide nothing."""
    return replace(config, max_agents=1, order_book_max=SMALLEST_BOOK)


def _notes(treated: Life) -> list[str]:
    notes = []
    if treated.actions:
        refused = sum(treated.refused.values())
        notes.append(f"outside agents sent {treated.actions:,} actions, {refused:,} were refused")
    for code, count in sorted(treated.refused.items()):
        notes.append(f"{count:,} refused ({code}): {REJECT_TEXT[Reject(code)]}")
    return notes
