"""The README's programs run as they are printed, against a live server."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from loadtest.process import ServerProcess, python
from tests.support.deadlines import seconds

ROOT = Path(__file__).resolve().parents[2]
ADDRESS = "http://127.0.0.1:8000"
SMALL = ("--residents", "2000", "--max-agents", "64", "--order-book-max", "4096")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """Run a small world in a process of its own."""
    with ServerProcess(tmp_path_factory.mktemp("readme") / "world", *SMALL) as running:
        running.wait_ready(seconds(200))
        yield running


def program(title: str, server: ServerProcess) -> str:
    """Return the Python block under a heading of the README, with the address of the server."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    [block] = re.findall(rf"^## {title}\n.*?```python\n(.*?)```", text, re.MULTILINE | re.DOTALL)
    assert ADDRESS in block
    return block.replace(ADDRESS, server.url)


@pytest.mark.parametrize("title", ["A bot in ten lines", "A subscriber in ten lines"])
def test_it_is_ten_lines(title: str, server: ServerProcess) -> None:
    """Between its imports and the line that runs it, each program has ten lines or fewer."""
    body = [line for line in program(title, server).splitlines() if line.strip()]
    assert len([line for line in body if not line.startswith(("import", "from", "asyncio.run"))]) <= 10


@pytest.mark.timeout(300)
def test_the_bot_trades(server: ServerProcess) -> None:
    """The bot registers, orders, and prints what the world did with its order."""
    done = python("-c", program("A bot in ten lines", server), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    said, errors = done.communicate(timeout=seconds(60))

    assert (done.returncode, errors) == (0, "")
    assert re.fullmatch(r"(filled|partial|resting) \d+ lots; [\d.]+ credits left\n", said)


@pytest.mark.timeout(300)
def test_the_subscriber_prints_tick_after_tick(server: ServerProcess) -> None:
    """The subscriber prints consecutive ticks and has its copy confirmed by checksums."""
    running = python(
        "-u", "-c", program("A subscriber in ten lines", server), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert running.stdout is not None
    try:
        lines = [running.stdout.readline() for _ in range(15)]
    finally:
        running.kill()
        _, errors = running.communicate(timeout=seconds(60))

    found = [re.fullmatch(r"tick (\d+): food ([\d.]+), verified (\d+)\n", line) for line in lines]
    assert all(found), (lines, errors)
    ticks = [int(match[1]) for match in found if match]
    assert ticks == list(range(ticks[0], ticks[0] + 15))
    assert found[-1] is not None
    assert int(found[-1][3]) > ticks[0]
