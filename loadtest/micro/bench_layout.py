"""Structure of arrays against a dictionary of objects: the same minds, the same drift, the same result.

    python -m loadtest.micro.bench_layout [--quick] [--out FILE]

Five moods of each resident move toward a market's targets, in the engine's kernel over arrays, over a dictionary of
objects, and over a dictionary of dictionaries, in plain Python as well written as we can. Time and memory, JSON.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
import tracemalloc
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from server import kernel_cache

RESIDENTS = 100_000
TARGETS = (16_000, 2_000, 3_000, 20_000)
MOODS = ("sentiment", "fear", "greed", "confidence", "memory")


class Mind:
    """One resident's moods, with slots: the smallest an object can be."""

    __slots__ = MOODS

    def __init__(self) -> None:
        self.sentiment, self.fear, self.greed, self.confidence, self.memory = 16_384, 1_500, 1_500, 24_000, 16_384


def measure(residents: int, rounds: int) -> dict[str, Any]:
    """Return nanoseconds and bytes per resident of each layout, and their ratios to the arrays'."""
    import numpy as np

    from engine.phases._kernels import draw_all
    from engine.phases._minds import drift
    from server.provenance import revision, this_machine

    arrays, arrays_bytes = _weighed(lambda: {name: _start(np, residents, name) for name in MOODS})
    objects, objects_bytes = _weighed(lambda: {i: Mind() for i in range(residents)})
    tables, tables_bytes = _weighed(lambda: {i: _table() for i in range(residents)})
    draws, sums = np.empty(residents, np.uint32), np.zeros((7, 1), np.int64)
    targets = np.array(TARGETS, np.int64).reshape(4, 1)
    key = np.uint32(1), np.uint32(2)
    feel: tuple[Any, ...] = (0, 0, *key, targets, *(arrays[name] for name in MOODS), draws, sums)
    times: dict[str, list[float]] = {"arrays": [], "objects": [], "dictionaries": []}
    for number in range(rounds + 1):
        took = {
            "arrays": _ns(partial(drift, *feel)),
        }
        draw_all(0, *key, draws)
        noise = draws.tolist()
        took["objects"] = _ns(partial(_drift_objects, objects, noise))
        took["dictionaries"] = _ns(partial(_drift_tables, tables, noise))
        if number:  # the first round compiles
            for name, ns in took.items():
                times[name].append(ns / residents)
    for name in MOODS:
        assert arrays[name].tolist() == [getattr(mind, name) for mind in objects.values()], name
        assert arrays[name].tolist() == [table[name] for table in tables.values()], name
    sizes = {"arrays": arrays_bytes, "objects": objects_bytes, "dictionaries": tables_bytes}
    medians = {name: statistics.median(values) for name, values in times.items()}
    return {
        "name": "layout",
        "residents": residents,
        "rounds": rounds,
        "layouts": {
            name: {
                "ns_per_resident": round(medians[name], 2),
                "spread_ns": [round(min(values), 2), round(max(values), 2)],
                "bytes_per_resident": round(sizes[name] / residents, 1),
                "times_the_arrays": round(medians[name] / medians["arrays"], 1),
            }
            for name, values in times.items()
        },
        "includes": "five moods of every resident drift by the engine's rule, same draws, same results to the bit;"
        " arrays: draws and sums of the market included; the others: plain Python, draws given",
        "excludes": "everything else of a tick; building the residents",
        "revision": revision(),
        "machine": this_machine(),
    }


def _start(np: Any, residents: int, name: str) -> Any:
    return np.full(residents, getattr(Mind(), name), np.int16)


def _table() -> dict[str, int]:
    mind = Mind()
    return {name: getattr(mind, name) for name in MOODS}


def _drift_objects(minds: dict[int, Mind], noise: list[int]) -> None:
    sentiment, fear, greed, confidence = TARGETS
    for i, mind in minds.items():
        rate = 4 + 2 * (i & 3)
        low = noise[i] & ((1 << rate) - 1)
        mind.fear += (fear - mind.fear + low) >> rate
        mind.greed += (greed - mind.greed + low) >> rate
        mind.confidence += (confidence - mind.confidence + low) >> rate
        mind.sentiment = felt = mind.sentiment + ((sentiment - mind.sentiment + low) >> rate)
        mind.memory += (felt - mind.memory + ((noise[i] >> 3) & 4_095)) >> 12


def _drift_tables(minds: dict[int, dict[str, int]], noise: list[int]) -> None:
    sentiment, fear, greed, confidence = TARGETS
    for i, mind in minds.items():
        rate = 4 + 2 * (i & 3)
        low = noise[i] & ((1 << rate) - 1)
        mind["fear"] += (fear - mind["fear"] + low) >> rate
        mind["greed"] += (greed - mind["greed"] + low) >> rate
        mind["confidence"] += (confidence - mind["confidence"] + low) >> rate
        mind["sentiment"] = felt = mind["sentiment"] + ((sentiment - mind["sentiment"] + low) >> rate)
        mind["memory"] += (felt - mind["memory"] + ((noise[i] >> 3) & 4_095)) >> 12


def _ns(work: Callable[[], None]) -> float:
    started = time.thread_time_ns()
    work()
    return float(time.thread_time_ns() - started)


def _weighed(build: Callable[[], Any]) -> tuple[Any, int]:
    """Return what build makes and the bytes it takes."""
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    made = build()
    taken = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    return made, taken


def main() -> None:
    """Measure as the command line says and print or write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--out", type=Path, metavar="FILE")
    given = parser.parse_args()
    kernel_cache.choose()
    text = json.dumps(measure(RESIDENTS, 5 if given.quick else 30), indent=2) + "\n"
    if given.out:
        given.out.write_text(text, encoding="utf-8")
    else:
        sys.stdout.write(text)


if __name__ == "__main__":
    main()
