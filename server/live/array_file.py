"""Named arrays in one file, written all or nothing and checked when read: warm starts, snapshots, receipts.

    file = magic 8s | header length u32 | its crc32 u32 | header (JSON) | arrays, each from a multiple of 64 bytes on

The header names each array with its type and shape and carries a BLAKE2b-128 over all bytes behind it.
"""

from __future__ import annotations

import hashlib
import json
import math
import mmap
import struct
from collections.abc import Callable, Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from server.live.disk import write_whole

Arrays = list[tuple[str, NDArray[Any]]]

MAGIC = b"ARENAF\r\n"
SLICE_BYTES = 1 << 20
"""Most that is written between two pauses."""
_FRAME = struct.Struct("<II")
_FIXED = len(MAGIC) + _FRAME.size
_ALIGNED = 64


class NotWhole(Exception):
    """The file does not hold what it should; its message says why."""


def write_arrays(
    path: Path, header: Mapping[str, Any], arrays: Arrays, pause: Callable[[int], None] | None = None
) -> None:
    """Write arrays under a header (JSON, without the keys `arrays` and `digest`).

    pause: called with the file's descriptor after each megabyte, so that a large file may be written in slices.
    """
    little = [(name, np.ascontiguousarray(array, array.dtype.newbyteorder("<"))) for name, array in arrays]
    digest = hashlib.blake2b(digest_size=16)
    for part in _body(little):
        digest.update(part)
    whole = {
        **header,
        "arrays": [[name, array.dtype.str, array.shape] for name, array in little],
        "digest": digest.hexdigest(),
    }
    text = json.dumps(whole, separators=(",", ":")).encode()
    # spaces up to where the first array begins
    text += b" " * (_aligned(_FIXED + len(text)) - _FIXED - len(text))
    write_whole(path, chain([MAGIC + _FRAME.pack(len(text), crc32(text)) + text], _body(little)), pause)


def read_header(path: Path) -> dict[str, Any]:
    """Return the header of a file, without looking at its arrays. Raises NotWhole, OSError."""
    with open(path, "rb") as file:
        return _header(file)


def read_arrays(path: Path) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """Return header and arrays of a file, the arrays as read-only views of a memory map of it.

    Raises NotWhole when the file is not what was written, OSError.
    """
    with open(path, "rb") as file:
        header = _header(file)
        begin = file.tell()
        data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    digest = hashlib.blake2b(digest_size=16)
    view = memoryview(data)
    for i in range(begin, len(view), SLICE_BYTES):
        digest.update(view[i : i + SLICE_BYTES])
    if digest.hexdigest() != header.get("digest"):
        raise NotWhole("damaged: its bytes do not have the checksum it names")
    arrays: dict[str, NDArray[Any]] = {}
    for name, dtype, shape in header["arrays"]:
        count = math.prod(shape)
        array = np.frombuffer(data, np.dtype(dtype), count, begin) if count else np.zeros(0, np.dtype(dtype))
        arrays[name] = array.reshape(shape)
        begin = _aligned(begin + array.nbytes)
    return header, arrays


def _header(file: BinaryIO) -> dict[str, Any]:
    """Read a header and leave the file behind it."""
    head = file.read(_FIXED)
    if len(head) < _FIXED or head[: len(MAGIC)] != MAGIC:
        raise NotWhole("not a file of arrays")
    length, checksum = _FRAME.unpack_from(head, len(MAGIC))
    text = file.read(length)
    if crc32(text) != checksum:
        raise NotWhole("damaged: the checksum of its header is wrong")
    header: dict[str, Any] = json.loads(text)
    return header


def _body(arrays: Arrays) -> Iterator[bytes | memoryview]:
    for _, array in arrays:
        yield from _slices(array)
        yield bytes(_aligned(array.nbytes) - array.nbytes)


def _slices(array: NDArray[Any]) -> Iterator[memoryview]:
    if array.nbytes:
        whole = array.reshape(-1).view(np.uint8).data
        for begin in range(0, len(whole), SLICE_BYTES):
            yield whole[begin : begin + SLICE_BYTES]


def _aligned(offset: int) -> int:
    return -(-offset // _ALIGNED) * _ALIGNED
