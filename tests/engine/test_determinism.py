"""The world is a pure function of config, seed and ordered inputs."""

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from engine.config import Config
from engine.economy import Economy
from engine.state import persistent
from tests.support.worlds import RandomBots, in_threads, run, small_config

GOLDEN = Path(__file__).parents[1] / "vectors" / "golden_hashes.json"
ROOT = Path(__file__).parents[2]


def hashes(ticks: int, *, threads: int = 1, seed: int = 5) -> list[bytes]:
    """Return the hash of each tick of a small world under busy bots."""
    parallel = {"parallel": in_threads(threads)} if threads > 1 else {}
    economy = Economy(small_config(), seed, threads=threads, checks=1, **parallel)
    return list(run(economy, ticks, RandomBots(40, seed)))


def test_one_and_two_threads_give_the_same_hash_at_every_tick() -> None:
    """Threads take ranges of blocks; integer sums make the order irrelevant."""
    assert hashes(150, threads=2) == hashes(150)


def test_three_threads_give_the_same_hash_too() -> None:
    """Nothing is special about two."""
    assert hashes(30, threads=3) == hashes(30)


def test_another_process_gives_the_same_hashes() -> None:
    """Hash randomisation, addresses and caches of another process change nothing."""
    code = (
        "from tests.engine.test_determinism import hashes\n"
        "import sys; sys.stdout.write(' '.join(h.hex() for h in hashes(40)))"
    )

    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={**os.environ, "PYTHONHASHSEED": "77"},
        capture_output=True,
        text=True,
        check=True,
    )

    assert done.stdout.split() == [h.hex() for h in hashes(40)]


def test_other_load_on_the_machine_changes_nothing() -> None:
    """A thread that burns the processor meanwhile changes no bit."""
    calm = hashes(40)
    over = threading.Event()

    def burn() -> None:
        values = np.arange(100_000, dtype=np.float64)
        while not over.is_set():
            values = np.sqrt(values + 1.0)

    threads = [threading.Thread(target=burn) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        loaded = hashes(40, threads=2)
    finally:
        over.set()
        for thread in threads:
            thread.join()

    assert loaded == calm


def test_another_seed_gives_another_world() -> None:
    """The seed is what differs between two worlds of one config."""
    assert hashes(3, seed=6)[-1] != hashes(3, seed=5)[-1]


def test_a_restored_copy_goes_on_like_the_original() -> None:
    """copy_arrays and restore carry everything: no persistent quantity hides in scratch."""
    original = Economy(small_config(), 9)
    bots = RandomBots(30, 1)
    list(run(original, 60, bots))
    copy = Economy(small_config(), 9, start=original.copy_arrays())
    assert copy.state_hash() == original.state_hash()

    for _ in range(60):
        actions = bots.rows(original, 20)
        original.advance(actions)
        copy.advance(actions.copy())
        different = [
            name for (name, a), (_, b) in zip(persistent(original.state), persistent(copy.state), strict=True)
            if not np.array_equal(a, b)
        ]  # fmt: skip
        assert not different, f"tick {original.tick}: {different[0]} differs first"


@pytest.mark.parametrize("name", sorted(json.loads(GOLDEN.read_text())))
def test_golden_hashes(name: str) -> None:
    """Bits of released results never change by accident.

    Changing one is a decision: raise engine.config.ENGINE_VERSION, then run tests/support/make_golden.py.
    """
    golden = json.loads(GOLDEN.read_text())[name]
    economy = Economy(Config(**golden["config"]), golden["seed"])
    found = {}
    last = max(int(tick) for tick in golden["hashes"])

    while economy.tick < last:
        economy.advance()
        if str(economy.tick) in golden["hashes"]:
            found[str(economy.tick)] = economy.state_hash().hex()

    assert found == golden["hashes"]
