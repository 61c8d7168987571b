"""Many runs of the simulation, one after another; prints one JSON object and leaves 1 when one failed.

    python -m loadtest.simulation --seeds 100 --minutes 10
    python -m loadtest.simulation --seeds 0 --disk-failures EIO "EIO from then on"

Each is kept in the file of --out when it is done. With --append the ones it has stay, so that many seeds may be run in
parts, also several at a time.
"""

from __future__ import annotations

import argparse
import errno
import io
import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import product
from pathlib import Path
from typing import Any

from loadtest.parts import keep, total
from server import kernel_cache
from server.provenance import revision, this_machine

DISK_SEED = 133
"""Its short life has agents, orders and snapshots."""
#: How a disk fails: with which error, and whether from then on. One takes 8,000 open files, which dead lives keep.
DISK_FAILURES = {
    f"{errno.errorcode[error]}{' from then on' if is_lasting else ''}": (error, is_lasting)
    for error, is_lasting in product((errno.EIO, errno.ENOSPC), (False, True))
}


def main() -> int:
    """Read the command line, run the seeds, print."""
    given = _arguments()
    # before any kernel is imported
    kernel_cache.choose()
    from loadtest.simulation.run import fail_everywhere, run_seed
    from server import logs

    logs.configure("json", "error", io.StringIO())
    parts: list[dict[str, Any]] = []
    for seed in range(given.first, given.first + given.seeds):
        with _part(str(seed)) as part:
            summary = run_seed(seed, given.minutes)
            part["simulated_minutes"] = round(summary.seconds / 60)
            part |= {name: getattr(summary, name) for name in ("lives", "ticks", "steps", "acknowledged", "twins")}
            part["ends"] = dict(sorted(summary.ends.items()))
            if given.verbose:
                sys.stderr.write(f"{summary}\n")
        parts.append(_done(part, given, is_first=not parts))
    for name in given.disk_failures:
        error, is_lasting = DISK_FAILURES[name]
        with _part(name) as part:
            part["seeds"] = 0
            part["disk_operations_failed"] = fail_everywhere(DISK_SEED, error, is_lasting=is_lasting)
        parts.append(_done(part, given, is_first=not parts))
    whole = total(parts)
    sys.stdout.write(json.dumps(whole, indent=1) + "\n")
    return 0 if whole["holds"] else 1


@contextmanager
def _part(name: str) -> Iterator[dict[str, Any]]:
    """Give a part to be filled by one run, which may fail; it is whole afterwards. name: the seed, or the fault."""
    from loadtest.simulation.run import Failed

    began = time.monotonic()
    part: dict[str, Any] = {"name": name, "holds": True, "seeds": 1, "disk_operations_failed": 0, "failed": []}
    try:
        yield part
    except Failed as error:
        sys.stderr.write(f"{error}\n")
        part |= {"holds": False, "failed": [str(error)]}
    part |= {"took_s": round(time.monotonic() - began), "revision": revision(), "machine": this_machine()}


def _done(part: dict[str, Any], given: argparse.Namespace, *, is_first: bool) -> dict[str, Any]:
    """Keep a part at once: a run of many seeds may be ended at any time."""
    if given.out is not None:
        keep(given.out, part, append=given.append or not is_first)
    return part


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m loadtest.simulation", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=20, help="how many runs")
    parser.add_argument("--first", type=int, default=1, help="the first seed; the others follow it")
    parser.add_argument("--minutes", type=float, default=5.0, help="virtual minutes of each run")
    parser.add_argument(
        "--disk-failures", nargs="+", choices=DISK_FAILURES, default=[], metavar="HOW",
        help="let each operation of a disk fail in turn as well, once or with all that follow:"
        f" {', '.join(map(repr, DISK_FAILURES))}",
    )  # fmt: skip
    parser.add_argument("--out", type=Path, help="write the result to this file")
    parser.add_argument("--append", action="store_true", help="add it to what that file has, instead of replacing it")
    parser.add_argument("--verbose", action="store_true", help="say what each run did")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
