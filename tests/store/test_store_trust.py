"""A store from a stranger: nothing in it is run, and a query over it reaches nothing else."""

import contextlib
from collections.abc import Callable
from pathlib import Path

import duckdb
import handmade
import pytest
from click.testing import CliRunner

import moescope
from moescope.cli import main
from moescope.errors import MoescopeError, StoreError

SECRET = "a secret of the reader"
READERS = ["info", "verify", "sql"]


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    path = tmp_path / "secret.txt"
    path.write_text(SECRET)
    return path


def strange(store: Path, *statements: str) -> Path:
    """A store into which somebody wrote with plain DuckDB."""
    handmade.written(store)
    with duckdb.connect(str(store)) as con:
        for statement in statements:
            con.execute(statement)
    return store


def said(store: Path) -> str:
    """What all commands that read say."""
    queries = ["from runs", "from load_balance", "from routing", "from router_summary", "from expert_load"]
    lines = [["info", str(store)], ["verify", str(store)], *(["sql", str(store), query] for query in queries)]
    return "".join(CliRunner().invoke(main, line).output for line in lines)


VIEWS = ["load_balance", "routing", "expert_load", "router_summary", "decisions", "assignments"]


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.sampled(1)
def test_a_view_named_like_ours_is_not_run(tmp_path: Path, secret: Path, view: str) -> None:
    plain = tmp_path / "plain.duckdb"
    handmade.written(plain)
    store = strange(tmp_path / "x.duckdb", f"create or replace view {view} as select content as run from read_text('{secret}')")
    assert SECRET not in said(store)
    query = f"from {view} order by all"
    with moescope.open(store) as opened, moescope.open(plain) as ours:
        assert opened.rows(query) == ours.rows(query)


TABLES: dict[str, Callable[[Path], str]] = {
    "a view for a table": lambda f: f"drop table runs cascade; create view runs as select * from read_csv('{f}')",
    "a view for meta": lambda f: f"create table m as from meta; drop table meta; create view meta as from m where '{f}' <> ''",
    "a column that is computed": lambda f: "alter table vocab drop text; alter table vocab add text varchar "
                                          "default (repeat('x', 9))",
    "another type": lambda f: "alter table tokens alter vocab_id type varchar",
    "a column less": lambda f: "alter table sequences drop document",
    "another type of a routed column": lambda f: "alter table routes_2 alter e1 type varchar",
}  # fmt: skip


@pytest.mark.parametrize("case", TABLES)
def test_a_table_that_is_none_of_ours_is_refused(tmp_path: Path, secret: Path, case: str) -> None:
    store = strange(tmp_path / "x.duckdb", TABLES[case](secret))
    with pytest.raises(StoreError, match=r"not a moescope store as moescope writes it|no moescope store"):
        moescope.open(store)
    with pytest.raises(StoreError):
        handmade.written(store)
    assert SECRET not in said(store)


def test_a_generated_column_is_never_computed(tmp_path: Path) -> None:
    columns = "model uinteger, vocab_id uinteger, text varchar generated always as (error('computed'))"
    store = strange(tmp_path / "x.duckdb", "drop table vocab cascade", f"create table vocab ({columns})")
    with pytest.raises(StoreError, match=r"vocab\.text is computed there"):
        moescope.open(store)


MACROS = ["concat_ws(a, b) as error('run')", "log2(x) as error('run')", "sum(x) as error('run')", "lower(x) as error('run')"]


@pytest.mark.parametrize("macro", MACROS)
def test_a_macro_named_like_a_function_is_not_run(tmp_path: Path, macro: str) -> None:
    store = tmp_path / "x.duckdb"
    try:
        strange(store, f"create macro {macro}")
    except duckdb.Error:
        pytest.skip("DuckDB allows no macro of that name")
    with moescope.open(store) as opened:
        assert opened.rows("select entropy_bits, busiest from load_balance where layer = 4")[0][1] == 2
    before = store.read_bytes()
    with pytest.raises(StoreError, match=r"has a macro \w+; nothing is written into it"):
        handmade.written(store)
    assert store.read_bytes() == before


def test_a_macro_of_the_users_own_is_kept(tmp_path: Path) -> None:
    store = strange(tmp_path / "x.duckdb", "create macro twice(x) as 2 * x")
    handmade.written(store)
    with duckdb.connect(str(store), read_only=True) as con:
        assert con.execute("select twice(count(*)) from runs").fetchall() == [(4,)]


def test_a_trigger_is_not_fired(tmp_path: Path) -> None:
    make = "create trigger t after insert on runs for each statement insert into models (name) values ('planted')"
    store = strange(tmp_path / "x.duckdb", make)
    before = store.read_bytes()
    with pytest.raises(StoreError, match="has a trigger t; nothing is written into it"):
        handmade.written(store)
    assert store.read_bytes() == before
    with moescope.open(store) as opened:
        assert opened.rows("select name from models") == [("toy",)]


