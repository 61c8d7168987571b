"""Rows about being durable: acknowledgements with and without syncs and snapshots, ticks beside a fork, a fork's start.

    python -m loadtest.micro.bench_durable action_durable ack_under_snapshot tick_under_fork fork_start [--quick]

`arena bench` calls it. Prints one JSON row per number, as bench_server does. Everything compared is taken in turns in
one run, on the disk that holds the temporary folder.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import NamedTuple, cast
from urllib.parse import urlsplit

from arena_client import ArenaClient, wire

from loadtest.micro.bench_server import START_S, Row, row
from loadtest.process import ServerProcess, percentile, python, warm
from loadtest.swarm import Subscriber, is_data

CONNECTIONS = 32
PACED_PER_S = 1_000.0
"""Actions a second while it is measured how long an acknowledgement takes beside a snapshot."""
SNAPSHOT_TICKS = 20
AFTER_SNAPSHOT_S = 0.1
"""What a snapshot still does behind its file: old ones and segments are put away."""
PERIOD_S = 0.1
HOUR_TICKS, DAY_TICKS = 36_000, 864_000


class Lengths(NamedTuple):
    """How long things are measured. parts: a fork starts over one such part of an hour and a day."""

    rounds: int
    round_s: float
    snapshots_s: float
    fork_turns: int
    fork_turn_s: float
    parts: int


FULL, QUICK = Lengths(16, 4.0, 120.0, 6, 15.0, 1), Lengths(4, 2.0, 15.0, 2, 5.0, 30)
UNLIMITED = ("--rate-limit", "10000000", "--seed", "1", "--agents-per-owner-max", "100")
MOODS = b'"type":"set_sentiment","sentiment":0.5,"fear":0.1,"greed":0.1,"confidence":0.5}'


class Bot(asyncio.Protocol):
    """One agent that acts once at a time: the next when it is answered, or when it is due. Connected for a round.

    acks: when each was due or sent, the seconds until its answer, and the published tick the answer names.
    """

    def __init__(self, host: str, agent_id: str, api_key: str) -> None:
        self.acks: list[tuple[float, float, int]] = []
        self.refused = 0
        self._name = agent_id
        self._head = (
            f"POST /api/agents/{agent_id}/action HTTP/1.1\r\nhost: {host}\r\nauthorization: Bearer {api_key}\r\n"
            "content-type: application/json\r\ncontent-length: "
        ).encode()
        self._sent = 0
        self._due = self._until = self._period = 0.0
        self._buffer = b""
        self._transport: asyncio.Transport | None = None
        self._done: asyncio.Future[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Be ready."""
        self._transport = cast(asyncio.Transport, transport)

    async def connect(self, port: int) -> None:
        """Open a connection: a server closes one over which nothing was asked for longer than a round."""
        await asyncio.get_running_loop().create_connection(lambda: self, "127.0.0.1", port)

    def work(self, first: float, until: float, period: float = 0.0) -> asyncio.Future[None]:
        """Act between two times of the loop, every period seconds or as fast as answered; done when that is over."""
        loop = asyncio.get_running_loop()
        assert self._transport is not None
        assert not self._transport.is_closing()
        self._due, self._until, self._period = first, until, period
        self._done = loop.create_future()
        loop.call_at(first, self._send)
        return self._done

    def data_received(self, data: bytes) -> None:
        """Take an answer, and go on."""
        self._buffer += data
        head, end, body = self._buffer.partition(b"\r\n\r\n")
        if not end or len(body) < _number(head, b"content-length: "):
            return
        self._buffer = b""
        now = time.time()
        if head.startswith(b"HTTP/1.1 202"):
            self.acks.append((self._began, now - self._began, _number(head, b"arena-tick: ")))
        else:
            self.refused += 1
        self._next()

    def connection_lost(self, exc: Exception | None) -> None:
        """End what is waited for: the server went away."""
        if self._done is not None and not self._done.done():
            self._done.set_exception(exc or ConnectionError("the server closed a connection"))

    def close(self) -> None:
        """End the connection."""
        if self._transport is not None:
            self._transport.close()

    def _next(self) -> None:
        loop = asyncio.get_running_loop()
        now = loop.time()
        self._due = self._due + self._period if self._period else now
        if max(self._due, now) >= self._until:
            assert self._done is not None
            self._done.set_result(None)
        elif self._due <= now:
            self._send()
        else:
            loop.call_at(self._due, self._send)

    def _send(self) -> None:
        assert self._transport is not None
        self._sent += 1
        body = b'{"client_action_id":"%s-%d",%s' % (self._name.encode(), self._sent, MOODS)
        # against the time it was due: an answer that comes late makes the next one late as well
        self._began = time.time() - (asyncio.get_running_loop().time() - self._due)
        self._transport.write(self._head + b"%d\r\n\r\n" % len(body) + body)


