"""The acceptance session: a server, example bots and subscribers with mirrors, watched for minutes, then replayed.

    python -m loadtest.session --data world --minutes 10 --out loadtest/results/session.json

It holds when no tick is missing, ticks begin in time (and every late one while the machine ran something else), every
mirror equals the GET of the same tick, memory does not grow, and the replay finds the hash of every mark again.
Status 1 when one of these fails.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TextIO

from arena_client import ArenaStream, StateChanged

from loadtest.process import FIRST_START_S, ROOT, ServerProcess, python

EXAMPLES = ROOT / "clients" / "python" / "examples"
GOODS = ("food", "energy", "clothing", "software", "housing", "telecom", "transport")
"""What producers make."""
RESOURCES = ("oil", "lithium", "rare_earths", "fresh_water", "arable_land", "carbon_credits", "intellectual_property")
"""Where market makers quote: prices of goods hardly move within minutes."""
BOTS = ("market_maker", "momentum_trader", "producer", "watcher")
CHANNELS = ("market_tick", "psychology_update", "inflation_update", "scarcity_update")
ARRIVAL_S = 2.0
"""Longest wait for the frame of a tick that a GET has shown."""
CUSTOMERS_NICE = 5
"""Customers step back when the machine is short: in life they have machines of their own."""
FRAME_WAIT_S = 5.0
"""Longest a mirror may be behind a GET: fifty subscribers share one processor with the server."""
STATES_KEPT = 64
"""Ticks of a mirror that are kept for comparison, a little more than FRAME_WAIT_S."""
COMPARE_EVERY_S = 5.0
SAMPLE_EVERY_S = 1.0
STAGGER_S = 0.5
"""Between two bots' starts: twenty interpreters at once would be a load of their own."""
SETTLED_MINUTE = 3.0
LATE_MS = 50.0


class Watcher:
    """A subscriber with mirrors of all state channels, which remembers the last states by tick."""

    def __init__(self, url: str) -> None:
        self.stream = ArenaStream(url)
        self.states: dict[str, OrderedDict[int, Mapping[str, Any]]] = {name: OrderedDict() for name in CHANNELS}
        self.frames = 0

    async def run(self) -> None:
        """Follow the stream until cancelled."""
        async with self.stream:
            for channel in CHANNELS:
                await self.stream.subscribe(channel)
            async for update in self.stream:
                if isinstance(update, StateChanged):
                    self.frames += 1 + update.skipped
                    kept = self.states[update.channel]
                    # a mirror never changes a state in place: a later frame makes a new one
                    kept[update.tick] = update.mirror.state
                    if len(kept) > STATES_KEPT:
                        kept.popitem(last=False)

    def newest(self, channel: str) -> int:
        """Return the newest tick of a channel this subscriber has looked at; -1 before the first."""
        return next(reversed(self.states[channel]), -1)

    def differing(self, channel: str, tick: int, shown: Mapping[str, Any]) -> list[str] | None:
        """Return the fields whose value at a tick is not what a GET has shown; None when that tick is not kept."""
        state = self.states[channel].get(tick)
        if state is None:
            return None
        scales = self.stream.mirror(channel).scales
        return [
            field
            for field, value in shown.items()
            if field not in state or _scaled(state[field], scales[field]) != value
        ]


