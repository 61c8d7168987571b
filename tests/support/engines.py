"""Another engine version in this process: it says so everywhere, and its results differ."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from engine.phases import emission

MORE = 60.0
"""How much likelier finds are in the other engine: within a few ticks every world is another one."""


@contextmanager
def engine_version(version: int) -> Iterator[None]:
    """Let everything that is loaded be of an engine version whose world has many more discoveries."""
    happens = emission.discovery_happens
    with pytest.MonkeyPatch.context() as patch:
        for name, module in list(sys.modules.items()):
            if name.startswith(("engine", "server")) and hasattr(module, "ENGINE_VERSION"):
                patch.setattr(module, "ENGINE_VERSION", version)
        patch.setattr(emission, "discovery_happens", lambda seed, probability: happens(seed, MORE * probability))
        yield
