"""How the kernels are compiled that work on many arrays at once, and what they share.

Without numba's runtime an array is only borrowed: passing it on or slicing it costs no atomic reference counts. With
them an action of an outside agent took 1 600 ns instead of 180, and a tick of 100,000 residents 0.2 ms more. Such a
kernel cannot allocate, so scratch comes in as arguments.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic, overload
from numpy.typing import NDArray

F = TypeVar("F", bound=Callable[..., Any])

_READ, _KEEP, _DATA = 0, 3, 1
"""Arguments of llvm.prefetch: the line will be read, it should stay in every cache, it is no code."""


def kernel(function: F) -> F:
    """Compile a function and keep its machine code on disk."""
    return _compiled(function, nogil=True)


def short_kernel(function: F) -> F:
    """Compile a function as kernel does, for calls of the event loop that take a tenth of a millisecond.

    It keeps the interpreter's lock meanwhile. Others take it where it is given up, and may have it for a millisecond:
    a batch of 1,000 actions gave it up ten times, now four, and beside a busy thread waited as often.
    """
    return _compiled(function, nogil=False)


def _compiled(function: F, *, nogil: bool) -> F:
    options: dict[str, Any] = {"cache": True, "nogil": nogil, "error_model": "numpy", "_nrt": False}
    compiled: F = njit(**options)(function)
    return compiled


class Straight:
    """A kernel whose arguments have the same types in every call: what they are is looked at in the first one only.

    Trusts its caller: an array of another type, or that is not C-contiguous, would be read wrongly. With fifty arrays
    a call costs a sixth (7.7 -> 1.2 us). A kernel that was compiled for other types as well is called as usual.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function
        self._entry: Callable[..., Any] | None = None

    def __call__(self, *arguments: Any) -> Any:
        """Call the kernel."""
        if self._entry is not None:
            return self._entry(*arguments)
        value = self._function(*arguments)
        # none where kernels are interpreted
        compiled = list(getattr(self._function, "overloads", {}).values())
        if len(compiled) == 1:
            self._entry = compiled[0].entry_point
        return value


@kernel
def whole(number: Any) -> int:
    """Return an integer of any width as int64, so that kernels compile once."""
    return int(np.int64(number))


def prefetch(array: Any, index: Any) -> None:
    """Tell the processor that an element will be needed; nothing else happens. index: flat, unsigned, inside.

    A kernel that names what it needs a while ahead waits once for many elements instead of once for each.
    """


@overload(prefetch)
def _prefetch(array: Any, index: Any) -> Callable[..., None]:
    def compiled(array: Any, index: Any) -> None:
        _prefetch_element(array, index)  # type: ignore[call-arg]  # the typing context is numba's

    return compiled


@intrinsic
def _prefetch_element(typing_context: Any, array: Any, index: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        view = cgutils.create_struct_proxy(array)  # type: ignore[no-untyped-call]
        data = view(context, builder, arguments[0]).data
        byte = builder.bitcast(builder.gep(data, [arguments[1]]), ir.IntType(8).as_pointer())
        number = ir.IntType(32)
        takes = ir.FunctionType(ir.VoidType(), [byte.type, number, number, number])
        instruction = builder.module.declare_intrinsic("llvm.prefetch", [byte.type], takes)
        builder.call(instruction, [byte, *(ir.Constant(number, flag) for flag in (_READ, _KEEP, _DATA))])
        return context.get_dummy_value()

    return types.none(array, index), generate


def copy_at_once(pairs: Iterable[tuple[NDArray[Any], NDArray[Any]]]) -> None:
    """Copy arrays, given as (target, source) of the same type and shape and C-contiguous, in one call of a kernel.

    numpy gives the interpreter up for each of them: beside a busy event loop the hundred arrays of a world with 100,000
    outside agents took 48 ms instead of 7.5, most of it waiting to have the interpreter back.
    """
    places = [(target.ctypes.data, source.ctypes.data, source.nbytes) for target, source in pairs]
    _copy_all(np.array(places, np.int64).reshape(-1, 3))


@kernel
def _copy_all(places: NDArray[np.int64]) -> None:
    """Copy bytes, shape (n, 3): address of the target, of the source, how many."""
    for i in range(len(places)):
        _copy_bytes(places[i, 0], places[i, 1], places[i, 2])


def _copy_bytes(target: int, source: int, size: int) -> None:
    """Copy bytes from one address to another; the two do not overlap."""
    ctypes.memmove(int(target), int(source), int(size))


@overload(_copy_bytes)
def _copy_bytes_compiled(target: Any, source: Any, size: Any) -> Callable[..., None]:
    def compiled(target: Any, source: Any, size: Any) -> None:
        _copy_memory(target, source, size)  # type: ignore[call-arg]  # the typing context is numba's

    return compiled


@intrinsic
def _copy_memory(typing_context: Any, target: Any, source: Any, size: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        byte = ir.IntType(8).as_pointer()
        to, of = (builder.inttoptr(address, byte) for address in arguments[:2])
        cgutils.raw_memcpy(builder, to, of, arguments[2], 1)  # type: ignore[no-untyped-call]
        return context.get_dummy_value()

    return types.none(target, source, size), generate
