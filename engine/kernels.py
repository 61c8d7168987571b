"""How the kernels are compiled that work on many arrays at once.

Without numba's runtime an array is only borrowed: passing it on or slicing it costs no atomic reference counts. With
them an action of an outside agent took 1 600 ns instead of 180, and a tick of 100,000 residents 0.2 ms more. Such a
kernel cannot allocate, so scratch comes in as arguments.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from numba import njit

F = TypeVar("F", bound=Callable[..., Any])


def kernel(function: F) -> F:
    """Compile a function and keep its machine code on disk."""
    options: dict[str, Any] = {"cache": True, "nogil": True, "error_model": "numpy", "_nrt": False}
    compiled: F = njit(**options)(function)
    return compiled
