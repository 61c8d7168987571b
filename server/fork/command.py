"""`arena fork DIR --at TICK`: what would have happened if. The folder is only read, also while a server runs on it."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from engine.errors import JournalDamaged, SettingError
from engine.fork import Interventions, Survey, fork, survey
from engine.replay import HashDiffers
from engine.state import SLOTS_USED
from server import extras, keys
from server.clock import Clock, SystemClock
from server.command_line import refuse, whole
from server.fork import page
from server.fork.interventions import Document, as_json, build, read_file
from server.fork.results import CSV, Named, effects_of, manifest, table, write_manifest, write_series
from server.live.errors import NotRecorded, WorldRefused
from server.live.replay_cmd import DAMAGED, DIFFERS, OK, PROGRESS_S, REFUSED
from server.live.rewind import Rewound, economy_at
from server.live.view import iso_time
from server.report import plots

COPIES_MAX = 1_000
TICKS_MAX = 10_000_000
NICE = 10
"""How far the process steps back before others, so that a live server on the same machine keeps its time."""
EXAMPLES = """\
examples:
  arena fork arena-data --at 120000 --without-agent a17      what would have happened without this agent
  arena fork arena-data --at 120000 --with tighten.toml --copies 8 --ticks 20000
  docs/fork.md says what a file of interventions may hold.
"""

Say = Callable[[str], None]


def main(args: Sequence[str], clock: Clock | None = None) -> int:
    """Fork the world of a folder, write what came of it and print it; return the exit status.

    0: done. 1: the original is not the recorded world. 2: a wrong option, file or folder. 3: damaged bytes.
    """
    clock = clock or SystemClock()
    began = clock.monotonic()
    options = _parser().parse_args(args)
    say = _say_aside if options.json else _say
    try:
        return _fork(options, clock, began, say)
    except JournalDamaged as error:
        return refuse("fork", error, DAMAGED)
    except HashDiffers as error:
        return refuse("fork", f"tick {error.tick} differs: {error}", DIFFERS)
    except (SettingError, NotRecorded, WorldRefused, OSError) as error:
        return refuse("fork", error, REFUSED)


def step_back() -> None:
    """Lower the priority of this process; where that is not possible it goes on as it is."""
    with suppress(AttributeError, OSError):
        os.nice(NICE)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="arena fork",
        description="Run a recorded world on from a tick under interventions and compare it with the world as it was."
        " A running server's folder will do: it is only read.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("folder", type=Path, metavar="DIR", help="data folder of the world")
    parser.add_argument("--at", type=whole(0, 1 << 53), required=True, metavar="TICK", help="the last common tick")
    parser.add_argument(
        "--ticks",
        type=whole(1, TICKS_MAX),
        metavar="N",
        help="ticks to run; default: to the end of the record. Beyond it nobody acts",
    )
    parser.add_argument(
        "--without-agent", nargs="+", action="extend", default=[], metavar="ID", help="leave these agents out"
    )
    parser.add_argument(
        "--without-commands",
        action="store_true",
        help="leave out what an operator did: parameters set, events let happen",
    )
    parser.add_argument("--with", dest="file", type=Path, metavar="FILE", help="interventions as TOML: docs/fork.md")
    parser.add_argument(
        "--copies",
        type=whole(1, COPIES_MAX),
        default=1,
        metavar="N",
        help="pairs of worlds with other chance from TICK on, for confidence bands; default 1: the recorded chance",
    )
    parser.add_argument(
        "--out", type=Path, metavar="FOLDER", help="where the results go; a new or empty folder; default fork-EPOCH"
    )
    parser.add_argument("--json", action="store_true", help="print the manifest as JSON; everything else on stderr")
    parser.add_argument("--threads", type=whole(1, 64), default=1, metavar="N", help="1 to 64, default 1")
    return parser


def _fork(options: argparse.Namespace, clock: Clock, began: float, say: Say) -> int:
    epoch = keys.epoch()
    folder = options.out or Path(f"fork-{epoch}")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise SettingError("--out", str(folder), "a new or empty folder")
    document = _asked(options)
    rewound = economy_at(options.folder, options.at, options.threads, _Progress("rewinding", clock, say).tick_of)
    economy, parent_hash = rewound.economy, rewound.economy.state_hash().hex()
    found = survey(rewound.records, options.at, options.at + options.ticks if options.ticks else None)
    ticks = options.ticks or found.last_tick - options.at
    if ticks < 1:
        raise SettingError("--ticks", "left out", f"given: the record ends at tick {found.last_tick}")
    interventions = build(document, economy.config, _known(rewound, found), options.at + 1, options.at + ticks)
    for line in _remarks(rewound, found, interventions, ticks):
        say(line)
    # made before the work: a folder that cannot be written is known now
    folder.mkdir(parents=True, exist_ok=True)
    begun = clock.monotonic()
    progress = _Progress("forking", clock, say)
    say(f"forking at tick {options.at}, state hash {parent_hash}, after {begun - began:.1f} s")
    forked = fork(
        economy,
        rewound.records,
        interventions,
        ticks=ticks,
        copies=options.copies,
        surveyed=found,
        progress=lambda done: progress.tick_of(done, ticks),
    )
    series = write_series(folder, forked.effects)
    named = Named(
        epoch=epoch,
        parent_epoch=rewound.epoch,
        parent_tick=options.at,
        parent_hash=parent_hash,
        asked=as_json(document),
        created=iso_time(clock.unix_ns()),
        begun_s=begun - began,
        seconds=clock.monotonic() - began,
    )
    written = [series]
    if (made := page.write(folder, forked, named)) is not None:
        written.append(made)
    told = manifest(forked, named, interventions, written)
    write_manifest(folder, told)
    if options.json:
        sys.stdout.write(json.dumps(told, indent=2) + "\n")
    for line in _summary(told, folder, written):
        say(line)
    if not options.json:
        sys.stdout.write("\n" + table(effects_of(forked.effects)))
    return OK


def _asked(options: argparse.Namespace) -> Document:
    """Return the file's document with the agents of the command line left out as well."""
    document = read_file(options.file) if options.file is not None else {}
    if options.without_agent:
        already = document.get("without_agents", [])
        document["without_agents"] = [*(already if isinstance(already, list) else [already]), *options.without_agent]
    if options.without_commands:
        document["without_commands"] = True
    return document


