"""What analyses cost the tick: a server with and without heavy readers of them, in turn, in one sitting.

    python -m loadtest.micro.bench_analytics [--quick] [--out loadtest/results/analytics.json]

The readers ask for everything docs/analytics.md has, one after another, as fast as they are answered. Each pair of
spans is one with readers and one without, in changing order; what is reported is the median of their ratios. Engine
time is the time of all phases, lateness how long after its deadline a tick began, both from /metrics.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from loadtest.process import ROOT, ServerProcess, python, warm

READERS = 8
PATHS = (
    "/api/analysis/efficiency",
    "/api/analysis/arbitrage",
    "/api/analysis/forecasts",
    "/api/analysis/anomalies",
    "/api/indicators?forecast=true",
    "/api/markets/food/impact",
    "/api/markets/oil/impact",
    "/api/markets/food/curves",
    "/api/markets/oil/curves",
    "/api/markets/eq_tech/curves",
)
START_S = 60.0


def measure(folder: Path, quick: bool) -> dict[str, Any]:
    """Return the ratios of a server with readers over one without."""
    pairs, span_s, history_s = (4, 5.0, 20.0) if quick else (8, 10.0, 105.0)
    flags = ("--rate-limit", "10000000", "--snapshot-ticks", "0")
    warm(folder / "world", *flags)
    with ServerProcess(folder / "world", *flags) as server:
        server.wait_ready(START_S)
        # so that there is a full history to analyse
        time.sleep(history_s)
        quiet: list[dict[str, float]] = []
        busy: list[dict[str, float]] = []
        for pair in range(pairs):
            for has_readers in (True, False) if pair % 2 else (False, True):
                (busy if has_readers else quiet).append(_span(server, span_s, has_readers))
        server.stop()
    return {
        "pairs": pairs,
        "span_s": span_s,
        "readers": READERS,
        "answers_per_s": _spread([span["answers"] for span in busy]),
        "made_per_s": _spread([span["made"] for span in busy]),
        "engine_ms_without": _spread([span["engine_ms"] for span in quiet]),
        "engine_ms_with": _spread([span["engine_ms"] for span in busy]),
        "engine_ratio": _spread([b["engine_ms"] / q["engine_ms"] for b, q in zip(busy, quiet, strict=True)]),
        "lateness_ms_without": _spread([span["lateness_ms"] for span in quiet]),
        "lateness_ms_with": _spread([span["lateness_ms"] for span in busy]),
        "lateness_ratio": _spread([b["lateness_ms"] / q["lateness_ms"] for b, q in zip(busy, quiet, strict=True)]),
        "publish_ms_without": _spread([span["total_ms"] for span in quiet]),
        "publish_ms_with": _spread([span["total_ms"] for span in busy]),
        "late_ticks_without": sum(span["late"] for span in quiet),
        "late_ticks_with": sum(span["late"] for span in busy),
    }


def _span(server: ServerProcess, span_s: float, has_readers: bool) -> dict[str, float]:
    """Return what the ticks of a span took, with readers or without."""
    readers = python("-m", "loadtest.micro.bench_analytics", "--read", server.url) if has_readers else None
    # readers connect, caches fill
    time.sleep(1.0)
    before = server.samples()
    time.sleep(span_s)
    after = server.samples()
    if readers is not None:
        readers.kill()
        readers.wait()

    def gained(name: str) -> float:
        return sum(value - before.get(key, 0.0) for key, value in after.items() if key.split("{")[0] == name)

    ticks = gained("arena_ticks_total")
    analyses = sum(
        value - before.get(key, 0.0)
        for key, value in after.items()
        if key.startswith("arena_http_requests_total") and any(part in key for part in ("analysis", "curves", "impact"))
    )
    return {
        "engine_ms": 1e3 * gained("arena_tick_seconds_sum") / ticks,
        "lateness_ms": 1e3 * gained("arena_tick_lateness_seconds_sum") / ticks,
        "total_ms": 1e3 * gained("arena_tick_total_seconds_sum") / ticks,
        "late": gained("arena_ticks_late_total"),
        "answers": analyses / span_s,
        "made": gained("arena_analysis_seconds_count") / span_s,
    }


def _spread(values: list[float]) -> dict[str, float]:
    ordered = sorted(values)
    quarter = len(ordered) // 4
    return {
        "median": round(statistics.median(ordered), 4),
        "low": round(ordered[quarter], 4),
        "high": round(ordered[-1 - quarter], 4),
    }


def _read(url: str) -> None:
    """Ask for everything, with READERS readers, until killed."""
    host = urlsplit(url).netloc

    def one(number: int) -> None:
        connection = http.client.HTTPConnection(host, timeout=30.0)
        turn = number
        while True:
            connection.request("GET", PATHS[turn % len(PATHS)])
            answer = connection.getresponse()
            answer.read()
            if answer.status != 200:
                raise RuntimeError(f"GET {PATHS[turn % len(PATHS)]}: {answer.status}")
            turn += 1

    readers = [threading.Thread(target=one, args=(number,)) for number in range(READERS)]
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join()


def _revision() -> str:
    done = subprocess.run(
        ["git", "rev-parse", "--short=12", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return done.stdout.strip() or "not a clone"


def main() -> None:
    """Measure and print, or write, one JSON document; with --read be the readers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--read", metavar="URL")
    given = parser.parse_args()
    if given.read:
        _read(given.read)
        return
    with tempfile.TemporaryDirectory(prefix="arena-bench-") as folder:
        found = measure(Path(folder), given.quick)
    about = {
        "name": "analytics",
        "revision": _revision(),
        "machine": f"{os.cpu_count()} cores, {platform.system()}, Python {platform.python_version()}",
        "load_1m": round(os.getloadavg()[0], 1),
        "includes": "100,000 residents, a history of 1,000 ticks, every analysis of docs/analytics.md; medians and "
        "quartiles over spans, ratios of neighbouring spans",
        "excludes": "the readers' own process, on the same machine",
    }
    text = json.dumps(about | found, indent=2) + "\n"
    sys.stdout.write(text)
    if given.out:
        given.out.write_text(text)


if __name__ == "__main__":
    main()
