"""llama.cpp by the ctypes of llama-cpp-python: what it offers, how a tensor of its graph is read and written, what it says."""

import ctypes
from collections import deque
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import ModelError
from ...foreign import one_line

Array = np.ndarray[Any, Any]
_TYPES = {0: np.float32, 1: np.float16, 26: np.int32}
_ERROR = 4  # GGML_LOG_LEVEL_ERROR
_NAME = 256  # where a tensor has its name


class Tensor(ctypes.Structure):
    """struct ggml_tensor (ggml.h), as far as it is looked at; `Library` asks whether it is so here."""

    _fields_ = (
        ("type", ctypes.c_int), ("buffer", ctypes.c_void_p), ("ne", ctypes.c_int64 * 4), ("nb", ctypes.c_size_t * 4),
        ("op", ctypes.c_int), ("op_params", ctypes.c_int32 * 16), ("flags", ctypes.c_int32), ("src", ctypes.c_void_p * 10),
        ("view_src", ctypes.c_void_p), ("view_offs", ctypes.c_size_t), ("data", ctypes.c_void_p), ("name", ctypes.c_char * 64),
    )  # fmt: skip


class Library:
    """The package, and the functions of its libraries that it does not name itself. ModelError where it is not here."""

    def __init__(self) -> None:
        try:
            import llama_cpp
            from llama_cpp import _ctypes_extensions as extensions

            base = extensions.load_shared_library("ggml-base", Path(llama_cpp.__file__).parent / "lib")
        except ImportError as error:
            raise ModelError(
                "running a GGUF takes llama-cpp-python, which is not here; install it: pip install 'moescope[gguf]' (it is "
                "built from source in some minutes, which takes a C++ compiler)"
            ) from error
        except (RuntimeError, OSError) as error:  # FileNotFoundError is one of these
            raise ModelError(f"llama-cpp-python cannot be used here ({one_line(str(error), 120)}): install it anew") from error
        self.api: Any = llama_cpp
        self.said: deque[str] = deque(maxlen=8)  # errors that it logged since somebody asked
        self._get, self._set, self._bytes, self._desc = (
            getattr(base, f"ggml_{name}") for name in ("backend_tensor_get", "backend_tensor_set", "nbytes", "op_desc")
        )
        self._name = base.ggml_get_name
        for function in (self._get, self._set):
            function.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_size_t]
            function.restype = None
        self._bytes.argtypes = self._desc.argtypes = self._name.argtypes = [ctypes.c_void_p]
        self._bytes.restype, self._desc.restype, self._name.restype = ctypes.c_size_t, ctypes.c_char_p, ctypes.c_char_p
        self._checked = False
        self._log = llama_cpp.llama_log_callback(self._logged)
        llama_cpp.llama_log_set(self._log, ctypes.c_void_p(0))

    @property
    def version(self) -> str:
        """Of llama-cpp-python."""
        return version("llama-cpp-python")

    def _logged(self, level: int, text: bytes, _: Any) -> None:
        if level == _ERROR and (line := text.decode("utf-8", "replace").strip()):
            self.said.append(line)

    def why(self) -> str:
        """The first thing that it complained of, in brackets behind a space; empty where it did not."""
        first = self.said[0] if self.said else ""
        self.said.clear()
        return f" ({one_line(first, 160)})" if first else ""

    def name(self, pointer: int) -> bytes:
        """Of a tensor. ModelError where tensors are not laid out as this was written for."""
        found = ctypes.string_at(pointer + _NAME)
        if not self._checked:
            if self._name(pointer) != found:
                raise ModelError(
                    f"llama-cpp-python {self.version} lays its tensors out in another way than moescope knows: install the "
                    "version that 'moescope[gguf]' names"
                )
            self._checked = True
        return found

    def kind(self, pointer: int) -> str:
        """Which operation made a tensor: SOFT_MAX, SIGMOID, MUL_MAT, ..."""
        return str((self._desc(pointer) or b"").decode())

    def read(self, pointer: int) -> Array:
        """A tensor's numbers, its dimensions as NumPy has them (the last one fastest), of size 1 left out in front."""
        own = Tensor.from_address(pointer)
        size = self._bytes(pointer)
        data = np.empty(size, np.uint8)
        self._get(pointer, data.ctypes.data, 0, size)
        shape = tuple(int(n) for n in own.ne[::-1])
        strides = tuple(int(n) for n in own.nb[::-1])
        kind = np.dtype(_TYPES[own.type])
        found = np.lib.stride_tricks.as_strided(data[: size // kind.itemsize * kind.itemsize].view(kind), shape, strides)
        while found.ndim > 2 and found.shape[0] == 1:
            found = found[0]
        return np.ascontiguousarray(found)

    def write(self, pointer: int, rows: Array) -> None:
        """(T, n) numbers into a tensor of T rows; int32 or float32 as the tensor is."""
        own = Tensor.from_address(pointer)
        rows = np.ascontiguousarray(rows, _TYPES[own.type])
        stride = int(own.nb[2] if own.ne[0] == 1 and own.ne[2] == len(rows) and own.ne[1] == rows.shape[1] else own.nb[1])
        for number, row in enumerate(rows):
            self._set(pointer, row.ctypes.data, number * stride, row.nbytes)

    @staticmethod
    def source(pointer: int, number: int) -> int | None:
        """Where an operand of a tensor lies."""
        found = Tensor.from_address(pointer).src[number]
        return int(found) if found else None

    @staticmethod
    def parameter(pointer: int) -> float:
        """The first parameter of its operation, a float (of SCALE: the factor)."""
        return float(np.frombuffer(bytes(Tensor.from_address(pointer).op_params), np.float32)[0])


@cache
def library() -> Library:
    """The one of this process."""
    return Library()
