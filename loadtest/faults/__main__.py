"""Streams through faults and restarts: nothing is lost without being noticed, every copy ends equal to the server.

python -m loadtest.faults [--faults 10000] [--restarts 20] [--out loadtest/results/faults.json]
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from pathlib import Path

from loadtest.faults.run import SEED, check, run
from loadtest.verdict import conclude


def main() -> None:
    """Read the command line, run, print, and leave 1 when something did not hold."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--faults", type=int, default=10_000)
    parser.add_argument("--restarts", type=int, default=20)
    parser.add_argument("--clients", type=int, default=40)
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="arena-faults-") as folder:
        result = asyncio.run(run(Path(folder), given.faults, given.restarts, given.clients, given.seed))
    sys.exit(conclude(result, check(result, given.faults, given.restarts), given.out))


if __name__ == "__main__":
    main()
