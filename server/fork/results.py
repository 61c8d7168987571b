"""What a fork leaves: series of both worlds as Parquet (CSV without pyarrow), a manifest, and a table for the terminal.

Of the worlds' seed nothing is written: who has the files cannot compute tomorrow (DESIGN D20).
"""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from engine.effects import CONFIDENCE, Effects
from engine.fork import Forked, Interventions
from engine.messages import REJECT_TEXT, Kind, Reject, Status

MANIFEST, PAGE = "fork.json", "fork.html"
PARQUET, CSV = "series.parquet", "series.csv"
COLUMNS = (
    "series", "unit", "tick", "original", "branch", "difference", "difference_low", "difference_high",
    "cumulative", "cumulative_low", "cumulative_high",
)  # fmt: skip
SHOWN = 16
"""Effects in the terminal's table."""


class Effect(NamedTuple):
    """One series: means over all ticks and pairs. size: |difference| in standard deviations of the original's rows.

    low, high: the band of the difference, None without copies. at_end: difference in the last row.
    """

    series: str
    unit: str
    original: float
    branch: float
    difference: float
    low: float | None
    high: float | None
    at_end: float
    cumulative: float
    size: float

    @property
    def relative(self) -> float | None:
        """The difference as a fraction of the original's mean, None when that is 0."""
        return self.difference / abs(self.original) if self.original else None


@dataclass(frozen=True, kw_only=True)
class Named:
    """What names a fork: its own epoch, and the world and tick it comes from (DESIGN D21)."""

    epoch: str
    parent_epoch: str
    parent_tick: int
    parent_hash: str
    asked: Mapping[str, Any]
    """The interventions as they were asked for, in JSON's types."""
    created: str
    begun_s: float
    """Seconds from the command to the first tick of the branch."""
    seconds: float


def effects_of(effects: Effects) -> list[Effect]:
    """Return the effect on every series, the largest first, those without any in the order of the catalogue."""
    total, band, original = effects.total, effects.total_band, effects.level
    spread = effects.original.std(axis=0)
    # a series that stood still is measured by its level, one at zero by 1
    scale = np.where(spread > 1e-12 * np.abs(original), spread, np.where(original != 0.0, np.abs(original), 1.0))
    found = []
    for i, series in enumerate(effects.series):
        low, high = (float(total[i] - band[i]), float(total[i] + band[i])) if effects.copies > 1 else (None, None)
        found.append(
            Effect(
                series=series.name,
                unit=series.unit,
                original=float(original[i]),
                branch=float(original[i] + total[i]),
                difference=float(total[i]),
                low=low,
                high=high,
                at_end=float(effects.difference[-1, i]),
                cumulative=float(effects.cumulative[-1, i]),
                size=float(abs(total[i]) / scale[i]),
            )
        )
    return sorted(found, key=lambda effect: -effect.size)


def write_series(folder: Path, effects: Effects) -> Path:
    """Write all series, a line per series and row of ticks; return the file: Parquet, CSV without pyarrow."""
    if find_spec("pyarrow") is None:
        path = folder / CSV
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(COLUMNS)
            for piece in _pieces(effects):
                writer.writerows(zip(*(column.tolist() for column in piece), strict=True))
        return path
    import pyarrow
    import pyarrow.parquet

    columns = [np.concatenate(parts) for parts in zip(*_pieces(effects), strict=True)]
    texts = [pyarrow.array(column).dictionary_encode() for column in columns[:2]]
    numbers = [pyarrow.array(column) for column in columns[2:]]
    path = folder / PARQUET
    # split by bytes, numbers that change little from row to row compress to half
    pyarrow.parquet.write_table(
        pyarrow.table([*texts, *numbers], names=list(COLUMNS)),
        path,
        compression="zstd",
        use_dictionary=list(COLUMNS[:2]),
        use_byte_stream_split=list(COLUMNS[3:]),
    )
    return path


