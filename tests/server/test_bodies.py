"""Bodies are decoded strictly: whatever could be read two ways is refused, in JSON and in msgpack."""

from __future__ import annotations

import json
import re
from contextlib import suppress
from decimal import Decimal
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.bodies import DEPTH_MAX, INTEGER_MAX, JSON, MSGPACK, decode, decode_json, decode_msgpack
from server.errors import BadRequest, Code, Problem

PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-INTEGER_MAX, INTEGER_MAX)
    | st.text(st.characters(codec="utf-8"), max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(st.characters(codec="utf-8"), max_size=4), inner, max_size=4)
    ),
    max_leaves=12,
)


def depth(value: Any) -> int:
    """Return how deep a value nests."""
    if isinstance(value, dict):
        return 1 + max(map(depth, value.values()), default=0)
    return 1 + max(map(depth, value), default=0) if isinstance(value, list) else 0


@given(PLAIN)
def test_both_encodings_of_a_value_decode_to_it(value: Any) -> None:
    """What fits comes out as it went in, whichever way it was written."""
    if depth(value) > DEPTH_MAX:
        return

    assert decode_json(json.dumps(value).encode()) == value
    assert decode_json(json.dumps(value, ensure_ascii=False).encode()) == value
    assert decode_msgpack(msgpack.packb(value)) == value


@given(st.decimals(allow_nan=False, allow_infinity=False, min_value=-INTEGER_MAX, max_value=INTEGER_MAX, places=6))
def test_fractions_are_exact_as_written(number: Decimal) -> None:
    """No double comes between the text and the number."""
    decoded = decode_json(f'{{"price": {number:f}}}'.encode())

    assert Decimal(decoded["price"]) == number


@pytest.mark.parametrize("text", [b"NaN", b"Infinity", b"-Infinity", b'{"a": NaN}', b"[1, Infinity]"])
def test_json_constants_are_refused(text: bytes) -> None:
    """Python's parser would take them."""
    assert refused(text, JSON).code == Code.MALFORMED


@pytest.mark.parametrize(
    "number",
    [
        b"1e400", b"-1e400", b"1e99999999999999999999", b"9007199254740993", b"-9007199254740993",
        b"18446744073709551616", b"9007199254740993.5", b"1" * 5_000, b"1e-400", b"0." + b"1" * 200,
    ],
)  # fmt: skip
def test_numbers_that_do_not_fit_are_refused(number: bytes) -> None:
    """Beyond 2^53, beyond a double, or longer than any number needs to be."""
    assert refused(b'{"quantity": ' + number + b"}", JSON).code == Code.MALFORMED


def test_the_largest_exact_integer_is_taken() -> None:
    """2^53 is inside, 2^53 + 1 is not."""
    assert decode_json(b"[9007199254740992, -9007199254740992]") == [1 << 53, -(1 << 53)]


@pytest.mark.parametrize("body", [b'{"a": 1, "a": 1}', b'{"x": {"b": 1, "c": 2, "b": 3}}', b'{"a": 1, "\\u0061": 2}'])
def test_duplicate_keys_are_refused_wherever_they_are(body: bytes) -> None:
    """Two readers might keep different ones."""
    assert "twice" in refused(body, JSON).detail


def test_duplicate_keys_in_msgpack_are_refused() -> None:
    """The same rule in the other encoding."""
    assert "twice" in refused(b"\x82\xa1a\x01\xa1a\x02", MSGPACK).detail


@pytest.mark.parametrize(
    "body",
    [
        b"{", b'{"a": 1', b'{"a"', b'"abc', b"[1,", b"nul", b"{'a': 1}", b'{"a": 1,}', b"[1] [2]", b"// x\n1", b"01",
        b"+1", b".5", b"1.", b'"\x00"', b"\xff\xfe", b'"\xed\xa0\x80"', b"\xef\xbb\xbf{}",
        '{"a": 1}'.encode("utf-16"),
    ],
)  # fmt: skip
def test_json_that_is_none_is_refused(body: bytes) -> None:
    """Truncated, extended, in another encoding, with a byte order mark."""
    assert refused(body, JSON).code == Code.MALFORMED


@pytest.mark.parametrize("body", [b'"\\ud800"', b'{"\\udfff": 1}', b'["\\ud800x"]'])
def test_half_surrogate_pairs_are_refused(body: bytes) -> None:
    """Such a string has no UTF-8 and would break every answer that repeats it."""
    assert "surrogate" in refused(body, JSON).detail


@pytest.mark.parametrize("opening", [b"[", b'{"a":', b'[{"a":'])
@pytest.mark.parametrize("count", [9, 1_000, 10_000, 80_000])
def test_deep_nesting_is_refused_without_harm(opening: bytes, count: int) -> None:
    """However deep: no recursion, no crash."""
    assert refused(opening * count, JSON).code == Code.TOO_DEEP


def test_eight_levels_are_taken_and_brackets_in_strings_do_not_count() -> None:
    """The limit is on nesting, not on characters."""
    text = '"' + "[" * 100 + '\\"{' + '"'

    assert decode_json(f"{'[' * 8}{text}{']' * 8}".encode()) == [[[[[[[["[" * 100 + '"{']]]]]]]]
    assert decode_json(b"[" + b",".join([b"[[]]"] * 1_000) + b"]") == [[[]]] * 1_000


