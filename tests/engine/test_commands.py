"""Commands: what an operator does is bytes, is checked, and shapes the tick that its record comes before."""

from __future__ import annotations

import pytest

from engine.commands import (
    CHANGEABLE,
    Command,
    InjectEvent,
    Pause,
    Resume,
    SetParameter,
    Step,
    check_command,
    decode_command,
    describe,
    encode_command,
)
from engine.economy import Economy
from engine.errors import SettingError
from engine.fork import CHUNK_TICKS, Interventions, fork
from engine.journal import RecordKind, Scan
from engine.phases.emission import CATASTROPHE_STRUCK, NATURAL, POLITICAL, RESOURCE_DISCOVERED
from engine.replay import replay
from tests.support.journals import JournalBytes
from tests.support.worlds import small_config

STRUCK = InjectEvent(CATASTROPHE_STRUCK, "oil", 0.25, POLITICAL)
FOUND = InjectEvent(RESOURCE_DISCOVERED, "lithium", 0.125)
SET = SetParameter("base_inflation_rate", 0.05)
ALL: tuple[Command, ...] = (STRUCK, FOUND, SET, Pause(), Resume(), Step(3))


def world() -> Economy:
    """Return the world every journal here begins with; nothing happens by chance in it."""
    return Economy(small_config(discovery_probability=0.0, catastrophe_probability=0.0), 7)


def recorded(ticks: int, commands: dict[int, list[Command]]) -> tuple[JournalBytes, list[bytes]]:
    """Return the journal of a world under commands before the marks of some ticks, and its hashes."""
    economy, journal, hashes = world(), JournalBytes(), list[bytes]()
    for tick in range(ticks):
        given = commands.get(tick, [])
        for command in given:
            journal.add(RecordKind.COMMAND, encode_command(command))
        journal.mark(tick, 0, (tick - 1, hashes[-1]) if hashes else (-1, bytes(16)))
        journal.batch()
        economy.advance(commands=[one for one in given if isinstance(one, (SetParameter, InjectEvent))])
        hashes.append(economy.state_hash())
    return journal, hashes


@pytest.mark.parametrize("command", ALL, ids=describe)
def test_bytes_and_back(command: Command) -> None:
    """What is read is what was written."""
    assert decode_command(encode_command(command)) == command


def test_the_bytes_are_these() -> None:
    """A record of today is read for ever."""
    assert encode_command(STRUCK) == (
        b'{"command":"event","kind":"political_instability","name":"catastrophe_struck","resource":"oil","size":0.25}'
    )
    assert encode_command(SET) == b'{"command":"set","name":"base_inflation_rate","value":0.05}'
    assert encode_command(Step(3)) == b'{"command":"step","ticks":3}'
    assert encode_command(Pause()) == b'{"command":"pause"}'


@pytest.mark.parametrize("payload", [b"", b"{}", b"[]", b'{"command":"dance"}', b'{"command":"step","ticks":0}'])
def test_other_bytes_are_no_command(payload: bytes) -> None:
    """Nor is one whose values are not allowed."""
    with pytest.raises(ValueError, match=r"command|Expecting"):
        decode_command(payload)


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (SetParameter("residents", 5_000), "name must be one of market_open_hours"),
        (SetParameter("market_open_hours", 25), r"market_open_hours must be a whole number in \[1, 24\], got 25"),
        (SetParameter("policy_active", 1), "policy_active must be true or false"),
        (STRUCK._replace(resource="food"), "resource must be one of oil"),
        (STRUCK._replace(size=0.0), r"size must be a number in \(0, 1\]"),
        (STRUCK._replace(size=float("nan")), "size must be"),
        (STRUCK._replace(name="panic_began"), "name must be one of resource_discovered, catastrophe_struck"),
        (STRUCK._replace(kind="flood"), "kind must be one of natural_disaster"),
        (Step(0), r"ticks must be a whole number in \[1, 1000\]"),
    ],
)
def test_what_is_not_allowed_is_refused_by_field(command: Command, said: str) -> None:
    """With what is."""
    with pytest.raises(SettingError, match=said):
        check_command(command)


def test_whole_numbers_become_what_the_setting_is() -> None:
    """So that one setting has one kind of value, whoever wrote it."""
    checked = check_command(SetParameter("fear_weight", 1))

    assert checked == SetParameter("fear_weight", 1.0)
    assert isinstance(checked[1], float)
    assert "base_inflation_rate" in CHANGEABLE


def test_an_event_happens_in_its_tick_and_is_reported_by_it() -> None:
    """As one drawn by chance would: reserves, news, counters, the event itself. Everything still adds up."""
    economy = world()
    economy.advance()
    before = economy.state.reserves.copy()

    report = economy.advance(commands=[STRUCK, FOUND])

    told = [(event.name, event.tick, event.data["resource"], event.data["size"]) for event in report.events]
    assert told[:2] == [(CATASTROPHE_STRUCK, 1, "oil", 0.25), (RESOURCE_DISCOVERED, 1, "lithium", 0.125)]
    assert report.events[0].data["kind"] == POLITICAL
    assert economy.state.reserves[0] < 0.76 * before[0]
    for _ in range(48):
        economy.advance()


def test_a_parameter_counts_from_its_tick_on() -> None:
    """In the order of the records: the last one stays."""
    economy, other = world(), world()
    economy.advance()
    other.advance()

    economy.advance(commands=[SetParameter("max_price_change", 0.2), SET, SetParameter("base_inflation_rate", 0.0)])
    other.advance()

    assert (economy.config.base_inflation_rate, economy.config.max_price_change) == (0.0, 0.2)
    assert FOUND.kind == NATURAL
    for _ in range(48):
        economy.advance()
        other.advance()
    assert economy.state_hash() != other.state_hash()


def test_a_replay_comes_to_the_same_hashes() -> None:
    """Commands between marks are in the tick of the mark that follows; what follows the last mark waits."""
    journal, hashes = recorded(12, {3: [SET, STRUCK], 7: [Pause(), FOUND, Resume()], 8: [Pause()]})
    for command in (SetParameter("fear_weight", 0.5), Step(1)):
        journal.add(RecordKind.COMMAND, encode_command(command))
    journal.batch()
    economy = world()

    done = replay(economy, Scan(journal.data))

    assert economy.state_hash() == hashes[-1]
    assert done.hashes_checked == 11
    assert done.commands == [SetParameter("fear_weight", 0.5)]
    assert done.is_paused is True


def test_a_fork_has_the_commands_or_leaves_them_out() -> None:
    """With them it is the original, hash for hash; without them the world nobody operated."""
    journal, hashes = recorded(12, {3: [SET, STRUCK], 7: [FOUND]})
    plain = world()
    for _ in range(12):
        plain.advance()

    same = fork(start(), records(journal), Interventions())
    without = fork(start(), records(journal), Interventions(without_commands=True))

    assert CHUNK_TICKS > 12
    assert same.original_hash == same.branch_hash == hashes[-1]
    assert without.original_hash == hashes[-1]
    assert without.branch_hash == plain.state_hash()


def start() -> Economy:
    """Return a world that has had its first tick."""
    economy = world()
    economy.advance()
    return economy


def records(journal: JournalBytes) -> list[object]:
    """Return the records behind the mark of the first tick."""
    found = list(Scan(journal.data))
    first = next(i for i, record in enumerate(found) if record.kind is RecordKind.MARK)
    return list(found[first + 1 :])
