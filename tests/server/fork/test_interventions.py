"""Files of interventions: what each table becomes, and that every mistake is named with what is allowed."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from engine.errors import SettingError
from engine.fork import ADDED_AGENTS, Change, Injection, Interventions
from engine.ladder import UCR, prices
from engine.markets import ID, OIL
from engine.messages import Kind, TimeInForce
from engine.phases.emission import CATASTROPHE_STRUCK, NATURAL, POLITICAL, RESOURCE_DISCOVERED
from server.fork.interventions import as_json, build, read_file
from server.live.receipts import VALIDITY_TICKS
from tests.support.worlds import small_config

FIRST, LAST = 101, 200
KNOWN = {17, 20}

WHOLE = """
without_agents = ["a20"]

[[set]]
at = 101
name = "base_inflation_rate"
value = 0.05
until = 150

[[set]]
at = 120
name = "policy_active"
value = false

[[event]]
at = 130
name = "catastrophe_struck"
resource = "oil"
size = 0.2
kind = "political_instability"

[[event]]
at = 131
name = "resource_discovered"
resource = "lithium"
size = 0.01

[[agent]]
name = "hoarder"
at = 110

[[action]]
at = 110
agent = "hoarder"
type = "limit"
market = "food"
side = "buy"
quantity = 5
price = 1.25
client_action_id = "bid"

[[action]]
at = 111
agent = "hoarder"
type = "cancel"
order_id = "bid"

[[action]]
at = 190
agent = "a17"
every = 4
until = 199
type = "market"
market = "consol"
side = "sell"
quantity = 1
valid_until_tick = 300

[[action]]
at = 199
agent = "a17"
type = "unregister"
"""


def built(text: str, folder: Path) -> Interventions:
    """Return what a file's text becomes."""
    path = folder / "file.toml"
    path.write_text(text, encoding="utf-8")
    return build(read_file(path), small_config(), KNOWN, FIRST, LAST)


def test_every_table_becomes_what_it_says(tmp_path: Path) -> None:
    """Agents left out, settings with and without an end, events, agents, actions once and again."""
    made = built(WHOLE, tmp_path)

    assert made.without == {20}
    assert made.changes == (
        Change(101, "base_inflation_rate", 0.05),
        Change(150, "base_inflation_rate", 0.02),
        Change(120, "policy_active", False),
    )
    assert made.injections == (
        Injection(130, CATASTROPHE_STRUCK, OIL, 0.2, POLITICAL),
        Injection(131, RESOURCE_DISCOVERED, ID["lithium"], 0.01, NATURAL),
    )
    assert [(one.tick, Kind(int(one.row["kind"][0])), int(one.row["agent_id"][0])) for one in made.additions] == [
        (110, Kind.REGISTER, ADDED_AGENTS),
        (110, Kind.LIMIT, ADDED_AGENTS),
        (111, Kind.CANCEL, ADDED_AGENTS),
        *((tick, Kind.MARKET, 17) for tick in (190, 194, 198)),
        (199, Kind.UNREGISTER, 17),
    ]


def test_an_action_is_what_the_api_would_have_made_of_it(tmp_path: Path) -> None:
    """Prices go to the ladder, ids and validity have their defaults, an order is named by its client_action_id."""
    additions = built(WHOLE, tmp_path).additions

    limit, cancel, market = additions[1].row[0], additions[2].row[0], additions[4].row[0]
    assert prices()[limit["level"]] <= 1.25 * UCR < prices()[limit["level"] + 1]
    assert (limit["market"], limit["side"], limit["quantity"]) == (ID["food"], 1, 5)
    assert (limit["time_in_force"], limit["valid_until"]) == (TimeInForce.GTC, 110 + VALIDITY_TICKS)
    assert cancel["order_id"] == -1 - 1
    assert market["valid_until"] == 300


def test_an_empty_file_changes_nothing(tmp_path: Path) -> None:
    """Allowed: the branch is the original."""
    assert built("", tmp_path) == Interventions()


def test_a_number_names_a_recorded_order(tmp_path: Path) -> None:
    """What is no client_action_id of the file is an order's id, as in the API."""
    text = '[[action]]\nat = 150\nagent = "a17"\ntype = "cancel"\norder_id = "4711"\n'

    assert built(text, tmp_path).additions[0].row["order_id"].tolist() == [4711]


