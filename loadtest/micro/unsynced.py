"""The server with syncs of its journal made no-ops: what being durable costs is what the real one takes longer.

    python -m loadtest.micro.unsynced serve --port 9000 --data folder

For benchmarks only: what it acknowledges is lost with the power.
"""

from __future__ import annotations

import sys
from typing import Any

from server import kernel_cache


def _do_nothing(self: Any) -> None:
    """Sync nothing."""


if __name__ == "__main__":
    # before any kernel is imported
    kernel_cache.choose()
    from server.cli import main
    from server.live.journal import DiskFile

    DiskFile.sync = _do_nothing  # type: ignore[method-assign]  # the point of this program
    sys.exit(main())
