"""The one door for metrics: every name, label and unit that /metrics exposes.

Parts get a Metrics and touch its attributes; `arena_` and Prometheus' suffixes are added here. `python3 -m
server.metrics` prints docs/metrics.md. Economic gauges are filled when somebody asks, so a tick pays nothing for them.
"""

from __future__ import annotations

import asyncio
import math
import os
import re
import sys
from bisect import bisect_left
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from copy import copy
from itertools import accumulate
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.gc_collector import GCCollector
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from engine.events import PublicState, TickReport
from engine.ladder import UCR
from engine.markets import NAMES, RAW_FIRST, RAW_LAST
from engine.messages import Kind, Status
from server import descriptors

PREFIX = "arena_"
PHASES = ("intake", "prices", "behaviour", "psychology", "monetary", "scarcity", "indicators", "emission")

ANALYSES = ("curves", "impact", "efficiency", "arbitrage", "forecasts")
ANOMALY_KINDS = ("return", "volume", "spread", "imbalance", "indicator")

#: Upper bounds, seconds. A phase takes tens of microseconds, a request milliseconds, a stalled disk seconds.
_FAST_S = (0.00002, 0.00005, 0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5)
_TIMES_S = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
_COUNTS = (1.0, 2.0, 4.0, 8.0, 16.0)

SAMPLES_A_TURN = 50
"""Of a page, written down in one turn of the event loop: half a millisecond, twice as much for OpenMetrics."""
OPENMETRICS_END = b"# EOF\n"

#: Of the process and of Python, under the names of prometheus-client: name as exposed, type, labels, meaning.
PROCESS_METRICS = (
    ("process_virtual_memory_bytes", "gauge", (), "virtual memory, bytes"),
    ("process_resident_memory_bytes", "gauge", (), "resident memory, bytes"),
    ("process_start_time_seconds", "gauge", (), "start of the process, seconds since 1970"),
    ("process_cpu_seconds_total", "counter", (), "user and system CPU time, seconds"),
    ("process_open_fds", "gauge", (), "open file descriptors"),
    ("process_max_fds", "gauge", (), "file descriptors allowed"),
    ("python_info", "gauge", ("version", "implementation", "major", "minor", "patchlevel"), "the Python that runs"),
    ("python_gc_objects_collected_total", "counter", ("generation",), "objects the collector freed"),
    ("python_gc_objects_uncollectable_total", "counter", ("generation",), "objects the collector could not free"),
    ("python_gc_collections_total", "counter", ("generation",), "runs of the collector"),
)


#: What a gateway shows, and all others do not: names without the common prefix begin with one of these.
OF_GATEWAYS = ("gateway_", "sockets", "subscriptions", "frame", "resyncs", "narrowings", "http_")


class Entry(NamedTuple):
    """A metric as exposed: full name (a histogram's without _bucket, _sum, _count), type, labels, meaning."""

    name: str
    kind: str
    labels: tuple[str, ...]
    text: str


class ActionCounts(Collector):
    """A histogram that takes in all agents of a tick at once: one by one, 10,000 of them held up the loop for 7 ms."""

    def __init__(self, name: str, text: str, bounds: Sequence[float]) -> None:
        self.text = text
        self._name = PREFIX + name
        self._bounds = np.array(bounds)
        self._counts = np.zeros(len(bounds) + 1, np.int64)
        self._sum = 0

    def observe(self, values: NDArray[np.int64]) -> None:
        """Add values, one per agent that acted."""
        places = np.searchsorted(self._bounds, values)
        self._counts += np.bincount(places, minlength=len(self._counts))
        self._sum += int(values.sum())

    def collect(self) -> Iterator[Metric]:
        """Yield the histogram with its cumulative buckets."""
        names = [*(f"{bound:.1f}" for bound in self._bounds), "+Inf"]
        buckets = list(zip(names, np.cumsum(self._counts).astype(float).tolist(), strict=True))
        yield HistogramMetricFamily(self._name, self.text, buckets=buckets, sum_value=float(self._sum))


