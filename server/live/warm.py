"""The start of every world of a config, made once and kept: its arrays in a file with their state hash."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import structlog

from engine.config import ENGINE_VERSION, Config
from engine.economy import hash_copy
from engine.state import LAYOUT_VERSION
from server.live.array_file import Arrays, NotWhole, read_arrays, write_arrays

#: What an economy without outside agents does not depend on.
OUTSIDE = frozenset(
    {
        "max_agents",
        "endowment_credits",
        "actions_per_tick_max",
        "open_orders_max",
        "order_book_max",
        "agents_per_owner_max",
        "idle_ticks_max",
        "blocked_ticks",
    }
)

log = structlog.get_logger("arena.world")


def warm_start(folder: Path, config: Config, ticks: int, make: Callable[[], tuple[int, Arrays]]) -> tuple[int, Arrays]:
    """Return the start of every world of a config after so many ticks alone: from the folder, or made and kept there.

    make: computes tick and arrays. A file that cannot be read, is damaged or of another release
    is made anew.
    """
    path = folder / f"{_name(config, ticks)}.arw"
    if path.exists():
        try:
            return load(path)
        except (NotWhole, OSError) as error:
            log.warning("warm_start_remade", path=str(path), reason=str(error))
    at_tick, arrays = make()
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        save(path, at_tick, arrays)
    except OSError as error:  # it only saves time
        log.warning("warm_start_not_kept", path=str(path), reason=str(error))
    return at_tick, arrays


def save(path: Path, at_tick: int, arrays: Arrays) -> None:
    """Write the arrays of a world after a tick, with their state hash."""
    write_arrays(path, world_header(at_tick, hash_copy(at_tick, arrays).hex()), arrays)


def world_header(at_tick: int, state_hash: str) -> dict[str, Any]:
    """Return what a file says of the world whose arrays it holds."""
    return {
        "engine_version": ENGINE_VERSION,
        "layout_version": LAYOUT_VERSION,
        "tick": at_tick,
        "state_hash": state_hash,
    }


def load(path: Path) -> tuple[int, Arrays]:
    """Return the tick and arrays of a file. Raises NotWhole when it is not whole or of another release."""
    header, arrays = read_arrays(path)
    if (header.get("engine_version"), header.get("layout_version")) != (ENGINE_VERSION, LAYOUT_VERSION):
        raise NotWhole("of another release")
    tick, named = int(header["tick"]), list(arrays.items())
    if hash_copy(tick, named).hex() != header["state_hash"]:
        raise NotWhole("damaged: the hash of its arrays is not the one it names")
    return tick, named


def _name(config: Config, ticks: int) -> str:
    """Return a name for what shapes a warm start."""
    shaping = {item.name: getattr(config, item.name) for item in fields(config) if item.name not in OUTSIDE}
    text = json.dumps([ENGINE_VERSION, LAYOUT_VERSION, ticks, shaping], sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
