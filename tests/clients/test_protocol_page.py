"""The protocol page says what the code does: tables, limits and examples are held to it."""

from __future__ import annotations

import re

import pytest
from arena_client import wire
from arena_client.stream import HEARTBEATS_MISSED, Backoff
from arena_client.subscription import RESYNC_PATIENCE_FRAMES

from server import protocols, schemas
from server.clock import ManualClock
from server.config import Settings
from server.live import (
    agent_channel,
    agent_log,
    agent_records,
    desk,
    hub,
    narrowing,
    receipts,
    subscriber,
    switches,
    turns,
)
from server.live.hub import Hub
from server.metrics import Metrics
from tests.support.make_protocol import PAGE, filled, tables

TEXT = PAGE.read_text(encoding="utf-8")


def test_generated_tables_are_up_to_date() -> None:
    """Fields, actions, error, close and reject codes and the worked example are those of the code."""
    assert filled(TEXT) == TEXT


def test_every_table_has_its_place_on_the_page() -> None:
    """None is generated for nothing, none stands empty."""
    assert sorted(re.findall(r"<!-- generated: (\w+) -->", TEXT)) == sorted(tables())
    assert all(text.count("\n") > 3 for text in tables().values())


def test_both_sides_have_the_same_channels() -> None:
    """The client knows the kind of every channel of the server, and no other."""
    from server.live.frames import EVENT_CHANNELS, STATE_CHANNELS

    assert sorted(wire.STATE_CHANNELS) == sorted(STATE_CHANNELS)
    assert sorted(wire.EVENT_CHANNELS) == sorted(EVENT_CHANNELS)
    assert sorted(wire.CLIENT_OPS) == sorted(subscriber.OPS)


@pytest.mark.parametrize(
    "sentence",
    [
        f"| a message from a client | {wire.CLIENT_FRAME_MAX // 1024} KiB |",
        f"| control messages (an `action` is none) | {subscriber.CONTROL_PER_S:.0f} a second,"
        f" {subscriber.CONTROL_BURST} at once |",
        f"| actions that wait for their answer | {desk.WAITING_MAX} |",
        f"* `every` n, 1 to {narrowing.EVERY_MAX}:",
        f"* `depth` n, 1 to {narrowing.DEPTH_MAX},",
        f"keeps at most {narrowing.FORMS_MAX} forms",
        f"the tick x {1 << agent_records.PART_BITS:,} plus the number of the part",
        f"nothing happened for {agent_channel.QUIET_TICKS} ticks",
        f"Entries are kept for {Settings.resume_frames} ticks, over restarts too, in {agent_log.BYTES_MAX >> 20} MiB",
        f"set {switches.SET_TICKS:,} ticks ahead",
        f"come back within {switches.SET_TICKS - switches.RENEW_TICKS} ticks",
        f"| time to the first subscribe or auth | {subscriber.SUBSCRIBE_WITHIN_S:.0f} s |",
        f"| fragments of a message | {protocols.FRAGMENTS_MAX} |",
        f"| messages in a row that cannot be read | {subscriber.UNDECODABLE_MAX} |",
        f"| a message from the server | {wire.SERVER_FRAME_MAX // 1024**2} MiB at most",
        f"a string of at most {subscriber.ID_LENGTH_MAX} characters",
        f"more than {wire.DEPTH_MAX} levels of maps",
        f"whose `seq` is a multiple of {wire.CRC_EVERY}",
        f"Nothing at all for {HEARTBEATS_MISSED} of these",
        f"within {RESYNC_PATIENCE_FRAMES} frames",
        f"min({Backoff().cap_s:.0f} s, {Backoff().base_s} s x 2^n)",
        f"(it keeps {Settings.resume_frames})",
        f"When more than {Settings.outbox_frames_max} frames of a channel wait",
        f"the server sends one every {subscriber.PING_INTERVAL_S:.0f} s and cuts a connection that owes a pong for"
        f" {subscriber.CUT_AFTER_S:.0f} s",
        # a look that comes a second late for the ping, and another for the pong
        f"has not read for {subscriber.PING_INTERVAL_S + subscriber.STUCK_AFTER_S + 2 * hub.WATCH_S:.0f} s has been"
        f" noticed, and is cut with 4001 {subscriber.CUT_AFTER_S - subscriber.STUCK_AFTER_S:.0f} s later",
        f"({receipts.VALIDITY_TICKS} ticks from now unless you say so, at most {receipts.VALIDITY_TICKS_MAX:,})",
        f"{receipts.RETENTION_TICKS:,} ticks longer",
        f"up to {schemas.BATCH_MAX:,}, each taken or refused by itself",
        f"looked at in time ({turns.WAIT_MAX_S * 1e3:.0f} ms; {turns.FLOODED_WAIT_MAX_S * 1e3:.0f} while more come",
        f"{Settings.rate_limit:,} requests a minute and key, {Settings.rate_limit // 10} at once",
    ],
)
def test_numbers_on_the_page_are_those_of_the_code(sentence: str) -> None:
    """A changed limit needs a changed page."""
    assert sentence in " ".join(TEXT.split())


def test_the_codes_the_server_closes_with_are_in_the_table() -> None:
    """Each close code has its name and advice."""
    codes = {
        value for name, value in vars(subscriber).items() if name.isupper() and isinstance(value, int) and value >= 1000
    }
    closing = {code for code in codes if 1000 <= code <= 1015 or 4000 <= code <= 4999}

    assert closing >= {1012, 4000, 4001, 4002, 4003}
    assert closing <= set(wire.CLOSE_CODES)


def test_hello_is_described_whole() -> None:
    """Every field of the greeting and every limit in it is on the page."""
    hello = Hub("0123456789abcdef", Settings(), Metrics(), ManualClock()).hello()

    names = [*hello, *hello["limits"], *hello["channels"][0]]
    assert [name for name in names if f'"{name}":' not in TEXT] == []
