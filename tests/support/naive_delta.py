"""Packed differences as docs/protocol.md describes them, written a bit at a time with nothing but Python's integers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

State = dict[str, Any]
Link = tuple[str, str, str | None]


def naive_pack(before: State, after: State, links: Sequence[Link] = ()) -> bytes:
    """Return the blocks that turn one state into the other. links: (field, field it is less, field it is plus)."""
    names, old, new = blocks_of(before)[0], blocks_of(before)[1], blocks_of(after)[1]
    plain = [[b - a for a, b in zip(was, now, strict=True)] for was, now in zip(old, new, strict=True)]
    packed = b""
    for i, block in enumerate(plain):
        for field, less, plus in links:
            if names[i] == field:
                others = [names.index(less), 255 if plus is None else names.index(plus)]
                linked = [d - e for d, e in zip(block, plain[others[0]], strict=True)]
                if plus is not None:
                    linked = [d + e for d, e in zip(linked, plain[others[1]], strict=True)]
                if all(abs(d) < 1 << 53 for d in linked):
                    packed += bytes([254, *others])
                    block = linked
        packed += naive_block(block)
    return packed


def naive_block(block: Sequence[int]) -> bytes:
    """Return one block: of all pairs of widths that occur the shortest, of several that with the smallest first."""
    if not any(block):
        return b"\xff"
    widths = [next(w for w in range(60) if -(1 << w >> 1) <= d < max(1, 1 << w >> 1)) for d in block]
    wide = max(widths)
    return min((_written(block, widths, narrow, wide) for narrow in sorted(set(widths))), key=lambda pair: pair[0])[1]


def naive_apply(state: State, delta: dict[str, Any]) -> State:
    """Return the state that a delta leads to, its differences packed or not."""
    if not isinstance(delta["diff"], bytes):
        new = {field: list(value) if isinstance(value, list) else value for field, value in state.items()}
        for field, difference in delta["diff"].items():
            if isinstance(difference, list):
                new[field] = [a + b for a, b in zip(new[field], difference, strict=True)]
            else:
                new[field] += difference
        return new
    packed = list(delta["diff"])
    names, blocks = blocks_of(state)
    found: list[list[int]] = []
    links = []
    for block in blocks:
        narrow = packed.pop(0)
        if narrow == 254:
            links.append((len(found), packed.pop(0), packed.pop(0)))
            narrow = packed.pop(0)
        if narrow == 255:
            found.append([0] * len(block))
            continue
        wide = packed.pop(0)
        flags = "".join(f"{packed.pop(0):08b}"[::-1] for _ in range((len(block) + 7) // 8))
        widths = [wide if flag == "1" else narrow for flag in flags[: len(block)]]
        bits = "".join(f"{packed.pop(0):08b}"[::-1] for _ in range((sum(widths) + 7) // 8))
        found.append([])
        for width in widths:
            found[-1].append(int("0" + bits[:width][::-1], 2) - (1 << width >> 1))
            bits = bits[width:]
    assert not packed
    for i, plus, less in links:
        found[i] = [d + e for d, e in zip(found[i], found[plus], strict=True)]
        if less != 255:
            found[i] = [d - e for d, e in zip(found[i], found[less], strict=True)]
    new = dict(state)
    for name, block, differences in zip(names, blocks, found, strict=True):
        values = [a + b for a, b in zip(block, differences, strict=True)]
        new.update({name: values} if name is not None else zip(_singles(state), values, strict=True))
    return new


def blocks_of(state: State) -> tuple[list[str | None], list[list[int]]]:
    """Return the names and the values of a state's blocks; the single values' has no name."""
    names: list[str | None] = sorted(name for name, value in state.items() if isinstance(value, list))
    blocks = [state[str(name)] for name in names]
    if _singles(state):
        return [None, *names], [[state[name] for name in _singles(state)], *blocks]
    return names, blocks


def _singles(state: State) -> list[str]:
    return sorted(name for name, value in state.items() if not isinstance(value, list))


def _written(block: Sequence[int], widths: Sequence[int], narrow: int, wide: int) -> tuple[int, bytes]:
    flags = "".join("1" if width > narrow else "0" for width in widths)
    bits = ""
    for d, flag in zip(block, flags, strict=True):
        width = wide if flag == "1" else narrow
        bits += f"{d + (1 << width >> 1):0{width}b}"[::-1] if width else ""
    return len(bits), bytes([narrow, wide]) + _bytes(flags) + _bytes(bits)


def _bytes(bits: str) -> bytes:
    return bytes(int(bits[i : i + 8].ljust(8, "0")[::-1], 2) for i in range(0, len(bits), 8))
