"""Request bodies: read within a limit, then decoded strictly into plain values.

Strict means: every byte counts. Duplicate keys, unknown constants (NaN, Infinity), numbers that do not fit (beyond
2^53, 1e400), nesting deeper than 8, trailing bytes, extension types and lone surrogates are refused, in JSON and in
msgpack alike. Numbers with a fraction come out as Decimal, exact as they were written.
Source: DESIGN section 3 (Limits) and section 4, S5.
"""

from __future__ import annotations

import json
import math
from decimal import Decimal, InvalidOperation
from typing import Any, NoReturn

import msgpack
import numpy as np
from numpy.typing import NDArray
from starlette.requests import Request

from engine.kernels import short_kernel
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

_QUOTE, _BACKSLASH = 0x22, 0x5C
_OPENING, _CLOSING = (0x5B, 0x7B), (0x5D, 0x7D)
"""[ and {, ] and }."""


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


def pack(value: Any) -> bytes:
    """Return a plain value as msgpack; bytes become binary values."""
    packed: bytes = msgpack.packb(value)
    return packed


def media_of(content_type: str | None) -> str:
    """Return the media type of a Content-Type header, empty without one."""
    return (content_type or "").split(";")[0].strip().lower()


def decode(body: bytes, content_type: str | None, allowed: tuple[str, ...] = (JSON,), *, binary: bool = False) -> Any:
    """Return the plain value of a body: dict, list, str, int, Decimal, bool or None.

    binary: whether a msgpack body may be one map `columns` of binary values; these are bytes then.
    Raises BadRequest for an empty, malformed or too deep body and Problem 415 for another content type.
    """
    if not body:
        raise BadRequest(Code.EMPTY_BODY, f"the body is empty; send {' or '.join(allowed)}")
    media = media_of(content_type)
    if media not in allowed:
        given = f"Content-Type {media!r}" if media else "a body without Content-Type"
        raise Problem(
            Code.CONTENT_TYPE,
            f"{given} is not taken; send {' or '.join(allowed)}",
            status=415,
            headers={"Accept": ", ".join(allowed)},
        )
    return decode_msgpack(body, binary=binary) if media == MSGPACK else decode_json(body)


def decode_json(body: bytes) -> Any:
    """Return the value of a JSON text, or raise BadRequest saying what is wrong and where."""
    _check_brackets(body)
    try:
        text = body.decode("utf-8")
        value = json.loads(
            text,
            object_pairs_hook=_json_object,
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


def decode_msgpack(body: bytes, *, binary: bool = False) -> Any:
    """Return the value of a msgpack message, or raise BadRequest saying what is wrong. binary: as decode says."""
    try:
        value = msgpack.unpackb(body, raw=False, strict_map_key=False, object_pairs_hook=_object)
    except BadRequest:
        raise
    except msgpack.exceptions.StackError:
        raise _too_deep() from None
    except ValueError as error:
        # all of msgpack's other refusals are ValueErrors: truncated, trailing, broken UTF-8, lengths that cannot be
        raise BadRequest(Code.MALFORMED, f"the body is not one msgpack value: {_reason(error)}") from None
    if binary and _is_binary(value):
        return value
    return _check(value)


def exact(value: Any) -> Any:
    """Return a value that was decoded elsewhere as decode would have given it: floats as Decimal, bounds checked.

    Raises BadRequest.
    """
    return _check(value)


def _is_binary(value: Any) -> bool:
    """Whether there is nothing in it but a map of binary columns."""
    if not isinstance(value, dict) or value.keys() != {"columns"} or not isinstance(value["columns"], dict):
        return False
    columns = value["columns"].values()
    return len(columns) > 0 and all(type(column) is bytes for column in columns)


def warm() -> None:
    """Load or compile the kernel that looks at brackets."""
    _is_too_deep(np.frombuffer(b"{}", np.uint8))


def _check_brackets(body: bytes) -> None:
    if body.count(b"[") + body.count(b"{") > DEPTH_MAX and _is_too_deep(np.frombuffer(body, np.uint8)):
        raise _too_deep()


@short_kernel
def _is_too_deep(body: NDArray[np.uint8]) -> bool:
    """Whether brackets outside of strings nest deeper than DEPTH_MAX. A regular expression took ten times as long."""
    depth, i = 0, 0
    while i < len(body):
        code = body[i]
        if code == _QUOTE:
            i += 1
            while i < len(body) and body[i] != _QUOTE:
                i += 2 if body[i] == _BACKSLASH else 1
        elif code in _OPENING:
            depth += 1
            if depth > DEPTH_MAX:
                return True
        elif code in _CLOSING:
            depth -= 1
        i += 1
    return False


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


def _json_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return an object of JSON, whose keys are texts always."""
    result = dict(pairs)
    return result if len(result) == len(pairs) else _object(pairs)


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
