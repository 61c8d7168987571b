"""What a server counts itself: /metrics read twice, and what happened in between."""

from __future__ import annotations

import http.client
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

Samples = dict[str, float]
ON_TIME_S = "0.02"
"""Bound of the histogram of lateness up to which a tick began on time."""
LATENESS = "arena_tick_lateness_seconds"


def read(url: str) -> Samples:
    """Return the samples of a server's /metrics. Raises OSError, RuntimeError."""
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=10)
    try:
        connection.request("GET", "/metrics")
        answer = connection.getresponse()
        text = answer.read().decode()
        if answer.status != 200:
            raise RuntimeError(f"GET {url}/metrics: {answer.status}")
        return parse(text)
    finally:
        connection.close()


def parse(text: str) -> Samples:
    """Return the samples of a page of metrics by name with labels, as they are exposed."""
    pairs = (line.rsplit(" ", 1) for line in text.splitlines() if line and not line.startswith("#"))
    return {name: float(value) for name, value in pairs}


def since(before: Mapping[str, float], after: Mapping[str, float]) -> Samples:
    """Return how much every sample grew; one that was not there before began at 0."""
    return {name: value - before.get(name, 0.0) for name, value in after.items()}


def quantile(more: Mapping[str, float], name: str, share: float) -> float:
    """Return a quantile of a histogram without labels, as Prometheus estimates it: even within a bucket; 0 for none.

    A value in the last, endless bucket counts as the bound below it.
    """
    buckets = sorted(
        (float(key.split('le="')[1].rstrip('"}')), value)
        for key, value in more.items()
        if key.startswith(f"{name}_bucket{{le=")
    )
    rank = share * (buckets[-1][1] if buckets else 0.0)
    low, below = 0.0, 0.0
    for bound, count in buckets:
        if count >= rank and count > below:
            return low if bound == float("inf") else low + (bound - low) * (rank - below) / (count - below)
        low, below = (low if bound == float("inf") else bound), count
    return 0.0


def total(more: Mapping[str, float], name: str, label: str = "") -> float:
    """Return the sum of a metric over its labels; label: text that must be among them, such as 'status="503"'."""
    return sum(value for key, value in more.items() if (key == name or key.startswith(name + "{")) and label in key)


def begun(more: Mapping[str, float], within_s: str = "+Inf") -> float:
    """Return how many ticks began so soon after they were due; within_s: a bound of the histogram of lateness."""
    return more[f'{LATENESS}_bucket{{le="{within_s}"}}']


def ticks(more: Mapping[str, float]) -> dict[str, Any]:
    """Return how ticks went: executed, how late they began, how long they took (deadline to publication), and syncs."""
    took, sync = "arena_tick_total_seconds", "arena_journal_sync_seconds"
    executed = more["arena_ticks_total"]
    return {
        "executed": int(executed),
        "late": int(more["arena_ticks_late_total"]),
        "share_on_time": round(begun(more, ON_TIME_S) / max(1.0, begun(more)), 5),
        "ms_mean": round(1e3 * more[f"{took}_sum"] / max(1.0, executed), 3),
        "ms_p99": round(1e3 * quantile(more, took, 0.99), 3),
        "sync_ms_mean": round(1e3 * more[f"{sync}_sum"] / max(1.0, more[f"{sync}_count"]), 3),
        "scheduler_stalls": int(more["arena_scheduler_stalls_total"]),
    }


def statuses(more: Mapping[str, float]) -> dict[str, int]:
    """Return how many requests were answered with each status."""
    found: dict[str, int] = {}
    for key, value in more.items():
        if key.startswith("arena_http_requests_total{") and value:
            status = key.split('status="')[1].split('"')[0]
            found[status] = found.get(status, 0) + int(value)
    return dict(sorted(found.items()))
