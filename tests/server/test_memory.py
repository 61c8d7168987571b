"""What the start needed is given back, and comes back when it is needed again."""

from __future__ import annotations

from numba import njit

from server.memory import give_back
from tests.support.resident import resident_code


def test_the_compiler_goes_and_comes_back() -> None:
    """Its code is resident once it has compiled, no more after giving back, and compiles again."""
    assert njit(lambda x: x + 1)(1) == 2
    before = resident_code()

    give_back()
    after = resident_code()

    assert before > 10_000_000
    assert after < before / 10
    assert njit(lambda x: x + 2)(1) == 3
    assert resident_code() > after
