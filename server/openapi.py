"""The registry as OpenAPI 3.1: what /openapi.json answers and /docs is rendered from."""

from __future__ import annotations

import re
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from server import documents, schemas
from server.bodies import JSON
from server.errors import CODE_TEXT, MEDIA_TYPE
from server.registry import OPERATIONS, Answer, Operation, Role

VERSION = "3.1.0"
_PLACEHOLDER = re.compile(r"\{(\w+)\}")
_REFERENCE = "#/components/schemas/{model}"
_PROBLEM_TEXT = {
    400: "the request is malformed; errors[] names every mistake and what is allowed",
    401: "no API key, or not one of ours",
    404: "no such thing, or not yours",
    406: "the answer does not exist in an accepted format",
    409: "the id was used for something else, or no place is left",
    410: "it was there and is no longer",
    413: "the body is too large",
    415: "the body's content type or encoding is not taken",
    422: "the world refused the action; the document has its receipt",
    429: "too many requests, or too many actions wait; Retry-After says when",
    500: "a mistake of ours",
    503: "not now, surely not applied; Retry-After says when",
    504: "unknown whether it is applied; ask for the receipt",
}
_PATH_PARAMETERS: dict[str, dict[str, Any]] = {
    "indicator": {"type": "string", "description": "name of a series, such as cpi, food.price or oil.scarcity"},
    "client_action_id": {"type": "string", "pattern": schemas.ID_PATTERN, "description": "your name of the action"},
    "name": {"type": "string", "enum": ["arena.css", "live.js"], "description": "file"},
}
_AGENT_ID = {"type": "string", "pattern": r"^a[1-9][0-9]{0,15}$", "description": "agent_id, from registering"}
_MARKET_ID = {"type": "string", "pattern": r"^[a-z_0-9]{1,32}$", "description": "id (0 to 31) or name of a market"}


def document(version: str) -> dict[str, Any]:
    """Return the OpenAPI document. version: of the server."""
    models = _models()
    references, definitions = models_json_schema([(model, "validation") for model in models], ref_template=_REFERENCE)
    schema_of = {model: references[(model, "validation")] for model in models}
    paths: dict[str, dict[str, Any]] = {}
    for operation in OPERATIONS:
        paths.setdefault(operation.path, {})[operation.method.lower()] = _operation(operation, schema_of)
    return {
        "openapi": VERSION,
        "info": {
            "title": "Living Economy Arena",
            "version": version,
            "description": "A live economy that anyone can watch and join. Streams: /asyncapi.json.",
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "servers": [{"url": "/"}],
        "tags": [{"name": name} for name in dict.fromkeys(operation.tag for operation in OPERATIONS)],
        "paths": paths,
        "components": {
            "schemas": definitions["$defs"],
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer", "description": "an API key, ak_..."},
                "key": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
            },
        },
        "x-problem-codes": {str(int(code)): text for code, text in CODE_TEXT.items()},
    }


def _models() -> list[type[BaseModel]]:
    found: dict[type[BaseModel], None] = {documents.Problem: None, documents.Refusal: None}
    for operation in OPERATIONS:
        body = operation.body or ()
        found |= dict.fromkeys(body if isinstance(body, tuple) else (body,))
        found |= {answer.model: None for answer in operation.answers if answer.model is not None}
    return [*found, schemas.BatchColumns, *schemas.BATCH_MODELS]


def _operation(operation: Operation, schema_of: dict[type[BaseModel], Any]) -> dict[str, Any]:
    result: dict[str, Any] = {
        "operationId": operation.name,
        "summary": operation.summary,
        "tags": [operation.tag],
        "x-role": operation.role.value,
        "parameters": [*_path_parameters(operation), *_query_parameters(operation), *_header_parameters(operation)],
        "responses": _responses(operation, schema_of),
        "security": [{"bearer": []}, {"key": []}]
        if operation.role is not Role.ANONYMOUS
        else [{}, {"bearer": []}, {"key": []}],
    }
    if operation.is_operators:
        result["servers"] = [{"url": "http://127.0.0.1:8001", "description": "the operator's port, loopback only"}]
    if operation.text:
        result["description"] = operation.text
    if operation.body is not None:
        schema = _body_schema(operation.body, schema_of)
        result["requestBody"] = {
            "required": not operation.body_optional,
            "description": f"at most {operation.body_bytes} bytes, nested at most 8 deep, uncompressed",
            "content": {media: {"schema": schema} for media in operation.body_media},
        }
    return result


