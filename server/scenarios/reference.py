"""The reference of scenario files, made of the rules they are held to: docs/scenarios.md carries it word for word."""

from __future__ import annotations

from typing import Any

from engine.public import INDICATOR_FIELDS, MARKET_FIELDS, MONETARY_FIELDS, PSYCHOLOGY_FIELDS, RESOURCE_FIELDS
from engine.studies.scenario.expectations import COMPARISONS, TAKES, Expectation
from engine.studies.scenario.script import Document
from engine.studies.scenario.series import EVENTS, known_indicators, known_market_values
from engine.studies.scenario.steps import WORDS, Step
from engine.studies.scenario.vocabulary import GROUPS, Rule, required, rules_of


def reference() -> str:
    """Return every key, word and series a scenario file may have, as Markdown."""
    fields = {
        field.name: field.text
        for part in (MARKET_FIELDS, RESOURCE_FIELDS, MONETARY_FIELDS, PSYCHOLOGY_FIELDS, INDICATOR_FIELDS)
        for field in part
    }
    lines = ["### The file", "", *_keys(Document)]
    lines += [
        "",
        "### `[[script]]`: what is done",
        "",
        "Every step has these keys and `do`, one of the words below.",
        "",
    ]
    lines += _keys(Step)
    for word, shape in WORDS.items():
        own = [name for name in rules_of(shape) if name not in rules_of(Step)]
        lines += ["", f'#### `do = "{word}"`', "", " ".join((shape.__doc__ or "").split()), "", *_keys(shape, own)]
    lines += ["", "### `[[expect]]`: what is promised", "", *_keys(Expectation), ""]
    lines += [f"- compare `{name}`: {text}" for name, text in COMPARISONS.items()]
    lines += [f"- take `{name}`: {text}" for name, text in TAKES.items()]
    lines += ["", "### Series", "", "Without a dot, of the whole economy:", ""]
    lines += [f"- `{name}`{_means(fields.get(name, _OWN_SERIES.get(name, '')))}" for name in known_indicators()]
    lines += [
        "",
        "Before a dot, of a market, a group of markets or a resource (`price.oil`, `volume.shares`):",
        "",
    ]
    lines += [f"- `{name}`{_means(fields.get(name, _OWN_SERIES.get(name, '')))}" for name in known_market_values()]
    lines += ["", f"Events: {', '.join(f'`events.{name}`' for name in EVENTS)}.", ""]
    lines += [f"Groups of markets: {', '.join(f'`{name}`' for name in GROUPS)}."]
    return "\n".join(lines)


_OWN_SERIES = {
    "actions": "actions outside agents sent in the day",
    "refused": "actions the world refused in the day",
    "largest_move_bp": "largest move of a tick in the day, either way, bp",
    "outside_part": "what outside agents hold of a market, as a part of its size: of a share's lots outstanding, of a"
    " day's output of anything else",
    "events": "events of a kind in the day; the kinds are below",
}


def _keys(shape: type[Any], names: list[str] | None = None) -> list[str]:
    """Return a table of a shape's keys."""
    rules: dict[str, Rule] = rules_of(shape)
    must = required(shape)
    lines = ["| key | allowed | default | meaning |", "|---|---|---|---|"]
    for name in names if names is not None else rules:
        default = "must be given" if name in must else _default(shape, name)
        lines.append(f"| `{name}` | {rules[name].allowed} | {default} | {rules[name].text} |")
    return lines


def _default(shape: type[Any], name: str) -> str:
    value = shape.__dataclass_fields__[name].default
    if value is None or value in ((), ""):
        return ""
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def _means(text: str) -> str:
    return f": {text}" if text else ""
