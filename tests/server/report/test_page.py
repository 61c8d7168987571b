"""The page: one file that asks for nothing, whose plots can be read and say what to see."""

from __future__ import annotations

import re
from base64 import b64decode
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest

from engine.analysis.controls import control
from server.report import plots
from server.report.document import make_report
from server.report.history import History
from server.report.page import render_page
from tests.support.recordings import made

SIZE_MAX = 1_000_000
NAMES = (
    "distribution", "path", "acf_returns", "acf_sizes", "volume", "aggregation", "impact", "phillips_okun", "policy",
    "output", "scarcity", "wealth", "wage",
)  # fmt: skip


class Reader(HTMLParser):
    """Collects what a browser would see, and what is not closed."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.text = ""

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        """Take a tag."""
        self.attributes += [(tag, name, value or "") for name, value in attributes]
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        """Close a tag; it must be the last one opened."""
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        """Take text."""
        self.text += data


@pytest.fixture(scope="module")
def drawn(history: History) -> list[plots.Plot]:
    """Every plot of the small world."""
    return plots.draw_all(make_report(history))


def test_every_plot_is_drawn_and_well_formed(drawn: list[plots.Plot]) -> None:
    """All thirteen, each an SVG document with a title, axis labels and a caption of more than a sentence's length."""
    assert tuple(plot.name for plot in drawn) == NAMES
    for plot in drawn:
        svg = ElementTree.fromstring(plot.svg)
        assert svg.tag.endswith("svg")
        assert len([node for node in svg.iter() if node.tag.endswith("text") and (node.text or "").strip()]) >= 5, (
            plot.name
        )
        assert len(plot.caption) > 100, plot.name
        assert not re.search(r"\bnan\b", plot.svg.lower())


def test_plots_are_the_same_bytes_again(history: History, drawn: list[plots.Plot]) -> None:
    """No date, no random ids: a committed page changes only when its numbers do."""
    assert plots.draw_all(make_report(history)) == drawn


def test_the_page_is_whole_and_asks_for_nothing(history: History, drawn: list[plots.Plot]) -> None:
    """Tags close, no script, no address, images inline, a policy that forbids the rest, and below a megabyte."""
    report = make_report(history)

    page = render_page(report, drawn)

    reader = Reader()
    reader.feed(page)
    assert reader.open == []
    assert not re.search(r"https?:|<script|<link|@import|url\(", page)
    assert next(value for _, name, value in reader.attributes if name == "content").startswith("default-src 'none'")
    images = [value for tag, name, value in reader.attributes if (tag, name) == ("img", "src")]
    assert [b64decode(image.split(",")[1]).decode() for image in images] == [plot.svg for plot in drawn]
    assert len(page) < SIZE_MAX
    for plot in drawn:
        assert plot.caption in reader.text
    for figures in report.groups.values():
        for figure in figures:
            assert figure.title in reader.text
            assert figure.reference in reader.text


@pytest.mark.parametrize("ticks", [0, 1, 30, 300, 1_200])
def test_a_short_history_makes_a_page_too(ticks: int) -> None:
    """Plots that the history is too short for are left out, the page still says what is missing."""
    report = make_report(History(made(ticks)), control("shuffled"))

    page = render_page(report, plots.draw_all(report))

    assert "No verdict: the bands are made for 20,000 ticks" in page
    assert not re.search(r"\bnan\b", page)


def test_a_broken_page_would_be_noticed() -> None:
    """The reader of these tests can fail."""
    with pytest.raises(AssertionError):
        Reader().feed("<p><b></p></b>")
