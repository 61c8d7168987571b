"""Request bodies: read within a limit, then decoded strictly into plain values.

Strict means: every byte counts. Duplicate keys, unknown constants (NaN, Infinity), numbers that do not fit (beyond
2^53, 1e400), nesting deeper than 8, trailing bytes, extension types and lone surrogates are refused, in JSON and in
msgpack alike. Numbers with a fraction come out as Decimal, exact as they were written.
Source: DESIGN section 3 (Limits) and section 4, S5.
"""

from __future__ import annotations

import json
import math
import re
from decimal import Decimal, InvalidOperation
from typing import Any, NoReturn

import msgpack
from starlette.requests import Request

from server.errors import BadRequest, Code, Problem

DEPTH_MAX = 8
INTEGER_MAX = 1 << 53
"""Largest magnitude of an integer that every JSON reader keeps exact."""
DIGITS_MAX = 64
"""Longest number text that is looked at: more digits mean nothing in any field."""
SMALLEST_EXPONENT = -324
"""Of the number closest to zero that every JSON reader keeps apart from it."""
JSON = "application/json"
MSGPACK = "application/msgpack"

#: A string literal, closed or running to the end; possessive, so that no input makes it slow.
_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?', re.DOTALL)
_NO_BRACKET = bytes(set(range(256)) - set(b"[]{}"))


async def read(request: Request, limit: int) -> bytes:
    """Return the body, at most limit bytes: what is longer is cut off while it arrives.

    Raises Problem 413 above the limit and 415 for a compressed body.
    """
    encoding = request.headers.get("content-encoding", "identity").strip().lower()
    if encoding != "identity":
        raise Problem(
            Code.CONTENT_ENCODING,
            f"Content-Encoding {encoding!r} is not taken: send the body uncompressed",
            status=415,
            headers={"Accept-Encoding": "identity"},
        )
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared[:20]) > limit:
        raise _too_large(limit)
    chunks: list[bytes] = []
    size = 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > limit:
            raise _too_large(limit)
        chunks.append(chunk)
    return b"".join(chunks)


def decode(body: bytes, content_type: str | None, allowed: tuple[str, ...] = (JSON,)) -> Any:
    """Return the plain value of a body: dict, list, str, int, Decimal, bool or None.

    Raises BadRequest for an empty, malformed or too deep body and Problem 415 for another content type.
    """
    if not body:
        raise BadRequest(Code.EMPTY_BODY, f"the body is empty; send {' or '.join(allowed)}")
    media = (content_type or "").split(";")[0].strip().lower()
    if media not in allowed:
        given = f"Content-Type {media!r}" if media else "a body without Content-Type"
        raise Problem(
            Code.CONTENT_TYPE,
            f"{given} is not taken; send {' or '.join(allowed)}",
            status=415,
            headers={"Accept": ", ".join(allowed)},
        )
    return decode_msgpack(body) if media == MSGPACK else decode_json(body)


def decode_json(body: bytes) -> Any:
    """Return the value of a JSON text, or raise BadRequest saying what is wrong and where."""
    _check_brackets(body)
    try:
        text = body.decode("utf-8")
        value = json.loads(
            text,
            object_pairs_hook=_object,
            parse_constant=_constant,
            parse_int=_integer,
            parse_float=_fraction,
        )
    except UnicodeDecodeError as error:
        raise BadRequest(Code.MALFORMED, f"the body is not UTF-8 at byte {error.start}") from None
    except json.JSONDecodeError as error:
        raise BadRequest(Code.MALFORMED, f"the body is not JSON: {error.msg} at character {error.pos}") from None
    if b"\\u" in body:
        _check(value)
    return value


def decode_msgpack(body: bytes) -> Any:
    """Return the value of a msgpack message, or raise BadRequest saying what is wrong."""
    try:
        value = msgpack.unpackb(body, raw=False, strict_map_key=False, object_pairs_hook=_object)
    except BadRequest:
        raise
    except msgpack.exceptions.StackError:
        raise _too_deep() from None
    except ValueError as error:
        # all of msgpack's other refusals are ValueErrors: truncated, trailing, broken UTF-8, lengths that cannot be
        raise BadRequest(Code.MALFORMED, f"the body is not one msgpack value: {_reason(error)}") from None
    return _check(value)


