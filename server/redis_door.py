"""The one door to Redis or Valkey: how it is connected to, and what it means that it is lost."""

from __future__ import annotations

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

TIMEOUT_S = 1.0
"""For connecting and for each answer: whoever waits longer does without."""
LOST = (RedisError, OSError, TimeoutError)
"""What is raised when it is not there, does not answer in time, or refuses."""


def connect(url: str) -> Redis:
    """Return a client that connects when first used.

    It does not retry by itself: what is late is of no use, and whoever asks knows what to do instead.
    """
    return Redis.from_url(
        url,
        protocol=2,
        socket_timeout=TIMEOUT_S,
        socket_connect_timeout=TIMEOUT_S,
        retry=Retry(NoBackoff(), 0),
        max_connections=64,
    )