class Session:
    """One run: its server, its customers, and what was seen."""

    def __init__(self, given: argparse.Namespace, data: Path) -> None:
        self.given = given
        self.data = data
        self.rss: list[tuple[float, float]] = []
        self.compared = 0
        self.passed_over = 0
        """Comparisons for which a mirror's reader had not looked at that very tick: it had fallen behind."""
        self.different: list[str] = []
        self.bots: list[tuple[str, subprocess.Popen[str], TextIO]] = []

    async def run(self) -> dict[str, Any]:
        """Run the session and return its result."""
        flags = ("--residents", str(self.given.residents), *self.given.flags)
        with ServerProcess(self.data, *flags) as server:
            started_s = await asyncio.to_thread(server.wait_ready, FIRST_START_S)
            os.nice(CUSTOMERS_NICE)
            watchers = [Watcher(server.url) for _ in range(self.given.subscribers)]
            tasks = [asyncio.create_task(watcher.run()) for watcher in watchers]
            try:
                await self._start_bots(server.url)
                await self._observe(server, watchers)
                status = await asyncio.to_thread(server.document, "/api/status")
                samples = await asyncio.to_thread(server.samples)
                mirrors = _mirrors(watchers)
                processor = {"server_s": round(server.cpu_seconds(), 1), "subscribers_s": round(time.process_time(), 1)}
            finally:
                for task in tasks:
                    task.cancel()
                ended = await asyncio.gather(*tasks, return_exceptions=True)
                bots = self._end_bots()
                # the bots have ended and the server has not: what ended so far are the bots
                used = resource.getrusage(resource.RUSAGE_CHILDREN)
            stopped = await asyncio.to_thread(server.stop)
        mirrors["failed"] = [repr(error) for error in ended if not isinstance(error, asyncio.CancelledError)]
        return {
            "name": "session",
            "residents": self.given.residents,
            "bots": self.given.bots,
            "subscribers": self.given.subscribers,
            "minutes": self.given.minutes,
            "machine": f"{os.cpu_count()} cores, {platform.system()}, Python {platform.python_version()}",
            "start_s": round(started_s, 2),
            "ticks": _ticks(status, samples),
            "lateness": _lateness(samples, server.log),
            "mirrors": {
                **mirrors,
                "compared": self.compared,
                "passed_over": self.passed_over,
                "different": self.different[:20],
            },
            "memory": self._memory(),
            "processor": {**processor, "bots_s": round(used.ru_utime + used.ru_stime, 1)},
            "exit_status": stopped,
            "examples": bots,
            "replay": _replay(self.data),
        }

    async def _start_bots(self, url: str) -> None:
        seconds = self.given.minutes * 60
        for number in range(self.given.bots):
            name, turn = BOTS[number % len(BOTS)], number // len(BOTS) % len(GOODS)
            option = {"market_maker": ("--market", RESOURCES[turn]), "producer": ("--good", GOODS[turn])}.get(name, ())
            output = tempfile.TemporaryFile("w+")  # noqa: SIM115  # lives as long as its bot
            command = (str(EXAMPLES / f"{name}.py"), "--url", url, "--seconds", f"{seconds:.0f}", *option)
            self.bots.append((name, python(*command, stdout=output, stderr=subprocess.STDOUT), output))
            await asyncio.sleep(STAGGER_S)

    async def _observe(self, server: ServerProcess, watchers: list[Watcher]) -> None:
        """Sample memory and compare mirrors with GETs until the minutes are over."""
        began = time.monotonic()
        next_comparison = began + COMPARE_EVERY_S
        while (now := time.monotonic()) - began < self.given.minutes * 60:
            self.rss.append(((now - began) / 60, server.rss_bytes() / 1e6))
            if now >= next_comparison:
                next_comparison = now + COMPARE_EVERY_S
                await self._compare(server, watchers)
            await asyncio.sleep(SAMPLE_EVERY_S)

    async def _compare(self, server: ServerProcess, watchers: list[Watcher]) -> None:
        """Read each document and compare it with the same tick of every mirror."""
        for path, channel in (
            ("/api/markets", "market_tick"),
            ("/api/psychology", "psychology_update"),
            ("/api/indicators", "inflation_update"),
            ("/api/monetary", "inflation_update"),
            ("/api/scarcity", "scarcity_update"),
        ):
            document = await asyncio.to_thread(server.document, path)
            tick, shown = document["tick"], _shown(document)
            # the frame of a tick the GET already shows may still be on its way to some mirrors
            deadline = time.monotonic() + ARRIVAL_S
            while any(one.newest(channel) < tick for one in watchers) and time.monotonic() < deadline:  # noqa: ASYNC110  # many streams at once
                await asyncio.sleep(0.005)
            for number, watcher in enumerate(watchers):
                fields = watcher.differing(channel, tick, shown)
                self.compared += fields is not None
                self.passed_over += fields is None
                if fields:
                    self.different.append(f"tick {tick} {path} mirror {number}: {', '.join(fields[:5])}")

    def _end_bots(self) -> list[dict[str, Any]]:
        ended = []
        for name, process, output in self.bots:
            try:
                status = process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                status = process.wait()
            output.seek(0)
            ended.append({"bot": name, "status": status, "said": output.read()[-400:].strip().splitlines()[-3:]})
            output.close()
        return ended

    def _memory(self) -> dict[str, Any]:
        """Return the growth of resident memory by least squares, from minute 3 on."""
        late = [(minute, mb) for minute, mb in self.rss if minute >= min(SETTLED_MINUTE, self.given.minutes / 2)]
        slope = statistics.linear_regression(*zip(*late, strict=True)).slope if len(late) > 1 else 0.0
        return {
            "rss_mb_first": round(self.rss[0][1], 1),
            "rss_mb_last": round(self.rss[-1][1], 1),
            "rss_mb_most": round(max(mb for _, mb in self.rss), 1),
            "slope_mb_per_min": round(slope, 3),
            "samples": len(late),
        }


