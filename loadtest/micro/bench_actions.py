"""Rows about one action at a time: our server beside others.

    python -m loadtest.micro.bench_actions action_fastapi action_peers [--quick]

`arena bench` calls it. The servers are in loadtest.micro.actions, in an environment of their own; all of them run at
once, on one core, and are asked in turn by a client in C on another. Prints one JSON row per number.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from loadtest.micro.bench_server import Row, row
from loadtest.process import ROOT, environment, free_port
from server.bench_peers import add_library
from server.bench_peers import environment as peers_environment

HERE = Path(__file__).resolve().parent / "actions"
PACKAGE = "loadtest.micro.actions"
PEERS = ("socketify", "granian", "robyn", "blacksheep")
CONNECTIONS = 64
START_S = 60.0
MARK = "############"
"""What the client puts a new number in."""


@dataclass
class Block:
    """What the client saw of a server in one of its turns, and what that cost the server."""

    answers: int
    per_s: float
    p50_us: float
    p99_us: float
    cpu_us: float
    """Processor time of the server for an answer."""
    client_share: float
    """Share of its core that the client used."""


@dataclass
class Server:
    """A server that runs. requests: what its connections send."""

    name: str
    about: str
    port: int
    pid: int
    requests: bytes
    blocks: list[Block] = field(default_factory=list)

    def median(self, name: str) -> float:
        """Return the median of a figure over all turns."""
        return float(statistics.median(getattr(block, name) for block in self.blocks))


class Flood:
    """The client: compiled once, then run for every turn. Its core is another than the servers' when there are two."""

    def __init__(self, folder: Path) -> None:
        compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
        if compiler is None:
            raise OSError("a C compiler is needed for the client of this benchmark (Debian: apt-get install gcc)")
        self._program = folder / "flood"
        command = [compiler, "-O2", "-o", str(self._program), str(HERE / "flood.c")]
        done = subprocess.run(command, stderr=subprocess.PIPE, text=True, check=False)
        if done.returncode != 0:
            raise OSError(f"{' '.join(command)} ended with {done.returncode}:\n{done.stderr.strip()}")
        self._next = 1
        cores = sorted(os.sched_getaffinity(0))
        self.server_core, self.client_core = cores[0], cores[-1]

    @property
    def cores(self) -> str:
        """Where servers and client run."""
        if self.server_core == self.client_core:
            return "servers and client share the only core"
        return f"servers on core {self.server_core}, client on core {self.client_core}"

    def ask(self, server: Server, connections: int, seconds: float) -> Block | str:
        """Give a server a turn; return what came of it, or what the client says went wrong."""
        arguments = [str(server.port), str(connections), "0.1", str(seconds), str(self._next)]
        first, cpu_ns = self._next, _cpu_ns(server.pid)
        done = subprocess.run(
            [str(self._program), *arguments],
            input=server.requests,
            capture_output=True,
            check=False,
            preexec_fn=lambda: os.sched_setaffinity(0, {self.client_core}),
        )
        cpu_ns = _cpu_ns(server.pid) - cpu_ns
        if done.returncode != 0:
            return done.stderr.decode().strip()
        said = json.loads(done.stdout)
        self._next = said["next"]
        if list(said["statuses"]) != ["202"]:
            return f"statuses {said['statuses']}"
        sent = self._next - first
        return Block(
            said["answers"],
            said["answers"] / said["seconds"],
            said["p50_us"],
            said["p99_us"],
            cpu_ns / sent / 1e3,
            said["cpu_s"] / said["seconds"],
        )


def beside_others(ids: Sequence[str], flood: Flood, quick: bool) -> list[Row]:
    """Measure our server, FastAPI and the peers in turns, as far as the rows need them."""
    wanted = ["ours", *(["fastapi"] if "action_fastapi" in ids else []), *(PEERS if "action_peers" in ids else ())]
    python, paths, failed = _installed(wanted)
    with ExitStack() as running:
        servers = {}
        for name, server in _started(running, python, paths, flood):
            if isinstance(server, str):
                failed[name] = server
            else:
                servers[name] = server
        if "ours" not in servers:
            raise OSError(f"our own server does not run there: {failed['ours']}")
        for _ in range(3 if quick else 12):
            for name, server in list(servers.items()):
                block = flood.ask(server, CONNECTIONS, 0.5 if quick else 2.0)
                if isinstance(block, str):
                    if name == "ours":
                        raise OSError(f"our own server failed: {block}")
                    failed[name] = block
                    del servers[name]
                else:
                    server.blocks.append(block)
    rows = []
    if "action_fastapi" in ids:
        rows.append(_versus("action_fastapi", servers, ["fastapi"], failed, flood))
    if "action_peers" in ids:
        rows.append(_versus("action_peers", servers, list(PEERS), failed, flood))
    return rows


BARS = {
    "action_fastapi": (4.0, "FastAPI + pydantic"),
    "action_peers": (1.0, "the best of socketify, granian, robyn and blacksheep"),
}
WORK = (
    "key by SHA-256, rate, JSON body checked by the same rules, duplicate looked for, receipt kept, journal record"
    " encoded and chained, action queued, counted and timed; 202 with the receipt as JSON and the same headers"
)


