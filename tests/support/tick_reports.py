"""Reports of made-up ticks: only what happened to outside agents."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.events import OTHER, Event, PublicState, TickReport
from engine.messages import ORDER_UPDATE, OUTCOME

Fields = dict[str, Any]


def tick_report(
    tick: int,
    outcomes: Sequence[Fields] = (),
    updates: Sequence[Fields] = (),
    fired: Sequence[int] = (),
    events: Sequence[tuple[str, int]] = (),
) -> TickReport:
    """Return the report of a tick. events: names of world events with their agents."""
    return TickReport(
        tick,
        rows_of(OUTCOME, outcomes),
        rows_of(ORDER_UPDATE, updates),
        tuple(Event(OTHER, i + 1, tick, name, {"agent": agent}) for i, (name, agent) in enumerate(events)),
        PublicState(tick, {}, {}, {}, {}, {}),
        np.array(fired, np.int64),
    )


def rows_of(dtype: np.dtype[np.void], rows: Sequence[Fields]) -> NDArray[np.void]:
    """Return rows of a dtype; fields that are not given are 0."""
    table = np.zeros(len(rows), dtype)
    for row, values in zip(table, rows, strict=True):
        for name, value in values.items():
            row[name] = value
    return table
