"""What engines put into a field: base64 of a .npy, base64 of bare numbers, nested lists; as an array of whole numbers.

Nothing that a header says is believed before the bytes that are there bear it out.
"""

import binascii
import io
from math import prod
from typing import Any

import numpy as np
from numpy.lib.format import read_array_header_1_0, read_array_header_2_0, read_magic

from .captured import Array, Fault
from .cutting import base64

_WHOLE = {"int8": "i1", "uint8": "u1", "int16": "<i2", "uint16": "<u2", "int32": "<i4", "uint32": "<u4", "int64": "<i8"}
_CUT = "probably the response was cut off; capture it again"


def unpacked(text: str | bytes, what: str) -> bytes:
    """Bytes of base64. Fault where it is none."""
    try:
        if isinstance(text, bytes) and (found := base64(text)) is not None:
            return found
        return binascii.a2b_base64(text if isinstance(text, bytes) else text.encode("ascii"), strict_mode=True)
    except (binascii.Error, UnicodeEncodeError) as error:
        raise Fault(f"{what} is no valid base64 ({error}): {_CUT}") from error


def npy(text: str | bytes, what: str) -> Array:
    """The array of a base64 .npy. Fault where it is shorter or longer than its header says, or holds no whole numbers."""
    data = unpacked(text, what)
    file = io.BytesIO(data)
    try:
        version = read_magic(file)
        shape, fortran, kind = read_array_header_1_0(file) if version == (1, 0) else read_array_header_2_0(file)
    except (ValueError, SyntaxError, TypeError, UnicodeDecodeError, MemoryError, RecursionError) as error:
        raise Fault(f"{what} is no .npy ({str(error)[:100]}): {_CUT}") from error
    if kind.hasobject or kind.kind not in "iu":
        raise Fault(f"{what} holds {kind}, and experts are whole numbers: this is another field, or no capture of routing")
    said, there = prod(shape) * kind.itemsize, len(data) - file.tell()
    if said != there:
        raise Fault(f"{what} says {said:,} bytes in its header (shape {tuple(shape)}, {kind}) and has {there:,}: {_CUT}")
    return np.frombuffer(data, kind, offset=file.tell()).reshape(shape, order="F" if fortran else "C")


def raw(text: str | bytes, kind: str, planes: int, top_k: int, what: str) -> Array:
    """(rows, planes, k) of base64 of numbers without a header. Fault where the length is no multiple of a row."""
    data = unpacked(text, what)
    size = np.dtype(whole(kind, what)).itemsize
    row = planes * top_k * size
    if not data or len(data) % row:
        raise Fault(
            f"{what} has {len(data):,} bytes, no multiple of {planes} layers x top-{top_k} x {size} bytes: {_CUT}, or this is "
            "a capture of another model than --model says"
        )
    return np.frombuffer(data, whole(kind, what)).reshape(-1, planes, top_k)


def shaped(text: str | bytes, kind: str, shape: Any, what: str) -> Array:
    """An array of base64 of numbers whose shape is said beside it."""
    data = unpacked(text, what)
    form = np.dtype(whole(kind, what))
    right = isinstance(shape, list | tuple) and all(isinstance(n, int) and n >= 0 for n in shape)
    if not right or prod(shape) * form.itemsize != len(data):
        raise Fault(f"{what} says shape {shape} of {kind} and has {len(data):,} bytes: {_CUT}")
    return np.frombuffer(data, form).reshape(shape)


def whole(kind: str, what: str) -> str:
    """NumPy's name of a type of whole numbers. Fault for any other."""
    name = str(kind).removeprefix("torch.").removeprefix("numpy.")
    if name not in _WHOLE:
        raise Fault(f"{what} is of type {kind!r}; it should be one of {', '.join(_WHOLE)}")
    return _WHOLE[name]


def lists(value: Any, what: str) -> Array:
    """(rows, layers, k) of nested lists. Fault where they are ragged or hold anything but whole numbers."""
    if value == []:
        return np.empty((0, 0, 0), np.int32)
    try:
        found = np.array(value)
    except (ValueError, OverflowError) as error:
        raise Fault(f"{what} has rows of different lengths ({str(error)[:80]}): {_CUT}") from error
    if found.dtype.kind not in "iu":
        raise Fault(f"{what} holds other things than whole numbers: this is no capture of routing, or it was cut")
    return found


def array_of(value: Any, what: str) -> Array:
    """Whichever of a base64 .npy, nested lists or an array this is."""
    if isinstance(value, str | bytes):
        return npy(value, what)
    if isinstance(value, list):
        return lists(value, what)
    if isinstance(value, np.ndarray) and value.dtype.kind in "iu":
        return value
    raise Fault(f"{what} is of type {type(value).__name__}: routed experts come as base64 text or as nested lists")
