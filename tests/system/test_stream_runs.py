"""The long runs of the streams, for a moment each: they see what they are there to see, and say what did not hold."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

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
        """On a connection that asked for nothing, and on one that asked for something else."""
        foreign: list[str] = []
        churn.Idle(foreign).data_received(b"a")
        one = churn.Checked("psychology_update", foreign)
        one.message(churn.wire.encode({"type": "delta", "channel": "inflation_update"}, "arena.v2.msgpack"))

        assert len(foreign) == 2


def test_a_storm_is_over_when_everybody_is_in_step(tmp_path: Path) -> None:
    """All come back, none is lost, no frame is missing."""
    with small_server(tmp_path) as server:
        result = storm.run(server, 100, "market_tick", 2, calm_s=0.2)
    held = storm.check(result)

    assert [seen["in_step"] for seen in result["storms"]] == [100, 100]
    assert held["nobody was refused or lost"]
    assert held["no gap"]
    assert all(seen["ticks"] > 0 for seen in result["storms"])
    assert not storm.check({**result, "subscribers": 101})["everybody came back"]


def test_stuck_readers_are_told_from_the_one_that_wakes(tmp_path: Path) -> None:
    """Three are cut with their code; the fourth reads again in time, is told what it missed, and goes on."""
    with small_server(tmp_path, "tests.support.impatient") as server:
        patience = Patience(noticed_s=4.0, cut_s=6.0)
        result = asyncio.run(slow_readers.run(server, 1, 20, 3, 0.5, patience))
    held = slow_readers.check({**result, "stuck": 3}, patience)

    assert held["each cut with its code, in metrics and log"], result
    assert held["one that reads again is told and gets a snapshot"], result
    assert 0 < result["rounds"][0]["cost_bytes"]["in_kernel_most"] <= 128 * 1024
    assert held["nobody else is lost"]
    assert not slow_readers.check({**result, "stuck": 4}, patience)["each cut with its code, in metrics and log"]


def test_a_few_faults_and_a_restart_leave_everybody_equal(tmp_path: Path) -> None:
    """Real server, real proxy, real clients of both encodings."""
    result = asyncio.run(faults_run.run(tmp_path, faults=40, restarts=1, clients=4))

    assert faults_run.check(result, 40, 1) == dict.fromkeys(faults_run.check(result, 40, 1), True), result
    assert not faults_run.check(result, 41_000, 1)["as many faults and restarts as asked for"]
    assert result["reconnects"] >= 4