class Counts(Collector):
    """A counter with labels in plain numbers, for what is counted often: prometheus-client's takes 6 times as long."""

    def __init__(self, name: str, text: str, labels: tuple[str, ...]) -> None:
        self._name = PREFIX + name
        self._text = text
        self._labels = labels
        self._counts: dict[tuple[str, ...], int] = {}

    def add(self, *labels: str) -> None:
        """Count one."""
        self._counts[labels] = self._counts.get(labels, 0) + 1

    def collect(self) -> Iterator[Metric]:
        """Yield the counter."""
        family = CounterMetricFamily(self._name, self._text, labels=self._labels)
        for labels, count in self._counts.items():
            family.add_metric(labels, float(count))
        yield family


class Times(Collector):
    """A histogram of seconds with one label in plain numbers."""

    def __init__(self, name: str, text: str, label: str) -> None:
        self._name = PREFIX + name
        self._text = text
        self._label = label
        self._buckets: dict[str, list[int]] = {}
        self._sums: dict[str, float] = {}

    def add(self, label: str, seconds: float) -> None:
        """Take in how long something took."""
        buckets = self._buckets.get(label)
        if buckets is None:
            buckets = self._buckets[label] = [0] * (len(_TIMES_S) + 1)
            self._sums[label] = 0.0
        buckets[bisect_left(_TIMES_S, seconds)] += 1
        self._sums[label] += seconds

    def collect(self) -> Iterator[Metric]:
        """Yield the histogram with its cumulative buckets."""
        family = HistogramMetricFamily(self._name, self._text, labels=(self._label,))
        bounds = [*map(str, _TIMES_S), "+Inf"]
        for label, buckets in self._buckets.items():
            cumulative = [float(count) for count in accumulate(buckets)]
            family.add_metric((label,), list(zip(bounds, cumulative, strict=True)), self._sums[label])
        yield family


