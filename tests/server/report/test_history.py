"""Histories: headless, from a file, from the journal of a server that has run; what is none is refused by name."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from engine.analysis.controls import control
from engine.analysis.recording import Recording, record
from engine.economy import Economy, warmed_up
from engine.ladder import UCR
from server.clock import ManualClock
from server.live.errors import FolderInUse, WorldRefused
from server.live.world import FolderLock
from server.report.history import RECORDING_NAME, History, Progress, keep, load, read_history, run_headless
from tests.support.arena import run_server
from tests.support.worlds import small_config


def silent(line: str) -> None:
    """Say nothing."""


def equal(one: Recording, other: Recording) -> bool:
    """Return whether two recordings hold the same."""
    columns = other.columns()
    return one.about() == other.about() and all(np.array_equal(a, columns[n]) for n, a in one.columns().items())


def test_headless_is_the_settled_world_under_its_seed(history: History) -> None:
    """As a server begins it: the public warm-up, then the seed; the experiments beside it change nothing."""
    config = small_config()
    economy = Economy(config, 5, start=warmed_up(config).copy_arrays())

    plain = record(economy, 200, origin="headless, seed 5")

    assert np.array_equal(plain.level, history.recording.level[:200])
    assert history.recording.origin == plain.origin
    assert len(history.metaorders) >= 14 * 2 * 3


def test_a_kept_history_is_the_same_again(history: History, tmp_path: Path) -> None:
    """keep and load are inverse, and a folder with a recording is read without a replay."""
    keep(history, tmp_path / RECORDING_NAME)

    again = read_history(tmp_path, ManualClock(), silent)

    assert equal(again.recording, history.recording)
    assert again.metaorders == history.metaorders


async def test_the_journal_of_a_server_is_a_history(tmp_path: Path) -> None:
    """What a server published is what its folder reports, an agent's trades included."""
    prices, first = [], 0
    async with run_server(tmp_path) as arena:
        first = arena.economy.tick + 1
        bot = await arena.register()
        for i in range(30):
            if i % 5 == 0:
                order = {"type": "market", "market": "food", "side": "buy", "quantity": 3, "client_action_id": f"{i}"}
                assert (await bot.act(order)).status_code == 202
            await arena.step()
            prices.append(arena.economy.state.level.tolist())

    history = read_history(tmp_path, ManualClock(), silent)

    recording = history.recording
    assert recording.first_tick == first
    # the first tick is the one in which the agent registered
    assert recording.level[1:].tolist() == prices
    assert recording.origin.startswith("world ")
    assert history.metaorders == []


def test_a_folder_in_use_is_refused(tmp_path: Path) -> None:
    """A running server's journal is not read under its hands."""
    (tmp_path / "journal-000000000001.arj").write_bytes(b"")
    lock = FolderLock(tmp_path)
    try:
        with pytest.raises(FolderInUse, match="belongs to a running process"):
            read_history(tmp_path, ManualClock(), silent)
    finally:
        lock.release()


def test_a_folder_without_history_says_what_is_missing(tmp_path: Path) -> None:
    """Neither journal nor recording; a file that is no recording is named."""
    with pytest.raises(WorldRefused, match=r"holds neither a journal nor a recording\.npz"):
        read_history(tmp_path, ManualClock(), silent)
    (tmp_path / RECORDING_NAME).write_bytes(b"something else")
    with pytest.raises(WorldRefused, match="is no recording of this release"):
        load(tmp_path / RECORDING_NAME)


def test_a_recording_of_another_format_is_refused(history: History, tmp_path: Path) -> None:
    """The columns of another release are not guessed at."""
    keep(history, tmp_path / RECORDING_NAME)
    with np.load(tmp_path / RECORDING_NAME) as file:
        columns = dict(file)
    columns["about"] = np.array(str(columns["about"]).replace('"format": 1', '"format": 9'))
    np.savez(tmp_path / RECORDING_NAME, **columns)

    with pytest.raises(WorldRefused, match="format 1, got 9"):
        load(tmp_path / RECORDING_NAME)


def test_a_control_begins_after_the_warm_up() -> None:
    """Its config, its interference and its change of the recording take effect, and the origin names it."""
    off = run_headless(small_config(), 5, 48, ManualClock(), silent, control=control("policy_off"))
    mixed = run_headless(small_config(), 5, 48, ManualClock(), silent, control=control("shuffled"))

    assert off.recording.config["policy_active"] is False
    assert np.ptp(off.recording.day("policy_rate")) == 0.0
    assert mixed.recording.origin == "headless, seed 5, control shuffled"
    assert off.recording.real_base * UCR > 0


def test_progress_is_said_every_few_seconds() -> None:
    """A line says how far it is and how long it takes; a quick run says nothing."""
    clock, lines = ManualClock(), list[str]()
    progress = Progress(1_000, clock, lines.append)
    for _ in range(1_000):
        clock.advance(0.01)
        progress.step()

    assert len(lines) == 1
    assert re.fullmatch("tick 50[01] of 1,000, 5 s left", lines[0])