def _pieces(effects: Effects) -> Iterator[tuple[Any, ...]]:
    """Yield the columns of each series; without copies low and high are NaN."""
    ticks = effects.rows.last_ticks
    band, cumulative_band = effects.band, effects.cumulative_band
    for i, series in enumerate(effects.series):
        difference, half = effects.difference[:, i], band[:, i]
        cumulative, cumulative_half = effects.cumulative[:, i], cumulative_band[:, i]
        yield (
            np.full(len(ticks), series.name), np.full(len(ticks), series.unit), ticks, effects.original[:, i],
            effects.branch[:, i], difference, difference - half, difference + half,
            cumulative, cumulative - cumulative_half, cumulative + cumulative_half,
        )  # fmt: skip


def manifest(forked: Forked, named: Named, interventions: Interventions, files: Iterable[Path]) -> dict[str, Any]:
    """Return what a fork was, in JSON's types: whose it is, what was asked, how it ended, its effects and files."""
    effects = forked.effects
    return {
        "epoch": named.epoch,
        "parent": {"epoch": named.parent_epoch, "tick": named.parent_tick, "state_hash": named.parent_hash},
        "created": named.created,
        "interventions": named.asked,
        "first_tick": effects.rows.first_tick,
        "last_tick": forked.last_tick,
        "recorded_to": forked.recorded_to,
        "ticks_per_row": effects.rows.every,
        "copies": effects.copies,
        "confidence": CONFIDENCE if effects.copies > 1 else None,
        "original_hash": forked.original_hash.hex(),
        "branch_hash": forked.branch_hash.hex(),
        "hashes_checked": forked.hashes_checked,
        "begun_s": round(named.begun_s, 3),
        "seconds": round(named.seconds, 3),
        "added_actions": decided(forked, interventions),
        "effects": [_document(effect) for effect in effects_of(effects)],
        "files": [{"name": path.name, "bytes": path.stat().st_size, "sha256": _sha256(path)} for path in files],
    }


def decided(forked: Forked, interventions: Interventions) -> list[dict[str, Any]]:
    """Return how often what kind of added action came to which end, in words."""
    counts: dict[tuple[str, str, int], int] = {}
    for one, count in forked.decided.items():
        kind = Kind(int(interventions.additions[one.addition].row["kind"][0])).name.lower()
        key = (kind, Status(one.status).name.lower(), one.code)
        counts[key] = counts.get(key, 0) + count
    return [
        {
            "type": kind,
            "outcome": status,
            "count": count,
            **({"code": code, "detail": REJECT_TEXT[Reject(code)]} if code else {}),
        }
        for (kind, status, code), count in sorted(counts.items())
    ]


def table(found: Sequence[Effect], shown: int = SHOWN) -> str:
    """Return the largest effects as a table for people, ending with a line break."""
    changed = [effect for effect in found if effect.difference or effect.at_end or effect.cumulative]
    if not changed:
        return "no series differs: the branch is the original\n"
    has_band = changed[0].low is not None
    band = f"{'95 % band':>27}" if has_band else ""
    lines = [
        f"{'series':<34} {'unit':<8} {'original':>12} {'branch':>12} {'difference':>12} {'%':>8}{band} {'at end':>12}"
    ]
    for effect in changed[:shown]:
        relative = percent(effect.relative)
        between = ""
        if effect.low is not None and effect.high is not None:
            between = f"{_number(effect.low):>13}..{_number(effect.high):<12}"
        lines.append(
            f"{effect.series:<34} {effect.unit:<8} {_number(effect.original):>12} {_number(effect.branch):>12}"
            f" {_number(effect.difference):>12} {relative:>8}{between} {_number(effect.at_end):>12}"
        )
    more = f"{len(changed)} of {len(found)} series differ"
    return "\n".join([*lines, f"{more}; largest first, by standard deviations of the original", ""])


def write_manifest(folder: Path, document: Mapping[str, Any]) -> Path:
    """Write the manifest, the last of a fork's files: where it is, the fork is whole."""
    path = folder / MANIFEST
    temporary = path.with_name(f"{path.name}.new")
    temporary.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    temporary.replace(path)
    return path


def percent(relative: float | None) -> str:
    """Return a fraction in percent for a table; nothing when it says nothing."""
    return "" if relative is None or abs(relative) >= 100.0 else f"{100 * relative:+.2f}"


def _document(effect: Effect) -> dict[str, Any]:
    return {**effect._asdict(), "relative": effect.relative}


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100_000 else f"{value:.5g}"


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
