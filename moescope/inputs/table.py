"""Tables in files: CSV, TSV and Parquet, with named columns."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..foreign import one_line
from ._reading import table_rows
from ._reading.bounds import GROWS, allow
from ._reading.files import PACKED, read_bytes, suffix
from ._reading.options import Options
from ._reading.types import Example

SUFFIXES = frozenset({".csv", ".tsv", ".parquet"})
TAKES = frozenset({"text_column", "label_columns", "chat", "prompt"})


def accepts(path: Path) -> bool:
    """Files by their ending."""
    return path.is_file() and suffix(path) in SUFFIXES


def read_examples(path: Path, options: Options) -> Iterator[Example]:
    """One example per row; raises InputError for a file that is no such table."""
    source = options.name(path)
    if path.stat().st_size == 0:
        return
    table = _load(path, source, [options.text_column or "text", *(options.label_columns or ())])
    yield from table_rows.examples(rows(table), table.column_names, options, source)


def rows(table: Any) -> Iterator[dict[str, Any]]:
    """Rows of an Arrow table or batch."""
    batches = table.to_batches(max_chunksize=1000) if hasattr(table, "to_batches") else [table]
    return (row for batch in batches for row in batch.to_pylist())


def _load(path: Path, source: str, as_written: list[str]) -> Any:
    import pyarrow as pa

    allow(GROWS * path.stat().st_size, source)
    from pyarrow import csv, parquet

    try:
        kind = suffix(path)
        content = pa.BufferReader(read_bytes(path, source)) if path.suffix.lower() in PACKED else path
        if kind == ".parquet":
            groups = parquet.read_metadata(content)
            allow(sum(groups.row_group(n).total_byte_size for n in range(groups.num_row_groups)), source)
            return parquet.read_table(content)
        parse = csv.ParseOptions(delimiter="\t" if kind == ".tsv" else ",", newlines_in_values=True)
        convert = csv.ConvertOptions(column_types={name: pa.string() for name in as_written})
        return csv.read_csv(content, csv.ReadOptions(use_threads=False), parse_options=parse, convert_options=convert)
    except (pa.ArrowException, OSError) as error:
        first = one_line(str(error)).replace(str(path), source)
        raise InputError(f"{source} is not a readable {suffix(path)[1:]} table ({first}): repair it.") from error
