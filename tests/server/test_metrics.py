"""Metrics: the catalogue page is what is exposed, and what a tick reports is counted."""

from __future__ import annotations

import asyncio
import gc
import os
import re
import resource
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
from prometheus_client import CollectorRegistry, Histogram
from prometheus_client.exposition import choose_encoder
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text
from prometheus_client.process_collector import ProcessCollector

from engine.events import DISCOVERY, Event, PublicState, TickReport
from engine.markets import HOURS, MARKETS, NAMES, RESOURCES
from engine.messages import ORDER_UPDATE, OUTCOME, Kind, Status
from engine.public import INDICATOR_FIELDS, MARKET_FIELDS, MONETARY_FIELDS, PSYCHOLOGY_FIELDS, RESOURCE_FIELDS
from server import metrics as metrics_module
from server.live.ticker import CHECKED_RESIDENTS_MAX
from server.metrics import _TIMES_S, SAMPLES_A_TURN, Metrics, ProcessFigures, catalogue, document, open_files

ROOT = Path(__file__).resolve().parents[2]


def public_state() -> PublicState:
    """Return public values where each is its place in the catalogue: market 3 has price 3 credits, and so on."""
    return PublicState(
        5,
        {field.name: np.arange(MARKETS) * 1_000_000.0 for field in MARKET_FIELDS},
        {field.name: np.arange(RESOURCES) * 0.5 for field in RESOURCE_FIELDS},
        {field.name: float(i) for i, field in enumerate(PSYCHOLOGY_FIELDS)},
        {field.name: float(i) for i, field in enumerate(MONETARY_FIELDS)},
        {field.name: float(i) for i, field in enumerate(INDICATOR_FIELDS)},
    )


def report(outcomes: list[tuple[int, Kind, Status]], events: tuple[Event, ...] = ()) -> TickReport:
    """Return the report of a tick with (agent, kind, status) outcomes."""
    rows = np.zeros(len(outcomes), OUTCOME)
    for row, (agent, kind, status) in zip(rows, outcomes, strict=True):
        row["agent_id"], row["kind"], row["status"] = agent, kind, status
    return TickReport(5, rows, np.zeros(0, ORDER_UPDATE), events, public_state())


def test_the_page_says_what_the_code_says() -> None:
    """docs/metrics.md is what server/metrics.py makes."""
    assert (ROOT / "docs/metrics.md").read_text(encoding="utf-8") == document()


def test_what_is_said_of_the_checks_of_money_and_goods_names_where_they_get_rarer() -> None:
    """It is the limit of the ticker, and the day between two checks."""
    (said,) = [line for line in document().splitlines() if "`arena_conservation_checks_total`" in line]

    assert f"one a simulated day ({HOURS} ticks) above {CHECKED_RESIDENTS_MAX:,} residents" in said


async def test_the_catalogue_is_what_is_exposed() -> None:
    """Names, types and meanings on the page are those of /metrics, none more and none less."""
    body, _ = await Metrics().expose(None)

    exposed = {
        (m.name.removesuffix("_total") + ("_total" if m.type == "counter" else ""), m.type)
        for m in parse_text(body.decode())
    }

    assert exposed == {(entry.name, entry.kind) for entry in catalogue()}


async def test_labels_are_those_of_the_catalogue() -> None:
    """Whatever is counted carries exactly the labels the page names."""
    metrics = Metrics()
    metrics.observe_report(report([(1, Kind.LIMIT, Status.FILLED)], (Event(DISCOVERY, 1, 5, "resource_discovered"),)))
    metrics.http_requests.add("GET", "/api/info", "200")
    labels = {entry.name: set(entry.labels) for entry in catalogue()}

    body, _ = await metrics.expose(None)

    seen = {
        (re.sub("_(bucket|sum|count)$", "", sample.name), frozenset(set(sample.labels) - {"le"}))
        for family in parse_text(body.decode())
        for sample in family.samples
    }
    assert {name: labels.get(name) for name, _ in seen} == {name: set(found) for name, found in seen}


