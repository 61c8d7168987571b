"""Settings: one name in three spellings, the later over the earlier, and a clear refusal of everything else."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from engine.config import Config
from engine.errors import SettingError
from server.config import DOCUMENT_NAMES, OPTIONS, Settings, document, load

ROOT = Path(__file__).resolve().parents[2]

#: Document 004's own block of options with its own values.
DOCUMENT_004 = {
    "maxAgents": 100000,
    "tickRate": 100,
    "marketOpenHours": 24,
    "baseInflationRate": 0.02,
    "volatilityThreshold": 0.1,
    "maxPriceChange": 0.5,
    "cacheExpiry": 5000,
    "rateLimit": 1000,
    "historyLimit": 1000,
    "sentimentWeight": 0.4,
    "fearWeight": 0.3,
    "greedWeight": 0.3,
    "herdingThreshold": 0.7,
    "depletionRate": 0.001,
    "discoveryProbability": 0.005,
    "catastropheProbability": 0.0001,
}
#: Another allowed value and two that are out of range, for each of the sixteen.
OTHER = {
    "maxAgents": (7, 0, 1_000_001),
    "tickRate": (250, 9, 60_001),
    "marketOpenHours": (8, 0, 25),
    "baseInflationRate": (0.05, -0.01, 0.51),
    "volatilityThreshold": (0.3, 0.0, 10.5),
    "maxPriceChange": (0.1, 0.0, 0.6),
    "cacheExpiry": (0, -1, 3_600_001),
    "rateLimit": (60, 0, 10_000_001),
    "historyLimit": (50, 9, 1_000_001),
    "sentimentWeight": (1.0, -0.1, 2.1),
    "fearWeight": (1.0, -0.1, 2.1),
    "greedWeight": (1.0, -0.1, 2.1),
    "herdingThreshold": (0.9, -0.1, 2.1),
    "depletionRate": (0.01, -0.001, 0.2),
    "discoveryProbability": (0.5, -0.1, 1.1),
    "catastropheProbability": (0.5, -0.1, 1.1),
}
NAMES = {spelt: name for name, spelt in DOCUMENT_NAMES.items()}
every_option = pytest.mark.parametrize("spelt", list(DOCUMENT_004))


def test_the_documents_block_is_the_default(tmp_path: Path) -> None:
    """Document 004's configuration, verbatim, changes nothing: its values are ours."""
    path = tmp_path / "arena.json"
    path.write_text(json.dumps(DOCUMENT_004))

    assert load(["--config", str(path)], {}) == Settings()


@every_option
def test_each_of_the_sixteen_by_file_environment_and_flag(spelt: str, tmp_path: Path) -> None:
    """Each option arrives by file in both spellings, by environment and by flag."""
    name, value = NAMES[spelt], OTHER[spelt][0]
    toml = tmp_path / "arena.toml"
    toml.write_text(f"{spelt} = {value}\n")
    snake = tmp_path / "snake.json"
    snake.write_text(json.dumps({name: value}))

    ways = [
        load(["--config", str(toml)], {}),
        load([], {"ARENA_CONFIG": str(snake)}),
        load([], {f"ARENA_{name.upper()}": str(value)}),
        load([f"--{name.replace('_', '-')}", str(value)], {}),
    ]

    assert [settings.value(name) for settings in ways] == [value] * 4
    assert Settings().value(name) == DOCUMENT_004[spelt]


@every_option
def test_each_of_the_sixteen_is_refused_out_of_range(spelt: str, tmp_path: Path) -> None:
    """Below and above its range each option is refused by each way, with its name, the value and the range."""
    name = NAMES[spelt]
    for value in OTHER[spelt][1:]:
        path = tmp_path / "arena.json"
        path.write_text(json.dumps({spelt: value}))
        for argv, environ in (
            (["--config", str(path)], {}),
            ([], {f"ARENA_{name.upper()}": str(value)}),
            ([f"--{name.replace('_', '-')}={value}"], {}),
        ):
            with pytest.raises(SettingError, match=rf"^{name} must be .* in \[.*\], got {value}$"):
                load(argv, environ)


