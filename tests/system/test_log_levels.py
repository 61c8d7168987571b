"""Rows 4.76.1 to 4.76.4: a whole server logs critical failures, degradation, normal operation and details by level."""

from __future__ import annotations

import re

import pytest

from server import keys
from server.clock import ManualClock
from server.live.errors import Frozen
from server.live.ticker import LATENESS_SAID_S
from tests.support.arena import run_server
from tests.support.logged import logged


async def test_each_level_tells_what_it_is_for() -> None:
    """One life of a server: an agent comes and acts, a tick is late, money appears from nowhere."""
    with logged() as log:
        async with run_server() as arena:
            bot = await arena.register()
            await bot.act({"client_action_id": "one", "type": "borrow", "amount": 1})
            await arena.step()
            assert isinstance(arena.clock, ManualClock)
            arena.clock.advance(2 * LATENESS_SAID_S)
            await arena.step(3)
            async with arena.ticker.settled():
                arena.economy.state.cash[0] += 1_000_000
            with pytest.raises(Frozen):
                await arena.step()

    assert {"world_frozen", "invariant_broken"} <= log.lines("error").keys()
    late = log.lines("warning")["tick_began_late"]
    assert late["before_ms"].keys() == {"kernels", "frames", "waited", "published"}, "of the tick before"
    assert late["before_ms"]["published"] == 0, "the clock stood still while it was made visible"
    assert {"ready", "agent_registered", "stopped"} <= log.lines("info").keys()
    assert {"request", "tick", "action_decided"} <= log.lines("debug").keys()
    assert log.lines("info")["agent_registered"]["agent"] == bot.agent_id
    assert not re.search(keys.PREFIX + "[A-Za-z0-9_-]{43}", log.out.getvalue()), "no key in any line"
