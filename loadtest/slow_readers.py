"""Readers that stop among many that read: when are they noticed and cut, what do they cost, who else notices?

    python -m loadtest.slow_readers [--rounds 3] [--out loadtest/results/slow_readers.json]

A real server of 100,000 residents, 1,000 subscribers of market_tick, of which 20 stop reading, again and again, and
one more stops and goes on when it is noticed; in the end 200 more stop, for what one of them holds of the server's
memory. It holds when each is noticed within 25 s and cut 10 s later with its code, costs at most 128 KiB, the one that
goes on is told what it missed and gets a snapshot, and the p99 of the others' latency is within 1.2 x of what it is
without. Status 1 when it does not hold.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import socket
import statistics
import sys
import time
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from arena_client import wire
from arena_client.mirror import Mirror

from loadtest.micro.native import Receiver
from loadtest.process import ServerProcess, warm_server
from loadtest.verdict import conclude
from loadtest.websocket import Connection

SUBSCRIBERS, STUCK = 1_000, 20
CHANNEL = "market_tick"
WEIGHED = 200
"""Stuck ones of which the memory is weighed: a process grows and shrinks by some megabytes on its own account, which is
more than twenty of them hold."""
RECEIVE_BYTES = 16 * 1024
"""That a reader's own system takes for it: as much as it takes by itself held half a minute of frames, and nothing ever
waited at the server."""
CALM_S = 25.0
"""How long the others are measured without stuck ones, and what the server grows by: about as long as with them."""


@dataclass(frozen=True)
class Patience:
    """A server's: seconds until it has noticed a reader that stops, and from then on until it cuts it."""

    noticed_s: float = 25.0
    cut_s: float = 10.0


PATIENCE = Patience()
LATE_S = 5.0
"""So much later than it must come, a line of the log is waited for."""
POLL_S = 0.25
TOLERANCE_S = 1.1
"""A server looks at each subscriber once a second."""
WAKES_AT_SHARE = 0.75
"""Of the time from being noticed to being cut, after which one goes on."""
COST_BYTES_MAX = 128 * 1024
RATIO_MAX = 1.2
TOO_SLOW = 4001


class Reader(Connection):
    """A subscriber that may stop reading. kinds: types of the data messages since the last stop, in order."""

    def __init__(self) -> None:
        super().__init__()
        self.mirror = Mirror(CHANNEL)
        self.kinds: list[str] = []
        self.skipped = 0
        self.wrong: list[str] = []
        self.has_state = asyncio.Event()

    def opened(self) -> None:
        """Subscribe."""
        self.send({"op": "subscribe", "id": 1, "channel": CHANNEL})

    def message(self, data: bytes) -> None:
        """Keep a copy, and note what comes."""
        frame = wire.decode(data, wire.SUBPROTOCOL_MSGPACK)
        if frame["type"] == "lagged":
            self.kinds.append("lagged")
            self.skipped = frame["skipped"]
        elif frame["type"] in ("snapshot", "delta"):
            self.kinds.append(frame["type"])
            verdict = self.mirror.feed(frame)
            if verdict.needs_resync is not None and self.kinds[-1] != "lagged":
                self.wrong.append(verdict.needs_resync)
            self.has_state.set()


async def connect(port: int) -> Reader:
    """Return a reader that is in step."""
    reader, loop, connected = Reader(), asyncio.get_running_loop(), socket.socket()
    connected.setblocking(False)
    connected.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BYTES)
    await loop.sock_connect(connected, ("127.0.0.1", port))
    await loop.create_connection(lambda: reader, sock=connected)
    await reader.has_state.wait()
    return reader


