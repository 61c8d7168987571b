"""Log lines: readable or JSON, uvicorn's among them, and never broken by what is in them."""

from __future__ import annotations

import errno
import io
import json
import logging
from collections.abc import Iterator

import pytest
import structlog

from server import keys, logs
from tests.support.logged import logging_restored


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    """Give the process its logging back."""
    with logging_restored():
        yield


def test_json_lines_are_one_object_each() -> None:
    """Event, level, time and fields."""
    out = io.StringIO()
    logs.configure("json", "info", out)

    structlog.get_logger("x").info("ready", tick=7)

    line = json.loads(out.getvalue())
    assert (line["event"], line["level"], line["tick"]) == ("ready", "info", 7)
    assert line["timestamp"].endswith("Z")


def test_lines_below_the_level_are_left_out() -> None:
    """Of ours and of libraries."""
    out = io.StringIO()
    logs.configure("json", "warning", out)

    structlog.get_logger().info("quiet")
    logging.getLogger("some.library").info("quiet")
    logging.getLogger("some.library").warning("loud")

    assert [json.loads(line)["event"] for line in out.getvalue().splitlines()] == ["loud"]


def test_failures_carry_their_traceback_in_both_forms() -> None:
    """As data in JSON, as text on a terminal."""
    for form in ("json", "console"):
        out = io.StringIO()
        logs.configure(form, "info", out)
        try:
            raise ValueError("broken")
        except ValueError:
            structlog.get_logger().exception("failed")
            logging.getLogger("library").exception("failed too")

        assert out.getvalue().count("ValueError") >= 2


@pytest.mark.parametrize("form", ["json", "console"])
def test_a_traceback_shows_no_values(form: str) -> None:
    """The key a failing handler held in a variable stays out of the log, of ours and of libraries."""
    out = io.StringIO()
    logs.configure(form, "info", out)
    api_key = keys.mint()

    try:
        raise ValueError(f"{len(api_key)} characters")
    except ValueError:
        structlog.get_logger().exception("failed")
        logging.getLogger("library").exception("failed too")

    assert "characters" in out.getvalue()
    assert api_key[len(keys.PREFIX) :] not in out.getvalue()


@pytest.mark.parametrize("form", ["json", "console"])
def test_a_log_that_cannot_be_written_ends_nothing(form: str) -> None:
    """A full disk behind standard error, or a closed stream: whoever logs goes on."""

    class Full(io.StringIO):
        def write(self, text: str) -> int:
            raise OSError(errno.ENOSPC, "no space left")

    for out in (Full(), io.StringIO()):
        logs.configure(form, "info", out)
        structlog.get_logger().info("ours")
        out.close()
        structlog.get_logger().info("ours")
        logging.getLogger("library").warning("theirs")


def test_what_cannot_be_json_is_shown_as_it_is_shown_in_python() -> None:
    """A log line must never raise."""
    out = io.StringIO()
    logs.configure("json", "info", out)

    structlog.get_logger().info("odd", value=object(), **{"größe": 1})

    assert "object at" in json.loads(out.getvalue())["value"]


def test_uvicorn_tells_only_what_went_wrong() -> None:
    """Its access lines would repeat ours, with the URL's query in them; its others come with every WebSocket."""
    out = io.StringIO()
    logs.configure("json", "info", out)

    logging.getLogger("uvicorn.error").info("connection open")
    logging.getLogger("uvicorn.error").error("address already in use")

    assert logging.getLogger("uvicorn.access").disabled
    assert [json.loads(line)["event"] for line in out.getvalue().splitlines()] == ["address already in use"]
