"""Rows about the streams: what a delivery costs beside other servers, how late it is, what a subscriber takes.

    python -m loadtest.micro.bench_fanout fanout_10k stream_latency_1k [--quick] [--peers PYTHON]

`arena bench` calls it. Prints one JSON row per number, as bench_server does. PYTHON: of an environment with the
libraries to compare with (loadtest/peers/streams.in), needed by the rows that do.
"""

from __future__ import annotations

import argparse
import http.client
import json
import math
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from loadtest.micro.bench_server import START_S, Row, row
from loadtest.micro.native import Receiver, Sender, Stalls, compiled
from loadtest.process import LIFTED, ServerProcess, percentile, python, warm

SUBSCRIBERS = 5_000
#: Subscribers of the rows that compare with nobody.
COUNTS = {
    "fanout_10k": 10_000,
    "stream_latency_1k": 1_000,
    "bytes_per_subscriber": 1_000,
    "http_under_fanout": 4_000,
    "loop_pause": 5_000,
}
PAYLOAD_BYTES = 400
PSYCHOLOGY = "psychology_update"
MARKETS = "market_tick"
#: Row: module in loadtest.peers (None: the loop in C), what it is called, bar.
PEERS: dict[str, tuple[str | None, str, float]] = {
    "fanout_c": (None, "a loop of send(2) in C", 1.25),
    "fanout_starlette": ("starlette_send", "Starlette's send_bytes", 0.65),
    "fanout_broadcast": ("websockets_broadcast", "websockets.broadcast()", 0.90),
    "fanout_picows": ("picows_send", "picows", 1.10),
}
OWN = "own"
WORLD: tuple[str, ...] = ()
"""Options of the real server: those of the product."""
SAME_MACHINE = "the receiver, a C program that polls on the other core, the same for all"


@dataclass(frozen=True)
class Lengths:
    """How much is measured.

    rounds, block_ticks: blocks of ticks beside a peer. ticks: to ten thousand. seconds: of a real server with its
    subscribers. steps: so many connections are added how often. idle_s: how long they are left alone then. settle_s:
    pause after connecting.
    """

    rounds: int
    block_ticks: int
    ticks: int
    seconds: float
    steps: int
    idle_s: float
    settle_s: float


FULL = Lengths(12, 30, 600, 60.0, 5, 45.0, 2.0)
QUICK = Lengths(3, 10, 100, 10.0, 2, 5.0, 2.0)


@dataclass(frozen=True)
class Task:
    """What one call of the program is asked for. peers: a Python that has the libraries to compare with."""

    ids: list[str]
    lengths: Lengths
    folder: Path
    peers: str | None


def versus(task: Task) -> list[Row]:
    """Measure the processor time of a delivery, here and in each peer asked for, in blocks of ticks that take turns."""
    names = [name for name in PEERS if name in task.ids]
    rounds, ticks = task.lengths.rounds, task.lengths.block_ticks
    cost: dict[str, list[float]] = {name: [] for name in (OWN, *names)}
    half = math.ceil(rounds / 2)
    # whoever is started last is up to a tenth cheaper: each is the first and the last for half of the rounds
    for turns, order in ((half, list(cost)), (rounds - half, list(reversed(cost)))):
        with ExitStack() as stack:
            lanes = {name: _lane(stack, name, task) for name in order}
            time.sleep(task.lengths.settle_s)
            for _ in range(turns):
                for name, (sender, receiver) in lanes.items():
                    cost[name].append(_block_ns(sender, receiver, ticks))
    own = statistics.median(cost[OWN])
    rows = []
    for name in names:
        _, title, bar = PEERS[name]
        ratios = [a / b for a, b in zip(cost[OWN], cost[name], strict=True)]
        theirs = statistics.median(cost[name])
        rows.append(
            row(
                name,
                statistics.median(ratios),
                f"x the processor time of {title}",
                bar,
                spread=f"{min(ratios):.2f} to {max(ratios):.2f} over {rounds} pairs of blocks",
                includes=f"median of pairs; {own:.0f} ns a delivery against {theirs:.0f} ns, all threads, system calls"
                f" included; {SUBSCRIBERS} subscribers x 10 Hz, {PAYLOAD_BYTES} B; on our side the hub with limits,"
                f" pings and metrics, diff, encoding and checksum of one channel; blocks of {ticks} ticks take turns,"
                " started in both orders",
                excludes=f"connecting; {SAME_MACHINE}",
            )
        )
    return rows


