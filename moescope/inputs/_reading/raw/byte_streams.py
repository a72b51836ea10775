"""Bytes of a file, unpacked piece by piece, and the lines in them. What is broken says where."""

import bz2
import codecs
import gzip
import os
import stat
import zlib
from collections.abc import Iterator
from io import BytesIO, StringIO
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

from ....errors import InputError
from .. import bounds
from ..files import packing
from ..options import Options

SMALL = 1 << 20  # bytes of a file that may lie in memory whatever is asked
_PIECE = 1 << 16  # of a file that is broken, no more than this is lost before the break


class ByteStream:
    """The bytes in a file as `read` asks for them; what is written to it meanwhile is left out.

    InputError for a device or pipe, for what cannot be unpacked, and, unless it streams, for more than memory can hold.
    """

    def __init__(self, path: Path, source: str, options: Options) -> None:
        self.source, self.whole, self.offset = source, not options.stream, 0
        self._file: BinaryIO = open(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb")  # noqa: SIM115  (a pipe would wait for a writer)
        try:
            status = os.fstat(self._file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise InputError(f"{source} is a device, pipe or socket: give a file.")
            self.packing = packing(path)
            self.size = status.st_size if self.packing is None else None
            self._bound(status.st_size)
            if status.st_size <= SMALL:
                self._held(status.st_size)
            self._stream = self._unpacking(self.packing) if status.st_size else self._file
        except BaseException:
            self._file.close()
            raise

    def _held(self, size: int) -> None:
        """Have it in memory, and the file closed: of a folder thousands may be gone through in turn."""
        content = self._file.read(size)
        self._file.close()
        self._file = BytesIO(content)

    def _unpacking(self, packing: str | None) -> Any:
        if packing == ".gz":
            return gzip.GzipFile(fileobj=self._file)
        if packing == ".bz2":
            return bz2.BZ2File(self._file)
        if packing == ".zst":
            import pyarrow as pa

            return pa.CompressedInputStream(pa.PythonFile(self._file, mode="r"), "zstd")
        return self._file

    def _bound(self, size: int) -> None:
        if self.whole:
            what = "unpacked it would fill" if self.packing else "it would fill"
            bounds.allow(bounds.GROWS * size, self.source, what, "give a part of it, or stream it with --stream")

    def read(self, size: int = _PIECE) -> bytes:
        """So many bytes, fewer at the end."""
        import pyarrow as pa

        if self.size is not None:
            size = min(size, self.size - self.offset)
        try:
            piece = bytes(self._stream.read(size)) if size else b""
        except (EOFError, zlib.error, pa.ArrowException, ValueError, OSError) as error:
            if isinstance(error, OSError) and error.errno is not None and not isinstance(error, gzip.BadGzipFile):
                raise
            raise InputError(
                f"{self.source} cannot be unpacked beyond byte {self.offset:,} ({error}): pack it again, or give it unpacked."
            ) from error
        self.offset += len(piece)
        if self.packing is not None:
            self._bound(self.offset)
        return piece

    def __iter__(self) -> Iterator[bytes]:
        while piece := self.read():
            yield piece

    def __enter__(self) -> "ByteStream":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._stream is not self._file:
            self._stream.close()
        self._file.close()


def lines(path: Path, source: str, options: Options, ends: bool = False) -> Iterator[str | InputError]:
    """Lines of a UTF-8 file without a byte order mark and, unless `ends`, without their ends (\\n or \\r\\n).

    A line that is no text (not UTF-8, or with NUL, as UTF-16 has) comes as the error that says so. InputError for one that
    memory cannot hold.
    """
    with ByteStream(path, source, options) as stream:
        number = 0
        for offset, block in _blocks(stream, source):
            for line, text in enumerate(_texts(block, offset, number + 1, source), start=number):
                if isinstance(text, InputError):
                    yield text
                    continue
                text = text.removeprefix("\ufeff") if line == 0 else text
                yield text if ends else text[:-2] if text.endswith("\r\n") else text.removesuffix("\n")
            number += block.count(b"\n")


def pieces(path: Path, source: str, options: Options) -> Iterator[str]:
    """A UTF-8 file piece by piece, however long its lines are. InputError at the first byte that is none."""
    decoder = codecs.getincrementaldecoder("utf-8-sig")()
    with ByteStream(path, source, options) as stream:
        try:
            for piece in stream:
                yield decoder.decode(piece)
            decoder.decode(b"", final=True)
        except UnicodeDecodeError as error:
            raise InputError(
                f"{source} is not UTF-8 text: {error.reason} before byte {stream.offset:,}; save it as UTF-8, or leave it out."
            ) from None


def texts(found: Iterator[str | InputError]) -> Iterator[str]:
    """Lines of a file that is a text from beginning to end; raises InputError at the first that is none."""
    for line in found:
        if isinstance(line, InputError):
            raise line
        yield line


def _blocks(stream: ByteStream, source: str) -> Iterator[tuple[int, bytes]]:
    """Whole lines together, and where they begin."""
    held: list[bytes] = []
    offset = size = 0
    for piece in stream:
        end = piece.rfind(b"\n") + 1
        held.append(piece[:end] if end else piece)
        size += len(held[-1])
        if end:
            yield offset, b"".join(held)
            offset, held, size = offset + size, [piece[end:]], len(piece) - end
        bounds.allow(bounds.GROWS * size, source, "a line of it would fill")
    if size:
        yield offset, b"".join(held)


def _texts(block: bytes, offset: int, number: int, source: str) -> Iterator[str | InputError]:
    """Lines of a block, with their ends."""
    try:
        if b"\0" not in block:
            yield from StringIO(block.decode(), newline="\n")
            return
    except UnicodeDecodeError:
        pass
    for line in BytesIO(block):
        yield _text(line, offset, number, source)
        offset, number = offset + len(line), number + 1


def _text(line: bytes, offset: int, number: int, source: str) -> str | InputError:
    try:
        bad = line.find(b"\0")  # UTF-8 in theory; in practice UTF-16 or no text at all
        text = line.decode()
    except UnicodeDecodeError as error:
        bad = error.start
    if bad < 0:
        return text
    return InputError(
        f"{source} is not UTF-8 text: byte 0x{line[bad]:02x} at offset {offset + bad} (line {number}) "
        f"is no part of a text; save it as UTF-8, or leave it out."
    )