def action_durable(folder: Path, quick: bool) -> list[Row]:
    """Single actions at 32 connections: a server that syncs over one whose syncs do nothing, in turns."""
    rounds, round_s, *_ = _lengths(quick)
    # half of them one after the other, so that neither has the quiet part of the machine
    with _warmed(folder / "synced") as synced, _warmed(folder / "unsynced", "loadtest.micro.unsynced") as unsynced:
        done = asyncio.run(_in_turns([synced, unsynced], rounds, round_s))
    rates = [[len(acks) / round_s for acks in one] for one in done]
    latencies = sorted(1_000 * ack[1] for acks in done[0] for ack in acks)
    ratios = [one / other for one, other in zip(*rates, strict=True)]
    includes = (
        f"{CONNECTIONS} connections, one agent and one set_sentiment at a time each, JSON, authenticated, checked,"
        f" journaled, 202; two servers of 100,000 residents that tick, used in turns for {round_s:.0f} s,"
        f" {rounds} times each; medians {statistics.median(rates[0]):.0f} and {statistics.median(rates[1]):.0f}"
        " a second"
    )
    excludes = "the client's own work (same machine, one process)"
    return [
        row(
            "action_durable",
            statistics.median(ratios),
            "x the rate without syncs",
            0.4,
            spread=f"{min(ratios):.2f} to {max(ratios):.2f} of {rounds}",
            includes=includes,
            excludes=excludes,
            at_least=True,
        ),
        *(
            row(
                f"action_durable_{name}",
                percentile(latencies, share),
                "ms",
                bar,
                spread=f"of {len(latencies)}; longest {latencies[-1]:.1f}",
                includes=includes,
                excludes=excludes,
            )
            for name, share, bar in (("p50", 0.5, 10.0), ("p99", 0.99, 25.0))
        ),
    ]


def ack_under_snapshot(folder: Path, quick: bool) -> list[Row]:
    """How long acknowledgements take while a snapshot is written, over how long they take otherwise."""
    seconds = _lengths(quick).snapshots_s
    with _warmed(folder / "world", "server", "--snapshot-ticks", str(SNAPSHOT_TICKS)) as server:
        begun = time.time()
        [[acks]] = asyncio.run(_in_turns([server], 1, seconds, 1 / PACED_PER_S))
        ended = [one for one in _snapshots_taken(server.log) if one[0] > begun]
    spans = []
    for taken, tick in ended:
        # it begins when its tick is published: the first answer that names that tick is a little later
        first = min((sent + took for sent, took, seen in acks if seen >= tick), default=None)
        if first is not None and first <= taken:
            spans.append((first, taken + AFTER_SNAPSHOT_S))
    during: list[float] = []
    without: list[float] = []
    for sent, took, _ in acks:
        is_during = any(sent < end and sent + took > first for first, end in spans)
        (during if is_during else without).append(1_000 * took)
    values = [percentile(one, 0.99) for one in (during, without)]
    written = statistics.median(end - first - AFTER_SNAPSHOT_S for first, end in spans)
    return [
        row(
            "ack_under_snapshot",
            values[0] / values[1],
            "x the p99 without",
            1.5,
            spread=f"p99 {values[0]:.2f} ms of {len(during)} during {len(spans)} snapshots, {values[1]:.2f} ms of"
            f" {len(without)} between them; p50 {percentile(during, 0.5):.2f} and {percentile(without, 0.5):.2f} ms",
            includes=f"{PACED_PER_S:.0f} single actions a second on {CONNECTIONS} connections, each timed from when it"
            f" was due; 100,000 residents, a snapshot every {SNAPSHOT_TICKS} ticks, written in {1_000 * written:.0f} ms"
            " (median); one counts when any of its time falls between a snapshot's tick and 100 ms after its file",
            excludes="the client's own work (same machine)",
        )
    ]


