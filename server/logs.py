"""The one door for log set-up: lines for people on a terminal, or JSON for machines; uvicorn's lines among them.

What may be logged: names of events and plain values. What never is: keys, bodies, addresses of the URL's query.
"""

from __future__ import annotations

import logging
import sys
from contextlib import suppress
from typing import Any, TextIO, cast

import orjson
import structlog

DEBUG = logging.DEBUG
_LEVELS = {"debug": DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
_SHARED: tuple[Any, ...] = (
    structlog.contextvars.merge_contextvars,
    structlog.processors.add_log_level,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
)


def configure(form: str, level: str, stream: TextIO | None = None) -> None:
    """Set up all logging of the process. form: console or json; level: debug, info, warning or error."""
    out = cast(TextIO, _Unfailing(sys.stderr if stream is None else stream))
    least = _LEVELS[level]
    structlog.configure(
        processors=[*_SHARED, *_last_steps(form, out)],
        wrapper_class=structlog.make_filtering_bound_logger(least),
        logger_factory=structlog.PrintLoggerFactory(out),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(out)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*_SHARED[1:], structlog.stdlib.add_logger_name],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *_last_steps(form, out)],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(least)
    # our own lines say what uvicorn's say about requests, and with the request's name
    logging.getLogger("uvicorn.access").disabled = True
    for name in ("uvicorn", "uvicorn.error"):
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True
        # it tells of every WebSocket, which ten thousand reconnects make unreadable; what matters we say ourselves
        logger.setLevel(max(least, logging.WARNING))


class _Unfailing:
    """A stream for log lines; one that cannot be written is lost, and does not end what it tells of.

    A full disk or a closed pipe behind standard error would otherwise raise in the middle of a tick.
    """

    def __init__(self, out: TextIO) -> None:
        self._out = out

    def write(self, text: str) -> None:
        """Write what can be written."""
        # a closed stream raises ValueError
        with suppress(OSError, ValueError):
            self._out.write(text)

    def flush(self) -> None:
        """Flush what can be flushed."""
        with suppress(OSError, ValueError):
            self._out.flush()

    def isatty(self) -> bool:
        """Return whether people read it as it comes."""
        return self._out.isatty()


def _last_steps(form: str, out: TextIO) -> list[Any]:
    # the defaults of both show the local variables of every frame, keys and bodies among them
    if form == "json":
        tracebacks = structlog.processors.ExceptionRenderer(
            structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
        )
        return [tracebacks, structlog.processors.JSONRenderer(serializer=_json)]
    return [structlog.dev.ConsoleRenderer(colors=out.isatty(), exception_formatter=structlog.dev.plain_traceback)]


def _json(line: Any, **_: Any) -> str:
    # whatever a library logs must not break the line it is in
    return orjson.dumps(line, default=repr, option=orjson.OPT_NON_STR_KEYS).decode()
