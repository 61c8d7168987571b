"""A server that notices within 4 s who has stopped reading, and cuts 6 s later.

python -m tests.support.impatient serve [OPTION ...]
"""

from __future__ import annotations

import sys

from server import cli
from server.live import subscriber

if __name__ == "__main__":
    subscriber.PING_INTERVAL_S, subscriber.STUCK_AFTER_S, subscriber.CUT_AFTER_S = 1.0, 3.0, 9.0  # type: ignore[misc]
    sys.exit(cli.main(sys.argv[1:]))
