"""The micro-benchmark of layouts: same results in all of them, arrays faster and smaller."""

from __future__ import annotations

import pytest

from loadtest.micro import bench_layout


def test_arrays_win_in_time_and_bytes() -> None:
    """The objects are as small as objects can be, and still take ten times the time and bytes."""
    result = bench_layout.measure(5_000, 3)

    arrays, objects, tables = (result["layouts"][name] for name in ("arrays", "objects", "dictionaries"))
    assert arrays["bytes_per_resident"] == pytest.approx(10.0, abs=0.5)
    for other in (objects, tables):
        assert other["ns_per_resident"] > 10 * arrays["ns_per_resident"]
        assert other["bytes_per_resident"] > 10 * arrays["bytes_per_resident"]


def test_the_layouts_are_held_to_the_same_result(monkeypatch: pytest.MonkeyPatch) -> None:
    """A baseline that computes something else is no baseline."""
    monkeypatch.setattr(bench_layout, "_drift_objects", lambda minds, noise: None)

    with pytest.raises(AssertionError):
        bench_layout.measure(2_000, 1)