class ProcessFigures(Collector):
    """What prometheus-client says of the process, with its open files as Linux counts them since 6.2.

    The library lists them: with 10,000 connections the event loop stood still for 10 ms and more at every scrape.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self._listing = ProcessCollector(registry=None)
        self._booted = booted_unix_s() if open_files() else None
        registry.register(self)

    def collect(self) -> Iterable[Metric]:
        """Return the families of PROCESS_METRICS that begin with process_."""
        if self._booted is None:
            return self._listing.collect()
        values = {"process_open_fds": open_files(), "process_max_fds": descriptors.limit() or math.inf}
        # without a descriptor to read it with, how many there are is what the page is looked at for
        with suppress(OSError):
            # behind the name, which may hold any character, from the third field of proc_pid_stat(5) on
            fields = Path("/proc/self/stat").read_bytes().rpartition(b")")[2].split()
            user, system, started, size, resident = (int(fields[i]) for i in (11, 12, 19, 20, 21))
            a_second = os.sysconf("SC_CLK_TCK")
            values |= {
                "process_virtual_memory_bytes": size,
                "process_resident_memory_bytes": resident * os.sysconf("SC_PAGE_SIZE"),
                "process_start_time_seconds": self._booted + started / a_second,
                "process_cpu_seconds_total": (user + system) / a_second,
            }
        kinds = {"counter": CounterMetricFamily, "gauge": GaugeMetricFamily}
        return [
            kinds[kind](name, text, value=float(values[name]))
            for name, kind, _, text in PROCESS_METRICS
            if name in values
        ]


def booted_unix_s() -> int | None:
    """Return when the system was started; None where it does not say."""
    try:
        found = re.search(r"^btime (\d+)$", Path("/proc/stat").read_text(), re.MULTILINE)
    except OSError:
        return None
    return None if found is None else int(found[1])


def open_files() -> int:
    """Return how many files this process has open; 0 where the system does not say so without listing them."""
    if sys.platform != "linux":
        return 0
    try:
        return os.stat("/proc/self/fd").st_size
    except OSError:
        return 0


class Families(Collector):
    """Some that were collected before, for an encoder that asks a collector for them."""

    def __init__(self, families: list[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        """Return them."""
        return self._families


class Metrics:
    """All metrics of one server, in a registry of their own: two servers in one process do not meet.

    is_gateway: shows what a gateway does and no world; otherwise nothing of gateways is shown.
    """

    def __init__(self, *, is_gateway: bool = False) -> None:
        # a creation time beside every series would double the answer, and nobody here asks for it
        disable_created_metrics()
        self.registry = CollectorRegistry()
        self._is_gateway = is_gateway
        self.catalogue: list[Entry] = []
        self._public: PublicState | None = None

        # the tick
        self.tick_seconds = self._histogram("tick_seconds", "time of one phase of a tick", _FAST_S, "phase")
        self.tick_total_seconds = self._histogram("tick_total_seconds", "deadline to publication of a tick", _TIMES_S)
        self.tick_sync_wait_seconds = self._histogram(
            "tick_sync_wait_seconds", "computed to published: what waiting for the mark to be durable adds", _TIMES_S
        )
        self.tick_lateness_seconds = self._histogram(
            "tick_lateness_seconds", "start of a tick after its deadline", _TIMES_S
        )
        self.ticks = self._counter("ticks", "ticks executed")
        self.ticks_late = self._counter("ticks_late", "ticks that began after the next one was due")
        self.scheduler_stalls = self._counter(
            "scheduler_stalls", "times the machine did not run the watchdog thread when it should have"
        )
        self.tick = self._gauge("tick", "number of the last published tick")
        self.conservation_checks = self._counter(
            "conservation_checks",
            "checks that money and goods add up: one a tick, one a simulated day (24 ticks) above 1,000,000 residents",
        )

        # agents and their actions
        self.actions = self._counter(
            "actions",
            "actions by kind and what became of them: at the door accepted, duplicate, conflict, invalid, refused_full;"
            " then by the world filled, resting, partial, rejected, cancelled, expired, done",
            "kind",
            "outcome",
        )
        self.registrations = self._counter("registrations", "registrations by result", "result")
        self.unregistrations = self._counter("unregistrations", "agents gone, by reason", "reason")
        self.agents = self._gauge("agents", "registered outside agents")
        self.agents_active = self._gauge("agents_active", "outside agents with an action in the last tick")
        self.agent_actions = ActionCounts("agent_actions", "actions of one agent in one tick, active ones", _COUNTS)
        if self._enter("agent_actions", "histogram", (), self.agent_actions.text):
            self.registry.register(self.agent_actions)
        self.queue_actions = self._gauge("queue_actions", "actions waiting for the next tick")
        self.receipts = self._gauge("receipts", "receipts kept")
        self.receipts_in_memory = self._gauge("receipts_in_memory", "receipts that are not on disk, or not only there")
        self.receipt_index_bytes = self._gauge("receipt_index_bytes", "memory taken by the index of those on disk")
        self.receipt_generations = self._gauge("receipt_generations", "files of the index of receipts")
        self.receipt_merge_seconds = self._histogram(
            "receipt_merge_seconds", "time to merge files of the index, off the tick", _TIMES_S
        )
        self.batches_refused = self._counter(
            "batches_refused", "batches refused as a whole, before they were looked at: no room or no time for them"
        )
        self.commands = self._counter("commands", "commands of an operator, by kind", "command")
        self.paused = self._gauge("paused", "1: an operator has paused the world: no tick begins")
        self.rate_limited = self._counter(
            "rate_limited",
            "requests refused by a rate limit: of a key, of an address, of registrations from one",
            "kind",
        )

        # the journal
        self.journal_records = self._counter("journal_records", "records appended, by kind", "kind")
        self.journal_bytes = self._counter("journal_bytes", "bytes appended to the journal")
        self.journal_syncs = self._counter("journal_syncs", "batches made durable")
        self.journal_sync_seconds = self._histogram("journal_sync_seconds", "time to make a batch durable", _TIMES_S)
        self.journal_durable_seq = self._gauge("journal_durable_seq", "last sequence number that is durable")

        self.read_only = self._gauge("read_only", "1: the world takes no input any more; the log says why")
        self.snapshots = self._counter("snapshots", "snapshots by what became of them", "result")
        self.snapshot_seconds = self._histogram("snapshot_seconds", "time to write one, off the tick", _TIMES_S)
        self.snapshot_tick = self._gauge("snapshot_tick", "tick of the newest snapshot taken by this process")

        # subscribers and requests
        self.sockets = self._gauge("sockets", "open streams: WebSocket connections and server-sent events")
        self.sockets_opened = self._counter("sockets_opened", "streams accepted")
        self.sockets_closed = self._counter(
            "sockets_closed", "streams closed, by close code of the protocol page, or other", "code"
        )
        self.sockets_refused = self._counter(
            "sockets_refused",
            "streams refused for as many are open as may be: in all, of a key, of an address",
            "limit",
        )
        self.sockets_waiting = self._gauge(
            "sockets_waiting", "connections of any kind that were taken in and wait for their turn to begin"
        )
        self.sockets_held_off = self._counter(
            "sockets_held_off", "times that no connection was taken in for 50 ms: too few descriptors are left"
        )
        self.sockets_stuck = self._counter(
            "sockets_stuck", "clients that stopped reading: cut 10 s later unless they read again"
        )
        self.subscriptions = self._gauge("subscriptions", "subscriptions by channel", "channel")
        self.frames = self._counter("frames", "frames handed to subscribers", "channel", "kind")
        self.frame_bytes = self._counter("frame_bytes", "bytes of those frames", "channel", "kind")
        self.frames_skipped = self._counter("frames_skipped", "frames slow subscribers did not get", "channel")
        self.resyncs = self._counter("resyncs", "snapshots sent instead of a delta, by reason", "reason")
        self.narrowings = self._gauge("narrowings", "narrowed forms of state channels that are read or may be again")
        self.narrowings_refused = self._counter(
            "narrowings_refused", "subscriptions refused because there are too many"
        )
        self.agent_log_bytes = self._gauge("agent_log_bytes", "kept for readers of the channel agent, bytes")
        self.agent_records_cut = self._counter(
            "agent_records_cut", "records of the channel agent that had to go before their time, for room"
        )
        self.switches = self._counter(
            "switches",
            "actions of cancel on disconnect: switches set ahead, cancelled for a connection that ended, put off",
            "what",
        )
        self.http_requests = self._counts("http_requests", "requests answered", "method", "route", "status")
        self.http_seconds = self._times("http_seconds", "time to answer a request", "route")

        # what an engine tells its gateways
        self.redis_up = self._gauge("redis_up", "1: frames go to Redis, 0: it is lost, or none is used")
        self.redis_bundles = self._counter(
            "redis_bundles", "bundles of frames: published, late (of more than one tick), failed", "result"
        )
        self.redis_seconds = self._histogram("redis_seconds", "time to publish a tick, beside it", _TIMES_S)

        # a gateway
        self.gateway_engine_up = self._gauge("gateway_engine_up", "1: the engine is there, 0: subscribers were told")
        self.gateway_redis_up = self._gauge("gateway_redis_up", "1: frames come from Redis, 0: from the engine alone")
        self.gateway_bundles = self._counter(
            "gateway_bundles", "bundles of frames taken, by where they came from: redis, engine", "source"
        )
        self.gateway_gaps = self._counter("gateway_gaps", "bundles that did not fit, mended by asking the engine")
        self.gateway_outages = self._counter("gateway_outages", "times the engine went away")
        self.gateway_forwarded = self._counter(
            "gateway_forwarded",
            "requests for the engine by what became of them: answered, unsent (503), unknown (504)",
            "result",
        )
        self.gateway_forward_seconds = self._histogram(
            "gateway_forward_seconds", "time from taking such a request to the engine's answer", _TIMES_S
        )
        self.gateway_connections = self._gauge("gateway_connections", "connections to the engine")
        self.gateway_reads = self._counter(
            "gateway_reads", "reads of the state, by where the answer came from: memory, redis, engine, stale", "source"
        )

        # the past
        self.history_points = self._gauge("history_points", "points kept hot in each series")
        self.history_bars = self._gauge("history_bars", "days and months kept of each series", "tier")
        self.history_waiting = self._gauge("history_waiting", "ticks that wait to be written to the history's files")
        self.history_rows_lost = self._counter("history_rows_lost", "ticks that could not be written there in time")
        self.history_archive_files = self._gauge("history_archive_files", "files in the archive")
        self.history_archive_bytes = self._gauge("history_archive_bytes", "size of those files")
        self.history_archive_bytes_max = self._gauge(
            "history_archive_bytes_max", "size above which the oldest are removed, 0: no archive"
        )
        self.history_archive_age_seconds_max = self._gauge(
            "history_archive_age_seconds_max", "age above which they are removed, 0: no archive"
        )
        self.history_archive_spans = self._counter(
            "history_archive_spans", "spans of ticks by what became of them: written, failed (tried again)", "result"
        )
        self.history_archive_ticks_missing = self._counter(
            "history_archive_ticks_missing", "ticks that are in no file because nothing kept them for long enough"
        )
        self.history_archive_removed = self._counter("history_archive_removed", "files removed: age or size", "reason")
        self.analyses_asked = self._counter("analyses_asked", "analyses asked for, by kind", "analysis")
        self.analysis_seconds = self._histogram(
            "analysis_seconds", "time to make an analysis, beside the tick", _TIMES_S, "analysis"
        )

        # the economy
        self.market_price = self._gauge("market_price", "reference price of a lot, credits", "market")
        self.market_volatility = self._gauge("market_volatility", "realised volatility, a year", "market")
        self.market_volume = self._gauge("market_volume", "lots traded in the last tick", "market")
        self.resource_scarcity = self._gauge("resource_scarcity", "1 - reserves / base", "resource")
        self.inflation = self._gauge("inflation", "quarterly CPI inflation, annualised")
        self.unemployment = self._gauge("unemployment", "share of households")
        self.policy_rate = self._gauge("policy_rate", "interest rate of the central bank, a year")
        self.money_supply = self._gauge("money_supply", "money of residents, agents and pools, credits")
        self.velocity = self._gauge("velocity", "velocity of money, a year")
        self.cpi = self._gauge("cpi", "consumer price index, 1 at the start")
        self.equity_index = self._gauge("equity_index", "share index, 100 at the start")
        self.sentiment = self._gauge("sentiment", "mean over residents, 0 to 1")
        self.fear = self._gauge("fear", "mean over residents, 0 to 1")
        self.greed = self._gauge("greed", "mean over residents, 0 to 1")
        self.confidence = self._gauge("confidence", "mean over residents, 0 to 1")
        self.herding = self._gauge("herding", "how much of the mood is one mood")
        self.volatility_multiplier = self._gauge("volatility_multiplier", "what psychology does to volatility, global")
        self.panic_markets = self._gauge("panic_markets", "markets in panic")
        self.euphoria_markets = self._gauge("euphoria_markets", "markets in euphoria")
        self.sentiment_variance = self._gauge("sentiment_variance", "variance of sentiment over residents")
        self.disagreement = self._gauge("disagreement", "mean distance of a resident's sentiment from neutral")
        self.market_kyle_lambda = self._gauge("market_kyle_lambda", "price impact of a lot of imbalance, bp", "market")
        self.market_spread = self._gauge("market_spread", "best unfilled ask over bid, bp, -1 without both", "market")
        self.world_events = self._counter("world_events", "events of the world, by name", "name")
        self.anomalies = self._counter("anomalies", "anomalies that began, by kind", "kind")
        self.anomalies_open = self._gauge("anomalies_open", "anomalies that last")
        self.anomalies_forgotten = self._counter("anomalies_forgotten", "anomalies dropped from the log, oldest first")

        for phase in PHASES:
            self.tick_seconds.labels(phase)
        for counter, values in (
            (self.sockets_refused, ("all", "key", "address")),
            (self.redis_bundles, ("published", "late", "failed")),
            (self.gateway_bundles, ("redis", "engine")),
            (self.gateway_forwarded, ("answered", "unsent", "unknown")),
            (self.gateway_reads, ("memory", "redis", "engine", "stale")),
        ):
            for value in values:
                counter.labels(value)
        # a counter that begins when something happens hides that it happened
        for kind in ANOMALY_KINDS:
            self.anomalies.labels(kind)
        for analysis in ANALYSES:
            self.analyses_asked.labels(analysis)
            self.analysis_seconds.labels(analysis)
        for collector in (ProcessFigures, PlatformCollector, GCCollector):
            collector(registry=self.registry)

    def observe_report(self, report: TickReport) -> None:
        """Count what a tick reports: outcomes of actions, activity of agents, events; keep its public values."""
        outcomes = report.outcomes
        if len(outcomes):
            # kind and status as one number: sorting 10,000 pairs of fields held up the loop for 5 ms
            counts = np.bincount(outcomes["kind"].astype(np.int64) << 8 | outcomes["status"])
            for pair in np.flatnonzero(counts).tolist():
                kind, status = Kind(pair >> 8), Status(pair & 255)
                self.actions.labels(kind.name.lower(), status.name.lower()).inc(int(counts[pair]))
        _, each = np.unique(outcomes["agent_id"], return_counts=True)
        self.agents_active.set(len(each))
        self.agent_actions.observe(each)
        for event in report.events:
            self.world_events.labels(event.name).inc()
        self.observe_view(report.public)

    def observe_view(self, public: PublicState) -> None:
        """Take the public values of the last tick for the economic gauges."""
        self._public = public

    async def expose(self, accept: str | None) -> tuple[bytes, str]:
        """Return the body and content type of /metrics: OpenMetrics for who accepts it, else Prometheus' text.

        All values are of one moment; to write a thousand of them down takes longer, and others have turns meanwhile.
        """
        self._fill_economy()
        encode, content_type = choose_encoder(accept or "")
        pieces = deque(_pieces(self.registry.collect()))
        page, end = list[bytes](), b""
        while pieces:
            await asyncio.sleep(0)
            is_rest = pieces[0].is_rest
            some, count = list[Metric](), 0
            while pieces and count < SAMPLES_A_TURN:
                some.append(pieces.popleft().family)
                count += len(some[-1].samples)
            text = encode(Families(some))
            if text.endswith(OPENMETRICS_END):
                text, end = text.removesuffix(OPENMETRICS_END), OPENMETRICS_END
            # the rest of a family is without its head, which is there already
            page.append(re.sub(rb"\A(#.*\n)+", b"", text) if is_rest else text)
        return b"".join((*page, end)), content_type

    def _fill_economy(self) -> None:
        public = self._public
        if public is None:
            return
        for m, market in enumerate(NAMES):
            self.market_price.labels(market).set(float(public.market["price"][m]) / UCR)
            self.market_volatility.labels(market).set(float(public.market["volatility"][m]))
            self.market_volume.labels(market).set(float(public.market["volume"][m]))
            self.market_kyle_lambda.labels(market).set(float(public.market["kyle_lambda"][m]))
            self.market_spread.labels(market).set(float(public.market["spread_bp"][m]))
        for r, resource in enumerate(NAMES[RAW_FIRST : RAW_LAST + 1]):
            self.resource_scarcity.labels(resource).set(float(public.resource["scarcity"][r]))
        for gauge, value in (
            (self.inflation, public.indicators["inflation"]),
            (self.unemployment, public.indicators["unemployment"]),
            (self.policy_rate, public.indicators["policy_rate"]),
            (self.money_supply, public.indicators["money_supply"] / UCR),
            (self.velocity, public.indicators["velocity"]),
            (self.cpi, public.indicators["cpi"]),
            (self.equity_index, public.indicators["equity_index"]),
            (self.sentiment, public.psychology["sentiment"]),
            (self.fear, public.psychology["fear"]),
            (self.greed, public.psychology["greed"]),
            (self.confidence, public.psychology["confidence"]),
            (self.herding, public.psychology["herding"]),
            (self.volatility_multiplier, public.psychology["volatility_multiplier"]),
            (self.sentiment_variance, public.psychology["sentiment_variance"]),
            (self.disagreement, public.psychology["disagreement"]),
            (self.panic_markets, public.psychology["panic_markets"]),
            (self.euphoria_markets, public.psychology["euphoria_markets"]),
        ):
            gauge.set(float(value))

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        registry = self._enter(f"{name}_total", "counter", labels, text)
        return Counter(PREFIX + name, text, labels, registry=registry)

    def _gauge(self, name: str, text: str, *labels: str) -> Gauge:
        registry = self._enter(name, "gauge", labels, text)
        return Gauge(PREFIX + name, text, labels, registry=registry)

    def _histogram(self, name: str, text: str, buckets: Sequence[float], *labels: str) -> Histogram:
        registry = self._enter(name, "histogram", labels, text)
        return Histogram(PREFIX + name, text, labels, registry=registry, buckets=buckets)

    def _counts(self, name: str, text: str, *labels: str) -> Counts:
        registry, counts = self._enter(f"{name}_total", "counter", labels, text), Counts(name, text, labels)
        if registry is not None:
            registry.register(counts)
        return counts

    def _times(self, name: str, text: str, label: str) -> Times:
        registry, times = self._enter(name, "histogram", (label,), text), Times(name, text, label)
        if registry is not None:
            registry.register(times)
        return times

    def _enter(self, name: str, kind: str, labels: tuple[str, ...], text: str) -> CollectorRegistry | None:
        """Enter a metric into the catalogue and return where it is exposed, None when this server does not."""
        if not name.startswith(OF_GATEWAYS) if self._is_gateway else name.startswith("gateway_"):
            return None
        self.catalogue.append(Entry(PREFIX + name, kind, labels, text))
        return self.registry


class Piece(NamedTuple):
    """So much of a family as is written down at a time. is_rest: its beginning is another one."""

    family: Metric
    is_rest: bool


def _pieces(families: Iterable[Metric]) -> Iterator[Piece]:
    """Yield families in order, large ones as several of SAMPLES_A_TURN, of which only the last has fewer."""
    for family in families:
        for first in range(0, max(1, len(family.samples)), SAMPLES_A_TURN):
            part = copy(family)
            part.samples = family.samples[first : first + SAMPLES_A_TURN]
            yield Piece(part, first > 0)


def catalogue(*, is_gateway: bool = False) -> list[Entry]:
    """Return every metric a server, or a gateway, exposes, in the order of the page."""
    return Metrics(is_gateway=is_gateway).catalogue + [Entry(*row) for row in PROCESS_METRICS]


def document() -> str:
    """Return docs/metrics.md, made from the metrics themselves."""
    lines = [
        "# Metrics",
        "",
        "Made from `server/metrics.py` by `python3 -m server.metrics > docs/metrics.md`; a test keeps it in step and",
        "compares it with what `/metrics` exposes.",
        "",
        "`GET /metrics` answers in Prometheus' text format, or in OpenMetrics for a client that accepts it. Times are",
        "in seconds. A histogram `x` is exposed as `x_bucket`, `x_sum` and `x_count`.",
        "",
        *_table(catalogue()),
        "",
        "## Gateways",
        "",
        "`arena gateway` shows those of sockets, subscriptions, narrowings, frames, requests, process, and its own:",
        "",
        *_table([entry for entry in catalogue(is_gateway=True) if entry.name.startswith(PREFIX + "gateway_")]),
        "",
    ]
    return "\n".join(lines)


def _table(entries: Sequence[Entry]) -> list[str]:
    rows = ["| metric | type | labels | meaning |", "|---|---|---|---|"]
    for entry in entries:
        labels = " ".join(f"`{label}`" for label in entry.labels)
        rows.append(f"| `{entry.name}` | {entry.kind} | {labels} | {entry.text} |")
    return rows


if __name__ == "__main__":
    sys.stdout.write(document())
