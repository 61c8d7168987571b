"""Columns of a batch: values of any kind become the documented bytes, and the answer's bytes become arrays."""

from __future__ import annotations

import struct
import subprocess
import sys
from array import array
from decimal import Decimal
from typing import Any

import msgpack
import numpy as np
import pytest
from arena_client.columns import CODES, decode_answer, encode_columns

from server.batches import BINARY
from tests.support.deadlines import seconds


def columns_of(**columns: Any) -> dict[str, bytes]:
    """Return the binary columns of a body."""
    found: dict[str, bytes] = msgpack.unpackb(encode_columns(columns))["columns"]
    return found


def test_the_bytes_are_those_of_the_page() -> None:
    """Little-endian, one value after another; names filled up with zero bytes."""
    found = columns_of(
        agent_id=["a17", 18], type=["limit", "cancel"], client_action_id=["x-1", "long-name"], market=[12, -1],
        side=["buy", 0], quantity=[5, 0], price=["1.25", 0], order_id=["0", "4711"], valid_until_tick=-1,
    )  # fmt: skip

    assert found == {
        "agent_id": struct.pack("<qq", 17, 18),
        "type": b"\x01\x03",
        "client_action_id": b"x-1\0\0\0\0\0\0long-name",
        "market": struct.pack("<bb", 12, -1),
        "side": b"\x01\x00",
        "quantity": struct.pack("<qq", 5, 0),
        "price_ucr": struct.pack("<qq", 1_250_000, 0),
        "order_id": struct.pack("<qq", 0, 4711),
        "valid_until_tick": struct.pack("<qq", -1, -1),
    }


def test_client_and_server_know_the_same_columns() -> None:
    """The same names, and the same sizes of their values."""
    assert {name: array(code).itemsize for name, code in CODES.items()} == {
        name: np.dtype(dtype).itemsize for name, (dtype, _, _) in BINARY.items()
    }


def test_arrays_are_taken_as_they_are() -> None:
    """Of the standard library or of numpy, whatever their own type is."""
    lists = columns_of(agent_id=1, type="market", client_action_number=[1, 2], quantity=[5, 6], sentiment=[0.5, 1])
    arrays = columns_of(
        agent_id=1, type="market", client_action_number=array("Q", [1, 2]), quantity=array("h", [5, 6]),
        sentiment=array("d", [0.5, 1]),
    )  # fmt: skip
    numpy = columns_of(
        agent_id=1, type=np.array([2, 2], ">i4"), client_action_number=np.array([1, 2], np.uint32),
        quantity=np.array([5, 6], np.int16), sentiment=np.array([0.5, 1], np.float32),
    )  # fmt: skip

    assert lists == arrays == numpy
    assert columns_of(type=[3], client_action_id=np.array([b"abc"], "S5"))["client_action_id"] == b"abc\0\0"


@pytest.mark.parametrize(
    ("price", "ucr"), [("1.25", 1_250_000), (1, 10**6), (Decimal("0.000001"), 1), (0.1, 100_000), (0, 0)]
)
def test_money_is_exact(price: Any, ucr: int) -> None:
    """Credits become millionths without a float in between."""
    assert columns_of(type=["limit"], price=price)["price_ucr"] == struct.pack("<q", ucr)
    assert columns_of(type=["limit"], amount=[price])["amount_ucr"] == struct.pack("<q", ucr)


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"type": "limit"}, "lengths"),
        ({"type": ["limit", "limit"], "quantity": [1]}, "lengths"),
        ({"type": ["limit"], "colour": "red"}, "colour is no column"),
        ({"type": ["limit"], "price": "1.0000001"}, "more than six decimals"),
        ({"type": ["limit"], "quantity": 1.5}, "quantity: a value does not fit"),
        ({"type": ["limit"], "quantity": 1 << 63}, "quantity: a value does not fit"),
        ({"type": ["limits"]}, "type: a value does not fit"),
        ({"type": ["limit"], "client_action_id": "x" * 65}, "at most 64"),
        ({"type": ["limit"], "quantity": np.array([1.5])}, "quantity: a value does not fit"),
    ],
)
def test_what_does_not_fit_is_said(columns: dict[str, Any], said: str) -> None:
    """Before anything is sent."""
    with pytest.raises(ValueError, match=said):
        encode_columns(columns)


def test_an_answer_becomes_arrays_and_errors() -> None:
    """What was refused is an error of the client's tree, with the places it is of."""
    error = {"indexes": [1], "status": 404, "code": 110, "title": "Not Found", "detail": "no agent", "temporary": False}
    columns = {
        "status": struct.pack("<HH", 202, 404), "code": struct.pack("<HH", 0, 110), "seq": struct.pack("<qq", 9, 0),
        "duplicate": b"\x01\x00", "filled": struct.pack("<qq", 3, 0),
    }  # fmt: skip
    body = msgpack.packb({"tick": 5, "accepted": 1, "refused": 1, "columns": columns, "errors": [error]})

    outcome = decode_answer(body)

    assert (outcome.tick, outcome.accepted, outcome.refused) == (5, 1, 1)
    assert (outcome.status.tolist(), outcome.code.tolist()) == ([202, 404], [0, 110])
    assert (outcome.seq.tolist(), outcome.duplicate.tolist()) == ([9, 0], [1, 0])
    assert {name: column.tolist() for name, column in outcome.outcomes.items()} == {"filled": [3, 0]}
    ((places, problem),) = outcome.errors
    assert (places, problem.status, problem.detail) == ([1], 404, "no agent")
    assert np.asarray(outcome.seq).dtype == np.int64


def test_numpy_is_not_needed() -> None:
    """The client works where it is not installed."""
    program = (
        "import sys; sys.modules['numpy'] = None\n"
        "from arena_client.columns import encode_columns\n"
        "import arena_client.rest\n"
        "assert encode_columns({'type': ['limit'], 'quantity': 5})\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=seconds(60), check=False,
        env={"PYTHONPATH": "clients/python"},
    )  # fmt: skip

    assert (done.returncode, done.stderr) == (0, "")
