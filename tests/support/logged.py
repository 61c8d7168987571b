"""Everything that is logged meanwhile, as the lines of a log for machines."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import structlog

from server import logs


class Log:
    """What was logged so far."""

    def __init__(self) -> None:
        self.out = io.StringIO()

    def lines(self, level: str) -> dict[str, dict[str, Any]]:
        """Return the last line of each event that was logged at a level."""
        lines = [json.loads(text) for text in self.out.getvalue().splitlines()]
        return {line["event"]: line for line in lines if line["level"] == level}


@contextmanager
def logged(level: str = "debug") -> Iterator[Log]:
    """Log as JSON into memory inside the block."""
    with logging_restored():
        log = Log()
        logs.configure("json", level, log.out)
        yield log


@contextmanager
def logging_restored() -> Iterator[None]:
    """Give the process its logging back after the block."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    try:
        yield
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
        logging.getLogger("uvicorn.access").disabled = False
        for name in ("uvicorn", "uvicorn.error"):
            logging.getLogger(name).setLevel(logging.NOTSET)
        structlog.reset_defaults()