async def one_round(
    server: ServerProcess, receiver: Receiver, stuck_count: int, calm_s: float, patience: Patience
) -> dict[str, Any]:
    """Measure the others without stuck readers, then with them until these are cut."""
    receiver.command("begin")
    await asyncio.sleep(calm_s)
    without = receiver.command("report")
    before, known = server.samples(), len(_log(server))
    # alone: who is noticed when hangs on when each was asked for a sign, and no line says which of them it was
    waker = await connect(server.port)
    waker.pause()
    await _logged(server, known, "subscriber_stuck", 1, patience.noticed_s)
    # as late as it may: what was sent before it was noticed may all fit into the kernel's buffers
    await asyncio.sleep(WAKES_AT_SHARE * patience.cut_s)
    waker.kinds.clear()
    waker.resume()
    readers = [await connect(server.port) for _ in range(stuck_count)]
    known = len(_log(server))
    for reader in readers:
        reader.pause()
    stopped = time.time()
    receiver.command("begin")
    await _logged(server, known, "subscriber_stuck", stuck_count, patience.noticed_s)
    in_kernel = _waiting_in_kernel(server.port)
    lines = await _logged(server, known, "subscriber_cut", stuck_count, patience.cut_s)
    with_them = receiver.command("report")
    after = server.samples()
    cut = f'arena_sockets_closed_total{{code="{TOO_SLOW}"}}'
    waking = _first_of_each(waker.kinds)
    result = {
        "latency_ms_p99": {"without": without["latency_ms"]["p99"], "with": with_them["latency_ms"]["p99"]},
        "frames": {"without": without["frames"], "with": with_them["frames"]},
        "others_lost": with_them["closed_early"],
        "noticed_s": _after(lines, "subscriber_stuck", stopped),
        "cut_s": _after(lines, "subscriber_cut", stopped),
        "from_noticed_to_cut_s": _from_noticed_to_cut(lines),
        "cut_codes": sorted({line["code"] for line in lines if line["event"] == "subscriber_cut"}),
        "metrics": {
            "noticed": after["arena_sockets_stuck_total"] - before["arena_sockets_stuck_total"],
            "cut": after.get(cut, 0.0) - before.get(cut, 0.0),
        },
        "in_kernel_most_bytes": in_kernel,
        "waking": {
            "order": waking,
            "skipped": waker.skipped,
            "is_open": not waker.is_closed,
            "wrong": waker.wrong,
            "behind_ticks": server.document("/api/time")["tick"] - (waker.mirror.tick or 0),
        },
    }
    for reader in (*readers, waker):
        reader.abort()
    return result


async def weigh(server: ServerProcess, count: int, patience: Patience) -> int:
    """Return the bytes of the server's memory that each of so many readers takes by stopping.

    What a server grows by meanwhile is among them.
    """
    readers = [await connect(server.port) for _ in range(count)]
    known, before = len(_log(server)), server.rss_bytes()
    for reader in readers:
        reader.pause()
    # all of them have been stuck for some seconds then, and none is cut yet
    await _logged(server, known, "subscriber_stuck", 1, patience.noticed_s)
    added = server.rss_bytes() - before
    for reader in readers:
        reader.abort()
    return max(0, added) // count


async def _logged(server: ServerProcess, known: int, event: str, count: int, limit_s: float) -> list[dict[str, Any]]:
    """Return the lines of the log behind the known ones once an event is count times among them, or in the end."""
    ending = time.monotonic() + limit_s + LATE_S
    while True:
        lines = _log(server)[known:]
        if sum(line["event"] == event for line in lines) >= count or time.monotonic() > ending:
            return lines
        await asyncio.sleep(POLL_S)


def _first_of_each(kinds: list[str]) -> list[str]:
    """Return the kinds of messages without repetitions: what came after what."""
    return [kind for i, kind in enumerate(kinds) if i == 0 or kinds[i - 1] != kind]


def _log(server: ServerProcess) -> list[dict[str, Any]]:
    lines = server.log.read_text(encoding="utf-8", errors="replace").splitlines()
    return [json.loads(line) for line in lines if line.startswith("{")]


def _after(lines: list[dict[str, Any]], event: str, moment: float) -> list[float]:
    """Return the seconds from a moment to the first and the last line of an event."""
    times = _times(lines, event).values()
    return [round(min(times) - moment, 2), round(max(times) - moment, 2)] if times else []


