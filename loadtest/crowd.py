"""A crowd of outside agents on a whole server: 10,000 actions a tick for minutes, and a flood of more than it admits.

    python -m loadtest.crowd crowd --out loadtest/results/crowd.json           100,000 agents, 5 minutes
    python -m loadtest.crowd flood --out loadtest/results/flood.json           four times what is admitted
    python -m loadtest.crowd crowd --agents 2000 --owners 200 --batch 100 --rate 5000 --seconds 10 --residents 2000

Batches are as large as they may be: ten times as many, a tenth as large, took a core of the server instead of 0.7.
Prints one JSON object; status 1 when one of its checks fails. Everything runs on this machine: the server, and in a
process of its own whoever sends. Every action is durable before it is acknowledged.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from loadtest import scrape
from loadtest.micro.native import Stalls
from loadtest.process import ServerProcess, python, warm
from loadtest.verdict import conclude

START_S = 120.0
SAMPLE_EVERY_S = 1.0
RSS_BYTES_MAX = 1_000_000_000
ON_TIME_SHARE = 0.99
"""Of ticks that must begin within 20 ms of when they are due."""
BEGAN_LATE = "tick_began_late"
BEGAN_LATE_FIELDS = ("tick", "lateness_ms", "stalled_ms", "waited_ms", "before_ms")
LINES_MAX = 100
"""Ticks later than 50 ms of which the result says what the machine and the event loop did meanwhile."""
PERIOD_S = 0.1
ACK_MS_MAX = 50.0
OVER = 4.0
"""A flood sends so many times what is admitted."""

Document = dict[str, Any]


def measure(given: argparse.Namespace, folder: Path) -> Document:
    """Run a server and whoever sends, and return what was seen."""
    agents_each = given.agents // given.owners
    flags = (
        "--residents", str(given.residents), "--rate-limit", "10000000", "--max-agents", str(max(given.agents, 16)),
        "--agents-per-owner-max", str(max(10, agents_each)), "--queue-actions-max", str(given.queue),
    )  # fmt: skip
    data = folder / "world"
    # what a first start needs for compiling is not what a server needs
    warm(data, *flags)
    with ServerProcess(data, *flags) as server, Stalls() as machine:
        server.wait_ready(START_S)
        sender = python(
            "-m", "loadtest.firehose", "--url", server.url, "--owners", str(given.owners), "--agents", str(agents_each),
            "--batch", str(given.batch), "--rate", str(given.rate), "--connections", str(given.connections),
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip
        try:
            assert sender.stdout is not None
            if sender.stdout.readline() != "connected\n":
                raise RuntimeError(f"nobody connected; the server says: {server.last_lines()}")
            said = len(server.said(BEGAN_LATE))
            before, cpu, rss, began = server.samples(), server.cpu_seconds(), [server.rss_bytes()], time.monotonic()
            while time.monotonic() - began < given.seconds:
                time.sleep(SAMPLE_EVERY_S)
                rss.append(server.rss_bytes())
            after, ended = server.samples(), time.monotonic()
            wall, stalls = ended - began, machine.report()
            cpu = server.cpu_seconds() - cpu
            began_late = server.said(BEGAN_LATE)[said:]
            sent = json.loads(sender.communicate()[0].splitlines()[-1])
        finally:
            sender.kill()
            sender.wait()
        whole = server.samples_after_a_tick()
        stopping = time.monotonic()
        status = server.stop()
        stopped_s = time.monotonic() - stopping
    with ServerProcess(data, *flags) as server:
        restart_s = server.wait_ready(START_S)
        server.stop()
    return {
        "residents": given.residents,
        "queue_actions_max": given.queue,
        "sent": sent,
        "server": _seen(scrape.since(before, after), wall),
        "stood_still": _stood_still(stalls, began, ended) if machine.is_granted else None,
        "began_late": [
            {name: line[name] for name in BEGAN_LATE_FIELDS} | {"machine_ms": _longest_ms(stalls, line)}
            for line in began_late[:LINES_MAX]
        ],
        "accepted_by_server": _accepted(whole),
        "memory": {"rss_mb_first": rss[0] / 1e6, "rss_mb_most": max(rss) / 1e6, "rss_mb_last": rss[-1] / 1e6},
        "receipts": {
            name: whole[f"arena_{name}"]
            for name in ("receipts", "receipts_in_memory", "receipt_index_bytes", "receipt_generations")
        },
        "processor_cores": cpu / wall,
        "disk_mb": sum(path.stat().st_size for path in data.rglob("*") if path.is_file()) / 1e6,
        "exit_status": status,
        "stopped_s": stopped_s,
        "restart_s": restart_s,
    }


def _stood_still(stalls: list[tuple[float, float]], began: float, ended: float) -> Document:
    """Return how often and how long a processor stood still for 3 ms or more, each of them for itself."""
    lengths_ms = [1e3 * (end - begin) for begin, end in stalls if end > began and begin < ended]
    return {"stalls": len(lengths_ms), "stalled_ms": sum(lengths_ms), "longest_ms": max(lengths_ms, default=0.0)}


def _longest_ms(stalls: list[tuple[float, float]], line: Mapping[str, Any]) -> float:
    """Return the longest time a processor stood still between the tick before a late one was due and its begin."""
    monotonic = datetime.fromisoformat(line["timestamp"]).timestamp() - (time.time() - time.monotonic())
    since = monotonic - float(line["lateness_ms"]) / 1e3 - PERIOD_S
    return 1e3 * max([0.0, *(min(end, monotonic) - max(begin, since) for begin, end in stalls)])


def _seen(more: Mapping[str, float], wall: float) -> Document:
    """Return what the server counted in wall seconds."""
    ticks = scrape.ticks(more)
    return {
        "seconds": wall,
        "ticks": ticks["executed"],
        "ticks_late": ticks["late"],
        "scheduler_stalls": ticks["scheduler_stalls"],
        "share_within_ms": {
            bound: scrape.begun(more, bound) / max(1.0, scrape.begun(more)) for bound in ("0.01", "0.02", "0.05", "0.1")
        },
        "actions_per_tick": _accepted(more) / max(1.0, ticks["executed"]),
        "tick_ms_mean": ticks["ms_mean"],
        "journal_mb": more["arena_journal_bytes_total"] / 1e6,
        "sync_ms_mean": ticks["sync_ms_mean"],
        "batches_refused": int(more["arena_batches_refused_total"]),
    }


def _accepted(samples: Mapping[str, float]) -> float:
    """Return how many actions were accepted at the door."""
    return scrape.total(samples, "arena_actions_total", 'outcome="accepted"')


def checks(kind: str, result: Document) -> dict[str, bool]:
    """Return what must hold, by name."""
    sent, server = result["sent"], result["server"]
    held = {
        "ticks begin on time": server["share_within_ms"]["0.02"] >= ON_TIME_SHARE and server["ticks_late"] == 0,
        "no tick is left out": server["ticks"] >= 10 * server["seconds"] - 2,
        "who was told of an acknowledgement is in the journal": sent["accepted"] == result["accepted_by_server"],
        "the server drained": result["exit_status"] == 0,
        "acknowledged in time: p99 < 50 ms": 0 < sent["ack_ms_p99"] < ACK_MS_MAX,
    }
    if kind == "crowd":
        return held | {
            "every action was accepted": sent["refused"] == 0 and set(sent["batches"]) == {"202"},
            "as many as were to be sent": sent["accepted_per_s"] >= 0.98 * sent["rate_per_s"],
            "memory stays below 1 GB": result["memory"]["rss_mb_most"] * 1e6 < RSS_BYTES_MAX,
        }
    return held | {
        "much was refused, and cleanly": sent["refused"] > 0 and set(sent["batches"]) <= {"202", "429"},
        "as much as fits was accepted": server["actions_per_tick"] >= 0.5 * result["queue_actions_max"],
    }


def main() -> int:
    """Read the command line, run, print; return 1 when a check fails."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=("crowd", "flood"))
    parser.add_argument("--residents", type=int, default=100_000)
    parser.add_argument("--agents", type=int, help="outside agents; 100,000, in a flood 10,000")
    parser.add_argument("--owners", type=int, help="who they belong to; 1,000, in a flood 100")
    parser.add_argument("--batch", type=int, default=1_000, help="actions in a batch, at most 1,000")
    parser.add_argument("--rate", type=float, help="actions a second; 100,000, in a flood four times the queue a tick")
    parser.add_argument("--seconds", type=float, default=300.0)
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--queue", type=int, help="actions that may wait for a tick; 65,536, in a flood 15,000")
    parser.add_argument("--out", type=Path, metavar="FILE", help="also write the result as JSON to this file")
    given = parser.parse_args()
    is_crowd = given.kind == "crowd"
    given.agents = given.agents or (100_000 if is_crowd else 10_000)
    given.owners = given.owners or (1_000 if is_crowd else 100)
    given.queue = given.queue or (65_536 if is_crowd else 15_000)
    given.rate = given.rate or (100_000.0 if is_crowd else OVER * 10 * given.queue)
    with tempfile.TemporaryDirectory(prefix="arena-crowd-") as folder:
        result = measure(given, Path(folder))
    return conclude({"name": given.kind, **result}, checks(given.kind, result), given.out)


if __name__ == "__main__":
    sys.exit(main())
