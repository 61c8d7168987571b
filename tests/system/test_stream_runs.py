"""The long runs of the streams, for a moment each: they see what they are there to see, and say what did not hold."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from arena_client import EntriesReceived
from arena_client.mirror import Mirror
from arena_client.subscription import Report, Session

from loadtest import churn, slow_readers, storm
from loadtest.faults import run as faults_run
from loadtest.process import FIRST_START_S, ServerProcess
from loadtest.slow_readers import Patience

SMALL = ("--residents", "2000", "--max-agents", "64", "--order-book-max", "4096", "--tick-rate", "20")

pytestmark = pytest.mark.timeout(300)


@contextlib.contextmanager
def small_server(folder: Path, module: str = "server") -> Iterator[ServerProcess]:
    """Give a server of a small world that ticks fifty times a second."""
    with ServerProcess(folder / "world", *SMALL, module=module) as server:
        server.wait_ready(FIRST_START_S)
        yield server


class TestChurn:
    """Connects and aborts."""

    def test_nothing_foreign_comes_to_anybody(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A few hundred come and go, frames go out meanwhile, and each is where it belongs."""
        monkeypatch.setattr(churn, "STAYING", 10)
        with small_server(tmp_path) as server:
            result = asyncio.run(churn.Churn(server.port).run(1.0))
        held = churn.check(result)

        assert held["no foreign byte"], result["foreign_examples"]
        assert held["nobody who stayed or passed was lost"]
        assert held["frames went out meanwhile"]
        assert result["aborts"] > 0

    def test_foreign_bytes_are_seen(self) -> None:
        """Where nothing was asked for, before the hello, of another channel, twice, and what is no message."""
        foreign: list[str] = []
        snapshot = {"type": "snapshot", "channel": "psychology_update", "seq": 5, "base": None}
        churn.Idle(foreign).data_received(b"a")
        early, greeted = churn.Checked("psychology_update", foreign), churn.Checked("psychology_update", foreign)
        for one, message in (
            (early, snapshot),
            (greeted, {"type": "hello"}),
            (greeted, snapshot),
            (greeted, snapshot | {"channel": "inflation_update", "seq": 6, "base": 5}),
            (greeted, snapshot),
        ):
            one.message(churn.wire.encode(message, "arena.v2.msgpack"))
        greeted.message(b"\xc1")

        assert [said.partition(":")[0] for said in foreign] == [
            "1 bytes on a connection that asked for nothing",
            "snapshot of psychology_update before the hello",
            "snapshot of inflation_update on a subscription to psychology_update",
            "snapshot 5 after None, stood at 5",
            "not a message",
        ]
        assert greeted.frames == 2


def test_a_storm_is_over_when_everybody_is_in_step(tmp_path: Path) -> None:
    """All come back, none is lost, no frame is missing."""
    with small_server(tmp_path) as server:
        result = storm.run(server, 100, "market_tick", 2, calm_s=0.2)
    held = storm.check(result)

    assert [seen["in_step"] for seen in result["storms"]] == [100, 100]
    assert held["nobody was refused or lost"]
    assert held["no gap"]
    assert held["everybody resumed"]
    assert not storm.check({**result, "storms": [{**result["storms"][0], "resumed": 99}]})["everybody resumed"]
    late = {**result["afterwards"], "latency_ms": {"p99": 201.0}}
    assert not storm.check({**result, "afterwards": late})["in step afterwards"]
    assert all(seen["ticks"] > 0 for seen in result["storms"])
    assert not storm.check({**result, "subscribers": 101})["everybody came back"]


def test_stuck_readers_are_told_from_the_one_that_wakes(tmp_path: Path) -> None:
    """Three are cut with their code; the fourth reads again in time, is told what it missed, and goes on."""
    with small_server(tmp_path, "tests.support.impatient") as server:
        patience = Patience(noticed_s=4.0, cut_s=6.0)
        result = asyncio.run(slow_readers.run(server, 1, 20, 3, 5, 0.5, patience))
    held = slow_readers.check({**result, "stuck": 3}, patience)

    assert held["each cut with its code, in metrics and log"], result
    assert held["one that reads again is told and gets a snapshot"], result
    # five of them weigh less than a process moves by on its own account
    assert slow_readers.check({**result, "stuck": 3, "in_process_each_bytes": 0}, patience)["at most 128 KiB each"]
    assert not slow_readers.check({**result, "in_process_each_bytes": 128 * 1024}, patience)["at most 128 KiB each"]
    assert held["nobody else is lost"]
    assert not slow_readers.check({**result, "stuck": 4}, patience)["each cut with its code, in metrics and log"]


def test_a_few_faults_and_a_restart_leave_everybody_equal(tmp_path: Path) -> None:
    """Real server, real proxy, real clients of both encodings."""
    result = asyncio.run(faults_run.run(tmp_path, faults=40, restarts=1, clients=4))

    assert faults_run.check(result, 40, 1) == dict.fromkeys(faults_run.check(result, 40, 1), True), result
    assert not faults_run.check(result, 41_000, 1)["as many faults and restarts as asked for"]
    assert result["reconnects"] >= 4
    assert result["private_actions"] > 20
    assert len(set(result["private_entries"].values())) == 1


def test_a_lost_entry_of_a_private_channel_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted in one follower, which passes over an entry and believes that nothing was missing."""
    take = Session._on_entries
    left_out: list[object] = []

    def forgetful(self: Session, message: Mapping[str, Any]) -> list[Report]:
        reports = take(self, message)
        for report in reports:
            if isinstance(report, EntriesReceived) and not left_out:
                # not the registration's, which has no name and may come before the channel is followed
                left_out.extend([entry for entry in report.entries if entry.get("client_action_id")][:1])
                report.entries[:] = [entry for entry in report.entries if entry not in left_out]
        return reports

    monkeypatch.setattr(Session, "_on_entries", forgetful)
    result = asyncio.run(faults_run.run(tmp_path, faults=10, restarts=0, clients=1))
    held = faults_run.check(result, 10, 0)

    assert left_out
    assert [name for name, holds in held.items() if not holds] == ["no entry of a private channel lost"]


def test_a_narrowed_copy_that_differs_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted in the narrowed followers alone: the prices of their markets are swapped."""
    values = Mirror.values

    def wrong(self: Mirror) -> dict[str, Any]:
        found = values(self)
        return {**found, "price": found["price"][::-1]} if self.fields else found  # type: ignore[index]  # a list here

    monkeypatch.setattr(Mirror, "values", wrong)
    result = asyncio.run(faults_run.run(tmp_path, faults=10, restarts=0, clients=1))
    held = faults_run.check(result, 10, 0)

    assert [name for name, holds in held.items() if not holds] == ["every copy ends equal to the server"]
    assert all(found.startswith("narrowed") for found in result["unequal_in_the_end"])
