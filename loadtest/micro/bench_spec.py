"""Document 004's performance table, measured in one run: agents, updates, API, WebSocket, memory, processor.

    python -m loadtest.micro.bench_spec spec_agents spec_api [--quick]

`arena bench` calls it. Prints one JSON row per number, as bench_server does. The load is the profile `responses` of
locust, beside receivers in C and a crowd of registered outside agents.
Source: specification 004, Scalability Targets.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import time
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from loadtest import scrape
from loadtest.firehose import connect, register
from loadtest.locust.__main__ import Counted, run
from loadtest.locust.profiles import PROFILES
from loadtest.micro.bench_server import Row, row
from loadtest.micro.native import Receiver
from loadtest.open_files import make_room
from loadtest.target import target

PROFILE = "responses"
RESIDENTS = 100_000
CROWD, CROWD_QUICK = 100_000, 2_000
"""Outside agents that are registered beside those that act: registering is what takes the time."""
AGENTS_OF_AN_OWNER = 10
CONNECTIONS = 32
"""That register: each waits for its answer, and one sync of the journal serves all that wait."""
CHANNEL, IN_C = "market_tick", 950
ROOM_FOR_AGENTS = 1_000
IDS = ("spec_agents", "spec_updates", "spec_api", "spec_websocket", "spec_memory", "spec_cpu")


class Seen(NamedTuple):
    """What a run has shown.

    agents: outside agents registered at its end. register_s: the crowd took. received: the report of receiver.c.
    """

    agents: int
    register_s: float
    load: Counted
    received: dict[str, Any]


def measure(quick: bool) -> Seen:
    """Run a server under the load and return what was seen. Raises RuntimeError when a part of the load fails."""
    crowd = CROWD_QUICK if quick else CROWD
    make_room(IN_C + PROFILES[PROFILE].users)
    with target(None, "--residents", str(RESIDENTS), "--max-agents", str(crowd + ROOM_FOR_AGENTS)) as url:
        began = time.monotonic()
        asyncio.run(_crowd(url, crowd))
        register_s = time.monotonic() - began
        with Receiver(urlsplit(url).port or 80, IN_C, CHANNEL, core=None) as receiver:
            receiver.command("begin")
            load = run(PROFILE, url)
            received = receiver.command("report")
            agents = int(scrape.read(url)["arena_agents"])
    if received["open"] < IN_C or received["gaps"] or received["lagged"]:
        raise RuntimeError(f"of {IN_C} receivers not all followed: {received}")
    return Seen(agents, register_s, load, received)


async def _crowd(url: str, agents: int) -> None:
    """Register so many agents that then do nothing."""
    connections = await connect(url, CONNECTIONS)
    await register(connections, agents // AGENTS_OF_AN_OWNER, AGENTS_OF_AN_OWNER)
    for one in connections:
        one.close()


def rows(seen: Seen) -> list[Row]:
    """Return the table: each number with document 004's target as its bar."""
    load, profile, cores = seen.load, PROFILES[PROFILE], os.cpu_count() or 1
    text = (
        f"{RESIDENTS:,} residents and {seen.agents:,} outside agents; {profile.agents} bots with an action a second,"
        f" {profile.readers * profile.reads_per_s:.0f} reads a second over all routes, {profile.subscribers + IN_C}"
        f" subscribers of market_tick; {load.ticks['executed']} ticks, durable journal"
    )
    excludes = "the customers' own processes, on the same cores; compiling and settling, done by a start before"
    acts, reads, frames = (
        {share: load.percentile_ms(kind, share) for share in (0.5, 0.95, 0.99)} for kind in ("AGENT", "READ", "STREAM")
    )
    megabytes = [mb for _, mb in load.memory]
    return [
        row(
            "spec_agents",
            RESIDENTS + seen.agents,
            "agents at once",
            100_000.0,
            at_least=True,
            spread=f"{RESIDENTS:,} inside, {seen.agents:,} from outside, registered in {seen.register_s:.0f} s",
            includes=f"the world's own agents and registered outside ones while ticks took"
            f" {load.ticks['ms_mean']:.1f} ms; {text}",
            excludes="nothing",
        ),
        row(
            "spec_updates",
            load.ticks["ms_p99"],
            "ms",
            100.0,
            spread=f"mean {load.ticks['ms_mean']:.1f} ms, {load.ticks['late']} of {load.ticks['executed']} late",
            includes=f"p99: from a tick's deadline to its publication, the mark's sync included; {text}",
            excludes=excludes,
        ),
        row(
            "spec_api",
            max(acts[0.99], reads[0.99]),
            "ms",
            50.0,
            spread=f"p50, p95, p99: reads {reads[0.5]:g}, {reads[0.95]:g}, {reads[0.99]:g},"
            f" actions {acts[0.5]:g}, {acts[0.95]:g}, {acts[0.99]:g}",
            includes=f"p99 of reads or of durable actions, the higher, from when due until locust had it; {text}",
            excludes="analyses, which are computed beside the tick for whoever asks first",
        ),
        row(
            "spec_websocket",
            seen.received["latency_ms"]["p99"],
            "ms",
            10.0,
            spread=f"p50 {seen.received['latency_ms']['p50']:g} ms; the {profile.subscribers} of locust: p50"
            f" {frames[0.5]:g}, p99 {frames[0.99]:g} ms",
            includes=f"p99: from the publication of a tick until a subscriber had all of its frame, one clock,"
            f" {IN_C} subscribers in C; {text}",
            excludes="what the subscriber does with it; Python's time to read it",
        ),
        row(
            "spec_memory",
            max(megabytes, default=0.0),
            "MB",
            4_000.0,
            spread=f"{min(megabytes, default=0.0):.0f} to {max(megabytes, default=0.0):.0f}",
            includes=f"highest resident memory of the server process (1 MB = 1e6 B); {text}",
            excludes=excludes,
        ),
        row(
            "spec_cpu",
            100 * load.server_cpu / cores,
            "% of the machine",
            80.0,
            spread=f"{cores} cores, {100 * load.server_cpu:.1f} % of one; locust {100 * load.locust_cpu:.1f} %",
            includes=f"user and system time of the server process; {text}",
            excludes=excludes,
        ),
    ]


def main() -> None:
    """Measure once and print the rows asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ids", nargs="+", choices=IDS)
    parser.add_argument("--quick", action="store_true", help="a smaller crowd")
    given = parser.parse_args()
    for measured in rows(measure(given.quick)):
        if measured["id"] in given.ids:
            sys.stdout.write(json.dumps(measured) + "\n")


if __name__ == "__main__":
    main()
