"""A process that makes servers: each is forked from one that has the code and the kernels loaded, and serves at once.

    python -m loadtest.kills.victim

Reads one JSON line a server: {"flags": [...], "cut": folder or null, "seed": n}; prints "pid N", later "exit N S" with
the status, negative for a signal. With "cut" the server's files lie on a simulated disk: SIGUSR1 writes to that folder
what a power cut at this moment would leave, and ends the process.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

from server import kernel_cache


def main() -> None:
    """Load everything, then fork."""
    kernel_cache.choose()

    _load_everything()
    # blocked before a server is forked: its end may be wished for before it has done anything
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
    _say("loaded")
    for line in sys.stdin:
        order = json.loads(line)
        child = os.fork()
        if not child:
            os._exit(_serve(order))
        _say(f"pid {child}")
        threading.Thread(target=_bury, args=(child,), daemon=True).start()


def _load_everything() -> None:
    """Load what a server would load by itself when it starts: a fork has it, and starts in half the time."""
    from engine.config import Config
    from engine.economy import Economy
    from server import app, config
    from server.live import columnar

    app.warm_kernels()
    columnar.load()
    small = Config(residents=2_000, max_agents=16, order_book_max=1_024)
    # a start from a snapshot has kernels of its own
    Economy(small, 0, start=Economy(small, 0).copy_arrays())
    settings = config.Settings(operator=False)
    app.server_config(app.create_app(settings), settings).load()


def _serve(order: dict[str, Any]) -> int:
    from loadtest.simulation.disk import Behaviour, Disk, Operation
    from server import app, config

    settings = config.load(order["flags"], {})
    if order["cut"] is None:
        return app.serve(settings)
    draw = random.Random(order["seed"])

    def delay(operation: Operation) -> float:
        # as an ordinary disk: a sync takes a millisecond or two, now and then much longer
        return draw.expovariate(1 / (0.03 if draw.random() < 0.05 else 0.0015)) if operation.name == "sync" else 0.0

    disk = Disk(settings.data, Behaviour(delay=delay, sleep=time.sleep))

    def wait_for_the_cut() -> None:
        signal.sigwait({signal.SIGUSR1})
        disk.cut(random.Random(order["seed"]), Path(order["cut"]))
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=wait_for_the_cut, daemon=True).start()
    with disk.mounted():
        return app.serve(settings)


def _bury(child: int) -> None:
    _, status = os.waitpid(child, 0)
    _say(f"exit {child} {os.waitstatus_to_exitcode(status)}")


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
