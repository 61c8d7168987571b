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


def run(out: Path, *command: str) -> tuple[int, str, dict[str, Any]]:
    """Run a load test and return its status, what it told and its result."""
    done = python("-m", *command, "--out", str(out), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    said = done.communicate(timeout=seconds(200))[1]
    return done.returncode, said, json.loads(out.read_text()) if out.exists() else {}


@pytest.mark.timeout(300)
def test_too_much_is_refused_in_order(tmp_path: Path) -> None:
    """Three times the agents and sockets there is room for, and the like: refusals, no error, everything goes on."""
    status, said, result = run(tmp_path / "stress.json", "loadtest.stress", *SMALL)

    assert status == 0, said
    assert set(result["phases"][0]["answers"]) == {"201", "409"}
    assert len(result["phases"]) == 5


@pytest.mark.timeout(300)
def test_who_has_left_leaves_nothing(tmp_path: Path) -> None:
    """A few seconds of coming and going: nobody is left over. What memory does is for the long form to say."""
    with ServerProcess(tmp_path / "world", *SMALL) as server:
        server.wait_ready(seconds(200))
        options = ("--url", server.url, "--minutes", "0.1", "--bar", "memory_mb_per_minute=1000000")
        status, said, result = run(tmp_path / "leak.json", "loadtest.leak", *options)
        server.stop()

    assert status == 0, said
    assert result["left_over"] == {"agents": 0, "sockets": 0}
    assert result["counts"]["subscribers"] > 0
