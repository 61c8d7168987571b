"""The cost curves, measured small; the page and the charts that follow from committed results."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import pytest

from loadtest import pages
from loadtest.chart import Series, chart
from loadtest.headless import cost_curves
from loadtest.headless.memory import of_world

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def curves() -> Any:
    """Return the curves of two small worlds."""
    return cost_curves.measure(quick=True, residents=(2_000, 4_000), agents=3_000)


def test_all_curves_are_measured(curves: Any) -> None:
    """Each size with its phases, which add up to the tick; orders and markets from the fewest on."""
    assert [row["residents"] for row in curves["residents"]] == [2_000, 4_000]
    for row in curves["residents"]:
        assert set(row["phases_ms"]) >= {"intake", "prices", "behaviour", "emission", "report"}
        assert sum(row["phases_ms"].values()) == pytest.approx(row["tick_ms"], rel=0.5)
        assert row["rss_mb"] > row["state_mb"] > 0
    assert [row["orders"] for row in curves["orders"]] == [0, 1_000, 3_000]
    assert curves["orders"][1]["filled_share"] > 0.1
    assert [row["markets"] for row in curves["markets"]] == list(cost_curves.MARKET_COUNTS)
    assert set(curves["fits"]) == {
        "tick_ms_of_residents", "memory_mb_of_residents", "clearing_ms_of_markets", "extra_ms_of_orders",
    }  # fmt: skip


def test_a_synthetic_market_clears_like_the_real_one(curves: Any) -> None:
    """32 synthetic markets find the volumes that the world's own 32 are about to have."""
    economy = cost_curves.Economy(cost_curves.Config(residents=2_000), 1)
    for _ in range(30):
        economy.advance()
    seen: dict[str, Any] = {}
    real = cost_curves.clear_markets

    def clear(auction: Any, *rest: Any) -> None:
        real(auction, *rest)
        seen["volume"] = auction.volume.copy()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cost_curves, "clear_markets", clear)
        cost_curves._clearing(economy, 64)()
    economy.advance()

    assert seen["volume"][:32].tolist() == economy.state.cleared_volume.tolist()
    assert seen["volume"][32:].tolist() == economy.state.cleared_volume.tolist()


def test_what_does_not_grow_is_fitted_too() -> None:
    """Two small worlds may take the same memory: a fixed part, no slope, nothing left over."""
    fit = cost_curves.fitted([{"n": 2, "y": 180.0}, {"n": 4, "y": 180.0}], "n", "y", relative=False)

    assert fit["fixed"] == pytest.approx(180.0)
    assert fit["slope"] == pytest.approx(0.0, abs=1e-9)
    assert fit["r_squared"] == 1.0


def test_a_line_is_found_again() -> None:
    """Values on a line give its numbers, R^2 1 and no error."""
    rows = [{"n": n, "y": 3.0 + 0.5 * n} for n in (10, 100, 1_000)]

    fit = cost_curves.fitted(rows, "n", "y")

    assert (fit["fixed"], fit["slope"]) == (pytest.approx(3.0), pytest.approx(0.5))
    assert (fit["r_squared"], fit["largest_relative_error"]) == (1.0, 0.0)


def test_memory_is_linear_in_residents() -> None:
    """Ten thousand more residents take what their arrays take: twice as many more, twice as much, within a fifth."""
    small, middle, large = (of_world(residents)["rss_mb"] for residents in (400_000, 800_000, 1_600_000))

    assert (large - middle) / (middle - small) == pytest.approx(2.0, rel=0.2)
    assert 40.0 < (large - small) * 1e6 / 1_200_000 < 60.0


def test_the_page_follows_from_the_results() -> None:
    """docs/performance.md and its charts are what the committed results give, to the last byte."""
    for name, text in pages.files().items():
        assert (ROOT / "docs" / name).read_text(encoding="utf-8") == text, f"write {name} again: see pages.py"


def test_rows_of_different_origin_say_so() -> None:
    """Rows measured again on another machine name it; those of one origin say it once."""
    rows = [
        {"id": "a", "revision": "1", "machine": "old"},
        {"id": "b", "revision": "2", "machine": "new"},
        {"id": "c", "revision": "1", "machine": "old"},
    ]

    assert pages._origins(rows, "id") == "- `a`, `c`: revision 1, old.\n- `b`: revision 2, new."
    assert pages._origins(rows[:1] + rows[2:], "id") == "Revision 1, old."


def test_parts_of_different_machines_say_so() -> None:
    """How many runs each machine had, and at which revisions."""
    parts = [
        {"revision": revision, "machine": machine}
        for revision, machine in (("1", "old"), ("2", "old"), ("1", "old"), ("2", "new"))
    ]

    assert pages._parts({"parts": parts}) == "3 runs at revision 1, 2, old; 1 run at revision 2, new."


def test_every_row_of_a_page_has_its_origin() -> None:
    """In what is committed: a page names each revision and machine that its rows come from."""
    files = pages.files()

    for page, result in (("streams.md", "streams"), ("performance.md", "bench"), ("durability.md", "durable")):
        for row in json.loads((ROOT / f"loadtest/results/{result}.json").read_text(encoding="utf-8")):
            [line] = [
                line
                for line in files[page].splitlines()
                if f"revision {row['revision']}, {row['machine']}." in line and f"`{row['id']}`" in line
            ] or [f"Revision {row['revision']}, {row['machine']}."]
            assert line in files[page], row["id"]


def test_the_results_are_whole() -> None:
    """The committed curves go from ten thousand to ten million residents and to 100,000 orders in a tick."""
    curves = json.loads((ROOT / "loadtest/results/cost_curves.json").read_text(encoding="utf-8"))

    assert tuple(row["residents"] for row in curves["residents"]) == cost_curves.RESIDENTS
    assert tuple(row["orders"] for row in curves["orders"]) == cost_curves.ORDERS
    assert tuple(row["markets"] for row in curves["markets"]) == cost_curves.MARKET_COUNTS
    assert curves["fits"]["memory_mb_of_residents"]["r_squared"] > 0.99


def test_a_chart_is_a_document_with_every_point() -> None:
    """Well-formed, a circle per point, the same bytes every time, names that need escaping included."""
    series = [Series("a < b", [(10.0, 1.0), (1_000.0, 50.0)], lambda x: x / 20), Series("c", [(10.0, 0.1)])]

    text = chart("Title", "x", "y", series)

    assert len(ElementTree.fromstring(text).findall("{http://www.w3.org/2000/svg}circle")) == 3
    assert text == chart("Title", "x", "y", series)
