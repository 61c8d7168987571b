"""The differences of two states, packed as delta frames carry them in msgpack.

A state is a row of blocks: its single values together, then each list, in canonical order. A block has two widths in
bits, one for most of its differences and one for the far ones, a flag for each, and the differences without gaps
(docs/protocol.md has every byte; arena_client.wire reads them).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from operator import add, sub
from typing import Final, NamedTuple

import numpy as np
from arena_client import wire
from numpy.typing import NDArray

TOGETHER_MIN: Final = 400
"""Differences in blocks of one length from which numpy packs them together: 60 us whatever their number."""
_UNCHANGED: Final = bytes([wire.UNCHANGED])


class Link(NamedTuple):
    """A field whose differences are sent less those of one other field, and plus those of a second one."""

    field: str
    less: str
    plus: str | None = None


def pack(before: Mapping[str, wire.Value], after: Mapping[str, wire.Value], links: Sequence[Link] = ()) -> bytes:
    """Return what turns one state into another of the same fields and lengths, for wire.apply.

    Values are below 2^52 in magnitude. links: of lists of the same length; no field that has one is named by another.
    A link that would lead to a difference of 2^53 or more is left out.
    """
    fields = sorted(after)
    singles = [field for field in fields if not isinstance(after[field], list)]
    lists = [field for field in fields if isinstance(after[field], list)]
    blocks = [[sub(after[field], before[field]) for field in singles]] if singles else []
    blocks += [list(map(sub, after[field], before[field])) for field in lists]  # type: ignore[arg-type]
    if not links:
        return b"".join(pack_blocks(blocks))
    places = {field: i for i, field in enumerate(lists, len(singles) > 0)}
    heads = [b""] * len(blocks)
    plain = list(blocks)
    for field, *others in links:
        less, plus = (None if other is None else places[other] for other in others)
        assert less is not None
        block = list(map(sub, plain[places[field]], plain[less]))
        if plus is not None:
            block = list(map(add, block, plain[plus]))
        if max(block) <= wire.INTEGER_MAX and min(block) >= -wire.INTEGER_MAX:
            heads[places[field]] = bytes([wire.LINKED, less, wire.NO_BLOCK if plus is None else plus])
            blocks[places[field]] = block
    return b"".join(map(add, heads, pack_blocks(blocks)))


def pack_blocks(blocks: Sequence[Sequence[int]]) -> list[bytes]:
    """Return each block of differences packed. Differences are below 2^53 in magnitude."""
    lengths = set(map(len, blocks))
    if len(lengths) == 1 and len(blocks) * len(blocks[0]) >= TOGETHER_MIN:
        return _packed_together(np.array(blocks, np.int64))
    return [_packed(block) for block in blocks]


def _packed(block: Sequence[int]) -> bytes:
    if not any(block):
        return _UNCHANGED
    widths = [((d if d >= 0 else ~d).bit_length() + 1) if d else 0 for d in block]
    narrow, wide = _narrow(widths), max(widths)
    half_narrow, half_wide = 1 << narrow >> 1, 1 << wide >> 1
    flags = values = place = 0
    for i, d in enumerate(block):
        if widths[i] > narrow:
            flags |= 1 << i
            values |= (d + half_wide) << place
            place += wide
        else:
            values |= (d + half_narrow) << place
            place += narrow
    head = bytes((narrow, wide)) + flags.to_bytes((len(block) + 7) // 8, "little")
    return head + values.to_bytes((place + 7) // 8, "little")


def _narrow(widths: Sequence[int]) -> int:
    """Return the width for most that makes a block shortest: of those that occur the smallest that does."""
    last, wide = len(widths) - 1, max(widths)
    # of equal ones the last counts, the others only seem longer
    return min((width * (i + 1) + wide * (last - i), width) for i, width in enumerate(sorted(widths)))[1]


def _packed_together(blocks: NDArray[np.int64]) -> list[bytes]:
    """Return each row packed, as _packed does. blocks: shape (blocks, length)."""
    changed = np.count_nonzero(blocks, axis=1) > 0
    if not changed.any():
        return [_UNCHANGED] * len(blocks)
    differences = blocks[changed]
    count, length = differences.shape
    needed = _widths(differences)
    wide = needed.max(axis=1)
    narrow = _narrow_together(needed, wide)
    flags = needed > narrow[:, None]
    widths = np.where(flags, wide[:, None], narrow[:, None])
    values = (differences + (np.int64(1) << widths >> 1)).astype("<i8", copy=False)
    depth = -(-int(widths.max()) // 8)
    # every bit there may be, and which of them there are: flags, then values, each filled up to a byte
    places = values.view(np.uint8).reshape(count, length, 8)[:, :, :depth]
    bits = np.zeros((count, -(-length // 8) * 8 + length * depth * 8 + 8), np.uint8)
    bits[:, :length] = flags
    values_at = -(-length // 8) * 8
    bits[:, values_at:-8] = np.unpackbits(places, axis=2, bitorder="little").reshape(count, -1)
    is_there = np.ones(bits.shape, np.bool_)
    is_there[:, values_at:-8] = (np.arange(depth * 8, dtype=np.uint8) < widths[:, :, None].astype(np.uint8)).reshape(
        count, -1
    )
    sizes = widths.sum(axis=1)
    is_there[:, -8:] = np.arange(8) < (-sizes % 8)[:, None]
    data = np.packbits(bits[is_there], bitorder="little").tobytes()
    heads = np.stack((narrow, wide), axis=1).astype(np.uint8).tobytes()
    edges = [0, *np.cumsum(values_at // 8 + (sizes + 7) // 8).tolist()]
    packed = iter([heads[2 * i : 2 * i + 2] + data[edges[i] : edges[i + 1]] for i in range(count)])
    return [next(packed) if is_changed else _UNCHANGED for is_changed in changed.tolist()]


def _widths(differences: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return how many bits each needs: d is in [-2^(w - 1), 2^(w - 1)), 0 needs none."""
    # doubles hold them exactly
    magnitudes = (differences ^ (differences >> 63)).astype(np.float64)
    widths: NDArray[np.int64] = np.frexp(magnitudes)[1].astype(np.int64) + 1
    widths[differences == 0] = 0
    return widths


def _narrow_together(needed: NDArray[np.int64], wide: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return _narrow of each row."""
    rising, places = np.sort(needed, axis=1), np.arange(needed.shape[1])
    shortest = (rising * (places + 1) + wide[:, None] * (places[-1] - places)).argmin(axis=1)
    narrow: NDArray[np.int64] = rising[np.arange(len(rising)), shortest]
    return narrow
