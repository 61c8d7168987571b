"""The long run: a headless world with random outside bots, every invariant checked after every tick.

    python -m loadtest.endurance --ticks 100000 --out loadtest/results/endurance.json

It holds when no invariant ever breaks, every market has traded in the last day, and memory does not grow.
Status 1 when one of these fails.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from server import kernel_cache


def main() -> int:
    """Run as the command line says, print the result and return 1 when it does not hold."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ticks", type=int, default=100_000)
    parser.add_argument("--residents", type=int, default=100_000)
    parser.add_argument("--bots", type=int, default=300)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, metavar="FILE", help="also write the result as JSON to this file")
    given = parser.parse_args()
    kernel_cache.choose()
    from loadtest.headless.endurance import run

    result = run(given.residents, given.ticks, given.bots, given.seed)
    text = json.dumps(result, indent=2) + "\n"
    sys.stdout.write(text)
    if given.out:
        given.out.write_text(text, encoding="utf-8")
    return 0 if result["pass"] else 1


if __name__ == "__main__":
    sys.exit(main())
