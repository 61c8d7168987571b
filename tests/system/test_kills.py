"""The kill driver, in short: servers ended at random moments under load have kept what they acknowledged."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import orjson
import pytest

from loadtest.kills.driver import Driver
from loadtest.process import environment
from server.live.disk import write_whole
from server.live.journal import segment_paths
from tests.support.deadlines import seconds

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.timeout(400)
async def test_nothing_acknowledged_is_lost_doubled_or_contradicted(tmp_path: Path) -> None:
    """Some kills, some power cuts, some drains, each over the folder of the one before."""
    result = await Driver(tmp_path, 3).run(["kill"] * 5 + ["power"] * 4 + ["drain"] * 3, 4)

    assert result["wrong"] == []
    assert result["holds"]
    assert sum(result["ended"].values()) == 12
    assert result["actions_acknowledged"] > 50
    assert result["documents_compared"] > 0
    assert result["twin_recoveries"] > 0
    assert result["drain_s"]["max"] < seconds(10.0)


@pytest.mark.timeout(400)
async def test_a_server_that_forgets_is_found_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted: after each kill the last acknowledged records are gone, as if they had never been synced."""
    kill = Driver._kill

    async def forgetful(self: Driver, pid: int, cut: Path | None) -> None:
        await kill(self, pid, cut)
        path = segment_paths(self._data)[-1]
        write_whole(path, [path.read_bytes()[: -path.stat().st_size // 3]])

    monkeypatch.setattr(Driver, "_kill", forgetful)

    result: dict[str, Any] = await Driver(tmp_path, 3).run(["kill"] * 3, 0)

    assert not result["holds"]


@pytest.mark.timeout(400)
def test_the_command_prints_what_it_found() -> None:
    """One JSON object, and 0 when everything holds."""
    done = subprocess.run(
        [sys.executable, "-m", "loadtest.kills", "--kills", "1", "--power-cuts", "1", "--drains", "0"],
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        timeout=seconds(300),
        check=False,
    )

    assert done.returncode == 0, done.stderr.decode()[-2_000:]
    result = orjson.loads(done.stdout)
    assert result["holds"]
    assert result["twin_recoveries"] >= 1
