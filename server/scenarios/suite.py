"""Where scenarios are read from: the suite that comes with the product, or any TOML file."""

from __future__ import annotations

import tomllib
from importlib.resources import files
from pathlib import Path
from typing import Any

from engine.errors import ScenarioInvalid
from engine.studies.scenario.script import Scenario, parse

SUITE = "engine.studies.scenario"


def suite_names() -> list[str]:
    """Return the names of the product's scenarios."""
    return sorted(entry.name[:-5] for entry in (files(SUITE) / "suite").iterdir() if entry.name.endswith(".toml"))


def document_of(name: str) -> dict[str, Any]:
    """Return the tables of a scenario of the suite or of a file.

    Raises ScenarioInvalid when there is neither, or when it is no TOML.
    """
    if name in suite_names():
        text = (files(SUITE) / "suite" / f"{name}.toml").read_text(encoding="utf-8")
    elif Path(name).is_file():
        text = Path(name).read_text(encoding="utf-8", errors="replace")
    else:
        raise ScenarioInvalid(f"no scenario and no file {name!r}; scenarios are {', '.join(suite_names())}")
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ScenarioInvalid(f"{name} is not TOML: {error}") from None


def load(name: str, residents: int | None = None, seed: int | None = None) -> Scenario:
    """Return the scenario of a name or file. Raises ScenarioInvalid when it cannot be run."""
    return parse(Path(name).stem, document_of(name), residents=residents, seed=seed)
