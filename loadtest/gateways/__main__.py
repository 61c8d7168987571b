"""Kill engines and gateways at every step, count what was lost, and measure what a gateway costs.

    python -m loadtest.gateways --exchanges 1000 --outages 200 --acks 2000 --frames 500 --out FILE

Each of the four can be run by itself, and in parts: --out keeps what the file has of the others, and with --append of
the same; --seed tells the parts apart. Prints one JSON object. It holds when no part broke a promise and all parts
together have as many trials as above, which are those promised; how many there are so far is told. Leaves 1 when this
run broke a promise. Needs a Valkey or Redis: --redis URL, else valkey-server or redis-server is started here.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from loadtest.gateways.valkey import Valkey
from loadtest.gateways.verdict import ASKED, concluded, told
from loadtest.parts import total
from server import kernel_cache
from server.provenance import revision, this_machine

PARTS = tuple(ASKED)


def main() -> int:
    """Read the command line, run, print."""
    parser = argparse.ArgumentParser(
        prog="python -m loadtest.gateways", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--exchanges", type=int, default=0, help="kills at the steps of an exchange")
    parser.add_argument("--outages", type=int, default=0, help="engines killed under open sockets")
    parser.add_argument("--sockets", type=int, default=200, help="sockets for the outages")
    parser.add_argument("--acks", type=int, default=0, help="acknowledgements each way")
    parser.add_argument("--frames", type=int, default=0, help="ticks that 1,000 subscribers follow each way")
    parser.add_argument("--seed", type=int, default=1, help="of the moments and of what the clients want")
    parser.add_argument("--redis", help="address of a Redis or Valkey")
    parser.add_argument("--out", type=Path, help="write the result to this file")
    parser.add_argument("--append", action="store_true", help="add up with what the file has of the same")
    given = parser.parse_args()
    if not any(getattr(given, part) for part in PARTS):
        parser.error("nothing to do: give --exchanges, --outages, --acks or --frames")
    # before any kernel is imported
    kernel_cache.choose()
    from server import logs

    logs.configure("json", "error")
    with ExitStack() as stack:
        redis = given.redis or stack.enter_context(Valkey()).url
        found = {part: _run(part, given, redis) for part in PARTS if getattr(given, part)}
    whole = _complete(found, given.out, append=given.append)
    text = json.dumps(concluded(whole), indent=1) + "\n"
    sys.stdout.write(text)
    sys.stderr.write(told(whole))
    if given.out is not None:
        given.out.write_text(text, encoding="utf-8")
    return 0 if all(result["holds"] for result in found.values()) else 1


def _run(part: str, given: argparse.Namespace, redis: str) -> dict[str, Any]:
    in_memory = Path("/dev/shm")
    # what is measured is measured on a disk
    where = in_memory if in_memory.is_dir() and part in ("exchanges", "outages") else None
    with tempfile.TemporaryDirectory(dir=where) as scratch:
        return asyncio.run(run(part, given, Path(scratch), redis))


async def run(part: str, given: argparse.Namespace, folder: Path, redis: str) -> dict[str, Any]:
    """Run one part over a folder and return what was found."""
    from loadtest.gateways.acks import Acks
    from loadtest.gateways.exchanges import Exchanges
    from loadtest.gateways.frames import Frames
    from loadtest.gateways.outages import Outages
    from loadtest.gateways.processes import Processes

    processes = Processes(folder, redis)
    await processes.open()
    try:
        match part:
            case "exchanges":
                result = await Exchanges(processes, given.seed).run(given.exchanges)
            case "outages":
                result = await Outages(processes, given.seed).run(given.outages, given.sockets)
            case "acks":
                result = await Acks(processes).run(given.acks)
            case _:
                result = await Frames(processes).run(given.frames)
    finally:
        await processes.close()
    return {**result, "seed": str(given.seed), "revision": revision(), "machine": this_machine()}


def _complete(found: dict[str, Any], out: Path | None, *, append: bool) -> dict[str, Any]:
    """Return by part what was found, added to what a file has of it when asked, and what it has of what was not run."""
    before = json.loads(out.read_text(encoding="utf-8")) if out is not None and out.exists() else {}
    whole = {}
    for part in PARTS:
        if part in found:
            whole[part] = total([*(before.get(part, {}).get("parts", []) if append else []), found[part]])
        elif part in before:
            whole[part] = before[part]
    return whole


if __name__ == "__main__":
    sys.exit(main())
