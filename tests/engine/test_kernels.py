"""What kernels share: whole numbers, and hints to the processor that change nothing."""

import numpy as np
import pytest

from engine.kernels import Straight, copy_at_once, kernel, prefetch, whole
from engine.messages import ACTION


@kernel
def sum_with_hints(values: np.ndarray) -> int:
    """Return the sum, telling the processor about the next but three."""
    total = 0
    for i in range(len(values)):
        prefetch(values, np.uintp(min(i + 3, len(values) - 1)))
        total += values[i]
    return total


@kernel
def hint_at_row(rows: np.ndarray, row: int) -> int:
    """Name a row that holds several fields and return one of them."""
    prefetch(rows, np.uintp(row))
    return int(rows[row]["seq"])


@pytest.mark.parametrize("dtype", [np.int32, np.int64])
def test_hints_change_nothing(dtype: type) -> None:
    """A kernel that names what it needs ahead returns what it would without, and leaves the array alone."""
    values = np.arange(100, dtype=dtype)

    assert sum_with_hints(values) == 4_950

    assert values.tolist() == list(range(100))


def test_rows_of_several_fields_can_be_named() -> None:
    """The index counts rows, whatever their size."""
    rows = np.zeros(3, ACTION)
    rows["seq"] = 5, 6, 7

    assert [hint_at_row(rows, row) for row in range(3)] == [5, 6, 7]


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int32, np.int64])
def test_numbers_of_any_width_are_whole(dtype: type) -> None:
    """The result counts on where the narrow number ends."""
    assert whole(dtype(100)) + 100 == 200


@kernel
def sum_of(values: np.ndarray) -> int:
    """Return the sum."""
    total = 0
    for i in range(len(values)):
        total += values[i]
    return total


def test_a_kernel_called_straight_returns_what_it_does() -> None:
    """The first call looks at the types, the others do not: the same numbers come out."""
    straight = Straight(sum_of)

    assert [straight(np.arange(count)) for count in (3, 5, 0)] == [3, 10, 0]


def test_a_kernel_compiled_for_other_types_is_not_called_straight() -> None:
    """Which of its builds fits is looked up in every call."""
    straight = Straight(sum_with_hints)
    sum_with_hints(np.arange(2, dtype=np.int32))

    assert [straight(np.arange(3, dtype=dtype)) for dtype in (np.int64, np.int32)] == [3, 3]


def test_arrays_are_copied_at_once() -> None:
    """Of any type and shape, each into its own place; none is as good as some."""
    rows = np.zeros(3, ACTION)
    rows["seq"] = 5, 6, 7
    sources = [np.arange(1_000), np.arange(24, dtype=np.int16).reshape(4, 6), rows, np.zeros((0, 3)), np.ones(1)]
    targets = [np.empty_like(source) for source in sources]

    copy_at_once(zip(targets, sources, strict=True))

    for target, source in zip(targets, sources, strict=True):
        assert np.array_equal(target, source)
    copy_at_once([])


def test_what_lies_beside_a_copy_stays() -> None:
    """A copy into the middle of an array ends where its source ends."""
    target = np.zeros(10, np.int32)

    copy_at_once([(target[3:7], np.arange(1, 9, dtype=np.int32)[:4])])

    assert target.tolist() == [0, 0, 0, 1, 2, 3, 4, 0, 0, 0]
