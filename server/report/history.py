"""Where a report's history comes from: a world run headless, a data folder's journal, or a recording kept before."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from engine.analysis.controls import Control
from engine.analysis.metaorders import Metaorder, Metaorders
from engine.analysis.recording import Each, Recorder, Recording
from engine.config import Config
from engine.economy import Economy, warmed_up
from engine.events import TickReport
from engine.journal import Mark
from engine.replay import Watch
from server.clock import Clock
from server.live.errors import WorldRefused
from server.live.journal import read_segments, segment_paths
from server.live.parts import begin_part, part_of, parts_of
from server.live.world import FolderLock, parallel_in, read_genesis, run_replay

RECORDING_NAME = "recording.npz"
PROGRESS_S = 5.0

Say = Callable[[str], None]
"""Takes a line for whoever waits."""


@dataclass(frozen=True)
class History:
    """What a report is about: a recording and, where a world was at hand, what large orders do in it."""

    recording: Recording
    metaorders: list[Metaorder] = field(default_factory=list)


def run_headless(
    config: Config, seed: int, ticks: int, clock: Clock, say: Say, *, control: Control | None = None, threads: int = 1
) -> History:
    """Run a world as a server would begin it, settled and then under its own seed, and record it.

    control: a world without something; it takes effect after the warm-up.
    """
    config = config if control is None else control.config(config)
    say(f"{config.residents:,} residents settle (seed {seed})")
    parallel = parallel_in(threads)
    start = warmed_up(config, threads=threads, parallel=parallel).copy_arrays()
    economy = Economy(config, seed, threads=threads, parallel=parallel, start=start)
    interfere: Each | None = None if control is None else control.each(economy, seed)
    recorder, progress = Recorder(economy), Progress(ticks, clock, say)
    large = Metaorders(recorder, ticks, economy.tick + 1)
    for _ in range(ticks):
        economy.advance()
        recorder.take()
        if interfere is not None:
            interfere(economy)
        large(economy)
        progress.step()
    origin = f"headless, seed {seed}" + (f", control {control.name}" if control else "")
    recording = recorder.finish(origin)
    return History(recording if control is None else control.recording(recording, seed), large.done)


def read_history(folder: Path, clock: Clock, say: Say, *, threads: int = 1) -> History:
    """Return the history of a folder: the recording a report left in it, or a data folder's journal replayed.

    Raises WorldRefused for a folder with neither, FolderInUse while a server runs the world.
    """
    if (folder / RECORDING_NAME).is_file():
        return load(folder / RECORDING_NAME)
    if not segment_paths(folder):
        raise WorldRefused(f"{folder} holds neither a journal nor a {RECORDING_NAME}")
    lock = FolderLock(folder)
    try:
        return _replayed(folder, clock, say, threads)
    finally:
        lock.release()


def keep(history: History, path: Path) -> None:
    """Write a history as a compressed npz file of plain arrays."""
    about = {**history.recording.about(), "metaorders": [list(order) for order in history.metaorders]}
    with path.open("wb") as file:
        np.savez_compressed(file, about=np.array(json.dumps(about)), **_arrays(history.recording))


def load(path: Path) -> History:
    """Return a history that keep() wrote. Raises WorldRefused for a file that is none of this release's."""
    try:
        with np.load(path, allow_pickle=False) as file:
            about = json.loads(str(file["about"]))
            orders = [Metaorder(*order) for order in about.pop("metaorders")]
            return History(Recording(**{name: file[name] for name in file.files if name != "about"}, **about), orders)
    except (ValueError, TypeError, KeyError, BadZipFile) as error:
        raise WorldRefused(f"{path} is no recording of this release: {error}") from error


def say(line: str) -> None:
    """Write a line for whoever waits; what a command prints may be piped."""
    sys.stderr.write(line + "\n")
    sys.stderr.flush()


class Progress:
    """Says every few seconds how far a run is and how long the rest takes."""

    def __init__(self, ticks: int, clock: Clock, say: Say) -> None:
        self._ticks, self._clock, self._say = ticks, clock, say
        self._done = 0
        self._began = clock.monotonic()
        self._next = self._began + PROGRESS_S

    def step(self) -> None:
        """Count a tick."""
        self._done += 1
        now = self._clock.monotonic()
        if now >= self._next and self._done < self._ticks:
            self._next = now + PROGRESS_S
            left = (now - self._began) / self._done * (self._ticks - self._done)
            self._say(f"tick {self._done:,} of {self._ticks:,}, {left:.0f} s left")


def _replayed(folder: Path, clock: Clock, say: Say, threads: int) -> History:
    read_genesis(folder)
    parts = parts_of(read_segments(segment_paths(folder)))
    part = part_of(parts)
    if not part.is_first:
        say(f"left out: {', '.join(str(one) for one in parts[:-1])}")
    genesis, economy, records = begin_part(folder, part, threads)
    marks = part.last - part.after
    recorder, progress = Recorder(economy), Progress(marks, clock, say)
    large = Metaorders(recorder, marks, economy.tick + 1)

    class Take(Watch):
        def tick(self, report: TickReport, mark: Mark) -> None:
            recorder.take()
            large(economy)
            progress.step()

    run_replay(economy, records, Take(), check=False)
    return History(recorder.finish(f"world {genesis.epoch}"), large.done)


def _arrays(recording: Recording) -> dict[str, Any]:
    return dict(recording.columns())
