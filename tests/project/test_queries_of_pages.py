"""Every SQL query that a page shows can be asked of a store of today: its views and columns are there."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pytest

from docs.update_blocks import PAGES
from moescope.store.schema import create_tables, create_views

ASKS = re.compile(r"\s*(select|with|from|describe)\b", re.IGNORECASE)


def queries(text: str) -> list[str]:
    """Of `moescope sql` in any block, of blocks of SQL, and of `store.sql("...")` in programs."""
    blocks = re.findall(r"^```(\w*)[^\n]*\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    lines = [line for _, body in blocks for line in re.findall(r"moescope sql (.*)", body.replace("\\\n", ""))]
    typed = [word for line in lines for word in shlex.split(line, comments=True) if ASKS.match(word)]
    written = [query for kind, body in blocks if kind == "sql" for query in body.split(";") if query.strip()]
    return typed + written + [query for _, body in blocks for query in re.findall(r'\.sql\("(.*?)"\)', body)]


@pytest.fixture(scope="module")
def empty() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect() as con:
        create_tables(con)
        create_views(con)
        yield con


def test_queries_are_found_in_pages() -> None:
    found = {page.name for page in PAGES if queries(page.read_text("utf-8"))}
    assert found >= {"README.md", "index.md", "five-minutes.md", "own-model.md", "a-study.md", "training.md"}


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_its_queries_can_be_asked(page: Path, empty: duckdb.DuckDBPyConnection) -> None:
    for query in queries(page.read_text("utf-8")):
        empty.execute(f"explain {query}")


def test_a_column_that_is_gone_is_noticed(empty: duckdb.DuckDBPyConnection) -> None:
    (query,) = queries('```console\n$ moescope sql run.duckdb "select layer, nowhere from routing"  # of all\n```\n')
    with pytest.raises(duckdb.BinderException, match="nowhere"):
        empty.execute(f"explain {query}")
