"""The bits of the world do not depend on what the processor can do beyond the common base of all."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from engine.economy import Economy
from tests.support.deadlines import seconds
from tests.support.worlds import RandomBots, run, small_config

ROOT = Path(__file__).resolve().parents[2]
TICKS = 30
COMPILE_S = 900.0
"""Every kernel is compiled anew, for another processor."""
CODE = """
import sys
from numba import config
from tests.engine.test_processors import hashes
assert (config.CPU_NAME, config.CPU_FEATURES) == ("generic", "")
sys.stdout.write(" ".join(value.hex() for value in hashes()))
"""


def hashes() -> list[bytes]:
    """Return the hash of each tick of a small world under busy bots."""
    return list(run(Economy(small_config(), 11, checks=1), TICKS, RandomBots(20, 11)))


@pytest.mark.timeout(seconds(COMPILE_S))
def test_a_plain_processor_computes_the_same_world(tmp_path: Path) -> None:
    """Kernels compiled without any extension (vectors, fused multiply-add) give the same hash at every tick."""
    done = subprocess.run(
        [sys.executable, "-c", CODE],
        cwd=ROOT,
        env={**os.environ, "NUMBA_CPU_NAME": "generic", "NUMBA_CACHE_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=seconds(COMPILE_S),
        check=False,
    )

    assert done.returncode == 0, done.stderr[-2_000:]
    assert done.stdout.split() == [value.hex() for value in hashes()]
    assert any(tmp_path.rglob("*.nbc")), "the kernels were compiled here"
