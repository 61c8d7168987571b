"""Exact products and own transcendental functions, against Python's integers and the mathematics."""

from __future__ import annotations

import math
import sys
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.arithmetic import exponential, half_even, logarithm, muldiv, power_of

WIDE = st.one_of(st.integers(0, 2**63 - 1), st.integers(0, 1_000), st.integers(2**31 - 3, 2**31 + 3))
EPSILON = sys.float_info.epsilon


@given(WIDE, WIDE, WIDE.map(lambda c: c or 1))
def test_muldiv_is_exact(a: int, b: int, c: int) -> None:
    """floor(a b / c) with all 126 bits of the product, whenever the quotient fits."""
    low, high = min(a, c), b

    assert muldiv(low, high, c) == low * high // c
    assert muldiv(high, low, c) == low * high // c


@given(st.integers(0, 2**63 - 1), st.integers(1, 2**63 - 1))
def test_muldiv_by_a_factor_gives_the_other(a: int, b: int) -> None:
    """a b / b = a, and one less just under it."""
    assert muldiv(a, b, b) == a


def test_muldiv_near_the_end_of_the_fast_path() -> None:
    """Products around 2^63 take the wide path in time."""
    a, b = 3_037_000_500, 3_037_000_500  # a b is just above 2^63

    assert muldiv(a, b, a) == b
    assert muldiv(2**62, 3, 3) == 2**62
    assert muldiv(2**63 - 1, 2**63 - 1, 2**63 - 1) == 2**63 - 1


@given(st.floats(-30, 30))
def test_exponential_is_twelve_squarings(x: float) -> None:
    """The defined value, (1 + x/4096)^4096, not libm's."""
    exact = float((1 + Fraction(x) / 4096) ** 4096)

    assert exponential(x) == pytest.approx(exact, rel=4096 * 2 * EPSILON)


def test_exponential_is_clipped_and_one_at_zero() -> None:
    """Nothing beyond 40 either way."""
    assert exponential(0.0) == 1.0
    assert exponential(1e9) == exponential(40.0)
    assert exponential(-1e9) == exponential(-40.0)


@given(st.floats(1e-300, 1e300))
def test_logarithm_is_accurate(x: float) -> None:
    """Within 1e-14 relative of the true value (absolute near one)."""
    assert logarithm(x) == pytest.approx(math.log(x), rel=1e-14, abs=4e-16)


@given(st.floats(1e-3, 1e3), st.floats(-5, 5))
def test_power_is_accurate(x: float, exponent: float) -> None:
    """Within 1e-12 relative."""
    assert power_of(x, exponent) == pytest.approx(x**exponent, rel=1e-12)


@given(st.floats(-(2.0**51), 2.0**51))
def test_half_even_rounds_like_python(x: float) -> None:
    """To the nearest whole number, halves to the even one."""
    assert half_even(x) == round(x)


@given(st.integers(-(10**9), 10**9))
def test_half_even_at_halves(n: int) -> None:
    """Exactly between two whole numbers the even one wins."""
    assert half_even(n + 0.5) == (n if n % 2 == 0 else n + 1)
