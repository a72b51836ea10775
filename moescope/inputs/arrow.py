"""Columns in files: Parquet, and Arrow (IPC files and streams, Feather), batch by batch."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..foreign import one_line
from ._reading import table_rows
from ._reading.bounds import allow
from ._reading.files import packing, suffix
from ._reading.options import Options
from ._reading.raw.byte_streams import SMALL, ByteStream
from ._reading.types import Example

SUFFIXES = frozenset({".parquet", ".pq", ".arrow", ".feather", ".ipc"})
TAKES = frozenset({"text_column", "label_columns", "chat", "prompt"})
_ROWS = 256  # of a batch of Parquet
_BUFFER = 1 << 20


def accepts(path: Path) -> bool:
    """Files by their ending."""
    return path.is_file() and suffix(path) in SUFFIXES


def read_examples(path: Path, options: Options) -> Iterator[Example]:
    """One example per row; raises InputError for a file that is no such table."""
    source = options.name(path)
    with ByteStream(path, source, options) as stream:  # refuses what is no file, or too large
        content = b"".join(stream) if packing(path) or path.stat().st_size <= SMALL else None
    if path.stat().st_size == 0:
        return
    import pyarrow as pa

    reached = [0]
    with _readable(path, source, reached), pa.OSFile(str(path)) if content is None else pa.BufferReader(content) as file:
        columns, batches = (_parquet if suffix(path) in (".parquet", ".pq") else _arrow)(file, source, options)
        yield from table_rows.examples(_counted(rows(batches), reached), columns, options, source)


def rows(batches: Iterable[Any]) -> Iterator[Mapping[str, Any]]:
    """Rows of Arrow batches."""
    for batch in batches:
        for first in range(0, batch.num_rows, _ROWS):
            yield from batch.slice(first, _ROWS).to_pylist()


def _counted(found: Iterable[Mapping[str, Any]], reached: list[int]) -> Iterator[Mapping[str, Any]]:
    for row in found:
        reached[0] += 1
        yield row


def _parquet(file: Any, source: str, options: Options) -> tuple[list[str], Iterator[Any]]:
    from pyarrow import parquet

    opened = parquet.ParquetFile(file, buffer_size=_BUFFER, pre_buffer=False)
    if not options.stream:
        allow(sum(opened.metadata.row_group(n).total_byte_size for n in range(opened.metadata.num_row_groups)), source)
    return list(opened.schema_arrow.names), opened.iter_batches(batch_size=_ROWS, use_threads=False)


def _arrow(file: Any, source: str, options: Options) -> tuple[list[str], Iterator[Any]]:
    """An IPC file, a stream of them as `datasets` keeps it, or the first version of Feather."""
    import pyarrow as pa
    from pyarrow import feather, ipc

    magic = file.read(6)
    file.seek(0)
    if magic == b"ARROW1":
        whole = ipc.open_file(file)
        return list(whole.schema.names), (whole.get_batch(n) for n in range(whole.num_record_batches))
    if magic.startswith(b"FEA1"):
        table: pa.Table = feather.read_table(file)
        return list(table.schema.names), iter(table.to_batches())
    stream = ipc.open_stream(file)
    return list(stream.schema.names), iter(stream)


@contextmanager
def _readable(path: Path, source: str, reached: list[int]) -> Iterator[None]:
    """What pyarrow says of a file that it cannot read, as one sentence that says how many rows it reached."""
    import pyarrow as pa

    try:
        yield
    except (pa.ArrowException, OSError) as error:
        said, far = one_line(str(error)).replace(str(path), source), f" beyond row {reached[0] - 1}" if reached[0] else ""
        raise InputError(f"{source} is not a readable {suffix(path)[1:]} table{far} ({said}): repair it.") from error
