"""The report as data and as text: complete, finite, and with a verdict in words."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import orjson

from engine.analysis.controls import control
from engine.analysis.facts import FACTS
from engine.analysis.figures import BAND_TICKS, Verdict
from server.report.document import as_json, as_table, make_report
from server.report.history import History
from tests.support.recordings import made


def test_the_document_holds_every_figure(history: History) -> None:
    """Strict JSON: no NaN, each figure with value, band, reference and verdict, each market with its eight facts."""
    document = json.loads(orjson.dumps(as_json(make_report(history))), parse_constant=lambda text: 1 / 0)

    ids = [figure["id"] for figure in document["figures"]]
    assert len(ids) == len(set(ids))
    assert {"asset_facts", *(fact.id for fact in FACTS), "okun", "leverage", "impact_metaorder"} <= set(ids)
    assert all(figure["value"] and figure["reference"] and figure["verdict"] for figure in document["figures"])
    assert [len(market["passed"]) for market in document["markets"]] == [8] * 15
    assert document["settings"] == {"residents": 2_000, "max_agents": 64, "order_book_max": 4_096}
    assert document["holds"] is False


def test_a_short_history_has_no_verdict(history: History) -> None:
    """3,000 ticks are measured and shown, and the sentence says how many are needed."""
    report = make_report(history)

    assert report.is_short
    assert report.sentence == "No verdict: the bands are made for 20,000 ticks or more, this history has 3,000."
    assert "FAILS" not in as_table(report)
    assert not re.search(r"\bnan\b", as_table(report))


def test_the_table_prints_value_band_reference_and_verdict(history: History) -> None:
    """Each figure takes three lines; markets and the verdict follow."""
    report = make_report(history)
    text = as_table(report)

    for figures in report.groups.values():
        for figure in figures:
            block = text[text.index(f"{figure.verdict:<9}  {figure.title}\n") :].split("\n")[:3]
            assert figure.value in block[1]
            assert figure.band in block[1]
            assert block[2].strip() == f"real: {figure.reference}"
    assert text.endswith(report.sentence)
    assert "eq_tech" in text


def test_what_fails_is_named() -> None:
    """A world in which nothing moves fails by name, and a control says whether its fact is among them."""
    dead = History(made(BAND_TICKS))

    report = make_report(dead, control("shuffled"))

    assert {"clustering", "policy", "unemployment"} <= set(report.failed)
    assert report.sentence.startswith(f"{len(report.failed)} of the bands fail: asset_facts, ")
    assert report.proof.endswith("clustering must fail, and it does.")
    assert as_table(report).endswith(report.proof)
    assert "does NOT" in replace(report, groups={}).proof


def test_goals_do_not_fail_a_report() -> None:
    """A missed goal is shown as such and is not among the failures."""
    report = make_report(History(made(BAND_TICKS)))
    missed = [f.id for figures in report.groups.values() for f in figures if f.verdict is Verdict.MISSED]

    assert "gini" in missed
    assert not set(missed) & set(report.failed)
