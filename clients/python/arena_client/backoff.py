"""How long to wait before trying again."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Backoff:
    """Exponential back-off with full jitter: a random time between nothing and a bound that doubles.

    Full jitter spreads the clients of a restarted server evenly over the bound, see Brooker, "Exponential Backoff
    And Jitter", AWS Architecture Blog 2015.
    base_s: the bound after the first failure. cap_s: the largest bound.
    """

    base_s: float = 0.25
    cap_s: float = 30.0

    def delay_s(self, failures: int, draw: float) -> float:
        """Return the seconds to wait after `failures` (from 1) failures in a row; draw: uniform in [0, 1)."""
        # beyond 2**40 the bound is the cap anyway, and a float would overflow some day
        return min(self.cap_s, self.base_s * 2.0 ** min(failures - 1, 40)) * draw


def retry_after_s(header: str | None) -> float:
    """Return the seconds of a Retry-After header, 0 when it is missing or a date (which needs a common clock)."""
    if header is None or not header.strip().isascii() or not header.strip().isdigit():
        return 0.0
    return float(header)
