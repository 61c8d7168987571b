"""The simulation: promises hold under its seeds, the same seed is the same run, and each planted mistake is found."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog

from engine import replay
from engine.commands import Command, Pause, Resume
from engine.journal import Actions, RecordKind
from engine.messages import Kind
from loadtest.simulation.run import Failed, fail_everywhere, run_seed
from server.live import disk, recorder, world
from server.live.errors import Full
from server.live.journal import DiskFile, Journal
from server.live.recorder import Input, Recorder, Submitted
from tests.support.deadlines import seconds

ROOT = Path(__file__).resolve().parents[2]
#: Seeds that have found something, with what; they stay.
FOUND: dict[int, str] = {}
MINUTES = 0.4
SEEDS = range(273, 281)


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    """Keep the lines of many small worlds out of the report."""
    before = structlog.get_config()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
    yield
    structlog.configure(**before)


def test_what_was_acknowledged_is_kept() -> None:
    """Crashes, power cuts, failing and slow disks, a bad network: nobody was told what does not hold.

    All of that does happen in the few seeds that run each time.
    """
    ends: Counter[str] = Counter()
    statuses: Counter[str] = Counter()
    for seed in (*SEEDS, *FOUND):
        summary = run_seed(seed, MINUTES)
        ends += summary.ends
        statuses += summary.statuses

    assert {"kill", "power", "stop"} <= ends.keys()
    assert any("opening" in end for end in ends)
    assert any("disk" in end for end in ends)
    assert {"200", "201", "202", "409", "422", "429", "503", "504", "lost"} <= statuses.keys()
    assert {"operator 200", "operator 202"} <= statuses.keys()


ONE_RUN = """
from server import kernel_cache
kernel_cache.choose()
from loadtest.simulation.run import run_seed
summary = run_seed(5, 0.2)
print("run", summary.steps, summary.acknowledged, summary.trace)
"""


def test_a_seed_is_the_same_run_in_any_process() -> None:
    """Callback by callback, whatever Python makes of hashes and addresses."""
    lines = set()
    for hash_seed in ("1", "2"):
        done = subprocess.run(
            [sys.executable, "-c", ONE_RUN],
            cwd=ROOT,
            env={**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT}/clients/python"},
            capture_output=True,
            text=True,
            timeout=seconds(100),
            check=True,
        )
        lines.add(next(line for line in done.stdout.splitlines() if line.startswith("run ")))

    assert len(lines) == 1


def finds(seeds: range = range(1, 30)) -> str:
    """Run seeds until one fails and return what it says."""
    for seed in seeds:
        try:
            run_seed(seed, MINUTES)
        except Failed as failure:
            return str(failure)
    pytest.fail("nothing was found")


def test_an_early_acknowledgement_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted: answers do not wait for the disk."""

    async def at_once(self: Journal, seq: int) -> None:
        pass

    monkeypatch.setattr(Recorder, "durable", at_once)

    assert "was on the disk" in finds()


def test_a_sync_that_is_left_out_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted: batches are written and not synced."""
    monkeypatch.setattr(DiskFile, "sync", lambda self: None)

    assert "was on the disk" in finds()


def test_a_tick_published_before_its_mark_is_durable_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted: the ticker does not wait for the disk."""
    append = Journal.append

    def pretend(self: Journal, kind: RecordKind, payload: bytes, count: int = 1) -> int:
        seq = append(self, kind, payload, count)
        return 0 if kind is RecordKind.MARK else seq

    monkeypatch.setattr(Journal, "append", pretend)

    assert "published" in finds(range(30, 60))


def test_forgotten_receipts_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted: a start does not remember every action it finds in the journal, so a retry is taken as new."""
    take = world._Rebuild.actions

    def forget(self: Any, actions: Actions) -> None:
        # one who was never registered cannot leave
        if int(actions.rows["seq"][0]) % 3 or Kind.REGISTER in actions.rows["kind"]:
            take(self, actions)

    monkeypatch.setattr(world._Rebuild, "actions", forget)

    said = finds()
    assert any(word in said for word in ("taken", "twice", "gone", "versions", "is in the journal as")), said


def test_a_forgotten_pause_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted: a start passes over the operator's word that the world stands still."""
    take = replay._take

    def forget(done: replay.Replayed, command: Command) -> None:
        if not isinstance(command, Pause):
            take(done, command)

    monkeypatch.setattr(replay, "_take", forget)

    assert "come back running" in finds(range(40, 60))


def test_a_command_that_is_journaled_as_another_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted: the journal has that the world goes on where the operator had it stand still."""
    encode = recorder.encode_command

    def mistake(command: Command) -> bytes:
        return encode(Resume() if isinstance(command, Pause) else command)

    monkeypatch.setattr(recorder, "encode_command", mistake)

    assert "was acknowledged as" in finds()


def test_a_name_that_is_not_synced_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted: new files are synced, their names are not."""
    monkeypatch.setattr(disk, "sync_folder", lambda folder: None)

    assert "seed" in finds()


def test_a_refusal_after_the_fact_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted: an action is journaled, and then refused because there is no room."""
    take = Recorder.take

    def refuse_late(self: Recorder, given: Input) -> Submitted:
        done = take(self, given)
        if done.receipt.seq % 7 == 0 and not done.duplicate:
            raise Full("no room")
        return done

    monkeypatch.setattr(recorder.Recorder, "take", refuse_late)

    said = finds()
    assert "was only answered" in said
    assert "429" in said


@pytest.mark.parametrize(("error", "first"), [(errno.EIO, 1), (errno.ENOSPC, 8)])
def test_a_disk_that_fails_anywhere_costs_nothing_acknowledged(error: int, first: int) -> None:
    """Some operation of a life fails, each in its turn: the process lives, says why, and the next one has it all.

    Every operation is tried by `python -m loadtest.simulation --disk-failures EIO`.
    """
    operations = fail_everywhere(133, error, is_lasting=error == errno.ENOSPC, first=first, step=23)

    assert operations > 100


def test_what_a_failing_disk_has_found_stays_found() -> None:
    """Operation 29 failed for good before the history was in its file: a market's day was told of fewer ticks."""
    assert fail_everywhere(133, errno.EIO, is_lasting=True, first=29, step=10_000) > 29