def checks(result: Mapping[str, Any]) -> dict[str, bool]:
    """Return what must hold of a session, by name."""
    lateness, mirrors, replay, ticks = result["lateness"], result["mirrors"], result["replay"], result["ticks"]
    return {
        # one tick may lie between the two readings; a schedule begins anew only after late ticks
        "no tick is missing": ticks["missing"] == 0 and (ticks["behind"] <= 1 or ticks["late"] >= 3),
        "ticks begin in time: p99 < 10 ms": lateness["share_within_10_ms"] >= 0.99,
        "every lateness over 50 ms is the machine's": lateness["unexplained"] == [],
        "every mirror equals the GET of its tick": mirrors["different"] == []
        and mirrors["compared"] > 9 * mirrors["passed_over"],
        "no mirror lost a frame": mirrors["resyncs"] == 0 and mirrors["failed"] == [] and mirrors["stale"] == 0,
        "memory grows less than 1 MB/min": result["memory"]["slope_mb_per_min"] < 1.0,
        "every bot ended well": all(bot["status"] == 0 for bot in result["examples"]),
        "the server drained": result["exit_status"] == 0,
        "the replay finds every hash again": replay["status"] == 0,
    }


def _ticks(status: Mapping[str, Any], samples: Mapping[str, float]) -> dict[str, Any]:
    """Return how many ticks the world advanced in this process, and how many of these were not executed.

    behind: how many fewer than the clock asked for; a schedule that began anew after three late ticks leaves some out.
    """
    executed = int(samples["arena_ticks_total"])
    # samples were read after status: the world may have gone on meanwhile
    advanced = int(samples["arena_tick"]) - int(status["started_tick"])
    due = int(status["uptime_s"] * 1000 / status["tick_rate_ms"])
    return {
        "executed": executed,
        "missing": advanced - executed,
        "behind": max(0, due - executed),
        "late": int(samples["arena_ticks_late_total"]),
    }


