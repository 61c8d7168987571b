"""The registry: every asked-for route is in it once, with a role, models and limits that hold together."""

from __future__ import annotations

import re
from collections import Counter

import pytest

from server import schemas
from server.bodies import JSON
from server.registry import BY_NAME, OPERATIONS, Operation, Role

#: The paths that were asked for (DESIGN section 3), written down apart from the registry.
ASKED = {
    ("GET", "/api/indicators"), ("GET", "/api/markets"), ("GET", "/api/markets/{id}"), ("GET", "/api/psychology"),
    ("GET", "/api/monetary"), ("GET", "/api/scarcity"), ("POST", "/api/agents/register"), ("GET", "/api/agents/{id}"),
    ("DELETE", "/api/agents/{id}"), ("POST", "/api/agents/{id}/action"), ("POST", "/api/actions"),
    ("GET", "/api/agents/{id}/actions/{client_action_id}"), ("GET", "/api/history/{indicator}"),
    ("GET", "/api/events"), ("GET", "/api/info"), ("GET", "/api/time"), ("GET", "/api/status"), ("GET", "/healthz"),
    ("GET", "/readyz"), ("GET", "/livez"), ("GET", "/health"), ("GET", "/ready"), ("GET", "/live"), ("GET", "/metrics"),
    ("GET", "/docs"), ("GET", "/openapi.json"), ("GET", "/asyncapi.json"), ("GET", "/"),
    ("GET", "/api/admin/state_hash"), ("POST", "/api/admin/events"), ("POST", "/api/admin/parameters"),
    ("POST", "/api/admin/pause"), ("POST", "/api/admin/resume"), ("POST", "/api/admin/step"),
}  # fmt: skip
ANONYMOUS_WRITES = {"register"}


def test_everything_asked_for_is_there_once() -> None:
    """No path is missing, none is declared twice."""
    counts = Counter((operation.method, operation.path) for operation in OPERATIONS)

    assert counts.keys() >= ASKED
    assert set(counts.values()) == {1}
    assert len(BY_NAME) == len(OPERATIONS)


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.name)
def test_every_operation_is_whole(operation: Operation) -> None:
    """A role, an answer, a summary; what takes a body may refuse its size and type; what needs a key may refuse it."""
    assert isinstance(operation.role, Role)
    assert operation.answers
    assert operation.summary
    assert issubclass(operation.query, schemas.Query)
    if operation.body is not None:
        assert operation.method in ("POST", "PUT", "PATCH")
        assert {413, 415} <= set(operation.problems)
        assert operation.body_bytes <= 256 * 1024
    if operation.role is not Role.ANONYMOUS:
        assert 401 in operation.problems
    for answer in operation.answers:
        assert answer.status == 204 or answer.media
        assert answer.model is None or JSON in answer.media


def test_whatever_changes_something_needs_a_key() -> None:
    """But registering, which is how one gets a key."""
    open_writes = {item.name for item in OPERATIONS if item.method != "GET" and item.role is Role.ANONYMOUS}

    assert open_writes == ANONYMOUS_WRITES


def test_only_what_asks_for_life_answers_while_the_world_opens() -> None:
    """Everything else would have nothing to answer from."""
    assert {item.path for item in OPERATIONS if item.starting} == {"/healthz", "/livez", "/health", "/live"}


def test_paths_of_agents_are_private_and_paths_of_the_economy_public() -> None:
    """The role follows from the path; nobody forgot one."""
    for operation in OPERATIONS:
        is_own = bool(re.match(r"/api/agents/\{id\}|/api/actions", operation.path))
        assert (operation.role is Role.AGENT) == is_own, operation.path
        assert (operation.role is Role.OPERATOR) == operation.path.startswith("/api/admin/"), operation.path
