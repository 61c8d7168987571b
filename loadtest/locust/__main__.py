"""Runs locust headless with a named profile and holds what it counted to thresholds.

    python -m loadtest.locust smoke
    python -m loadtest.locust bots_1k --url http://127.0.0.1:8000 --out loadtest/results/locust_bots_1k.json
    python -m loadtest.locust smoke --bar action_ms_p99=50

Without --url a server of its own is started for the run. Status 1 when a threshold is missed.
"""

from __future__ import annotations

import argparse
import csv
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from math import ceil
from pathlib import Path
from typing import Any, NamedTuple

from loadtest import scrape
from loadtest.checks import Check, finish, with_bars
from loadtest.locust.profiles import PROFILES, Profile
from loadtest.open_files import make_room
from loadtest.process import ROOT, python
from loadtest.target import target

LOCUSTFILE = Path(__file__).with_name("locustfile.py")
SAMPLE_EVERY_S = 1.0
OVERTIME_S = 60.0
"""Locust may need so much longer than its profile says, to let users in and out."""
UNSETTLED_SHARE = 0.25
"""Of a run, at whose beginning memory grows because users come."""
FAILURES_TOLD = 20


class Counted(NamedTuple):
    """What is known after a run.

    entries: of locust, by method and name. failures: how often each. ticks: of the server. memory: of the server,
    minute and MB. locust_cpu, server_cpu: cores used, on average.
    """

    seconds: float
    entries: dict[tuple[str, str], dict[str, Any]]
    failures: dict[str, int]
    ticks: dict[str, Any]
    memory: list[tuple[float, float]]
    locust_cpu: float
    server_cpu: float

    def percentile_ms(self, kind: str, share: float, name: str | None = None) -> float:
        """Return the smallest time that at least that share did not exceed, as locust rounds it; 0 for none.

        Of all entries of a kind together, or of the one with that name.
        """
        counts: Counter[float] = Counter()
        for key, entry in self.entries.items():
            if key == (kind, name or key[1]):
                counts.update({float(ms): count for ms, count in entry["response_times"].items()})
        left = ceil(share * counts.total())
        for value in sorted(counts):
            left -= counts[value]
            if left <= 0:
                return value
        return 0.0

    def a_second(self, kind: str) -> float:
        """Return how many of a kind did not fail, over the whole run."""
        found = (entry for key, entry in self.entries.items() if key[0] == kind)
        return float(sum(entry["num_requests"] - entry["num_failures"] for entry in found)) / self.seconds

    def worst_route_ms(self) -> float:
        """Return the highest p99 of a route that was read."""
        routes = (name for kind, name in self.entries if kind == "READ")
        return max((self.percentile_ms("READ", 0.99, name) for name in routes), default=0.0)

    def failed_share(self) -> float:
        """Return the share of everything that failed; 1 when there was nothing."""
        requests = sum(entry["num_requests"] for entry in self.entries.values())
        return sum(entry["num_failures"] for entry in self.entries.values()) / requests if requests else 1.0

    def memory_growth(self) -> float:
        """Return how fast the server's memory grew once its users were there, MB a minute."""
        settled = self.memory[round(UNSETTLED_SHARE * len(self.memory)) :]
        return statistics.linear_regression(*zip(*settled, strict=True)).slope if len(settled) > 1 else 0.0


#: What a threshold may be about: its unit, and how it is found.
FIGURES: Mapping[str, tuple[str, Callable[[Counted], float]]] = {
    "action_ms_p95": ("ms", lambda seen: seen.percentile_ms("AGENT", 0.95)),
    "action_ms_p99": ("ms", lambda seen: seen.percentile_ms("AGENT", 0.99)),
    "read_ms_p95": ("ms", lambda seen: seen.percentile_ms("READ", 0.95)),
    "route_ms_p99_worst": ("ms", Counted.worst_route_ms),
    "awaited_ms_p99": ("ms", lambda seen: seen.percentile_ms("AWAIT", 0.99)),
    "frame_ms_p99": ("ms", lambda seen: seen.percentile_ms("STREAM", 0.99)),
    "failed_share": ("of all requests and frames", Counted.failed_share),
    "actions_per_s": ("/s", lambda seen: seen.a_second("AGENT")),
    "reads_per_s": ("/s", lambda seen: seen.a_second("READ")),
    "frames_per_s": ("/s", lambda seen: seen.a_second("STREAM")),
    "ticks_on_time_share": ("of the ticks", lambda seen: float(seen.ticks["share_on_time"])),
    "memory_mb_per_minute": ("MB/min", Counted.memory_growth),
}


