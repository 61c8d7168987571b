"""What must be true of a data folder after everything that was done to it, held against what clients were told."""

from __future__ import annotations

import shutil
from collections import defaultdict
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from engine.commands import Command, Pause, Resume, decode_command, describe
from engine.events import TickReport
from engine.journal import Mark, RecordKind, decode_actions, is_input
from engine.messages import Kind
from engine.receipt_table import USED
from engine.replay import Watch
from loadtest.simulation.process import WARM_UP_TICKS, digest
from loadtest.simulation.witness import Witness
from server.clock import SystemClock
from server.config import Settings
from server.live.journal import read_segments, scan_segment, segment_paths
from server.live.receipts import Receipts
from server.live.registry import idempotency_hash
from server.live.world import WARM_NAME, World, open_world, read_genesis, run_replay, start_economy
from server.metrics import Metrics


class NullFile:
    """A journal file of a twin: it is opened to be looked at."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def write(self, data: bytes) -> None:
        """Take nothing."""
        raise OSError("a twin does not write")

    def sync(self) -> None:
        """Sync nothing."""

    def close(self) -> None:
        """Close nothing."""


class Accepted(NamedTuple):
    """What a journal holds. actions: sequences by agent_id and client_action_id; agents: agent_ids by key's hash.

    commands: of the operator, by sequence, in their order.
    """

    actions: dict[tuple[str, str], list[int]]
    agents: dict[str, list[str]]
    commands: dict[int, Command]

    @property
    def is_paused(self) -> bool:
        """Whether the operator has paused the world last."""
        pauses = [isinstance(one, Pause) for one in self.commands.values() if isinstance(one, (Pause, Resume))]
        return bool(pauses) and pauses[-1]


def accepted(folder: Path) -> Accepted:
    """Return every accepted input of a world."""
    found = Accepted(defaultdict(list), defaultdict(list), {})
    for path in segment_paths(folder):
        inputs, commands = _inputs_of(path, path.read_bytes())
        found.commands.update(commands)
        for agent_id, kind, seq, name in inputs:
            if kind == Kind.REGISTER:
                found.agents[name].append(agent_id)
            else:
                found.actions[agent_id, name].append(seq)
    return found


@lru_cache(maxsize=1_024)
def _inputs_of(path: Path, content: bytes) -> tuple[list[tuple[str, int, int, str]], dict[int, Command]]:
    """Return agent_id, kind, sequence and name of each input in a segment, and the commands. content: of its file.

    Kept, because most segments are the same to the last byte after the next life.
    """
    found: list[tuple[str, int, int, str]] = []
    commands: dict[int, Command] = {}
    for record in scan_segment(path):
        if record.kind is RecordKind.COMMAND:
            commands[record.sequence] = decode_command(record.payload)
        elif is_input(record):
            actions = decode_actions(record)
            agents, kinds, seqs = (actions.rows[name].tolist() for name in ("agent_id", "kind", "seq"))
            names = actions.client_action_ids
            agent_ids = [f"a{agent}" for agent in agents]
            found += zip(agent_ids, kinds, seqs, names, strict=True)
    return found, commands


def forget() -> None:
    """Let go of what is kept of segments: the next run has a folder of its own."""
    _inputs_of.cache_clear()


def check_journal(folder: Path, witness: Witness) -> list[str]:
    """Return what contradicts the witness: acknowledged actions missing, doubled or renumbered, refused ones there.

    What the operator was promised must be there as well.
    """
    found, registered, commands = accepted(folder)
    wrong = [f"{key} is in the journal as {sequences}" for key, sequences in found.items() if len(sequences) > 1]
    wrong += [f"one Idempotency-Key made {agents}" for key, agents in registered.items() if key and len(agents) > 1]
    for key, intent in witness.intents.items():
        sequences = found.get(key, [])
        if intent.seq is not None and sequences != [intent.seq]:
            wrong.append(f"{key} was acknowledged as {intent.seq}, the journal has {sequences}")
        elif intent.surely_refused and sequences:
            wrong.append(f"{key} was only answered {intent.answers}, the journal has {sequences}")
    for word, agent_id in witness.agents.items():
        agents = registered.get(idempotency_hash(None, word), [])
        if agents != [agent_id]:
            wrong.append(f"{agent_id} was registered, the journal has {agents}")
    for seq, command in witness.commands.items():
        # in words: commands without a value are equal, whatever their names
        kept = describe(commands[seq]) if seq in commands else None
        if kept != describe(command):
            wrong.append(f"{command} was acknowledged as {seq}, the journal has {kept}")
    return wrong


def check_pause(folder: Path, world: World) -> list[str]:
    """Return in what a world just opened differs from the last word the operator has had on whether it ticks."""
    if world.is_paused is accepted(folder).is_paused:
        return []
    return [f"the world has come back {'paused' if world.is_paused else 'running'}, its journal says the opposite"]


def check_twin(copy: Path, settings: Settings, world: World, witness: Witness) -> list[str]:
    """Recover a copy of the folder as it was found, and return in what it differs from the world recovered from it."""
    told: list[TickReport] = []
    twin = open_world(
        settings_at(settings, copy),
        Metrics(),
        SystemClock(),
        on_replayed=lambda report, unix_ns: told.append(report),
        warm_up_ticks=WARM_UP_TICKS,
        open_file=NullFile,
    )
    twin.events.close()
    twin.lock.release()
    wrong = contradicting(told, witness)
    if twin.economy.state_hash() != world.economy.state_hash():
        wrong.append(f"a twin stands at another state after tick {world.economy.tick}")
    pairs = {
        "tick": (twin.economy.tick, world.economy.tick),
        "next sequence": (twin.journal.next_seq, world.journal.next_seq),
        "waiting actions": (len(twin.queue), len(world.queue)),
        "receipts": _differing(kept(twin.receipts), kept(world.receipts)),
        "waiting commands": (twin.replayed.commands, world.replayed.commands),
        "pause": (twin.is_paused, world.is_paused),
    }
    wrong += [f"{name}: a twin has {one}, the world {two}" for name, (one, two) in pairs.items() if one != two]
    newest = max(witness.ticks, default=-1)
    if world.economy.tick < newest:
        wrong.append(f"tick {newest} was published, the world came back at {world.economy.tick}")
    shutil.rmtree(copy)
    return wrong


def kept(receipts: Receipts) -> dict[tuple[int, int], int]:
    """Return the sequence of every receipt that is kept, in memory or on the disk, by the words of its key.

    What is past its time is left out: how much of it is still there depends on what was swept and merged meanwhile.
    """
    table = receipts._table
    rows = [generation.read(0, len(generation)) for generation in receipts.index._generations]
    rows.append(table.rows[: int(table.counters[USED])])
    # of two under one key the newer is behind
    return {
        (high, low): seq
        for part in rows
        for high, low, seq in part[(part["ends"] >= receipts.oldest) & (part["seq"] > 0)][
            ["high", "low", "seq"]
        ].tolist()
    }


def _differing(one: dict[tuple[int, int], int], other: dict[tuple[int, int], int]) -> tuple[list[int], list[int]]:
    """Return the sequences of what only one of the two has."""
    return sorted(dict(one.items() - other.items()).values()), sorted(dict(other.items() - one.items()).values())


def check_from_the_start(folder: Path, witness: Witness) -> list[str]:
    """Replay a world from its first tick, all stored hashes checked, and return what contradicts the witness."""
    economy = start_economy(read_genesis(folder), folder / WARM_NAME)
    told = _Told()
    run_replay(economy, read_segments(segment_paths(folder)), told)
    missing = [f"tick {tick} was published, the journal has none" for tick in witness.ticks if tick > economy.tick]
    return contradicting(told.reports, witness) + missing


def contradicting(reports: list[TickReport], witness: Witness) -> list[str]:
    """Return the ticks that are not what was published of them."""
    return [
        f"tick {report.tick} is not what was published"
        for report in reports
        if witness.ticks.get(report.tick, shown := digest(report)) != shown
    ]


def settings_at(settings: Settings, folder: Path) -> Settings:
    """Return the same settings over another folder."""
    return replace(settings, data=folder)


class _Told(Watch):
    def __init__(self) -> None:
        self.reports: list[TickReport] = []

    def tick(self, report: TickReport, mark: Mark) -> None:
        """Keep a report."""
        self.reports.append(report)