def _lateness(samples: Mapping[str, float], log: Path) -> dict[str, Any]:
    """Return how late ticks began, from the histogram, and every start later than LATE_MS with its reason."""
    name = "arena_tick_lateness_seconds"
    count = samples[f"{name}_count"]
    buckets = {
        float(key.split('le="')[1].split('"')[0]) * 1000: value / count
        for key, value in samples.items()
        if key.startswith(f"{name}_bucket") and "+Inf" not in key
    }
    late = [line for line in _log_lines(log) if line.get("event") == "tick_began_late"]
    unexplained = [line for line, explained in zip(late, _explained(late), strict=True) if not explained]
    return {
        "share_within_10_ms": round(buckets[10.0], 5),
        "share_within_ms": {f"{bound:g}": round(share, 5) for bound, share in sorted(buckets.items())},
        "mean_ms": round(1000 * samples[f"{name}_sum"] / count, 3),
        "max_ms": max((line["lateness_ms"] for line in late), default=None),
        "over_50_ms": [
            {key: line[key] for key in ("tick", "lateness_ms", "stalled_ms", "waited_ms")} for line in late[:200]
        ],
        "unexplained": unexplained[:20],
        "scheduler_stalls": int(samples["arena_scheduler_stalls_total"]),
    }


def _explained(late: list[dict[str, Any]]) -> list[bool]:
    """Return for each late start whether the machine was the reason.

    It was when a stall the watchdog saw, or the time Linux left the loop's thread waiting to be run, makes up half of
    the lateness; or when the start before was late for that reason and this one is late because of it.
    """
    explained: list[bool] = []
    for i, line in enumerate(late):
        follows = i > 0 and explained[i - 1] and late[i - 1]["tick"] == line["tick"] - 1
        inherited = late[i - 1]["lateness_ms"] if follows else 0.0
        seen = inherited + line["stalled_ms"] + line["waited_ms"]
        explained.append(seen >= line["lateness_ms"] / 2)
    return explained


def _mirrors(watchers: list[Watcher]) -> dict[str, Any]:
    """Return how the mirrors did. stale: those that did not follow their stream to its end."""
    mirrors = [watcher.stream.mirror(channel) for watcher in watchers for channel in CHANNELS]
    return {
        "resyncs": sum(watcher.stream.resyncs for watcher in watchers),
        "reconnects": sum(watcher.stream.reconnects for watcher in watchers),
        "frames": sum(watcher.frames for watcher in watchers),
        "stale": sum(mirror.stale is not None for mirror in mirrors),
    }


def _shown(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of a document as a mirror holds them: field -> number, or field -> list by market."""
    rows = document.get("markets") or document.get("resources")
    if rows is None:
        return dict(document["values"])
    return {field: [row[field] for row in rows] for field in rows[0] if field not in ("id", "name", "day")}


def _scaled(value: Any, scale: int) -> Any:
    if scale == 1:
        return value
    return [entry / scale for entry in value] if isinstance(value, list) else value / scale


def _log_lines(log: Path) -> list[dict[str, Any]]:
    lines = (line for line in log.read_text(encoding="utf-8").splitlines() if line.startswith("{"))
    return [json.loads(line) for line in lines]


def _replay(data: Path) -> dict[str, Any]:
    """Replay the journal of the session headless and check every hash in it."""
    began = time.monotonic()
    process = python("-m", "server", "replay", str(data), "--check", stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    said = process.communicate()[0].strip().replace(str(data), "DIR").splitlines()
    return {"status": process.returncode, "seconds": round(time.monotonic() - began, 1), "said": said[-3:]}


def main() -> int:
    """Run a session as the command line asks, write its result and return 1 when something does not hold."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="data folder of the world; default: a new one, removed afterwards")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--residents", type=int, default=100_000)
    parser.add_argument("--bots", type=int, default=20, help="example bots")
    parser.add_argument("--subscribers", type=int, default=50)
    parser.add_argument("--out", type=Path, help="write the result to this file")
    parser.add_argument("flags", nargs="*", help="further flags of the server, after --")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="arena-session-") as scratch:
        result = asyncio.run(Session(given, given.data or Path(scratch) / "world").run())
    result["holds"] = checks(result)
    text = json.dumps(result, indent=2) + "\n"
    sys.stdout.write(text)
    if given.out:
        given.out.write_text(text, encoding="utf-8")
    return 0 if all(result["holds"].values()) else 1


if __name__ == "__main__":
    sys.exit(main())