def _lane(stack: ExitStack, name: str, task: Task) -> tuple[Sender, Receiver]:
    module = None if name == OWN else PEERS[name][0]
    if name == OWN:
        command = [sys.executable, "-m", "loadtest.micro.hub_server", str(PAYLOAD_BYTES)]
    elif module is None:
        command = [str(compiled("send_loop")), str(SUBSCRIBERS), str(PAYLOAD_BYTES)]
    else:
        if task.peers is None:
            raise SystemExit(f"{name} needs --peers PYTHON, see loadtest/peers/streams.in")
        command = [task.peers, "-m", f"loadtest.peers.{module}", str(PAYLOAD_BYTES)]
    sender = stack.enter_context(Sender(command))
    channel = PSYCHOLOGY if name == OWN else None
    return sender, stack.enter_context(Receiver(sender.port, SUBSCRIBERS, channel))


def _block_ns(sender: Sender, receiver: Receiver, ticks: int) -> float:
    """Return the processor time of a delivery in a block of ticks. Raises RuntimeError when a frame is missing."""
    receiver.command("poll")
    receiver.command("begin")
    before = sender.cpu_ns()
    sender.run(ticks)
    deadline = time.monotonic() + 5.0
    while receiver.command("report")["frames"] < ticks * SUBSCRIBERS:
        if time.monotonic() > deadline:
            raise RuntimeError(f"frames are missing: {receiver.command('report')}")
        time.sleep(0.01)
    spent = sender.cpu_ns() - before
    receiver.command("sleep")
    return spent / (ticks * SUBSCRIBERS)


def ten_thousand(task: Task) -> list[Row]:
    """Measure how late 10,000 subscribers have each of ten ticks a second, the server on one core."""
    count, ticks = COUNTS["fanout_10k"], task.lengths.ticks
    command = [sys.executable, "-m", "loadtest.micro.hub_server", str(PAYLOAD_BYTES)]
    with Sender(command) as sender, Receiver(sender.port, count, PSYCHOLOGY, is_polling=True) as receiver:
        time.sleep(task.lengths.settle_s)
        sender.run(10)
        # what the first ticks have left in the sockets belongs to none that is counted
        time.sleep(task.lengths.settle_s)
        receiver.command("begin")
        before = sender.cpu_ns()
        sender.run(ticks)
        time.sleep(task.lengths.settle_s)
        spent = sender.cpu_ns() - before
        seen = receiver.command("report")
    share = spent / (ticks * 1e8)
    text = (
        f"{count} subscribers x 10 Hz, {PAYLOAD_BYTES} B, {seen['ticks']} ticks, the server on one core, of which it"
        f" used {share:.0%}; {seen['frames']} frames of {count * ticks}"
    )
    late = [
        row(
            "fanout_10k",
            seen["latency_ms"]["p99"],
            "ms",
            100.0,
            spread=f"p50 {seen['latency_ms']['p50']:.1f}, p99.9 {seen['latency_ms']['p999']:.1f},"
            f" max {seen['latency_ms']['max']:.1f} ms",
            includes=f"p99 of the time from making a tick's frame to its receipt, every delivery; {text}",
            excludes=SAME_MACHINE,
        )
    ]
    return [
        *late,
        row(
            "fanout_10k_late",
            float(seen["ticks_late"] + seen["ticks_partial"]),
            "ticks",
            0.0,
            spread=f"a tick took its last receiver p50 {seen['tick_ms']['p50']:.1f}, p99 {seen['tick_ms']['p99']:.1f},"
            f" at most {seen['tick_ms']['max']:.1f} ms",
            includes=f"ticks that somebody did not have before the next one was made; {text}",
            excludes=SAME_MACHINE,
        ),
    ]


def real_server(task: Task) -> ServerProcess:
    """Return a server of 100,000 residents that has started before, so that it neither compiles nor settles."""
    data = task.folder / "world"
    if not data.exists():
        warm(data, *WORLD)
    server = ServerProcess(data, *WORLD)
    server.wait_ready(START_S)
    return server