@pytest.mark.parametrize("filler", [b'\\"', b'"', b"\\", b"[", b'{"'])
def test_hostile_strings_are_refused_in_linear_time(filler: bytes) -> None:
    """256 KiB of any one thing costs milliseconds; a quadratic scan would not end within the test's limit."""
    assert refused(b'["' + filler * (262_144 // len(filler)), JSON).status == 400


@pytest.mark.parametrize(
    "body",
    [
        b"\x81\xa1a", b"\x92\x01", b"\x80\x80", b"\xc1", b"\xd9", b"\xdd\xff\xff\xff\xff", b"\xa2\xff\xff",
        b"\xc7\x01\x05a", b"\xd6\xff\x00\x00\x00\x01", b"\x81\x01\x02", b"\x81\x90\x02", b"\x81\xc0\x02",
        b"\x81\xc4\x01a\x01", b"\xc4\x01a", b"\xcb\x7f\xf8" + bytes(6), b"\xcb\x7f\xf0" + bytes(6),
        b"\xcf" + b"\xff" * 8, b"\xcf\x00\x20" + bytes(5) + b"\x01", b"\xca\x7f\x80\x00\x00",
    ],
)  # fmt: skip
def test_msgpack_that_json_could_not_carry_is_refused(body: bytes) -> None:
    """Truncated, trailing, extension types, other keys than strings, bytes, NaN, infinities, integers beyond 2^53."""
    assert refused(body, MSGPACK).code == Code.MALFORMED


@pytest.mark.parametrize("opening", [b"\x91", b"\x81\xa1a"])
@pytest.mark.parametrize("count", [9, 10_000])
def test_deep_msgpack_is_refused_without_harm(opening: bytes, count: int) -> None:
    """The unpacker's own limit is far above ours; beyond it the answer is the same."""
    assert refused(opening * count + b"\x01", MSGPACK).code == Code.TOO_DEEP


def test_floats_of_msgpack_are_what_their_shortest_text_says() -> None:
    """1.1 is 1.1 in both encodings, so that the same action has the same fingerprint."""
    assert decode_msgpack(msgpack.packb({"price": 1.1})) == {"price": Decimal("1.1")}


@given(st.binary(max_size=64))
def test_no_bytes_get_anything_but_a_value_or_a_refusal(body: bytes) -> None:
    """Nothing else may come out of a decoder."""
    for media in (JSON, MSGPACK):
        with suppress(BadRequest):
            decode(body, media, (media,))


def test_an_empty_body_is_refused() -> None:
    """With what is wanted instead."""
    problem = refused(b"", JSON)

    assert problem.code == Code.EMPTY_BODY
    assert JSON in problem.detail


@pytest.mark.parametrize("media", [None, "", "text/plain", "application/x-www-form-urlencoded", MSGPACK])
def test_another_content_type_is_refused_with_those_that_are_taken(media: str | None) -> None:
    """415 with Accept."""
    problem = refused(b"{}", media, (JSON,))

    assert problem.status == 415
    assert problem.headers["Accept"] == JSON


@pytest.mark.parametrize("media", ["application/json", "Application/JSON; charset=utf-8"])
def test_content_types_are_read_without_case_and_parameters(media: str) -> None:
    """As RFC 9110 has them."""
    assert decode(b"{}", media) == {}


def refused(body: bytes, media: str | None, allowed: tuple[str, ...] = (JSON, MSGPACK)) -> Problem:
    """Return how a body is refused."""
    with pytest.raises(Problem) as caught:
        decode(body, media, allowed)
    return caught.value


#: A string literal, closed or running to the end; possessive, so that no input makes it slow.
_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?', re.DOTALL)


def nests_too_deep(body: bytes) -> bool:
    """Return whether brackets outside of strings nest too deep: the plain twin of what decode_json looks at first."""
    level = 0
    for byte in _STRING.sub(b"", body):
        level += (byte in b"[{") - (byte in b"]}")
        if level > DEPTH_MAX:
            return True
    return False


@given(st.lists(st.sampled_from([b"[", b"{", b"]", b"}", b'"', b"\\", b"[[[[", b"]]", b"x"]), max_size=40))
def test_depth_is_seen_before_anything_is_read(parts: list[bytes]) -> None:
    """In whatever mixture of brackets, strings and escapes, closed or not."""
    body = b"".join(parts)
    try:
        decode_json(body)
        is_too_deep = False
    except BadRequest as refused:
        is_too_deep = refused.code == Code.TOO_DEEP

    assert is_too_deep == nests_too_deep(body)


def test_binary_columns_are_taken_where_they_are_allowed_and_nowhere_else() -> None:
    """One map `columns` of binary values; anything beside it and the rules are as ever."""
    columns = msgpack.packb({"columns": {"type": b"\1", "level": b"\2\0\0\0"}})

    assert decode(columns, MSGPACK, (MSGPACK,), binary=True) == {"columns": {"type": b"\1", "level": b"\2\0\0\0"}}
    for body, is_binary in (
        (columns, False),
        (msgpack.packb({"columns": {"type": b"\1", "level": 5}}), True),
        (msgpack.packb({"columns": {"type": b"\1"}, "more": 1}), True),
        (msgpack.packb({"actions": b"\1"}), True),
    ):
        with pytest.raises(BadRequest, match="bytes is not taken"):
            decode(body, MSGPACK, (MSGPACK,), binary=is_binary)