def run(name: str, url: str) -> Counted:
    """Run locust against a server and return what it counted. Raises RuntimeError with its log when it fails.

    Raises ModuleNotFoundError when it is not installed.
    """
    if find_spec("locust") is None:
        raise ModuleNotFoundError("locust is not here; `python3 -m tests lint` brings what developers need")
    profile = PROFILES[name]
    with tempfile.TemporaryDirectory(prefix="arena-locust-") as folder:
        log, counts = Path(folder) / "log", Path(folder) / "counts"
        before, cpu_before, began = scrape.read(url), _cpu_of_children(), time.monotonic()
        options = ("--headless", "--host", url, "--profile", name, "--exit-code-on-error", "0", "--only-summary")
        files = ("--json-file", str(counts), "--csv", str(counts), "--logfile", str(log))
        command = ("-m", "locust", "-f", str(LOCUSTFILE.relative_to(ROOT)), *options, *files)
        locust = python(*command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            memory = _watch(locust, url, began + profile.seconds + OVERTIME_S)
        finally:
            locust.kill()
            status = locust.wait()
        seconds = time.monotonic() - began
        if status != 0:
            raise RuntimeError(f"locust ended with {status}: {log.read_text() if log.exists() else 'no log'}")
        # locust makes names of files of the one it is given
        entries = json.loads(counts.with_suffix(".json").read_text(encoding="utf-8"))
        with counts.with_name("counts_failures.csv").open(encoding="utf-8", newline="") as file:
            failures = {f"{row['Name']}: {row['Error']}": int(row["Occurrences"]) for row in csv.DictReader(file)}
    more = scrape.since(before, scrape.read(url))
    return Counted(
        # its start and end are not part of the profile
        min(seconds, profile.seconds),
        {(entry["method"], entry["name"]): entry for entry in entries},
        failures,
        scrape.ticks(more),
        memory,
        (_cpu_of_children() - cpu_before) / seconds,
        more["process_cpu_seconds_total"] / seconds,
    )


def checks(profile: Profile, seen: Counted) -> list[Check]:
    """Return the thresholds of a profile with what was seen."""
    bars = [(name, bar, False) for name, bar in profile.at_most.items()]
    bars += [(name, bar, True) for name, bar in profile.at_least.items()]
    return [
        Check(name=name, value=FIGURES[name][1](seen), bar=bar, unit=FIGURES[name][0], at_least=at_least)
        for name, bar, at_least in bars
    ]


def _watch(locust: subprocess.Popen[str], url: str, until: float) -> list[tuple[float, float]]:
    """Wait for locust to end and return the server's memory meanwhile. Raises RuntimeError when it does not end."""
    began = time.monotonic()
    memory: list[tuple[float, float]] = []
    while time.monotonic() < until:
        try:
            locust.wait(SAMPLE_EVERY_S)
            return memory
        except subprocess.TimeoutExpired:
            resident = scrape.read(url)["process_resident_memory_bytes"]
            memory.append(((time.monotonic() - began) / 60, resident / 1e6))
    raise RuntimeError(f"locust has not ended {OVERTIME_S:.0f} s after its profile")


def _cpu_of_children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _entry(seen: Counted, key: tuple[str, str]) -> dict[str, Any]:
    entry = seen.entries[key]
    return {
        "requests": entry["num_requests"],
        "failures": entry["num_failures"],
        **{f"ms_p{share * 100:g}": seen.percentile_ms(key[0], share, key[1]) for share in (0.5, 0.95, 0.99)},
        "ms_max": round(entry["max_response_time"] or 0.0, 1),
    }


def main() -> int:
    """Run the profile the command line names, print what was seen and return 1 when a threshold is missed."""
    profiles = "\n".join(f"  {name:<16} {profile.says}" for name, profile in PROFILES.items())
    parser = argparse.ArgumentParser(
        prog="python -m loadtest.locust",
        description=__doc__,
        epilog=f"profiles:\n{profiles}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("profile", choices=list(PROFILES), metavar="PROFILE", help=f"one of {', '.join(PROFILES)}")
    parser.add_argument("--url", help="a running server; default: one of its own for the run")
    parser.add_argument("--bar", action="append", default=[], metavar="NAME=VALUE", help="another threshold")
    parser.add_argument("--out", type=Path, metavar="FILE", help="also write the result as JSON to this file")
    given = parser.parse_args()
    profile = PROFILES[given.profile]
    make_room(profile.users)
    with target(given.url, *profile.flags) as url:
        seen = run(given.profile, url)
    try:
        held = with_bars(checks(profile, seen), given.bar)
    except ValueError as error:
        parser.error(str(error))
    return finish(
        f"locust_{given.profile}",
        held,
        given.out,
        profile={
            "says": profile.says,
            "agents": profile.agents,
            "actions_per_s_each": profile.actions_per_s,
            "readers": profile.readers,
            "reads_per_s_each": profile.reads_per_s,
            "subscribers": profile.subscribers,
            "every": profile.every,
            "seconds": profile.seconds,
            "flags": list(profile.flags),
        },
        entries={" ".join(key): _entry(seen, key) for key in sorted(seen.entries)},
        failures=dict(sorted(seen.failures.items(), key=lambda failure: -failure[1])[:FAILURES_TOLD]),
        ticks=seen.ticks,
        memory_mb_most=round(max((mb for _, mb in seen.memory), default=0.0), 1),
        cores={"server": round(seen.server_cpu, 3), "locust": round(seen.locust_cpu, 3)},
    )


if __name__ == "__main__":
    sys.exit(main())
