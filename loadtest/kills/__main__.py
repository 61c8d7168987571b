"""Kill real servers under load and prove that nothing acknowledged is lost, doubled, renumbered or contradicted.

    python -m loadtest.kills --kills 1000 --power-cuts 300 --drains 200 --out loadtest/results/kills.json

Prints one JSON object and leaves 1 when a promise was broken. With --append the run is added to those the file has, so
that a long one may be done in parts, also several at a time: --seed tells them apart.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
from pathlib import Path

from loadtest.parts import keep
from server import kernel_cache
from server.provenance import revision, this_machine


def main() -> int:
    """Read the command line, run, print."""
    parser = argparse.ArgumentParser(
        prog="python -m loadtest.kills", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=20, help="servers ended by kill -9")
    parser.add_argument("--power-cuts", type=int, default=6, help="servers ended by a simulated power cut")
    parser.add_argument("--drains", type=int, default=4, help="servers ended by SIGTERM")
    parser.add_argument("--twins", type=int, default=100, help="recoveries that are done again beside, and compared")
    parser.add_argument("--seed", type=int, default=1, help="of the moments and of what the clients want")
    parser.add_argument("--folder", type=Path, default=None, help="where the world lies; default: a temporary folder")
    parser.add_argument("--out", type=Path, help="write the result to this file")
    parser.add_argument("--append", action="store_true", help="add it to what that file has, instead of replacing it")
    given = parser.parse_args()
    # before any kernel is imported
    kernel_cache.choose()
    from loadtest.kills.driver import Driver
    from server import logs

    # recoveries beside the servers' own say what they find; only what is wrong is of interest here
    logs.configure("json", "error")
    in_memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=in_memory if in_memory.is_dir() else None) as scratch:
        driver = Driver(given.folder or Path(scratch), given.seed)
        ends = ["kill"] * given.kills + ["power"] * given.power_cuts + ["drain"] * given.drains
        result = asyncio.run(driver.run(ends, given.twins))
    part = {"seed": str(given.seed), **result, "revision": revision(), "machine": this_machine()}
    sys.stdout.write(json.dumps(part, indent=1) + "\n")
    if given.out is not None:
        keep(given.out, part, append=given.append)
    return 0 if result["holds"] else 1


if __name__ == "__main__":
    sys.exit(main())
