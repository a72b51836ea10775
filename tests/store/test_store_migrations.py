"""Stores of earlier versions: shown under today's names, converted by whatever writes into them, nothing lost.

goldens/store-<n>.tar.xz was written by schema version n: a complete run of a tiny Mixtral (from 5 on its rows apart), and
beside it one that was cut off.
"""

import json
import tarfile
from pathlib import Path

import duckdb
import pytest
import tracing

import moescope
from moescope import analyses
from moescope.errors import StoreError
from moescope.store import RunWriter
from moescope.store.migrations import FIRST, MIGRATIONS, VERSION, is_new, new_name, old_name, readable, today
from moescope.store.trust import expected
from moescope.store.write.change import change_store
from moescope.store.write.unfinished_run import unfinished_runs
from moescope.tracer import trace

GOLDENS = Path(__file__).parents[1] / "goldens"
ROUTERS = [
    ("model.layers.0.mlp.gate", 0, "decoder", "ffn", "triple", 4, 2),
    ("model.layers.1.mlp.gate", 1, "decoder", "ffn", "triple", 4, 2),
]


@pytest.fixture(params=readable()[:-1])
def old(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    with tarfile.open(GOLDENS / f"store-{request.param}.tar.xz") as archive:
        archive.extractall(tmp_path, filter="data")
    return tmp_path / "run.duckdb"


def version(store: Path) -> str:
    with duckdb.connect(str(store), read_only=True) as con:
        return con.execute("select value from meta where key = 'schema_version'").fetchall()[0][0]


def columns(store: Path, table: str) -> list[str]:
    with duckdb.connect(str(store), read_only=True) as con:
        return [name for (name, *_) in con.execute(f"describe {table}").fetchall()]


def content(store: Path) -> list[tuple[object, ...]]:
    with moescope.open(store) as opened:
        return opened.rows(
            "select run, token, r.name, r.block_type, rank, expert, weight from assignments join routers r using (router, run) "
            "order by all"
        )


def test_it_is_read_as_it_is(old: Path) -> None:
    before = old.read_bytes()
    assert version(old) != VERSION
    assert columns(old, "routers")[5] == old_name(version(old), "routers", "block_type")
    with moescope.open(old) as store:
        rows = store.rows("select name, layer, stack, block_type, contract, experts, top_k from routers order by router")
        assert rows == ROUTERS + [(row[0].removeprefix("model."), *row[1:]) for row in ROUTERS]  # of the model without its head
        assert store.rows("select distinct role from experts") == [("routed",)]
        assert store.rows("select name, status, forwards from runs order by run") == [
            ("first", "complete", 1),
            ("cut", "interrupted", 3),
        ]
        assert len(analyses.run("load", store, 0).figures("MaxVio", subset="")) == 2
    assert old.read_bytes() == before


def test_what_writes_into_it_converts_it(old: Path) -> None:
    before, named = content(old), "token" if version(old) >= "4" else None  # what a decision is about: said from 4 on
    change_store(old, lambda con: con.execute("update runs set name = 'renamed' where run = 0"))
    assert version(old) == VERSION
    assert columns(old, "routers")[5] == "block_type"
    assert columns(old, "experts") == ["router", "expert", "role", "expert_name"]
    with moescope.open(old) as store:
        assert store.rows(
            "select distinct decides_on, pool_axes, parent_router, expert_name from routers join experts e using (router)"
        ) == [(named, None, None, None)]
        assert store.rows("select count(*) from conditions") == [(0,)]
    assert content(old) == before
    with duckdb.connect(str(old), read_only=True) as con:  # as a notebook opens it: the views in the file are today's too
        assert con.execute("select distinct block_type from router_summary").fetchall() == [("ffn",)]
    with moescope.open(old) as store:
        assert store.rows("select name from runs order by run") == [("renamed",), ("cut",)]


def test_a_trace_is_added_and_the_run_that_was_cut_off_is_joined(old: Path) -> None:
    before, new = content(old), version(old) >= "4"
    trace(tracing.tiny(), tracing.ids(2), old, name="new")
    again = RunWriter.resume(old, unfinished_runs(old)[0])
    assert ("pool_axes" in json.loads((again.part.path / "head.json").read_text())["routers"][0]) == new
    again.close({"status": "interrupted"}, {})
    assert unfinished_runs(old) == []
    with moescope.open(old) as store:
        assert store.rows("select name, status from runs order by run") == [
            ("first", "complete"), ("new", "complete"), ("cut", "interrupted")
        ]  # fmt: skip
        assert store.rows("select distinct block_type from routers") == [("ffn",)]
        assert store.rows("select count(*) from assignments where run in (0, 2)") == [(len(before),)]


def test_what_another_version_wrote_is_refused_in_one_sentence(old: Path) -> None:
    change_store(old, lambda con: con.execute("update meta set value = '99' where key = 'schema_version'"))
    with pytest.raises(
        StoreError, match=rf"has schema version 99 and this moescope .* reads 2 to {VERSION}; use the moescope that wrote it"
    ):
        moescope.open(old)


def test_steps_lead_from_one_version_to_the_next_and_name_columns_that_are_there() -> None:
    assert [int(name) for name in readable()] == list(range(int(FIRST), int(VERSION) + 1))
    for step in MIGRATIONS:
        for table, names in step.renamed.items():
            for old_column in names:
                assert new_name(table, old_column) in expected()[table]
                assert old_name(FIRST, table, str(new_name(table, old_column))) == old_column
        for table, gone in step.dropped.items():
            assert {new_name(table, name) for name in gone} == {None}
            assert not set(gone) & expected()[table].keys()
        for table, new in step.added.items():
            assert new.keys() <= expected()[table].keys()
            assert [is_new(FIRST, table, name) for name in new] == [True] * len(new)
            assert [is_new(VERSION, table, name) for name in new] == [False] * len(new)
    row = {"router": 1, "site": "ffn", "layer": 3}
    assert today("routers", row) == {"router": 1, "block_type": "ffn", "layer": 3}
    assert today("routers", today("routers", row)) == today("routers", row)
