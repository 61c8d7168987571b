"""The short forms of the stress and the leak run: a small world is asked for too much, and left by everybody."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from loadtest.process import ServerProcess, python
from tests.support.deadlines import seconds

SMALL = ("--residents", "2000")
GROWTH_MB_PER_MINUTE = 800
"""In its first seconds a server still fills what it keeps for everybody. The planted leak grows by 2,400."""


def run(out: Path, *command: str) -> tuple[int, str, dict[str, Any]]:
    """Run a load test and return its status, what it told and its result."""
    done = python("-m", *command, "--out", str(out), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    said = done.communicate(timeout=seconds(200))[1]
    return done.returncode, said, json.loads(out.read_text()) if out.exists() else {}


@pytest.mark.timeout(300)
def test_too_much_is_refused_in_order(tmp_path: Path) -> None:
    """Three times the agents and sockets there is room for, and the like: refusals, no error, everything goes on."""
    # a machine that also compiles something must not fail it
    bars = ("--bar", "ticks_on_time_share=0.3", "--bar", "ticks_behind=50")
    status, said, result = run(tmp_path / "stress.json", "loadtest.stress", *SMALL, "--seconds", "3", *bars)

    assert status == 0, said
    assert result["rounds"] >= 2
    assert set(result["phases"][0]["answers"]) == {"201", "409"}
    assert len(result["phases"]) == 5


def watched(folder: Path, module: str) -> tuple[int, str, dict[str, Any]]:
    """Let agents and subscribers of a server of a module come and go for seconds, and watch its memory."""
    with ServerProcess(folder / "world", *SMALL, module=module) as server:
        server.wait_ready(seconds(200))
        options = ("--url", server.url, "--minutes", "0.1", "--bar", f"memory_mb_per_minute={GROWTH_MB_PER_MINUTE}")
        found = run(folder / "leak.json", "loadtest.leak", *options)
        server.stop()
    return found


@pytest.mark.timeout(300)
def test_who_has_left_leaves_nothing(tmp_path: Path) -> None:
    """A few seconds of coming and going: nobody is left over, and memory grows by no more than what fills at first."""
    status, said, result = watched(tmp_path, "server")

    assert status == 0, said
    assert result["left_over"] == {"agents": 0, "sockets": 0}
    assert result["counts"]["subscribers"] > 0


@pytest.mark.timeout(300)
def test_a_leak_is_found_even_in_seconds(tmp_path: Path) -> None:
    """A server that keeps four megabytes with every tick fails for its memory, and for nothing else."""
    status, said, result = watched(tmp_path, "tests.support.leaking")

    assert status == 1, said
    assert [name for name, check in result["checks"].items() if not check["pass"]] == ["memory_mb_per_minute"]