REACHING = [
    "select content from read_text('{file}')", "from read_csv('{file}')", "from '{file}'",
    "select file from glob('{folder}/*')", "attach '{file}' as x", "copy (select 1) to '{folder}/out.csv'",
    "export database '{folder}/out'", "install httpfs", "load '{file}'", "from read_parquet('https://example.org/x.parquet')",
    "create secret s (type s3)", "set enable_external_access = true", "set allowed_paths = ['/']",
    "set lock_configuration = false", "reset enable_external_access", "set threads = 1", "pragma enable_profiling = 'json'",
    "set temp_directory = '{folder}'", "from frame", "delete from base.runs",
    "create or replace view base.main.load_balance as select 1",
]  # fmt: skip


@pytest.mark.sampled(16)
@pytest.mark.parametrize("growing", [False, True])
@pytest.mark.parametrize("query", REACHING)
def test_a_query_reaches_nothing_but_the_store(tmp_path: Path, secret: Path, query: str, growing: bool) -> None:
    import pandas as pd

    frame = pd.DataFrame({"x": [SECRET]})
    store = tmp_path / "x.duckdb"
    writer = handmade.written(store, close=not growing)
    before = sorted(p for p in tmp_path.rglob("*"))
    asked = query.format(file=secret, folder=tmp_path)
    with moescope.open(store) as opened, pytest.raises(duckdb.Error):
        opened.con.execute(asked).fetchall()
    done = CliRunner().invoke(main, ["sql", str(store), asked])
    assert done.exit_code != 0
    assert SECRET not in done.output
    assert sorted(p for p in tmp_path.rglob("*")) == before
    assert len(frame) == 1
    writer.release()


def test_a_query_writes_over_no_shard(tmp_path: Path) -> None:
    store = tmp_path / "x.duckdb"
    writer = handmade.written(store, close=False)
    shard = writer.part.path / "shard-000000" / "tokens.parquet"
    before = shard.read_bytes()
    for query in (
        f"copy (select 1) to '{shard}'",
        f"from runs; copy (select 1) to '{shard}'",
        f"export database '{shard.parent}'",
    ):
        assert CliRunner().invoke(main, ["sql", str(store), query]).exit_code == 2
    assert shard.read_bytes() == before
    writer.release()


def test_who_means_it_may_reach_other_files(tmp_path: Path, secret: Path) -> None:
    store = tmp_path / "x.duckdb"
    handmade.written(store)
    query = f"select content from read_text('{secret}')"
    assert SECRET in CliRunner().invoke(main, ["sql", str(store), query, "--allow-external"]).output
    with moescope.open(store, external=True) as opened:
        assert opened.rows(query) == [(SECRET,)]


def test_a_frame_is_given_by_name(tmp_path: Path) -> None:
    import pandas as pd

    handmade.written(tmp_path / "x.duckdb")
    with moescope.open(tmp_path / "x.duckdb") as opened:
        opened.con.register("wanted", pd.DataFrame({"layer": [4]}))
        assert opened.rows("select distinct layer from routing join wanted using (layer)") == [(4,)]


def test_settings_are_made_before_they_are_locked(tmp_path: Path) -> None:
    handmade.written(tmp_path / "x.duckdb")
    with moescope.open(tmp_path / "x.duckdb", settings={"memory_limit": "100MiB", "threads": "1"}) as opened:
        assert opened.rows("select current_setting('memory_limit'), current_setting('threads')") == [("100.0 MiB", 1)]


def test_comments_come_when_they_are_wanted(tmp_path: Path) -> None:
    handmade.written(tmp_path / "x.duckdb")
    where = "table_name = 'routing' and column_name = 'weight' and database_name = 'memory'"
    query = f"select comment from duckdb_columns() where {where}"
    for comments, said in ((True, "what multiplied it"), (False, None)):
        with moescope.open(tmp_path / "x.duckdb", comments=comments) as opened:
            assert opened.rows(query) == [(said,)]


def test_part_of_a_stranger_writes_only_tables_of_ours(tmp_path: Path) -> None:
    """His unfinished run names a table that is none of the rows of a run."""
    import shutil

    store = tmp_path / "x.duckdb"
    writer = handmade.written(store, close=False)
    shard = writer.part.path / "shard-000000"
    for name in ("models", "meta", "load_balance", "routes_99", "x; drop table runs"):
        shutil.copy(shard / "tokens.parquet", shard / f"{name}.parquet")
    with moescope.open(store) as opened:
        assert opened.rows("select count(*) from models") == [(1,)]
    with contextlib.suppress(MoescopeError):
        writer.close(handmade.FINAL, {})
    with moescope.open(store) as opened:
        assert opened.rows("select name from models") == [("toy",)]
