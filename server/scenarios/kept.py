"""Results for machines: plain values for JSON, the days of every series for CSV."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

from engine.studies.scenario.run import Result
from engine.studies.scenario.sensitivity import Effect, default_of
from server.scenarios.tables import verb


def result_document(results: list[Result]) -> dict[str, Any]:
    """Return one scenario's results of all seeds as plain values."""
    scenario = results[0].scenario
    expectations = []
    for k, expected in enumerate(scenario.expectations):
        figures = [result.findings[k].figure for result in results]
        low, high = expected.band
        first, last = expected.days(scenario.days)
        expectations.append(
            {
                "series": expected.series,
                "compare": expected.compare,
                "take": expected.take,
                "days": [first, last],
                "why": expected.why,
                "low": low if low > -1e300 else None,
                "high": high if high < 1e300 else None,
                "measured": [float(f"{figure:.6g}") for figure in figures],
                "holds": all(result.findings[k].holds for result in results),
            }
        )
    return {
        "name": scenario.name,
        "title": scenario.title,
        "shows": scenario.shows,
        "residents": scenario.config.residents,
        "seeds": [result.scenario.seed for result in results],
        "run_in_days": scenario.run_in_days,
        "days": scenario.days,
        "script": [dict(step) for step in scenario.script],
        "expectations": expectations,
        "state_hashes": [result.treated.state_hash for result in results],
        "notes": list(results[0].notes),
        "holds": all(result.holds for result in results),
    }


def effect_document(effect: Effect) -> dict[str, Any]:
    """Return what a parameter did to a figure as plain values; measured: by value, then seed."""
    return {
        "parameter": effect.parameter.spelt,
        "default": default_of(effect.parameter),
        "values": list(effect.parameter.values),
        "situation": effect.parameter.situation,
        "figure": effect.figure.text,
        "promised": f"{verb(effect)}s",
        "measured": [[float(f"{figure:.6g}") for figure in row] for row in effect.measured],
        "holds": effect.holds,
    }


def write(folder: Path, name: str, document: dict[str, Any]) -> None:
    """Write a document as JSON, the folder too when it is not there."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


def write_series(path: Path, result: Result) -> None:
    """Write the days of every watched series: treated and untreated beside each other."""
    path.parent.mkdir(parents=True, exist_ok=True)
    names = list(result.treated.days)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["day", *(f"{name}{world}" for name in names for world in ("", " untreated"))])
        for day in range(result.scenario.days + 1):
            worlds = (result.treated.days, result.untreated)
            writer.writerow([day, *(f"{world[name][day]:.6g}" for name in names for world in worlds)])
