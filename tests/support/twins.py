"""Twins: the world of a running server computed a second time from its journal, with some inputs left out."""

from __future__ import annotations

from collections.abc import Container

import numpy as np

from engine.economy import NO_ACTIONS, Economy
from engine.journal import RecordKind, decode_actions, is_input
from engine.state import State, persistent
from server.live.journal import scan_segment, segment_paths
from server.live.world import WARM_NAME, World, start_economy


def twin_without(world: World, left_out: Container[int] = ()) -> Economy:
    """Return an economy that lived every published tick of a world, without the actions of those sequences.

    Nothing is checked on the way: what differs in the end is what the missing actions did.
    """
    path = segment_paths(world.folder)[0]
    economy = start_economy(world.genesis, world.folder / WARM_NAME)
    rows = []
    for record in scan_segment(path):
        if is_input(record):
            actions = decode_actions(record).rows
            rows.append(actions[[seq not in left_out for seq in actions["seq"].tolist()]])
        elif record.kind is RecordKind.MARK:
            economy.advance(np.concatenate(rows) if rows else NO_ACTIONS)
            rows = []
    return economy


def differing(one: State, other: State) -> set[str]:
    """Return the names of the persistent arrays in which two worlds differ; both stand after the same tick."""
    assert one.tick == other.tick
    return {
        name
        for (name, mine), (_, its) in zip(persistent(one), persistent(other), strict=True)
        if not np.array_equal(mine, its)
    }
