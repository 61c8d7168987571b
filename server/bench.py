"""`arena bench`: this machine's numbers against their bars, measured here and now.

The kernels are measured in this process, by the CPU time of their thread, which neighbours disturb least. What a
customer sees of a whole server is measured by loadtest.micro.bench_server in a process of its own.
Source: DESIGN section 5.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from engine.config import Config
from engine.economy import WARM_UP_TICKS, Economy
from engine.state import State, array_fields, persistent
from server.provenance import revision, this_machine

ROOT = Path(__file__).resolve().parents[1]
RESIDENTS = 100_000
SEED = 1
COPY_BYTES = 640_000_000
"""Half of the buffer that the copy bandwidth is taken on: far above any cache, 1.28 GB in all."""
COLD_TICKS = 3
"""Ticks after each copy that are not counted."""
#: Lengths that grow with the population; arrays with another first length are the same size in every world.
RESIDENT_SIZES = frozenset({"residents", "households", "producers", "traders", "blocks", "segments"})
EXAMPLES = """\
examples:
  arena bench                          every row, about five minutes
  arena bench tick_100k --quick        one row, under 20 s
  arena bench --json --out rows.json   as JSON, kept in a file
"""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One measured number. It passes when it is at most its bar. includes, excludes: what is in it, what is not."""

    id: str
    value: float
    unit: str
    bar: float
    spread: str
    includes: str
    excludes: str
    revision: str = ""
    machine: str = ""

    @property
    def passes(self) -> bool:
        """Whether the value is at most the bar."""
        return bool(self.value <= self.bar)

    def document(self) -> dict[str, Any]:
        """Return the row as it is written to results."""
        return {**asdict(self), "value": float(self.value), "pass": self.passes}


@dataclass(frozen=True)
class Ticks:
    """Measured ticks of a world, milliseconds of CPU time, and the copies of a large buffer taken between them."""

    tick_ms: list[float]
    prices_ms: list[float]
    copy_gb_s: list[float]
    state_bytes: int
    warm_up_s: float


def main(args: Sequence[str]) -> int:
    """Measure the rows args names (all when none), print them and return 1 when one misses its bar."""
    given = _parser().parse_args(args)
    wanted = list(dict.fromkeys(given.ids)) or list(IDS)
    at, machine = revision(), this_machine()
    rows: list[Row] = []
    for measure, ids in PROGRAMS:
        if chosen := [name for name in ids if name in wanted]:
            _progress(f"measuring {', '.join(chosen)} ...")
            rows += [replace(row, revision=at, machine=machine) for row in measure(chosen, given.quick)]
    documents = [row.document() for row in rows]
    if given.json:
        sys.stdout.write(json.dumps(documents, indent=2) + "\n")
    else:
        sys.stdout.write(_table(rows) + f"\n{machine}\nrevision {at}\n")
    if given.out:
        given.out.write_text(json.dumps(documents, indent=2) + "\n", encoding="utf-8")
    return 0 if rows and all(row.passes for row in rows) else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="arena bench",
        description="Measure this machine's numbers against their bars; status 1 when one misses it.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("ids", nargs="*", choices=[*IDS, []], metavar="ID", help=f"of {', '.join(IDS)}; default all")
    parser.add_argument("--json", action="store_true", help="print rows as JSON")
    parser.add_argument("--quick", action="store_true", help="fewer samples")
    parser.add_argument("--out", type=Path, metavar="FILE", help="also write the rows as JSON to this file")
    return parser


def tick_rows(ids: list[str], quick: bool) -> list[Row]:
    """Measure a tick of 100,000 residents, one thread, and in it the clearing of the 32 markets."""
    ticks = _measure_ticks(groups=5 if quick else 20, each=60 if quick else 100)
    floor_ms = [ticks.state_bytes / (rate * 1e6) for rate in ticks.copy_gb_s]
    median, p99 = np.percentile(ticks.tick_ms, [50, 99])
    ratio = median / float(np.median(floor_ms))
    slowest, fastest = median / max(floor_ms), median / min(floor_ms)
    p50_prices, p99_prices = np.percentile(ticks.prices_ms, [50, 99])
    includes = (
        f"{len(ticks.tick_ms)} ticks after a warm-up of {WARM_UP_TICKS}: intake, seven phases, the report with all"
        " public values, the daily check of the invariants; CPU time of the thread"
    )
    excludes = (
        f"outside orders, state hash, server; {COLD_TICKS} ticks after each copy; warm-up {ticks.warm_up_s:.1f} s"
    )
    rows = [
        Row(
            id="tick_100k",
            value=round(ratio, 2),
            unit="x the time to copy the state's bytes",
            bar=4.2,
            spread=f"{slowest:.2f} to {fastest:.2f} over {len(floor_ms)} copies, interleaved",
            includes=f"median tick {median:.3f} ms (p99 {p99:.3f}); state {ticks.state_bytes / 1e6:.2f} MB; copy of"
            f" {2 * COPY_BYTES / 1e9:.2f} GB at {float(np.median(ticks.copy_gb_s)):.1f} GB/s copied; {includes}",
            excludes=excludes,
        ),
        Row(
            id="tick_100k_p99",
            value=round(p99 / median, 3),
            unit="x the median",
            bar=2.0,
            spread=f"p50 {median:.3f} ms, p99 {p99:.3f} ms, most {max(ticks.tick_ms):.3f} ms",
            includes=includes,
            excludes=excludes,
        ),
        Row(
            id="pricing_100k",
            value=round(float(p99_prices), 4),
            unit="ms",
            bar=0.25,
            spread=f"p50 {p50_prices:.4f} ms, most {max(ticks.prices_ms):.4f} ms of {len(ticks.prices_ms)}",
            includes="p99 of the prices phase: merging, clearing all 32 markets, margins, what is measured of them",
            excludes=excludes,
        ),
    ]
    wanted = {*ids, *(["tick_100k_p99"] if "tick_100k" in ids else [])}
    return [row for row in rows if row.id in wanted]


