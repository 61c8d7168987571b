"""Write a released world, to be opened by every later release: python -m tests.support.make_world.

The file is a backup in tests/vectors/worlds, named by the journal's format and the engine version; beside it stands
what was true of the world. Run it after raising one of them, and leave the files of earlier releases where they are.
"""

from __future__ import annotations

import asyncio
import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from server import kernel_cache

if TYPE_CHECKING:
    from server.live.world import World

WORLDS = Path(__file__).parents[1] / "vectors" / "worlds"
TICKS = 34
OFTEN = {"snapshot_ticks": 8, "resume_frames": 2}
"""Snapshots so close that segments are archived and receipts are on the disk."""


def main() -> None:
    """Let a world live through every kind of record, back it up, and write down what was true of it."""
    kernel_cache.choose()  # before the kernels are imported
    WORLDS.mkdir(exist_ok=True)
    target = WORLDS / f"{released_name()}.tar"
    target.unlink(missing_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        told = asyncio.run(live(Path(folder) / "world", target))
    target.with_suffix(".json").write_text(json.dumps(told, indent=1) + "\n")


def released_name() -> str:
    """Return what a world of this release is called."""
    from engine.config import ENGINE_VERSION
    from engine.journal import FORMAT_VERSION

    return f"format-{FORMAT_VERSION}-engine-{ENGINE_VERSION}"


async def live(folder: Path, target: Path) -> dict[str, Any]:
    """Live, stop cleanly, write the backup and return what was true at the end."""
    from engine.commands import Pause, Resume
    from engine.markets import ID
    from engine.messages import Kind
    from server import keys
    from server.clock import ManualClock
    from server.live.backup import backup
    from tests.support.live import live_world, soon

    food = ID["food"]
    async with live_world(folder, **OFTEN) as arena:
        arena.recorder.issue_operator_key(keys.digest("operator"))
        agent = (await arena.register()).agent
        await arena.tick()
        level = int(arena.world.economy.state.level[food])
        arena.act(agent, "crosses", market=food, side=1, quantity=2, level=level + 40)
        arena.act(agent, "rests", market=food, side=1, quantity=1, level=level - 300)
        arena.act_batch(agent, "b-1", "b-2", kind=Kind.SET_SENTIMENT, mood=(1, 2, 3, 4))
        for command in (Pause(), Resume()):
            arena.recorder.command(command)
        for _ in range(TICKS):
            await arena.tick()
            await soon(arena.world.snapshots.idle())
        arena.act(agent, "waits", market=food, side=1, quantity=1, level=level - 400)
        world = arena.world
        names = ("crosses", "rests", "b-1", "b-2", "waits")
        told = {
            "epoch": world.epoch,
            "tick": world.economy.tick,
            "state_hash": world.economy.state_hash().hex(),
            "agent": agent,
            "receipts": {name: receipt(world, agent, name) for name in names},
            "events_bytes": world.events.size,
        }
    backup(folder, target, ManualClock())
    return told


def receipt(world: World, agent: int, name: str) -> dict[str, Any]:
    """Return a receipt as it is published."""
    found = world.receipts.get(agent, name)
    assert found is not None, name
    return found.document(duplicate=True)


if __name__ == "__main__":
    main()