def _body_schema(body: type[BaseModel] | tuple[type[BaseModel], ...], schema_of: dict[type[BaseModel], Any]) -> Any:
    if body is schemas.Batch:
        other = {"description": "anything else gets an error of its own, and the other items are taken all the same"}
        items = {"anyOf": [*(schema_of[model] for model in schemas.BATCH_MODELS), other]}
        actions = {"type": "array", "minItems": 1, "maxItems": schemas.BATCH_MAX, "items": items}
        return {"anyOf": [_closed("actions", actions), schema_of[schemas.BatchColumns]]}
    if isinstance(body, tuple):
        mapping = {name: schema_of[model]["$ref"] for name, model in schemas.ACTION_MODELS.items()}
        return {
            "oneOf": [schema_of[model] for model in body],
            "discriminator": {"propertyName": "type", "mapping": mapping},
        }
    return schema_of[body]


def _closed(name: str, schema: Any) -> dict[str, Any]:
    """Return the schema of an object with one field."""
    return {"type": "object", "required": [name], "additionalProperties": False, "properties": {name: schema}}


def _path_parameters(operation: Operation) -> list[dict[str, Any]]:
    parameters = []
    for name in _PLACEHOLDER.findall(operation.path):
        schema = dict(_PATH_PARAMETERS.get(name) or (_AGENT_ID if "/agents/" in operation.path else _MARKET_ID))
        text = schema.pop("description")
        parameters.append({"name": name, "in": "path", "required": True, "description": text, "schema": schema})
    return parameters


def _query_parameters(operation: Operation) -> list[dict[str, Any]]:
    properties = operation.query.model_json_schema(by_alias=True).get("properties", {})
    return [_query_parameter(name, dict(schema)) for name, schema in properties.items()]


def _query_parameter(name: str, schema: dict[str, Any]) -> dict[str, Any]:
    text = schema.pop("description", "")
    schema.pop("title", None)
    options = [option for option in schema.pop("anyOf", []) if option != {"type": "null"}]
    if options:
        schema |= options[0]
    if schema.get("default", ...) is None:
        del schema["default"]
    return {"name": name, "in": "query", "required": False, "description": text, "schema": schema}


def _header_parameters(operation: Operation) -> list[dict[str, Any]]:
    return [
        {
            "name": header.name,
            "in": "header",
            "required": False,
            "description": header.text,
            "schema": {"type": "string", "pattern": header.pattern},
        }
        for header in operation.headers
    ]


def _responses(operation: Operation, schema_of: dict[type[BaseModel], Any]) -> dict[str, Any]:
    responses: dict[str, Any] = {}
    for answer in operation.answers:
        responses.setdefault(str(answer.status), _response(answer, schema_of))
        if answer.model is not None:
            _add_model(responses[str(answer.status)], schema_of[answer.model])
    if operation.method == "GET" and operation.tag in ("economy", "history"):
        responses["304"] = {"description": "unchanged: the ETag in If-None-Match is the current one"}
    for status in sorted(
        {400, 429, 500, *operation.problems, *((401,) if operation.role is not Role.ANONYMOUS else ())}
    ):
        model = documents.Refusal if status == 422 else documents.Problem
        responses[str(status)] = {
            "description": _PROBLEM_TEXT[status],
            "content": {MEDIA_TYPE: {"schema": schema_of[model]}},
        }
    return responses


def _response(answer: Answer, schema_of: dict[type[BaseModel], Any]) -> dict[str, Any]:
    response: dict[str, Any] = {"description": answer.text, "headers": _HEADERS}
    if answer.status != 204:
        response["content"] = {
            media: {"schema": {"anyOf": []} if media == JSON and answer.model else {"type": "object"}}
            if media == JSON
            else {"schema": {"type": "string"}}
            for media in answer.media
        }
    return response


def _add_model(response: dict[str, Any], schema: Any) -> None:
    options = response["content"][JSON]["schema"]["anyOf"]
    if schema not in options:
        options.append(schema)


_HEADERS = {
    "X-Request-Id": {"schema": {"type": "string"}, "description": "yours when you sent a decent one, else ours"},
    "Arena-Tick": {"schema": {"type": "integer"}, "description": "the published tick"},
}
