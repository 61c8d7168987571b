"""A peer's conversation with the bench: how many steps to make, how long they took, what was traded."""

from __future__ import annotations

import argparse
import gc
import json
import sys
import time
from collections.abc import Callable, Mapping
from typing import Protocol

TRIAL_STEPS = 3


class Market(Protocol):
    """What every idiom of a peer is."""

    price: float
    volume: int

    def step(self) -> None:
        """Let every agent feel and order, clear the market once."""


def serve(idioms: Mapping[str, Callable[[int], Market]]) -> None:
    """Try each idiom, keep the fastest, and answer a line `steps` with a line {"cpu_s": ..., ...} until the input ends.

    Times are CPU time of the whole process, all threads of a library included.
    """
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--agents", type=int, required=True)
    given = parser.parse_args()
    trials = {name: _trial(build, given.agents) for name, build in idioms.items()}
    best = min(trials, key=lambda name: trials[name])
    market = idioms[best](given.agents)
    market.step()
    # as on the other side: what lives is out of the collector's sight, and it runs between blocks of steps only
    gc.collect()
    gc.freeze()
    gc.disable()
    _say({"idiom": best, "trials_s": trials, "python": sys.version.split()[0]})
    for line in sys.stdin:
        cpu_s, traded = _run(market, int(line))
        _say({"cpu_s": cpu_s, "traded": traded, "price": market.price})
        gc.collect(0)


def _trial(build: Callable[[int], Market], agents: int) -> float:
    """Return the CPU seconds of a step of a fresh market, the first step left out."""
    market = build(agents)
    market.step()
    return _run(market, TRIAL_STEPS)[0] / TRIAL_STEPS


def _run(market: Market, steps: int) -> tuple[float, int]:
    traded = 0
    started = time.process_time()
    for _ in range(steps):
        market.step()
        traded += market.volume
    return time.process_time() - started, traded


def _say(document: dict[str, object]) -> None:
    sys.stdout.write(json.dumps(document) + "\n")
    sys.stdout.flush()
