"""The one door for entropy, and everything about API keys: minted here, hashed at rest, compared in constant time.

The operating system's generator is the only source. A key is shown once, when it is made; what is kept is its
SHA-256, which is enough for 256 random bits (no guess gets faster by knowing the hash).
Source: DESIGN section 4, S2.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Iterator

PREFIX = "ak_"
"""What every API key begins with, so that a leaked one can be recognised."""
KEY_BYTES = 32
KEY_LENGTH = len(PREFIX) + 43
"""Characters of a key: the prefix and 32 bytes as base64url without padding."""


def mint() -> str:
    """Return a new API key: PREFIX and 256 random bits as base64url."""
    return PREFIX + secrets.token_urlsafe(KEY_BYTES)


def digest(key: str) -> bytes:
    """Return what is kept of a key: its 32-byte SHA-256."""
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()


def same(one: bytes, other: bytes) -> bool:
    """Return whether two digests are equal, in a time that does not tell where they differ."""
    return hmac.compare_digest(one, other)


def world_seed() -> bytes:
    """Return 256 secret random bits: the seed of a live world (DESIGN D20)."""
    return secrets.token_bytes(32)


def epoch() -> str:
    """Return 16 random hexadecimal characters: the name of a world's timeline (DESIGN D21)."""
    return secrets.token_hex(8)


def request_id() -> str:
    """Return 16 random hexadecimal characters that name one request."""
    return next(_request_ids)


def _drawn() -> Iterator[str]:
    """Yield names of requests; the operating system is asked for hundreds at a time, which takes as long as for one."""
    while True:
        many = secrets.token_hex(8 * 512)
        for begin in range(0, len(many), 16):
            yield many[begin : begin + 16]


_request_ids = _drawn()


def instance() -> str:
    """Return 16 random hexadecimal characters that name one process."""
    return secrets.token_hex(8)
