"""Files of `torch.save` without torch and without a pickle: plain tensors in dicts, lists and tuples, or nothing.

Such a file is a zip of a program (data.pkl) and of the bytes of storages. Of the program only the steps that build those three
and name a tensor are followed here; nothing that it names is imported or called. Everything else is refused.
"""

import io
import pickletools
from math import prod
from pathlib import Path
from typing import Any
from zipfile import BadZipFile, ZipFile

import numpy as np

from ...errors import InputError
from ...foreign import one_line

_TYPES = {
    "IntStorage": "<i4", "LongStorage": "<i8", "ShortStorage": "<i2", "CharStorage": "i1",
    "ByteStorage": "u1", "BoolStorage": "?", "FloatStorage": "<f4", "DoubleStorage": "<f8", "HalfStorage": "<f2",
    "BFloat16Storage": "bf16",
    "UInt16Storage": "<u2", "UInt32Storage": "<u4", "UInt64Storage": "<u8",
}  # fmt: skip
_BUILDERS = {"torch._utils _rebuild_tensor_v2", "torch._utils _rebuild_tensor", "torch._utils _rebuild_parameter",
             "collections OrderedDict"}  # fmt: skip
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_VALUES = {"BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "INT", "LONG"}
_EMPTY: dict[str, Any] = {"EMPTY_DICT": dict, "EMPTY_LIST": list, "EMPTY_TUPLE": tuple}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_MOST = 256 << 20  # bytes of the program
_MARK = object()


def looks_saved(path: Path) -> bool:
    """Whether this is a zip with a data.pkl in it."""
    try:
        with ZipFile(path) as archive:
            return any(name.endswith("/data.pkl") or name == "data.pkl" for name in archive.namelist())
    except (BadZipFile, OSError, ValueError):
        return False


def read_saved(path: Path) -> Any:
    """What `torch.save` wrote, tensors as arrays. InputError for anything but plain tensors in plain containers."""
    try:
        with ZipFile(path) as archive:
            program = next((n for n in archive.namelist() if n.endswith("data.pkl")), None)
            if program is None or archive.getinfo(program).file_size > _MOST:
                raise ValueError("it has no data.pkl of a size that can be read")
            order = program.removesuffix("data.pkl") + "byteorder"
            if order in archive.namelist() and archive.read(order)[:6] != b"little":
                raise ValueError("its numbers are not little-endian")
            return _Reader(archive, program.removesuffix("data.pkl")).run(archive.read(program))
    except InputError:
        raise
    except Exception as error:  # a broken zip, a program that ends early, shapes that do not fit: each has its own
        raise InputError(
            f"{path} cannot be read as plain tensors saved by torch ({one_line(str(error), 160) or type(error).__name__}): "
            "moescope loads no pickle, because that can run code; save dicts and lists of tensors and numbers"
        ) from error


class _Reader:
    """One program, followed step by step."""

    def __init__(self, archive: ZipFile, home: str) -> None:
        self.archive, self.home = archive, home
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}
        self.read: dict[tuple[str, str], np.ndarray] = {}

    def run(self, program: bytes) -> Any:
        for code, argument, _ in pickletools.genops(io.BytesIO(program)):
            if code.name == "STOP":
                return self.stack.pop()
            self._step(code.name, argument)
        raise ValueError("its program does not end")

    def _step(self, name: str, argument: Any) -> None:
        stack = self.stack
        if name in _VALUES:
            stack.append(argument)
        elif name in _CONSTANTS:
            stack.append(_CONSTANTS[name])
        elif name in _EMPTY:
            stack.append(_EMPTY[name]())
        elif name in ("BINPUT", "LONG_BINPUT", "PUT"):
            self.memo[argument] = stack[-1]
        elif name == "MEMOIZE":
            self.memo[len(self.memo)] = stack[-1]
        elif name in ("BINGET", "LONG_BINGET", "GET"):
            stack.append(self.memo[argument])
        elif name not in ("PROTO", "FRAME"):
            self._build(name, argument)

    def _build(self, name: str, argument: Any) -> None:
        stack = self.stack
        if name == "MARK":
            stack.append(_MARK)
        elif name in _TUPLES:
            items = [stack.pop() for _ in range(_TUPLES[name])]
            stack.append(tuple(reversed(items)))
        elif name == "TUPLE":
            stack.append(tuple(self._marked()))
        elif name in ("APPEND", "APPENDS"):
            items = [stack.pop()] if name == "APPEND" else self._marked()
            _of(stack[-1], list).extend(items)
        elif name in ("SETITEM", "SETITEMS"):
            items = [stack.pop(), stack.pop()][::-1] if name == "SETITEM" else self._marked()
            _of(stack[-1], dict).update(zip(items[::2], items[1::2]))
        else:
            self._named(name, argument)

    def _named(self, name: str, argument: Any) -> None:
        stack = self.stack
        if name == "STACK_GLOBAL":
            what, where = stack.pop(), stack.pop()
            name, argument = "GLOBAL", f"{where} {what}"
        if name == "GLOBAL":
            home, _, what = argument.partition(" ")
            if argument not in _BUILDERS and not (home == "torch" and what in _TYPES):
                raise ValueError(f"it names {argument.replace(' ', '.')}, which is no plain tensor")
            stack.append(_Name(argument))
        elif name == "BINPERSID":
            stack.append(self._storage(stack.pop()))
        elif name == "REDUCE":
            arguments, called = _of(stack.pop(), tuple), _of(stack.pop(), _Name)
            stack.append(_made(called.name, arguments))
        elif name == "BUILD":
            stack.pop()  # attributes of an ordered dict: nothing that is read here
        else:
            raise ValueError(f"its program has the step {name}")

    def _marked(self) -> list[Any]:
        at = max(place for place, item in enumerate(self.stack) if item is _MARK)
        items = self.stack[at + 1 :]
        del self.stack[at:]
        return items

    def _storage(self, said: Any) -> np.ndarray:
        kind, typed, key, _, count = _of(said, tuple)
        name = _of(typed, _Name).name.partition(" ")[2]
        if kind != "storage" or name not in _TYPES:
            raise ValueError("a storage is of a kind that is not read here")
        if (name, key) not in self.read:
            form, info = _TYPES[name], self.archive.getinfo(f"{self.home}data/{key}")
            size = 2 if form == "bf16" else np.dtype(form).itemsize
            if info.file_size != count * size or info.compress_size < info.file_size:
                raise ValueError(f"storage {key} says {count * size:,} bytes and has {info.file_size:,}")
            self.read[name, key] = _numbers(self.archive.read(info), form)
        return self.read[name, key]


