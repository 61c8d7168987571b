"""A server that keeps four megabytes for ever with every tick: the leak that a watch over memory must find.

python -m tests.support.leaking serve [OPTION ...]
"""

from __future__ import annotations

import sys
from typing import Any

from server import cli
from server.live.ticker import Ticker

KEPT_BYTES = 4_000_000
_kept: list[bytes] = []
_publish = Ticker._publish


def _publish_and_keep(self: Ticker, *report: Any) -> None:
    _publish(self, *report)
    # written to, so that it is resident
    _kept.append(b"\1" * KEPT_BYTES)


if __name__ == "__main__":
    Ticker._publish = _publish_and_keep  # type: ignore[method-assign]  # a mistake, made on purpose
    sys.exit(cli.main(sys.argv[1:]))
