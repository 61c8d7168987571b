"""Results for people: tables of a run, of several seeds, and of what parameters did."""

from __future__ import annotations

from engine.studies.scenario.expectations import ABSOLUTE, DIFFERENCE, FALLS, RISES, Expectation
from engine.studies.scenario.run import Result
from engine.studies.scenario.sensitivity import Effect
from engine.studies.scenario.series import series_of

SHOWN_DAYS = (1, 2, 5, 10, 20, 40, 60, 90, 120, 180, 240, 300, 360, 540, 720, 1_080)


def result_table(result: Result) -> str:
    """Return a result for people: title, response by day, expectations, notes."""
    scenario = result.scenario
    days = [day for day in SHOWN_DAYS if day < scenario.days] + [scenario.days]
    lines = [
        f"{scenario.name}: {scenario.title}",
        f"{scenario.config.residents:,} residents, seed {scenario.seed}, {scenario.days} days after"
        f" {scenario.run_in_days} of run-in",
        "",
        *(f"  {line}" for line in scenario.shows.splitlines()),
        "",
        f"  {'against the untreated twin, day':<34}" + "".join(f"{day:>9}" for day in days),
    ]
    for series in scenario.watched:
        lines.append(f"  {series.name:<34}" + "".join(_response(result, series.name, day) for day in days))
    lines += ["", f"  {'expectation':<66}{'measured':>12}  {'band':<24} verdict what it stands for"]
    for finding in result.findings:
        expected = finding.expected
        lines.append(
            f"  {_what(expected):<66}{_number(expected, finding.figure):>12}  {_band(expected):<24}"
            f" {'holds' if finding.holds else 'FAILS':<7} {expected.why}".rstrip()
        )
    lines += [f"  note: {note}" for note in result.notes]
    return "\n".join(lines)


def _response(result: Result, series: str, day: int) -> str:
    """Return a day's deviation from the twin: in percent, or in points of what is a share already, or in units."""
    treated, untreated = float(result.treated.days[series][day]), float(result.untreated[series][day])
    unit = series_of(series).unit
    if unit == "share":
        return f"{100.0 * (treated - untreated):>+7.2f}pp"
    if unit in ("flag", "count") or untreated == 0.0:
        return f"{treated - untreated:>+9.4g}"
    return f"{100.0 * (treated / untreated - 1.0):>+8.1f}%"


def ranges_table(results: list[Result]) -> str:
    """Return several seeds' figures of a scenario for people."""
    scenario = results[0].scenario
    seeds = ", ".join(str(result.scenario.seed) for result in results)
    lines = [f"{scenario.name}: {scenario.title}", f"{scenario.config.residents:,} residents, seeds {seeds}", ""]
    lines.append(f"  {'expectation':<66}{'measured':>24}  {'band':<24} verdict")
    for k, expected in enumerate(scenario.expectations):
        figures = [result.findings[k].figure for result in results]
        held = sum(result.findings[k].holds for result in results)
        measured = f"{_number(expected, min(figures))} .. {_number(expected, max(figures))}"
        verdict = "holds" if held == len(results) else f"FAILS in {len(results) - held} of {len(results)}"
        lines.append(f"  {_what(expected):<66}{measured:>24}  {_band(expected):<24} {verdict}")
    return "\n".join(lines)


def failures(results: list[Result]) -> str:
    """Return the expectations that did not hold, in one line."""
    said = []
    for result in results:
        for finding in result.findings:
            if not finding.holds:
                expected = finding.expected
                said.append(
                    f"{_what(expected)} is {_number(expected, finding.figure)}, expected {_band(expected)}"
                    + (f" (seed {result.scenario.seed})" if len(results) > 1 else "")
                )
    return "; ".join(said)


def _what(expected: Expectation) -> str:
    """Return an expectation in words: series, comparison, days."""
    first, last = expected.days(0)
    if expected.take == "value":
        when = f"day {first}"
    elif last:
        when = f"{expected.take.replace('_', ' ')}, days {first}-{last}"
    else:
        when = f"{expected.take.replace('_', ' ')}, from day {first}"
    how = {ABSOLUTE: "", DIFFERENCE: " minus twin's"}.get(expected.compare, f" {expected.compare}")
    return f"{expected.series}{how}, {when}"


def _number(expected: Expectation, figure: float) -> str:
    """Return a figure of an expectation: percent for ratios, points for shares, the number itself for the rest."""
    if expected.is_days:
        return f"{figure:.0f}"
    if expected.take == "recovery":
        return f"{100.0 * figure:.0f} %"
    unit = series_of(expected.series).unit
    if expected.compare not in (ABSOLUTE, DIFFERENCE):
        return f"{100.0 * figure:+.2f} %"
    if unit == "share":
        return f"{100.0 * figure:+.2f} pp" if expected.compare == DIFFERENCE else f"{100.0 * figure:.2f} %"
    return f"{figure:.6g}"


def _band(expected: Expectation) -> str:
    low, high = expected.band
    if low == high:
        return f"exactly {_number(expected, low)}"
    if expected.low is None:
        return f"at most {_number(expected, high)}" if expected.direction != RISES else "above 0"
    if expected.high is None and expected.direction != FALLS:
        return f"at least {_number(expected, low)}"
    return f"{_number(expected, low)} .. {_number(expected, high)}"


def effects_table(effects: list[Effect], residents: int) -> str:
    """Return what every parameter did, for people."""
    seeds = ", ".join(str(seed) for seed in effects[0].seeds)
    lines = [f"{residents:,} residents, seeds {seeds}; figures are means over the seeds", ""]
    before = ""
    for effect in effects:
        parameter = effect.parameter
        if parameter.name != before:
            before = parameter.name
            given = ", ".join(f"{value:g}" for value in parameter.values)
            lines.append(f"{parameter.spelt} = {given} in {parameter.situation}")
        figures = " -> ".join(f"{value:.5g}" for value in effect.measured.mean(axis=1))
        lines.append(f"  {effect.figure.text}: {figures}  {verb(effect)}s: {'holds' if effect.holds else 'FAILS'}")
    lines.append("")
    lines.append("maxAgents, tickRate, cacheExpiry, rateLimit and historyLimit are the server's and shape no economy:")
    lines.append("tests/system/test_options.py shows what they do.")
    return "\n".join(lines)


def verb(effect: Effect) -> str:
    """Return what a figure is promised to do when its parameter rises."""
    return "rise" if effect.sign > 0.0 else "fall"
