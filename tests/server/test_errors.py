"""Problem documents: RFC 9457 with our members, always encodable."""

from __future__ import annotations

import orjson

from engine.messages import Reject
from server import documents
from server.errors import CODE_TEXT, BadRequest, Code, Conflict, NotFound, Problem, Unauthorized, Unavailable


def test_a_problem_document_has_its_members_and_those_of_the_place() -> None:
    """type, title, status, detail, code, temporary, errors; instance, request_id and tick when they are known."""
    problem = BadRequest(Code.INVALID, "quantity: missing", errors=[{"field": "quantity", "problem": "missing"}])

    document = orjson.loads(problem.document("/api/x", "r-1", 7))

    assert document == {
        "type": "/docs#problem-101",
        "title": "Bad Request",
        "status": 400,
        "detail": "quantity: missing",
        "code": 101,
        "temporary": False,
        "errors": [{"field": "quantity", "problem": "missing"}],
        "instance": "/api/x",
        "request_id": "r-1",
        "tick": 7,
    }
    assert "tick" not in orjson.loads(problem.document())


def test_every_kind_of_problem_has_its_status() -> None:
    """The class says the status; the root takes it as an argument."""
    assert BadRequest(Code.INVALID, "").status == 400
    assert Unauthorized(Code.KEY_MISSING, "").status == 401
    assert NotFound(Code.UNKNOWN_PATH, "").status == 404
    assert Conflict(Code.ID_REUSED, "").status == 409
    assert Problem(Code.RATE, "", status=429).status == 429
    assert Unavailable(Code.STARTING, "").status == 503


def test_unauthorized_says_how_to_authenticate() -> None:
    """RFC 9110 wants a challenge with each 401."""
    assert Unauthorized(Code.KEY_MISSING, "").headers["WWW-Authenticate"].startswith("Bearer")


def test_unavailable_is_temporary_and_says_when() -> None:
    """Nothing was applied, so the client may try again."""
    problem = Unavailable(Code.READ_ONLY, "", retry_after=30)

    assert problem.temporary
    assert problem.headers["Retry-After"] == "30"


def test_text_that_is_no_unicode_does_not_break_the_answer() -> None:
    """Whatever a client sent and we repeat, the document is UTF-8."""
    problem = BadRequest(Code.INVALID, "field \ud800", errors=[{"field": "\udfff", "problem": "x", "allowed": "y"}])

    assert orjson.loads(problem.document())["errors"][0]["field"] == "?"


def test_every_code_is_explained_and_stands_in_its_range() -> None:
    """A client tells the area from the first digit."""
    assert set(CODE_TEXT) == set(Code)
    assert {int(code) // 100 for code in Code} == {1, 4, 5}


def test_codes_that_the_world_uses_too_are_the_ones_with_the_same_meaning() -> None:
    """A shape found wrong late, an unknown agent, a full world and a full owner: one number each, whoever says it."""
    shared = {int(code) for code in Code} & {int(reject) for reject in Reject}

    assert shared == {Code.INVALID, Code.UNKNOWN_AGENT, Code.AGENTS_FULL, Code.AGENTS_PER_OWNER}
    assert {Reject(code).name for code in shared} == {"MALFORMED", "UNKNOWN_AGENT", "AGENTS_FULL", "AGENTS_PER_OWNER"}


def test_a_problem_is_what_the_documents_say() -> None:
    """The model of the OpenAPI document takes every problem."""
    documents.Problem.model_validate_json(
        BadRequest(
            Code.INVALID, "x", errors=[{"field": "a", "problem": "b", "allowed": "c"}], headers={"X": "y"}
        ).document("/x", "r", 1)
    )
