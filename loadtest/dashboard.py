"""Does every panel show something: a server with customers, a real Prometheus that scrapes it, every query asked.

    python -m loadtest.dashboard [--prometheus /usr/bin/prometheus]

Needs the `prometheus` program (Debian and Ubuntu: apt-get install prometheus). Prints one line a query and leaves 1
when one of them gives no data.
"""

from __future__ import annotations

import argparse
import http.client
import json
import math
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote, urlsplit

from loadtest.process import ROOT, ServerProcess, free_port, python

DASHBOARD = ROOT / "grafana" / "dashboards" / "arena.json"
START_S, SCRAPES_S, STOP_S = 600.0, 45.0, 20.0


def queries() -> Iterator[tuple[str, str]]:
    """Yield title and expression of every query of the dashboard."""
    for panel in json.loads(DASHBOARD.read_text())["panels"]:
        for target in panel.get("targets", ()):
            yield panel["title"], target["expr"]


def check(program: str, folder: Path) -> list[str]:
    """Return the queries without data, after SCRAPES_S of a server that has customers."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with ServerProcess(folder / "world", "--residents", "2000", "--rate-limit", "100000") as server:
        server.wait_ready(START_S)
        customers = [
            python("-m", "loadtest.swarm", "--url", server.url, "--subscribers", "5", **pipes),
            python("-m", "loadtest.bots", "--url", server.url, "--bots", "3", "--rate", "20", **pipes),
        ]
        port = free_port()
        command = _command(program, folder, server.port, port)
        prometheus = subprocess.Popen(command, stderr=subprocess.DEVNULL, text=True)
        try:
            _come_and_go(server)
            began = time.monotonic()
            while time.monotonic() - began < SCRAPES_S:
                for path in ("/api/analysis/forecasts", "/api/markets/food/curves"):
                    server.document(path)
                time.sleep(2.0)
            return [query for title, query in queries() if not _has_data(port, title, query)]
        finally:
            for process in (*customers, prometheus):
                process.terminate()
                process.wait(STOP_S)
            server.stop()


def _command(program: str, folder: Path, target: int, port: int) -> list[str]:
    """Write the configuration deploy/prometheus.yml with this server and a shorter interval; return the command."""
    text = (ROOT / "deploy" / "prometheus.yml").read_text()
    text = text.replace("127.0.0.1:8000", f"127.0.0.1:{target}").replace("scrape_interval: 5s", "scrape_interval: 1s")
    config = folder / "prometheus.yml"
    config.write_text(text)
    listen = f"--web.listen-address=127.0.0.1:{port}"
    return [program, f"--config.file={config}", f"--storage.tsdb.path={folder / 'tsdb'}", listen, "--log.level=error"]


def _come_and_go(server: ServerProcess) -> None:
    """Register an agent and let it leave."""
    connection = http.client.HTTPConnection(urlsplit(server.url).netloc, timeout=30)
    connection.request("POST", "/api/agents/register")
    made = json.loads(connection.getresponse().read())
    key = {"Authorization": f"Bearer {made['api_key']}"}
    connection.request("DELETE", f"/api/agents/{made['agent_id']}", headers=key)
    status = connection.getresponse().status
    if status >= 300:
        raise RuntimeError(f"the agent could not leave: {status}")
    connection.close()


def _has_data(port: int, title: str, query: str) -> bool:
    """Ask Prometheus and say what it found; numbers only count when they are numbers."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request("GET", f"/api/v1/query?query={quote(query)}")
    answer = json.loads(connection.getresponse().read())
    connection.close()
    values = [float(series["value"][1]) for series in answer.get("data", {}).get("result", [])]
    known = [value for value in values if not math.isnan(value)]
    sys.stdout.write(f"{'ok  ' if known else 'NONE'} {len(known):4d} series  {title}: {query}\n")
    return bool(known)


def main() -> None:
    """Check and leave 1 when a query gave no data."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prometheus", default=shutil.which("prometheus"))
    given = parser.parse_args()
    if given.prometheus is None:
        parser.error("no prometheus on the PATH; Debian and Ubuntu have it as the package prometheus")
    with tempfile.TemporaryDirectory(prefix="arena-dashboard-") as folder:
        empty = check(given.prometheus, Path(folder))
    sys.exit(1 if empty else 0)


if __name__ == "__main__":
    main()