async def test_both_formats_are_served() -> None:
    """A plain client gets Prometheus' text, one that accepts OpenMetrics gets that."""
    metrics = Metrics()
    metrics.ticks.inc(3)

    text, text_type = await metrics.expose(None)
    opened, opened_type = await metrics.expose("application/openmetrics-text; version=1.0.0")

    assert text_type.startswith("text/plain")
    assert opened_type.startswith("application/openmetrics-text")
    for families in (parse_text(text.decode()), parse_openmetrics(opened.decode())):
        assert [f.samples[0].value for f in families if f.name == "arena_ticks"] == [3.0]


@pytest.mark.parametrize("accept", [None, "application/openmetrics-text; version=1.0.0"])
async def test_a_page_is_of_one_moment_and_lets_others_have_turns(accept: str | None) -> None:
    """What is counted while a page is written is on the next one; a large family in pieces reads as a whole one."""
    metrics = Metrics()
    metrics.ticks.inc(3)
    for i in range(SAMPLES_A_TURN):
        metrics.http_seconds.add(f"/api/{i}", 0.01)
    encode, _ = choose_encoder(accept or "")
    whole = encode(metrics.registry)
    writing, turns = asyncio.create_task(metrics.expose(accept)), 0
    await asyncio.sleep(0)

    while not writing.done():
        metrics.ticks.inc()
        turns += 1
        await asyncio.sleep(0)
    body, _ = writing.result()

    assert turns > len(whole.splitlines()) / (2 * SAMPLES_A_TURN)
    assert _without_process(body) == _without_process(whole)


def _without_process(page: bytes) -> list[str]:
    """Return the lines of a page without the figures of the process, which go on."""
    return [line for line in page.decode().splitlines() if not re.match(r"(process|python)_", line)]


@pytest.mark.parametrize("is_counted", [True, False])
def test_figures_of_the_process_are_those_of_its_library(monkeypatch: pytest.MonkeyPatch, is_counted: bool) -> None:
    """Whether the system counts open files or has them listed."""
    if not is_counted:
        monkeypatch.setattr(metrics_module, "open_files", lambda: 0)
    ours, library = (
        {family.name: family for family in kind(CollectorRegistry()).collect()}
        for kind in (ProcessFigures, lambda registry: ProcessCollector(registry=registry))
    )

    assert {name: family.type for name, family in ours.items()} == {
        name: family.type for name, family in library.items()
    }
    # memory and time go on, and to list the files takes one
    slack = {"process_cpu_seconds": 0.2, "process_open_fds": 1.0, "process_start_time_seconds": 0.02}
    for name, family in ours.items():
        value, theirs = family.samples[0].value, library[name].samples[0].value
        assert value == pytest.approx(theirs, rel=0.05 if "memory" in name else 0.0, abs=slack.get(name, 0.0)), name


@pytest.mark.parametrize("stat", ["cpu 1\n", None], ids=["no time in it", "not to be read"])
def test_a_system_that_does_not_say_when_it_was_started_has_its_figures(
    monkeypatch: pytest.MonkeyPatch, stat: str | None
) -> None:
    """As a service that sees its own processes only: the library is asked, and says what it can."""

    def read(path: Path, *arguments: object) -> str:
        if stat is None:
            raise PermissionError(path)
        return stat

    monkeypatch.setattr(Path, "read_text", read)
    figures = ProcessFigures(CollectorRegistry())

    assert {family.name for family in figures.collect()} >= {"process_open_fds"}


def test_a_process_without_a_descriptor_left_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """What can be had without one is on the page: how many are open, and may be."""
    figures = ProcessFigures(CollectorRegistry())
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (1, hard))
        values = {family.name: family.samples[0].value for family in figures.collect()}
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

    assert values == {"process_open_fds": open_files(), "process_max_fds": 1.0}


def test_open_files_are_counted() -> None:
    """Without listing them."""
    gc.collect()
    before = len(os.listdir("/proc/self/fd")) - 1
    assert open_files() == before
    with ExitStack() as stack:
        for _ in range(100):
            stack.enter_context(open(os.devnull, "rb"))

        assert open_files() == before + 100


