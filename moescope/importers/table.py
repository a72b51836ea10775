"""Any table: CSV, Parquet, JSON lines, Arrow, .npz or a frame, with columns mapped by option or by a file.

One row is an assignment (`expert` a number), or a decision (`expert` a list, or several columns e0,e1,...); or a count
(`count`). Columns are found by their names, or said: -p expert=expert_id -p sequence=doc, or --columns FILE (JSON or TOML)
with the same keys. Where nobody says which model it is, experts, layers and top-k are those that are there.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ._core.archive import Archive
from ._core.ask import Ask, Item
from ._core.reading import Head
from ._forms.table_columns import COLUMNS
from ._forms.table_rows import of_frame, of_table
from .vllm import archived

OPTIONS = dict(COLUMNS)
SUFFIXES = (".csv", ".tsv", ".parquet", ".jsonl", ".ndjson", ".json", ".arrow", ".feather", ".npz")


def accepts(head: Head) -> bool:
    """Whatever is a table and no other format knows (it is asked last)."""
    name = head.path.name.lower().removesuffix(".gz")
    return head.path.is_file() and name.endswith(SUFFIXES)


LAST = True


def read(path: Path, ask: Ask) -> Iterator[Item]:
    """Every sequence of a table, or its counts."""
    if path.suffix == ".npz" and "routed_experts_0" in Archive(path):
        yield from archived(path, ask, ask.need("an archive of routed_experts_<i>"))
        return
    yield from of_table(path, ask)


def read_frame(frame: Any, ask: Ask) -> Iterator[Item]:
    """The same of a pandas frame, an Arrow table, or a dict of equally long columns."""
    yield from of_frame(frame, ask)
