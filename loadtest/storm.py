"""Ten thousand subscribers cut at once and back at once: when are all in step again, and what do ticks notice?

    python -m loadtest.storm [--subscribers 10000] [--storms 5] [--out loadtest/results/storm.json]

A real server of 100,000 residents ticks on while every connection is closed and opened again in the same moment, each
resuming where it stood. In step is who has had a frame younger than two ticks. It holds when all are in step within
15 s, each resumed and without a gap, 99 of 100 ticks meanwhile begin less than 20 ms late, and 99 of 100 frames are
younger than two ticks when all has been caught up with. Status 1 when it does not hold.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

from loadtest import scrape
from loadtest.micro.native import Receiver
from loadtest.process import ServerProcess, warm_server
from loadtest.verdict import conclude

CALM_S = 5.0
"""Between two storms."""
IN_STEP_S = 15.0
STEP_S = 0.2
"""Two ticks."""
LATE_SHARE = 0.01
"""Of the ticks of all storms may begin 20 ms late or more."""


def run(server: ServerProcess, subscribers: int, channel: str, storms: int, calm_s: float = CALM_S) -> dict[str, Any]:
    """Let storms come over a server, calm_s apart, and return what was seen."""
    seen = []
    with Receiver(server.port, subscribers, channel, core=None) as receiver:
        for _ in range(storms):
            time.sleep(calm_s)
            before = server.samples()
            storm = receiver.command("storm")
            seen.append({**storm, **_ticks(scrape.since(before, server.samples()))})
        # what was sent meanwhile is caught up with first: its frames are as old as the storm
        time.sleep(calm_s)
        receiver.command("begin")
        time.sleep(calm_s)
        afterwards = receiver.command("report")
    return {"subscribers": subscribers, "channel": channel, "storms": seen, "afterwards": afterwards}


def _ticks(more: scrape.Samples) -> dict[str, float]:
    """Return how many ticks began between two readings of the metrics, and how many of them late."""
    begun = scrape.begun(more)
    return {
        "ticks": begun,
        "ticks_20_ms_late": begun - scrape.begun(more, "0.02"),
        "ticks_50_ms_late": begun - scrape.begun(more, "0.05"),
        "lateness_mean_ms": round(1e3 * more[f"{scrape.LATENESS}_sum"] / max(1.0, begun), 3),
    }


def check(result: dict[str, Any]) -> dict[str, bool]:
    """Return what had to hold, and whether it did."""
    storms = result["storms"]
    ticks, late = (sum(storm[name] for storm in storms) for name in ("ticks", "ticks_20_ms_late"))
    return {
        "everybody came back": all(storm["in_step"] == result["subscribers"] for storm in storms),
        "in step within 15 s": all(0 <= storm["in_step_s"] <= IN_STEP_S for storm in storms),
        "nobody was refused or lost": all(storm["lost"] == 0 for storm in storms),
        "everybody resumed": all(storm["resumed"] == result["subscribers"] for storm in storms),
        "no gap": all(one["gaps"] == one["lagged"] == 0 for one in (*storms, result["afterwards"])),
        "in step afterwards": result["afterwards"]["latency_ms"]["p99"] <= 1e3 * STEP_S,
        "tick lateness p99 below 20 ms": late <= LATE_SHARE * ticks,
    }


def main() -> None:
    """Start a server, let storms come, print, and leave 1 when something did not hold."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--subscribers", type=int, default=10_000)
    parser.add_argument("--channel", default="market_tick")
    parser.add_argument("--storms", type=int, default=5)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    with warm_server() as server:
        result = run(server, given.subscribers, given.channel, given.storms)
    sys.exit(conclude(result, check(result), given.out))


if __name__ == "__main__":
    main()