def test_outcomes_activity_and_events_are_counted() -> None:
    """A report adds its outcomes by kind and status, its agents' activity and its events."""
    metrics = Metrics()

    metrics.observe_report(
        report(
            [
                (1, Kind.LIMIT, Status.FILLED),
                (1, Kind.LIMIT, Status.FILLED),
                (2, Kind.LIMIT, Status.RESTING),
                (2, Kind.BORROW, Status.DONE),
            ],
            (Event(DISCOVERY, 1, 5, "resource_discovered", {}),),
        )
    )

    read = metrics.registry.get_sample_value
    assert read("arena_actions_total", {"kind": "limit", "outcome": "filled"}) == 2
    assert read("arena_actions_total", {"kind": "limit", "outcome": "resting"}) == 1
    assert read("arena_actions_total", {"kind": "borrow", "outcome": "done"}) == 1
    assert read("arena_agents_active") == 2
    assert read("arena_agent_actions_sum") == 4
    assert read("arena_world_events_total", {"name": "resource_discovered"}) == 1


def test_a_tick_without_actions_has_no_active_agent() -> None:
    """The number of active agents is that of the last tick, not the highest so far."""
    metrics = Metrics()

    metrics.observe_report(report([(1, Kind.LIMIT, Status.FILLED)]))
    metrics.observe_report(report([]))

    assert metrics.registry.get_sample_value("arena_agents_active") == 0


async def test_economic_gauges_carry_the_public_values() -> None:
    """Prices come in credits, everything else as published, and only once asked."""
    metrics = Metrics()
    metrics.observe_view(public_state())

    await metrics.expose(None)

    read = metrics.registry.get_sample_value
    assert read("arena_market_price", {"market": NAMES[3]}) == pytest.approx(3.0)
    assert read("arena_resource_scarcity", {"resource": NAMES[7]}) == pytest.approx(3.0)
    places = {field.name: float(i) for i, field in enumerate(INDICATOR_FIELDS)}
    assert read("arena_unemployment") == places["unemployment"]
    assert read("arena_money_supply") == pytest.approx(places["money_supply"] / 1_000_000)


def test_times_in_plain_numbers_are_the_histogram_prometheus_would_keep() -> None:
    """The same buckets, bounds included, the same sum and count."""
    metrics, plain = Metrics(), Histogram("arena_http_seconds", "", ("route",), registry=None, buckets=_TIMES_S)
    for seconds in (0.0, 0.0004, 0.0005, 0.00051, 0.02, 5.0, 7.0):
        metrics.http_seconds.add("/x", seconds)
        plain.labels("/x").observe(seconds)

    [ours], [theirs] = metrics.http_seconds.collect(), plain.collect()

    assert [sample for sample in ours.samples if not sample.name.endswith("_created")] == [
        sample for sample in theirs.samples if not sample.name.endswith("_created")
    ]


def test_two_servers_in_one_process_do_not_meet() -> None:
    """Each Metrics has a registry of its own."""
    one, other = Metrics(), Metrics()

    one.ticks.inc()

    assert other.registry.get_sample_value("arena_ticks_total") == 0


def test_every_metric_is_measured_somewhere() -> None:
    """No metric is only declared: each one is set or counted by a part of the server, or filled when asked."""
    sources = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "server").rglob("*.py"))
    names = [entry.name.removeprefix("arena_").removesuffix("_total") for entry in Metrics().catalogue]
    assert [name for name in names if len(re.findall(rf"(?:self|metrics)\.{name}\b", sources)) < 2] == []


def test_the_activity_of_all_agents_of_a_tick_is_a_histogram() -> None:
    """Each agent that acted counts once, in the bucket of its number of actions; 17 are more than any bound."""
    metrics = Metrics()
    acts = {1: 1, 2: 1, 3: 2, 4: 5, 5: 17}

    rows = [(agent, Kind.LIMIT, Status.FILLED) for agent, count in acts.items() for _ in range(count)]
    metrics.observe_report(report(rows))
    metrics.observe_report(report(rows[:1]))

    read = metrics.registry.get_sample_value
    buckets = [read("arena_agent_actions_bucket", {"le": le}) for le in ("1.0", "2.0", "4.0", "8.0", "16.0", "+Inf")]
    assert buckets == [3, 4, 4, 5, 5, 6]
    assert read("arena_agent_actions_count") == 6
    assert read("arena_agent_actions_sum") == 27
