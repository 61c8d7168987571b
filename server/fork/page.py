"""The page of a fork: one HTML file with everything in it, plots inline, no script and no address outside."""

from __future__ import annotations

import json
from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from engine.effects import Effects
from engine.fork import Forked
from engine.state import F64
from server.fork.results import PAGE, Effect, Named, effects_of, percent
from server.report import plots
from server.report.page import provenance, show, whole
from server.report.plots import GREY, LINE_POINTS, ORANGE, Plot, drawn, finished

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PLOTTED = 12
"""Series with plots: those with the largest effects."""


def write(folder: Path, forked: Forked, named: Named) -> Path | None:
    """Write the page of a fork to a folder; return the file, None without matplotlib."""
    if not plots.available():
        return None
    path = folder / PAGE
    path.write_text(whole(f"Fork {named.epoch}", list(_body(forked, named))), encoding="utf-8")
    return path


def _body(forked: Forked, named: Named) -> Iterator[str]:
    effects = forked.effects
    found = effects_of(effects)
    changed = [effect for effect in found if effect.difference or effect.at_end or effect.cumulative]
    yield f"<h1>What would have happened: fork {named.epoch}</h1>"
    yield (
        f"<p>World {escape(named.parent_epoch)} run on from tick {named.parent_tick} (state {named.parent_hash}) with"
        f" the interventions below, beside the same world without them, from tick {effects.rows.first_tick} to"
        f" {forked.last_tick}. {_about_copies(effects)}</p>"
    )
    yield f"<pre class='wide'>{escape(json.dumps(dict(named.asked), indent=2))}</pre>"
    yield (
        f"<p class='note'>State hash at the end: original {forked.original_hash.hex()}, branch"
        f" {forked.branch_hash.hex()}. The original met {forked.hashes_checked} recorded hashes; recorded inputs end"
        f" at tick {forked.recorded_to}. A row is the mean of {effects.rows.every} tick(s).</p>"
    )
    yield f"<h2>Effects</h2>{_table(changed, len(found))}"
    yield "<h2>Series</h2>"
    places = {series.name: i for i, series in enumerate(effects.series)}
    for effect in changed[:PLOTTED]:
        yield show(_plot(effects, places[effect.series]))
    yield provenance()


def _about_copies(effects: Effects) -> str:
    if effects.copies == 1:
        return (
            "One pair of worlds, under the recorded world's own chance: what differs was caused by the interventions."
        )
    return (
        f"{effects.copies} pairs of worlds, each pair under a chance of its own from the fork on (the first under the"
        " recorded world's): differences are means over the pairs, bands are Student's t over the paired differences,"
        " 95 %."
    )


def _table(changed: list[Effect], count: int) -> str:
    if not changed:
        return "<p>No series differs: the branch is the original.</p>"
    names = ("series", "unit", "original", "branch", "difference", "%", "95 % band", "at end", "summed over ticks")
    head = "".join(f"<th>{name}</th>" for name in names)
    rows = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in _cells(one))}</tr>" for one in changed)
    return (
        f"<p>{len(changed)} of {count} series differ; the largest first, by standard deviations of the original.</p>"
        f"<div class='wide'><table><tr>{head}</tr>{rows}</table></div>"
    )


def _cells(one: Effect) -> list[str]:
    band = "" if one.low is None or one.high is None else f"{one.low:.5g} to {one.high:.5g}"
    levels = [f"{value:.6g}" for value in (one.original, one.branch, one.difference)]
    return [
        one.series, one.unit, *levels, percent(one.relative), band, f"{one.at_end:.5g}", f"{one.cumulative:.6g}"
    ]  # fmt: skip


def _plot(effects: Effects, i: int) -> Plot:
    """Return a series in three plots side by side: both worlds, their difference, its sum."""
    series = effects.series[i]
    some = slice(None, None, -(-len(effects.original) // LINE_POINTS))
    ticks = effects.rows.last_ticks[some].astype(np.float64)
    with drawn(1, 3, height=0.62) as (figure, (levels, difference, summed)):
        levels.plot(ticks, effects.original[some, i], color=GREY, label="original")
        levels.plot(ticks, effects.branch[some, i], color=ORANGE, label="branch")
        levels.set(title=series.unit)
        levels.legend(loc="best")
        _with_band(difference, ticks, effects.difference[some, i], effects.band[some, i])
        difference.set(title="difference")
        _with_band(summed, ticks, effects.cumulative[some, i], effects.cumulative_band[some, i])
        summed.set(title="summed over ticks")
        caption = (
            f"{series.text or series.name}. Left: the world as it was and the branch"
            f"{' of the first pair' if effects.copies > 1 else ''}; middle: branch minus original"
            f"{', mean of the pairs with its band' if effects.copies > 1 else ''}; right: the same, summed."
        )
        return finished(series.name, series.name, caption, figure)


def _with_band(axes: Axes, ticks: F64, values: F64, band: F64) -> None:
    axes.axhline(0.0, color=GREY, linewidth=0.6)
    if not np.isnan(band).any():
        axes.fill_between(ticks, values - band, values + band, color=ORANGE, alpha=0.25, linewidth=0.0)
    axes.plot(ticks, values, color=ORANGE)
