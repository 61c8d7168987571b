"""Rows of `arena bench` against other libraries: resident updates a second, side by side in one sitting.

A peer runs in a process and an environment of its own, made on first use from its hashed requirements; its blocks of
steps and ours take turns. Both sides are timed by CPU time, one thread each. Source: DESIGN section 5.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import venv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from engine.config import Config
from engine.economy import Economy
from server.bench_row import ROOT, Row

PEERS = ROOT / "loadtest" / "peers"
ENVIRONMENT = ROOT / ".venv-peers"
"""Folders of environments begin so."""
LOCK = PEERS / "requirements.lock"
STREAMS_LOCK = PEERS / "streams.lock"
PACKAGE = "loadtest.peers"
RESIDENTS = 100_000
SEED = 1
WARM_UP_TICKS = 500
BLOCK_TICKS = 50
#: Row: module in loadtest.peers, library, bar, steps in a block.
ROWS: dict[str, tuple[str, str, float, int]] = {
    "vs_mesa": ("mesa_market", "mesa", 150.0, 2),
    "vs_mesa_frames": ("mesa_frames_market", "mesa-frames", 4.0, 40),
}


def peer_rows(ids: list[str], quick: bool, say: Callable[[str], None]) -> list[Row]:
    """Measure this engine against each library named by ids. say: is told when an environment is made."""
    python = environment(say, LOCK)
    economy = Economy(Config(residents=RESIDENTS), SEED)
    for _ in range(WARM_UP_TICKS):
        economy.advance()
    return [_measure(name, python, economy, 5 if quick else 20) for name in ids]


def environment(say: Callable[[str], None], lock: Path) -> Path:
    """Return the Python of an environment with what lock names, made when it is missing or the lock has changed.

    Raises OSError when the source tree or the packages are not there.
    """
    if not lock.is_file():
        raise OSError("rows beside other libraries need the source tree: run `python3 -m server bench` in a clone")
    folder = ENVIRONMENT if lock == LOCK else ENVIRONMENT.with_name(f"{ENVIRONMENT.name}-{lock.stem}")
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    if not _holds(folder, lock):
        say(f"making {folder.relative_to(ROOT)} with the libraries to compare with (once) ...")
        venv.create(folder, with_pip=True, clear=True)
        _install(python, folder, lock)
    return python


def add_library(python: Path, folder: Path, lock: Path, say: Callable[[str], None]) -> Path:
    """Install what a lock names into a folder of its own, unless it is there, and return the folder.

    For libraries that want other versions than their neighbours. Raises OSError when it cannot be installed.
    """
    if not _holds(folder, lock):
        say(f"installing {lock.stem} into {folder.relative_to(ROOT)} ...")
        folder.mkdir(parents=True, exist_ok=True)
        _install(python, folder, lock, "--upgrade", "--target", str(folder))
    return folder


def _holds(folder: Path, lock: Path) -> bool:
    marker = folder / "installed.lock"
    return marker.is_file() and marker.read_bytes() == lock.read_bytes()


def _install(python: Path, folder: Path, lock: Path, *options: str) -> None:
    command = [str(python), "-m", "pip", "install", "--quiet", "--require-hashes", *options, "-r", str(lock)]
    done = subprocess.run(command, stderr=subprocess.PIPE, text=True, check=False)
    if done.returncode != 0:
        raise OSError(f"{' '.join(command)} ended with {done.returncode}:\n{done.stderr.strip()}")
    (folder / "installed.lock").write_bytes(lock.read_bytes())


def _measure(name: str, python: Path, economy: Economy, rounds: int) -> Row:
    module, library, bar, steps = ROWS[name]
    ours: list[float] = []
    theirs: list[float] = []
    with Peer(python, module, RESIDENTS) as peer:
        about = peer.read()
        for _ in range(rounds):
            ours.append(_block_ns(economy))
            answer = peer.run(steps)
            assert answer["traded"] > 0, f"{library}: its market trades nothing"
            theirs.append(answer["cpu_s"] * 1e9 / (steps * RESIDENTS))
    ratios = np.array(theirs) / np.array(ours)
    trials = ", ".join(f"{idiom} {seconds * 1e9 / RESIDENTS:.0f}" for idiom, seconds in about["trials_s"].items())
    return Row(
        id=name,
        value=round(float(np.median(theirs) / np.median(ours)), 2),
        unit=f"x the resident updates a second of {library}",
        bar=bar,
        at_least=True,
        spread=f"{ratios.min():.2f} to {ratios.max():.2f} over {rounds} pairs of blocks",
        includes=f"{RESIDENTS} residents with everything a tick does, {np.median(ours):.1f} ns each and tick, against"
        f" {RESIDENTS} agents with three moods and one order in one market, {np.median(theirs):.1f} ns each and step,"
        f" in {library} {_version(python, library)}; idiom '{about['idiom']}', the fastest of (ns): {trials}; CPU"
        " time of one thread each",
        excludes="building either world; plots and data collection",
    )


def _block_ns(economy: Economy) -> float:
    """Return the CPU time of a resident and tick, nanoseconds, over a block of ticks."""
    economy.advance()
    started = time.thread_time_ns()
    for _ in range(BLOCK_TICKS):
        economy.advance()
    return (time.thread_time_ns() - started) / (BLOCK_TICKS * economy.config.residents)


class Peer:
    """A peer's program while it runs: see loadtest.peers.serving."""

    def __init__(self, python: Path, module: str, agents: int) -> None:
        self._module = module
        self._process = subprocess.Popen(
            [str(python), "-m", f"{PACKAGE}.{module}", "--agents", str(agents)],
            cwd=ROOT,
            env={**_clean_environment(), **dict.fromkeys(_THREADS, "1")},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> Peer:
        """Use it until the block ends."""
        return self

    def __exit__(self, *_: object) -> None:
        """End the process and wait for it."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()

    def run(self, steps: int) -> dict[str, Any]:
        """Let it make so many steps and return what it says of them."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{steps}\n")
        self._process.stdin.flush()
        return self.read()

    def read(self) -> dict[str, Any]:
        """Return its next line. Raises OSError when it has ended."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise OSError(f"{self._module} ended with {self._process.wait()}")
        answer: dict[str, Any] = json.loads(line)
        return answer


_THREADS = ("POLARS_MAX_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def _clean_environment() -> dict[str, str]:
    """Return the environment without what would let the peer import from ours."""
    return {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}


def _version(python: Path, library: str) -> str:
    program = f"from importlib.metadata import version; print(version({library!r}))"
    done = subprocess.run([str(python), "-c", program], capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else f"(unknown version, Python {sys.version.split()[0]})"
