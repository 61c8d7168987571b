"""A report as data: figures in groups with their verdicts, as a JSON document and as a table for a terminal."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from engine.analysis.controls import Control
from engine.analysis.facts import FACTS, MarketFacts, asset_facts, fact_figures
from engine.analysis.figures import BAND_TICKS, Figure, fails, finite
from engine.analysis.goals import goal_figures
from engine.analysis.macro_facts import macro_figures
from engine.analysis.metaorders import metaorder_figure
from engine.analysis.recording import Recording
from engine.config import Config
from server.provenance import revision, this_machine
from server.report.history import History

FORMAT = 1
ASSETS, ECONOMY, GOALS = "Returns of the 15 asset markets", "The economy as a whole", "Goals beyond the bands"


@dataclass(frozen=True)
class Report:
    """What a report says. groups: figures by heading, in the order they are shown."""

    history: History
    groups: dict[str, list[Figure]]
    markets: tuple[MarketFacts, ...]
    control: Control | None = None

    @property
    def recording(self) -> Recording:
        """The history it is about."""
        return self.history.recording

    @property
    def failed(self) -> list[str]:
        """Ids of the figures whose band does not hold."""
        return [name for figures in self.groups.values() for name in fails(figures)]

    @property
    def is_short(self) -> bool:
        """Whether the history is too short for verdicts."""
        return self.recording.ticks < BAND_TICKS

    @property
    def sentence(self) -> str:
        """The verdict in one sentence."""
        if self.is_short:
            return (
                f"No verdict: the bands are made for {BAND_TICKS:,} ticks or more, this history has"
                f" {self.recording.ticks:,}."
            )
        if self.failed:
            return f"{len(self.failed)} of the bands fail: {', '.join(self.failed)}."
        return "Every band holds."

    @property
    def proof(self) -> str:
        """For a control: whether the fact it names has failed, as it must."""
        if self.control is None:
            return ""
        did = "and it does" if self.control.fails in self.failed else "but it does NOT"
        return f"Control {self.control.name} ({self.control.text}): {self.control.fails} must fail, {did}."


def make_report(history: History, control: Control | None = None) -> Report:
    """Measure a history and judge it by the bands of ECONOMY B0."""
    recording = history.recording
    markets = asset_facts(recording)
    groups = {
        ASSETS: fact_figures(markets, recording.ticks),
        ECONOMY: macro_figures(recording),
        GOALS: [*goal_figures(recording), metaorder_figure(history.metaorders, recording)],
    }
    return Report(history, groups, markets, control)


def as_json(report: Report) -> dict[str, Any]:
    """Return the report as a document: everything but the recording itself."""
    recording = report.recording
    return {
        "format": FORMAT,
        "origin": recording.origin,
        "control": report.control.name if report.control else None,
        "must_fail": report.control.fails if report.control else None,
        "holds": not report.failed and not report.is_short,
        "failed": report.failed,
        "sentence": report.sentence,
        "ticks": recording.ticks,
        "first_tick": recording.first_tick,
        "residents": recording.residents,
        "engine_version": recording.engine_version,
        "settings": _changed(recording),
        "revision": revision(),
        "machine": this_machine(),
        "figures": [
            {
                "group": group,
                "id": figure.id,
                "title": figure.title,
                "value": figure.value,
                "band": figure.band,
                "reference": figure.reference,
                "verdict": str(figure.verdict),
                "numbers": {name: _short(number) for name, number in figure.numbers.items()},
            }
            for group, figures in report.groups.items()
            for figure in figures
        ],
        "markets": [
            {
                "name": market.name,
                "facts": market.count,
                "passed": {fact.id: ok for fact, ok in zip(FACTS, market.passed, strict=True)},
                "numbers": {name: _short(number) for name, number in finite(**market.numbers).items()},
            }
            for market in report.markets
        ],
    }


def as_table(report: Report) -> str:
    """Return the report for a terminal: a line for each figure, under it what real markets show."""
    recording = report.recording
    lines = [
        f"{recording.origin}: {recording.ticks:,} ticks from tick {recording.first_tick:,},"
        f" {recording.residents:,} residents, engine version {recording.engine_version}"
    ]
    for group, figures in report.groups.items():
        lines += ["", *figure_lines(group, figures)]
    lines += ["", *_market_lines(report.markets), "", report.sentence]
    return "\n".join(lines + ([report.proof] if report.control else []))


def figure_lines(heading: str, figures: list[Figure]) -> list[str]:
    """Return the lines of one group of figures."""
    lines = [heading]
    for figure in figures:
        lines.append(f"  {figure.verdict:<9}  {figure.title}")
        lines.append(f"             {figure.value}" + (f"   band: {figure.band}" if figure.band else ""))
        lines.append(f"             real: {figure.reference}")
    return lines


def _market_lines(markets: tuple[MarketFacts, ...]) -> list[str]:
    lines = ["Facts by market (1 to 8 in the order above)"]
    for market in markets:
        shown = " ".join(str(i) if ok else "." for i, ok in enumerate(market.passed, 1))
        year = market.numbers["volatility_year"]
        moves = f", volatility {year:.0%} a year" if year == year else ""
        lines.append(f"  {market.name:<22} {shown}   {market.count} of {len(FACTS)}{moves}")
    return lines


def _changed(recording: Recording) -> dict[str, Any]:
    """Return the settings that are not the default's."""
    default = Config().as_dict()
    return {name: value for name, value in recording.config.items() if default.get(name) != value}


def _short(number: float) -> float:
    return float(f"{number:.6g}")
