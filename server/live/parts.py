"""Which engine computed which ticks of a journal: a release that changes results goes on in a part of its own.

A part begins with the world, or behind an EPOCH record that names another engine version than the one in force before
it. The snapshot that the new release went on from is then what the part begins with. Only the release that computed a
part can compute it again. Source: DESIGN D21.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from engine.config import ENGINE_VERSION
from engine.economy import Economy
from engine.journal import Genesis, Record, RecordKind, Segments, decode_epoch, decode_genesis, decode_mark
from server.live import snapshots
from server.live.array_file import NotWhole
from server.live.errors import WorldRefused
from server.live.journal import read_segments, segment_paths, segments_from
from server.live.snapshots import list_snapshots
from server.live.world import WARM_NAME, economy_of, read_genesis, start_economy


class Part(NamedTuple):
    """Ticks in a row that one engine version computed: those behind `after`, up to `last`.

    sequence: of the first record behind the mark of `after`. is_first: whether it begins with the world.
    """

    engine_version: int
    after: int
    last: int
    sequence: int
    is_first: bool

    @property
    def is_ours(self) -> bool:
        """Whether this release can compute it again."""
        return self.engine_version == ENGINE_VERSION

    def __str__(self) -> str:
        ticks = (
            f"ticks {self.after + 1} to {self.last}" if self.last > self.after else f"what follows tick {self.after}"
        )
        return f"{ticks} (engine version {self.engine_version})"


class Parts:
    """The parts of a whole journal, oldest first, once each of its records was taken."""

    def __init__(self) -> None:
        self._parts: list[Part] = []
        self._last: Record | None = None
        """The last mark."""

    def take(self, record: Record) -> None:
        """Take the next record."""
        if record.kind is RecordKind.MARK:
            self._last = record
        elif record.kind is RecordKind.GENESIS:
            genesis = decode_genesis(record.payload)
            self._parts.append(Part(genesis.engine_version, genesis.start_tick, genesis.start_tick, 1, True))
        elif record.kind is RecordKind.EPOCH:
            version, [*_, part] = decode_epoch(record.payload).engine_version, self.found()
            if version != part.engine_version:
                behind = part.sequence if self._last is None else self._last.sequence + 1
                self._parts = [*self._parts[:-1], part, Part(version, part.last, part.last, behind, False)]
                self._last = None

    def found(self) -> list[Part]:
        """Return what they are."""
        *before, part = self._parts
        last = part.last if self._last is None else decode_mark(self._last.payload).tick
        return [*before, part._replace(last=last)]


def parts_of(records: Iterable[Record]) -> list[Part]:
    """Return the parts of a whole journal, oldest first. Raises JournalDamaged as reading does."""
    parts = Parts()
    for record in records:
        parts.take(record)
    return parts.found()


def part_of(parts: list[Part], tick: int | None = None) -> Part:
    """Return the part that a tick belongs to, the last one for None. Raises WorldRefused when it is not ours."""
    found = parts[-1]
    if tick is not None:
        found = next((part for part in parts if tick <= part.last), parts[-1])
    if not found.is_ours:
        ours = [str(part) for part in parts if part.is_ours]
        raise WorldRefused(
            f"{found} can only be computed again by a release with that engine version; this one has engine version"
            f" {ENGINE_VERSION}" + (f" and computed {', '.join(ours)}" if ours else "")
        )
    return found


def begin_part(folder: Path, part: Part, threads: int = 1) -> tuple[Genesis, Economy, Segments]:
    """Return the economy a part begins with, and the records from there to the end of the journal.

    Raises WorldRefused when the snapshot it began with is not there any more, or cannot be used.
    """
    genesis = read_genesis(folder)
    paths = segment_paths(folder)
    if part.is_first:
        return genesis, start_economy(genesis, folder / WARM_NAME, threads), read_segments(paths)
    reason = "it is not there any more"
    for named in list_snapshots(folder):
        if named.tick == part.after:
            try:
                economy = economy_of(snapshots.load(named.path), genesis, folder, threads)
            except (NotWhole, OSError, ValueError, KeyError) as error:
                reason = str(error)
                continue
            return genesis, economy, read_segments(segments_from(paths, part.sequence), part.sequence)
    raise WorldRefused(f"{part} begins with the snapshot of tick {part.after}, which cannot be used: {reason}")
