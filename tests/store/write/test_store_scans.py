"""Large runs are written with the keys of their store, and read together, however many there are."""

from pathlib import Path

import duckdb
import handmade
import pytest
import tracing

import moescope
from moescope.errors import StoreError
from moescope.store import RunWriter
from moescope.store.integrity.verify import verify
from moescope.store.write import apart, pack, scans
from moescope.store.write.many.moved import Aside, join_packed, packed
from moescope.store.write.unfinished_run import UnfinishedRun, parts_folder

COUNTS = "select run, count(*), count(distinct token), min(token), sum(weight) from routing group by all order by run"
KEYS = '{"run": 1, "router": 2, "forward": 2, "sequence": 2, "token": 4}'
TABLES = ("routes_2", "tokens", "sequences", "forwards", "vocab_rollup")


@pytest.fixture(autouse=True)
def large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(apart.SETTING, "1")


def begun(store: Path, name: str) -> RunWriter:
    """A run of two shards that is not finished."""
    return handmade.written(store, close=False, name=name)


def finished(writer: RunWriter) -> int:
    return writer.close(handmade.FINAL, {"batches": 2, "sequences": 2, "total": 2})


def read_together(store: Path) -> dict[str, int]:
    """Scans of each table's view in the file."""
    with duckdb.connect(str(store), read_only=True) as con:
        found = dict(con.execute("select view_name, sql from duckdb_views() where not internal").fetchall())
    return {table: found[table].count("read_parquet") for table in TABLES}


def plainly(store: Path, sql: str = COUNTS) -> list[tuple[object, ...]]:
    with duckdb.connect(str(store), read_only=True) as con:
        return con.execute(sql).fetchall()


@pytest.fixture(scope="module")
def four(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """What a store tells that has four runs in one file."""
    store = tmp_path_factory.mktemp("one") / "run.duckdb"
    for _ in range(4):
        handmade.written(store)
    return tracing.told(store)


def sound(store: Path, four: dict[str, list[str]]) -> None:
    """It has four runs, and tells what one file tells that has them, read either way and packed."""
    with moescope.open(store) as opened:
        assert [check.rule for check in verify(opened) if check.broken] == []
        counts = opened.rows(COUNTS)
    assert plainly(store) == counts
    assert tracing.differences(store, four) == {}
    pack.pack(store)
    assert plainly(store) == counts


def test_runs_of_the_same_columns_are_one_scan(tmp_path: Path, four: dict[str, list[str]]) -> None:
    store = tmp_path / "run.duckdb"
    for name in ("first", "second", "third", "fourth"):
        finished(begun(store, name))
        assert read_together(store) == {**dict.fromkeys(TABLES, 1), "routes_2": 2}  # with `dropped`, and without
    sound(store, four)


def test_scans_that_cannot_have_what_is_asked_are_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, four: dict[str, list[str]]
) -> None:
    monkeypatch.setattr(scans, "_LEAST", 1)
    store = tmp_path / "run.duckdb"
    for name in ("first", "second", "third", "fourth"):
        finished(begun(store, name))
    assert read_together(store) == {"routes_2": 8, "tokens": 8, "sequences": 8, "forwards": 4, "vocab_rollup": 4}
    with moescope.open(store) as opened:
        for table, key, last in (("tokens", "token", 15), ("routes_2", "token", 15), ("sequences", "sequence", 7)):
            for value, count in ((0, 1), (last, 1), (last + 1, 0)):
                plan = opened.rows(f"explain select * from {table} where {key} = {value}")[0][1]
                assert plan.count("READ_PARQUET") == count
    sound(store, four)


@pytest.mark.parametrize("order", [(1, 0, 2)])
def test_runs_that_are_traced_at_once(tmp_path: Path, four: dict[str, list[str]], order: tuple[int, ...]) -> None:
    """They plan the same keys; who is finished first has them, and the others are moved."""
    store = tmp_path / "run.duckdb"
    finished(begun(store, "before"))
    writers = [begun(store, name) for name in ("first", "second", "third")]
    assert [writer.part.keys for writer in writers] == [{"run": 1, "router": 2, "forward": 2, "sequence": 2, "token": 4}] * 3
    assert [finished(writers[number]) for number in order] == [1, 2, 3]
    assert read_together(store) == {**dict.fromkeys(TABLES, 3), "routes_2": 6}
    sound(store, four)


def test_the_keys_in_shards_are_those_of_the_store(tmp_path: Path) -> None:
    store = tmp_path / "run.duckdb"
    finished(begun(store, "first"))
    writer = begun(store, "second")
    with moescope.open(store) as opened:  # also before it is finished
        tokens = opened.rows("select run, token, sequence from tokens order by token")
        decisions = opened.rows("select run, forward, router, token from decisions order by all")
    file = parts_folder(store) / writer.part.path.name / "shard-000001" / "routes_2.parquet"
    with duckdb.connect() as con:
        own = con.execute("select run, forward, router, token from read_parquet(?) order by all", [str(file)]).fetchall()
    assert own == [(1, 3, 2, 6), (1, 3, 2, 7), (1, 3, 3, 6), (1, 3, 3, 7)]
    assert tokens == [(n // 4, n, n // 2) for n in range(8)]
    assert decisions[8:] == [(1, 2, 2, 4), (1, 2, 2, 5), (1, 2, 3, 4), (1, 2, 3, 5), *own]
    finished(writer)
    with moescope.open(store) as opened:
        assert opened.rows("select run, token, sequence from tokens order by token") == tokens
        assert opened.rows("select run, forward, router, token from decisions order by all") == decisions


def test_a_run_from_another_store(tmp_path: Path, four: dict[str, list[str]]) -> None:
    """It has the keys of that store in its shards."""
    source, target = tmp_path / "from.duckdb", tmp_path / "run.duckdb"
    finished(begun(source, "before"))
    for number in range(3):
        finished(begun(target, f"run {number}"))
    writer = Aside.create(source, {**handmade.HEAD, "run": {**handmade.HEAD["run"], "name": "sent"}})
    for number in range(2):
        handmade.batch(writer, number)
        writer.commit({"batches": number + 1})
    finished(writer)
    assert join_packed(target, packed(UnfinishedRun(writer.part.path))) == 3
    sound(target, four)


@pytest.mark.sampled(1)
@pytest.mark.parametrize("keys", ['{"run": 1}', KEYS.replace("1", "-1")])
def test_keys_that_a_head_does_not_say_soundly_leave_the_run_aside(tmp_path: Path, keys: str) -> None:
    store = tmp_path / "run.duckdb"
    finished(begun(store, "first"))
    writer = begun(store, "second")
    writer.release()
    head = writer.part.path / "head.json"
    whole = head.read_text()
    head.write_text(whole.replace(KEYS, keys))
    with pytest.warns(UserWarning, match="head.json does not say where keys begin"):
        opened = moescope.open(store)
    with opened:
        assert opened.rows("select name from runs") == [("first",)]
    head.write_text(whole)
    finished(RunWriter.resume(store, writer.part.first(2)))
    with moescope.open(store) as opened:
        assert opened.rows("select name from runs order by run") == [("first",), ("second",)]


def test_keys_that_would_pass_the_last_are_refused(tmp_path: Path) -> None:
    writer = begun(tmp_path / "run.duckdb", "first")
    writer.part.keys.update(dict.fromkeys(("run", "router", "forward", "sequence", "token"), 0) | {"token": 2**32 - 5})
    handmade.batch(writer, 0)
    with pytest.raises(StoreError, match="has no room for so many: its tokens end at 4294967296; begin another store"):
        writer.commit({})
