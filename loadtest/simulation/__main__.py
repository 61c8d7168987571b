"""Many runs of the simulation, one after another; prints one JSON object and leaves 1 when one failed.

    python -m loadtest.simulation --seeds 100 --minutes 10

With --append they are added to those that the file of --out has, so that many seeds may be run in parts.
"""

from __future__ import annotations

import argparse
import errno
import io
import json
import sys
import time
from collections import Counter
from itertools import product
from pathlib import Path

from loadtest.parts import keep
from server import kernel_cache
from server.provenance import revision, this_machine

DISK_SEED = 133
"""Its short life has agents, orders and snapshots."""


def main() -> int:
    """Read the command line, run the seeds, print."""
    given = _arguments()
    # before any kernel is imported
    kernel_cache.choose()
    from loadtest.simulation.run import Failed, fail_everywhere, run_seed
    from server import logs

    logs.configure("json", "error", io.StringIO())
    began = time.monotonic()
    total: Counter[str] = Counter()
    ends: Counter[str] = Counter()
    failed: list[str] = []
    for seed in range(given.first, given.first + given.seeds):
        try:
            summary = run_seed(seed, given.minutes)
        except Failed as error:
            failed.append(str(error))
            sys.stderr.write(f"{error}\n")
            continue
        ends += summary.ends
        for name in ("seconds", "lives", "ticks", "steps", "acknowledged", "twins"):
            total[name] += getattr(summary, name)
        if given.verbose:
            sys.stderr.write(f"{summary}\n")
    failing = 0
    if given.disk_failures:
        try:
            for error_number, is_lasting in product((errno.EIO, errno.ENOSPC), (False, True)):
                failing += fail_everywhere(DISK_SEED, error_number, is_lasting=is_lasting)
        except Failed as error:
            failed.append(str(error))
    part = {
        "holds": not failed,
        "seeds": given.seeds,
        "first": str(given.first),
        "simulated_minutes": round(total["seconds"] / 60),
        **{name: total[name] for name in ("lives", "ticks", "steps", "acknowledged", "twins")},
        "ends": dict(sorted(ends.items())),
        "disk_operations_failed": failing,
        "failed": failed,
        "took_s": round(time.monotonic() - began),
        "revision": revision(),
        "machine": this_machine(),
    }
    sys.stdout.write(json.dumps(part, indent=1) + "\n")
    if given.out is not None:
        keep(given.out, part, append=given.append)
    return 1 if failed else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m loadtest.simulation", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=20, help="how many runs")
    parser.add_argument("--first", type=int, default=1, help="the first seed; the others follow it")
    parser.add_argument("--minutes", type=float, default=5.0, help="virtual minutes of each run")
    parser.add_argument(
        "--disk-failures", action="store_true", help="let each operation of a disk fail in turn as well"
    )
    parser.add_argument("--out", type=Path, help="write the result to this file")
    parser.add_argument("--append", action="store_true", help="add it to what that file has, instead of replacing it")
    parser.add_argument("--verbose", action="store_true", help="say what each run did")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
