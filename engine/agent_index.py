"""From numbers to slots: where an outside agent sits, and which slots belong to an owner.

Two open-addressing tables with linear probing map agent and owner numbers, which are large and sparse, to slots; the
slots of one owner form a ring. All of it is scratch that follows from the persistent arrays. An entry is slot + 1,
so that a table of zeros is an empty one.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from engine.kernels import kernel, short_kernel

Table = NDArray[np.int32]
Numbers = NDArray[np.int64]


def table_size(agents: int) -> int:
    """Return the length of a table for so many agents: a power of two, at most half full."""
    return 1 << max(4, (2 * agents - 1).bit_length())


@kernel
def find(table: Table, numbers: Numbers, number: int) -> int:
    """Return the slot under that number, -1 when there is none. numbers: by slot, true for every slot in the table."""
    return int(table[_position(table, numbers, number)]) - 1


@kernel
def home(table: Table, number: int) -> np.uintp:
    """Return where the look-up of a number begins."""
    return np.uintp(_home(number, len(table) - 1))


@kernel
def guess(table: Table, number: int) -> int:
    """Return the slot that the look-up of a number begins with, -1 for none: mostly the one under that number."""
    return int(table[home(table, number)]) - 1


@kernel
def insert(table: Table, numbers: Numbers, slot: int) -> None:
    """Add a slot under numbers[slot], which is not in the table yet."""
    table[_position(table, numbers, numbers[slot])] = slot + 1


@kernel
def insert_all(table: Table, numbers: Numbers, count: int) -> None:
    """Add the slots before count, none of which is in the table yet."""
    for slot in range(count):
        insert(table, numbers, slot)


@kernel
def remove(table: Table, numbers: Numbers, number: int) -> None:
    """Take out the entry of that number, which is in the table; numbers still holds it."""
    mask = len(table) - 1
    hole = _position(table, numbers, number)
    at = (hole + 1) & mask
    while table[at] != 0:
        home = _home(numbers[table[at] - 1], mask)
        # an entry may move back into the hole unless that would put it before its home
        if ((at - home) & mask) >= ((at - hole) & mask):
            table[hole] = table[at]
            hole = at
        at = (at + 1) & mask
    table[hole] = 0


@short_kernel
def find_values(table: Table, numbers: Numbers, values: Numbers, wanted: Numbers, found: Numbers) -> None:
    """Write for each wanted number the value of its slot, 0 when there is none. values: by slot."""
    for i in range(len(wanted)):
        slot = find(table, numbers, wanted[i])
        found[i] = values[slot] if slot >= 0 else 0


@kernel
def list_slot(table: Table, slot_owner: Numbers, owner_next: Table, slot: int, owner: int) -> None:
    """Put a slot into its owner's ring; it is in no ring yet."""
    first = find(table, slot_owner, owner)
    slot_owner[slot] = owner
    if first < 0:
        owner_next[slot] = slot + 1
        insert(table, slot_owner, slot)
    else:
        owner_next[slot] = owner_next[first]
        owner_next[first] = slot + 1


@kernel
def unlist_slot(table: Table, slot_owner: Numbers, owner_next: Table, slot: int) -> None:
    """Take a slot out of its owner's ring, if it is in one."""
    owner = slot_owner[slot]
    if owner == 0:
        return
    mate = owner_next[slot] - 1
    if mate == slot:
        remove(table, slot_owner, owner)
    else:
        table[_position(table, slot_owner, owner)] = mate + 1
        while owner_next[mate] != slot + 1:
            mate = owner_next[mate] - 1
        owner_next[mate] = owner_next[slot]
    slot_owner[slot] = 0
    owner_next[slot] = 0


@kernel
def _position(table: Table, numbers: Numbers, number: int) -> int:
    """Return where the number's entry is, or the empty place where it would go."""
    mask = len(table) - 1
    at = _home(number, mask)
    while table[at] != 0 and numbers[table[at] - 1] != number:
        at = (at + 1) & mask
    return at


@kernel
def _home(number: int, mask: int) -> int:
    # sixteen numbers in a row share a cache line: agents that joined together act together (2.3 -> 1.0 ns a look-up)
    # a 31-bit fold times a 32-bit odd constant stays in int64, so that the interpreter sees no overflow
    folded = (number ^ (number >> 31)) & 0x7FFFFFFF
    line = (((folded >> 4) * 2654435761) >> 15) & (mask >> 4)
    return (line << 4) | (folded & 15)
