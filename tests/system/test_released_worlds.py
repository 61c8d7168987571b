"""Worlds that earlier releases wrote are opened by this one, to the state they were left in."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from server.clock import ManualClock
from server.live import replay_cmd, verify_cmd
from server.live.backup import restore
from server.live.receipt_index import FOLDER_NAME as RECEIPTS_NAME
from server.live.snapshots import FOLDER_NAME as SNAPSHOTS_NAME
from tests.support.live import open_small
from tests.support.make_world import OFTEN, TICKS, WORLDS, receipt, released_name

RELEASED = sorted(WORLDS.glob("*.tar"))
OURS = [path for path in RELEASED if path.stem == released_name()]


def restored(path: Path, folder: Path) -> dict[str, Any]:
    """Restore a released world into a folder and return what was true of it."""
    made = restore(path, folder, ManualClock())
    told: dict[str, Any] = json.loads(path.with_suffix(".json").read_text())
    assert (made.tick, made.parent) == (told["tick"], told["epoch"])
    return told


def test_this_release_is_among_them() -> None:
    """Whoever raises a format or the engine version writes a world of it: python -m tests.support.make_world."""
    assert OURS, f"{released_name()} is not in {WORLDS}"


@pytest.mark.parametrize("path", RELEASED, ids=lambda path: path.stem)
def test_a_released_world_opens_to_its_recorded_hash(path: Path, tmp_path: Path) -> None:
    """From its snapshot: the state, every receipt and the events are those of the release that wrote it."""
    told = restored(path, tmp_path / "world")

    world = open_small(tmp_path / "world", **OFTEN)
    world.lock.release()

    assert world.replayed.marks < TICKS, "not begun from a snapshot"
    assert (world.economy.tick, world.economy.state_hash().hex()) == (told["tick"], told["state_hash"])
    assert {name: receipt(world, told["agent"], name) for name in told["receipts"]} == told["receipts"]
    assert world.events.size == told["events_bytes"]


@pytest.mark.parametrize("path", OURS, ids=lambda path: path.stem)
def test_a_released_world_is_computed_again(path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """From its first tick, without snapshots and receipts, every stored hash is met; verify finds nothing wrong."""
    folder = tmp_path / "world"
    told = restored(path, folder)

    assert verify_cmd.main([str(folder), "--replay"]) == verify_cmd.OK
    assert replay_cmd.main([str(folder), "--check"]) == replay_cmd.OK
    said = capsys.readouterr().out
    for name in (SNAPSHOTS_NAME, RECEIPTS_NAME):
        (folder / name).rename(tmp_path / name)
    world = open_small(folder, **OFTEN)
    world.lock.release()

    assert f"tick {told['tick']}, state hash {told['state_hash']}" in said
    assert world.economy.state_hash().hex() == told["state_hash"]
    assert {name: receipt(world, told["agent"], name) for name in told["receipts"]} == told["receipts"]
