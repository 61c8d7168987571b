"""Rows about a whole server, seen from outside: start, memory, processor, recovery, replay.

    python -m loadtest.micro.bench_server memory_100k cpu_100k start_warm [--quick]

`arena bench` calls it. Prints one JSON row per number: id, value, unit, bar, spread, includes, excludes.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from loadtest.process import FIRST_START_S, ServerProcess, python, warm

START_S = 60.0
TICKS_A_SECOND = 10
LOAD = "100,000 residents, 1,000 WebSocket subscribers of market_tick, 200 actions/s of 20 bots, durable journal"
EXCLUDED = "the customers' own processes (same machine); compiling and settling, done by a start before"

Row = dict[str, Any]


def start_warm(folder: Path, quick: bool) -> list[Row]:
    """Time from the command to /readyz when kernels and the warm state are cached."""
    data = folder / "world"
    first_s = warm(data)
    times = []
    for _ in range(3 if quick else 7):
        with ServerProcess(data) as server:
            times.append(server.wait_ready(START_S))
            server.stop()
    return [
        row(
            "start_warm",
            statistics.median(times),
            "s",
            3.0,
            spread=f"{min(times):.2f} to {max(times):.2f} of {len(times)}",
            includes="interpreter, imports, kernels from numba's cache, warm state from the data folder, the journal "
            f"of the starts before (a few ticks each); the first start of this folder took {first_s:.1f} s",
            excludes="the replay of a long journal",
        )
    ]


def load(folder: Path, quick: bool) -> list[Row]:
    """Memory and processor time of a server under the load of LOAD."""
    settle_s, measure_s = (5.0, 10.0) if quick else (15.0, 60.0)
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    # what a first start needs for compiling is not what a server needs
    warm(folder / "world")
    with ServerProcess(folder / "world") as server:
        server.wait_ready(START_S)
        customers = [
            python("-m", "loadtest.swarm", "--url", server.url, "--subscribers", "1000", **pipes),
            python("-m", "loadtest.bots", "--url", server.url, "--bots", "20", "--rate", "200", **pipes),
        ]
        try:
            for customer in customers:
                assert customer.stdout is not None
                if customer.stdout.readline() != "connected\n":
                    raise RuntimeError(f"a customer did not connect; the server says: {server.last_lines()}")
            time.sleep(settle_s)
            tick, cpu, began = server.document("/api/time")["tick"], server.cpu_seconds(), time.monotonic()
            resident = []
            while time.monotonic() - began < measure_s:
                resident.append(server.rss_bytes() / 1e6)
                time.sleep(1.0)
            wall = time.monotonic() - began
            share = 100 * (server.cpu_seconds() - cpu) / wall / (os.cpu_count() or 1)
            ticks = server.document("/api/time")["tick"] - tick
            swarm, bots = (json.loads(customer.communicate()[0].splitlines()[-1]) for customer in customers)
        finally:
            for customer in customers:
                customer.kill()
                customer.wait()
        server.stop()
    accepted = bots["outcomes"].get("accepted", 0)
    seen = (
        f"{LOAD}; in {wall:.0f} s {ticks} ticks, {swarm['frames_fewest']} to {swarm['frames_most']} frames each"
        f" ({len(swarm['lost'])} lost), {accepted} of {bots['actions']} actions taken, p99 {bots['ack_ms_p99']:.1f} ms"
    )
    return [
        row(
            "memory_100k",
            max(resident),
            "MB",
            400.0,
            spread=f"{min(resident):.0f} to {max(resident):.0f}",
            includes=f"highest resident memory of the server process (1 MB = 1e6 B); {seen}",
            excludes=EXCLUDED,
        ),
        row(
            "cpu_100k",
            share,
            "% of the machine",
            30.0,
            spread=f"{os.cpu_count()} cores, {share * (os.cpu_count() or 1):.1f} % of one",
            includes=f"user and system time of the server process; {seen}",
            excludes=EXCLUDED,
        ),
    ]


def recovery(folder: Path, quick: bool) -> list[Row]:
    """Time from kill -9 to the first tick that is new, and how fast the same journal is replayed headless."""
    data, times, replays = folder / "world", [], []
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    with ServerProcess(data) as server:
        server.wait_ready(FIRST_START_S)
        # past two snapshots, so that a start has nearly the most to replay that it ever has
        _wait_tick(server, server.document("/api/time")["tick"] + (700 if quick else 1_450))
    for _ in range(3 if quick else 7):
        with ServerProcess(data) as server:
            server.wait_ready(START_S)
            _wait_tick(server, server.document("/api/time")["tick"] + 100)
            before = server.kill()
            # the tick the killed process may have shown, and one more
            began = time.monotonic()
        with ServerProcess(data) as server:
            server.wait_ready(START_S)
            _wait_tick(server, before + 1)
            times.append(time.monotonic() - began)
            server.stop()
        said = python("-m", "server", "replay", str(data), "--check", **pipes).communicate()[0]
        replays.append(float(said.split(" ticks a second")[0].rsplit(" ", 1)[1]) / TICKS_A_SECOND)
    return [
        row(
            "recovery_100k",
            statistics.median(times),
            "s",
            3.0,
            spread=f"{min(times):.2f} to {max(times):.2f} of {len(times)}",
            includes="kill -9 to the first tick that was not there before: interpreter, imports, cached kernels, a"
            " snapshot, the replay of the ticks behind it (at most 600), one new tick; 100,000 residents, idle",
            excludes="compiling; a supervisor's delay before it starts the process again",
        ),
        row(
            "replay_100k",
            statistics.median(replays),
            "x real time",
            70.0,
            spread=f"{min(replays):.0f} to {max(replays):.0f} of {len(replays)}",
            includes="`arena replay --check` of that world from its first tick: ticks a second by its own count, every"
            " stored hash compared (one every ten ticks, taken by a second thread), over ten a second; 100,000"
            " residents, idle",
            excludes="reading the journal once before, loading kernels and the warm start",
            at_least=True,
        ),
    ]


def _wait_tick(server: ServerProcess, tick: int) -> None:
    while server.document("/api/time")["tick"] < tick:
        time.sleep(0.02)


def row(
    name: str,
    value: float,
    unit: str,
    bar: float,
    *,
    spread: str,
    includes: str,
    excludes: str,
    at_least: bool = False,
) -> Row:
    """Return one measured number; it passes when it is at most its bar, with at_least when it is at least that."""
    return {
        "id": name,
        "value": round(value, 3),
        "unit": unit,
        "bar": bar,
        "spread": spread,
        "includes": includes,
        "excludes": excludes,
        "at_least": at_least,
    }


PROGRAMS = {
    "start_warm": start_warm,
    "memory_100k": load,
    "cpu_100k": load,
    "recovery_100k": recovery,
    "replay_100k": recovery,
}


def main() -> None:
    """Measure the rows asked for, each program once, and print them as they come."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ids", nargs="+", choices=list(PROGRAMS))
    parser.add_argument("--quick", action="store_true")
    given = parser.parse_args()
    for program in dict.fromkeys(PROGRAMS[name] for name in given.ids):
        with tempfile.TemporaryDirectory(prefix="arena-bench-") as folder:
            for measured in program(Path(folder), given.quick):
                if measured["id"] in given.ids:
                    sys.stdout.write(json.dumps(measured) + "\n")
                    sys.stdout.flush()


if __name__ == "__main__":
    main()
