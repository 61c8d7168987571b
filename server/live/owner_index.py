"""Whose an agent is or was, by its number, in arrays: a few bytes an agent, and many questions at once."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from engine.agent_index import find, find_values, insert, insert_all, remove, table_size

Ints = NDArray[np.int64]

_SIZE_MIN = 1_024


class OwnerIndex:
    """Owners of agents by number, for many questions at once. It grows as agents come."""

    def __init__(self) -> None:
        self._numbers = self._owners = np.zeros(0, np.int64)
        self._free: list[int] = []
        self._grow(_SIZE_MIN)

    def _grow(self, capacity: int) -> None:
        """Make room for more; nothing is free."""
        count = len(self._numbers)
        self._numbers, self._owners = _longer(self._numbers, capacity), _longer(self._owners, capacity)
        self._table: NDArray[np.int32] = np.zeros(table_size(capacity), np.int32)
        insert_all(self._table, self._numbers, count)
        self._free = list(range(capacity - 1, count - 1, -1))

    def add(self, number: int, owner: int) -> None:
        """Take in an agent that is not there."""
        if not self._free:
            self._grow(2 * len(self._numbers))
        slot = self._free.pop()
        self._numbers[slot], self._owners[slot] = number, owner
        insert(self._table, self._numbers, slot)

    def remove(self, number: int) -> None:
        """Let go of an agent that is there."""
        slot = find(self._table, self._numbers, number)
        remove(self._table, self._numbers, number)
        self._free.append(slot)

    def of(self, numbers: Ints) -> Ints:
        """Return whose agents these are, 0 for those that are nobody's."""
        owners = np.empty(len(numbers), np.int64)
        find_values(self._table, self._numbers, self._owners, numbers, owners)
        return owners


class LeftAgents:
    """Agents that have left, with their owners, in the order in which they did: the first are forgotten first.

    One takes 32 to 80 B, as objects of Python it took 220. At 60 a second 250,000 of them are kept.
    """

    def __init__(self) -> None:
        # a ring: its length is a power of two
        self._ticks = self._numbers = self._owners = np.zeros(0, np.int64)
        self._first, self._count = 0, 0
        self._grow(_SIZE_MIN)

    def __len__(self) -> int:
        return self._count

    def _grow(self, capacity: int) -> None:
        """Make room for more, those that are there in front."""
        order = self._order()
        self._ticks, self._numbers, self._owners = (
            _longer(column[order], capacity) for column in (self._ticks, self._numbers, self._owners)
        )
        self._first = 0
        self._table: NDArray[np.int32] = np.zeros(table_size(capacity), np.int32)
        insert_all(self._table, self._numbers, self._count)

    def _order(self) -> Ints:
        """Return where they stand, the first one first."""
        return (self._first + np.arange(self._count)) & (len(self._ticks) - 1)

    def add(self, tick: int, number: int, owner: int) -> None:
        """Take in an agent that has left, no earlier than any before."""
        if self._count == len(self._ticks):
            self._grow(2 * self._count)
        slot = (self._first + self._count) & (len(self._ticks) - 1)
        self._ticks[slot], self._numbers[slot], self._owners[slot] = tick, number, owner
        insert(self._table, self._numbers, slot)
        self._count += 1

    def forget_before(self, tick: int) -> None:
        """Forget those that left before a tick."""
        while self._count and self._ticks[self._first] < tick:
            remove(self._table, self._numbers, int(self._numbers[self._first]))
            self._first = (self._first + 1) & (len(self._ticks) - 1)
            self._count -= 1

    def owner_of(self, number: int) -> int | None:
        """Return whose agent it was; None for one that is not among them."""
        slot = find(self._table, self._numbers, number)
        return None if slot < 0 else int(self._owners[slot])

    def rows(self) -> Ints:
        """Return tick, number and owner of each, shape (n, 3), the first one first."""
        order = self._order()
        return np.stack([self._ticks[order], self._numbers[order], self._owners[order]], axis=1)


def warm() -> None:
    """Load or compile the kernels of the look-ups."""
    owners = OwnerIndex()
    owners.add(1, 1)
    owners.of(np.array([1]))
    owners.remove(1)


def _longer(column: Ints, capacity: int) -> Ints:
    """Return a column with zeros behind it."""
    longer = np.zeros(capacity, np.int64)
    longer[: len(column)] = column
    return longer
