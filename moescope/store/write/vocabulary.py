"""`vocab_rollup` of a run when it is finished: a file of its own beside its shards.

Who traced it from the beginning to the end has counted meanwhile (sums/words.py). Else the shards are read: counters are kept
for some routers at a time, as many as the memory allows, and the shards read once for each such group; where those are many,
DuckDB counts, unless it has not the memory either.
"""

import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ..files.durable import sync
from ..physical.tables import is_routed
from ..remote.hollow import opened
from ..sums.from_shard import Rows
from ..sums.words import CELL, Words
from .placed import placed
from .unfinished_run import VOCABULARY, UnfinishedRun

_WHILE_TRACED = 1 << 29  # bytes of counters beside a model
_MEMORY = 1 << 28  # bytes of counters while shards are read
_ROUNDS = 16  # times that shards are read at most: with more counters DuckDB's way is the better one, if it can
_GROUPS = 80_000_000  # routers, ids and experts that were seen to occur together and be counted by it in its memory
_MOST = 3 << 28  # bytes of counters where there may be more: shards are read as often as it takes
_NUMBERS = {"vocab_id": "uint32", "expert": "uint16", "assignments": "uint32", "first": "uint32"}
_SCHEMA = pa.schema([("router", pa.uint32()), *((name, pa.type_for_alias(kind)) for name, kind in _NUMBERS.items())])


def counters(part: UnfinishedRun) -> Words | None:
    """What counts while `part` is traced; None where something of it was written before."""
    return None if part.shards or "continues" in part.head else Words.within(_WHILE_TRACED, *_sizes(part))


def _sizes(part: UnfinishedRun) -> tuple[int, int]:
    routers, experts = (1 + max((row[key] for row in part.head[f"{key}s"]), default=-1) for key in ("router", "expert"))
    return routers, experts


def count_vocabulary(part: UnfinishedRun, words: Words | None = None) -> bool:
    """Write sums/vocab_rollup.parquet into `part`, from `words` if all of its shards are in them; False, and nothing there,
    where its rows have a form that is not counted."""
    target = (part.path / VOCABULARY).parent
    shutil.rmtree(target, ignore_errors=True)
    if "continues" in part.head or any(table.endswith("_long") for table in part.tables()):
        return False
    temporary = target.with_suffix(".tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    try:
        traced = words is not None and words.whole and words.shards == len(part.shards)  # others may have written some
        counted = iter([words]) if words is not None and traced else _read(part)
        done = _write(temporary / Path(VOCABULARY).name, counted, part.keys, 0 if traced else part.keys.get("router", 0))
        if done:
            sync(temporary)
            temporary.rename(target)
        return done
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _write(path: Path, counted: Iterator[Words], keys: Mapping[str, int], router: int) -> bool:
    """Write with the keys that the shards have; `router`: what is in the numbers of routers already. False if one of those that
    counted is not whole."""
    keys = {**keys, "router": keys["router"] - router} if keys else keys
    form: dict[str, Any] = {"use_dictionary": False, "column_encoding": dict.fromkeys(_NUMBERS, "DELTA_BINARY_PACKED")}
    form |= {"compression": {"run": "lz4", "router": "lz4"} | dict.fromkeys(_NUMBERS, "none")}
    schema = placed(_SCHEMA.empty_table(), keys, run=True).schema
    with pq.ParquetWriter(path, schema, store_schema=False, **form) as file:
        for words in counted:
            if not words.whole:
                return False
            for columns in words.columns():
                file.write_table(placed(pa.table(columns, schema=_SCHEMA), keys, run=True), row_group_size=1 << 20)
    sync(path)
    return True


def _read(part: UnfinishedRun) -> Iterator[Words]:
    """Counters of all routers, some at a time."""
    (routers, experts), most = _sizes(part), len(_ids(part))
    each = CELL * (most + 1) * (experts + 1)
    many = min(most * experts * routers, _assigned(part)) > _GROUPS
    few = min(routers, _MEMORY // each)
    at_once = min(routers, _MOST // each) if many and few * _ROUNDS < routers else few
    for first in range(0, routers, max(1, at_once)):
        room = max(1, most) if at_once and (many or at_once * _ROUNDS >= routers) else 0
        words = Words(part.keys.get("router", 0) + first, min(at_once, routers - first), experts, room)
        for shard in part.shards:
            file = shard / "tokens.parquet"
            words.add(_routed(shard, experts), _table(file) if file.exists() else None)
        yield words


def _assigned(part: UnfinishedRun) -> int:
    """Assignments of a run whose rows all say as many experts as their table is wide."""
    files = (file for shard in part.shards for file in shard.glob("routes_*.parquet") if is_routed(file.stem))
    return sum(pq.read_metadata(file).num_rows * int(file.stem.rpartition("_")[2]) for file in files)


def _ids(part: UnfinishedRun) -> Any:
    """(V,) vocabulary ids that occur, rising."""
    found = np.zeros(0, np.uint32)
    for file in (shard / "tokens.parquet" for shard in part.shards):
        if file.exists() and "vocab_id" in pq.read_schema(file).names:
            column = _table(file, ["vocab_id"])["vocab_id"].drop_null()
            found = np.union1d(found, column.to_numpy().astype(np.uint32))
    return found


def _routed(shard: Path, experts: int) -> list[Rows] | None:
    """Routed rows of a shard; None where they cannot be counted."""
    found = []
    for file in (file for file in shard.glob("routes_*.parquet") if is_routed(file.stem)):
        names = pq.read_schema(file).names
        wanted = [n for n in names if n in ("router", "token", "dropped", "unranked") or (n[0] == "e" and n[1:].isdigit())]
        found.append(Rows.of(_table(file, wanted), experts))
    return None if any(rows is None for rows in found) else [rows for rows in found if rows is not None]


def _table(file: Path, columns: list[str] | None = None) -> pa.Table:
    """Its rows, wherever they lie."""
    with opened(file) as source:
        return pq.read_table(source, columns=columns, partitioning=None)