def tick_under_fork(folder: Path, quick: bool) -> list[Row]:
    """How long ticks take while a fork of the same world runs beside, over how long they take otherwise."""
    turns, turn_s = _lengths(quick).fork_turns, _lengths(quick).fork_turn_s
    with _warmed(folder / "world") as server:
        _wait_ticks(server, 50)
        beside, alone = asyncio.run(_fork_in_turns(server, folder, turns, turn_s))
    values = [percentile(one, 0.99) for one in (beside, alone)]
    return [
        row(
            "tick_under_fork",
            values[0] / values[1],
            "x the p99 without",
            1.5,
            spread=f"p99 {values[0]:.2f} ms of {len(beside)} ticks beside a fork, {values[1]:.2f} ms of {len(alone)}"
            f" without; p50 {percentile(beside, 0.5):.2f} and {percentile(alone, 0.5):.2f} ms",
            includes="from a tick's deadline to its publication, mark durable; 100,000 residents, one subscriber;"
            f" `arena fork` of the running world's folder, in turns with nothing, {turns} times {turn_s:.0f} s each",
            excludes="the start of the fork's process (its imports) counts as beside; what a third core would change",
        )
    ]


def fork_start(folder: Path, quick: bool) -> list[Row]:
    """How long a fork takes from the command to the first tick of its branch, at the worst tick of a day's record."""
    gap, day = HOUR_TICKS // _lengths(quick).parts, DAY_TICKS // _lengths(quick).parts
    data = folder / "world"
    start = int(_run("loadtest.headless.long_journal", str(data), "--ticks", str(day)))
    began = time.monotonic()
    # behind the last snapshot before it lie as many ticks as ever: those of an hour, all but one
    arguments = ("--ticks", "1", "--out", str(folder / "fork"), "--json")
    told = json.loads(_run("server", "fork", str(data), "--at", str(start + gap - 1), *arguments))
    took = time.monotonic() - began
    return [
        row(
            "fork_start",
            told["begun_s"],
            "s",
            60.0,
            spread=f"one fork, {took:.1f} s in all with its one tick",
            includes=f"command to the first tick of the branch: {gap - 1:,} ticks computed from the state before them,"
            f" as after an hourly snapshot, and a record of {day:,} ticks read, in packed segments of 600; 100,000"
            " residents",
            excludes="outside actions: nobody acted in the record, whose marks carry no hashes",
        )
    ]


def _lengths(quick: bool) -> Lengths:
    return QUICK if quick else FULL


@contextmanager
def _warmed(data: Path, module: str = "server", *flags: str) -> Iterator[ServerProcess]:
    """Run a server that has compiled and settled before."""
    warm(data, *UNLIMITED)
    with ServerProcess(data, *UNLIMITED, *flags, module=module) as server:
        server.wait_ready(START_S)
        yield server


async def _in_turns(
    servers: list[ServerProcess], rounds: int, round_s: float, period: float = 0.0
) -> list[list[list[tuple[float, float, int]]]]:
    """Let 32 bots act at each server in turns; return the acknowledgements by server and round.

    period: seconds between two actions of all bots together; 0: each acts when it is answered.
    """
    crowds = [await _registered(server) for server in servers]
    loop = asyncio.get_running_loop()
    found: list[list[list[tuple[float, float, int]]]] = [[] for _ in servers]
    for number in range(-1, rounds):
        order = range(len(servers)) if number % 2 else range(len(servers) - 1, -1, -1)
        for i in order:
            crowd = crowds[i]
            for bot in crowd:
                await bot.connect(servers[i].port)
            now = loop.time() + 0.01
            length = round_s if number >= 0 else 1.0
            until, every = now + length, period * len(crowd)
            await asyncio.gather(*(bot.work(now + k * period, until, every) for k, bot in enumerate(crowd)))
            acks = [ack for bot in crowd for ack in bot.acks]
            for bot in crowd:
                bot.acks = []
                bot.close()
            # a transport is closed a turn of the loop after it was told to
            await asyncio.sleep(0)
            # the first round warms up
            if number >= 0:
                found[i].append(acks)
            if refused := sum(bot.refused for bot in crowd):
                raise RuntimeError(f"{refused} actions were refused: {servers[i].last_lines()}")
    return found