def _versus(id: str, servers: dict[str, Server], names: list[str], failed: dict[str, str], flood: Flood) -> Row:
    """Return our requests a second over those of the fastest of them."""
    bar, whom = BARS[id]
    ours = servers["ours"]
    ran = [servers[name] for name in names if name in servers]
    left = "; ".join(f"{name} does not run here: {failed[name]}" for name in names if name in failed)
    if not ran:
        raise OSError(f"{id}: {left}")
    best = max(ran, key=lambda server: server.median("per_s"))
    ratios = [one.per_s / other.per_s for one, other in zip(ours.blocks, best.blocks, strict=True)]
    seen = "; ".join(
        f"{server.name} {server.median('per_s'):.0f}/s, {server.median('cpu_us'):.1f} us of CPU, p99"
        f" {server.median('p99_us') / 1e3:.1f} ms ({server.about})"
        for server in (ours, *sorted(ran, key=lambda server: -server.median("per_s")))
    )
    return row(
        id,
        ours.median("per_s") / best.median("per_s"),
        f"x the requests a second of {whom}" + ("" if best.name == "fastapi" else f" ({best.name})"),
        bar,
        spread=f"{min(ratios):.2f} to {max(ratios):.2f} over {len(ratios)} pairs of turns",
        includes=f"{WORK}; {CONNECTIONS} connections, no pipelining; {flood.cores}, the client at"
        f" {100 * ours.median('client_share'):.0f} % of it; {seen}" + (f"; {left}" if left else ""),
        excludes="the disk (records are thrown away), ticks; see action_durable",
        at_least=True,
    )


def _installed(names: Sequence[str]) -> tuple[Path, dict[str, list[Path]], dict[str, str]]:
    """Return the Python to run servers with, where each finds more, and why some of them cannot be installed."""
    requirements = HERE / "requirements"
    python = peers_environment(_say, requirements / "fastapi.lock")
    folder = python.parents[1]
    paths: dict[str, list[Path]] = {}
    failed = {}
    for name in names:
        try:
            paths[name] = []
            if name in PEERS:
                paths[name].append(add_library(python, folder / "peers" / name, requirements / f"{name}.lock", _say))
        except OSError as error:
            del paths[name]
            failed[name] = f"cannot be installed: {str(error).splitlines()[-1]}"
    return python, paths, failed


def _started(
    running: ExitStack, python: Path, paths: dict[str, list[Path]], flood: Flood
) -> Iterator[tuple[str, Server | str]]:
    """Start servers at once and yield each when it listens, or the last it said when it never will."""
    starting = [(name, free_port()) for name in paths]
    processes = [
        running.enter_context(_process(_command(python, name, port), paths[name], flood.server_core))
        for name, port in starting
    ]
    for (name, port), process in zip(starting, processes, strict=True):
        assert process.stdout is not None
        line = process.stdout.readline()
        if line.startswith("{") and _listens(port, process):
            said = json.loads(line)
            requests = [action_request(agent_id, key) for agent_id, key in said["given"]]
            yield name, Server(name, said["about"], port, process.pid, packed(requests))
        else:
            rest, _ = process.communicate()
            yield name, ([line, *rest.splitlines()][-1] or f"ended with {process.returncode}").strip()


def _command(python: Path, name: str, port: int) -> list[str]:
    return [str(python), "-m", f"{PACKAGE}.serve_{name}", "--port", str(port), "--agents", str(CONNECTIONS)]


@contextmanager
def _process(command: list[str], paths: Sequence[Path], core: int) -> Iterator[subprocess.Popen[str]]:
    """Run a server on a core until the block ends, it and what it started; what it says goes to its output."""
    found = environment()
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env=found | {"PYTHONPATH": os.pathsep.join([*map(str, paths), str(ROOT), found["PYTHONPATH"]])},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: os.sched_setaffinity(0, {core}),
    )
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


def _listens(port: int, process: subprocess.Popen[str]) -> bool:
    began = time.monotonic()
    while time.monotonic() - began < START_S and process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), 1.0).close()
        except OSError:
            time.sleep(0.01)
        else:
            return True
    return False


# --- helpers -----------------------------------------------------------------------------------------------------
def action_request(agent_id: str, key: str, *headers: str) -> bytes:
    """Return an order as a client library sends it; the number of its client_action_id is left to the client."""
    body = json.dumps(
        {"client_action_id": f"order-{MARK}", "type": "limit", "market": "food", "side": "buy", "quantity": 5}
        | {"price": "0.25", "time_in_force": "ioc"}
    )
    lines = [
        f"POST /api/agents/{agent_id}/action HTTP/1.1",
        "Host: 127.0.0.1",
        "Accept: */*",
        "Accept-Encoding: gzip, deflate",
        "Connection: keep-alive",
        "User-Agent: arena-bench",
        *headers,
        f"Authorization: Bearer {key}",
        "Content-Type: application/json",
        f"Content-Length: {len(body)}",
    ]
    return "\r\n".join([*lines, "", body]).encode()


def packed(requests: Sequence[bytes]) -> bytes:
    """Return requests as the client reads them."""
    return b"".join(b"%d\n%b" % (len(request), request) for request in requests)


def _cpu_ns(root: int) -> int:
    """Return the processor time of a process and all it has started, nanoseconds."""
    children: dict[int, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            children.setdefault(int(path.read_text().rsplit(")", 1)[1].split()[1]), []).append(int(path.parent.name))
    family, total = [root], 0
    for pid in family:
        family += children.get(pid, [])
        for path in Path(f"/proc/{pid}/task").glob("*/schedstat"):
            with suppress(OSError):
                total += int(path.read_text().split()[0])
    return total


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


IDS = ("action_fastapi", "action_peers")


def main() -> None:
    """Measure the rows asked for and print them as they come."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ids", nargs="+", choices=IDS)
    parser.add_argument("--quick", action="store_true")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="arena-bench-") as folder:
        for measured in beside_others(given.ids, Flood(Path(folder)), given.quick):
            sys.stdout.write(json.dumps(measured) + "\n")


if __name__ == "__main__":
    main()