def exact(value: Any) -> Any:
    """Return a value that was decoded elsewhere as decode would have given it: floats as Decimal, bounds checked.

    Raises BadRequest.
    """
    return _check(value)


def _check_brackets(body: bytes) -> None:
    if body.count(b"[") + body.count(b"{") <= DEPTH_MAX:
        return
    depth = 0
    for byte in _STRING.sub(b"", body).translate(None, _NO_BRACKET):
        # 0x5b [ and 0x7b { open; 0x5d ] and 0x7d } close
        depth += 1 if byte in b"[{" else -1
        if depth > DEPTH_MAX:
            raise _too_deep()


def _check(value: Any, depth: int = 0) -> Any:
    """Return a decoded value with floats made exact; refuse what JSON could not have carried."""
    if isinstance(value, dict):
        if depth >= DEPTH_MAX:
            raise _too_deep()
        return {_check(key): _check(item, depth + 1) for key, item in value.items()}
    if isinstance(value, list):
        if depth >= DEPTH_MAX:
            raise _too_deep()
        return [_check(item, depth + 1) for item in value]
    if isinstance(value, str):
        return _text(value)
    if value is None or isinstance(value, (bool, Decimal)):
        return value
    if isinstance(value, int):
        return _bounded(value)
    if isinstance(value, float):
        if not math.isfinite(value):
            _constant(str(value))
        return _fraction(repr(value))
    raise BadRequest(
        Code.MALFORMED, f"msgpack {type(value).__name__} is not taken; use map, array, str, int, float, bool or nil"
    )


def _object(pairs: list[tuple[Any, Any]]) -> dict[str, Any]:
    for key, _ in pairs:
        if not isinstance(key, str):
            raise BadRequest(Code.MALFORMED, f"a key is {type(key).__name__}: keys are strings")
    result = dict(pairs)
    if len(result) != len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]  # add returns None, which is false
        raise BadRequest(Code.MALFORMED, f"the key {twice[:40]!r} appears twice in one object")
    return result


def _constant(name: str) -> NoReturn:
    raise BadRequest(Code.MALFORMED, f"{name} is not a number we take: numbers are finite")


def _integer(digits: str) -> int:
    if len(digits) > 17:
        raise _number_too_large(digits)
    return _bounded(int(digits))


def _bounded(number: int) -> int:
    if not -INTEGER_MAX <= number <= INTEGER_MAX:
        raise _number_too_large(str(number) if number.bit_length() < 200 else "the number")
    return number


def _fraction(text: str) -> Decimal:
    if len(text) > DIGITS_MAX:
        raise BadRequest(Code.MALFORMED, f"the number {text[:20]}... is longer than {DIGITS_MAX} characters")
    try:
        number = Decimal(text)
    except InvalidOperation:
        # an exponent beyond any use, such as 1e99999999999999999999
        raise _number_too_large(text) from None
    if abs(number) > INTEGER_MAX:
        raise _number_too_large(text)
    if number and number.adjusted() < SMALLEST_EXPONENT:
        raise BadRequest(Code.MALFORMED, f"the number {text} is closer to zero than 1e{SMALLEST_EXPONENT}")
    return number


def _text(value: str) -> str:
    try:
        value.encode()
    except UnicodeEncodeError:
        raise BadRequest(Code.MALFORMED, "a string holds half of a surrogate pair") from None
    return value


def _number_too_large(text: str) -> BadRequest:
    return BadRequest(Code.MALFORMED, f"{text[:40]} is out of range: numbers are within +-2^53 ({INTEGER_MAX})")


def _too_deep() -> BadRequest:
    return BadRequest(Code.TOO_DEEP, f"the body nests deeper than {DEPTH_MAX} levels")


def _too_large(limit: int) -> Problem:
    return Problem(Code.TOO_LARGE, f"the body is larger than {limit} bytes, the limit of this operation", status=413)


def _reason(error: ValueError) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