class _Name:
    """A name that the program mentions; nothing of it is looked up."""

    def __init__(self, name: str) -> None:
        self.name = name


def _of(value: Any, kind: Any) -> Any:
    if not isinstance(value, kind):
        raise ValueError(f"a {type(value).__name__} stands where a {kind.__name__} should")
    return value


def _numbers(data: bytes, form: str) -> np.ndarray:
    if form != "bf16":
        return np.frombuffer(data, form)
    return bfloat16(np.frombuffer(data, "<u2"))


def bfloat16(halves: np.ndarray) -> np.ndarray:
    """float32 numbers of the upper halves of their bits."""
    return (halves.astype(np.uint32) << 16).view(np.float32)


def _made(name: str, arguments: tuple[Any, ...]) -> Any:
    if name == "collections OrderedDict":
        return dict(arguments[0]) if arguments else {}
    if name == "torch._utils _rebuild_parameter":
        return _of(arguments[0], np.ndarray)
    storage, offset, shape, strides = arguments[:4]
    storage, count = _of(storage, np.ndarray), prod(shape)
    reach = offset + sum((n - 1) * step for n, step in zip(shape, strides)) + 1 if count else 0
    if len(shape) != len(strides) or min((*shape, *strides, offset), default=0) < 0 or reach > len(storage):
        raise ValueError(f"a tensor of shape {tuple(shape)} reaches beyond its storage")
    if not count:
        return np.empty(shape, storage.dtype)
    steps = [step * storage.itemsize for step in strides]
    return np.lib.stride_tricks.as_strided(storage[offset:], shape, steps, writeable=False)
