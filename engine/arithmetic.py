"""Integer and float arithmetic that gives the same bits on every machine.

No libm: exp, log and power are our own fixed sequences of IEEE + - * / (ECONOMY A1, DESIGN D6).
"""

from __future__ import annotations

import numpy as np
from numba import njit


@njit(cache=True, nogil=True, error_model="numpy")
def muldiv(a: int, b: int, c: int) -> int:
    """Return floor(a * b / c) for 0 <= a, b < 2^63 and 0 < c < 2^63 with a 128-bit product.

    The quotient must fit into 63 bits, which holds whenever a <= c or b <= c.
    """
    if a == 0 or b == 0:
        return 0
    if a < (1 << 31) and b < (1 << 31):
        return (a * b) // c
    if float(a) * float(b) < 9.0e18:
        return (a * b) // c
    return _muldiv_wide(np.uint64(a), np.uint64(b), np.uint64(c))


@njit(cache=True, nogil=True, error_model="numpy")
def _muldiv_wide(a: np.uint64, b: np.uint64, c: np.uint64) -> int:
    low_mask = np.uint64(0xFFFFFFFF)
    half = np.uint64(32)
    a1, a0 = a >> half, a & low_mask
    b1, b0 = b >> half, b & low_mask
    p00, p01, p10, p11 = a0 * b0, a0 * b1, a1 * b0, a1 * b1
    middle = (p00 >> half) + (p01 & low_mask) + (p10 & low_mask)
    high = p11 + (p01 >> half) + (p10 >> half) + (middle >> half)
    low = (middle << half) | (p00 & low_mask)
    one = np.uint64(1)
    top = np.uint64(63)
    remainder = high % c
    quotient = np.uint64(0)
    for _ in range(64):
        # c < 2^63, so the doubled remainder stays below 2^64
        remainder = (remainder << one) | (low >> top)
        low = low << one
        quotient = quotient << one
        if remainder >= c:
            remainder -= c
            quotient |= one
    return int(np.int64(quotient))


@njit(cache=True, nogil=True, error_model="numpy")
def exponential(x: float) -> float:
    """Return (1 + x/4096)^4096 by twelve squarings, x clipped to [-40, 40]. Source: ECONOMY A1."""
    y = 1.0 + min(40.0, max(-40.0, x)) / 4096.0
    for _ in range(12):
        y = y * y
    return y


@njit(cache=True, nogil=True, error_model="numpy")
def logarithm(x: float) -> float:
    """Return the natural logarithm of x > 0, within 1e-14 relative.

    Scales x by powers of two into [0.75, 1.5), then sums the odd series of 2 artanh((x - 1)/(x + 1)).
    """
    power = 0
    while x >= 1.5:
        x = x * 0.5
        power += 1
    while x < 0.75:
        x = x * 2.0
        power -= 1
    t = (x - 1.0) / (x + 1.0)
    square = t * t
    total = 0.0
    for k in range(27, 0, -2):
        total = total * square + 1.0 / k
    return 2.0 * t * total + power * 0.6931471805599453


@njit(cache=True, nogil=True, error_model="numpy")
def power_of(x: float, exponent: float) -> float:
    """Return x ** exponent for x > 0: exponent * ln x is halved until small, its exponential squared back.

    Relative error below 1e-12 for |exponent * ln x| < 40.
    """
    y = exponent * logarithm(x)
    halvings = 0
    while y > 0.125 or y < -0.125:
        y = y * 0.5
        halvings += 1
    total = 1.0
    for k in range(14, 0, -1):
        total = 1.0 + total * y / k
    for _ in range(halvings):
        total = total * total
    return total


@njit(cache=True, nogil=True, error_model="numpy")
def half_even(x: float) -> int:
    """Return x rounded to the nearest integer, halves to the even one, for |x| < 2^52."""
    floor = int(x)
    if floor > x:
        floor -= 1
    rest = x - floor
    if rest > 0.5 or (rest == 0.5 and floor & 1):
        floor += 1
    return floor
