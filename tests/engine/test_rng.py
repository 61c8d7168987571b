"""Draws are a pure function of seed, tick, stream and index, and look random."""

from __future__ import annotations

import hashlib
import os
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from numba import njit

from engine import rng
from engine.rng import STREAMS, draw, key, mix32, normal, normal_units, seed_bytes, sub_stream, tick_keys
from tests.support.deadlines import seconds
from tests.support.naive_behaviour import mix32 as naive_mix32

ROOT = Path(__file__).resolve().parents[2]


@njit
def draws(count: int, k0: np.uint32, k1: np.uint32, out: np.ndarray) -> None:
    """Write the draws of the indices 0 .. count - 1."""
    for i in range(count):
        out[i] = draw(i, k0, k1)


def compiled(count: int, k0: int, k1: int) -> np.ndarray:
    """Return the draws of the indices 0 .. count - 1 under a key."""
    out = np.zeros(count, np.uint32)
    draws(count, np.uint32(k0), np.uint32(k1), out)
    return out


def naive(count: int, k0: int, k1: int) -> list[int]:
    """Return the same in plain Python (ECONOMY A4)."""
    return [naive_mix32(naive_mix32(i * 0x9E3779B9 + k0) ^ k1) for i in range(count)]


def test_mix32_is_the_murmur3_finaliser() -> None:
    """The vector of the specification, and the fixed point 0."""
    assert mix32(1) == 0x514E28B7
    assert mix32(0) == 0


@pytest.mark.parametrize("keys", [(0, 0), (1, 2), (2**32 - 1, 2**32 - 1), (0x9E3779B9, 0x80000000)])
def test_draws_wrap_as_the_specification_says(keys: tuple[int, int]) -> None:
    """Compiled draws equal plain Python modulo 2^32, at keys whose sums wrap."""
    assert compiled(2_000, *keys).tolist() == naive(2_000, *keys)


def test_draws_interpreted_equal_draws_compiled_without_a_warning() -> None:
    """NUMBA_DISABLE_JIT=1 gives the same numbers; wrap-around is no overflow there."""
    code = (
        "import sys, numpy as np; from engine.rng import draw, normal_units\n"
        "h = [draw(i, np.uint32(2**32 - 5), np.uint32(77)) for i in range(50)]\n"
        "sys.stdout.write(' '.join(f'{int(x)} {int(normal_units(x))}' for x in h))"
    )

    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        cwd=ROOT,
        env={**os.environ, "NUMBA_DISABLE_JIT": "1"},
        capture_output=True,
        text=True,
        timeout=seconds(60),
        check=True,
    )

    expected = [(int(h), sum(int(h).to_bytes(4, "little")) - 510) for h in compiled(50, 2**32 - 5, 77)]
    assert done.stdout == " ".join(f"{h} {units}" for h, units in expected)


def test_sub_streams_add_to_the_first_key_word() -> None:
    """Sub-stream +k is another key, and wraps."""
    assert sub_stream(np.uint32(5), 77) == 82
    assert sub_stream(np.uint32(2**32 - 1), 3) == 2


def test_keys_are_the_first_eight_bytes_of_the_hash() -> None:
    """BLAKE2b-128 over seed, tick and stream, little-endian."""
    seed = seed_bytes(5)

    digest = hashlib.blake2b(seed + (9).to_bytes(8, "little") + (40).to_bytes(8, "little"), digest_size=16).digest()

    assert key(seed, 9, 40) == struct.unpack("<II", digest[:8])


def test_tick_keys_hold_every_stream_in_order() -> None:
    """Row k of the keys belongs to STREAMS[k]."""
    out = np.zeros((len(STREAMS), 2), np.uint32)

    tick_keys(seed_bytes(1), 123, out)

    assert [tuple(row) for row in out.tolist()] == [key(seed_bytes(1), 123, stream) for stream in STREAMS]


def test_keys_differ_between_seeds_ticks_and_streams() -> None:
    """No two (seed, tick, stream) in sight share a key."""
    keys = {key(seed_bytes(s), t, k) for s in range(5) for t in range(50) for k in STREAMS}

    assert len(keys) == 5 * 50 * len(STREAMS)


def test_seed_bytes_are_little_endian_or_given() -> None:
    """A number fills the low bytes; 32 bytes pass unchanged."""
    assert seed_bytes(258) == bytes([2, 1]) + bytes(30)
    assert seed_bytes(bytes(range(32))) == bytes(range(32))


@pytest.mark.parametrize("seed", [-1, 1 << 256, b"short"])
def test_a_seed_that_is_none_is_refused(seed: int | bytes) -> None:
    """Out of range or of another length."""
    with pytest.raises(ValueError, match="a seed"):
        seed_bytes(seed)


def test_draws_are_even_and_independent_of_neighbours() -> None:
    """Every byte value in every byte is about as frequent, and neighbours are not correlated."""
    h = compiled(1 << 17, *key(seed_bytes(3), 1, 1))

    for shift in (0, 8, 16, 24):
        counts = np.bincount((h >> np.uint32(shift)) & np.uint32(255), minlength=256)
        chi2 = float(((counts - 512.0) ** 2 / 512.0).sum())
        assert 160 < chi2 < 370
    uniform = h / 2.0**32
    assert abs(np.corrcoef(uniform[1:], uniform[:-1])[0, 1]) < 0.01


def test_normal_units_have_the_mean_and_spread_of_four_bytes() -> None:
    """Mean 0, sd 147.8, never beyond 510; normal is the same over 147.8."""
    h = compiled(100_000, *key(seed_bytes(3), 2, 1))

    units = np.array([int(normal_units(np.uint32(x))) for x in h[:5_000]])

    assert normal_units(np.uint32(0)) == -510
    assert normal_units(np.uint32(2**32 - 1)) == 510
    assert abs(units.mean()) < 8
    assert abs(units.std() - 147.8) < 5
    assert normal(np.uint32(0)) == -510 / 147.8
    assert STREAMS[0] == rng.STREAM_RESIDENTS
    assert STREAMS[1] == rng.STREAM_MINDS
