"""`arena bench`: this machine's numbers against their bars, measured here and now.

The kernels are measured in this process (bench_ticks), what a customer sees of a whole server by
loadtest.micro.bench_server and bench_durable, one action at a time beside other servers by bench_actions, other
libraries by loadtest.peers, all of them in processes of their own.
Source: DESIGN section 5.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from server import bench_peers
from server.bench_row import ROOT, Row
from server.bench_ticks import bytes_rows, large_rows, outside_rows, tick_rows
from server.provenance import revision, this_machine

EXAMPLES = """\
examples:
  arena bench                          every row, about ten minutes
  arena bench tick_100k --quick        one row, under 20 s
  arena bench vs_mesa vs_mesa_frames   beside other libraries, installed into a folder of their own on first use
  arena bench --json --out rows.json   as JSON, kept in a file
"""


def main(args: Sequence[str]) -> int:
    """Measure the rows args names (all when none), print them and return 1 when one misses its bar."""
    given = _parser().parse_args(args)
    wanted = list(dict.fromkeys(given.ids)) or list(IDS)
    at, machine = revision(), this_machine()
    rows: list[Row] = []
    for measure, ids in PROGRAMS:
        if chosen := [name for name in ids if name in wanted]:
            _progress(f"measuring {', '.join(chosen)} ...")
            rows += [replace(row, revision=at, machine=machine) for row in measure(chosen, given.quick)]
    documents = [row.document() for row in rows]
    if given.json:
        sys.stdout.write(json.dumps(documents, indent=2) + "\n")
    else:
        sys.stdout.write(_table(rows) + f"\n{machine}\nrevision {at}\n")
    if given.out:
        given.out.write_text(json.dumps(documents, indent=2) + "\n", encoding="utf-8")
    return 0 if rows and all(row.passes for row in rows) else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="arena bench",
        description="Measure this machine's numbers against their bars; status 1 when one misses it.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("ids", nargs="*", choices=[*IDS, []], metavar="ID", help=f"of {', '.join(IDS)}; default all")
    parser.add_argument("--json", action="store_true", help="print rows as JSON")
    parser.add_argument("--quick", action="store_true", help="fewer samples")
    parser.add_argument("--out", type=Path, metavar="FILE", help="also write the rows as JSON to this file")
    return parser


def server_rows(ids: list[str], quick: bool) -> list[Row]:
    """Measure a whole server from outside, in a process of its own."""
    return _rows_of("loadtest.micro.bench_server", ids, quick)


def durable_rows(ids: list[str], quick: bool) -> list[Row]:
    """Measure what being durable costs, and what snapshots and forks do to others."""
    return _rows_of("loadtest.micro.bench_durable", ids, quick)


def ingest_rows(ids: list[str], quick: bool) -> list[Row]:
    """Measure batches of actions: their forms, and a whole server that takes them."""
    return _rows_of("loadtest.micro.bench_ingest", ids, quick)


def action_rows(ids: list[str], quick: bool) -> list[Row]:
    """Measure one action at a time, beside other servers."""
    return _rows_of("loadtest.micro.bench_actions", ids, quick)


def _rows_of(module: str, ids: list[str], quick: bool) -> list[Row]:
    if not (ROOT / "loadtest").is_dir():
        raise OSError(f"{', '.join(ids)} need the source tree: run `python3 -m server bench` in a clone")
    command = [sys.executable, "-m", module, *ids, *(["--quick"] if quick else [])]
    path = os.pathsep.join(filter(None, [str(ROOT / "clients" / "python"), os.environ.get("PYTHONPATH")]))
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, "PYTHONPATH": path}, stdout=subprocess.PIPE, text=True, check=False
    )
    if done.returncode != 0:
        raise OSError(f"{' '.join(command[1:])} ended with {done.returncode}")
    return [Row(**json.loads(line)) for line in done.stdout.splitlines()]


def peer_rows(ids: list[str], quick: bool) -> list[Row]:
    """Measure this engine beside other libraries."""
    return bench_peers.peer_rows(ids, quick, _progress)


#: Programs in the order they run, with the rows each one gives.
PROGRAMS: tuple[tuple[Callable[[list[str], bool], list[Row]], tuple[str, ...]], ...] = (
    (tick_rows, ("tick_100k", "pricing_100k")),
    (large_rows, ("tick_1m", "tick_10m")),
    (bytes_rows, ("bytes_per_resident",)),
    (outside_rows, ("outside_orders",)),
    (peer_rows, ("vs_mesa", "vs_mesa_frames")),
    (action_rows, ("action_fastapi", "action_peers")),
    (server_rows, ("start_warm", "memory_100k", "cpu_100k", "recovery_100k", "replay_100k")),
    (durable_rows, ("action_durable", "action_durable_p50", "action_durable_p99", "ack_under_snapshot")),
    (durable_rows, ("tick_under_fork", "fork_start")),
    (ingest_rows, ("batch_columns", "ingest_durable")),
)
IDS = tuple(name for _, ids in PROGRAMS for name in ids)


def _table(rows: list[Row]) -> str:
    lines = [f"{'id':<20} {'value':>10}  {'bar':>10}  {'':<4}  unit, spread"]
    for row in rows:
        verdict = "pass" if row.passes else "FAIL"
        bar = f"{'>=' if row.at_least else '<='} {row.bar:.2f}"
        lines.append(f"{row.id:<20} {row.value:>10.3f}  {bar:>10}  {verdict:<4}  {row.unit}; {row.spread}")
    return "\n".join(lines)


def _progress(text: str) -> None:
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()
