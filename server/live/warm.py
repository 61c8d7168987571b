"""Arrays of a world in one file, written all or nothing and checked when read: the warm start, and inspections.

file = magic 8s | header length u32 | its crc32 u32 | header (JSON) | arrays one after another, little-endian
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
import structlog
from numpy.typing import NDArray

from engine.config import ENGINE_VERSION, Config
from engine.economy import hash_copy
from engine.state import LAYOUT_VERSION
from server.live.journal import write_whole

Arrays = list[tuple[str, NDArray[Any]]]

MAGIC = b"ARENAW\r\n"
_FRAME = struct.Struct("<II")
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


class NotWarm(Exception):
    """The file does not hold what it should; its message says why."""


def warm_start(folder: Path, config: Config, ticks: int, make: Callable[[], tuple[int, Arrays]]) -> tuple[int, Arrays]:
    """Return the start of every world of a config after so many ticks alone: from the folder, or made and kept there.

    make: computes tick and arrays. A file that cannot be read, is damaged or of another release
    is made anew.
    """
    path = folder / f"{_name(config, ticks)}.arw"
    if path.exists():
        try:
            return load(path)
        except (NotWarm, OSError) as error:
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
    little = [(name, np.ascontiguousarray(array, array.dtype.newbyteorder("<"))) for name, array in arrays]
    header = {
        "engine_version": ENGINE_VERSION,
        "layout_version": LAYOUT_VERSION,
        "tick": at_tick,
        "state_hash": hash_copy(at_tick, arrays).hex(),
        "arrays": [[name, array.dtype.str, array.shape] for name, array in little],
    }
    text = json.dumps(header, separators=(",", ":")).encode()
    bodies = (array.tobytes() for _, array in little)
    write_whole(path, (MAGIC, _FRAME.pack(len(text), crc32(text)), text, *bodies))


def load(path: Path) -> tuple[int, Arrays]:
    """Return the tick and arrays of a file. Raises NotWarm when it is not whole or of another release."""
    data = path.read_bytes()
    try:
        if data[: len(MAGIC)] != MAGIC:
            raise NotWarm("not a file of arrays")
        length, checksum = _FRAME.unpack_from(data, len(MAGIC))
        begin = len(MAGIC) + _FRAME.size
        end = begin + length
        if crc32(data[begin:end]) != checksum:
            raise NotWarm("damaged: the checksum of its header is wrong")
        header = json.loads(data[begin:end])
        if (header["engine_version"], header["layout_version"]) != (ENGINE_VERSION, LAYOUT_VERSION):
            raise NotWarm("of another release")
        arrays: Arrays = []
        for name, dtype, shape in header["arrays"]:
            count = int(np.prod(shape))
            array = np.frombuffer(data, np.dtype(dtype), count, end).reshape(shape)
            arrays.append((name, array))
            end += array.nbytes
        tick, expected = int(header["tick"]), header["state_hash"]
    except (ValueError, KeyError, TypeError, struct.error) as error:
        raise NotWarm(f"damaged: {error}") from error
    if hash_copy(tick, arrays).hex() != expected:
        raise NotWarm("damaged: the hash of its arrays is not the one it names")
    return tick, arrays


def _name(config: Config, ticks: int) -> str:
    """Return a name for what shapes a warm start."""
    shaping = {item.name: getattr(config, item.name) for item in fields(config) if item.name not in OUTSIDE}
    text = json.dumps([ENGINE_VERSION, LAYOUT_VERSION, ticks, shaping], sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
