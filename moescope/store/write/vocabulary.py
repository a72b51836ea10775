"""`vocab_rollup` of a run by counting its shards, when it is finished: a file of its own beside them.

Counters are kept for some routers at a time, as many as the memory allows, and the shards read once for each such group.
"""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ..files.durable import sync
from ..physical.column_buffer import numbers
from ..physical.compiled import within
from ..physical.tables import is_routed
from ..remote.hollow import opened
from ..sums import counting_loops
from ..sums.from_shard import Rows
from .unfinished_run import VOCABULARY, UnfinishedRun

_MEMORY = 1 << 28  # bytes of counters
_ROUNDS = 16  # times that shards are read at most: with more counters DuckDB's way is the better one
_NOTHING = np.zeros(0, np.uint8)
_TYPES = {"router": "uint32", "vocab_id": "uint32", "expert": "uint16", "assignments": "uint64", "first": "uint64"}


def count_vocabulary(part: UnfinishedRun) -> bool:
    """Write sums/vocab_rollup.parquet into `part`; False, and nothing there, where its rows have a form that is not counted."""
    target = (part.path / VOCABULARY).parent
    shutil.rmtree(target, ignore_errors=True)
    if "continues" in part.head or any(table.endswith("_long") for table in part.tables()):
        return False
    words = _words(part)
    routers, experts = (1 + max((row[key] for row in part.head[f"{key}s"]), default=-1) for key in ("router", "expert"))
    at_once = min(routers, _MEMORY // max(1, 8 * len(words) * experts))
    if not len(words) or not experts or at_once * _ROUNDS < routers:
        return False
    temporary = target.with_suffix(".tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    try:
        done = _write(temporary / Path(VOCABULARY).name, part, words, range(0, routers, at_once), (at_once, experts))
        if done:
            sync(temporary)
            temporary.rename(target)
        return done
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _write(path: Path, part: UnfinishedRun, words: Any, firsts: range, shape: tuple[int, int]) -> bool:
    with pq.ParquetWriter(path, pa.schema([(n, pa.type_for_alias(t)) for n, t in _TYPES.items()])) as file:
        for first in firsts:
            counts = _counted(part, words, first, *shape)
            if counts is None:
                return False
            for place in range(shape[0]):
                word, expert = np.nonzero(counts[0][place])
                if len(word):
                    cells = [own[place][word, expert] for own in counts]
                    columns = [np.full(len(word), first + place), words[word], expert, *cells]
                    file.write_table(pa.table([pa.array(c.astype(t)) for c, t in zip(columns, _TYPES.values())], [*_TYPES]))
    sync(path)
    return True


def _words(part: UnfinishedRun) -> Any:
    """(V,) vocabulary ids that occur, rising."""
    found = np.zeros(0, np.uint32)
    for shard in part.shards:
        if (shard / "tokens.parquet").exists():
            found = np.union1d(found, _ids(shard)[2])
    return found


def _ids(shard: Path) -> tuple[int, int, Any, Any]:
    """(first token of a shard, number of its tokens, ids (N,) of those that have one, which these are (N,))."""
    with opened(shard / "tokens.parquet") as source, pq.ParquetFile(source) as file:
        there = "vocab_id" in file.schema_arrow.names
        table = file.read(["token", "vocab_id"] if there else ["token"])
    column = table["vocab_id"] if there else pa.nulls(len(table))
    token = numbers(table["token"])
    known = ~np.asarray(column.is_null())
    ids = column.drop_null().to_numpy() if known.any() else np.zeros(0)
    first = int(token[0]) if len(token) and counting_loops.rises(token) else -1
    return first, len(token), ids.astype(np.uint32), known


def _counted(part: UnfinishedRun, words: Any, first: int, routers: int, experts: int) -> tuple[Any, Any] | None:
    """(routers, V, experts) assignments, and those of rank 0, of the routers from `first` on; None if they cannot be told."""
    ran, leading = (np.zeros((routers, len(words), experts), np.uint32) for _ in range(2))
    for shard in part.shards:
        for rows, word in _read(shard, words, experts):
            if rows is None:
                return None
            starts, stops = rows.stretches(_NOTHING)
            place = rows.router[starts].astype(np.intp) - first
            counting_loops.words(starts, stops, place, word, rows.experts, ran, leading, int(rows.ranked))
    return ran, leading


def _read(shard: Path, words: Any, experts: int) -> Iterator[tuple[Rows | None, Any]]:
    """Routed rows of a shard and the place in `words` of each one's token, beyond the last where it has none; None where they
    cannot be counted."""
    files = [file for file in shard.glob("routes_*.parquet") if is_routed(file.stem)]
    if not files:
        return
    first, count, ids, known = _ids(shard) if (shard / "tokens.parquet").exists() else (-1, 0, _NOTHING, _NOTHING)
    word_of = np.full(count, len(words), np.uint32)
    word_of[known.astype(bool)] = np.searchsorted(words, ids)
    for file in files:
        names = pq.read_schema(file).names
        wanted = [n for n in names if n in ("router", "token", "dropped", "unranked") or (n[0] == "e" and n[1:].isdigit())]
        with opened(file) as source:
            rows = Rows.of(pq.read_table(source, columns=wanted), experts)
        if rows is None or not len(rows.keys[0]) or first < 0 or not within(rows.keys[0], first, first + count):
            yield None, _NOTHING
        else:
            yield rows, word_of[rows.keys[0] - np.uint32(first)]
