"""The published view: the numbers of a mirror, rendered once, never changing."""

from __future__ import annotations

import orjson
import pytest

from engine.economy import Economy
from engine.markets import GOOD_FIRST, GOOD_LAST, INPUTS, MARKETS, NAMES
from engine.public import INDICATOR_FIELDS, MONETARY_FIELDS
from server import documents
from server.live.frames import INFLATION, MARKET_TICK, PSYCHOLOGY, SCARCITY, channel_values
from server.live.view import KIND, Published, View, iso_time, production
from tests.support.published import EPOCH, World
from tests.support.worlds import small_config


@pytest.fixture(scope="module")
def economy() -> Economy:
    """A small world after its first ticks."""
    economy = Economy(small_config(), 1)
    for _ in range(3):
        economy.advance()
    return economy


def test_documents_show_what_a_mirror_of_the_same_tick_shows() -> None:
    """Integer over scale, field by field, for every state channel."""
    view = World().view()
    mirror = {channel: channel_values(channel, state) for channel, state in view.states.items()}

    values = {name: orjson.loads(getattr(view, name)())["values"] for name in ("indicators", "psychology", "monetary")}
    markets = orjson.loads(view.markets())["markets"]
    resources = orjson.loads(view.scarcity())["resources"]

    assert values["psychology"] == mirror[PSYCHOLOGY]
    assert values["indicators"] == {field.name: mirror[INFLATION][field.name] for field in INDICATOR_FIELDS}
    assert values["monetary"] == {field.name: mirror[INFLATION][field.name] for field in MONETARY_FIELDS}
    for name, column in mirror[MARKET_TICK].items():
        assert [row[name] for row in markets] == column
    for name, column in mirror[SCARCITY].items():
        assert [row[name] for row in resources] == column


def test_documents_are_those_of_the_models(economy: Economy) -> None:
    """Every public document fits what OpenAPI says of it."""
    view = View(economy.report(), EPOCH, 0)
    Published(view, economy.state)

    documents.Indicators.model_validate_json(view.indicators())
    documents.Psychology.model_validate_json(view.psychology())
    documents.Monetary.model_validate_json(view.monetary())
    documents.Scarcity.model_validate_json(view.scarcity())
    documents.Markets.model_validate_json(view.markets())
    for m in range(MARKETS):
        documents.Market.model_validate_json(view.market(m))


def test_every_value_has_its_unit() -> None:
    """units names exactly the values."""
    view = World().view()

    for body in (view.indicators(), view.psychology(), view.monetary(), view.market(9)):
        document = orjson.loads(body)
        assert document["units"].keys() == document["values"].keys()


def test_pages_of_markets_cover_them_all_once() -> None:
    """The cursor is the next id; the last page has none."""
    view = World().view()

    pages = [orjson.loads(view.markets(first, 10)) for first in (0, 10, 20, 30)]

    assert [row["name"] for page in pages for row in page["markets"]] == list(NAMES)
    assert [page["next_cursor"] for page in pages] == ["10", "20", "30", None]


def test_a_document_is_rendered_once() -> None:
    """A thousand readers of a tick cost one rendering."""
    view = World().view()

    assert view.indicators() is view.indicators()
    assert view.market(3) is view.market(3)
    assert view.market(3) is not view.market(4)


def test_the_book_has_no_price_where_nobody_stands() -> None:
    """0 on the wire is nobody; in the document that is null."""
    world = World()
    report = world.report()
    report.public.market["best_bid"][5] = 0
    report.public.market["best_ask"][5] = 2_000_000

    book = orjson.loads(View(report, EPOCH, 0).market(5))["book"]

    assert (book["best_bid"], book["best_ask"], book["spread_bp"]) == (None, 2.0, None)


def test_goods_say_what_making_a_lot_takes(economy: Economy) -> None:
    """Exactly the coefficients the world reckons with; other markets have none."""
    coefficients = production(economy.state)

    for m, name in enumerate(NAMES):
        made = coefficients[m]
        if GOOD_FIRST <= m <= GOOD_LAST:
            assert made is not None
            assert (made.first_input, made.second_input) == INPUTS[name]
            assert made.hours_per_lot * 65_536 == economy.state.hours_q16[m]
            assert made.first_per_lot * 65_536 == economy.state.input1_q16[m]
            assert made.second_per_lot * 65_536 == economy.state.input2_q16[m]
        else:
            assert made is None


def test_publishing_replaces_the_view_and_leaves_the_old_one_as_it_was(economy: Economy) -> None:
    """Whoever still answers from the old view is not disturbed."""
    world = World()
    first, second = world.view(), world.view()
    published = Published(first, economy.state)
    before = first.indicators()

    published.publish(second)

    assert published.view is second
    assert first.indicators() is before
    assert second.production[GOOD_FIRST] is not None


def test_kinds_follow_the_list_of_markets() -> None:
    """One of five words for each market."""
    assert len(KIND) == MARKETS
    assert (KIND[0], KIND[1], KIND[8], KIND[24], KIND[31]) == ("labour", "resource", "good", "share", "bond")


def test_times_are_iso_8601_with_milliseconds() -> None:
    """In UTC, with a Z."""
    assert iso_time(1_700_000_000_123_456_789) == "2023-11-14T22:13:20.123Z"
    assert World().view().time.endswith("Z")
