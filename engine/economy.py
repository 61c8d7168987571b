"""Economy: a world one can submit actions to, advance, hash, copy and restore.

    actions -> advance() -> TickReport

The engine has no clock and no hidden generator: the world is a pure function of (config, seed, actions).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine import invariants, tick
from engine.actions import rebuild_index
from engine.calibration import calibrate, refresh
from engine.commands import Command, configured, strikes
from engine.config import Config
from engine.events import TickReport
from engine.kernels import copy_at_once
from engine.messages import ACTION
from engine.phases.behaviour import rebuild_histogram
from engine.phases.indicators import capture
from engine.rng import seed_bytes
from engine.state import Parallel, State, hash_arrays, new_state, persistent, serial, state_hash

WARM_UP_TICKS = 3_000
"""Ticks the calibrated start needs to settle (ECONOMY A16); a live world begins after them."""
WARM_UP_SEED = 0
"""Everybody's warm-up uses this public seed; the live world's own seed takes over afterwards."""
NO_ACTIONS = np.zeros(0, ACTION)
CHECK_EVERY = 24
"""Ticks between two checks of the invariants in production: a simulated day."""


def _ignore(name: str) -> None:
    """Observe nothing."""


class Economy:
    """A world: its state, its config and its seed.

    seed: 32 bytes or a whole number. threads, parallel: how many ranges the resident kernels are cut into and who
    runs them; results do not depend on either. checks: ticks between two checks of the invariants, 0 = never.
    start: (tick, arrays) as copy_arrays gives them; None begins with the calibrated start, tick -1.
    """

    def __init__(
        self,
        config: Config,
        seed: int | bytes,
        *,
        threads: int = 1,
        parallel: Parallel = serial,
        checks: int = CHECK_EVERY,
        start: tuple[int, list[tuple[str, NDArray[Any]]]] | None = None,
    ) -> None:
        self.config = config
        self.seed = seed_bytes(seed)
        self.checks = checks
        self.state: State = new_state(config, threads, parallel)
        if start is None:
            calibrate(self.state, config, self.seed)
        else:
            self.restore(*start)

    @property
    def tick(self) -> int:
        """The last completed tick; -1 at the calibrated start."""
        return self.state.tick

    def advance(
        self,
        actions: NDArray[np.void] = NO_ACTIONS,
        observe: Callable[[str], None] = _ignore,
        commands: Sequence[Command] = (),
    ) -> TickReport:
        """Run one tick under actions (dtype ACTION, by arrival) and return what it reports.

        commands: take effect before them. Raises InvariantBroken when money or goods do not add up: the world must not
        tick on.
        """
        self.run(actions, observe, commands)
        return self.report()

    def run(
        self,
        actions: NDArray[np.void] = NO_ACTIONS,
        observe: Callable[[str], None] = _ignore,
        commands: Sequence[Command] = (),
    ) -> None:
        """Run one tick as advance does and report nothing: what is public takes a twentieth of a tick to copy."""
        state = self.state
        if commands:
            self.configure(configured(self.config, commands))
        tick.advance(state, self.config, self.seed, actions, observe, strikes(commands))
        if self.checks and (state.tick + 1) % self.checks == 0:
            invariants.check(state, self.config)

    def configure(self, config: Config) -> None:
        """Go on under other settings, between two ticks; the sizes of FIXED must be what they were."""
        is_window_new = config.max_price_change != self.config.max_price_change
        self.config = config
        if is_window_new:
            # the orders that stand ready for the next auction were put into the old window
            rebuild_histogram(self.state, config)

    def report(self) -> TickReport:
        """Return the report of the last completed tick."""
        state = self.state
        public = capture(state, self.config)
        return TickReport(state.tick, state.outcomes, state.updates, tuple(state.events), public, state.fired)

    def state_hash(self) -> bytes:
        """Return the 16-byte hash of the world after the last tick."""
        return state_hash(self.state)

    def copy_arrays(self) -> tuple[int, list[tuple[str, NDArray[Any]]]]:
        """Return the tick and a copy of the persistent arrays: what hash_copy and restore take."""
        arrays = list(persistent(self.state))
        copies = [np.empty_like(array) for _, array in arrays]
        copy_at_once((copy, array) for copy, (_, array) in zip(copies, arrays, strict=True))
        return self.state.tick, [(name, copy) for copy, (name, _) in zip(copies, arrays, strict=True)]

    def restore(self, at_tick: int, arrays: list[tuple[str, NDArray[Any]]]) -> None:
        """Put a copy of the persistent arrays back and rebuild what follows from them.

        Raises ValueError when an array is missing or has another type or size than this release's.
        """
        put_back(self.state, at_tick, arrays)
        refresh(self.state, self.config)
        rebuild_index(self.state)
        rebuild_histogram(self.state, self.config)


def hash_copy(at_tick: int, arrays: list[tuple[str, NDArray[Any]]]) -> bytes:
    """Return the state hash of a copy made by Economy.copy_arrays; safe in another thread."""
    return hash_arrays(at_tick, iter(arrays))


def warmed_up(config: Config, *, threads: int = 1, parallel: Parallel = serial) -> Economy:
    """Return the world every live world of this config begins with: calibrated, then WARM_UP_TICKS ticks alone."""
    economy = Economy(config, WARM_UP_SEED, threads=threads, parallel=parallel)
    for _ in range(WARM_UP_TICKS):
        economy.advance()
    return economy


def put_back(state: State, at_tick: int, arrays: list[tuple[str, NDArray[Any]]]) -> None:
    """Write persistent arrays into a state of the same sizes; arrays of agents and orders may be shorter."""
    names = [name for name, _ in persistent(state)]
    if names != [name for name, _ in arrays]:
        raise ValueError("the arrays are not those of this release's state")
    for name, array in arrays:
        target = getattr(state, name)
        if array.dtype != target.dtype or array.shape[1:] != target.shape[1:] or len(array) > len(target):
            raise ValueError(f"{name}: {array.dtype}{array.shape} does not fit {target.dtype}{target.shape}")
        target[: len(array)] = array
        # reading costs no memory where nothing was ever written, writing zeros would: 130 MB of unused slots
        if (rest := target[len(array) :]).any():
            rest[...] = 0
    state.tick = at_tick
