"""What a process left as it is need not be looked at or written again; whatever somebody else did to it is seen."""

from pathlib import Path
from typing import Any

import duckdb
import pytest
import small
import torch

import moescope
from moescope.errors import StoreError
from moescope.store import schema
from moescope.store.write import change, working_copy


def _run(path: Path, **settings: Any) -> None:
    model = small.mixtral(**settings)
    with moescope.Tracer(model, path), torch.no_grad():
        model(small.ids())


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is done to a store: views made, files opened to be looked at."""
    done: list[str] = []
    working_copy.empty()  # once for all stores of a process
    views, connect = schema.create_routed_views, change.connect
    monkeypatch.setattr(schema, "create_routed_views", lambda *args: (done.append("views"), views(*args))[1])
    monkeypatch.setattr(change, "connect", lambda *args: (done.append("look"), connect(*args))[1])
    return done


def test_a_store_is_looked_at_when_somebody_else_wrote_it(tmp_path: Path, counted: list[str]) -> None:
    path = tmp_path / "run.duckdb"
    _run(path)
    first = len(counted)
    for _ in range(3):
        _run(path)
    assert counted[first:] == []
    with duckdb.connect(str(path)) as con:
        con.execute("create table mine as select 1 as one")
    _run(path)
    assert counted[first:] == ["look"]
    with moescope.open(path) as store:
        runs = "select r.run, count(*) from decisions join routers r using (router) group by r.run order by 1"
        assert store.rows(runs) == [(run, 28) for run in range(5)]


def test_views_follow_the_tables(tmp_path: Path, counted: list[str]) -> None:
    """A run of another k brings another table, so the views of the file are made anew: plain DuckDB sees all runs."""
    path = tmp_path / "run.duckdb"
    for k in (2, 3, 2):
        _run(path) if k == 2 else _other(path)
    assert counted.count("views") == 2  # of its first run, of the first of another k
    with duckdb.connect(str(path), read_only=True) as con:
        rows = con.execute("select count(*) from assignments group by router order by router").fetchall()
    assert [n for (n,) in rows] == [28, 28, 42, 42, 28, 28]


def _other(path: Path) -> None:
    model = small.mixtral()
    for layer in model.model.layers:
        layer.mlp.gate.top_k = 3
    with moescope.Tracer(model, path), torch.no_grad():
        model(small.ids())


def test_what_is_put_into_a_known_store_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "run.duckdb"
    _run(path)
    with duckdb.connect(str(path)) as con:
        con.execute("create macro main.count(x) as 42")
    with pytest.raises(StoreError, match="macro"):
        _run(path)