def latency(task: Task) -> list[Row]:
    """Measure the time from a committed tick to its receipt by 1,000 subscribers of the markets."""
    count, seconds = COUNTS["stream_latency_1k"], task.lengths.seconds
    with real_server(task) as server, Receiver(server.port, count, MARKETS, core=None) as receiver:
        time.sleep(task.lengths.settle_s)
        before = server.samples()
        receiver.command("begin")
        time.sleep(seconds)
        seen = receiver.command("report")
        after = server.samples()
        server.stop()
    waits = "arena_tick_sync_wait_seconds"
    ticks = after[f"{waits}_count"] - before[f"{waits}_count"]
    wait_ms = 1e3 * (after[f"{waits}_sum"] - before[f"{waits}_sum"]) / ticks
    size = seen["payload_bytes"] / max(1, seen["frames"])
    text = (
        f"tick committed (mark durable and kernels done) to receipt, every delivery; 100,000 residents, {count}"
        f" subscribers of market_tick ({size:.0f} B), {seen['ticks']} ticks; from computed to receipt it is"
        f" {wait_ms:.2f} ms more on average, what the mark's sync took longer than the kernels"
    )
    took = seen["latency_ms"]
    spread = f"p50 {took['p50']:.2f}, p99 {took['p99']:.2f}, p99.9 {took['p999']:.2f}, max {took['max']:.1f} ms"
    excludes = "nothing; the receiver, a C program that sleeps when nothing comes, runs on the same two cores"
    return [
        row(name, took[share], "ms", bar, spread=spread, includes=f"{share}: {text}", excludes=excludes)
        for name, share, bar in (("stream_latency_1k", "p50", 5.0), ("stream_latency_1k_p99", "p99", 10.0))
    ]


def memory(task: Task) -> list[Row]:
    """Measure what an idle subscriber adds to the resident memory of a server."""
    step, steps = COUNTS["bytes_per_subscriber"], task.lengths.steps
    added = []
    with real_server(task) as server, ExitStack() as stack:
        # the first ones make what all share: code paths, counters, arenas of the allocator
        stack.enter_context(Receiver(server.port, step, "discovery_event", core=None))
        for _ in range(steps):
            time.sleep(task.lengths.settle_s)
            before = server.rss_bytes()
            stack.enter_context(Receiver(server.port, step, "discovery_event", core=None))
            time.sleep(task.lengths.settle_s)
            added.append((server.rss_bytes() - before) / step / 1024)
        # a ping and its pong, a heartbeat: whatever they leave belongs to a subscriber as well
        before = server.rss_bytes()
        time.sleep(task.lengths.idle_s)
        kept = (server.rss_bytes() - before) / (step * (steps + 1)) / 1024
        server.stop()
    return [
        row(
            "bytes_per_subscriber",
            statistics.mean(added) + max(0.0, kept),
            "KiB",
            40.0,
            spread=f"{min(added):.1f} to {max(added):.1f} over {steps} x {step} connections, {kept:+.2f} while waiting",
            includes="resident memory of the server for a WebSocket subscriber of discovery_event that gets heartbeats"
            " and pings only; 100,000 residents",
            excludes="memory of the kernel: a socket's buffers are empty then",
        )
    ]


def under_fanout(task: Task) -> list[Row]:
    """Measure how long reads take while every tick goes to 4,000 subscribers."""
    count, seconds, rate, clients = COUNTS["http_under_fanout"], task.lengths.seconds, 25.0, 4
    with real_server(task) as server:
        alone = _reads_ms(server.port, seconds / 4, rate, clients)
        with Receiver(server.port, count, MARKETS, core=None) as receiver:
            time.sleep(task.lengths.settle_s)
            receiver.command("begin")
            taken = _reads_ms(server.port, seconds, rate, clients)
            seen = receiver.command("report")
        server.stop()
    return [
        row(
            "http_under_fanout",
            percentile(taken, 0.99),
            "ms",
            10.0,
            spread=f"p50 {percentile(taken, 0.5):.2f}, p99.9 {percentile(taken, 0.999):.2f}, max {max(taken):.1f} of"
            f" {len(taken)}; without subscribers p50 {percentile(alone, 0.5):.2f}, p99 {percentile(alone, 0.99):.2f}",
            includes=f"p99 of GET /api/indicators and /api/time, {clients} kept connections, {rate * clients:.0f} a"
            f" second, from the time each was due, while {count} subscribers get market_tick ({seen['frames']} frames,"
            f" {seen['ticks_late']} of {seen['ticks']} ticks not complete before the next); 100,000 residents",
            excludes="nothing; clients and receiver run on the same two cores",
        )
    ]