async def _registered(server: ServerProcess) -> list[Bot]:
    """Register an agent for each connection."""
    host = urlsplit(server.url).netloc
    bots = []
    for _ in range(CONNECTIONS):
        async with ArenaClient(server.url, attempts=1) as client:
            agent = await client.register()
        bots.append(Bot(host, agent.agent_id, agent.api_key))
    return bots


class _Watcher(Subscriber):
    """A subscriber that notes when each tick was published. sent: seconds, by tick."""

    def __init__(self) -> None:
        super().__init__("inflation_update", None)
        self.sent: dict[int, float] = {}

    def message(self, data: bytes) -> None:
        """Count a message, and note its tick."""
        super().message(data)
        if is_data(data):
            frame = wire.decode(data, wire.SUBPROTOCOL_MSGPACK)
            if "sent_ns" in frame:
                self.sent[frame["tick"]] = frame["sent_ns"] / 1e9


async def _fork_in_turns(
    server: ServerProcess, folder: Path, turns: int, turn_s: float
) -> tuple[list[float], list[float]]:
    """Return the ms from deadline to publication of the ticks beside a fork, and of those without."""
    watcher = _Watcher()
    await asyncio.get_running_loop().create_connection(lambda: watcher, "127.0.0.1", server.port)
    spans: dict[bool, list[tuple[int, int]]] = {True: [], False: []}
    before = _tick_sums(server)
    for turn in range(2 * turns):
        is_beside = bool(turn % 2)
        first = server.document("/api/time")["tick"]
        if is_beside:
            fork = python(
                "-m", "server", "fork", str(server.data), "--at", str(first - 20), "--ticks", "1000000",
                "--out", str(folder / f"fork-{turn}"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            )  # fmt: skip
        await asyncio.sleep(turn_s)
        if is_beside:
            if fork.poll() is not None:
                raise RuntimeError(f"the fork ended with {fork.returncode}")
            fork.kill()
            fork.wait()
        spans[is_beside].append((first + 1, server.document("/api/time")["tick"]))
    after = _tick_sums(server)
    watcher.close()
    await asyncio.sleep(0)
    phases = {tick: sent - tick * PERIOD_S for tick, sent in watcher.sent.items()}
    # the server's own mean says where on this clock the deadlines lie
    deadline = statistics.fmean(phases.values()) - (after[0] - before[0]) / (after[1] - before[1])
    found = {
        is_beside: [
            1_000 * (phases[tick] - deadline)
            for first, last in spans[is_beside]
            for tick in range(first, last + 1)
            if tick in phases
        ]
        for is_beside in spans
    }
    return found[True], found[False]


def _tick_sums(server: ServerProcess) -> tuple[float, float]:
    """Return the seconds from deadline to publication of all ticks so far, and how many there were."""
    samples = server.samples()
    return samples["arena_tick_total_seconds_sum"], samples["arena_tick_total_seconds_count"]


def _snapshots_taken(log: Path) -> list[tuple[float, int]]:
    """Return when each snapshot was on the disk, and its tick, by a server's log."""
    lines = (json.loads(line) for line in log.read_text().splitlines() if '"snapshot_taken"' in line)
    return [(datetime.fromisoformat(line["timestamp"]).timestamp(), line["tick"]) for line in lines]


def _wait_ticks(server: ServerProcess, count: int) -> None:
    last = server.document("/api/time")["tick"] + count
    while server.document("/api/time")["tick"] < last:
        time.sleep(0.1)


def _run(*command: str) -> str:
    """Run a program of ours and return what it printed. Raises RuntimeError when it fails."""
    done = python("-m", *command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    out, error = done.communicate()
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}: {out[-500:]}{error[-500:]}")
    return out


def _number(head: bytes, name: bytes) -> int:
    begin = head.index(name) + len(name)
    return int(head[begin : head.find(b"\r", begin) if b"\r" in head[begin:] else len(head)])


PROGRAMS: dict[str, Callable[[Path, bool], list[Row]]] = {
    "action_durable": action_durable,
    "action_durable_p50": action_durable,
    "action_durable_p99": action_durable,
    "ack_under_snapshot": ack_under_snapshot,
    "tick_under_fork": tick_under_fork,
    "fork_start": fork_start,
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
