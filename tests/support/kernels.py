"""Every kernel of a tick compiled, or loaded, once: `python -m tests.support.kernels` has them ready for others."""

from __future__ import annotations

import fcntl

from server import kernel_cache


def warm() -> None:
    """Compile, or load, the kernels. Processes that call it at once do so one after another.

    Otherwise they would compile the same beside each other, and write it over each other: numba's index of a kernel's
    signatures is read, extended and written back without a lock.
    """
    folder = kernel_cache.choose()
    # behind the choice: numba reads the folder's name when it is imported
    from numba import config

    if config.DISABLE_JIT:
        return
    from engine.economy import Economy
    from tests.support.worlds import RandomBots, run, small_config

    with open(folder / "warming.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for _ in run(Economy(small_config(), 0, checks=1), 26, RandomBots(20, 0)):
            pass


if __name__ == "__main__":
    warm()