SET = '[[set]]\nat = 150\nname = "policy_active"\nvalue = false\n'
EVENT = '[[event]]\nat = 150\nname = "resource_discovered"\nresource = "oil"\nsize = 0.1\n'
AGENT = '[[agent]]\nname = "new"\nat = 150\n'
ACTION = '[[action]]\nat = 150\nagent = "a17"\ntype = "borrow"\namount = 5\n'
IN_FORK = "a tick from 101 to 200"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("at = 5", "key must be one of without_agents, without_commands, set, event, agent, action, got 'at'"),
        ("[set", "must be a file in TOML"),
        ('without_agents = "a17"', "without_agents must be a list of agent ids such as 'a17', got 'a17'"),
        ('without_agents = ["a18"]', "without_agents must be one of a17, a20, got 'a18'"),
        ("without_agents = [17]", "without_agents must be one of a17, a20, got 17"),
        ("set = 5", "set must be tables that begin with [[set]], got 5"),
        ("set = [5]", "set must be tables that begin with [[set]], got 5"),
        (SET + "unit = 1", "[[set]] number 1: a key must be one of at, name, value, until, got 'unit'"),
        (SET.replace("value = false", ""), "[[set]] number 1 must be a table with value, got 'at, name'"),
        (SET.replace("150", "100"), f"[[set]] number 1: at must be {IN_FORK}, got 100"),
        (SET.replace("150", "201"), f"[[set]] number 1: at must be {IN_FORK}, got 201"),
        (SET.replace("150", "true"), f"[[set]] number 1: at must be {IN_FORK}, got True"),
        (SET.replace("policy_active", "residents"), "[[set]] number 1: name must be one of market_open_hours, base_"),
        (SET.replace("false", "1"), "[[set]] number 1: value of policy_active must be true or false, got 1"),
        (SET + "until = 150", "[[set]] number 1: until must be a tick from 151 to 200, got 150"),
        (EVENT.replace("oil", "gold"), "[[event]] number 1: resource must be one of oil, lithium, rare_earths"),
        (EVENT.replace("0.1", "1.5"), "[[event]] number 1: size must be a number in (0, 1]"),
        (EVENT.replace("0.1", "true"), "[[event]] number 1: size must be a number in (0, 1]"),
        (EVENT.replace("resource_discovered", "panic_began"), "name must be one of resource_discovered, catastrophe_s"),
        (EVENT + 'kind = "natural_disaster"', "kind must be left out: only catastrophe_struck has one"),
        (
            EVENT.replace("resource_discovered", "catastrophe_struck") + 'kind = "flood"',
            "kind must be one of natural_disaster, political_instability, got 'flood'",
        ),
        (AGENT.replace('"new"', '"a5"'), "[[agent]] number 1: name must be a text of its own that is not an agent id"),
        (AGENT + AGENT, "[[agent]] number 2: name must be a text of its own"),
        (AGENT.replace("at = 150", ""), "[[agent]] number 1 must be a table with at, got 'name'"),
        (ACTION.replace('type = "borrow"', ""), "[[action]] number 1 must be a table with type"),
        (ACTION.replace("a17", "a18"), "[[action]] number 1: agent must be one of a17, a20, got 'a18'"),
        (AGENT + ACTION.replace("a17", "old"), "[[action]] number 1: agent must be one of new, a17, a20, got 'old'"),
        (
            AGENT + ACTION.replace("a17", "new").replace("150", "149"),
            "[[action]] number 1: at must be 150 or later: 'new' registers at tick 150, got 149",
        ),
        ('without_agents = ["a17"]\n' + ACTION, "agent must be an agent that is not left out, got 'a17'"),
        (ACTION + "every = 0", "[[action]] number 1: every must be a whole number of ticks, 1 or more, got 0"),
        (ACTION + "until = 160", "[[action]] number 1: until must be left out, or given with every, got 160"),
        (ACTION + "every = 2\nuntil = 149", "[[action]] number 1: until must be a tick from 150 to 200, got 149"),
        (ACTION.replace("borrow", "steal"), "[[action]] number 1: type (unknown type) must be one of limit"),
        (ACTION.replace("5", "-5", 2).replace("1-50", "150"), "amount (is not above 0 and at most 1000000000 credits)"),
        (ACTION + "price = 1", "[[action]] number 1: price (unknown field) must be one of the fields: "),
        (
            ACTION + 'client_action_id = "x"\n' + ACTION + 'client_action_id = "x"\n',
            "[[action]] number 2: client_action_id must be one that this agent has not used in the file, got 'x'",
        ),
        (
            ACTION.replace("borrow", "unregister"),
            "[[action]] number 1: a key must be one of type, got 'amount'",
        ),
        (
            '[[action]]\nat = 150\nagent = "a17"\ntype = "cancel"\norder_id = "bid"\n',
            "[[action]] number 1: order_id (",
        ),
    ],
)
def test_a_mistake_is_named_with_what_is_allowed(text: str, said: str, tmp_path: Path) -> None:
    """Where, what was given and what is allowed, before any tick is run."""
    with pytest.raises(SettingError, match=re.escape(said)):
        built(text, tmp_path)


def test_repetitions_have_a_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file cannot ask for more than fits."""
    monkeypatch.setattr("server.fork.interventions.ADDITIONS_MAX", 10)

    with pytest.raises(SettingError, match="at most 10 added actions in all"):
        built(ACTION + "every = 1", tmp_path)


def test_what_was_asked_can_be_written_as_json(tmp_path: Path) -> None:
    """Numbers with a fraction stay exact, as text."""
    path = tmp_path / "file.toml"
    path.write_text(WHOLE, encoding="utf-8")

    document: dict[str, Any] = as_json(read_file(path))

    assert document["set"][0] == {"at": 101, "name": "base_inflation_rate", "value": "0.05", "until": 150}
    assert document["action"][0]["price"] == "1.25"
