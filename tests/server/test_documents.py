"""Models of answers: closed, so that a test that uses one notices every field that was forgotten in it."""

from __future__ import annotations

import inspect

import pytest
from pydantic import BaseModel

from engine.public import INDICATOR_FIELDS, MARKET_FIELDS, MONETARY_FIELDS, PSYCHOLOGY_FIELDS, RESOURCE_FIELDS, Field
from server import documents

MODELS = [
    model
    for _, model in inspect.getmembers(documents, inspect.isclass)
    if issubclass(model, BaseModel) and model is not BaseModel
]


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.__name__)
def test_models_are_closed_and_explained(model: type[BaseModel]) -> None:
    """No field may come that the documents do not tell."""
    assert model.model_config["extra"] == "forbid"
    assert model.__doc__


@pytest.mark.parametrize(
    ("model", "fields"),
    [
        (documents.Indicators, INDICATOR_FIELDS),
        (documents.Psychology, PSYCHOLOGY_FIELDS),
        (documents.Monetary, MONETARY_FIELDS),
        (documents.Market, MARKET_FIELDS),
    ],
)
def test_values_are_exactly_the_public_ones(model: type[BaseModel], fields: tuple[Field, ...]) -> None:
    """The catalogue of the engine, field by field."""
    values = model.model_fields["values"].annotation
    assert values is not None
    assert list(values.model_fields) == [field.name for field in fields] or set(values.model_fields) == {
        field.name for field in fields
    }


def test_rows_of_lists_have_their_key_beside_the_values() -> None:
    """id and name, then everything of the catalogue."""
    schema = documents.Scarcity.model_json_schema()["$defs"]["Resource"]["properties"]

    assert set(schema) == {"id", "name"} | {field.name for field in RESOURCE_FIELDS}