def _from_noticed_to_cut(lines: list[dict[str, Any]]) -> list[float]:
    """Return for each subscriber that was cut the seconds since it was noticed."""
    noticed, cut = _times(lines, "subscriber_stuck"), _times(lines, "subscriber_cut")
    return [round(cut[one] - noticed[one], 2) for one in sorted(cut.keys() & noticed.keys())]


def _times(lines: list[dict[str, Any]], event: str) -> dict[int, float]:
    """Return when the event happened to whom."""
    return {
        line["subscriber"]: datetime.fromisoformat(line["timestamp"]).timestamp()
        for line in lines
        if line["event"] == event
    }


def _waiting_in_kernel(port: int) -> int:
    """Return the most bytes that wait in the kernel for one connection of the server (Linux)."""
    most = 0
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if int(fields[1].rpartition(":")[2], 16) == port:
            most = max(most, int(fields[4].partition(":")[0], 16))
    return most


def check(result: dict[str, Any], patience: Patience = PATIENCE) -> dict[str, bool]:
    """Return what had to hold, and whether it did."""
    rounds, stuck = result["rounds"], result["stuck"]
    wakings = [one["waking"] for one in rounds]
    return {
        "noticed within 25 s": all(
            one["noticed_s"] and one["noticed_s"][1] <= patience.noticed_s + TOLERANCE_S for one in rounds
        ),
        "cut 10 s later": all(
            len(one["from_noticed_to_cut_s"]) == stuck
            and all(abs(waited - patience.cut_s) <= TOLERANCE_S for waited in one["from_noticed_to_cut_s"])
            for one in rounds
        ),
        "each cut with its code, in metrics and log": all(
            one["metrics"] == {"noticed": stuck + 1, "cut": stuck} and one["cut_codes"] == [TOO_SLOW] for one in rounds
        ),
        "at most 128 KiB each": all(
            0 < one["in_kernel_most_bytes"] <= COST_BYTES_MAX - result["in_process_each_bytes"] for one in rounds
        ),
        "one that reads again is told and gets a snapshot": all(
            waking["order"][-3:] == ["lagged", "snapshot", "delta"]
            and waking["skipped"] > 0
            and waking["is_open"]
            and not waking["wrong"]
            and waking["behind_ticks"] <= 2
            for waking in wakings
        ),
        "nobody else is lost": all(one["others_lost"] == 0 for one in rounds),
        "the others' p99 within 1.2 x": result["ratio"]["median"] <= RATIO_MAX,
    }


async def run(
    server: ServerProcess,
    rounds: int,
    others: int,
    stuck: int,
    weighed: int,
    calm_s: float = CALM_S,
    patience: Patience = PATIENCE,
) -> dict[str, Any]:
    """Measure in rounds and return what was seen. weighed: how many stop in the end, for what they hold."""
    with Receiver(server.port, others, CHANNEL, core=None) as receiver:
        await asyncio.sleep(2.0)
        seen = [await one_round(server, receiver, stuck, calm_s, patience) for _ in range(rounds)]
        each = await weigh(server, weighed, patience)
    ratios = [one["latency_ms_p99"]["with"] / one["latency_ms_p99"]["without"] for one in seen]
    ratio = {"median": round(statistics.median(ratios), 3), "all": [round(one, 3) for one in ratios]}
    return {
        "others": others,
        "stuck": stuck,
        "ratio": ratio,
        "weighed": weighed,
        "in_process_each_bytes": each,
        "rounds": seen,
    }


def main() -> None:
    """Start a server, let readers stop, print, and leave 1 when something did not hold."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    with warm_server() as server:
        result = asyncio.run(run(server, given.rounds, SUBSCRIBERS - STUCK, STUCK, WEIGHED))
    sys.exit(conclude(result, check(result), given.out))


if __name__ == "__main__":
    main()
