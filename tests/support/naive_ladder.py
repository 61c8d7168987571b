"""The price ladder in decimal arithmetic: slow, and plainly what the specification says."""

from __future__ import annotations

from decimal import ROUND_HALF_EVEN, Context, Decimal

from engine.ladder import LEVELS


def naive_prices() -> list[int]:
    """Return round_half_even(10^4 x 1.0001^j) for every level j, computed to 40 decimal digits."""
    context = Context(prec=40)
    value, ratio, one = Decimal(10_000), Decimal("1.0001"), Decimal(1)
    found = []
    for _ in range(LEVELS):
        found.append(int(value.quantize(one, rounding=ROUND_HALF_EVEN, context=context)))
        value = context.multiply(value, ratio)
    return found
