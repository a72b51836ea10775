"""Arrays in .npz archives: every header is checked against the bytes that are there before anything is unpacked."""

import zlib
from collections.abc import Callable
from math import prod
from pathlib import Path
from zipfile import BadZipFile, ZipFile, ZipInfo

from numpy.lib.format import read_array, read_array_header_1_0, read_array_header_2_0, read_magic

from ...errors import InputError
from ...foreign import one_line
from ...inputs._reading.bounds import allow
from .captured import Array

_WRONG = (ValueError, BadZipFile, EOFError, NotImplementedError, RuntimeError, SyntaxError, zlib.error, KeyError, OSError)


class Archive:
    """An .npz, read array by array. InputError for what is none, and for pickled objects."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._zip = ZipFile(path)
            self._there = {info.filename.removesuffix(".npy"): info for info in self._zip.infolist()}
        except _WRONG as error:
            raise self._refused(error) from error

    @property
    def names(self) -> list[str]:
        """Of its arrays."""
        return list(self._there)

    def __contains__(self, name: str) -> bool:
        return name in self._there

    def read(self, name: str) -> Array:
        """One array."""
        try:
            allow(self._size(self._there[name]), str(self.path))
            with self._zip.open(self._there[name]) as file:
                return read_array(file, allow_pickle=False)
        except _WRONG as error:
            raise self._refused(error) from error

    def _size(self, info: ZipInfo) -> int:
        with self._zip.open(info) as file:
            version = read_magic(file)
            read: Callable[..., tuple[tuple[int, ...], bool, object]] = (
                read_array_header_1_0 if version == (1, 0) else read_array_header_2_0
            )
            shape, _, kind = read(file)
            if kind.hasobject:  # type: ignore[attr-defined]
                raise InputError(
                    f"{self.path} holds pickled objects, which moescope does not load because they can run code: save plain "
                    "arrays of numbers or strings"
                )
            size = prod(shape) * int(kind.itemsize)  # type: ignore[attr-defined]
            if size != info.file_size - file.tell():
                raise ValueError(f"{info.filename} says {size:,} bytes and has {info.file_size - file.tell():,}")
            return size

    def _refused(self, error: BaseException) -> InputError:
        return InputError(f"{self.path} is no .npz archive ({one_line(str(error), 120)}): write it with numpy.savez")
