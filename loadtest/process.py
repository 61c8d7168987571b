"""A server process of our own: started, waited for, looked at from outside, stopped."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from math import ceil
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from loadtest import scrape

ROOT = Path(__file__).resolve().parents[1]
POLL_S = 0.005
LIFTED = (
    "--address-rate-limit", "10000000", "--registration-rate-limit", "10000000",
    "--sockets-per-address-max", "1000000", "--sockets-per-key-max", "1000000",
)  # fmt: skip
FIRST_START_S = 600.0
"""The first start of a release compiles every kernel."""
STOP_S = 30.0
TICK_S = 120.0
"""Longest wait for a tick."""


class ServerProcess:
    """`python -m server serve` on a port of 127.0.0.1, a free one unless given, over a data folder.

    with ServerProcess(folder, "--residents", "20000") as server:
        server.wait_ready(60)

    Its log lines go to log (JSON lines, in the data folder's parent). module: what serves. Limits of an address are
    lifted, and how many streams a key may have: all customers of a load test come from one, and some share a key.
    """

    def __init__(self, data: Path, *flags: str, module: str = "server", port: int | None = None) -> None:
        self.data = data
        self.port = free_port() if port is None else port
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = data.parent / f"{data.name}.log"
        data.parent.mkdir(parents=True, exist_ok=True)
        self._log_file: IO[bytes] = self.log.open("ab")
        # two servers of one machine must not meet on the operator's port
        listen = ("--port", str(self.port), "--operator", "false")
        self.started = time.monotonic()
        self._process = subprocess.Popen(
            [sys.executable, "-m", module, "serve", *listen, "--data", str(data), "--log", "json", *LIFTED, *flags],
            cwd=ROOT,
            env=environment(),
            stdin=subprocess.DEVNULL,
            stdout=self._log_file,
            stderr=subprocess.STDOUT,
        )

    def __enter__(self) -> ServerProcess:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process.poll() is None:
            self.stop()

    def wait_ready(self, limit_s: float) -> float:
        """Return the seconds from the command to the first 200 of /readyz. Raises RuntimeError when it ends before."""
        while time.monotonic() - self.started < limit_s:
            if self._process.poll() is not None:
                raise RuntimeError(f"the server ended with {self._process.returncode}: {self.last_lines()}")
            try:
                if self.get("/readyz")[0] == 200:
                    return time.monotonic() - self.started
            except OSError:
                pass  # nobody listens yet: it is still compiling or loading
            time.sleep(POLL_S)
        raise RuntimeError(f"not ready within {limit_s} s: {self.last_lines()}")

    def get(self, path: str) -> tuple[int, bytes]:
        """Return status and body of a GET."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def document(self, path: str) -> dict[str, Any]:
        """Return the JSON document of a GET. Raises RuntimeError for any other status than 200."""
        status, body = self.get(path)
        if status != 200:
            raise RuntimeError(f"GET {path}: {status} {body[:200]!r}")
        document = json.loads(body)
        assert isinstance(document, dict)
        return document

    def samples(self) -> dict[str, float]:
        """Return the samples of /metrics by name with labels, as they are exposed."""
        return scrape.parse(self.get("/metrics")[1].decode())

    def samples_after_a_tick(self) -> dict[str, float]:
        """Return the metrics when one more tick has begun and ended: what is counted tick by tick is whole then.

        Raises RuntimeError when there is none.
        """
        first, deadline = self.samples()["arena_ticks_total"], time.monotonic() + TICK_S
        while (samples := self.samples())["arena_ticks_total"] < first + 2:
            if time.monotonic() > deadline:
                raise RuntimeError(f"no tick in {TICK_S} s; the server says: {self.last_lines()}")
            time.sleep(POLL_S)
        return samples

    def rss_bytes(self) -> int:
        """Return the resident memory of the process."""
        return _status_kib(self._process.pid, "VmRSS") * 1024

    def cpu_seconds(self) -> float:
        """Return user and system time of the process so far."""
        fields = Path(f"/proc/{self._process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def stop(self) -> int:
        """Ask the server to drain (SIGTERM) and return its exit status; one that does not end is killed."""
        self._process.send_signal(signal.SIGTERM)
        try:
            return self._process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            raise RuntimeError(f"the server did not end within {STOP_S} s of SIGTERM: {self.last_lines()}") from None
        finally:
            self._log_file.close()

    def kill(self) -> int:
        """Kill the server at once (SIGKILL); return the last tick it had published a moment before."""
        tick = int(self.document("/api/time")["tick"])
        self._process.kill()
        self._process.wait()
        self._log_file.close()
        return tick

    def said(self, event: str) -> list[dict[str, Any]]:
        """Return what the server has logged of an event, oldest first."""
        lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines()
        return [found for line in lines if f'"{event}"' in line and (found := json.loads(line))["event"] == event]

    def last_lines(self) -> str:
        """Return the end of the server's log."""
        return self.log.read_text(encoding="utf-8", errors="replace")[-2_000:]


def environment() -> dict[str, str]:
    """Return the environment for a Python of ours: no settings of the user's, and the SDK of this tree in reach."""
    found = {name: value for name, value in os.environ.items() if not name.startswith(("ARENA_", "API_"))}
    path = [str(ROOT / "clients" / "python"), *filter(None, [found.get("PYTHONPATH")])]
    return {**found, "PYTHONPATH": os.pathsep.join(path)}


def python(*arguments: str, **options: Any) -> subprocess.Popen[str]:
    """Start another Python of ours in the tree: a swarm, a bot, a command."""
    return subprocess.Popen([sys.executable, *arguments], cwd=ROOT, env=environment(), text=True, **options)


def warm(data: Path, *flags: str) -> float:
    """Start a server once and stop it, so that the next one over the folder neither compiles nor settles.

    Return the seconds until it was ready.
    """
    with ServerProcess(data, *flags) as first:
        took_s = first.wait_ready(FIRST_START_S)
        first.stop()
    return took_s


@contextmanager
def warm_server(*flags: str) -> Iterator[ServerProcess]:
    """Give a server over a folder of its own that has started before."""
    with tempfile.TemporaryDirectory(prefix="arena-loadtest-") as folder:
        data = Path(folder) / "world"
        warm(data, *flags)
        with ServerProcess(data, *flags) as server:
            server.wait_ready(FIRST_START_S)
            yield server


def free_port() -> int:
    """Return a port of 127.0.0.1 that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def percentile(values: list[float], share: float) -> float:
    """Return the smallest value that at least share of the values do not exceed; 0 for no values."""
    ordered = sorted(values)
    return ordered[max(0, ceil(share * len(ordered)) - 1)] if ordered else 0.0


def _status_kib(pid: int, name: str) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1])
    raise RuntimeError(f"/proc/{pid}/status has no {name}")