def bytes_rows(ids: list[str], quick: bool) -> list[Row]:
    """Measure the memory of the arrays that grow with the population, a resident."""
    state = Economy(Config(residents=RESIDENTS), SEED).state
    kept = _resident_bytes(state, {name for name, _ in persistent(state)})
    scratch = _resident_bytes(state, {item.name for item in array_fields()}) - kept
    return [
        Row(
            id="bytes_per_resident",
            value=round(kept / RESIDENTS, 2),
            unit="bytes",
            bar=48.0,
            spread=f"exact; scratch that grows with the population adds {scratch / RESIDENTS:.2f}",
            includes="every array of the world that grows with the population, mean over all kinds of residents",
            excludes="arrays of fixed size (markets, histograms, history), outside agents and their orders",
        )
    ]


def server_rows(ids: list[str], quick: bool) -> list[Row]:
    """Measure a whole server from outside, in a process of its own."""
    if not (ROOT / "loadtest").is_dir():
        raise OSError(f"{', '.join(ids)} need the source tree: run `python3 -m server bench` in a clone")
    command = [sys.executable, "-m", "loadtest.micro.bench_server", *ids, *(["--quick"] if quick else [])]
    path = os.pathsep.join(filter(None, [str(ROOT / "clients" / "python"), os.environ.get("PYTHONPATH")]))
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, "PYTHONPATH": path}, stdout=subprocess.PIPE, text=True, check=False
    )
    if done.returncode != 0:
        raise OSError(f"{' '.join(command[1:])} ended with {done.returncode}")
    return [Row(**json.loads(line)) for line in done.stdout.splitlines()]


#: Programs in the order they run, with the rows each one gives.
PROGRAMS: tuple[tuple[Callable[[list[str], bool], list[Row]], tuple[str, ...]], ...] = (
    (tick_rows, ("tick_100k", "pricing_100k")),
    (bytes_rows, ("bytes_per_resident",)),
    (server_rows, ("start_warm", "memory_100k", "cpu_100k")),
)
IDS = tuple(name for _, ids in PROGRAMS for name in ids)


def _measure_ticks(groups: int, each: int) -> Ticks:
    """Advance a warm world in groups of ticks, with a copy of a large buffer after each group."""
    began = time.perf_counter()
    economy = Economy(Config(residents=RESIDENTS), SEED)
    for _ in range(WARM_UP_TICKS):
        economy.advance()
    buffer = np.ones(2 * COPY_BYTES // 8)
    half = len(buffer) // 2
    warm_up_s = time.perf_counter() - began
    ticks = Ticks([], [], [], _state_bytes(economy.state), warm_up_s)
    marks: dict[str, int] = {}

    def observe(name: str) -> None:
        marks[name] = time.thread_time_ns()

    # as in the server: what lives is out of the collector's sight, and it runs between ticks only
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        for _ in range(groups):
            # the copy has emptied the caches, which is no part of a tick
            for _ in range(COLD_TICKS):
                economy.advance()
            for _ in range(each):
                started = time.thread_time_ns()
                economy.advance(observe=observe)
                ticks.tick_ms.append((time.thread_time_ns() - started) / 1e6)
                ticks.prices_ms.append((marks["prices"] - marks["intake"]) / 1e6)
                gc.collect(0)
            started = time.thread_time_ns()
            buffer[half:] = buffer[:half]
            ticks.copy_gb_s.append(COPY_BYTES / (time.thread_time_ns() - started))
    finally:
        gc.enable()
        gc.unfreeze()
    return ticks


def _state_bytes(state: State) -> int:
    return sum(array.nbytes for _, array in persistent(state))


def _resident_bytes(state: State, names: set[str]) -> int:
    return sum(
        getattr(state, item.name).nbytes
        for item in array_fields()
        if item.name in names and RESIDENT_SIZES & {size for size in item.metadata["shape"] if isinstance(size, str)}
    )


def _table(rows: list[Row]) -> str:
    lines = [f"{'id':<20} {'value':>10}  {'bar':>8}  {'':<4}  unit, spread"]
    for row in rows:
        verdict = "pass" if row.passes else "FAIL"
        lines.append(f"{row.id:<20} {row.value:>10.3f}  {row.bar:>8.2f}  {verdict:<4}  {row.unit}; {row.spread}")
    return "\n".join(lines)


def _progress(text: str) -> None:
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()
