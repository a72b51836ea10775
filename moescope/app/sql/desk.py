"""Free SQL, kept harmless: one reading statement in a process of its own, with limits of time, memory, rows and bytes."""

from pathlib import Path
from threading import Lock
from typing import Any

import pandas as pd
import pyarrow as pa

from moescope.app.queries import store_access
from moescope.app.sql import processes
from moescope.app.sql.processes import Tick
from moescope.errors import AnalysisError

ROWS = 10_000  # shown
FILE_ROWS = 2_000_000  # in a file
TABLE_BYTES, FILE_BYTES, KEPT_BYTES = 32 << 20, 256 << 20, 64 << 20
MEMORY_BYTES = int(store_access.MEMORY.removesuffix(" MB")) * 10**6
LETTERS = 100_000
SENTENCES = {
    "time": f"this query took longer than {store_access.LIMIT_S:.0f} s and was stopped; ask for a run, a layer or fewer tokens",
    "memory": f"this query needs more than {store_access.MEMORY} and was stopped; ask for a run, a layer or fewer tokens",
    "changed": "the store changed while it was read; run the query again",
    "broken": "the process of this query ended without an answer; run it again",
}
VIEWS = """
select t.table_name as name, coalesce(v.comment, b.comment, '') as comment, t.table_type = 'VIEW' as view
from information_schema.tables t
left join duckdb_views() v on v.view_name = t.table_name and v.database_name = t.table_catalog
left join duckdb_tables() b on b.table_name = t.table_name and b.database_name = t.table_catalog
where t.table_catalog = current_database() and t.table_name not similar to '(routes|decided)(_empty)?_[0-9]+'
order by view desc, name"""
COLUMNS = """
select column_name as "column", data_type as type, coalesce(comment, '') as meaning from duckdb_columns()
where table_name = ? and database_name = current_database() order by column_index"""
WORDS = f"""
with v as ({VIEWS})
select v.name, list(c.column_name order by c.column_index) as columns from v
join duckdb_columns() c on c.table_name = v.name and c.database_name = current_database() group by all order by v.name"""

kept: dict[Any, tuple[bytes, bool]] = {}
lock = Lock()


def examples(run: int = 0) -> dict[str, str]:
    """The queries of examples.sql by their first line, about one run."""
    text = Path(__file__).with_name("examples.sql").read_text().replace("run = 0", f"run = {run}")
    blocks = text.strip().split("\n\n")
    return {block.partition("\n")[0].removeprefix("-- "): block.partition("\n")[2] for block in blocks}


def words() -> dict[str, list[str]]:
    """The columns of every table and view, for completion."""
    return {row["name"]: list(row["columns"]) for row in store_access.rows(WORDS)}


def ask(query: str, kind: str, rows: int, most: int, tick: Tick) -> tuple[bytes, bool]:
    """The result as bytes of this kind, and whether there were more rows. AnalysisError in one sentence."""
    if len(query) > LETTERS:
        raise AnalysisError(f"the query has {len(query):,} letters; {LETTERS:,} at most")
    limits = {"rows": rows, "bytes": most, "memory": MEMORY_BYTES, "seconds": store_access.LIMIT_S}
    try:
        return processes.desk.ask({"store": str(store_access.path()), "query": query, "kind": kind} | limits, tick)
    except processes.Failed as failed:
        raise AnalysisError(failed.words if failed.kind == "said" else SENTENCES[failed.kind]) from failed


def result(state: tuple[Any, ...], query: str, tick: Tick) -> tuple[pd.DataFrame, bool]:
    """Up to `ROWS` rows, and whether there were more; what was asked before is kept while the store has not changed."""
    key = str(store_access.path()), state, query
    found = kept.get(key)
    if found is None:
        found = ask(query, "table", ROWS, TABLE_BYTES, tick)
        keep(key, found)
    return pa.ipc.open_stream(found[0]).read_pandas(), found[1]


def keep(key: Any, found: tuple[bytes, bool]) -> None:
    """Remember a result, and forget the oldest where all of them are too many bytes."""
    with lock:
        kept[key] = found
        while sum(len(body) for body, _ in kept.values()) > KEPT_BYTES:
            del kept[next(iter(kept))]


def file_of(query: str, kind: str) -> bytes:
    """The whole result (up to two million rows) as a file's content."""
    return ask(query, kind, FILE_ROWS, FILE_BYTES, lambda _: None)[0]