def _reads_ms(port: int, seconds: float, rate: float, clients: int) -> list[float]:
    """Return how long after its due time each read was answered, by clients that read at a rate each."""
    taken: list[float] = []

    def read(offset: float) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        begun = time.monotonic() + offset
        for i in range(int(seconds * rate)):
            due = begun + i / rate
            time.sleep(max(0.0, due - time.monotonic()))
            connection.request("GET", ("/api/indicators", "/api/time")[i % 2])
            answer = connection.getresponse()
            answer.read()
            if answer.status != 200:
                raise RuntimeError(f"a read was answered {answer.status}")
            taken.append(1e3 * (time.monotonic() - due))
        connection.close()

    threads = [threading.Thread(target=read, args=(0.1 + i / (rate * clients),)) for i in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if len(taken) != clients * int(seconds * rate):
        raise RuntimeError("a reader failed")
    return taken


def pause(task: Task) -> list[Row]:
    """Measure the longest pause of a real server's event loop with 5,000 subscribers, seen from inside."""
    count, seconds = COUNTS["loop_pause"], task.lengths.seconds
    real_server(task).stop()
    command = ("-m", "loadtest.micro.probed_server", "--data", str(task.folder / "world"), *LIFTED, *WORLD)
    with open(task.folder / "probed.log", "w", encoding="utf-8") as log:
        probed = python(*command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log)
    assert probed.stdin is not None
    assert probed.stdout is not None
    try:
        port = int(probed.stdout.readline())
        with Receiver(port, count, MARKETS, core=None) as receiver, Stalls() as machine:
            time.sleep(3 * task.lengths.settle_s)
            probed.stdin.write("begin\n")
            probed.stdin.flush()
            receiver.command("begin")
            time.sleep(seconds)
            probed.stdin.write("report\n")
            probed.stdin.flush()
            seen, streamed = json.loads(probed.stdout.readline()), receiver.command("report")
            stalls, is_granted = machine.report(), machine.is_granted
    finally:
        probed.kill()
        probed.communicate()
    longest = max(left_of(pause_ms, begin, end, stalls) for pause_ms, (begin, end) in seen["longest"])
    watched = f"{sum(end - begin for begin, end in stalls):.3f} s" if is_granted else "not granted"
    return [
        row(
            "loop_pause",
            longest,
            "ms",
            5.0,
            spread=f"p50 {seen['p50_ms']:.2f}, p99 {seen['p99_ms']:.2f}, p99.9 {seen['p999_ms']:.2f} of {seen['count']}"
            f" turns; longest with what the machine did {seen['longest_raw_ms']:.1f}",
            includes="longest time a task that wants to run every millisecond waited for it, less what the watchdog,"
            " the scheduler's count of the thread and a real-time thread on each processor that was not run for 3 ms"
            f" explain ({watched} of both); 100,000 residents, {count} subscribers of market_tick,"
            f" {seconds:.0f} s, {streamed['frames']} frames",
            excludes="stalls of the machine; the time to connect",
        )
    ]


def left_of(pause_ms: float, begin: float, end: float, stalls: list[tuple[float, float]]) -> float:
    """Return what is left of a pause, ms, from which the probe has taken what it knew of.

    The longest time the machine stood still in it counts where it is more than that, not beside it: both may be the
    same.
    """
    stood_still = max((min(end, until) - max(begin, since) for since, until in stalls), default=0.0)
    return max(0.0, min(pause_ms, 1e3 * (end - begin - stood_still)))


PROGRAMS: dict[str, Callable[[Task], list[Row]]] = {
    **dict.fromkeys(PEERS, versus),
    "fanout_10k": ten_thousand,
    "stream_latency_1k": latency,
    "bytes_per_subscriber": memory,
    "http_under_fanout": under_fanout,
    "loop_pause": pause,
}


def main() -> None:
    """Measure the rows asked for, each program once, and print them as they come."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ids", nargs="+", choices=list(PROGRAMS))
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--peers", metavar="PYTHON")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="arena-bench-") as folder:
        task = Task(given.ids, QUICK if given.quick else FULL, Path(folder), given.peers)
        for program in dict.fromkeys(PROGRAMS[name] for name in given.ids):
            for measured in program(task):
                sys.stdout.write(json.dumps(measured) + "\n")
                sys.stdout.flush()


if __name__ == "__main__":
    main()
