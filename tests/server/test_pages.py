"""The pages: offline, under a strict policy, with the numbers in them before any script ran."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest

from engine.markets import NAMES
from engine.public import INDICATOR_FIELDS
from server import openapi, pages
from server.errors import Code
from server.registry import OPERATIONS
from tests.support.published import World

VIEW = World().view()
FRONT = pages.front(VIEW, "1.2.3")
DOCS = pages.docs(openapi.document("1.2.3"))
#: Elements that have no end tag.
VOID = {"meta", "link", "br", "img", "input", "hr"}


class Reader(HTMLParser):
    """Collects elements and sees to it that they are closed in order."""

    def __init__(self) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self._open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Take an element."""
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        """Close one."""
        assert self._open.pop() == tag

    def close(self) -> None:
        """Nothing may be left open."""
        super().close()
        assert self._open == []


def read(page: str) -> list[tuple[str, dict[str, str | None]]]:
    """Return the elements of a page that is well formed."""
    reader = Reader()
    reader.feed(page)
    reader.close()
    return reader.elements


@pytest.mark.parametrize("page", [FRONT, DOCS], ids=["front", "docs"])
def test_pages_are_well_formed_and_need_nobody_else(page: str) -> None:
    """No inline script or style, no handler, no address outside."""
    for tag, attributes in read(page):
        assert not any(name.startswith("on") for name in attributes)
        assert "style" not in attributes
        assert tag != "style"
        for name in ("src", "href"):
            target = attributes.get(name)
            assert target is None or target.startswith(("/", "#")), target
        if tag == "script":
            assert (attributes.get("src") or "").startswith("/assets/")
    assert not re.search(r"https?://(?!127\.0\.0\.1)", page)


@pytest.mark.parametrize("name", pages.ASSETS)
def test_files_of_pages_name_no_other_host_and_evaluate_nothing(name: str) -> None:
    """What the policy would forbid is not tried."""
    _, text = pages.ASSETS[name]

    assert not re.search(r"https?://|eval\(|new Function|innerHTML|@import|url\(", text)


def test_the_policy_allows_our_own_files_and_nothing_inline() -> None:
    """default-src none; no unsafe-."""
    policy = pages.HEADERS["Content-Security-Policy"]

    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy


def test_the_front_page_shows_every_indicator_of_the_view() -> None:
    """Readable without a script; each cell says what it shows, so that the module can keep it current."""
    cells = {(a["data-channel"], a["data-field"], a.get("data-index")) for _, a in read(FRONT) if "data-field" in a}

    assert {("inflation_update", field.name, None) for field in INDICATOR_FIELDS} <= cells
    assert {("market_tick", "price", str(m)) for m in range(len(NAMES))} <= cells
    assert f'<b id="tick">{VIEW.tick}</b>' in FRONT
    assert f">{VIEW.numbers['inflation_update']['cpi']:.6g}<" in FRONT


def test_the_front_page_leads_to_documents_metrics_and_examples() -> None:
    """What this is, and where to go from here."""
    targets = {attributes.get("href") for tag, attributes in read(FRONT) if tag == "a"}

    assert {"/docs", "/metrics", "#examples", "/openapi.json", "/asyncapi.json", "/api/info"} <= targets
    assert 'id="examples"' in FRONT
    assert "/api/agents/register" in FRONT


def test_docs_have_every_route_and_every_problem_code() -> None:
    """Each with a place to link to."""
    places = {attributes.get("id") for _, attributes in read(DOCS)}

    assert {operation.name for operation in OPERATIONS} <= places
    assert {f"problem-{int(code)}" for code in Code} <= places


def test_links_inside_docs_lead_somewhere() -> None:
    """To a schema that is shown."""
    elements = read(DOCS)
    places = {attributes.get("id") for _, attributes in elements}

    for _, attributes in elements:
        target = attributes.get("href") or ""
        if target.startswith("#"):
            assert target[1:] in places, target


def test_text_of_others_is_escaped() -> None:
    """An epoch or version with markup in it stays text."""
    assert "<script>" not in pages.front(VIEW, "<script>alert(1)</script>").replace('<script type="module"', "")