def _known(rewound: Rewound, found: Survey) -> set[int]:
    state = rewound.economy.state
    there = state.agent_id[: state.counters[SLOTS_USED]]
    return {int(number) for number in there if number} | found.joined


def _remarks(rewound: Rewound, found: Survey, interventions: Interventions, ticks: int) -> list[str]:
    """Return what a person may not expect of this fork."""
    there = sorted(interventions.without - found.joined)
    lines = [
        f"a{number} registered before tick {rewound.economy.tick + 1}: it does nothing any more, its account and its"
        " standing orders stay; fork before its registration to have it never been there"
        for number in there
    ]
    if (beyond := rewound.economy.tick + ticks - found.last_tick) > 0:
        lines.append(f"the record ends at tick {found.last_tick}: nobody recorded acts in the last {beyond} ticks")
    return lines


def _summary(told: dict[str, Any], folder: Path, written: Sequence[Path]) -> list[str]:
    """Return in words what came of a fork and where it is."""
    same = told["original_hash"] == told["branch_hash"]
    lines = [
        f"fork {told['epoch']} of {told['parent']['epoch']} at tick {told['parent']['tick']}:"
        f" ticks {told['first_tick']} to {told['last_tick']}, {told['copies']} pair(s) of worlds,"
        f" {told['seconds']:.1f} s",
        f"original {told['original_hash']} ({told['hashes_checked']} recorded hashes met),"
        f" branch {'the same' if same else told['branch_hash']}",
    ]
    for one in told["added_actions"]:
        why = f": {one['detail']} ({one['code']})" if "code" in one else ""
        lines.append(f"added {one['type']}: {one['count']} {one['outcome']}{why}")
    lines.append(f"written to {folder}: {', '.join([*(path.name for path in written), 'fork.json'])}")
    if written[0].name == CSV:
        lines.append(f"series as CSV: Parquet needs pyarrow ({extras.how_to_install('pyarrow')})")
    if len(written) < 2:
        lines.append(plots.how_to_install())
    return lines


class _Progress:
    """Says once a second how far a piece of work is."""

    def __init__(self, what: str, clock: Clock, say: Say) -> None:
        self._what = what
        self._clock = clock
        self._say = say
        self._next = clock.monotonic() + PROGRESS_S

    def tick_of(self, done: int, of: int) -> None:
        if self._clock.monotonic() >= self._next:
            self._next = self._clock.monotonic() + PROGRESS_S
            self._say(f"{self._what}: {done} of {of}")


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def _say_aside(line: str) -> None:
    sys.stderr.write(line + "\n")
    sys.stderr.flush()