def test_flag_over_environment_over_file(tmp_path: Path) -> None:
    """The later of file, environment and command line wins, option by option."""
    path = tmp_path / "arena.toml"
    path.write_text("port = 1111\ntickRate = 200\nmaxAgents = 3\n")

    settings = load(
        ["--config", str(path), "--port", "3333"],
        {"ARENA_PORT": "2222", "API_PORT": "4444", "ARENA_TICK_RATE": "300"},
    )

    assert (settings.port, settings.tick_rate, settings.engine.max_agents) == (3333, 300, 3)


def test_the_documents_variables_are_heard() -> None:
    """API_HOST and API_PORT set the address; our own variables win over them."""
    assert load([], {"API_HOST": "0.0.0.0", "API_PORT": "9000"}).host == "0.0.0.0"
    assert load([], {"API_PORT": "9000"}).port == 9000
    assert load([], {"API_PORT": "9000", "ARENA_PORT": "9001"}).port == 9001


@pytest.mark.parametrize(
    ("argv", "environ", "said"),
    [
        ([], {"ARENA_MAX_AGENT": "5"}, "ARENA_MAX_AGENT must be a known setting .did you mean ARENA_MAX_AGENTS"),
        ([], {"ARENA_PORT": "80a"}, "port must be a whole number"),
        (["--port", "1.5"], {}, "port must be a whole number"),
        (["--fear-weight", "nan"], {}, "fear_weight must be a number"),
        (["--fear-weight", "inf"], {}, "fear_weight must be a number"),
        (["--policy-active", "perhaps"], {}, "policy_active must be true or false"),
        (["--log", "xml"], {}, "log must be console or json, got 'xml'"),
        (["--host", ""], {}, "host must be text"),
        (["--data", " "], {}, "data must be text"),
        (["--seed", "-1"], {}, "seed must be a whole number"),
        (["--heartbeat-s", "0"], {}, "heartbeat_s must be a number"),
    ],
)
def test_wrong_settings_are_refused_by_name(argv: list[str], environ: dict[str, str], said: str) -> None:
    """A wrong or unknown setting says which one, what it got and what is allowed."""
    with pytest.raises(SettingError, match=said):
        load(argv, environ)


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("a.json", '{"maxAgent": 5}', "maxAgent must be a known setting .did you mean maxAgents"),
        ("a.json", '{"maxAgents": 5, "max_agents": 6}', "given once"),
        ("a.json", '{"maxAgents": true}', "max_agents must be a whole number"),
        ("a.json", '{"maxAgents": 5.0}', "max_agents must be a whole number"),
        ("a.json", '{"maxAgents": "5"}', "max_agents must be a whole number"),
        ("a.json", '{"fearWeight": NaN}', "fear_weight must be a number"),
        ("a.json", "[]", "one object"),
        ("a.json", '{"maxAgents": ', "readable"),
        ("a.toml", "maxAgents == 5", "readable"),
    ],
)
def test_a_wrong_file_is_refused(name: str, text: str, said: str, tmp_path: Path) -> None:
    """A file is held to the same names, kinds and ranges, and must be readable as what it says it is."""
    path = tmp_path / name
    path.write_text(text)

    with pytest.raises(SettingError, match=said):
        load(["--config", str(path)], {})


def test_an_unknown_flag_ends_with_usage(capsys: pytest.CaptureFixture[str]) -> None:
    """Flags are never abbreviated: an unknown one ends with status 2 and names itself."""
    with pytest.raises(SystemExit) as ended:
        load(["--max-agent", "5"], {})

    assert ended.value.code == 2
    assert "--max-agent" in capsys.readouterr().err


def test_help_shows_every_option_with_examples(capsys: pytest.CaptureFixture[str]) -> None:
    """--help names each option and shows how it is used."""
    with pytest.raises(SystemExit) as ended:
        load(["--help"], {})

    shown = capsys.readouterr().out
    assert ended.value.code == 0
    assert [option.flag for option in OPTIONS if option.flag not in shown] == []
    assert "examples:" in shown


def test_describe_hides_the_seed() -> None:
    """What is printed at start holds every option, but a seed nowhere."""
    settings = Settings(seed=123_456_789, engine=Config(max_agents=5))

    shown = settings.describe()

    assert set(shown) == {option.name for option in OPTIONS}
    assert shown["max_agents"] == 5
    assert "123456789" not in repr(shown) + repr(settings)


def test_the_page_says_what_the_code_says() -> None:
    """docs/configuration.md is what server/config.py makes."""
    assert (ROOT / "docs/configuration.md").read_text(encoding="utf-8") == document()
