"""`arena bench`: this machine's numbers against their bars, measured here and now.

The kernels are measured in this process (bench_ticks), what a customer sees of a whole server by
loadtest.micro.bench_server, bench_durable, bench_ingest, bench_fanout, bench_actions and bench_spec, other
libraries by loadtest.peers, each in a process of its own.
Source: DESIGN section 5; specification 004, Scalability Targets.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from engine.errors import SettingError
from server import bench_peers
from server.bench_frames import delta_rows
from server.bench_row import ROOT, Row
from server.bench_ticks import bytes_rows, large_rows, outside_rows, tick_rows
from server.provenance import revision, this_machine
from server.results_folder import make_ready

EXAMPLES = """\
examples:
  arena bench                          every row, about ten minutes
  arena bench tick_100k --quick        one row, under 20 s
  arena bench spec_agents spec_updates spec_api spec_websocket spec_memory spec_cpu
                                       document 004's performance table, measured here and now (needs locust)
  arena bench vs_mesa vs_mesa_frames   beside other libraries, installed into a folder of their own on first use
  arena bench --json --out rows.json   as JSON, kept in a file
"""


def main(args: Sequence[str]) -> int:
    """Measure the rows args names (all when none), print them and return 1 when one misses its bar."""
    given = _parser().parse_args(args)
    earlier = _earlier(given.out) if given.out else {}
    wanted = list(dict.fromkeys(given.ids)) or _those_that_can_be_measured()
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
        sys.stdout.write(_tables(rows) + f"\n{machine}\nrevision {at}\n")
    if given.out:
        # each in the place of its earlier value; rows that were not measured now stay
        kept = earlier | {row["id"]: row for row in documents}
        given.out.write_text(json.dumps(list(kept.values()), indent=2) + "\n", encoding="utf-8")
    return 0 if rows and all(row.passes for row in rows) else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="arena bench",
        description="Measure this machine's numbers against their bars; status 1 when one misses it.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("ids", nargs="*", type=_id, metavar="ID", help=f"of {', '.join(IDS)}; default all")
    parser.add_argument("--json", action="store_true", help="print rows as JSON")
    parser.add_argument("--quick", action="store_true", help="fewer samples")
    parser.add_argument("--out", type=Path, metavar="FILE", help="also keep the rows as JSON in this file")
    return parser


def _id(text: str) -> str:
    if text not in IDS:
        raise argparse.ArgumentTypeError(f"no row {text!r}; there are {', '.join(IDS)}")
    return text


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


def stream_rows(ids: list[str], quick: bool) -> list[Row]:
    """Measure the streams, beside other servers where a row is about them."""
    others = [name for name in ids if name in STREAM_PEERS]
    peers = ("--peers", str(bench_peers.environment(_progress, bench_peers.STREAMS_LOCK))) if others else ()
    return _rows_of("loadtest.micro.bench_fanout", ids, quick, *peers)


def spec_rows(ids: list[str], quick: bool) -> list[Row]:
    """Measure document 004's performance table."""
    return _rows_of("loadtest.micro.bench_spec", ids, quick)


def _rows_of(module: str, ids: list[str], quick: bool, *more: str) -> list[Row]:
    """Return the rows that a program of loadtest prints, run in a process of its own."""
    if not (ROOT / "loadtest").is_dir():
        raise OSError(f"{', '.join(ids)} need the source tree: run `python3 -m server bench` in a clone")
    command = [sys.executable, "-m", module, *ids, *(["--quick"] if quick else []), *more]
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


#: Rows of bench_fanout that need other libraries.
STREAM_PEERS = ("fanout_starlette", "fanout_broadcast", "fanout_picows")

#: Document 004's performance table: row, metric, target, what the document claims.
SPECIFIED = {
    "spec_agents": ("Concurrent Agents", "100,000+", "tested to 100k"),
    "spec_updates": ("Market Updates", "< 100ms", "~50ms average"),
    "spec_api": ("API Response Time", "< 50ms", "~25ms average"),
    "spec_websocket": ("WebSocket Latency", "< 10ms", "~5ms average"),
    "spec_memory": ("Memory Usage", "< 4GB", "~2GB at 100k agents"),
    "spec_cpu": ("CPU Usage", "< 80%", "~60% at full load"),
}
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
    (delta_rows, ("delta_bytes",)),
    (stream_rows, ("fanout_c", *STREAM_PEERS)),
    (stream_rows, ("fanout_10k",)),
    (stream_rows, ("stream_latency_1k", "bytes_per_subscriber", "http_under_fanout", "loop_pause")),
    (spec_rows, tuple(SPECIFIED)),
)
IDS = tuple(name for _, ids in PROGRAMS for name in ids)


def _earlier(path: Path) -> dict[str, dict[str, Any]]:
    """Return the rows that a file of --out holds, by id. Raises SettingError when rows could not be kept there."""
    make_ready(path.parent)
    try:
        return {row["id"]: row for row in json.loads(path.read_text(encoding="utf-8"))}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise SettingError("--out", str(path), "a new file, or one with rows that `arena bench` wrote") from error


def _those_that_can_be_measured() -> list[str]:
    """Return all rows; without those whose load is made by locust where only what a server needs is installed."""
    if find_spec("locust") is not None:
        return list(IDS)
    _progress(f"left out: {', '.join(SPECIFIED)}: their load is made by locust, which `python3 -m tests lint` brings")
    return [name for name in IDS if name not in SPECIFIED]


def _tables(rows: list[Row]) -> str:
    """Return the rows as one table, those of document 004 as one of their own."""
    ours = [row for row in rows if row.id not in SPECIFIED]
    theirs = [row for row in rows if row.id in SPECIFIED]
    return "\n\n".join(([_table(ours)] if ours else []) + ([_specified(theirs)] if theirs else []))


def _specified(rows: list[Row]) -> str:
    lines = [f"{'document 004':<20} {'target':>10}  {'claimed':<20} {'measured':>12}  {'':<4}  unit, spread"]
    for row in rows:
        metric, bar, claimed = SPECIFIED[row.id]
        verdict = "pass" if row.passes else "FAIL"
        lines.append(
            f"{metric:<20} {bar:>10}  {claimed:<20} {row.value:>12,.1f}  {verdict:<4}  {row.unit}; {row.spread}"
        )
    return "\n".join(lines)


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
