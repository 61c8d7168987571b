"""What runs the server and watches it: every flag exists, every query asks for a metric and labels there are."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from server.config import load, load_gateway
from server.metrics import catalogue

ROOT = Path(__file__).resolve().parents[1]
DASHBOARD = json.loads((ROOT / "grafana/dashboards/arena.json").read_text())
#: Words of PromQL that look like a name and are none.
FUNCTIONS = {"sum", "by", "rate", "le", "histogram_quantile", "increase", "stddev_over_time", "without", "avg", "max"}
#: Key figures of the specification, each with a metric that a panel must show.
KEY_FIGURES = {
    "agent registration rate": "arena_registrations_total",
    "agent unregistration rate": "arena_unregistrations_total",
    "market tick processing time": "arena_tick_seconds",
    "memory usage": "process_resident_memory_bytes",
    "CPU utilization": "process_cpu_seconds_total",
    "WebSocket connection counts": "arena_sockets",
    "market volatility": "arena_market_volatility",
    "inflation rate stability": "arena_inflation",
    "agent activity distribution": "arena_agent_actions",
    "resource scarcity": "arena_resource_scarcity",
    "psychology extreme events": "arena_panic_markets",
    "sentiment variance": "arena_sentiment_variance",
    "Kyle's lambda": "arena_market_kyle_lambda",
    "anomalies": "arena_anomalies_total",
}


def exposed() -> dict[str, set[str]]:
    """Return the labels of every series by its name: a histogram has three names."""
    names: dict[str, set[str]] = {}
    for entry in catalogue():
        labels = set(entry.labels)
        if entry.kind == "histogram":
            names |= {
                f"{entry.name}_bucket": labels | {"le"},
                f"{entry.name}_sum": labels,
                f"{entry.name}_count": labels,
            }
        else:
            names[entry.name] = labels
    return names


def panels() -> list[dict[str, Any]]:
    """Return the dashboard's panels without the rows between them."""
    return [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]


def asked(expression: str) -> tuple[set[str], set[str]]:
    """Return the metrics and the labels an expression names."""
    labels = {name for group in re.findall(r"by \(([^)]*)\)", expression) for name in re.findall(r"\w+", group)}
    bare = re.sub(r"\[[^\]]*\]", "", re.sub(r"by \([^)]*\)", "", expression))
    return set(re.findall(r"\b[a-z_]{3,}\b", bare)) - FUNCTIONS, labels


@pytest.mark.parametrize("panel", panels(), ids=lambda panel: str(panel["title"]))
def test_every_query_asks_for_what_is_exposed(panel: dict[str, Any]) -> None:
    """Metrics and labels in a panel's queries and legends are those of the catalogue."""
    known = exposed()
    assert panel["targets"]
    for target in panel["targets"]:
        metrics, labels = asked(target["expr"])
        legend = set(re.findall(r"{{(\w+)}}", target["legendFormat"]))
        assert metrics
        assert metrics <= set(known), target["expr"]
        assert labels | legend <= set.union(*(known[name] for name in metrics)), target["expr"]
        # what a sum drops cannot be in its legend
        assert "sum" not in target["expr"] or legend <= labels, target["expr"]


def test_a_wrong_query_would_be_noticed() -> None:
    """The check reads metrics and labels as they are written."""
    assert asked("60 * sum by (result) (rate(arena_registrations_total[1m]))") == (
        {"arena_registrations_total"},
        {"result"},
    )
    assert asked("arena_no_such_metric")[0] - set(exposed()) == {"arena_no_such_metric"}


@pytest.mark.parametrize("figure", list(KEY_FIGURES))
def test_every_key_figure_has_a_panel(figure: str) -> None:
    """Each key figure of the specification is on the dashboard."""
    shown = {name for panel in panels() for target in panel["targets"] for name in asked(target["expr"])[0]}
    assert any(name.startswith(KEY_FIGURES[figure]) for name in shown)


def test_panels_do_not_overlap() -> None:
    """Each panel has its own place on the grid."""
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        cells = {(place["x"] + i, place["y"] + j) for i in range(place["w"]) for j in range(place["h"])}
        assert not cells & taken, panel["title"]
        taken |= cells


def test_panels_use_the_provisioned_source() -> None:
    """The dashboard's data source is the one grafana/provisioning makes."""
    source = (ROOT / "grafana/provisioning/datasources/prometheus.yaml").read_text()
    used = {target["datasource"]["uid"] for panel in panels() for target in panel["targets"]}
    assert [f"uid: {uid}" in source for uid in used] == [True]


def test_the_unit_starts_a_server_with_flags_that_exist() -> None:
    """The systemd unit's command is one the server understands, and its status for damage is not retried."""
    unit = (ROOT / "deploy/arena.service").read_text()
    [command] = re.findall(r"^ExecStart=(.*)$", unit, re.MULTILINE)

    words = shlex.split(command)

    assert words[1:4] == ["-m", "server", "serve"]
    assert load(words[4:], {}).log == "json"
    assert "RestartPreventExitStatus=2 3" in unit


def test_the_gateways_unit_starts_one_with_flags_that_exist() -> None:
    """Its command is one that `arena gateway` understands; the secret comes from the environment alone."""
    unit = (ROOT / "deploy/arena-gateway.service").read_text()
    [command] = re.findall(r"^ExecStart=(.*)$", unit, re.MULTILINE)

    words = shlex.split(command)

    assert words[1:4] == ["-m", "server", "gateway"]
    assert "secret" not in command
    assert load_gateway(words[4:], {"ARENA_GATEWAY_SECRET": "x" * 16}).engine_address == ("127.0.0.1", 8000)


def test_the_image_starts_a_server_with_flags_that_exist() -> None:
    """The image's command is one the server understands, and what it copies is there."""
    text = (ROOT / "deploy/Containerfile").read_text()
    [command] = re.findall(r"^ENTRYPOINT (.*)$", text, re.MULTILINE)
    words = json.loads(command)

    assert words[:2] == ["arena", "serve"]
    assert load(words[2:], {}).port == 8000
    copied = [word for line in re.findall(r"^COPY (.*) \S+$", text, re.MULTILINE) for word in line.split()]
    assert [name for name in copied if not (ROOT / name).exists()] == []
