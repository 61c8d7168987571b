"""OpenAPI 3.1 from the registry: complete, resolvable, bounded."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jsonschema_rs
import pytest

from server import openapi
from server.registry import OPERATIONS
from server.schemas import ACTION_MODELS

DOCUMENT = openapi.document("1.2.3")
METHODS = ("get", "post", "delete", "put", "patch")


def operations() -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yield path, method and operation."""
    for path, item in DOCUMENT["paths"].items():
        for method, operation in item.items():
            yield path, method, operation


def nodes(value: Any, where: str = "#") -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield every object of the document with its place."""
    if isinstance(value, dict):
        yield where, value
        for key, item in value.items():
            yield from nodes(item, f"{where}/{key}")
    elif isinstance(value, list):
        for i, item in enumerate(value):
            yield from nodes(item, f"{where}/{i}")


def test_it_is_openapi_3_1_with_every_operation_of_the_registry() -> None:
    """Nothing more, nothing less."""
    assert DOCUMENT["openapi"] == "3.1.0"
    assert DOCUMENT["info"]["version"] == "1.2.3"
    assert {(method.upper(), path) for path, method, _ in operations()} == {(o.method, o.path) for o in OPERATIONS}
    assert all(method in METHODS for _, method, _ in operations())


def test_operation_ids_are_unique() -> None:
    """Generated clients name their methods after them."""
    names = [operation["operationId"] for _, _, operation in operations()]

    assert len(set(names)) == len(names)


def test_every_reference_leads_somewhere() -> None:
    """And only into the document itself: it works offline."""
    for where, node in nodes(DOCUMENT):
        if "$ref" in node:
            target: Any = DOCUMENT
            for part in node["$ref"].removeprefix("#/").split("/"):
                target = target[part]
            assert isinstance(target, dict), where


def test_every_path_parameter_is_declared() -> None:
    """As required, in the path."""
    for path, _, operation in operations():
        declared = {item["name"] for item in operation["parameters"] if item["in"] == "path"}
        assert declared == {part[1:-1] for part in path.split("/") if part.startswith("{")}
        assert all(item["required"] for item in operation["parameters"] if item["in"] == "path")


def test_every_parameter_and_every_field_that_comes_in_has_bounds() -> None:
    """Each number a minimum and a maximum, each text a pattern, an enumeration or a length (row 4.79.3)."""
    for path, _, operation in operations():
        schemas = [item["schema"] for item in operation["parameters"] if item["name"] not in ("indicator", "id")]
        for schema in schemas:
            assert is_bounded(schema), (path, schema)
    for model in ACTION_MODELS.values():
        for name, schema in DOCUMENT["components"]["schemas"][model.__name__]["properties"].items():
            assert is_bounded(schema), (model.__name__, name, schema)


def is_bounded(schema: dict[str, Any]) -> bool:
    """Return whether a schema of something that comes in leaves nothing open."""
    if "anyOf" in schema:
        return all(is_bounded(option) for option in schema["anyOf"])
    if "const" in schema or "enum" in schema or schema.get("type") == "null":
        return True
    if schema.get("type") in ("integer", "number"):
        return ("minimum" in schema or "exclusiveMinimum" in schema) and "maximum" in schema
    return schema.get("type") == "string" and ("pattern" in schema or "maxLength" in schema)


def test_bodies_say_their_limits_and_what_an_action_is() -> None:
    """Eleven types told apart by `type`, closed for other fields."""
    body = DOCUMENT["paths"]["/api/agents/{id}/action"]["post"]["requestBody"]

    schema = body["content"]["application/json"]["schema"]
    assert "16384 bytes" in body["description"]
    assert set(schema["discriminator"]["mapping"]) == set(ACTION_MODELS)
    assert len(schema["oneOf"]) == 11
    for model in ACTION_MODELS.values():
        assert DOCUMENT["components"]["schemas"][model.__name__]["additionalProperties"] is False


@pytest.mark.parametrize(
    ("action", "is_valid"),
    [
        ({"client_action_id": "a", "type": "cancel", "order_id": "1"}, True),
        ({"client_action_id": "a", "type": "cancel", "order_id": 1}, False),
        ({"client_action_id": "a", "type": "cancel", "order_id": "1", "x": 1}, False),
        ({"client_action_id": "a", "type": "borrow", "amount": "1.5"}, True),
        ({"client_action_id": "a", "type": "borrow", "amount": 0}, False),
        ({"client_action_id": "a", "type": "market", "market": "food", "side": "buy", "quantity": 1}, True),
        ({"client_action_id": "a", "type": "market", "market": "gold", "side": "buy", "quantity": 1}, False),
    ],
)
def test_the_published_schema_accepts_what_the_server_accepts(action: dict[str, Any], is_valid: bool) -> None:
    """A validator that knows nothing of us reads the document the same way."""
    schema = DOCUMENT["paths"]["/api/agents/{id}/action"]["post"]["requestBody"]["content"]["application/json"][
        "schema"
    ]
    validator = jsonschema_rs.validator_for({**schema, "components": DOCUMENT["components"]})

    assert validator.is_valid(action) is is_valid


def test_problems_and_roles_are_told_for_every_operation() -> None:
    """400, 429 and 500 everywhere, 401 wherever a key is needed; the role as x-role and as security."""
    for path, _, operation in operations():
        statuses = set(operation["responses"])
        assert {"400", "429", "500"} <= statuses, path
        needs_key = operation["x-role"] != "anonymous"
        assert ("401" in statuses) >= needs_key
        assert ({} in operation["security"]) is not needs_key
