"""Tables in text files: CSV and TSV, with named columns."""

from collections.abc import Iterator
from pathlib import Path

from ._reading import table_rows
from ._reading.files import suffix
from ._reading.options import Options
from ._reading.raw import csv_rows
from ._reading.raw.byte_streams import lines
from ._reading.types import Example

SUFFIXES = frozenset({".csv", ".tsv"})
TAKES = frozenset({"text_column", "label_columns", "chat", "prompt"})


def accepts(path: Path) -> bool:
    """Files by their ending."""
    return path.is_file() and suffix(path) in SUFFIXES


def read_examples(path: Path, options: Options) -> Iterator[Example]:
    """One example per row; raises InputError for a file that is no such table."""
    source, delimiter = options.name(path), "\t" if suffix(path) == ".tsv" else ","
    columns, rows = csv_rows.columns_and_rows(lines(path, source, options, ends=True), delimiter, options, source)
    return table_rows.examples(rows, columns, options, source) if columns else iter(())
