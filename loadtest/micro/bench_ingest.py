"""Rows about batches of actions: what a form costs to read and check, and how many actions a whole server takes.

    python -m loadtest.micro.bench_ingest batch_columns ingest_durable [--quick]

`arena bench` calls it. Prints one JSON row per number: id, value, unit, bar, spread, includes, excludes.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from arena_client.columns import encode_columns

from loadtest import crowd
from loadtest.micro.bench_server import Row, row
from server import kernel_cache

ACTIONS = 1_000
RATE = 110_000.0
"""Actions a second that are sent: a tenth more than the bar."""
OWNERS, AGENTS = 100, 10_000
RESIDENTS = 100_000


def batch_columns(folder: Path, quick: bool) -> list[Row]:
    """CPU time to decode and check 1,000 actions as typed arrays and as JSON objects, in turns."""
    # before any kernel is imported
    kernel_cache.choose()
    from engine.columns import to_rows
    from engine.ladder import prices
    from engine.messages import ACTION
    from server import batches, bodies
    from server.live.receipts import VALIDITY_TICKS, VALIDITY_TICKS_MAX

    objects, typed = _bodies()
    rows, is_good = np.empty(ACTIONS, ACTION), np.empty(ACTIONS, np.uint8)
    ladder = prices()

    def checked(body: bytes, media: str) -> bytes:
        batch = batches.read(bodies.decode(body, media, (bodies.JSON, bodies.MSGPACK), binary=True))
        to_rows(batch.columns, ladder, 0, VALIDITY_TICKS, VALIDITY_TICKS_MAX, rows, is_good)
        assert is_good.all()
        return rows.tobytes()

    assert checked(objects, bodies.JSON) == checked(typed, bodies.MSGPACK), "the forms are not the same actions"
    ratios, typed_ns, object_ns = [], [], []
    for _ in range(20 if quick else 100):
        one = _cpu_ns(lambda: checked(typed, bodies.MSGPACK), 20)
        other = _cpu_ns(lambda: checked(objects, bodies.JSON), 2)
        ratios.append(other / one)
        typed_ns.append(one / ACTIONS)
        object_ns.append(other / ACTIONS)
    millions = [1_000 / ns for ns in typed_ns]
    includes = (
        f"{ACTIONS} orders of 100 agents: a body's bytes to rows of the world, every rule of shape checked; typed"
        f" arrays {statistics.median(typed_ns):.0f} ns an action, JSON objects {statistics.median(object_ns):.0f}; CPU"
        f" time, medians of {len(ratios)} blocks in turns"
    )
    excludes = "HTTP, whose agents they are, receipts, journal"
    return [
        row(
            "batch_columns",
            statistics.median(ratios),
            "x the time of the same batch as JSON objects",
            10.0,
            spread=f"{min(ratios):.1f} to {max(ratios):.1f}",
            includes=includes,
            excludes=excludes,
            at_least=True,
        ),
        row(
            "batch_columns_rate",
            statistics.median(millions),
            "million actions a second, decoded and checked, one core",
            10.0,
            spread=f"{min(millions):.1f} to {max(millions):.1f}",
            includes=includes,
            excludes=excludes,
            at_least=True,
        ),
    ]


def _bodies() -> tuple[bytes, bytes]:
    """Return the same orders as JSON objects and as typed arrays."""
    from engine.markets import NAMES

    draw = random.Random(1)
    items = [
        {
            "agent_id": f"a{1 + i % 100}",
            "client_action_id": f"order-{i}",
            "type": "limit",
            "market": draw.choice(NAMES),
            "side": draw.choice(("buy", "sell")),
            "quantity": draw.randint(1, 100),
            "price": f"{draw.uniform(0.5, 500.0):.4f}",
            "time_in_force": "ioc",
        }
        for i in range(ACTIONS)
    ]
    columns = {name: [item[name] for item in items] for name in items[0]}
    columns["market"] = [NAMES.index(name) for name in columns["market"]]
    return json.dumps({"actions": items}, separators=(",", ":")).encode(), encode_columns(columns)


def _cpu_ns(work: Callable[[], Any], count: int) -> float:
    began = time.thread_time_ns()
    for _ in range(count):
        work()
    return (time.thread_time_ns() - began) / count


def ingest_durable(folder: Path, quick: bool) -> list[Row]:
    """Actions a second that a whole server takes in batches from many owners, acknowledged when on disk."""
    result = crowd.measure(
        argparse.Namespace(
            residents=RESIDENTS, agents=AGENTS, owners=OWNERS, batch=ACTIONS, rate=RATE, queue=65_536, connections=16,
            seconds=10.0 if quick else 60.0,
        ),
        folder,
    )  # fmt: skip
    sent, server = result["sent"], result["server"]
    share = server["share_within_ms"]
    seen = (
        f"{OWNERS} owners of {AGENTS} agents, {RESIDENTS} residents, batches of {ACTIONS} as typed arrays over"
        f" {sent['connections']} connections, {sent['rate_per_s']:.0f} a second sent for {sent['seconds']:.0f} s,"
        f" {sent['refused']} refused; acknowledged p50 {sent['ack_ms_p50']:.1f} ms, p99 {sent['ack_ms_p99']:.1f} ms;"
        f" {server['actions_per_tick']:.0f} actions a tick, {server['ticks_late']} ticks late; server"
        f" {result['processor_cores']:.2f} cores, {result['memory']['rss_mb_most']:.0f} MB"
    )
    return [
        row(
            "ingest_durable",
            sent["accepted_per_s"],
            "actions a second, acknowledged on disk and in the tick",
            100_000.0,
            spread=f"one run of {sent['seconds']:.0f} s",
            includes=seen,
            excludes="whoever sends (same machine, its own process); compiling",
            at_least=True,
        ),
        row(
            "ingest_durable_ticks",
            100.0 * share["0.02"],
            "% of ticks that began within 20 ms of when they were due",
            99.0,
            spread=f"{100 * share['0.01']:.2f} % within 10 ms, {100 * share['0.05']:.2f} % within 50 ms",
            includes=seen,
            excludes="whoever sends (same machine, its own process); compiling",
            at_least=True,
        ),
    ]


PROGRAMS = {
    "batch_columns": batch_columns,
    "batch_columns_rate": batch_columns,
    "ingest_durable": ingest_durable,
    "ingest_durable_ticks": ingest_durable,
}


def main() -> None:
    """Measure the rows asked for, each program once, and print them as they come."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ids", nargs="+", choices=list(PROGRAMS))
    parser.add_argument("--quick", action="store_true")
    given = parser.parse_args()
    wanted = set(given.ids)
    # a number and what it says nothing of go together
    wanted |= {f"{name}_rate" for name in wanted} | {f"{name}_ticks" for name in wanted}
    for program in dict.fromkeys(PROGRAMS[name] for name in given.ids):
        with tempfile.TemporaryDirectory(prefix="arena-bench-") as folder:
            for measured in program(Path(folder), given.quick):
                if measured["id"] in wanted:
                    sys.stdout.write(json.dumps(measured) + "\n")
                    sys.stdout.flush()


if __name__ == "__main__":
    main()
