"""A report as one self-contained page: no address outside it, no script, plots inline."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Sequence
from html import escape

from engine.analysis.facts import FACTS
from engine.analysis.figures import Figure, Verdict
from server.provenance import revision, this_machine
from server.report.document import Report
from server.report.plots import Plot

POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
CLASSES = {
    Verdict.HOLDS: "good",
    Verdict.REACHED: "good",
    Verdict.FAILS: "bad",
    Verdict.MISSED: "near",
    Verdict.SHORT: "near",
    Verdict.SHOWN: "plain",
}
STYLE = """
:root{color-scheme:light}
body{font:16px/1.5 system-ui,sans-serif;color:#1a1a1a;background:#fff;max-width:1000px;margin:0 auto;padding:1.5rem}
h1{font-size:1.6rem;margin:.2rem 0}h2{font-size:1.2rem;margin:2.2rem 0 .6rem}
.lead{font-size:1.1rem}.note{color:#555;font-size:.88rem}
table{border-collapse:collapse;width:100%;font-size:.88rem}
th,td{text-align:left;vertical-align:top;padding:.35rem .6rem .35rem 0;border-bottom:1px solid #e3e3e3}
th{font-weight:600}td.c,th.c{text-align:center;padding-right:.3rem}
.chip{display:inline-block;min-width:4.6rem;text-align:center;border-radius:.3rem;padding:.05rem .4rem;font-weight:600}
.good{background:#d9f0e4;color:#00573f}.bad{background:#fbdcd2;color:#8a2500}
.near{background:#fdf0cc;color:#6b4b00}.plain{background:#eee;color:#444}
.real{color:#555;font-size:.82rem}.wide{overflow-x:auto}
figure{margin:1.6rem 0;border-top:1px solid #e3e3e3;padding-top:1rem}figure img{width:100%;height:auto;max-width:760px}
figcaption{max-width:760px;color:#333}
"""


def render_page(report: Report, plots: Sequence[Plot]) -> str:
    """Return the page of one report."""
    recording = report.recording
    years = recording.ticks / 8_640
    body = [
        "<h1>Does it behave like an economy?</h1>",
        lead(report.sentence, report.failed, is_short=report.is_short),
        f"<p>{escape(report.proof)}</p>" if report.control else "",
        f"<p class='note'>{escape(recording.origin)}: {recording.ticks:,} ticks (simulated hours),"
        f" {years:.1f} simulated years of {recording.residents:,} residents from tick {recording.first_tick:,};"
        f" engine version {recording.engine_version}.</p>",
        how_to_read(),
        *(section(group, figures) for group, figures in report.groups.items()),
        "<h2>Facts by market</h2>",
        _market_table(report),
        "<h2>Plots</h2>",
        *(show(plot) for plot in plots),
        provenance(),
    ]
    return whole("Realism report", body)


def whole(title: str, body: Sequence[str]) -> str:
    """Return a page around its parts."""
    return (
        "<!doctype html>\n<html lang='en'><head><meta charset='utf-8'>"
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        "<meta name='viewport' content='width=device-width,initial-scale=1'>"
        f"<title>{escape(title)}</title><style>{STYLE}</style></head><body>\n" + "\n".join(body) + "\n</body></html>\n"
    )


def lead(sentence: str, failed: Sequence[str], *, is_short: bool = False) -> str:
    """Return the verdict as the first line of a page."""
    kind = Verdict.SHORT if is_short else Verdict.FAILS if failed else Verdict.HOLDS
    return f"<p class='lead'>{chip(kind)} {escape(sentence)}</p>"


def how_to_read() -> str:
    """Return what the words of the verdicts mean."""
    return (
        "<p class='note'>Every figure stands beside the band it is held to and beside what real markets show."
        f" {chip(Verdict.HOLDS)} and {chip(Verdict.FAILS)} are bands: a failing one fails the report."
        f" {chip(Verdict.REACHED)} and {chip(Verdict.MISSED)} are goals beyond them. {chip(Verdict.SHOWN)} has neither"
        " here. r is the return of a tick (an hour), |r| its size without the fixed daily pattern.</p>"
    )


def section(heading: str, figures: Sequence[Figure]) -> str:
    """Return a group of figures as a table."""
    rows = [
        f"<tr><td>{chip(figure.verdict)}</td><td>{escape(figure.title)}<br>"
        f"<span class='real'>real: {escape(figure.reference)}</span></td>"
        f"<td>{escape(figure.value)}</td><td>{escape(figure.band)}</td></tr>"
        for figure in figures
    ]
    head = "<tr><th>verdict</th><th>figure</th><th>measured</th><th>band</th></tr>"
    return f"<h2>{escape(heading)}</h2><div class='wide'><table>{head}{''.join(rows)}</table></div>"


def show(plot: Plot) -> str:
    """Return a plot with its caption."""
    data = b64encode(plot.svg.encode()).decode()
    return (
        f"<figure><h3>{escape(plot.title)}</h3><img alt='{escape(plot.title, quote=True)}'"
        f" src='data:image/svg+xml;base64,{data}'><figcaption>{escape(plot.caption)}</figcaption></figure>"
    )


def chip(verdict: Verdict) -> str:
    """Return a verdict as a coloured word."""
    return f"<span class='chip {CLASSES[verdict]}'>{escape(verdict)}</span>"


def provenance() -> str:
    """Return where and with what the page was made."""
    return f"<p class='note'>Revision {escape(revision())}, {escape(this_machine())}.</p>"


def _market_table(report: Report) -> str:
    head = "".join(f"<th class='c'>{escape(fact.id.replace('_', ' '))}</th>" for fact in FACTS)
    rows = []
    for market in report.markets:
        cells = "".join(
            f"<td class='c'><span class='chip {'good' if ok else 'bad'}' style='min-width:1.6rem'>"
            f"{'yes' if ok else 'no'}</span></td>"
            for ok in market.passed
        )
        rows.append(f"<tr><td>{escape(market.name)}</td>{cells}<td class='c'>{market.count}</td></tr>")
    return (
        f"<div class='wide'><table><tr><th>market</th>{head}<th class='c'>of 8</th></tr>{''.join(rows)}</table></div>"
    )
