"""The customers that measure: swarm and bots count what a live server does, and the session can fail."""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgpack
import pytest

from loadtest import crowd, firehose, session, swarm
from loadtest.process import ROOT, ServerProcess, environment, percentile, python
from tests.support.deadlines import seconds

SMALL = ("--residents", "2000", "--max-agents", "64", "--order-book-max", "4096")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """Run a small world in a process of its own."""
    with ServerProcess(tmp_path_factory.mktemp("loadtest") / "world", *SMALL) as running:
        running.wait_ready(seconds(200))
        yield running


async def until_tick(server: ServerProcess, more: int) -> None:
    """Return when the world has published so many more ticks."""
    loop = asyncio.get_running_loop()
    first = (await asyncio.to_thread(server.document, "/api/time"))["tick"]
    deadline = loop.time() + seconds(60)
    while (await asyncio.to_thread(server.document, "/api/time"))["tick"] < first + more:
        assert loop.time() < deadline


def customer(*command: str) -> subprocess.Popen[str]:
    """Start a customer and return once it is connected."""
    started = python("-m", *command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert started.stdout is not None
    assert started.stdout.readline() == "connected\n"
    return started


def end(started: subprocess.Popen[str]) -> dict[str, Any]:
    """Let a customer end by closing its input and return what it measured."""
    said, _ = started.communicate(timeout=seconds(60))
    result = json.loads(said.splitlines()[-1])
    assert isinstance(result, dict)
    return result


@pytest.mark.timeout(300)
async def test_the_swarm_counts_every_frame(server: ServerProcess) -> None:
    """Each of many light subscribers gets every tick, and the strict ones find nothing wrong."""
    swarm = customer("loadtest.swarm", "--url", server.url, "--subscribers", "120")

    await until_tick(server, 20)
    result = end(swarm)

    assert result["frames_fewest"] >= 20
    assert result["frames"] == pytest.approx(120 * result["frames_most"], rel=0.2)
    assert (result["lost"], result["closed_early"], result["strict"]) == ([], 0, 2)


@pytest.mark.timeout(300)
def test_the_swarm_holds_the_server_to_its_bars(server: ServerProcess, tmp_path: Path) -> None:
    """More sockets than the soft limit allows are made room for; the result is kept; a bar that is missed leaves 1."""
    out = tmp_path / "swarm.json"
    command = (
        "ulimit -Sn 300; exec", sys.executable, "-m", "loadtest.swarm", "--url", server.url, "--subscribers", "320",
        "--seconds", "2", "--out", str(out), "--bar", "frames_share_fewest=0.5", "--bar", "ticks_on_time_share=0",
    )  # fmt: skip

    done, missed = (
        subprocess.run(
            ["/bin/sh", "-c", " ".join((*command, *more))],
            cwd=ROOT, env=environment(), capture_output=True, timeout=seconds(100), check=False,
        )
        for more in ((), ("--bar", "ticks=1000"))
    )  # fmt: skip

    assert done.returncode == 0, done.stderr.decode()[-2_000:]
    assert missed.returncode == 1
    result = json.loads(out.read_text())
    assert [name for name, check in result["checks"].items() if not check["pass"]] == ["ticks"]
    assert result["seen"]["subscribers"] == 320


def test_each_check_of_the_swarm_can_fail() -> None:
    """Somebody out of step, somebody cut off, nothing that happened, one subscriber that had less than the others."""
    good: dict[str, Any] = {"lost": [], "closed_early": 0, "ticks": 100, "frames_meanwhile_fewest": 99}
    bad = [{"lost": ["a gap"]}, {"closed_early": 1}, {"ticks": 0}, {"frames_meanwhile_fewest": 98}]

    assert all(check.passes for check in swarm.checks(good))
    assert [[check.name for check in swarm.checks(good | one) if not check.passes] for one in bad] == [
        ["lost"], ["closed_early"], ["ticks"], ["frames_share_fewest"],
    ]  # fmt: skip
    assert swarm.on_time({"share_on_time": 0.95}).passes
    assert not swarm.on_time({"share_on_time": 0.94}).passes


@pytest.mark.timeout(300)
async def test_the_bots_keep_their_rate(server: ServerProcess) -> None:
    """Bots send at the rate asked for, and a live server accepts their orders."""
    bots = customer("loadtest.bots", "--url", server.url, "--bots", "4", "--rate", "40")

    await until_tick(server, 30)
    result = end(bots)

    assert result["actions"] >= 60
    assert result["outcomes"] == {"accepted": result["actions"]}
    assert 0 < result["ack_ms_p50"] <= result["ack_ms_p99"]


@pytest.mark.timeout(300)
async def test_a_watcher_notices_a_value_that_differs(server: ServerProcess) -> None:
    """A mirror is compared value by value with the GET of its tick: one wrong number is named."""
    watcher = session.Watcher(server.url)
    following = asyncio.create_task(watcher.run())
    await until_tick(server, 10)
    document = await asyncio.to_thread(server.document, "/api/psychology")
    await until_tick(server, 2)

    shown = session._shown(document)
    right = watcher.differing("psychology_update", document["tick"], shown)
    wrong = watcher.differing("psychology_update", document["tick"], shown | {"fear": 2.0})
    following.cancel()
    await asyncio.gather(following, return_exceptions=True)

    assert (right, wrong) == ([], ["fear"])
    assert watcher.differing("psychology_update", -1, shown) is None


def test_each_condition_of_the_session_can_fail() -> None:
    """A session holds only when everything holds, and says what does not."""
    good: dict[str, Any] = {
        "ticks": {"missing": 0, "behind": 1, "late": 0},
        "lateness": {"share_within_10_ms": 0.999, "unexplained": []},
        "mirrors": {"compared": 5, "passed_over": 0, "different": [], "resyncs": 0, "failed": [], "stale": 0},
        "memory": {"slope_mb_per_min": 0.2},
        "examples": [{"status": 0}],
        "exit_status": 0,
        "replay": {"status": 0},
    }
    bad: list[dict[str, Any]] = [
        {"ticks": {"missing": 1, "behind": 0, "late": 0}},
        {"ticks": {"missing": 0, "behind": 2, "late": 2}},
        {"lateness": {"share_within_10_ms": 0.98, "unexplained": []}},
        {"lateness": {"share_within_10_ms": 0.999, "unexplained": [{"tick": 5}]}},
        {"mirrors": good["mirrors"] | {"different": ["tick 5"]}},
        {"mirrors": good["mirrors"] | {"compared": 0}},
        {"mirrors": good["mirrors"] | {"passed_over": 1}},
        {"mirrors": good["mirrors"] | {"resyncs": 1}},
        {"mirrors": good["mirrors"] | {"stale": 1}},
        {"memory": {"slope_mb_per_min": 1.5}},
        {"examples": [{"status": 1}]},
        {"exit_status": 1},
        {"replay": {"status": 1}},
    ]

    assert all(session.checks(good).values())
    assert [sum(not held for held in session.checks(good | change).values()) for change in bad] == [1] * len(bad)


def test_ticks_are_held_to_the_world_and_to_the_clock() -> None:
    """A number the world passed without executing it is missing; ticks the clock asked for in vain are told too."""
    status = {"started_tick": 100, "uptime_s": 60.04, "tick_rate_ms": 100}
    samples = {"arena_ticks_total": 595.0, "arena_tick": 697.0, "arena_ticks_late_total": 4.0}

    assert session._ticks(status, samples) == {"executed": 595, "missing": 2, "behind": 5, "late": 4}


def test_late_ticks_are_explained_by_the_machine_or_not(tmp_path: Path) -> None:
    """A start over 50 ms late is the machine's when a stall of that order was seen, or the start before was late so."""
    log = tmp_path / "log"
    lines = [
        {"event": "tick_began_late", "tick": 5, "lateness_ms": 80.0, "stalled_ms": 75.0, "waited_ms": 0.0},
        {"event": "tick_began_late", "tick": 6, "lateness_ms": 70.0, "stalled_ms": 0.0, "waited_ms": 0.0},
        {"event": "tick_began_late", "tick": 9, "lateness_ms": 60.0, "stalled_ms": 0.0, "waited_ms": 1.0},
    ]
    log.write_text("not json\n" + "".join(json.dumps(line) + "\n" for line in lines))
    name = "arena_tick_lateness_seconds"
    samples = {
        f'{name}_bucket{{le="0.01"}}': 98.0,
        f"{name}_count": 100.0,
        f"{name}_sum": 0.2,
        "arena_scheduler_stalls_total": 1.0,
    }

    lateness = session._lateness(samples, log)

    assert lateness["share_within_10_ms"] == 0.98
    assert [line["tick"] for line in lateness["unexplained"]] == [9]


def test_what_a_server_has_logged_is_found_by_its_event(server: ServerProcess) -> None:
    """Whole lines, with what they say; an event that never was has none."""
    [opened] = server.said("world_opened")

    assert opened["agents"] == 0
    assert server.said("opened") == []


@pytest.mark.parametrize(
    ("values", "share", "result"),
    [
        ([], 0.5, 0.0),
        ([3.0], 0.99, 3.0),
        ([4.0, 1.0, 3.0, 2.0], 0.5, 2.0),
        (list(map(float, range(1, 101))), 0.99, 99.0),
    ],
)
def test_percentile_is_a_value_that_was_seen(values: list[float], share: float, result: float) -> None:
    """The smallest value that at least that share does not exceed."""
    assert percentile(values, share) == result


@pytest.mark.timeout(400)
async def test_a_crowd_is_taken_and_counted(tmp_path: Path) -> None:
    """A small one: what its sender was told was accepted is what the server accepted, and all of it was in a tick."""
    given = argparse.Namespace(
        residents=2_000, agents=60, owners=6, batch=50, rate=2_000.0, queue=4_096, connections=4, seconds=3.0
    )

    result = await asyncio.to_thread(crowd.measure, given, tmp_path)

    sent = result["sent"]
    assert sent["agents"] == 60
    assert set(sent["batches"]) == {"202"}
    assert sent["accepted"] == result["accepted_by_server"] > 2_000
    assert sent["refused"] == 0
    assert result["server"]["ticks"] > 10
    assert result["receipts"]["receipts"] >= sent["accepted"]
    assert result["exit_status"] == 0
    assert result["stood_still"] is None or result["stood_still"]["longest_ms"] <= result["stood_still"]["stalled_ms"]
    assert set(crowd.checks("crowd", result)) > {"memory stays below 1 GB", "every action was accepted"}


def test_it_is_said_whether_the_machine_stood_still_before_a_late_tick() -> None:
    """From the time the tick before was due; of several stalls the longest, as far as it lies there."""
    now = time.monotonic()
    line = {"timestamp": datetime.now(UTC).isoformat(), "lateness_ms": 60.0}
    before, inside, across = (now - 5.0, now - 4.0), (now - 0.05, now - 0.03), (now - 0.2, now - 0.12)

    assert crowd._longest_ms([before], line) == 0
    assert crowd._longest_ms([before, inside], line) == pytest.approx(20.0, abs=1.0)
    assert crowd._longest_ms([before, inside, across], line) == pytest.approx(40.0, abs=5.0)
    assert crowd._stood_still([before, inside, across], now - 1.0, now) == {
        "stalls": 2, "stalled_ms": pytest.approx(100.0), "longest_ms": pytest.approx(80.0),
    }  # fmt: skip


def test_each_check_of_a_crowd_and_a_flood_can_fail() -> None:
    """A result holds only when everything holds."""
    sent = {"accepted": 100, "refused": 0, "batches": {"202": 5}, "ack_ms_p99": 9.0}
    sent |= {"accepted_per_s": 10, "rate_per_s": 10}
    server = {"share_within_ms": {"0.02": 1.0}, "ticks_late": 0, "ticks": 100, "seconds": 10.0}
    server |= {"actions_per_tick": 80.0}
    good: dict[str, Any] = {
        "sent": sent, "server": server, "accepted_by_server": 100.0, "exit_status": 0, "queue_actions_max": 100,
        "memory": {"rss_mb_most": 900.0},
    }  # fmt: skip
    flood = good | {"sent": sent | {"refused": 7, "batches": {"202": 5, "429": 6}}}
    bad: list[tuple[str, dict[str, Any]]] = [
        ("crowd", good | {"server": server | {"share_within_ms": {"0.02": 0.98}}}),
        ("crowd", good | {"server": server | {"ticks_late": 1}}),
        ("crowd", good | {"server": server | {"ticks": 97}}),
        ("crowd", good | {"accepted_by_server": 99.0}),
        ("crowd", good | {"exit_status": 1}),
        ("crowd", good | {"sent": sent | {"ack_ms_p99": 51.0}}),
        ("crowd", good | {"sent": sent | {"refused": 1}}),
        ("crowd", good | {"sent": sent | {"accepted_per_s": 9}}),
        ("crowd", good | {"memory": {"rss_mb_most": 1_001.0}}),
        ("flood", good),
        ("flood", flood | {"sent": flood["sent"] | {"batches": {"202": 5, "500": 1}}}),
        ("flood", flood | {"server": server | {"actions_per_tick": 49.0}}),
    ]

    assert all(crowd.checks("crowd", good).values())
    assert all(crowd.checks("flood", flood).values())
    assert [sum(not held for held in crowd.checks(kind, result).values()) for kind, result in bad] == [1] * len(bad)


def test_a_sender_names_every_action_anew() -> None:
    """The bytes of a batch are prebuilt but for the numbers at their end."""
    owner = firehose.Owner("ak_x", [17, 18])
    firehose.prepare([owner], 32, [1.0] * firehose.MARKETS, random.Random(1))

    requests = [owner.request(32), owner.request(32)]

    bodies = [msgpack.unpackb(request.partition(b"\r\n\r\n")[2])["columns"] for request in requests]
    numbers = [struct.unpack("<32Q", body.pop("client_action_number")) for body in bodies]
    assert numbers == [tuple(range(32)), tuple(range(32, 64))]
    assert bodies[0] == bodies[1]
    assert requests[0].startswith(b"POST /api/actions HTTP/1.1\r\n")
