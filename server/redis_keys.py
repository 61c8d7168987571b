"""Every name in Redis or Valkey, in one place. Each carries the epoch: worlds that share a server do not meet.

| name | kind | what |
|---|---|---|
| arena:{epoch}:ticks | pub/sub channel | bundles of live/relay: frames of every tick, signs of life between |
| arena:{epoch}:answer:{path} | string, expires after cache_expiry | the newest answer of a GET of the state |
"""

from __future__ import annotations


def ticks(epoch: str) -> str:
    """Return the channel on which an engine publishes."""
    return f"arena:{epoch}:ticks"


def answer(epoch: str, path: str) -> str:
    """Return the key of the newest answer of a path."""
    return f"arena:{epoch}:answer:{path}"
