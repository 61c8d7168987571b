"""The resident memory of a process with one world in it.

    python -m loadtest.headless.memory 1000000

Prints {"rss_mb": ..., "peak_mb": ...} after a day of ticks; 2 000 residents show what every process needs.
"""

from __future__ import annotations

import json
import subprocess
import sys

from server import kernel_cache

TICKS = 24


def of_world(residents: int) -> dict[str, float]:
    """Return the memory of a fresh process with a world of so many residents, MB (1e6 B): now and at most."""
    command = [sys.executable, "-m", "loadtest.headless.memory", str(residents)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    answer: dict[str, float] = json.loads(done.stdout)
    return answer


def main() -> None:
    """Build a world of the size named on the command line, let it tick for a day, print the memory."""
    kernel_cache.choose()
    from engine.config import Config
    from engine.economy import Economy
    from server.bench_ticks import memory_mb

    economy = Economy(Config(residents=int(sys.argv[1])), 1)
    for _ in range(TICKS):
        economy.advance()
    now, peak = memory_mb()
    sys.stdout.write(json.dumps({"rss_mb": round(now, 1), "peak_mb": round(peak, 1)}) + "\n")


if __name__ == "__main__":
    main()
