"""Queries about a store on Spark (extra `spark`): groupings by range of tokens, and by its own joins SQL that cannot be cut so.

Spark reads no table of ours: each of its tasks has DuckDB give it a range of tokens of the table or view that a query names,
only the columns that it names. So what a column means is said once, in the store's views.
"""

import os
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from ...errors import InputError, StoreError
from ..remote.addresses import known_as
from .reach import check_answers
from .shared import Bounds, SharedStore, answers
from .spark_sql import Asked, read

_PARTS = 4  # for every core
_ELSEWHERE = re.compile(r"local(-cluster)?\[.+\]$|local$|yarn|k8s://")  # what does not say itself where to ask
_MEMORY = "2g"
_CHANGED = "has changed since it was opened"


class SparkEngine:
    """A cluster by its address (`spark://HOST:PORT`), or the cores of this machine (`local[2]`)."""

    name = "spark"

    def __init__(self, address: str | None = None) -> None:
        try:
            import pyspark.sql as spark
            import sqlglot  # noqa: F401
        except ImportError as error:
            raise InputError("engine spark needs pyspark and sqlglot: pip install 'moescope[spark]'") from error
        if address and not _ELSEWHERE.match(address):
            check_answers("Spark", address, "spark", "spark://HOST:PORT or local[2]")
        os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
        where, local = address or f"local[{os.cpu_count() or 1}]", not address or address.startswith("local")
        said = spark.SparkSession.builder.master(where).appName("moescope")
        settings = {
            "spark.ui.enabled": "false",
            "spark.ui.showConsoleProgress": "false",
            "spark.sql.session.timeZone": "UTC",
            "spark.log.level": "OFF",
        }
        settings |= {"spark.driver.memory": os.environ.get("SPARK_DRIVER_MEMORY", _MEMORY)}
        settings |= {"spark.driver.bindAddress": "127.0.0.1", "spark.driver.host": "127.0.0.1"} if local else {}
        for name, value in settings.items():
            said = said.config(name, value)
        try:
            self._spark = said.getOrCreate()
        except Exception as error:
            raise InputError(f"Spark does not start at {where}: {_why(error)}; it needs Java 17 (JAVA_HOME)") from error
        self._spark.conf.set("spark.sql.shuffle.partitions", max(2, self._spark.sparkContext.defaultParallelism))
        self.parts = max(2, _PARTS * self._spark.sparkContext.defaultParallelism)

    def ask(self, path: Path, opened: tuple[Any, ...] | None, queries: Sequence[str]) -> list[pa.Table]:
        """The answers, in order. StoreError where the store is another than the one that was opened."""
        where = known_as(path)

        def answered(query: str) -> bytes:
            table = answers(where, opened, query)
            sink = pa.BufferOutputStream()
            with pa.ipc.new_stream(sink, table.schema) as stream:
                stream.write_table(table)
            return bytes(sink.getvalue())

        try:
            found = self._spark.sparkContext.parallelize(list(queries), len(queries)).map(answered).collect()
        except Exception as error:
            raise StoreError(f"Spark could not count over {path}: {_why(error)}") from error
        return [pa.ipc.open_stream(one).read_all() for one in found]

    def ask_whole(self, store: SharedStore, query: str, bounds: Sequence[Bounds]) -> pa.Table | None:
        """The answer, its columns in order; None for a query that is not certain to mean the same there, or that Spark refuses.

        StoreError where the store is another than the one that was opened.
        """
        asked = read(store, query)
        if asked is None:
            return None
        try:
            for table in asked.tables:
                self._viewed(store, asked, table, bounds)
            return self._spark.sql(asked.query).toArrow()
        except Exception as error:
            if _CHANGED in str(error):
                raise StoreError(f"{store.path} {_CHANGED}; open it again") from error
            return None

    def _viewed(self, store: SharedStore, asked: Asked, table: str, bounds: Sequence[Bounds]) -> None:
        """Let Spark's SQL see a table: rows that DuckDB gives, by range of tokens where it has them."""
        queries, schema = asked.given(store, table, bounds)
        where, opened = known_as(store.path), store.opened

        def rows(numbers: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
            for batch in numbers:
                for number in batch.column(0).to_pylist():
                    yield from answers(where, opened, queries[number]).to_batches()

        frame = self._spark.range(0, len(queries), 1, len(queries)).mapInArrow(rows, schema)
        frame.createOrReplaceTempView(table)

    def close(self) -> None:
        """Let go of Spark."""
        self._spark.stop()


def _why(error: Exception) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()]
    own = [line for line in lines if "moescope.errors" in line]
    return (own or lines or [type(error).__name__])[-1 if own else 0].strip()[:240]
