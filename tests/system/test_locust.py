"""Locust against a live server: the smoke profile passes its thresholds, and one that cannot be met fails it."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from loadtest.locust.profiles import PROFILES, ROUTES
from loadtest.process import ServerProcess, python
from tests.support.deadlines import seconds

SMOKE = PROFILES["smoke"]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """Run a small world in a process of its own."""
    with ServerProcess(tmp_path_factory.mktemp("locust") / "world", *SMOKE.flags) as running:
        running.wait_ready(seconds(200))
        yield running


def run(server: ServerProcess, out: Path, *options: str) -> tuple[int, str, dict[str, Any]]:
    """Run the smoke profile and return status, what was told and the result."""
    command = ("-m", "loadtest.locust", "smoke", "--url", server.url, "--out", str(out), *options)
    done = python(*command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    said = done.communicate(timeout=seconds(90))[1]
    return done.returncode, said, json.loads(out.read_text()) if out.exists() else {}


@pytest.mark.timeout(300)
def test_the_smoke_profile_holds(server: ServerProcess, tmp_path: Path) -> None:
    """Agents act and subscribers follow, nothing fails, and every threshold of the profile is there."""
    status, said, result = run(server, tmp_path / "smoke.json")

    assert (status, result["holds"]) == (0, True), said
    assert set(result["checks"]) == set(SMOKE.at_most) | set(SMOKE.at_least)
    assert result["entries"]["POST /api/agents/register"]["requests"] == SMOKE.agents + SMOKE.readers
    assert result["entries"]["AGENT action"]["requests"] >= SMOKE.agents
    assert sum(name.startswith("READ ") for name in result["entries"]) == len(ROUTES)
    assert 0 < result["entries"]["STREAM market_tick"]["ms_p50"] < 1_000
    assert result["ticks"]["executed"] > 0


@pytest.mark.timeout(300)
def test_a_threshold_that_cannot_be_met_fails_it(server: ServerProcess, tmp_path: Path) -> None:
    """Status 1, and the one that is missed is named; the others hold."""
    status, said, result = run(server, tmp_path / "smoke.json", "--bar", "frames_per_s=100000")

    assert (status, result["holds"]) == (1, False)
    assert "FAIL  frames_per_s" in said
    assert [name for name, check in result["checks"].items() if not check["pass"]] == ["frames_per_s"], said
