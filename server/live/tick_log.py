"""What a tick leaves in the log, level by level; failures are logged where they are met.

WARNING: unusual patterns of the world. INFO: whatever else happened in it, agents that came and agents that went.
DEBUG: every tick and what became of every action. Source: specification 004, logging levels.
"""

from __future__ import annotations

import numpy as np
import structlog

from engine.events import TickReport
from engine.messages import Kind, Status
from server.live.view import View
from server.logs import DEBUG

UNUSUAL = frozenset(
    {"panic_began", "euphoria_began", "volatility_began", "market_halted", "catastrophe_struck", "agent_defaulted"}
)
"""Names of events that somebody should look at; a healthy economy has a handful an hour."""
_MILESTONES = {Kind.REGISTER: "agent_registered", Kind.UNREGISTER: "agent_unregistered"}

log = structlog.get_logger("arena.world")


def log_tick(view: View) -> None:
    """Write the lines of a published tick."""
    report = view.report
    outcomes = report.outcomes
    for row in outcomes[np.isin(outcomes["kind"], tuple(_MILESTONES)) & (outcomes["status"] == Status.DONE)]:
        log.info(_MILESTONES[Kind(int(row["kind"]))], tick=report.tick, agent=f"a{row['agent_id']}")
    for agent in report.fired.tolist():
        log.info("switch_fired", tick=report.tick, agent=f"a{agent}")
    for event in report.events:
        data = event.data | ({"agent": f"a{event.data['agent']}"} if "agent" in event.data else {})
        write = log.warning if event.name in UNUSUAL else log.info
        write(event.name, tick=event.tick, **data)
    # asked first: a line per action is made for nobody otherwise
    if log.is_enabled_for(DEBUG):
        _log_details(report)


def _log_details(report: TickReport) -> None:
    columns = ("seq", "agent_id", "kind", "status", "code", "filled")
    rows = zip(*(report.outcomes[name].tolist() for name in columns), strict=True)
    for seq, agent, kind, status, code, filled in rows:
        log.debug(
            "action_decided",
            tick=report.tick,
            seq=seq,
            agent=f"a{agent}",
            kind=Kind(kind).name.lower(),
            status=Status(status).name.lower(),
            code=code,
            filled=filled,
        )
    log.debug(
        "tick", tick=report.tick, actions=len(report.outcomes), updates=len(report.updates), events=len(report.events)
    )
