"""One visitor's query, in a process of its own that holds nothing else: asked on its input, answered on its output.

The question is a line of JSON: store, query, kind (of answer), rows, bytes, memory (bytes) and seconds, each at most. The
answer is the result, and after it a line of JSON: {"more": whether there were more rows}, or {"failed": kind, "words"}.
"""

import io
import json
import os
import resource
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, cast

import duckdb
import pandas as pd
import pyarrow as pa

import moescope
from moescope.app.queries.settings import settings
from moescope.app.server import tied_process
from moescope.errors import AnalysisError, MoescopeError
from moescope.store.files.exports import export

COLUMNS = 1000
READS = "this page only reads: begin with select, from, with, describe, show or summarize"
Question = dict[str, Any]


def checked(con: duckdb.DuckDBPyConnection, query: str) -> str:
    """The query, if it is one statement that reads. AnalysisError otherwise."""
    try:
        found = con.extract_statements(query)
    except duckdb.Error as error:
        raise AnalysisError(f"this is not SQL that DuckDB understands: {words(error)}") from error
    if len(found) != 1:
        raise AnalysisError(f"one query at a time, please: there are {len(found)} statements")
    if found[0].type != duckdb.StatementType.SELECT:
        raise AnalysisError(READS)
    return query


def words(error: BaseException) -> str:
    """DuckDB's message on one line, with the place it points to."""
    return " ".join(line.strip() for line in str(error).splitlines() if line.strip())[:400]


def bounded(question: Question) -> None:
    """Hold this process to its share: of memory beyond what it has now, of time on all threads, of files none."""
    if sys.platform == "linux":
        now = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        limit(resource.RLIMIT_AS, now + int(question["memory"] * 1.25))  # what is mapped, not all of it in use
    limit(resource.RLIMIT_CPU, int(question["seconds"] * 5) + 5)
    limit(resource.RLIMIT_FSIZE, 0)
    limit(resource.RLIMIT_CORE, 0)


def limit(what: int, most: int) -> None:
    """Lower a limit of this process for good."""
    hard = resource.getrlimit(what)[1]
    most = most if hard == resource.RLIM_INFINITY else min(most, hard)
    resource.setrlimit(what, (most, most))


def opened(question: Question) -> duckdb.DuckDBPyConnection:
    """The store as it is now, locked in, in a transaction that cannot write, whatever the query is made of."""
    memory = f"{int(question['memory'] * 0.9) // 2**20} MiB"
    store = moescope.open(Path(question["store"]), comments=True, settings=settings(memory))
    kept.append(store)  # while it lives, so do the shards of unfinished runs
    bounded(question)
    store.con.execute("begin transaction read only")
    return store.con


kept: list[Any] = []


def chunks(con: duckdb.DuckDBPyConnection) -> Iterator[pd.DataFrame]:
    """The result in pieces; the first may have no rows."""
    piece = con.fetch_df_chunk(1)
    yield piece
    while len(piece):
        piece = con.fetch_df_chunk(5)
        if len(piece):
            yield piece


class Rest:
    """At most so many rows of the pieces; afterwards, whether there were more."""

    def __init__(self, pieces: Iterator[pd.DataFrame], most: int) -> None:
        self.pieces, self.left, self.more = pieces, most, False

    def __iter__(self) -> Iterator[pd.DataFrame]:
        for piece in self.pieces:
            if self.left == 0 and len(piece):
                self.more = True
                return
            self.more = len(piece) > self.left
            yield piece.head(self.left)
            self.left -= min(len(piece), self.left)
            if self.more:
                return


def plain(frame: pd.DataFrame) -> pd.DataFrame:
    """What is no plain value as text: tables show it safely and sort it, and files can hold it."""

    def odd(column: pd.Series) -> bool:
        if column.dtype != object:
            return False
        try:
            pa.array(column, from_pandas=True)
        except (pa.ArrowException, TypeError, ValueError):
            return True
        return bool(column.map(lambda value: isinstance(value, dict)).any())

    return frame.assign(**{name: frame[name].astype(str) for name in frame if odd(frame[name])})


class Bounded(io.RawIOBase):
    """Output that takes so many bytes; AnalysisError when it is too much."""

    def __init__(self, out: BinaryIO, most: int) -> None:
        self.out, self.left, self.most = out, most, most

    def writable(self) -> bool:
        """It is."""
        return True

    def write(self, data: Any) -> int:
        """All of it, or none."""
        size = memoryview(data).nbytes
        self.left -= size
        if self.left < 0:
            raise AnalysisError(f"the result is larger than {self.most // 2**20} MB; ask for fewer rows or shorter values")
        self.out.write(data)
        return size


def as_arrow(pieces: Iterator[pd.DataFrame], out: Bounded) -> None:
    """A table for the page, as an Arrow stream."""
    table = pa.Table.from_pandas(plain(pd.concat(list(pieces), ignore_index=True)), preserve_index=False)
    with pa.ipc.new_stream(out, table.schema) as stream:
        stream.write_table(table)


def answer(question: Question, out: BinaryIO) -> dict[str, Any]:
    """Write the result of the query; what to say after it. MoescopeError, duckdb.Error or MemoryError where it fails."""
    con = opened(question)
    relation, bounds = con.sql(checked(con, question["query"])), Bounded(out, question["bytes"])
    if len(relation.columns) > COLUMNS:
        raise AnalysisError(f"the result has {len(relation.columns)} columns; ask for {COLUMNS} at most")
    if question["kind"] != "table":
        export(relation.limit(question["rows"]), question["kind"], cast(BinaryIO, bounds))
        return {"more": False}
    con.execute(question["query"])
    rest = Rest(chunks(con), question["rows"])
    as_arrow(iter(rest), bounds)
    return {"more": rest.more}


def failed(error: BaseException) -> dict[str, str]:
    """What went wrong, for whoever asked."""
    if isinstance(error, duckdb.TransactionException):  # the one that writes in a transaction that only reads
        return {"failed": "said", "words": f"{READS}; {words(error)}"}
    if isinstance(error, duckdb.OutOfMemoryException | MemoryError | pa.ArrowMemoryError):
        return {"failed": "memory", "words": ""}
    if isinstance(error, duckdb.IOException | FileNotFoundError):
        return {"failed": "changed", "words": words(error)}
    if isinstance(error, MoescopeError | duckdb.Error):
        return {"failed": "said", "words": words(error)}
    return {"failed": "said", "words": f"the result cannot be shown ({type(error).__name__}: {words(error)})"}


def rehearse() -> None:
    """What is loaded at its first use, before anybody waits for it."""
    frame = duckdb.execute("select 1 as n, 'a' as word, date '2020-01-01' as day").fetch_df_chunk(1)
    as_arrow(iter([frame]), Bounded(io.BytesIO(), 1 << 20))


def alone() -> None:
    """End as soon as nobody listens any more."""
    sys.stdin.buffer.read()
    os._exit(1)


def main() -> None:
    """Wait for one question, answer it, end."""
    tied_process.tie(int(sys.argv[1]), signal.SIGKILL)
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints is no answer
    rehearse()
    line = sys.stdin.buffer.readline()
    if not line:
        return
    threading.Thread(target=alone, daemon=True).start()
    try:
        said: dict[str, Any] = answer(json.loads(line), out)
    except BaseException as error:
        said = failed(error)
    out.write(b"\n" + json.dumps(said).encode() + b"\n")
    out.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
